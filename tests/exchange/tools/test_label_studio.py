"""Label Studio's own code reads what is written here, and what its converter writes is read here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_maskadapter.exchange import read_results, write_results
from hf_maskadapter.exchange.label_studio_brush import decode_brush, encode_brush
from hf_maskadapter.exchange.label_studio_predictions import predict_for, read_brush_control
from hf_maskadapter.model.segments import Segment, Segments
from support.result_samples import box
from support.tool_samples import CROWD, PARTS, RING, SIZE, SKY, runs, scene

MASKS = [SKY, RING, PARTS, CROWD]


def write(folder: Path, result: Segments) -> tuple[Path, Path]:
    """Tasks and interface."""
    return tuple(write_results(folder, "label-studio", [result], result.vocabulary))


def accepted(tasks: Path, **changes: Any) -> Path:
    """What Label Studio exports when somebody has accepted the predictions."""
    content = json.loads(tasks.read_text())
    for number, task in enumerate(content, start=1):
        prediction = task.pop("predictions")[0]
        annotation = {
            "id": number, "completed_by": 1, "was_cancelled": False, "created_at": "2026-01-01T10:00:00Z",
            "result": prediction["result"],
        }  # fmt: skip
        task.update(id=number, annotations=[annotation | changes])
    path = tasks.with_name("export.json")
    path.write_text(json.dumps(content))
    return path


def drawn(folder: Path, kind: str, *values: dict, **changes: Any) -> tuple[Path, Path]:
    """An export of shapes that were drawn, and its interface."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = {"polygonlabels": "PolygonLabels", "rectanglelabels": "RectangleLabels", "ellipselabels": "EllipseLabels"}[
        kind
    ]
    config = folder / "label_config.xml"
    config.write_text(
        f'<View><Image name="img" value="$image"/><{tag} name="shapes" toName="img">'
        f'<Label value="dog"/><Label value="cat"/></{tag}></View>'
    )
    regions = [
        {
            "id": f"r{number}", "type": kind, "from_name": "shapes", "to_name": "img", "original_width": 16,
            "original_height": 12, "image_rotation": 0, "value": {"rotation": 0, **value, kind: ["dog"]},
        }
        for number, value in enumerate(values)
    ]  # fmt: skip
    annotation = {"id": 1, "completed_by": 1, "created_at": "2026-01-01T10:00:00Z", "result": regions} | changes
    path = folder / "export.json"
    path.write_text(json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [annotation]}]))
    return path, config


POLYGON = {"points": [[x / 16 * 100, y / 12 * 100] for x, y in [(2, 2), (6, 2), (6, 5), (2, 5)]], "closed": True}
RECTANGLE = {"x": 12.5, "y": 25, "width": 25, "height": 25}


