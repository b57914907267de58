"""CVAT's files."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.visualization import class_colors
from support.result_samples import box


def test_masks_are_rows_of_runs_inside_their_box(tmp_path, vocabulary):
    mask = np.zeros((5, 6), dtype=bool)
    mask[1, 2:4] = mask[2, 3] = mask[3, 1] = True  # box: left 1, top 1, width 3, height 3
    segments = [Segment.of_class(vocabulary, 1, mask)]
    write_results(tmp_path, "cvat", [Segments(segments, (5, 6), vocabulary, picture="a.png")], vocabulary)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    (image,) = root.findall("image")
    assert image.attrib == {"id": "0", "name": "a.png", "width": "6", "height": "5"}
    attributes = image.find("mask").attrib
    assert [int(count) for count in attributes["rle"].split(",")] == [1, 2, 2, 2, 2]
    assert [attributes[key] for key in ("label", "left", "top", "width", "height")] == [
        "dog & <cat>", "1", "1", "3", "3",
    ]  # fmt: skip


def test_a_mask_that_cvat_exported_is_read(tmp_path):
    # From a report of a CVAT user: https://github.com/cvat-ai/cvat/issues/4723
    rle = (
        "17, 10, 27, 15, 23, 18, 20, 21, 18, 23, 16, 24, 15, 26, 13, 27, 13, 27, 12, 29, 10, 30, 9, 32, 7, 34, 5, "
        "36, 3, 38, 2, 38, 2, 39, 1, 39, 1, 120, 1, 39, 1, 39, 1, 39, 2, 38, 2, 38, 3, 37, 3, 37, 3, 37, 4, 36, 4, "
        "35, 6, 34, 7, 33, 7, 32, 9, 30, 10, 29, 13, 26, 15, 23, 18, 20, 22, 15, 12"
    )
    (tmp_path / "annotations.xml").write_text(
        "<annotations><meta><task><labels><label><name>blah</name></label></labels></task></meta>"
        f'<image id="0" name="a.jpg" width="200" height="400"><mask label="blah" occluded="0" rle="{rle}" '
        'left="79" top="304" width="40" height="40" z_order="0"> </mask></image></annotations>'
    )
    (result,) = read_results(tmp_path, "cvat").results
    assert result.segments[0].box == (79, 304, 40, 40)


def test_polygons_drawn_by_a_corrector_are_read(tmp_path, vocabulary):
    write_results(tmp_path, "cvat", [Segments([], (5, 6), vocabulary, picture="a.png")], vocabulary)
    path = tmp_path / "annotations.xml"
    polygon = '<polygon label="sky" points="1.0,1.0;4.0,1.0;4.0,3.0;1.0,3.0" z_order="0"></polygon></image>'
    path.write_text(path.read_text().replace("</image>", polygon))
    (result,) = read_results(path, "cvat").results
    assert result.segments[0].class_id == 0
    assert result.segments[0].mask[1:3, 1:4].all()


def test_labels_for_the_task_have_the_classes_colors(tmp_path, vocabulary):
    write_results(tmp_path, "cvat", [], vocabulary)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [label["name"] for label in labels] == list(vocabulary.names)
    assert [tuple(bytes.fromhex(label["color"][1:])) for label in labels] == class_colors(vocabulary.names)


@pytest.mark.parametrize(("old", "new"), [('left="0"', 'left="900"'), ('rle="0, ', 'rle="3, '), ("sky", "sea")])
def test_damaged_masks_get_one_error_that_names_the_picture(tmp_path, results, vocabulary, old, new):
    write_results(tmp_path, "cvat", results[:1], vocabulary)
    path = tmp_path / "annotations.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ExchangeError, match=r"a\.jpg"):
        list(read_results(path, "cvat").results)


def test_layers_are_as_few_as_keep_who_lies_on_top(tmp_path, vocabulary):
    size = (8, 10)
    masks = [box(size, 0, 8, 0, 10), box(size, 0, 3, 0, 3), box(size, 5, 8, 5, 8), box(size, 2, 6, 2, 6)]
    segments = [
        Segment.of_class(vocabulary, class_id, mask) for class_id, mask in zip((0, 1, 1, 2), masks, strict=True)
    ]
    result = Segments(segments, size, vocabulary, picture="a.png")
    write_results(tmp_path, "cvat", [result], vocabulary)
    (image,) = ElementTree.parse(tmp_path / "annotations.xml").getroot().findall("image")
    assert [int(mask.get("z_order")) for mask in image] == [0, 1, 1, 2]
    (read,) = read_results(tmp_path, "cvat").results
    assert (read.label_map() == result.label_map()).all()
    assert [segment.area for segment in read] == [80, 9, 9, 16]


def test_small_segment_under_a_large_one_stays_there(tmp_path, vocabulary):
    size = (8, 10)
    segments = [
        Segment.of_class(vocabulary, 1, box(size, 2, 4, 2, 4)),
        Segment.of_class(vocabulary, 0, box(size, 0, 8, 0, 10)),
    ]
    write_results(tmp_path, "cvat", [Segments(segments, size, vocabulary, picture="a.png")], vocabulary)
    (read,) = read_results(tmp_path, "cvat").results
    assert (read.label_map() == 0).all()
    assert [segment.label for segment in read] == ["dog & <cat>", "sky"]


def test_crowds_have_an_attribute_that_the_labels_declare(tmp_path, vocabulary):
    size = (8, 10)
    segments = [
        Segment.of_class(vocabulary, 1, box(size, 0, 2, 0, 2), is_crowd=True),
        Segment.of_class(vocabulary, 1, box(size, 4, 6, 4, 6)),
    ]
    write_results(tmp_path, "cvat", [Segments(segments, size, vocabulary, picture="a.png")], vocabulary)
    (attribute,) = json.loads((tmp_path / "labels.json").read_text())[0]["attributes"]
    assert (attribute["name"], attribute["input_type"], attribute["values"]) == ("is_crowd", "checkbox", ["false"])
    (read,) = read_results(tmp_path, "cvat").results
    assert [segment.is_crowd for segment in read] == [True, False]


def test_without_crowds_there_is_no_attribute(tmp_path, results, vocabulary):
    write_results(tmp_path, "cvat", results, vocabulary)
    assert all(label["attributes"] == [] for label in json.loads((tmp_path / "labels.json").read_text()))
    assert "is_crowd" not in (tmp_path / "annotations.xml").read_text()


def test_characters_that_xml_cannot_hold_are_refused(tmp_path, vocabulary):
    result = Segments([], (8, 10), vocabulary, picture="a\x07.png")
    with pytest.raises(ExchangeError, match=r"a\\x07\.png.*XML cannot hold"):
        write_results(tmp_path, "cvat", [result], vocabulary)
    bell = Vocabulary.from_list([["bell\x07"]])
    with pytest.raises(ExchangeError, match=r"bell\\x07"):
        write_results(tmp_path, "cvat", [Segments([], (8, 10), bell, picture="a.png")], bell)
