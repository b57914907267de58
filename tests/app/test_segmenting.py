"""One picture segmented and explained, and two methods compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter.app.labels import read_labels
from hf_maskadapter.app.segmenting import METHODS, UNKNOWN_PICTURE, Wish, compare_methods, segment_picture
from hf_maskadapter.exchange.plain import in_order


@pytest.fixture(scope="module")
def wish(scene):
    return Wish(scene.picture, read_labels(scene.labels, things=scene.things), file_name="scene.png")


@pytest.fixture(scope="module")
def outputs(miniature, wish):
    """The model's own answer for the scene, by the adapter."""
    inputs = miniature.pipeline.processor(images=[wish.picture], return_tensors="pt")
    vocabulary = miniature.pipeline.encode_vocabulary(wish.vocabulary)
    with torch.no_grad():
        return miniature.pipeline.model(
            inputs["pixel_values"],
            vocabulary,
            pixel_mask=inputs["pixel_mask"],
            output_semantic_activation_maps=True,
            return_dict=True,
        )


@pytest.mark.parametrize(
    ("task", "method", "threshold"),
    [("semantic", "adapter", 0), ("panoptic", "pooling", 0.3), ("instance", "adapter", 0.5), ("semantic", "crop", 0.9)],
)
def test_the_segments_are_those_of_the_pipeline(miniature, wish, task, method, threshold):
    options = {"threshold": threshold} if threshold and task != "semantic" else {}
    expected = miniature.pipeline(
        wish.picture,
        candidate_labels=wish.vocabulary,
        subtask=task,
        mask_embedding=method,
        return_segments=True,
        **options,
    )
    result = segment_picture(miniature, replace(wish, task=task, method=method, threshold=threshold))
    assert (result.segments.task, result.segments.picture, result.method) == (task, "scene.png", method)
    assert result.segments.labels == expected.labels
    assert np.array_equal(result.segments.masks, expected.masks)
    assert np.array_equal(result.segments.scores, expected.scores, equal_nan=True)


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
def test_each_segment_is_explained_by_a_mask_that_covers_it(miniature, wish, outputs, task):
    result = segment_picture(miniature, replace(wish, task=task))
    probabilities = outputs.class_queries_logits[0].softmax(dim=-1)
    maps = outputs.semantic_activation_maps[0].sigmoid()
    weights = (maps / maps.sum(dim=(-2, -1), keepdim=True)).mean(dim=1)
    masks = outputs.masks_queries_logits[0]
    names = wish.vocabulary.names
    assert len(result.explanations) == len(result.segments) > 3
    for segment, explanation in zip(in_order(result.segments), result.explanations, strict=True):
        assert explanation.label == segment.label
        assert explanation.share == segment.mask.mean()
        rows = [
            row
            for row in range(len(masks))
            if np.allclose(explanation.weights, weights[row], atol=1e-6)
            and explanation.void == pytest.approx(probabilities[row, -1].item(), abs=1e-5)
        ]
        assert rows, "it is none of the model's masks"
        row = rows[0]
        size = (wish.picture.height, wish.picture.width)
        mask = torch.nn.functional.interpolate(masks[row][None, None], size=size, mode="bilinear")[0, 0].numpy()
        if segment.area > 100:  # scraps may lie outside of every mask
            assert ((mask > 0) & segment.mask).sum() > 0.5 * segment.area
        ranking = probabilities[row, :-1].sort(descending=True).indices[:6].tolist()
        assert [name for name, _ in explanation.words][:6] == [names[index] for index in ranking]
        for name, value in explanation.words:
            assert value == pytest.approx(probabilities[row, names.index(name)].item(), abs=1e-5)


def test_a_panoptic_score_is_the_probability_of_the_word_and_a_semantic_segment_has_none(miniature, wish):
    for explanation in segment_picture(miniature, replace(wish, task="panoptic")).explanations:
        assert explanation.is_own_score
        assert explanation.score == pytest.approx(dict(explanation.words)[explanation.label], abs=1e-6)
    for explanation in segment_picture(miniature, wish).explanations:
        assert not explanation.is_own_score
        assert explanation.score == dict(explanation.words)[explanation.label]


def test_pooling_and_crops_look_at_the_mask_itself(miniature, wish):
    result = segment_picture(miniature, replace(wish, task="panoptic", method="pooling"))
    for segment, explanation in zip(result.segments, result.explanations, strict=True):
        shares = segment.mask.reshape(128, 3, 128, 3).mean(axis=(1, 3))  # of a picture of 384 pixels
        assert np.allclose(explanation.weights, shares, atol=1 / 255)


def test_what_the_embedded_model_does_not_know_gets_a_warning(miniature, wish, noise):
    assert segment_picture(miniature, wish).warning == ""
    assert segment_picture(miniature, replace(wish, picture=noise)).warning == UNKNOWN_PICTURE
    assert compare_methods(miniature, replace(wish, picture=noise)).warning == UNKNOWN_PICTURE


def test_a_wide_picture_is_explained_over_its_own_area(miniature, wish):
    wide = Image.new("RGB", (768, 384))
    wide.paste(wish.picture, (0, 0))
    wide.paste(wish.picture, (384, 0))
    for explanation in segment_picture(miniature, replace(wish, picture=wide)).explanations:
        height, width = explanation.weights.shape
        assert 1.8 < width / height < 2.2


def test_the_comparison_is_of_both_methods_results(miniature, wish):
    comparison = compare_methods(miniature, wish)
    maps = {}
    for method in ("pooling", "adapter"):
        segments = segment_picture(miniature, replace(wish, method=method)).segments
        maps[method] = segments.label_map()
        assert np.array_equal(getattr(comparison, method).label_map(), maps[method])
    assert np.array_equal(comparison.differs, maps["pooling"] != maps["adapter"])
    assert comparison.differs.any()
    names = wish.vocabulary.names
    expected = []
    for label in np.unique(maps["adapter"]):
        inside = maps["adapter"] == label
        values, counts = np.unique(maps["pooling"][inside], return_counts=True)
        if values[counts.argmax()] != label:
            most = values[counts.argmax()]
            expected.append((names[label], names[most], counts.max() / inside.sum(), inside.sum()))
    found = [(entry.adapter, entry.pooling, entry.share, entry.area) for entry in comparison.differences]
    assert found == sorted(expected, key=lambda entry: -entry[3])
    assert found


def test_where_pooling_finds_nothing_the_comparison_says_so(miniature, wish):
    comparison = compare_methods(miniature, replace(wish, task="panoptic", threshold=0.8))
    (square,) = [segment for segment in comparison.adapter if segment.label == "checked green square"]
    is_nothing = comparison.pooling.segment_map()[square.mask] == 0
    (difference,) = comparison.differences
    assert (difference.adapter, difference.pooling) == ("checked green square", None)
    assert difference.share == is_nothing.mean() > 0.9


def test_a_model_without_adapter_says_what_to_choose(miniature, wish, monkeypatch):
    monkeypatch.setattr(miniature.pipeline.model, "adapter", None)
    with pytest.raises(ValueError, match="The model miniature has no adapter: choose pooling or crop"):
        segment_picture(miniature, wish)
    assert METHODS[1:] == ("pooling", "crop")