class TestBrushes:
    @pytest.mark.parametrize("mask", [RING, PARTS, SKY, np.zeros(SIZE, dtype=bool), np.eye(70, 300, dtype=bool)])
    def test_each_decodes_what_the_other_encodes(self, tool, mask):
        size = list(mask.shape)
        assert tool("decode_brush", encoded=encode_brush(mask), size=size) == runs(mask)
        assert (decode_brush(tool("encode_brush", lengths=runs(mask), size=size), mask.shape) == mask).all()

    def test_tasks_pass_its_own_check(self, tool, tmp_path, vocabulary):
        tasks, config = write(tmp_path, scene(vocabulary))
        assert tool("validate_label_studio", config=config, tasks=tasks) == [[]]

    def test_live_predictions_pass_its_own_check_with_the_projects_own_interface(self, tool, tmp_path, vocabulary):
        config = tmp_path / "config.xml"
        config.write_text(
            '<View><Image name="img" value="$photo"/><BrushLabels name="brush" toName="img" model_task="panoptic">'
            '<Label value="Sky" predicted_values="sky, clouds"/><Label value="cat"/><Label value="dog"/>'
            "</BrushLabels></View>"
        )
        found = predict_for(read_brush_control(config.read_text()), scene(vocabulary), "small")
        (tmp_path / "tasks.json").write_text(json.dumps([{"predictions": [found]}]))
        assert tool("validate_label_studio", config=config, tasks=tmp_path / "tasks.json") == [[]]

    def test_its_converter_writes_the_masks_that_were_written_here(self, tool, tmp_path, vocabulary):
        tasks, config = write(tmp_path, scene(vocabulary))
        (tmp_path / "out").mkdir()
        tool(
            "convert_label_studio", config=config, tasks=accepted(tasks), target=tmp_path / "out",
            kind="BRUSH_TO_NUMPY",
        )  # fmt: skip
        written = {path.stem.split("-label-")[1]: np.load(path) for path in (tmp_path / "out").glob("*.npy")}
        assert sorted(written) == ["cat-0", "dog-0", "dog-1", "sky-0"]
        for name, mask in zip(["sky-0", "cat-0", "dog-0", "dog-1"], MASKS, strict=True):
            assert ((written[name] > 0) == mask).all()

    def test_an_accepted_prediction_is_read_with_its_crowds(self, tmp_path, vocabulary):
        expected = scene(vocabulary)
        tasks, _ = write(tmp_path, expected)
        (read,) = read_results(accepted(tasks), "label-studio").results
        assert [segment.is_crowd for segment in read] == [False, False, False, True]
        for segment, mask in zip(read, MASKS, strict=True):
            assert (segment.mask == mask).all()

    def test_brush_to_coco_fills_holes_cuts_edges_and_takes_parts_apart(self, tool, tmp_path, vocabulary):
        segments = [
            Segment.of_class(vocabulary, 1, RING),
            Segment.of_class(vocabulary, 2, PARTS),
            Segment.of_class(vocabulary, 2, CROWD, is_crowd=True),
        ]
        tasks, config = write(tmp_path, Segments(segments, SIZE, vocabulary, picture="a.png"))
        tool(
            "convert_label_studio", config=config, tasks=accepted(tasks), target=tmp_path / "out",
            kind="BRUSH_TO_COCO",
        )  # fmt: skip
        content = json.loads((tmp_path / "out" / "result_coco.json").read_text())
        assert [annotation["id"] for annotation in content["annotations"]] == [0, 1, 2]
        (read,) = read_results(tmp_path / "out" / "result_coco.json", "coco-instance").results
        assert [(segment.label, segment.area, segment.is_crowd) for segment in read] == [
            ("cat", 48, False),  # of 57, with a hole of 6
            ("dog", 1, False),  # of the block of 2×2; the line and the dot are gone
            ("dog", 21, False),  # of 32, and no crowd any more
        ]
        assert (read[0].mask == box(SIZE, 2, 8, 3, 11)).all()

    def test_brushes_with_labels_of_their_own_control_are_lost_there_and_read_here(self, tool, tmp_path):
        config = tmp_path / "label_config.xml"
        config.write_text(
            '<View><Image name="img" value="$image"/><Brush name="brush" toName="img"/>'
            '<Labels name="classes" toName="img"><Label value="cat"/></Labels></View>'
        )
        common = {"id": "r", "to_name": "img", "original_width": 16, "original_height": 12, "image_rotation": 0}
        value = {"format": "rle", "rle": encode_brush(RING)}
        result = [
            {**common, "type": "brush", "from_name": "brush", "value": value},
            {**common, "type": "labels", "from_name": "classes", "value": {**value, "labels": ["cat"]}},
        ]
        annotation = {"id": 1, "completed_by": 1, "created_at": "2026-01-01T10:00:00Z", "result": result}
        export = tmp_path / "export.json"
        export.write_text(json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [annotation]}]))
        ((segment,),) = read_results(export, "label-studio").results
        assert (segment.label, segment.area) == ("cat", 57)
        assert (segment.mask == RING).all()
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="BRUSH_TO_COCO")
        assert json.loads((tmp_path / "out" / "result_coco.json").read_text())["annotations"] == []


