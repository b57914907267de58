"""Post-processing against plain, dense implementations of the published rules, and its mathematical properties."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_maskadapter.model import post_processing_maskadapter as post_processing
from hf_maskadapter.model.post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
    segment,
    semantic_scores,
)
from hf_maskadapter.model.vocabulary import Vocabulary

PADDED = (32, 64)
IMAGE = (27, 50)
TARGETS = [None, IMAGE, (61, 97), (9, 13), (1, 1), (27, 200)]
NO_TIE = 1e-5  # scores that differ by less may be ordered either way by rounding
quick = settings(max_examples=25, derandomize=True)


def make_outputs(num_masks=7, num_classes=5, batch_size=1, seed=0, are_logits=True, dtype=torch.float32):
    """Random class scores, and smooth masks with values well away from 0."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 3 * torch.randn(batch_size, num_masks, num_classes + 1, generator=generator)
    coarse = 8 * torch.randn(batch_size, num_masks, 3, 4, generator=generator)
    masks = coarse.new_zeros(batch_size, num_masks, 8, 16)
    if num_masks:
        masks = F.interpolate(coarse, size=(8, 16), mode="bicubic")
    masks = masks if are_logits else masks.sigmoid()
    return SimpleNamespace(
        class_queries_logits=class_logits.log_softmax(dim=-1).to(dtype),
        masks_queries_logits=masks.to(dtype) if are_logits else None,
        mask_probabilities=None if are_logits else masks.to(dtype),
        image_sizes=torch.tensor([IMAGE, (32, 40), (20, 64)])[torch.arange(batch_size) % 3],
        padded_size=torch.tensor(PADDED),
    )


def flat_outputs(class_probabilities, masks):
    """One picture whose masks, 0 or 1, are given at its own size."""
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.float32)
    size = torch.tensor(masks.shape[-2:])
    return SimpleNamespace(
        class_queries_logits=torch.tensor(class_probabilities).log()[None],
        masks_queries_logits=None,
        mask_probabilities=masks[None],
        image_sizes=size[None],
        padded_size=size,
    )


def select(outputs, masks=slice(None), pictures=slice(None)):
    """The same outputs with some of the masks, in some order, or some of the pictures."""
    picked = {}
    for name in ("class_queries_logits", "masks_queries_logits", "mask_probabilities"):
        value = getattr(outputs, name)
        picked[name] = None if value is None else value[pictures][:, masks]
    return SimpleNamespace(**picked, image_sizes=outputs.image_sizes[pictures], padded_size=outputs.padded_size)


# Dense implementations


def resize(maps, size):
    if maps.shape[0] == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def dense(outputs, target=None, index=0):
    """Class probabilities, and every mask's values at the wanted size."""
    class_probabilities = outputs.class_queries_logits[index].float().softmax(dim=-1)
    masks = outputs.masks_queries_logits if outputs.mask_probabilities is None else outputs.mask_probabilities
    height, width = outputs.image_sizes[index].tolist()
    masks = resize(masks[index].float(), tuple(outputs.padded_size.tolist()))[:, :height, :width]
    return class_probabilities, resize(masks, target or (height, width))


def dense_scores(outputs, target=None):
    class_probabilities, values = dense(outputs, target)
    masks = values.sigmoid() if outputs.mask_probabilities is None else values
    return torch.einsum("qc,qhw->chw", class_probabilities[:, :-1], masks)


def dense_panoptic(outputs, target=None, threshold=0.0, overlap=0.8, fuse=()):
    class_probabilities, values = dense(outputs, target)
    masks = values.sigmoid() if outputs.mask_probabilities is None else values
    scores, labels = class_probabilities.max(dim=-1)
    keep = (labels != class_probabilities.shape[-1] - 1) & (scores > threshold)
    scores, labels, masks = scores[keep], labels[keep], masks[keep]
    segmentation = torch.zeros(masks.shape[-2:], dtype=torch.long)
    segments, stuff = [], {}
    if not len(masks):
        return segmentation, segments
    winners = (scores[:, None, None] * masks).argmax(dim=0)
    for number, label in enumerate(labels.tolist()):
        area, own = (winners == number).sum().item(), (masks[number] >= 0.5).sum().item()
        visible = (winners == number) & (masks[number] >= 0.5)
        if not own or not visible.any() or area / own < overlap:
            continue
        if label in stuff:
            segmentation[visible] = stuff[label]
            continue
        segments.append((len(segments) + 1, label))
        segmentation[visible] = len(segments)
        if label in fuse:
            stuff[label] = len(segments)
    return segmentation, segments


