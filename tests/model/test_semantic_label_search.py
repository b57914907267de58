"""The search for labels against the plain rule: all scores at full size, then the arg max."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_maskadapter.model import post_processing_maskadapter as post_processing
from hf_maskadapter.model import semantic_label_search
from hf_maskadapter.model.post_processing_maskadapter import post_process_semantic_segmentation
from hf_maskadapter.model.semantic_label_search import Axis, LabelSearch, Taps

MASKS = ("smooth", "saturated", "noise", "constant", "duplicates")
CLASSES = ("peaked", "flat", "equal")
NO_TIE = 1e-6  # relative to the largest possible score; closer ones may be ordered either way by rounding


def make_outputs(seed, num_masks, num_classes, cells, padded, image, masks="smooth", classes="peaked", are_logits=True):
    """Scores and masks of a kind, for one picture."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = torch.randn(num_masks, num_classes + 1, generator=generator)
    if classes == "peaked":
        winners = torch.randint(num_classes, (num_masks, 1), generator=generator)
        class_logits.scatter_add_(1, winners, torch.full((num_masks, 1), 6.0))
    elif classes == "equal":
        class_logits.zero_()
    coarse = torch.randn(1, num_masks, 4, 4, generator=generator)
    values = F.interpolate(coarse, size=cells, mode="bicubic")[0]
    if masks == "saturated":
        values = 60 * values
    elif masks == "noise":
        values = 4 * torch.randn(num_masks, *cells, generator=generator)
    elif masks == "constant":
        values = torch.randn(num_masks, 1, 1, generator=generator).expand(num_masks, *cells)
    elif masks == "duplicates":
        values = 8 * values[:1].expand(num_masks, *cells)
    return SimpleNamespace(
        class_queries_logits=class_logits[None],
        masks_queries_logits=values[None] if are_logits else None,
        mask_probabilities=None if are_logits else values.sigmoid()[None],
        image_sizes=torch.tensor([image]),
        padded_size=torch.tensor(padded),
    )


def resize(maps, size):
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def plain_scores(outputs, target, resize_scores):
    """All scores, in double precision."""
    (height, width), padded = outputs.image_sizes[0].tolist(), tuple(outputs.padded_size.tolist())
    masks, to_probabilities = outputs.masks_queries_logits, torch.sigmoid
    if masks is None:
        masks, to_probabilities = outputs.mask_probabilities, torch.nn.Identity()
    masks = resize(masks[0].double(), padded)[:, :height, :width]
    masks = masks if resize_scores else resize(masks, target)
    class_probabilities = outputs.class_queries_logits[0].double().softmax(dim=-1)[:, :-1]
    scores = torch.einsum("qc,qhw->chw", class_probabilities, to_probabilities(masks))
    return resize(scores, target) if resize_scores else scores


def assert_labels_are_the_arg_max(label_map, scores, num_masks):
    assert label_map.dtype == torch.long
    assert label_map.shape == scores.shape[1:]
    of_chosen = scores.gather(0, label_map[None])[0]
    assert (scores.amax(dim=0) - of_chosen).amax() <= NO_TIE * num_masks


@pytest.fixture
def always_search(monkeypatch):
    monkeypatch.setattr(post_processing, "_SEARCH_FROM_PRODUCTS", 0)


sides = st.integers(1, 70)


@settings(max_examples=120, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    num_masks=st.integers(1, 50),
    num_classes=st.sampled_from([1, 2, 3, 20, 90]),
    cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    image=st.tuples(sides, sides),
    target=st.tuples(sides, sides),
    masks=st.sampled_from(MASKS),
    classes=st.sampled_from(CLASSES),
    are_logits=st.booleans(),
    resize_scores=st.booleans(),
)
def test_labels_are_the_arg_max_of_all_scores(
    seed, num_masks, num_classes, cells, padding, image, target, masks, classes, are_logits, resize_scores
):
    padded = (image[0] + padding[0], image[1] + padding[1])
    outputs = make_outputs(seed, num_masks, num_classes, cells, padded, image, masks, classes, are_logits)
    before = post_processing._SEARCH_FROM_PRODUCTS
    post_processing._SEARCH_FROM_PRODUCTS = 0
    try:
        (label_map,) = post_process_semantic_segmentation(outputs, [target], resize_scores)
    finally:
        post_processing._SEARCH_FROM_PRODUCTS = before
    assert_labels_are_the_arg_max(label_map, plain_scores(outputs, target, resize_scores), num_masks)


@pytest.mark.parametrize("resize_scores", [False, True])
@pytest.mark.parametrize("target", [(97, 131), (64, 50), (33, 20)])
def test_many_classes_give_the_very_labels_of_the_strips(monkeypatch, target, resize_scores):
    outputs = make_outputs(0, 120, 300, (25, 33), (100, 132), (97, 131), "saturated")
    results = []
    for products in (0, 2**60):
        monkeypatch.setattr(post_processing, "_SEARCH_FROM_PRODUCTS", products)
        results.append(post_process_semantic_segmentation(outputs, [target], resize_scores)[0])
    assert len(results[0].unique()) > 10
    assert torch.equal(*results)


