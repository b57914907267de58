"""Masks in every form that people have them in."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from hf_maskadapter import read_masks
from hf_maskadapter.model.masks import coco_mask, decode_run_lengths

SIZE = (6, 8)
FIRST, SECOND = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
FIRST[1:4, 2:6] = True
SECOND[4:, :3] = True
BOTH = np.stack([FIRST, SECOND])
LABELS = np.where(FIRST, 7, np.where(SECOND, 3, 0))


def encoded(mask, compress):
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compress:
        return rle
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, mask.T.ravel().astype(int), -1])))
    return {"size": list(mask.shape), "counts": ([0] if mask[0, 0] else []) + runs.tolist()}


def assert_reads(value, expected=BOTH, ids=(0, 1), **options):
    read = read_masks(value, SIZE, **options)
    np.testing.assert_array_equal(read.masks, expected)
    assert tuple(read.ids) == tuple(ids)


@pytest.mark.parametrize(
    "value",
    [
        BOTH,
        torch.from_numpy(BOTH),
        BOTH.astype(np.uint8) * 255,
        BOTH.astype(np.int64),
        torch.from_numpy(BOTH).bfloat16(),
        [FIRST, SECOND],
        [torch.from_numpy(FIRST), SECOND],
        [Image.fromarray(mask) for mask in BOTH],
        SimpleNamespace(mask=BOTH),
        {"masks": BOTH, "scores": [0.5, 0.4]},
        [{"label": "cat", "score": None, "mask": Image.fromarray(mask.astype(np.uint8) * 255)} for mask in BOTH],
        [encoded(mask, compress=True) for mask in BOTH],
        [encoded(mask, compress=False) for mask in BOTH],
        [{"segmentation": encoded(mask, compress=True), "category_id": 1} for mask in BOTH],
        [{"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}, {"segmentation": [[0, 4, 3, 4, 3, 6, 0, 6]]}],
        [[2, 1, 6, 1, 6, 4, 2, 4], [0, 4, 3, 4, 3, 6, 0, 6]],
        [[[2, 1], [6, 1], [6, 4], [2, 4]], np.array([[0, 4], [3, 4], [3, 6], [0, 6]])],
        {"segmentation": [encoded(mask, compress=False) for mask in BOTH], "segments_info": [{"id": 1}, {"id": 2}]},
    ],
)
def test_masks_are_read_in_every_form(value):
    assert_reads(value)


@pytest.mark.parametrize(
    "value",
    [FIRST, FIRST.astype(float), encoded(FIRST, True), encoded(FIRST, False), [2, 1, 6, 1, 6, 4, 2, 4]],
)
def test_one_mask_may_come_alone(value):
    assert_reads(value, FIRST[None], ids=(0,))


def test_soft_masks_stay_soft():
    soft = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
    assert_reads(soft, soft)


@pytest.mark.parametrize(
    "value",
    [
        LABELS,
        torch.from_numpy(LABELS),
        Image.fromarray(LABELS.astype(np.uint8)),
        {"segmentation": torch.from_numpy(LABELS)},
        np.stack([LABELS, LABELS * 0, LABELS * 0], axis=-1).astype(np.uint8),
        Image.fromarray(np.stack([LABELS, LABELS * 0, LABELS * 0], axis=-1).astype(np.uint8)),
    ],
)
def test_each_value_of_a_map_is_a_mask(value):
    assert_reads(value, BOTH[::-1], ids=(3, 7))


def test_colors_of_a_panoptic_map_are_numbers():
    ids = np.where(FIRST, 5 + 256 * 2 + 65536, 0)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    assert_reads(rgb, FIRST[None], ids=(66053,))


def test_segments_info_says_which_segments_count_and_in_which_order():
    assert_reads(LABELS, BOTH, ids=(7, 3), segments_info=[{"id": 7}, {"id": 3}])
    assert_reads({"segmentation": LABELS, "segments_info": [{"id": 7}]}, FIRST[None], ids=(7,))


def test_the_value_that_is_no_mask_can_be_another_or_none():
    assert_reads(LABELS, np.stack([LABELS == 0, FIRST]), ids=(0, 7), ignore_index=3)
    assert_reads(LABELS, np.stack([LABELS == 0, SECOND, FIRST]), ids=(0, 3, 7), ignore_index=None)


def test_negative_values_of_a_map_are_no_masks():
    assert_reads(np.where(FIRST, 2, -1), FIRST[None], ids=(2,))


def test_files_are_read(tmp_path):
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "map.png")
    assert_reads(tmp_path / "map.png", BOTH[::-1], ids=(3, 7))
    assert_reads(str(tmp_path / "map.png"), BOTH[::-1], ids=(3, 7))


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


def test_polygons_of_one_object_belong_together():
    read = read_masks([[[2, 1, 6, 1, 6, 4, 2, 4], [0, 4, 3, 4, 3, 6, 0, 6]]], SIZE)
    np.testing.assert_array_equal(read.masks, (FIRST | SECOND)[None])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((2, 3, 3), bool), ValueError, r"shape \(num_masks, 6, 8\)"),
        (np.full((2, *SIZE), 3), ValueError, "booleans, integers 0 and 1"),
        (np.full((2, *SIZE), np.nan), ValueError, "floats in"),
        (np.zeros((0, *SIZE), bool), ValueError, "There is no mask"),
        ([], ValueError, "There is no mask"),
        (np.stack([FIRST, FIRST & SECOND]), ValueError, "Mask 1 is empty"),
        (np.zeros(SIZE, int), ValueError, "which is no mask"),
        (np.ones((3, 3), int), ValueError, "must be of one size"),
        ([FIRST, np.ones((3, 3), bool)], ValueError, "Mask 1: Masks must have shape"),
        (SimpleNamespace(mask=None), ValueError, "hold no masks"),
        ([{"size": [6, 8], "counts": [3, 4]}], ValueError, "Mask 0: The counts"),
        ([{"size": [6, 8], "counts": [50, -2]}], ValueError, "Mask 0: The counts"),
        ([{"size": [6, 8]}], ValueError, 'needs "size"'),
        ([{"size": [8, 6], "counts": [0, 48]}], ValueError, "of a picture of 8x6, this one is 6x8"),
        ([{"size": [6, 8], "counts": "a b"}], ValueError, "it is broken"),
        ([{"size": [6, 8], "counts": "o"}], ValueError, "ends in the middle"),
        ([[1, 2, 3, 4]], ValueError, "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], ValueError, "at least three points"),
        ([[1, 2, 3, float("nan"), 5, 6]], ValueError, "finite numbers"),
        ([["cat"]], ValueError, "at least three points"),
        ([None], TypeError, "Mask 0 is None"),
        (3, TypeError, "Masks must be an array"),
        ("missing.png", FileNotFoundError, "missing.png"),
    ],
)
def test_malformed_masks_are_one_clear_error(value, error, message):
    with pytest.raises(error, match=message):
        read_masks(value, SIZE)


@pytest.mark.parametrize(
    ("info", "message"), [([{"id": 4}], "no pixel of segment 4"), ([{"category_id": 3}], 'dicts with an "id"')]
)
def test_segments_that_are_not_there_are_an_error(info, message):
    with pytest.raises(ValueError, match=message):
        read_masks(LABELS, SIZE, segments_info=info)


def test_a_file_that_is_no_picture_is_an_error(tmp_path):
    (tmp_path / "map.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        read_masks(tmp_path / "map.png", SIZE)
