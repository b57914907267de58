"""What supervision writes for COCO is read here."""

import json

import numpy as np

from hf_maskadapter.exchange import read_results
from support.result_samples import box
from support.tool_samples import PARTS, RING, SIZE, runs

ROWS, COLUMNS = np.mgrid[:40, :40]
DISC = (ROWS - 20) ** 2 + (COLUMNS - 20) ** 2 < 12**2


def test_masks_with_holes_or_in_parts_become_crowds(tool, tmp_path):
    masks = [RING, PARTS, box(SIZE, 2, 5, 2, 6)]
    tool("write_coco_with_supervision", masks=[runs(mask) for mask in masks], size=SIZE, folder=tmp_path)
    (read,) = read_results(tmp_path, "coco-instance").results
    assert [segment.is_crowd for segment in read] == [True, True, False]
    for segment, mask in zip(read[:2], masks, strict=False):
        assert (segment.mask == mask).all()
    assert read[2].area == 6  # of 12: polygons go through the centres of pixels


def test_dots_and_lines_have_no_segmentation_and_are_left_out(tool, tmp_path):
    dot, line = box(SIZE, 3, 4, 3, 4), box(SIZE, 5, 6, 2, 9)
    tool("write_coco_with_supervision", masks=[runs(dot), runs(line), runs(RING)], size=SIZE, folder=tmp_path)
    stored = read_results(tmp_path, "coco-instance")
    (read,) = stored.results
    assert [segment.area for segment in read] == [57]
    assert stored.left_out.counts == {"annotations without a segmentation": 2}


def test_polygons_through_the_centers_of_pixels_are_smaller_than_the_area_told(tool, tmp_path):
    tool("write_coco_with_supervision", masks=[runs(DISC)], size=DISC.shape, folder=tmp_path)
    ((segment,),) = read_results(tmp_path, "coco-instance").results
    (annotation,) = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert (DISC.sum(), annotation["area"], segment.area) == (437, 437, 404)


def test_boxes_end_at_the_last_pixel(tool, tmp_path):
    boxes = tool("write_coco_with_supervision", masks=[runs(RING)], size=SIZE, folder=tmp_path)
    assert boxes == [[3, 2, 11, 8]]
    (read,) = read_results(tmp_path, "coco-instance").results
    assert read.boxes().tolist() == [[3, 2, 12, 9]]