def test_of_equal_classes_the_first_wins(always_search):
    outputs = make_outputs(0, 5, 40, (9, 9), (36, 36), (36, 36), classes="equal")
    (label_map,) = post_process_semantic_segmentation(outputs)
    assert not label_map.any()


def test_without_masks_every_pixel_is_of_the_first_class(always_search):
    outputs = make_outputs(0, 1, 4, (5, 5), (20, 20), (20, 20), are_logits=False)
    outputs.mask_probabilities.zero_()
    (label_map,) = post_process_semantic_segmentation(outputs)
    assert label_map.shape == (20, 20)
    assert not label_map.any()


def test_half_precision_is_read_as_it_is(always_search):
    outputs = make_outputs(1, 20, 30, (20, 20), (80, 80), (80, 80), "saturated")
    outputs.masks_queries_logits = outputs.masks_queries_logits.bfloat16()
    (label_map,) = post_process_semantic_segmentation(outputs)
    assert_labels_are_the_arg_max(label_map, plain_scores(outputs, (80, 80), False), 20)


@pytest.mark.parametrize(("seed", "masks"), [(0, "saturated"), (1, "saturated"), (2, "smooth")])
def test_few_scores_are_computed(monkeypatch, always_search, seed, masks):
    sizes = []
    largest = semantic_label_search.index_of_largest

    def watched(maps):
        sizes.append(maps.numel())
        return largest(maps)

    monkeypatch.setattr(semantic_label_search, "index_of_largest", watched)
    outputs = make_outputs(seed, 100, 400, (64, 64), (256, 256), (256, 256), masks)
    (label_map,) = post_process_semantic_segmentation(outputs)
    assert len(label_map.unique()) > 5
    assert sum(sizes) < 400 * 256 * 256 / 10
    assert max(sizes) <= 400 * 32 * 32


def test_the_search_is_chosen_for_many_products_on_one_thread(monkeypatch):
    chosen = []
    monkeypatch.setattr(LabelSearch, "label_map", lambda self: chosen.append(True))
    outputs = make_outputs(0, 3, 4, (5, 5), (20, 20), (20, 20))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for products, expected in ((3 * 4 * 400 // 4 - 1, 1), (3 * 4 * 400 // 4, 0)):
        monkeypatch.setattr(post_processing, "_SEARCH_FROM_PRODUCTS", products)
        chosen.clear()
        post_process_semantic_segmentation(outputs)
        assert len(chosen) == expected


def test_the_search_is_chosen_for_many_masks_whatever_the_classes(monkeypatch):
    chosen = []
    monkeypatch.setattr(LabelSearch, "label_map", lambda self: chosen.append(True))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(post_processing, "_SEARCH_FROM_MASKS", 3)
    for num_masks, values, expected in ((3, 3 * 400 // 4 - 1, 1), (3, 3 * 400 // 4, 0), (2, 0, 0)):
        monkeypatch.setattr(post_processing, "_SEARCH_FROM_VALUES", values)
        chosen.clear()
        post_process_semantic_segmentation(make_outputs(0, num_masks, 2, (5, 5), (20, 20), (20, 20)))
        assert len(chosen) == expected


@pytest.mark.parametrize("resize_scores", [False, True])
@pytest.mark.parametrize("num_classes", [1, 2, 5, 10])
def test_few_classes_of_many_masks_have_the_labels_of_all_scores(num_classes, resize_scores):
    outputs = make_outputs(0, 220, num_classes, (50, 66), (200, 264), (197, 263), "saturated")
    assert post_processing._SEARCH_FROM_MASKS <= 220
    (label_map,) = post_process_semantic_segmentation(outputs, [(197, 263)], resize_scores)
    assert len(label_map.unique()) > num_classes / 2
    assert_labels_are_the_arg_max(label_map, plain_scores(outputs, (197, 263), resize_scores), 220)


def test_one_class_is_everywhere_without_a_look_at_masks(monkeypatch):
    monkeypatch.setattr(LabelSearch, "label_map", lambda self: pytest.fail("it was searched for"))
    monkeypatch.setattr(post_processing, "_score_strips", lambda *_: pytest.fail("scores were computed"))
    outputs = make_outputs(0, 3, 1, (5, 5), (20, 20), (20, 20))
    (label_map,) = post_process_semantic_segmentation(outputs, [(7, 9)])
    assert torch.equal(label_map, torch.zeros(7, 9, dtype=torch.long))


def test_taps_resize_as_interpolate_does():
    generator = torch.Generator().manual_seed(0)
    for old, between, kept, new in ((5, 20, 17, 9), (7, 7, 6, 13), (1, 4, 3, 3)):
        values = torch.randn(2, old, 1, generator=generator)
        expected = resize(resize(values, (between, 1))[:, :kept], (new, 1))
        taps = Taps.bilinear(old, between, kept).then(Taps.bilinear(kept, new))
        cells, matrix = taps.window(slice(1, new))
        torch.testing.assert_close(matrix @ values[:, cells], expected[:, 1:])
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(new - 1))


def test_an_axis_resizes_mask_values_or_what_becomes_of_them():
    assert Axis.of(5, 20, 20, 20, resize_scores=True).after is None
    assert Axis.of(5, 20, 18, 30, resize_scores=False).after is None
    for resize_scores in (False, True):
        assert len(Axis.of(5, 20, 18, 30, resize_scores)) == 30
