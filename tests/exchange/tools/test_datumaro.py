"""datumaro reads what is written here, and what it writes is read here: same masks, labels, crowd flags, layers."""

import json
from pathlib import Path

import numpy as np
import pytest

from hf_maskadapter.exchange import StoredResults, read_results, write_results
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from support.result_samples import box
from support.tool_samples import CROWD, PARTS, RING, SIZE, SKY, runs, save_picture, scene

MASKS = [SKY, RING, PARTS, CROWD]


def write_coco(folder: Path, result: Segments) -> Path:
    """COCO's instances in the folder where datumaro looks for them."""
    write_results(folder / "written", "coco-instance", [result], result.vocabulary)
    (folder / "annotations").mkdir()
    save_picture(folder / "images" / "set")
    path = folder / "annotations" / "instances_set.json"
    (folder / "written" / "annotations.json").rename(path)
    return path


def write_panoptic(folder: Path, result: Segments) -> Path:
    write_results(folder / "written", "coco-panoptic", [result], result.vocabulary)
    (folder / "annotations").mkdir()
    save_picture(folder / "images" / "set")
    path = folder / "annotations" / "panoptic_set.json"
    (folder / "written" / "panoptic.json").rename(path)
    (folder / "written" / "panoptic").rename(path.with_suffix(""))
    return path


def write_cvat(folder: Path, result: Segments) -> Path:
    write_results(folder, "cvat", [result], result.vocabulary)
    save_picture(folder / "images")
    return folder


def write_cvat_shapes(folder: Path, *shapes: str) -> Path:
    """What CVAT exports of shapes that were drawn."""
    save_picture(folder / "images")
    (folder / "annotations.xml").write_text(
        "<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta>"
        f'<image id="0" name="a.png" width="16" height="12">{"".join(shapes)}</image></annotations>'
    )
    return folder