def dense_instances(outputs, target=None, top_k=100, keep=None, mask_threshold=0.5):
    class_probabilities, values = dense(outputs, target)
    masks = values.sigmoid() if outputs.mask_probabilities is None else values
    num_classes = class_probabilities.shape[-1] - 1
    pairs = class_probabilities[:, :-1].flatten().sort(descending=True, stable=True)
    found = []
    for probability, pair in zip(pairs.values[:top_k].tolist(), pairs.indices[:top_k].tolist(), strict=True):
        mask, label = masks[pair // num_classes], pair % num_classes
        inside = mask > mask_threshold
        score = probability * (mask * inside).sum().item() / (inside.sum().item() + 1e-6)
        if score > 0 and (keep is None or label in keep):
            found.append((score, label, inside))
    return sorted(found, key=lambda instance: -instance[0])


def assert_same_labels(label_map, scores):
    """The label map is the arg max of scores, but for ties."""
    of_chosen = scores.gather(0, label_map[None])[0]
    assert (of_chosen >= scores.amax(dim=0) - NO_TIE).all()


def assert_same_panoptic(result, expected):
    segmentation, segments = expected
    assert [(segment["id"], segment["label_id"]) for segment in result["segments_info"]] == segments
    assert torch.equal(result["segmentation"], segmentation)


def assert_same_instances(result, expected):
    scores = [segment["score"] for segment in result["segments_info"]]
    assert scores == pytest.approx([score for score, _, _ in expected], abs=1e-5)
    assert [segment["label_id"] for segment in result["segments_info"]] == [label for _, label, _ in expected]
    for mask, (_, _, inside) in zip(result["segmentation"], expected, strict=True):
        assert torch.equal(mask, inside)


def as_sets(result):
    """Segments without their numbers: class and pixels."""
    segmentation = result["segmentation"]
    if segmentation.ndim == 3:
        masks = segmentation
    else:
        masks = [segmentation == segment["id"] for segment in result["segments_info"]]
    return sorted(
        (segment["label_id"], round(segment["score"], 4), mask.numpy().tobytes())
        for segment, mask in zip(result["segments_info"], masks, strict=True)
    )


# Agreement with the dense implementations

both_kinds = pytest.mark.parametrize("are_logits", [True, False], ids=["logits", "probabilities"])
every_target = pytest.mark.parametrize("target", TARGETS, ids=str)


def sizes(target):
    return None if target is None else [target]


@both_kinds
@every_target
def test_semantic_is_the_dense_rule(target, are_logits):
    outputs = make_outputs(are_logits=are_logits)
    expected = dense_scores(outputs, target)
    (scores,) = semantic_scores(outputs, sizes(target))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    (label_map,) = post_process_semantic_segmentation(outputs, sizes(target))
    assert label_map.dtype == torch.long
    assert label_map.shape == (target or IMAGE)
    assert_same_labels(label_map, expected)


@both_kinds
@every_target
def test_panoptic_is_the_dense_rule(target, are_logits):
    for seed in range(5):
        outputs = make_outputs(num_masks=12, seed=seed, are_logits=are_logits)
        (result,) = post_process_panoptic_segmentation(
            outputs, overlap_mask_area_threshold=0.5, label_ids_to_fuse={0, 1}, target_sizes=sizes(target)
        )
        assert result["segmentation"].dtype == torch.long
        assert_same_panoptic(result, dense_panoptic(outputs, target, overlap=0.5, fuse={0, 1}))


@both_kinds
@every_target
def test_instance_is_the_dense_rule(target, are_logits):
    outputs = make_outputs(are_logits=are_logits)
    (result,) = post_process_instance_segmentation(
        outputs, top_k=12, label_ids_to_keep={0, 2, 3}, target_sizes=sizes(target), return_binary_maps=True
    )
    assert result["segmentation"].dtype == torch.bool
    assert_same_instances(result, dense_instances(outputs, target, top_k=12, keep={0, 2, 3}))


@every_target
def test_scores_can_be_resized_instead_of_masks(target):
    outputs = make_outputs()
    expected = resize(dense_scores(outputs), target or IMAGE)
    (scores,) = semantic_scores(outputs, sizes(target), resize_scores=True)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    (label_map,) = post_process_semantic_segmentation(outputs, sizes(target), resize_scores=True)
    assert_same_labels(label_map, expected)


def test_padding_does_not_reach_the_result():
    outputs = make_outputs()
    outputs.padded_size, outputs.image_sizes = torch.tensor((8, 16)), torch.tensor([(5, 9)])
    changed = select(outputs)
    changed.masks_queries_logits = outputs.masks_queries_logits.clone()
    changed.masks_queries_logits[..., 5:, :] = 50
    changed.masks_queries_logits[..., 9:] = 50
    for target in (None, [(20, 30)]):
        before, after = (next(semantic_scores(one, target)) for one in (outputs, changed))
        assert torch.equal(before, after)


# Strips


@pytest.mark.parametrize("elements", [1, 3000])
@pytest.mark.parametrize("num_masks", [7, 70])
def test_strips_of_rows_do_not_change_results(monkeypatch, elements, num_masks):
    outputs = make_outputs(num_masks=num_masks)
    target = [(45, 70)]

    def results():
        options = {"target_sizes": target}
        return (
            *post_process_semantic_segmentation(outputs, **options),
            *post_process_semantic_segmentation(outputs, resize_scores=True, **options),
            as_sets(post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=0.2, **options)[0]),
            as_sets(post_process_instance_segmentation(outputs, return_binary_maps=True, **options)[0]),
        )

    whole = results()
    monkeypatch.setattr(post_processing, "_STRIP_ELEMENTS_ON_CPU", elements)
    in_strips = results()
    assert all(torch.equal(a, b) for a, b in zip(whole[:2], in_strips[:2], strict=True))
    assert whole[2:] == in_strips[2:]


