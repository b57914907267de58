"""A result's files."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.app.downloads import downloads
from hf_maskadapter.exchange.plain import describe
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_list(["cat", "sofa", "wall"])
LEFT, MIDDLE = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
LEFT[:, :20] = True
MIDDLE[10:20, 15:25] = True


def files_of(task, scores=(0.25, 0.75)):
    found = [
        Segment.of_class(VOCABULARY, class_id, mask, score=score)
        for class_id, mask, score in zip((1, 2), (LEFT, MIDDLE), scores, strict=True)
    ]
    segments = Segments(found, (30, 40), VOCABULARY, task, "my cat.jpeg")
    return segments, {file.title: file for file in downloads(Image.new("RGB", (768, 576)), segments, "miniature")}


def opened(file):
    return Image.open(io.BytesIO(file.content))


def test_masks_of_a_semantic_result_are_one_picture_of_ids():
    _, files = files_of("semantic", (None, None))
    assert files["Masks (PNG)"].name == "my cat_masks.png"
    assert np.array_equal(np.asarray(opened(files["Masks (PNG)"])), np.where(MIDDLE, 3, np.where(LEFT, 2, 0)))


def test_masks_of_instances_which_may_overlap_are_one_picture_each():
    _, files = files_of("instance")
    with zipfile.ZipFile(io.BytesIO(files["Masks (ZIP)"].content)) as archive:
        assert archive.namelist() == ["0001.png", "0002.png"]
        for name, mask in (("0001.png", MIDDLE), ("0002.png", LEFT)):
            assert np.array_equal(np.asarray(Image.open(archive.open(name))), np.where(mask, 255, 0))


def test_the_json_is_the_commands():
    segments, files = files_of("instance")
    assert files["JSON"].name == "my cat.json"
    assert json.loads(files["JSON"].content) == describe(segments, "miniature")


def test_the_coco_file_holds_the_masks():
    mask = pytest.importorskip("pycocotools.mask")
    _, files = files_of("panoptic")
    content = json.loads(files["COCO"].content)
    assert content["images"] == [{"id": 1, "file_name": "my cat.jpeg", "height": 30, "width": 40}]
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    found = {names[entry["category_id"]]: mask.decode(entry["segmentation"]) for entry in content["annotations"]}
    assert set(found) == {"sofa", "wall"}
    assert np.array_equal(found["sofa"], LEFT)
    assert np.array_equal(found["wall"], MIDDLE)


def test_the_painted_picture_has_a_legend_below():
    _, files = files_of("panoptic")
    painted = opened(files["Painted picture"])
    assert painted.format == "PNG"
    assert painted.width == 768
    assert painted.height > 576


def test_nothing_stays_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files_of("panoptic")
    assert list(tmp_path.iterdir()) == []
