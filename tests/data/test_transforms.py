"""Augmentation: picture and masks move together, and chance depends on seed, epoch and sample alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from hf_maskadapter.data import (
    SegmentationSample,
    SegmentInfo,
    TrainingTransform,
    collate_training_samples,
    masks_from_map,
)
from hf_maskadapter.data.transforms import Jitter, ssd_color_augmentation
from hf_maskadapter.model.image_processing_maskadapter import PIXEL_MEAN, PIXEL_STD
from support.data_samples import picture

MEAN, STD = torch.tensor(PIXEL_MEAN)[:, None, None], torch.tensor(PIXEL_STD)[:, None, None]


def make_sample(segmentation, segments=None, image=None, sample_id="s"):
    """A sample whose picture shows each pixel's segment: its grey is 20 times the segment's number."""
    segmentation = np.asarray(segmentation, dtype=np.int32)
    if segments is None:
        segments = [SegmentInfo(int(i), int(i) - 1, True) for i in np.unique(segmentation) if i]
    if image is None:
        image = Image.fromarray(np.repeat((20 * segmentation).astype(np.uint8)[..., None], 3, axis=2))
    return SegmentationSample(sample_id, image, segmentation, tuple(segments), True, "file")


def blocks(seed, height, width, numbers=9, cell=8):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, numbers, (-(-height // cell), -(-width // cell)))
    return np.kron(small, np.ones((cell, cell), dtype=np.int64))[:height, :width]


def transform(**options):
    return TrainingTransform(**{"crop_size": 32, "image_mean": (0, 0, 0), "image_std": (1, 1, 1), **options})


geometries = st.tuples(st.integers(8, 80), st.integers(8, 80), st.integers(0, 10**6))


@settings(max_examples=50)
@given(st.tuples(*[st.integers(24, 80)] * 2, st.integers(0, 10**6)), st.sampled_from(["segment", "class"]))
def test_masks_lie_where_the_picture_shows_their_segment(geometry, unit):
    height, width, seed = geometry
    sample = make_sample(blocks(seed, height, width))
    result = transform(seed=seed, mask_unit=unit, scale_range=(0.5, 2.0))(sample)
    number = np.full((32, 32), -1)
    for mask, label in zip(result.mask_labels.numpy(), result.class_labels.tolist(), strict=True):
        number[mask] = label + 1
    shown = result.pixel_values[0].numpy()
    inside = result.pixel_mask.numpy()
    number[(number == -1) & inside] = 0  # grey 0 is no segment
    # Away from borders between segments (and of the crop), where bilinear resizing mixes colours.
    highest, lowest = (f(number, 5, mode="constant", cval=-2) for f in (ndimage.maximum_filter, ndimage.minimum_filter))
    flat = highest == lowest
    np.testing.assert_allclose(shown[inside & flat], 20 * number[inside & flat], atol=0.6)


@settings(max_examples=50)
@given(geometries)
def test_masks_are_disjoint_never_empty_and_never_in_the_padding(geometry):
    height, width, seed = geometry
    result = transform(seed=seed, scale_range=(0.1, 2.0))(make_sample(blocks(seed, height, width)))
    masks = result.mask_labels
    assert masks.shape == (len(result.class_labels), 32, 32)
    assert masks.dtype == torch.bool
    assert (masks.sum(0) <= 1).all()
    assert masks.flatten(1).any(1).all()
    assert not masks[:, ~result.pixel_mask].any()
    assert (result.pixel_values[:, ~result.pixel_mask] == 128).all()


@settings(max_examples=50)
@given(geometries)
def test_the_picture_fills_the_top_left_of_the_crop(geometry):
    height, width, seed = geometry
    result = transform(seed=seed, scale_range=(0.1, 2.0))(make_sample(blocks(seed, height, width)))
    rows, columns = result.pixel_mask.any(1).sum(), result.pixel_mask.any(0).sum()
    assert rows >= 1
    assert columns >= 1
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[:rows, :columns] = True
    assert torch.equal(result.pixel_mask, expected)


@settings(max_examples=50)
@given(geometries, st.booleans())
def test_cropping_while_resizing_equals_resizing_and_then_cropping(geometry, flip):
    height, width, seed = geometry
    rng = np.random.default_rng(seed)
    scaled = (int(rng.integers(8, 120)), int(rng.integers(8, 120)))
    size = (int(rng.integers(1, scaled[0] + 1)), int(rng.integers(1, scaled[1] + 1)))
    top, left = (int(rng.integers(0, s - c + 1)) for s, c in zip(scaled, size, strict=True))
    image = picture(seed, width, height)
    crop = np.asarray(Jitter(scaled, top, left, size, flip).apply_to_image(image)).astype(int)
    whole = np.asarray(image.resize(scaled[::-1], Image.Resampling.BILINEAR)).astype(int)
    expected = whole[top : top + size[0], left : left + size[1]]
    # Pillow rounds after each of its two passes, and their weights differ in the last bits.
    assert np.abs(crop - (expected[:, ::-1] if flip else expected)).max() <= 2

    numbers = np.arange(height * width, dtype=np.int32).reshape(height, width)
    moved = Jitter(scaled, top, left, size, flip).apply_to_map(numbers)
    whole_map = np.asarray(Image.fromarray(numbers).resize(scaled[::-1], Image.Resampling.NEAREST))
    tie = [(2 * np.arange(s) + 1) * n % (2 * s) == 0 for s, n in zip(scaled, (height, width), strict=True)]
    whole_map = np.where(tie[0][:, None] | tie[1], -1, whole_map)  # Pillow's rounding errors decide between two pixels
    expected = whole_map[top : top + size[0], left : left + size[1]]
    expected = expected[:, ::-1] if flip else expected
    np.testing.assert_array_equal(np.where(expected == -1, -1, moved), expected)


def test_a_flip_mirrors_picture_and_masks():
    sample = make_sample(blocks(1, 40, 40))
    straight, mirrored = (transform(scale_range=(1, 1), flip_probability=p, seed=4)(sample) for p in (0, 1))
    assert torch.equal(mirrored.pixel_values, straight.pixel_values.flip(-1))
    assert torch.equal(mirrored.mask_map, straight.mask_map.flip(-1))
    assert not torch.equal(mirrored.mask_map, straight.mask_map)


def test_scales_fill_their_range_and_half_of_the_pictures_are_flipped():
    drawn = [transform().draw_jitter(100, 50, np.random.default_rng(seed)) for seed in range(800)]
    scales = np.array([jitter.scaled_size[0] / 32 for jitter in drawn])
    assert 0.09 <= scales.min() < 0.15
    assert 1.95 < scales.max() <= 2.01
    assert abs(scales.mean() - 1.05) < 0.08
    assert abs(np.mean([jitter.flip for jitter in drawn]) - 0.5) < 0.06
    large = [jitter for jitter in drawn if jitter.scaled_size[0] >= 60]
    tops = {jitter.top for jitter in large}
    assert min(tops) <= 1
    assert max(tops) >= 26
    assert len(tops) > 15
    assert all(jitter.top + jitter.crop_size[0] <= jitter.scaled_size[0] for jitter in drawn)


def test_at_scale_one_the_picture_just_fits():
    result = transform(scale_range=(1, 1), flip_probability=0)(make_sample(np.ones((20, 40))))
    assert result.pixel_mask.sum() == 32 * 16
    assert result.pixel_mask[:16].all()


def test_pixel_values_are_normalized_before_and_in_the_padding():
    image = Image.new("RGB", (8, 4), (200, 100, 50))
    sample = make_sample(np.ones((4, 8)), image=image)
    result = TrainingTransform(crop_size=8, scale_range=(1, 1))(sample)
    expected = (torch.tensor([200.0, 100.0, 50.0]) - MEAN.flatten()) / STD.flatten()
    torch.testing.assert_close(result.pixel_values[:, 0, 0], expected)
    torch.testing.assert_close(result.pixel_values[:, 7, 7], ((128 - MEAN) / STD).flatten())


def test_crowds_belong_to_no_mask():
    segments = [SegmentInfo(1, 0, True), SegmentInfo(2, 0, True, True), SegmentInfo(3, 1, False)]
    segmentation = np.repeat([[1, 2, 3, 0]], 4, axis=0).repeat(8, axis=0).repeat(8, axis=1)
    for unit in ("segment", "class"):
        result = transform(scale_range=(1, 1), flip_probability=0, mask_unit=unit)(make_sample(segmentation, segments))
        assert sorted(result.class_labels.tolist()) == [0, 1]
        assert not result.mask_labels[:, :, 8:16].any()
        assert not result.mask_labels[:, :, 24:].any()
        assert result.mask_labels.sum() == 2 * 8 * 32


def test_mask_units_are_segments_or_classes():
    segments = [SegmentInfo(1, 4, True), SegmentInfo(2, 4, True), SegmentInfo(3, 2, False)]
    sample = make_sample(np.repeat([[1, 2, 3]], 3, axis=0).repeat(8, axis=0).repeat(8, axis=1), segments)
    options = {"scale_range": (1, 1), "flip_probability": 0, "crop_size": 24}
    assert sorted(transform(**options)(sample).class_labels.tolist()) == [2, 4, 4]
    by_class = transform(**options, mask_unit="class")(sample)
    assert sorted(by_class.class_labels.tolist()) == [2, 4]
    areas = dict(zip(by_class.class_labels.tolist(), by_class.mask_labels.flatten(1).sum(1).tolist(), strict=True))
    assert areas == {4: 2 * 8 * 24, 2: 8 * 24}


def test_masks_come_in_random_order_and_the_first_are_a_random_choice():
    sample = make_sample(np.arange(1, 10).reshape(3, 3).repeat(8, axis=0).repeat(8, axis=1))
    options = {"scale_range": (1, 1), "flip_probability": 0, "crop_size": 24}
    orders = [tuple(transform(**options)(sample, epoch).class_labels.tolist()) for epoch in range(300)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    firsts = np.bincount([order[0] for order in orders], minlength=9)
    assert firsts.min() > 15
    limited = [transform(**options, max_masks=4)(sample, epoch) for epoch in range(5)]
    assert [tuple(result.class_labels.tolist()) for result in limited] == [order[:4] for order in orders[:5]]
    assert all(result.mask_labels.shape == (4, 24, 24) for result in limited)
    assert (limited[0].mask_map == -1).sum() == 5 * 64


def test_small_masks_can_be_left_out():
    segmentation = np.ones((32, 32))
    segmentation[:2, :3] = 2
    sample = make_sample(segmentation)
    options = {"scale_range": (1, 1), "flip_probability": 0}
    assert len(transform(**options, min_mask_area=6)(sample).class_labels) == 2
    assert transform(**options, min_mask_area=7)(sample).class_labels.tolist() == [0]


def test_a_crop_without_any_mask_is_a_sample_too():
    result = transform()(make_sample(np.zeros((10, 10))))
    assert result.mask_labels.shape == (0, 32, 32)
    assert result.class_labels.shape == (0,)
    assert result.class_labels.dtype == torch.int64
    batch = collate_training_samples([result, transform()(make_sample(np.ones((10, 10))))])
    assert [len(masks) for masks in batch["mask_labels"]] == [0, 1]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_reduced_masks_equal_bilinear_resizing_and_a_threshold(stride):
    sample = make_sample(blocks(3, 64, 64, cell=3))
    options = {"scale_range": (1, 1), "flip_probability": 0, "crop_size": 64}
    full = transform(**options)(sample)
    reduced = transform(**options, mask_stride=stride)(sample)
    small = torch.nn.functional.interpolate(
        full.mask_labels[None].float(), scale_factor=1 / stride, mode="bilinear", align_corners=False
    )[0]
    for label, mask in zip(full.class_labels.tolist(), small > 0.5, strict=True):
        index = reduced.class_labels.tolist().index(label) if mask.any() else None
        assert index is None or torch.equal(reduced.mask_labels[index], mask)
    assert len(reduced.class_labels) == int((small > 0.5).flatten(1).any(1).sum())


def test_the_same_seed_epoch_and_sample_give_the_same_result_whatever_came_before():
    samples = [make_sample(blocks(i, 40, 50), sample_id=f"s{i}") for i in range(3)]
    options = {"seed": 7, "color_augmentation": True}
    forwards = [transform(**options)(sample, 2) for sample in samples]
    np.random.seed(1)
    torch.manual_seed(5)
    one = transform(**options)
    backwards = [one(sample, 2) for sample in reversed(samples)][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        for name in ("pixel_values", "pixel_mask", "mask_map", "class_labels"):
            assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 1}, {"sample_id": "other"}])
def test_seed_epoch_and_sample_each_change_the_draw(change):
    def draw(seed=0, epoch=0, sample_id="s"):
        sample = make_sample(blocks(0, 60, 60), sample_id=sample_id)
        return transform(seed=seed)(sample, epoch).pixel_values

    assert not torch.equal(draw(), draw(**change))


def test_color_augmentation_is_off_unless_asked_for_and_leaves_masks_alone():
    assert not TrainingTransform().color_augmentation
    sample = make_sample(blocks(0, 60, 60), image=picture(0, 60, 60))
    plain = [transform()(sample, epoch) for epoch in range(10)]
    colored = [transform(color_augmentation=True)(sample, epoch) for epoch in range(10)]
    changed = [not torch.equal(a.pixel_values, b.pixel_values) for a, b in zip(plain, colored, strict=True)]
    assert sum(changed) >= 7
    for first, second in zip(plain, colored, strict=True):
        assert torch.equal(first.mask_map, second.mask_map)
        assert torch.equal(first.class_labels, second.class_labels)
        assert (second.pixel_values[:, ~second.pixel_mask] == 128).all()


def test_color_augmentation_stays_within_its_limits():
    gray = Image.new("RGB", (4, 4), (100, 100, 100))  # no saturation, so hue and saturation change nothing
    values = {
        tuple(np.unique(np.asarray(ssd_color_augmentation(gray, np.random.default_rng(seed))))) for seed in range(400)
    }
    assert all(len(value) == 1 for value in values)
    lowest, highest = min(values)[0], max(values)[0]
    assert 34 <= lowest < 45
    assert 180 < highest <= 198
    assert (100,) in values


def test_hue_moves_by_a_tenth_of_a_turn_at_most():
    red = Image.new("RGB", (2, 2), (120, 60, 60))  # no change of brightness or contrast clips it
    hues = [
        np.asarray(ssd_color_augmentation(red, np.random.default_rng(seed)).convert("HSV"))[0, 0, 0].astype(int)
        for seed in range(300)
    ]
    turned = (np.array(hues) + 128) % 256 - 128
    assert 18 < turned.max() <= 28
    assert -28 <= turned.min() < -18


@pytest.mark.parametrize(
    "options",
    [
        {"scale_range": (0, 1)},
        {"scale_range": (2, 1)},
        {"flip_probability": 1.5},
        {"mask_unit": "instance"},
        {"mask_stride": 3},
        {"mask_stride": 0},
        {"mask_stride": 4, "crop_size": 30},
        {"crop_size": 0},
        {"max_masks": 0},
        {"min_mask_area": 0},
    ],
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        transform(**options)


def test_batches_hold_lists_where_samples_differ():
    samples = [transform()(make_sample(blocks(i, 40, 50), sample_id=f"s{i}"), 3) for i in range(3)]
    batch = collate_training_samples(samples)
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_mask"].shape == batch["mask_map"].shape == (3, 32, 32)
    assert batch["sample_id"] == ["s0", "s1", "s2"]
    assert batch["epoch"] == [3, 3, 3]
    for index, sample in enumerate(samples):
        assert torch.equal(batch["mask_labels"][index], sample.mask_labels)
        assert torch.equal(masks_from_map(batch["mask_map"][index], len(sample.class_labels)), sample.mask_labels)
        assert torch.equal(batch["class_labels"][index], sample.class_labels)
    assert "mask_labels" not in collate_training_samples(samples, mask_labels=False)


def test_training_samples_are_plain_data():
    assert {field.name for field in dataclasses.fields(transform()(make_sample(np.ones((4, 4)))))} == {
        "pixel_values",
        "pixel_mask",
        "mask_map",
        "class_labels",
        "sample_id",
        "epoch",
    }