def test_many_masks_are_the_dense_rule():
    outputs = make_outputs(num_masks=100, num_classes=11)
    assert_same_labels(post_process_semantic_segmentation(outputs)[0], dense_scores(outputs))
    (result,) = post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=0.3)
    assert_same_panoptic(result, dense_panoptic(outputs, overlap=0.3))
    (result,) = post_process_instance_segmentation(outputs, return_binary_maps=True)
    assert_same_instances(result, dense_instances(outputs))


def test_memory_is_bounded_by_strips(monkeypatch):
    monkeypatch.setattr(post_processing, "_STRIP_ELEMENTS_ON_CPU", 10_000)
    largest = 0
    summed = post_processing._sum_over_masks

    def watched(*arguments):
        nonlocal largest
        scores = summed(*arguments)
        largest = max(largest, scores.numel())
        return scores

    monkeypatch.setattr(post_processing, "_sum_over_masks", watched)
    post_process_semantic_segmentation(make_outputs(num_classes=50), [(300, 100)])
    assert 0 < largest <= 10_000


# Properties


@quick
@given(seed=st.integers(0, 10_000), num_masks=st.integers(1, 12), order=st.randoms(use_true_random=False))
def test_the_order_of_masks_does_not_matter(seed, num_masks, order):
    outputs = make_outputs(num_masks=num_masks, seed=seed)
    rows = list(range(num_masks))
    order.shuffle(rows)
    shuffled = select(outputs, masks=rows)
    (before,), (after,) = (tuple(semantic_scores(one)) for one in (outputs, shuffled))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)
    for function, options in (
        (post_process_panoptic_segmentation, {"overlap_mask_area_threshold": 0.4, "label_ids_to_fuse": {0}}),
        (post_process_instance_segmentation, {"top_k": 8, "return_binary_maps": True}),
    ):
        (before,), (after,) = (function(one, **options) for one in (outputs, shuffled))
        assert as_sets(before) == as_sets(after)