class TestShapes:
    def test_polygons_are_those_of_its_coco_files(self, tool, tmp_path):
        export, config = drawn(tmp_path / "in", "polygonlabels", POLYGON)
        (here,) = read_results(export, "label-studio").results
        assert (here[0].mask == box(SIZE, 2, 5, 2, 6)).all()
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="COCO")
        stored = read_results(tmp_path / "out" / "result.json", "coco-instance")
        # Categories are numbered from 0 by name.
        assert [(entry.name, entry.dataset_id) for entry in stored.vocabulary] == [("cat", 0), ("dog", 1)]
        (there,) = stored.results
        assert [segment.label for segment in there] == ["dog"]
        assert (there[0].mask == here[0].mask).all()

    def test_rectangles_have_no_segmentation_there_and_are_masks_here(self, tool, tmp_path):
        export, config = drawn(tmp_path / "in", "rectanglelabels", RECTANGLE)
        (here,) = read_results(export, "label-studio").results
        assert (here[0].mask == box(SIZE, 3, 6, 2, 6)).all()
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="COCO")
        (annotation,) = json.loads((tmp_path / "out" / "result.json").read_text())["annotations"]
        assert (annotation["segmentation"], annotation["bbox"]) == ([], [2, 3, 4, 3])
        stored = read_results(tmp_path / "out" / "result.json", "coco-instance")
        assert [len(result) for result in stored.results] == [0]
        assert stored.left_out.counts == {"annotations without a segmentation": 1}

    def test_turned_rectangles_are_sheared_there(self, tool, tmp_path):
        value = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 30}
        export, config = drawn(tmp_path / "in", "rectanglelabels", value)
        (here,) = read_results(export, "label-studio").results
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="COCO")
        (annotation,) = json.loads((tmp_path / "out" / "result.json").read_text())["annotations"]
        left, _, width, height = annotation["bbox"]
        # The upright box around 8×6 pixels turned by 30°: 8 cos + 6 sin wide, 8 sin + 6 cos high.
        assert (width, height) != pytest.approx((9.93, 9.20), abs=0.01)
        assert (width, height) == pytest.approx((10.93, 8.20), abs=0.01)
        assert here[0].box[0] != round(left)
        assert here[0].area == pytest.approx(48, abs=3)

    def test_ellipses_vanish_there_and_are_masks_here(self, tool, tmp_path):
        value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25}
        export, config = drawn(tmp_path / "in", "ellipselabels", value)
        (here,) = read_results(export, "label-studio").results
        assert here[0].mask.sum(axis=1).tolist() == [0, 0, 0, 4, 6, 8, 8, 6, 4, 0, 0, 0]
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="COCO")
        assert json.loads((tmp_path / "out" / "result.json").read_text())["annotations"] == []

    def test_skipped_annotations_are_left_out_in_both(self, tool, tmp_path):
        export, config = drawn(tmp_path / "in", "polygonlabels", POLYGON)
        (content,) = json.loads(export.read_text())
        later = {"id": 2, "was_cancelled": True, "completed_by": 1, "created_at": "2026-02-01T10:00:00Z", "result": []}
        content["annotations"].append(later)
        nobody = {"id": 2, "data": {"image": "b.png"}, "annotations": []}
        export.write_text(json.dumps([content, nobody]))
        stored = read_results(export, "label-studio")
        assert [(result.picture, len(result)) for result in stored.results] == [("a.png", 1)]
        assert stored.left_out.counts == {"tasks that nobody has finished": 1}
        tool("convert_label_studio", config=config, tasks=export, target=tmp_path / "out", kind="COCO")
        converted = json.loads((tmp_path / "out" / "result.json").read_text())
        assert len(converted["annotations"]) == 1
        assert len(converted["images"]) == 2  # the picture that nobody has looked at counts as empty there

    def test_cocos_polygons_brought_to_label_studio_are_read(self, tool, tmp_path):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
            "categories": [{"id": 1, "name": "dog"}],
            "annotations": [
                {
                    "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 12, "bbox": [2, 2, 4, 3],
                    "segmentation": [[2, 2, 6, 2, 6, 5, 2, 5]],
                }
            ],
        }  # fmt: skip
        (tmp_path / "coco.json").write_text(json.dumps(content))
        tool("import_coco_to_label_studio", source=tmp_path / "coco.json", target=tmp_path / "tasks.json")
        (read,) = read_results(tmp_path / "tasks.json", "label-studio").results
        # Each annotation comes as a rectangle and as a polygon.
        assert [segment.label for segment in read] == ["dog", "dog"]
        for segment in read:
            assert (segment.mask == box(SIZE, 2, 5, 2, 6)).all()
