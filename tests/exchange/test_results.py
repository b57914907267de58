"""The common form of a picture's result."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter.exchange import PictureResult, ResultSegment
from hf_maskadapter.model.masks import polygon_mask
from hf_maskadapter.model.vocabulary import Vocabulary


def box(*sides: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    top, bottom, left, right = sides
    mask[top:bottom, left:right] = True
    return mask


def test_area_and_box_of_a_segment():
    segment = ResultSegment(0, box(1, 3, 2, 7))
    assert segment.area == 10
    assert segment.box == (2, 1, 5, 2)
    assert ResultSegment(0, np.zeros((4, 4), dtype=bool)).box == (0, 0, 0, 0)


def test_smaller_segment_lies_on_top_in_maps():
    result = PictureResult("a.png", 6, 8, (ResultSegment(2, box(2, 3, 2, 3)), ResultSegment(1, box(0, 4, 0, 8))))
    assert result.segment_map()[2, 2] == 1
    assert result.segment_map()[0, 0] == 2
    assert result.label_map()[2, 2] == 2
    assert result.label_map()[5, 5] == 255
    assert result.label_map(ignore_index=-1)[5, 5] == -1


def test_results_of_the_pipeline_and_of_post_processing_give_the_same():
    vocabulary = Vocabulary.from_list(["sky", "cat"])
    mask = box(0, 2, 0, 8)
    piped = [
        {"label": "cat", "score": 0.5, "mask": Image.fromarray(mask.astype(np.uint8) * 255)},
        {"label": "sky", "score": 0.9, "mask": Image.new("L", (8, 6))},
    ]
    first = PictureResult.from_pipeline("a.png", (8, 6), piped, vocabulary)
    ids = torch.from_numpy(np.where(mask, 7, -1))
    info = [{"id": 7, "label_id": 1, "score": 0.5}, {"id": 8, "label_id": 0, "score": 0.9}]
    second = PictureResult.from_segmentation("a.png", ids, info)
    for result in (first, second):
        (segment,) = result.segments  # the empty one is left out
        assert (result.height, result.width, segment.label_id, segment.score) == (6, 8, 1, 0.5)
        assert (segment.mask == mask).all()


@pytest.mark.parametrize(
    ("mask", "part"), [(np.ones((3, 3), dtype=bool), "shape"), (np.zeros((6, 8), dtype=bool), "empty")]
)
def test_unusable_masks_are_refused(mask, part):
    with pytest.raises(ValueError, match=part):
        PictureResult("a.png", 6, 8, (ResultSegment(0, mask),))


def test_polygon_around_pixels_encloses_exactly_them():
    assert (polygon_mask([(2, 1), (7, 1), (7, 3), (2, 3)], (6, 8))[1:3, 2:7]).all()