def converted_file(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def only_result(stored: StoredResults) -> Segments:
    (result,) = stored.results
    return result


class TestCvat:
    def test_datumaro_reads_masks_labels_layers_and_crowds(self, tool, tmp_path, vocabulary):
        write_cvat(tmp_path, scene(vocabulary))
        read = tool("read_datumaro", folder=tmp_path, kind="cvat")
        annotations = read["pictures"]["a"]["annotations"]
        assert read["labels"] == ["sky", "cat", "dog"]
        assert read["pictures"]["a"]["size"] == [12, 16]
        assert [entry["mask"] for entry in annotations] == [runs(mask) for mask in MASKS]
        assert [entry["label"] for entry in annotations] == ["sky", "cat", "dog", "dog"]
        assert [entry["z_order"] for entry in annotations] == [0, 1, 2, 2]
        assert [entry["attributes"]["is_crowd"] for entry in annotations] == [False, False, False, True]

    def test_what_datumaro_writes_is_read(self, tool, tmp_path, vocabulary):
        expected = scene(vocabulary)
        write_cvat(tmp_path / "in", expected)
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="cvat", target=tmp_path / "out", target_kind="cvat",
            allow_undeclared_attrs=True,
        )  # fmt: skip
        read = only_result(read_results(converted_file(tmp_path / "out", "*.xml"), "cvat"))
        assert [segment.label for segment in read] == ["sky", "cat", "dog", "dog"]
        assert [segment.is_crowd for segment in read] == [False, False, False, True]
        for segment, mask in zip(read, MASKS, strict=True):
            assert (segment.mask == mask).all()
        assert (read.label_map() == expected.label_map()).all()

    def test_masks_without_the_attribute_become_crowds_in_its_coco_files(self, tool, tmp_path, vocabulary):
        result = Segments([Segment.of_class(vocabulary, 1, RING)], SIZE, vocabulary, picture="a.png")
        write_cvat(tmp_path / "in", result)
        assert "is_crowd" not in (tmp_path / "in" / "annotations.xml").read_text()
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="cvat", target=tmp_path / "out",
            target_kind="coco_instances",
        )  # fmt: skip
        (segment,) = only_result(read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance"))
        assert segment.is_crowd
        assert (segment.mask == RING).all()

    def test_with_the_attribute_others_become_polygons_without_holes_and_half_a_pixel_smaller(
        self, tool, tmp_path, vocabulary
    ):
        write_cvat(tmp_path / "in", scene(vocabulary))
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="cvat", target=tmp_path / "out",
            target_kind="coco_instances",
        )  # fmt: skip
        stored = read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance")
        found = {(segment.label, segment.is_crowd): segment.mask for segment in only_result(stored)}
        assert (found["dog", True] == CROWD).all()
        assert (found["cat", False] == box(SIZE, 2, 8, 3, 11)).all()  # of rows 2 to 8 and columns 3 to 11
        assert found["cat", False].sum() == 48  # of 57
        assert ("dog", False) not in found  # a line, a dot and a block of 2×2 have no area through pixel centres
        assert stored.left_out.counts == {"annotations without a segmentation": 1}

    def test_drawn_shapes_are_the_same_as_in_its_coco_files(self, tool, tmp_path):
        folder = write_cvat_shapes(
            tmp_path / "in",
            '<polygon label="cat" points="2,2;6,2;6,5;2,5" z_order="0"/>',
            '<polygon label="cat" points="8,1;15,1;15,11;12,11;12,3;8,3" z_order="3"/>',
        )
        here = only_result(read_results(folder, "cvat"))
        assert [segment.area for segment in here] == [12, 38]
        tool("convert_datumaro", folder=folder, kind="cvat", target=tmp_path / "out", target_kind="coco_instances")
        there = only_result(read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance"))
        for one, other in zip(here, there, strict=True):
            assert (one.mask == other.mask).all()

    def test_ellipses_vanish_there_and_are_read_here(self, tool, tmp_path):
        folder = write_cvat_shapes(
            tmp_path,
            '<ellipse label="cat" cx="5" cy="4" rx="3" ry="2" z_order="0"/>',
            '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"/>',
        )
        read = tool("read_datumaro", folder=folder, kind="cvat")
        assert [entry["type"] for entry in read["pictures"]["a"]["annotations"]] == ["bbox"]
        assert [segment.area for segment in only_result(read_results(folder, "cvat"))] == [20, 16]


class TestCocoInstances:
    def test_datumaro_reads_masks_labels_and_crowds_in_reverse(self, tool, tmp_path, vocabulary):
        write_coco(tmp_path, scene(vocabulary))
        read = tool("read_datumaro", folder=tmp_path, kind="coco_instances")
        annotations = [entry for entry in read["pictures"]["a"]["annotations"] if entry["type"] == "mask"]
        assert read["labels"] == ["sky", "cat", "dog"]
        assert [entry["mask"] for entry in annotations] == [runs(mask) for mask in MASKS[::-1]]
        assert [entry["label"] for entry in annotations] == ["dog", "dog", "cat", "sky"]
        assert [entry["attributes"]["is_crowd"] for entry in annotations] == [True, False, False, False]
        assert {entry["z_order"] for entry in annotations} == {0}

    def test_crowds_of_what_datumaro_writes_are_read(self, tool, tmp_path, vocabulary):
        write_coco(tmp_path / "in", scene(vocabulary))
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="coco_instances", target=tmp_path / "out",
            target_kind="coco_instances",
        )  # fmt: skip
        read = only_result(read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance"))
        assert [(segment.label, segment.is_crowd) for segment in read] == [
            ("sky", False), ("cat", False), ("dog", True),
        ]  # fmt: skip
        assert [segment.area for segment in read] == [11 * 15, 48, 32]  # of 192, 57, 32: polygons, see above
        assert (read[2].mask == CROWD).all()

    def test_all_as_masks_are_all_crowds(self, tool, tmp_path, vocabulary):
        write_coco(tmp_path / "in", scene(vocabulary))
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="coco_instances", target=tmp_path / "out",
            target_kind="coco_instances", segmentation_mode="mask",
        )  # fmt: skip
        read = only_result(read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance"))
        assert all(segment.is_crowd for segment in read)
        for segment, mask in zip(read, MASKS, strict=True):
            assert (segment.mask == mask).all()

    def test_category_0_loses_its_class_there(self, tool, tmp_path, caplog):
        numbered = Vocabulary.from_list([{"id": 0, "name": "sky"}, {"id": 5, "name": "cat"}])
        segments = [Segment.of_class(numbered, label, mask) for label, mask in ((0, SKY), (1, RING))]
        write_coco(tmp_path, Segments(segments, SIZE, numbered, picture="a.png"))
        assert "'sky' keeps its number 0" in caplog.text
        read = tool("read_datumaro", folder=tmp_path, kind="coco_instances")
        masks = [entry for entry in read["pictures"]["a"]["annotations"] if entry["type"] == "mask"]
        assert [entry["label"] for entry in masks] == ["cat", None]

    def test_boxes_alone_are_written_with_an_empty_segmentation_which_is_left_out(self, tool, tmp_path):
        folder = write_cvat_shapes(
            tmp_path / "in",
            '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"/>',
            '<polygon label="cat" points="2,2;6,2;6,5;2,5" z_order="0"/>',
        )
        tool("convert_datumaro", folder=folder, kind="cvat", target=tmp_path / "out", target_kind="coco_instances")
        path = converted_file(tmp_path / "out", "*.json")
        assert [] in [entry["segmentation"] for entry in json.loads(path.read_text())["annotations"]]
        stored = read_results(path, "coco-instance")
        assert [segment.area for segment in only_result(stored)] == [12]
        assert stored.left_out.counts == {"annotations without a segmentation": 1}


class TestCocoPanoptic:
    def test_datumaro_reads_masks_labels_and_crowds(self, tool, tmp_path, vocabulary):
        expected = scene(vocabulary, overlapping=False)
        write_panoptic(tmp_path, expected)
        read = tool("read_datumaro", folder=tmp_path, kind="coco_panoptic")
        annotations = read["pictures"]["a"]["annotations"]
        assert sorted(
            (entry["label"], entry["attributes"]["is_crowd"], entry["mask"]) for entry in annotations
        ) == sorted((segment.label, segment.is_crowd, runs(segment.mask)) for segment in expected)

    def test_what_datumaro_writes_is_read_but_all_classes_are_stuff(self, tool, tmp_path, vocabulary):
        expected = scene(vocabulary, overlapping=False)
        write_panoptic(tmp_path / "in", expected)
        tool(
            "convert_datumaro", folder=tmp_path / "in", kind="coco_panoptic", target=tmp_path / "out",
            target_kind="coco_panoptic",
        )  # fmt: skip
        stored = read_results(converted_file(tmp_path / "out", "*.json"), "coco-panoptic")
        assert [entry.is_thing for entry in stored.vocabulary] == [False, False, False]
        read = only_result(stored)
        assert sorted((segment.label, segment.is_crowd, segment.mask.tobytes()) for segment in read) == sorted(
            (segment.label, segment.is_crowd, segment.mask.tobytes()) for segment in expected
        )


@pytest.mark.parametrize("corners", [[1, 1, 13, 3, 7, 11], [1.5, 0.5, 14.5, 0.5, 14.5, 9.5, 8.5, 3.5, 1.5, 9.5]])
def test_polygons_are_masks_of_cocos_rasterizer_in_both(tool, tmp_path, vocabulary, corners):
    write_coco(tmp_path / "in", Segments([], SIZE, vocabulary, picture="a.png"))
    path = tmp_path / "in" / "annotations" / "instances_set.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [corners], "bbox": [0, 0, 1, 1], "iscrowd": 0}
    ]
    path.write_text(json.dumps(content))
    here = only_result(read_results(path, "coco-instance"))
    tool(
        "convert_datumaro", folder=tmp_path / "in", kind="coco_instances", target=tmp_path / "out",
        target_kind="coco_instances", segmentation_mode="mask",
    )  # fmt: skip
    there = only_result(read_results(converted_file(tmp_path / "out", "*.json"), "coco-instance"))
    assert np.array_equal(here[0].mask, there[0].mask)