@quick
@given(
    seed=st.integers(0, 10_000),
    num_masks=st.integers(0, 20),
    overlap=st.floats(0, 1),
    threshold=st.floats(0, 1),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_panoptic_segments_are_a_partition_of_what_is_covered(seed, num_masks, overlap, threshold, target):
    outputs = make_outputs(num_masks=num_masks, seed=seed)
    (result,) = post_process_panoptic_segmentation(
        outputs, threshold, 0.5, overlap, label_ids_to_fuse=[1, 3], target_sizes=[target]
    )
    segments = result["segments_info"]
    assert [segment["id"] for segment in segments] == list(range(1, len(segments) + 1))
    assert set(result["segmentation"].unique().tolist()) - {0} == {segment["id"] for segment in segments}
    fused = [segment["label_id"] for segment in segments if segment["was_fused"]]
    assert len(fused) == len(set(fused))
    assert set(fused) <= {1, 3}
    assert all(threshold < segment["score"] <= 1 for segment in segments)


@quick
@given(seed=st.integers(0, 10_000), batch_size=st.integers(1, 4), has_targets=st.booleans(), are_logits=st.booleans())
def test_a_batch_gives_what_its_pictures_give(seed, batch_size, has_targets, are_logits):
    outputs = make_outputs(batch_size=batch_size, seed=seed, are_logits=are_logits)
    targets = [(10 + 7 * index, 31 - 5 * index) for index in range(batch_size)] if has_targets else None
    for function in (
        post_process_semantic_segmentation,
        post_process_panoptic_segmentation,
        post_process_instance_segmentation,
    ):
        batch = function(outputs, target_sizes=targets)
        assert len(batch) == batch_size
        for index, of_picture in enumerate(batch):
            single = select(outputs, pictures=slice(index, index + 1))
            (expected,) = function(single, target_sizes=targets and targets[index : index + 1])
            if isinstance(of_picture, dict):
                assert of_picture["segments_info"] == expected["segments_info"]
                of_picture, expected = of_picture["segmentation"], expected["segmentation"]
            assert torch.equal(of_picture, expected)


# Numbers of masks and classes, types


@both_kinds
def test_no_mask_gives_the_first_class_and_no_segment(are_logits):
    outputs = make_outputs(num_masks=0, are_logits=are_logits)
    (label_map,) = post_process_semantic_segmentation(outputs, [(6, 8)])
    assert label_map.shape == (6, 8)
    assert not label_map.any()
    (label_map,) = post_process_semantic_segmentation(outputs, [(6, 8)], resize_scores=True)
    assert label_map.shape == (6, 8)
    assert not label_map.any()
    for function in (post_process_panoptic_segmentation, post_process_instance_segmentation):
        (result,) = function(outputs, target_sizes=[(6, 8)])
        assert result["segments_info"] == []
        assert result["segmentation"].shape == (6, 8)
        assert not result["segmentation"].any()
    (result,) = post_process_instance_segmentation(outputs, target_sizes=[(6, 8)], return_binary_maps=True)
    assert result["segmentation"].shape == (0, 6, 8)
    (result,) = post_process_instance_segmentation(outputs, return_coco_annotation=True)
    assert result["segmentation"] == []


@pytest.mark.parametrize("num_classes", [1, 1000])
def test_one_class_and_a_thousand(num_classes):
    outputs = make_outputs(num_classes=num_classes)
    assert_same_labels(post_process_semantic_segmentation(outputs)[0], dense_scores(outputs))
    (result,) = post_process_panoptic_segmentation(outputs)
    assert_same_panoptic(result, dense_panoptic(outputs))
    (result,) = post_process_instance_segmentation(outputs, return_binary_maps=True)
    assert_same_instances(result, dense_instances(outputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    outputs = make_outputs(dtype=dtype)
    (scores,) = semantic_scores(outputs, [(40, 60)])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, dense_scores(outputs, (40, 60)), rtol=0, atol=1e-5)
    (result,) = post_process_panoptic_segmentation(outputs)
    assert_same_panoptic(result, dense_panoptic(outputs))
    (result,) = post_process_instance_segmentation(outputs, return_binary_maps=True)
    assert_same_instances(result, dense_instances(outputs))


def test_no_graph_is_kept():
    outputs = make_outputs()
    outputs.class_queries_logits.requires_grad_()
    outputs.masks_queries_logits.requires_grad_()
    assert not next(semantic_scores(outputs)).requires_grad


def test_empty_masks_that_fill_up_a_batch_change_nothing():
    outputs = make_outputs(are_logits=False)
    filled = select(outputs)
    surely_first = torch.log(torch.tensor([[0.95, 0.01, 0.01, 0.01, 0.01, 0.01]]))[None]
    filled.class_queries_logits = torch.cat([surely_first, outputs.class_queries_logits], dim=1)
    filled.mask_probabilities = F.pad(outputs.mask_probabilities, (0, 0, 0, 0, 1, 0))
    assert torch.equal(next(semantic_scores(outputs)), next(semantic_scores(filled)))
    for function in (post_process_panoptic_segmentation, post_process_instance_segmentation):
        (before,), (after,) = (function(one) for one in (outputs, filled))
        assert before["segments_info"] == after["segments_info"]
        assert torch.equal(before["segmentation"], after["segmentation"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_hard_masks_of_every_type_give_what_floats_give(dtype):
    masks = torch.rand(4, 12, 9, generator=torch.Generator().manual_seed(0)) > 0.6
    masks[1] = False
    outputs = flat_outputs(torch.rand(4, 6).softmax(dim=-1).tolist(), masks)
    expected = [post_process_panoptic_segmentation(outputs), post_process_instance_segmentation(outputs)]
    outputs.mask_probabilities = outputs.mask_probabilities.to(dtype)
    found = [post_process_panoptic_segmentation(outputs), post_process_instance_segmentation(outputs)]
    for (result,), (other,) in zip(found, expected, strict=True):
        assert result["segments_info"] == other["segments_info"]
        assert other["segments_info"]
        assert torch.equal(result["segmentation"], other["segmentation"])


# Semantic


def test_semantic_scores_come_on_request():
    outputs = make_outputs()
    (result,) = post_process_semantic_segmentation(outputs, [(20, 30)], return_segmentation_scores=True)
    assert torch.equal(result.segmentation_scores, next(semantic_scores(outputs, [(20, 30)])))
    assert torch.equal(result.segmentation, post_process_semantic_segmentation(outputs, [(20, 30)])[0])


def test_void_is_never_a_semantic_class():
    outputs = flat_outputs([[0.09, 0.01, 0.9]], [[[1, 1]]])
    assert post_process_semantic_segmentation(outputs)[0].tolist() == [[0, 0]]


# Panoptic

LEFT, RIGHT, WHOLE = [[1, 1, 0, 0]], [[0, 0, 1, 1]], [[1, 1, 1, 1]]


def test_masks_of_a_fused_class_are_one_segment():
    outputs = flat_outputs([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]], [LEFT, RIGHT])
    (apart,) = post_process_panoptic_segmentation(outputs)
    assert apart["segmentation"].tolist() == [[1, 1, 2, 2]]
    assert [segment["was_fused"] for segment in apart["segments_info"]] == [False, False]
    (fused,) = post_process_panoptic_segmentation(outputs, label_ids_to_fuse=[0])
    assert fused["segmentation"].tolist() == [[1, 1, 1, 1]]
    (segment,) = fused["segments_info"]
    assert (segment["id"], segment["label_id"], segment["was_fused"]) == (1, 0, True)
    assert segment["score"] == pytest.approx(0.8)


def test_a_mask_that_won_too_little_of_itself_is_dropped():
    outputs = flat_outputs([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2]], [LEFT, WHOLE])  # the second keeps half of itself
    (strict,) = post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=0.51)
    assert strict["segmentation"].tolist() == [[1, 1, 0, 0]]
    (just,) = post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=0.5)
    assert just["segmentation"].tolist() == [[1, 1, 2, 2]]
    assert [segment["label_id"] for segment in just["segments_info"]] == [0, 1]


