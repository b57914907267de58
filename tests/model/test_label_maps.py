"""Numbers in label maps and panoptic maps of every kind."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter.model.label_maps import checked_ids, distinct_segments, label_values, segment_ids
from support.pictures import EXIF_ORIENTATION, SIDEWAYS, encoded

VALUES = np.array([[0, 1, 2], [2, 7, 200]], dtype=np.uint8)


def palette(values):
    image = Image.fromarray(values, mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    return image


@pytest.mark.parametrize(
    "value",
    [
        VALUES,
        VALUES.astype(np.int64),
        VALUES[..., None],
        VALUES[None],
        torch.from_numpy(VALUES)[None],
        VALUES.tolist(),
        Image.fromarray(VALUES),
        Image.fromarray(VALUES.astype(np.uint16)),
        Image.fromarray(VALUES.astype(np.int32)),
        palette(VALUES),
        Image.fromarray(VALUES).convert("RGB"),
        Image.fromarray(VALUES).convert("RGBA"),
        Image.fromarray(np.dstack([VALUES, VALUES * 0 + 255])),
    ],
    ids=["uint8", "int64", "last", "first", "tensor", "list", "L", "I;16", "I", "P", "RGB", "RGBA", "LA"],
)
def test_numbers_of_a_label_map(value):
    np.testing.assert_array_equal(label_values(value), VALUES)


def test_a_label_map_of_two_values():
    assert label_values(Image.fromarray(VALUES > 1)).tolist() == [[False, False, True], [True, True, True]]


def test_a_label_map_is_turned_as_exif_says():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    stored = Image.fromarray(VALUES).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(label_values(Image.open(io.BytesIO(encoded(stored, exif=exif)))), VALUES)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.array([[0.5]]), TypeError, "float64 values"),
        (np.array([["a"]]), TypeError, "values; they must be whole"),
        (np.arange(12).reshape(2, 2, 3), ValueError, "one channel.*panoptic"),
        (np.zeros((2, 2, 5, 5), int), ValueError, "shape"),
        (np.array([[2**64 - 1]], dtype=np.uint64), ValueError, "too large"),
    ],
)
def test_what_is_no_label_map_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        label_values(value)


def test_maps_that_were_saved_as_jpeg_are_refused():
    picture = Image.open(io.BytesIO(encoded(Image.fromarray(VALUES), "JPEG")))
    for read in (label_values, lambda value: segment_ids(value, [1, 2, 7, 200])):
        with pytest.raises(ValueError, match="is a JPEG, which changes values: save maps as PNG"):
            read(picture)


def test_unlisted_segments_are_refused_dropped_or_kept():
    ids = np.array([[0, 5, 70_000]])
    with pytest.raises(ValueError, match="does not list: 70000"):
        segment_ids(ids, [5])
    assert segment_ids(ids, [5], unlisted="drop").tolist() == [[-1, 5, -1]]
    assert segment_ids(ids, [5], unlisted="keep").tolist() == ids.tolist()


def test_zero_and_negative_numbers_need_no_entry():
    assert segment_ids(np.array([[-1.0, 0.0, 2.0]]), [2]).tolist() == [[-1, 0, 2]]


def test_colors_count_before_numbers_where_both_are_listed():
    gray = Image.fromarray(np.array([[0, 3]], dtype=np.uint8))
    assert segment_ids(gray, [3]).tolist() == [[0, 3]]
    assert segment_ids(gray, [3 * 65_793]).tolist() == [[0, 3 * 65_793]]
    assert segment_ids(gray, [3, 3 * 65_793]).tolist() == [[0, 3 * 65_793]]


def test_a_palette_of_an_unlisted_color_is_not_taken_for_an_empty_map():
    image = Image.fromarray(np.zeros((1, 2), dtype=np.uint8), mode="P")
    image.putpalette([7, 0, 0])
    with pytest.raises(ValueError, match="does not list: 7"):
        segment_ids(image, [5])


@pytest.mark.parametrize("first", [True, False])
def test_colors_may_come_with_channels_first(first):
    colors = np.zeros((4, 6, 3), dtype=np.uint8)
    colors[..., 1] = 2
    value = torch.from_numpy(colors).permute(2, 0, 1) if first else torch.from_numpy(colors)
    np.testing.assert_array_equal(segment_ids(value, [512]), np.full((4, 6), 512))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.array([[1.5]]), TypeError, "whole numbers"),
        (np.array([[np.nan]]), TypeError, "whole numbers"),
        (np.full((1, 5, 3), 256), ValueError, "colours from 256 to 256"),
        (np.zeros(4, int), ValueError, "shape"),
    ],
)
def test_what_is_no_panoptic_map_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        segment_ids(value, [1])


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"2x3 .*its picture 3x2"):
        segment_ids(VALUES, [1, 2, 7, 200], (3, 2))


def test_a_fused_segment_is_one_entry_and_two_classes_of_one_id_are_an_error():
    sky, person, cat = ({"id": number, "label_id": label} for number, label in ((1, 0), (2, 1), (2, 2)))
    assert distinct_segments([sky, person, dict(sky, score=0.1)]) == [sky, person]
    for wrong, message in (
        ([sky, person, sky, cat], "segment 2 twice, as class 1 and as class 2"),
        ([{"id": 7}, {"id": 7}], "segment 7 twice"),
        ([{"category_id": 3}], 'an "id" each'),
        ([{"id": 1.5}], "a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            distinct_segments(wrong)


def test_ids_that_are_listed_twice_are_refused():
    assert checked_ids([5, 3]) == {5: 0, 3: 1}
    with pytest.raises(ValueError, match="lists the segment id 5 twice"):
        checked_ids([5, 3, 5])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBA", "LA"])
def test_grey_values_mean_the_same_in_every_mode_that_holds_them(mode):
    image = Image.fromarray(VALUES)
    image = image.convert(mode) if mode == "LA" else image.convert("RGB").convert(mode)
    np.testing.assert_array_equal(label_values(image), VALUES)
    numbers = VALUES.astype(np.int64) * (1 + 256 + 65536)
    np.testing.assert_array_equal(segment_ids(image, np.unique(numbers)[1:].tolist()), numbers)
