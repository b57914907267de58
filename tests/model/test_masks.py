"""Array forms of masks: run lengths, polygons, colours and values."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from hf_maskadapter.model.masks import coco_mask, decode_run_lengths
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