def test_pixels_outside_every_mask_are_won_by_none():
    outputs = flat_outputs([[0.5, 0.3, 0.2], [0.05, 0.9, 0.05]], [[[1, 1, 0, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]]])
    (result,) = post_process_panoptic_segmentation(outputs)  # the first keeps half of itself
    assert result["segmentation"].tolist() == [[1, 0, 0, 0, 0, 0]]
    assert [segment["label_id"] for segment in result["segments_info"]] == [1]


def test_void_and_uncertain_masks_take_no_part_in_panoptic():
    outputs = flat_outputs([[0.1, 0.1, 0.8], [0.5, 0.25, 0.25]], [WHOLE, LEFT])
    (result,) = post_process_panoptic_segmentation(outputs)
    assert result["segmentation"].tolist() == [[1, 1, 0, 0]]
    (result,) = post_process_panoptic_segmentation(outputs, threshold=0.51)
    assert result["segments_info"] == []


def test_a_segment_lies_inside_its_mask():
    outputs = flat_outputs([[0.9, 0.05, 0.05]], [[[1.0, 0.6, 0.4, 0.0]]])
    (result,) = post_process_panoptic_segmentation(outputs)
    assert result["segmentation"].tolist() == [[1, 1, 0, 0]]
    (result,) = post_process_panoptic_segmentation(outputs, mask_threshold=0.3)
    assert result["segmentation"].tolist() == [[1, 1, 1, 0]]


