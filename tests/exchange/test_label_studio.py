"""Label Studio's tasks."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary


def test_tasks_have_the_form_that_label_studio_documents(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary, model="our model")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[1]["data"]["image"] == "/data/local-files/?d=sub/b%20%C3%BC.png"
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "our model"
    assert prediction["score"] == pytest.approx(0.5)
    region = prediction["result"][1]
    assert region["type"] == "brushlabels"
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (60, 40, 0)
    assert region["value"]["format"] == "rle"
    assert region["value"]["brushlabels"] == ["dog & <cat>"]
    assert len({entry["id"] for entry in prediction["result"]}) == 3


def test_labeling_interface_has_the_names_that_the_tasks_use(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    root = ElementTree.parse(tmp_path / "label_config.xml").getroot()
    region = json.loads((tmp_path / "tasks.json").read_text())[0]["predictions"][0]["result"][0]
    brush, image = root.find("BrushLabels"), root.find("Image")
    assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
    assert [label.get("value") for label in brush] == list(vocabulary.names)


def test_address_of_the_pictures_can_be_set(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary, image_prefix="https://example.org/pictures/")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "https://example.org/pictures/a.jpg"


def test_corrections_come_before_predictions_in_an_export(tmp_path, vocabulary):
    whole = Segment.of_class(vocabulary, 0, np.ones((10, 20), dtype=bool))
    result = Segments([whole], (10, 20), vocabulary, picture="a.png")
    write_results(tmp_path, "label-studio", [result], vocabulary)
    path = tmp_path / "tasks.json"
    tasks = json.loads(path.read_text())
    corrected = {
        "type": "polygonlabels",
        "original_width": 20,
        "original_height": 10,
        "value": {"points": [[10, 20], [40, 20], [40, 60], [10, 60]], "polygonlabels": ["dog & <cat>"]},
    }
    choice = {"type": "choices", "value": {"choices": ["fine"]}}
    tasks[0]["annotations"] = [{"result": [corrected, choice]}]
    tasks[0]["data"] = {"image": "/data/local-files/?d=sub/a%20b.png"}
    path.write_text(json.dumps(tasks))
    (result,) = read_results(path, "label-studio").results
    (segment,) = result.segments
    assert (result.picture, segment.class_id) == ("sub/a b.png", 1)
    assert segment.mask[2:6, 2:8].all()
    assert not segment.mask[7:].any()


def test_export_without_the_labeling_interface_has_the_classes_that_occur(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    (tmp_path / "label_config.xml").unlink()
    assert read_results(tmp_path, "label-studio").vocabulary.names == vocabulary.names[:2]


def test_task_of_another_size_is_refused_by_its_number(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-studio", results, vocabulary)
    path = tmp_path / "tasks.json"
    path.write_text(path.read_text().replace('"original_width":17', '"original_width":18'))
    with pytest.raises(ExchangeError, match="task 2"):
        list(read_results(path, "label-studio").results)


def test_class_names_that_xml_cannot_hold_are_refused(tmp_path):
    bell = Vocabulary.from_list([["bell\x07"]])
    with pytest.raises(ExchangeError, match=r"bell\\x07.*XML cannot hold"):
        write_results(tmp_path, "label-studio", [Segments([], (8, 10), bell, picture="a.png")], bell)
