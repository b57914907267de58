"""Array forms of masks: run lengths, polygons, colours and values."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco

from hf_maskadapter.model.masks import (
    as_array,
    binary_mask,
    checked_run_lengths,
    coco_mask,
    colors_to_ids,
    contour_mask,
    decode_run_lengths,
    encode_compressed_run_lengths,
    encode_run_lengths,
    from_run_lengths,
    ids_to_colors,
    is_smooth_mask,
    masks_from_array,
    polygon_mask,
    run_lengths,
    whole_number,
)
from support.masks import encoded


@settings(max_examples=100)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.booleans())
def test_run_length_encodings_are_decoded_as_by_pycocotools(mask, compress):
    rle = encoded(mask, compress)
    np.testing.assert_array_equal(decode_run_lengths(rle), mask)
    if compress:
        as_text = json.loads(json.dumps(rle | {"counts": rle["counts"].decode()}))
        np.testing.assert_array_equal(decode_run_lengths(as_text), mask)


def test_large_runs_are_decoded():
    mask = np.zeros((900, 1200), dtype=bool)
    mask[100:700, 300:900] = True
    np.testing.assert_array_equal(decode_run_lengths(encoded(mask, True)), mask)


@pytest.mark.parametrize("seed", range(4))
def test_polygons_nearly_agree_with_pycocotools(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(20, 60, 9)
    points = np.stack([80 + radii * np.cos(angles), 70 + radii * np.sin(angles)], axis=1)
    found = coco_mask([points.ravel().tolist()], (140, 160))
    expected = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], 140, 160))).astype(bool)
    assert (found & expected).sum() / (found | expected).sum() > 0.97


@settings(max_examples=100)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_masks_are_encoded_as_by_pycocotools(mask):
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_compressed_run_lengths(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}
    assert encode_run_lengths(mask) == encoded(mask, compress=False)
    json.dumps([encode_compressed_run_lengths(mask), encode_run_lengths(mask)])


def test_runs_of_many_pixels_are_encoded_as_by_pycocotools():
    mask = np.zeros((1500, 2000), dtype=bool)
    mask[:, 900:1999] = True
    mask[3, 4] = True
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_compressed_run_lengths(mask)["counts"] == expected["counts"].decode()


def test_runs_begin_with_the_background():
    assert run_lengths(np.array([True, True, False])).tolist() == [0, 2, 1]
    assert from_run_lengths([0, 2, 1], 3).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="these sum to 4, but the mask has 3 pixels"):
        from_run_lengths([2, 2], 3)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"size": [2, 3], "counts": [2, 3]}, "sum to 5, but its size is 2×3"),
        ({"size": [2, 3], "counts": []}, "these are"),
        ({"size": [0, 3], "counts": [0]}, "at least 1x1"),
        ({"size": [2], "counts": [6]}, 'needs "size"'),
        ({"size": [2, 3], "counts": [2.5, 3.5]}, "whole numbers"),
        ({"size": [2, 3], "counts": [2**63, 2**63]}, "these are|these sum"),
        ({"size": [10**6, 10**6], "counts": [5, 5]}, "sum to 10"),
        ({"size": [2, 3], "counts": b"o" * 20 + b"0"}, "more than 60 bits"),
        (None, 'needs "size"'),
    ],
)
def test_run_lengths_that_do_not_fill_their_size_are_refused(record, message):
    with pytest.raises(ValueError, match=message):
        decode_run_lengths(record)


def test_an_encoding_of_another_size_is_refused_before_it_is_unfolded():
    tracemalloc.start()
    with pytest.raises(ValueError, match="of a picture of 100000x100000, this one is 2x3"):
        decode_run_lengths({"size": [100_000, 100_000], "counts": [10**10]}, (2, 3))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# Polygons


@pytest.mark.parametrize("rule", ["center", "coco"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_polygon_along_pixels_encloses_exactly_these(rule, backwards):
    points = [(2, 2), (6, 2), (6, 5), (2, 5)]
    expected = np.zeros((8, 9), dtype=bool)
    expected[2:5, 2:6] = True
    found = polygon_mask(points[::-1] if backwards else points, (8, 9), rule)
    assert found.sum() == 12
    np.testing.assert_array_equal(found, expected)


def inside_by_definition(points, size):
    """The pixels whose centres have an odd number of edges to their left, one by one."""
    mask = np.zeros(size, dtype=bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if min(y1, y2) <= y < max(y1, y2) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
                    mask[row, column] ^= True
    return mask


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 9))
def test_the_center_rule_is_that_of_its_definition(seed, number):
    points = np.random.default_rng(seed).uniform(-5, 18, (number, 2)).round(2)
    np.testing.assert_array_equal(polygon_mask(points, (11, 13)), inside_by_definition(points, (11, 13)))


@settings(max_examples=400)
@given(
    st.integers(0, 100_000),
    st.integers(3, 10),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(["any", "whole", "halves", "far"]),
)
def test_the_coco_rule_is_that_of_pycocotools(seed, number, size, kind):
    spread = (-20, 20) if kind == "far" else (-0.3, 1.3)
    points = np.random.default_rng(seed).uniform(*spread, (number, 2)) * size[::-1]
    points = {"whole": np.round(points), "halves": np.round(points * 2) / 2}.get(kind, points)
    expected = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], *size))).astype(bool)
    np.testing.assert_array_equal(polygon_mask(points, size, rule="coco"), expected)
    np.testing.assert_array_equal(coco_mask([points.ravel().tolist()], size), expected)


def test_polygons_that_belong_together_are_joined_as_by_pycocotools():
    polygons = [[1, 1, 9, 2, 5, 8.5], [4, 4, 12, 4, 12, 9, 4.2, 9]]
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, 10, 14))).astype(bool)
    np.testing.assert_array_equal(coco_mask(polygons, (10, 14)), expected)


@pytest.mark.parametrize("rule", ["center", "coco"])
def test_polygons_far_outside_are_cut_in_little_memory(rule):
    far = 9e8
    tracemalloc.start()
    whole = polygon_mask([(-far, -far), (far, -far), (far, far), (-far, far)], (40, 50), rule)
    half = polygon_mask([(25, -far), (far, -far), (far, far), (25, far)], (40, 50), rule)
    nothing = polygon_mask([(far, far), (far / 2, far), (far, far / 2)], (40, 50), rule)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert whole.all()
    np.testing.assert_array_equal(half, np.broadcast_to(np.arange(50) >= 25, (40, 50)))
    assert not nothing.any()


@pytest.mark.parametrize(
    "points",
    [
        [],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6, 7],
        [[1, 2, 3]] * 3,
        "polygon",
        [True] * 6,
        [1, 2, 3, 4, 5, np.inf],
        [0, 0, 2e9, 0, 0, 5],
    ],
)
def test_points_that_make_no_polygon_are_refused(points):
    for rule in ("center", "coco"):
        with pytest.raises(ValueError, match="polygon"):
            polygon_mask(points, (5, 6), rule)


def test_a_contour_encloses_its_points():
    found = contour_mask(np.array([[[2, 1]], [[2, 3]], [[5, 3]], [[5, 1]]]), (6, 8))
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(found, expected)
    outside = contour_mask(np.array([[[-50, -50]], [[-50, 3]], [[5, 3]], [[5, -50]]]), (6, 8))
    expected = np.zeros((6, 8), dtype=bool)
    expected[:4, :6] = True
    np.testing.assert_array_equal(outside, expected)


# Values


@pytest.mark.parametrize(
    "values",
    [
        np.array([[True, False]]),
        np.array([[1, 0]], dtype=np.int64),
        np.array([[255, 0]], dtype=np.uint8),
        np.array([[0.51, 0.5]]),
        np.array([[255.0, 0.0]]),
        torch.tensor([[0.51, 0.5]]).half(),
        torch.tensor([[0.51, 0.5]], requires_grad=True),
        Image.fromarray(np.array([[True, False]])),
        [[1, 0]],
    ],
)
def test_what_lies_inside_a_mask(values):
    found = binary_mask(values)
    assert found.dtype == bool
    assert found.tolist() == [[True, False]]


def disc(softness):
    image = Image.new("L", (80, 60))
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill=255)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(softness)))


@pytest.mark.parametrize("softness", [0.7, 1.5, 4])
def test_smooth_edges_are_inside_above_half_white(softness):
    values = disc(softness)
    assert is_smooth_mask(values)
    np.testing.assert_array_equal(binary_mask(values), values > 127)
    np.testing.assert_array_equal(
        masks_from_array(np.stack([values, values.T[:60, :60].repeat(2, 1)[:, :80]]), (60, 80))[0], values > 127
    )


@pytest.mark.parametrize(
    "values",
    [
        np.array([[4.0, -4.0]]),
        np.array([[0.2, np.nan]]),
        np.array([[np.inf, 0.0]]),
        np.array([[0, 1, 255]]),
        np.array([[0, 2]]),
        np.array([[-1, 0]]),
        np.arange(19, dtype=np.uint8).repeat(40).reshape(19, 40),
        np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8),
    ],
)
def test_values_that_are_no_masks_are_refused_with_their_number(values):
    with pytest.raises(ValueError, match=rf"{len(np.unique(values))} different values"):
        binary_mask(values)
    with pytest.raises(ValueError, match="must hold booleans or numbers"):
        binary_mask(np.array(["a"]))


def test_soft_masks_stay_soft_in_a_stack():
    soft = np.array([[[0.2, 0.7]]])
    found = masks_from_array(soft, (1, 2))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, soft.astype(np.float32))


# Colours


def test_colors_are_numbers_of_three_bytes():
    ids = np.array([[0, 5 + 256 * 2 + 65536 * 3, 2**24 - 1]])
    colors = ids_to_colors(ids)
    assert colors.tolist() == [[[0, 0, 0], [5, 2, 3], [255, 255, 255]]]
    np.testing.assert_array_equal(colors_to_ids(colors), ids)
    np.testing.assert_array_equal(colors_to_ids(np.dstack([colors, colors[..., :1]])), ids)
    assert colors_to_ids(torch.from_numpy(colors)).tolist() == ids.tolist()


def test_half_precision_and_lists_become_arrays():
    assert as_array(torch.tensor([1.5]).bfloat16()).tolist() == [1.5]
    assert as_array([torch.tensor([1, 2]), np.array([3, 4])]).tolist() == [[1, 2], [3, 4]]


def test_array_forms_and_pictures_need_no_torch():
    program = (
        "import sys, hf_maskadapter.model.masks, hf_maskadapter.model.label_maps, hf_maskadapter.model.pictures\n"
        "import hf_maskadapter.model.mask_collections, hf_maskadapter.evaluation.functional\n"
        "print([name for name in ('torch', 'transformers', 'pycocotools', 'evaluate') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_runs_of_length_nought_do_not_stay_in_counts_that_others_compare():
    for counts, plain in (
        ([3, 0, 0, 3], [3, 3]),
        ([0, 2, 0, 4], [0, 6]),
        ([0, 0, 2, 4, 0], [2, 4]),
        ([0, 0, 0, 6], [0, 6]),
        ([6, 0], [6]),
        ([1, 2, 0, 0, 0, 3], [1, 5]),
        ([2, 0, 1, 3], [3, 3]),
    ):
        size, found = checked_run_lengths({"size": [2, 3], "counts": counts})
        assert (size, found.tolist()) == ((2, 3), plain)


def test_whole_numbers_are_told_from_others():
    for value in (7, 7.0, "7", np.int64(7), np.float32(7), torch.tensor(7), np.array(7)):
        assert whole_number(value) == 7
        assert type(whole_number(value)) is int
    for value in (7.5, "7.5", True, None, float("nan"), float("inf"), "seven", [7], torch.tensor([7, 8])):
        with pytest.raises(ValueError, match="must be a whole number, got"):
            whole_number(value)


def test_encodings_beyond_32_bits_are_refused():
    record = {"size": [100_000, 100_000], "counts": [0, 10**10]}
    with pytest.raises(ValueError, match="at most 4294967295 pixels"):
        checked_run_lengths(record)


@pytest.mark.parametrize("size", [[2.5, 3], ["2", 3], 6])
def test_sizes_of_encodings_are_whole_numbers(size):
    with pytest.raises(ValueError, match="height and width, whole numbers"):
        checked_run_lengths({"size": size, "counts": [6]})