# Instance


def test_every_class_of_a_mask_competes_for_the_best_pairs():
    outputs = flat_outputs([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [LEFT, RIGHT])
    (result,) = post_process_instance_segmentation(outputs, top_k=3, return_binary_maps=True)
    assert [segment["label_id"] for segment in result["segments_info"]] == [0, 1, 1]
    assert [segment["score"] for segment in result["segments_info"]] == pytest.approx([0.6, 0.5, 0.3], abs=1e-5)
    assert result["segmentation"].int().tolist() == [LEFT, RIGHT, LEFT]


def test_classes_are_dropped_after_the_best_were_taken():
    outputs = flat_outputs([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [LEFT, RIGHT])
    (result,) = post_process_instance_segmentation(outputs, top_k=2, label_ids_to_keep=[1])
    assert [segment["label_id"] for segment in result["segments_info"]] == [1]
    (result,) = post_process_instance_segmentation(outputs, label_ids_to_keep=[])
    assert result["segments_info"] == []


def test_better_instances_are_in_front():
    outputs = flat_outputs([[0.5, 0.0, 0.5], [0.9, 0.0, 0.1]], [WHOLE, LEFT])
    (result,) = post_process_instance_segmentation(outputs)
    assert [segment["id"] for segment in result["segments_info"]] == [1, 2]
    assert result["segmentation"].tolist() == [[1, 1, 2, 2]]


def test_a_score_is_the_mean_probability_inside_the_mask():
    outputs = flat_outputs([[0.8, 0.0, 0.2]], [[[0.9, 0.7, 0.5, 0.2]]])
    (result,) = post_process_instance_segmentation(outputs)  # 0.5 is not inside: strictly above
    assert result["segments_info"][0]["score"] == pytest.approx(0.8 * 0.8, abs=1e-5)
    (result,) = post_process_instance_segmentation(outputs, mask_threshold=0.45)
    assert result["segments_info"][0]["score"] == pytest.approx(0.8 * 0.7, abs=1e-5)
    (result,) = post_process_instance_segmentation(outputs, threshold=0.65)
    assert result["segments_info"] == []
    assert not result["segmentation"].any()


def test_sigmoid_scores_classes_on_their_own():
    outputs = flat_outputs([[0.8, 0.1, 0.1]], [WHOLE])
    (result,) = post_process_instance_segmentation(outputs, class_score="sigmoid")
    expected = torch.tensor([0.8, 0.1]).log().sigmoid().tolist()
    assert [segment["score"] for segment in result["segments_info"]] == pytest.approx(expected, abs=1e-5)


def test_coco_annotations_hold_the_binary_maps():
    coco = pytest.importorskip("pycocotools.mask")
    outputs = make_outputs()
    options = {"target_sizes": [(23, 31)], "top_k": 9}
    (maps,) = post_process_instance_segmentation(outputs, return_binary_maps=True, **options)
    (annotations,) = post_process_instance_segmentation(outputs, return_coco_annotation=True, **options)
    assert annotations["segments_info"] == maps["segments_info"]
    assert len(annotations["segmentation"]) == len(maps["segmentation"]) > 0
    for annotation, mask in zip(annotations["segmentation"], maps["segmentation"], strict=True):
        decoded = coco.decode(coco.frPyObjects(annotation, *annotation["size"]))
        assert np.array_equal(decoded, mask.numpy())


@pytest.mark.parametrize("pixels", [[[1, 1], [1, 1]], [[0, 1], [1, 0]], [[1]]])
def test_coco_annotations_start_with_a_run_of_zeros(pixels):
    outputs = flat_outputs([[0.8, 0.2]], [pixels])
    (result,) = post_process_instance_segmentation(outputs, return_coco_annotation=True)
    (annotation,) = result["segmentation"]
    runs = [value for length, value in zip(annotation["counts"], [0, 1] * 4, strict=False) for _ in range(length)]
    assert runs == np.asarray(pixels).flatten(order="F").tolist()


# Segments


VOCABULARY = Vocabulary.from_list(["sky", "cat", "dog", "grass", "wall"], things=["cat", "dog"])


def test_semantic_segments_are_the_label_maps_classes():
    outputs = make_outputs(batch_size=2)
    label_maps = post_process_semantic_segmentation(outputs, target_sizes=[(9, 13), (61, 97)])
    results = segment(outputs, "semantic", VOCABULARY, [(9, 13), (61, 97)], pictures=["a.png", "b.png"])
    for label_map, result, name in zip(label_maps, results, ["a.png", "b.png"], strict=True):
        assert (result.picture, result.task, result.vocabulary) == (name, "semantic", VOCABULARY)
        assert result.class_ids.tolist() == label_map.unique().tolist()
        assert np.array_equal(result.label_map(), label_map.numpy())
        assert all(one.score is None and one.embedding is None for one in result)


def test_panoptic_segments_are_those_of_the_map():
    outputs = make_outputs(batch_size=2, num_masks=12)
    expected = post_process_panoptic_segmentation(
        outputs, threshold=0.3, overlap_mask_area_threshold=0.2, label_ids_to_fuse={0, 3, 4}
    )
    found = segment(outputs, "panoptic", VOCABULARY, threshold=0.3, overlap_mask_area_threshold=0.2)
    assert sum(len(result) for result in found) > 4
    for result, panoptic in zip(found, expected, strict=True):
        assert result.class_ids.tolist() == [info["label_id"] for info in panoptic["segments_info"]]
        assert result.scores.tolist() == [info["score"] for info in panoptic["segments_info"]]
        assert [one.is_thing for one in result] == [one.label in ("cat", "dog") for one in result]
        assert np.array_equal(result.segment_map(), panoptic["segmentation"].numpy())


def test_instances_are_the_things_with_smaller_ones_on_top():
    outputs = make_outputs(num_masks=12)
    (expected,) = post_process_instance_segmentation(
        outputs, threshold=0.01, top_k=20, label_ids_to_keep={1, 2}, return_binary_maps=True
    )
    (result,) = segment(outputs, "instance", VOCABULARY, threshold=0.01, top_k=20)
    assert len(result) > 3
    assert result.areas.tolist() == sorted(result.areas.tolist(), reverse=True)
    for one, info, mask in zip(
        result.best_first(), expected["segments_info"], expected["segmentation"].numpy(), strict=True
    ):
        assert (one.class_id, one.score) == (info["label_id"], info["score"])
        assert np.array_equal(one.mask, mask)


def test_segments_carry_the_normalized_embedding_of_the_mask_that_their_score_is_of():
    halves = np.zeros((4, 4, 6))
    halves[0, :, :2] = halves[1, :, 2:4] = halves[3, :, 4:] = 1  # mask 2 is empty, and plays no part
    probabilities = [[0.8, 0.1, 0.05, 0.05], [0.9, 0.05, 0.0, 0.05], [0.9, 0.1, 0.0, 0.0], [0.1, 0.7, 0.1, 0.1]]
    outputs = flat_outputs(probabilities, halves)
    outputs.mask_embeddings = torch.tensor([[[2.0, 0.0], [3.0, 4.0], [9.0, 9.0], [0.0, 5.0]]])
    vocabulary = Vocabulary.from_list(["sky", "cat", "dog"], things=["cat", "dog"])
    (panoptic,) = segment(outputs, "panoptic", vocabulary)
    assert [(one.label, one.embedding.tolist()) for one in panoptic] == [
        ("sky", pytest.approx([0.6, 0.8])),
        ("cat", [0.0, 1.0]),
    ]
    (instances,) = segment(outputs, "instance", vocabulary, threshold=0.5)
    assert [(one.label, one.embedding.tolist()) for one in instances] == [("cat", [0.0, 1.0])]


def test_nothing_found_gives_empty_results_of_the_wanted_size():
    outputs = make_outputs(num_masks=0)
    for task in ("panoptic", "instance"):
        (result,) = segment(outputs, task, VOCABULARY, [(9, 13)])
        assert (len(result), result.size) == (0, (9, 13))


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("stuff", {}, "semantic, panoptic, instance"),
        ("semantic", {"threshold": 0.5}, "no effect"),
        ("panoptic", {"vocabulary": ["cat"]}, "5 classes, the vocabulary has 1"),
        ("panoptic", {"mask_threshold": 2}, "mask_threshold is a probability"),
    ],
)
def test_mistakes_in_asking_for_segments_are_refused(task, options, message):
    vocabulary = Vocabulary.parse(options.pop("vocabulary", VOCABULARY))
    with pytest.raises(ValueError, match=message):
        segment(make_outputs(), task, vocabulary, **options)


