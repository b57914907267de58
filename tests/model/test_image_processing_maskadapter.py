"""Pictures of every kind, masks and label maps become a model's inputs."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor

from hf_maskadapter import MaskAdapterImageProcessor, MaskAdapterImageProcessorPil
from hf_maskadapter.model.image_processing_maskadapter import (
    PIXEL_MEAN,
    PIXEL_STD,
    resized_size,
)
from support.pictures import EXIF_ORIENTATION, SIDEWAYS, as_file, quarters, random_pixels


@pytest.fixture
def processor():
    """Small sizes, so that tests are fast."""
    return MaskAdapterImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}, size_divisor=16)


@pytest.fixture
def keep_size():
    return MaskAdapterImageProcessorPil(do_resize=False)


# Sizes


@pytest.mark.parametrize(
    ("size", "edges", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        ((300, 1000), (800, 1333), (400, 1333)),
        ((512, 683), (896, 896), (672, 896)),
        ((1024, 2048), (1024, 2560), (1024, 2048)),
        ((500, 500), (896, None), (896, 896)),
        ((3000, 40), (800, 1333), (1333, 18)),
        ((1, 5000), (800, 1333), (1, 1333)),
        ((1, 1), (800, 1333), (800, 800)),
    ],
)
def test_sizes_of_the_published_evaluations(size, edges, expected):
    assert resized_size(*size, *edges) == expected


@pytest.mark.parametrize(("size", "expected"), [((256, 25), (896, 87)), ((256, 101), (896, 353))])
def test_a_side_of_a_whole_number_and_a_half_is_rounded_as_the_published_order_of_steps_does(size, expected):
    assert resized_size(*size, 896, 896) == expected  # 87.5 and 353.5, a last bit short after two multiplications


@given(
    st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(896, 896), (800, 1333), (1024, 2560), (640, None)])
)
def test_a_resized_picture_keeps_its_shape_and_fits_the_edges(height, width, edges):
    shortest, longest = edges
    new = resized_size(height, width, shortest, longest)
    assert min(new) <= shortest
    assert max(new) <= (longest or max(new))
    assert min(new) == shortest or max(new) == longest
    scale = max(new) / max(height, width)
    assert abs(min(new) - max(min(height, width) * scale, 1)) <= 0.5 + scale / 2
    assert resized_size(width, height, shortest, longest) == new[::-1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [({"longest_edge": 48}, (24, 48)), ({"shortest_edge": 48}, (48, 96)), ({"height": 40, "width": 24}, (40, 24))],
)
def test_other_ways_to_give_a_size(processor, size, expected):
    features = processor(random_pixels(10, 20), size=size, return_tensors="pt")
    rows, columns = features["pixel_mask"][0].amax(1).sum(), features["pixel_mask"][0].amax(0).sum()
    assert (rows, columns) == expected


# Pixels


def test_pixels_are_resized_by_pil_normalized_and_then_padded_with_zeros(processor):
    image = Image.fromarray(random_pixels(30, 50))
    features = processor(image, return_tensors="pt")
    resized = np.asarray(image.resize((53, 32), Image.Resampling.BILINEAR), dtype=np.float64)
    expected = ((resized - PIXEL_MEAN) / PIXEL_STD).transpose(2, 0, 1)
    assert features["pixel_values"].shape == (1, 3, 32, 64)
    assert features["pixel_values"].dtype == torch.float32
    np.testing.assert_allclose(features["pixel_values"][0, :, :, :53], expected, atol=1e-6)
    assert (features["pixel_values"][..., 53:] == 0).all()


def test_a_batch_is_padded_to_its_largest_height_and_width_and_a_multiple_of_the_divisor(keep_size):
    images = [random_pixels(20, 70), random_pixels(40, 10, seed=1)]
    features = keep_size(images, return_tensors="pt")
    assert features["pixel_values"].shape == (2, 3, 64, 96)
    assert features["original_sizes"].tolist() == [[20, 70], [40, 10]]
    for mask, image in zip(features["pixel_mask"], images, strict=True):
        inside = torch.zeros(64, 96, dtype=torch.long)
        inside[: image.shape[0], : image.shape[1]] = 1
        assert torch.equal(mask, inside)
    assert (features["pixel_values"] * (1 - features["pixel_mask"][:, None]) == 0).all()


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.sampled_from([1, 4, 7, 32])
)
@settings(max_examples=25)
def test_pictures_of_a_batch_are_those_of_single_calls(sizes, divisor):
    processor = MaskAdapterImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 24}, size_divisor=divisor)
    images = [random_pixels(*size, seed) for seed, size in enumerate(sizes)]
    batch = processor(images, return_tensors="pt")
    assert all(side % divisor == 0 for side in batch["pixel_values"].shape[-2:])
    for index, image in enumerate(images):
        single = processor(image, return_tensors="pt")
        height, width = single["pixel_values"].shape[-2:]
        assert torch.equal(batch["pixel_values"][index, :, :height, :width], single["pixel_values"][0])
        assert batch["pixel_mask"][index].sum() == single["pixel_mask"].sum()


def test_padding_to_a_given_size(keep_size):
    features = keep_size(random_pixels(20, 30), pad_size={"height": 50, "width": 64}, return_tensors="pt")
    assert features["pixel_values"].shape[-2:] == (64, 64)
    with pytest.raises(ValueError, match='"height" of at least 20 and a "width" of at least 30'):
        keep_size(random_pixels(20, 30), pad_size={"height": 64, "width": 24})


def test_each_step_can_be_left_out(keep_size):
    pixels = random_pixels(20, 30)
    raw = keep_size(pixels, do_normalize=False, do_pad=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(raw[0], torch.from_numpy(pixels).permute(2, 0, 1).float())
    rescaled = keep_size(pixels, do_normalize=False, do_pad=False, do_rescale=True, return_tensors="pt")
    torch.testing.assert_close(rescaled["pixel_values"], raw / 255)


@pytest.mark.parametrize("size", [(1, 1), (31, 57), (3000, 40)])
def test_extreme_sizes(size):
    features = MaskAdapterImageProcessorPil()(random_pixels(*size), return_tensors="pt")
    assert torch.isfinite(features["pixel_values"]).all()
    assert all(side % 32 == 0 for side in features["pixel_values"].shape[-2:])
    assert features["original_sizes"].tolist() == [list(size)]


def test_numpy_arrays_on_request(keep_size):
    arguments = {"segmentation_maps": np.ones((20, 30), dtype=np.uint8), "masks": np.ones((2, 20, 30), dtype=bool)}
    features = keep_size(random_pixels(20, 30), return_tensors="np", **arguments)
    flat = [value for entry in features.values() for value in (entry if isinstance(entry, list) else [entry])]
    assert len(flat) == 7
    assert all(isinstance(value, np.ndarray) for value in flat)


def test_where_channels_are_can_be_said_in_a_call(keep_size):
    pixels = random_pixels(3, 4)  # as tensor also four columns of three channels
    features = keep_size(torch.from_numpy(pixels), input_data_format="channels_last", return_tensors="pt")
    assert features["original_sizes"].tolist() == [[3, 4]]


def test_a_batch_of_arrays_is_a_list_of_pictures(keep_size):
    pixels = np.stack([random_pixels(20, 30, seed) for seed in range(3)])
    listed = keep_size(list(pixels), return_tensors="pt")["pixel_values"]
    for batch in (pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2), tuple(pixels)):
        assert torch.equal(keep_size(batch, return_tensors="pt")["pixel_values"], listed)


# Files and addresses


def test_paths_as_strings_or_path_objects(keep_size, tmp_path):
    path = as_file(Image.fromarray(quarters()), "picture.png", tmp_path)
    expected = keep_size(quarters(), return_tensors="pt")["pixel_values"]
    for source in (path, str(path), [str(path)]):
        assert torch.equal(keep_size(source, return_tensors="pt")["pixel_values"], expected)


# Mistakes


def test_a_file_that_is_missing_or_no_picture_is_named(keep_size, tmp_path):
    good = as_file(Image.fromarray(quarters()), "good.png", tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    with pytest.raises(FileNotFoundError, match=r"Picture 1: .*missing\.png"):
        keep_size([good, tmp_path / "missing.png"])
    for name, reason in (("text.png", "known format"), ("cut.png", "cannot be read")):
        with pytest.raises(ValueError, match=rf"Picture 1: .*{name}.*{reason}"):
            keep_size([good, tmp_path / name])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((6, 5, 2), dtype=np.uint8), ValueError, r"1, 3 or 4 channels, got \(6, 5, 2\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), ValueError, "got"),
        (np.zeros(5, dtype=np.uint8), ValueError, "got"),
        (np.full((2, 2, 3), -1), ValueError, "-1"),
        (np.full((2, 2, 3), 70_000), ValueError, "70000"),
        (np.full((2, 2, 3), np.nan), ValueError, "not finite"),
        (np.full((2, 2, 3), 300.0), ValueError, "300"),
        (np.array([["a", "b"]]), ValueError, "booleans, integers or floats"),
        (7, TypeError, "got int"),
    ],
)
def test_what_cannot_be_a_picture_is_refused(keep_size, image, error, message):
    with pytest.raises(error, match=f"Picture 0: .*{message}"):
        keep_size([image])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": {"max_height": 10, "max_width": 10}}, "size must hold"),
        ({"do_center_crop": True, "crop_size": 10}, "do_center_crop"),
        ({"do_convert_rgb": False}, "do_convert_rgb"),
        ({"data_format": "channels_last"}, "data_format"),
        ({"size_divisor": 0}, "size_divisor must be at least 1"),
        ({"segments_info": []}, "needs the segmentation_maps"),
    ],
)
def test_arguments_that_would_do_nothing_or_harm_are_refused(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(random_pixels(20, 30), **arguments)


def test_no_picture_and_unequal_sizes_without_padding_are_refused(keep_size):
    with pytest.raises(ValueError, match="no picture"):
        keep_size([])
    with pytest.raises(ValueError, match="do_pad=True"):
        keep_size([random_pixels(4, 4), random_pixels(4, 5)], do_pad=False)


# Label maps


def test_a_label_map_becomes_one_mask_for_each_class_and_padding_lies_in_none(keep_size):
    labels = np.full((20, 30), 4, dtype=np.uint8)
    labels[:5], labels[5:8] = 0, 255
    features = keep_size(random_pixels(20, 30), segmentation_maps=labels, return_tensors="pt")
    (masks,), (classes,) = features["mask_labels"], features["class_labels"]
    assert classes.tolist() == [0, 4]
    assert classes.dtype == torch.long
    assert masks.shape == (2, 32, 32)
    assert masks.dtype == torch.float32
    for mask, value in zip(masks, (0, 4), strict=True):
        np.testing.assert_array_equal(mask[:20, :30], labels == value)
    assert masks[:, 20:].sum() == masks[:, :, 30:].sum() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16, bool])
def test_label_maps_as_arrays_tensors_pictures_and_files(keep_size, tmp_path, dtype):
    labels = np.zeros((6, 7), dtype=dtype)
    labels[:3] = 1
    forms = [labels, labels[None], [labels]]
    if dtype != np.uint16:
        forms.append(torch.from_numpy(labels))
    if dtype != np.int64:
        forms.append(Image.fromarray(labels))
    if dtype in (np.uint8, np.uint16, bool):
        forms.append(as_file(Image.fromarray(labels), "labels.png", tmp_path))
    for form in forms:
        features = keep_size(random_pixels(6, 7), segmentation_maps=form, return_tensors="pt")
        assert features["class_labels"][0].tolist() == [0, 1]
        np.testing.assert_array_equal(features["mask_labels"][0][1, :6, :7], labels == 1)


def test_values_of_a_palette_map_are_the_classes_not_the_colors(keep_size, tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 2]], dtype=np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    path = as_file(picture, "voc.png", tmp_path)
    features = keep_size(random_pixels(2, 2), segmentation_maps=path, return_tensors="pt")
    assert features["class_labels"][0].tolist() == [0, 1, 2]


def test_class_ids_of_32_bits(keep_size):
    labels = np.array([[0, 846], [70_000, 2**30]], dtype=np.int32)
    features = keep_size(random_pixels(2, 2), segmentation_maps=labels, return_tensors="pt")
    assert features["class_labels"][0].tolist() == [0, 846, 70_000, 2**30]


def test_reduced_labels_ignore_0_and_the_ignore_value_as_stored_and_nothing_else(keep_size):
    labels = np.array([[0, 1, 254, 255, 256, 300]], dtype=np.uint16)
    features = keep_size(random_pixels(1, 6), segmentation_maps=labels, do_reduce_labels=True)
    assert features["class_labels"][0].tolist() == [0, 253, 255, 299]
    features = keep_size(random_pixels(1, 6), segmentation_maps=labels, do_reduce_labels=True, ignore_index=None)
    assert features["class_labels"][0].tolist() == [0, 253, 254, 255, 299]


def test_negative_values_are_no_classes(keep_size):
    labels = np.array([[-100, -1, 0, 255]])
    features = keep_size(random_pixels(1, 4), segmentation_maps=labels, ignore_index=-1)
    assert features["class_labels"][0].tolist() == [0, 255]


def test_a_map_of_ignored_pixels_only_gives_no_mask(keep_size):
    features = keep_size(random_pixels(4, 4), segmentation_maps=np.full((4, 4), 255), return_tensors="pt")
    assert features["mask_labels"][0].shape == (0, 32, 32)
    assert features["class_labels"][0].shape == (0,)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=40)
def test_label_maps_are_resized_to_the_nearest_pixel_as_pil_does(height, width, new_height, new_width):
    labels = np.random.default_rng(0).integers(0, 5, (height, width), dtype=np.uint8)
    processor = MaskAdapterImageProcessorPil(size={"height": new_height, "width": new_width}, size_divisor=1)
    features = processor(random_pixels(height, width), segmentation_maps=labels, return_tensors="np")
    expected = np.asarray(Image.fromarray(labels).resize((new_width, new_height), Image.Resampling.NEAREST))
    (masks,), (classes,) = features["mask_labels"], features["class_labels"]
    np.testing.assert_array_equal((masks * classes[:, None, None]).sum(axis=0), expected)
    assert (masks.sum(axis=0) == 1).all()


def test_label_maps_are_turned_with_their_picture(keep_size, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    stored = [Image.fromarray(values).transpose(Image.Transpose.ROTATE_90) for values in (random_pixels(3, 4), labels)]
    picture, turned = (as_file(image, f"{n}.png", tmp_path, exif=exif) for n, image in enumerate(stored))
    for label_map in (turned, Image.open(turned), labels):
        features = keep_size(picture, segmentation_maps=label_map, return_tensors="np")
        assert features["original_sizes"].tolist() == [[3, 4]]
        np.testing.assert_array_equal(features["mask_labels"][0].argmax(axis=0)[:3, :4], labels)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((4, 6), dtype=np.uint8), "picture 0 is 4x6, but the picture 4x5"),
        (np.zeros((4, 5)), "integers of shape .* got float64"),
        (np.zeros((4, 5, 3), dtype=np.uint8), "needs its segments_info"),
        ([np.zeros((4, 5), dtype=np.uint8)] * 2, "2 entries for 1 pictures"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(keep_size, label_map, message):
    with pytest.raises(ValueError, match=message):
        keep_size(random_pixels(4, 5), segmentation_maps=label_map)


def test_a_label_map_file_that_is_no_picture_is_named(keep_size, tmp_path):
    (tmp_path / "map.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"map of picture 0, .*map\.png, cannot be read: "):
        keep_size(random_pixels(4, 5), segmentation_maps=tmp_path / "map.png")


# Panoptic maps


def panoptic_sample():
    """Segment ids that need all three colours, the first a crowd, the last not listed."""
    ids = np.array([[7, 7, 300, 300], [7, 7, 70_000, 12]])
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
    info = [
        {"id": 300, "category_id": 5, "iscrowd": 0},
        {"id": 7, "category_id": 3, "iscrowd": 1},
        {"id": 70_000, "category_id": 5},
    ]
    return ids, rgb, info


@pytest.mark.parametrize("form", ["ids", "rgb", "rgba", "picture", "file", "list"])
def test_panoptic_maps_leave_out_crowds_and_what_is_not_listed(keep_size, form, tmp_path):
    ids, rgb, info = panoptic_sample()
    label_map = {
        "ids": ids,
        "rgb": rgb,
        "rgba": np.dstack([rgb, np.full(ids.shape, 255, dtype=np.uint8)]),
        "picture": Image.fromarray(rgb),
        "file": as_file(Image.fromarray(rgb), "panoptic.png", tmp_path),
        "list": [rgb],
    }[form]
    for segments_info in (info, [info]):
        features = keep_size(
            random_pixels(2, 4), segmentation_maps=label_map, segments_info=segments_info, return_tensors="pt"
        )
        assert features["class_labels"][0].tolist() == [5, 5]
        np.testing.assert_array_equal(features["mask_labels"][0][:, :2, :4], [ids == 300, ids == 70_000])


def test_a_panoptic_map_of_one_pixel(keep_size):
    features = keep_size(
        random_pixels(1, 1),
        segmentation_maps=np.array([[[1, 0, 0]]], dtype=np.uint8),
        segments_info=[{"id": 1, "category_id": 2}],
    )
    assert features["class_labels"][0].tolist() == [2]


def test_a_picture_without_segments_gives_no_mask(keep_size):
    features = keep_size(
        random_pixels(2, 2), segmentation_maps=np.zeros((2, 2), int), segments_info=[], return_tensors="pt"
    )
    assert features["mask_labels"][0].shape == (0, 32, 32)


def test_a_segment_that_vanishes_in_resizing_is_left_out():
    ids = np.ones((40, 40), dtype=int)
    ids[0, 0] = 2
    info = [{"id": 2, "category_id": 0}, {"id": 1, "category_id": 1}]
    processor = MaskAdapterImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 8})
    assert processor(random_pixels(40, 40), ids, info)["class_labels"][0].tolist() == [1]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ([{"id": 1}], 'need an "id" and a "category_id"'),
        ([{"id": 99, "category_id": 1}], "No segment that is listed for picture 0 is in its map"),
        ([[], []], "2 entries for 1 pictures"),
    ],
)
def test_segments_that_do_not_fit_are_refused(keep_size, info, message):
    ids, _, _ = panoptic_sample()
    with pytest.raises(ValueError, match=message):
        keep_size(random_pixels(2, 4), segmentation_maps=ids, segments_info=info)


# Masks from the caller


def test_masks_are_resized_like_their_picture_and_padded_with_empty_ones(processor):
    hard = np.zeros((3, 16, 24), dtype=bool)
    hard[0, :8], hard[1, :, :12], hard[2] = True, True, True
    other = np.ones((1, 32, 16), dtype=bool)
    features = processor([random_pixels(16, 24), random_pixels(32, 16)], masks=[hard, other], return_tensors="pt")
    masks = features["masks"]
    assert masks.shape == (2, 3, 64, 48)
    assert features["num_masks"].tolist() == [3, 1]
    assert masks[0, 0].sum() == 16 * 48
    assert masks[0, 0, :16, :48].all()
    assert masks[0, 1].sum() == 32 * 24
    assert masks[0, 1, :32, :24].all()
    assert masks[1, 0].sum() == 64 * 32
    assert masks[1, 1:].sum() == 0
    assert torch.equal(masks[0, 2], features["pixel_mask"][0].float())


@pytest.mark.parametrize("inside", [True, 1, 255])
def test_hard_masks_of_every_kind_are_the_same_and_stay_hard(processor, inside):
    hard = np.random.default_rng(0).random((2, 30, 44)) > 0.5
    expected = processor(random_pixels(30, 44), masks=hard, return_tensors="pt")["masks"]
    assert set(expected.unique().tolist()) == {0, 1}
    array = hard if inside is True else hard.astype(np.uint8) * np.uint8(inside)
    forms = [array, torch.from_numpy(array), [array], list(array), array[None]]
    if inside is not True:
        forms.append([Image.fromarray(mask) for mask in array])
    for form in forms:
        assert torch.equal(processor(random_pixels(30, 44), masks=form, return_tensors="pt")["masks"], expected)


def test_soft_masks_are_resized_bilinearly(processor):
    soft = np.random.default_rng(0).random((2, 16, 24))
    for form in (soft, torch.from_numpy(soft), torch.from_numpy(soft).bfloat16()):
        masks = processor(random_pixels(16, 24), masks=form, return_tensors="pt")["masks"]
        resized = Image.fromarray(soft[1].astype(np.float32)).resize((48, 32), Image.Resampling.BILINEAR)
        atol = 0.01 if getattr(form, "dtype", None) == torch.bfloat16 else 1e-6
        np.testing.assert_allclose(masks[0, 1, :32, :48], np.asarray(resized), atol=atol)
        assert masks.min() >= 0
        assert masks.max() <= 1


def test_no_masks_at_all(keep_size):
    for none in (np.zeros((0, 6, 7), dtype=bool), [[]], [np.zeros((0, 6, 7))]):
        features = keep_size(random_pixels(6, 7), masks=none, return_tensors="pt")
        assert features["masks"].shape == (1, 0, 32, 32)
        assert features["num_masks"].tolist() == [0]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((2, 7, 6), dtype=bool), r"\(num_masks, 6, 7\), the picture's size .* got \(2, 7, 6\)"),
        (np.full((1, 6, 7), 2), "integers 0 and 1 or 0 and 255"),
        (np.full((1, 6, 7), 1.5), r"floats in \[0, 1\]"),
        (np.full((1, 6, 7), np.nan), r"floats in \[0, 1\]"),
        ([np.zeros((1, 6, 7))] * 2, "2 entries for 1 pictures"),
    ],
)
def test_masks_that_do_not_fit_are_refused(keep_size, masks, message):
    with pytest.raises(ValueError, match=message):
        keep_size(random_pixels(6, 7), masks=masks)


def test_masks_have_the_size_that_a_viewer_shows(keep_size, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    path = as_file(Image.fromarray(random_pixels(8, 12)), "turned.png", tmp_path, exif=exif)
    assert keep_size(path, masks=np.ones((1, 12, 8), dtype=bool))["masks"].sum() == 96
    with pytest.raises(ValueError, match="as a viewer shows it"):
        keep_size(path, masks=np.ones((1, 8, 12), dtype=bool))


# Saving and loading


def test_defaults_are_the_published_ones():
    processor = MaskAdapterImageProcessor()
    assert dict(processor.size) == {"shortest_edge": 800, "longest_edge": 1333}
    assert processor.image_mean == PIXEL_MEAN == (122.7709383, 116.7460125, 104.09373615)
    assert processor.image_std == PIXEL_STD == (68.5005327, 66.6321579, 70.32316305)
    assert processor.size_divisor == 32
    assert not processor.do_rescale


def test_save_and_load_keeps_every_setting(tmp_path):
    settings_given = {
        "size": {"shortest_edge": 48, "longest_edge": 96},
        "size_divisor": 8,
        "ignore_index": 254,
        "do_reduce_labels": True,
        "image_mean": [1.0, 2.0, 3.0],
    }
    processor = MaskAdapterImageProcessorPil(**settings_given)
    processor.save_pretrained(tmp_path)
    arguments = {"images": random_pixels(30, 50), "segmentation_maps": random_pixels(30, 50)[..., 0]}
    before = processor(**arguments, return_tensors="pt")
    for cls in (AutoImageProcessor, MaskAdapterImageProcessorPil):
        loaded = cls.from_pretrained(tmp_path)
        assert type(loaded) is MaskAdapterImageProcessorPil
        assert loaded.to_dict() == processor.to_dict()
        after = loaded(**arguments, return_tensors="pt")
        assert torch.equal(before["pixel_values"], after["pixel_values"])
        assert torch.equal(before["mask_labels"][0], after["mask_labels"][0])
    assert AutoImageProcessor.from_pretrained(tmp_path, size_divisor=4).size_divisor == 4


# Mistakes in files, masks as pictures, a fresh process


def test_a_truncated_photograph_is_named(keep_size, tmp_path):
    path = as_file(Image.fromarray(random_pixels(64, 64)), "cut.jpg", tmp_path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"Picture 0: .*cut\.jpg cannot be read: .*truncated"):
        keep_size(path)


def test_a_truncated_label_map_is_named(keep_size, tmp_path):
    path = as_file(Image.fromarray(random_pixels(64, 64)[..., 0]), "cut.png", tmp_path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"map of picture 0, .*cut\.png, cannot be read: .*truncated"):
        keep_size(random_pixels(64, 64), segmentation_maps=path)


def test_a_folder_in_place_of_a_picture_is_named_once(keep_size, tmp_path):
    with pytest.raises(ValueError, match="cannot be read") as error:
        keep_size(tmp_path)
    assert str(error.value).count(str(tmp_path)) == 1


def test_masks_that_are_pictures_are_turned_as_exif_says(keep_size, tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    hard = np.zeros((8, 12), dtype=np.uint8)
    hard[:3, :5] = 255
    stored = Image.fromarray(hard).transpose(Image.Transpose.ROTATE_90)
    mask = Image.open(as_file(stored, "mask.png", tmp_path, exif=exif))
    for masks in (mask, [mask], [[mask]]):
        features = keep_size(random_pixels(8, 12), masks=masks, return_tensors="np")
        np.testing.assert_array_equal(features["masks"][0, 0, :8, :12], hard > 0)


def test_an_empty_list_is_no_mask_of_a_single_picture(keep_size):
    features = keep_size(random_pixels(6, 7), masks=[], return_tensors="pt")
    assert features["masks"].shape == (1, 0, 32, 32)
    assert features["num_masks"].tolist() == [0]


def test_masks_of_unequal_sizes_are_refused(keep_size):
    with pytest.raises(ValueError, match="masks of picture 0 must all be of one size"):
        keep_size(random_pixels(6, 7), masks=[np.zeros((6, 7), dtype=bool), np.zeros((7, 6), dtype=bool)])


def test_soft_masks_stay_probabilities_whatever_the_resampling():
    processor = MaskAdapterImageProcessorPil(size={"height": 37, "width": 53}, resample=Image.Resampling.BICUBIC)
    soft = (np.random.default_rng(0).random((1, 16, 24)) > 0.5).astype(np.float32)
    masks = processor(random_pixels(16, 24), masks=soft, return_tensors="pt")["masks"]
    assert masks.min() == 0
    assert masks.max() == 1


def test_auto_image_processor_knows_the_class_in_a_fresh_process(tmp_path):
    MaskAdapterImageProcessorPil(size_divisor=8).save_pretrained(tmp_path)
    program = (
        "import hf_maskadapter\nfrom transformers import AutoImageProcessor\n"
        f"processor = AutoImageProcessor.from_pretrained({str(tmp_path)!r})\n"
        "print(type(processor).__name__, processor.size_divisor)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["MaskAdapterImageProcessorPil", "8"]