# Mistakes

every_function = pytest.mark.parametrize(
    "function",
    [post_process_semantic_segmentation, post_process_panoptic_segmentation, post_process_instance_segmentation],
)


@every_function
@pytest.mark.parametrize(
    ("target_sizes", "message"),
    [
        ([(4, 4)], "one target size .* got 1 for 2"),
        ([(4, 4)] * 3, "got 3 for 2"),
        ([(4, 4), (0, 4)], "at least 1x1"),
        ((480, 640), r"\(height, width\)"),
        ([(480, 640, 3)] * 2, r"\(height, width\)"),
    ],
)
def test_target_sizes_that_do_not_fit_are_refused(function, target_sizes, message):
    with pytest.raises(ValueError, match=message):
        function(make_outputs(batch_size=2), target_sizes=target_sizes)


@every_function
def test_target_sizes_can_be_a_tensor(function):
    outputs = make_outputs(batch_size=2)
    targets = [(5, 6), (7, 8)]
    results = [function(outputs, target_sizes=sizes) for sizes in (targets, torch.tensor(targets))]
    for first, second in zip(*results, strict=True):
        first, second = (one["segmentation"] if isinstance(one, dict) else one for one in (first, second))
        assert torch.equal(first, second)


@every_function
def test_outputs_without_masks_are_refused(function):
    outputs = make_outputs()
    outputs.masks_queries_logits = None
    with pytest.raises(ValueError, match="neither masks_queries_logits nor mask_probabilities"):
        function(outputs)


@pytest.mark.parametrize("mask_threshold", [-0.1, 1.5])
def test_a_mask_threshold_that_is_no_probability_is_refused(mask_threshold):
    for function in (post_process_panoptic_segmentation, post_process_instance_segmentation):
        with pytest.raises(ValueError, match="mask_threshold is a probability"):
            function(make_outputs(), mask_threshold=mask_threshold)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_score": "tanh"}, "class_score must be"),
        ({"return_binary_maps": True, "return_coco_annotation": True}, "not both"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_wrong_options_of_instances_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        post_process_instance_segmentation(make_outputs(), **options)
