"""Categories, pictures and numbers of COCO's files."""

import json
import logging
from pathlib import Path

import pytest

from hf_maskadapter.exchange import ExchangeError, read_results
from hf_maskadapter.exchange.coco_common import (
    numbered,
    read_categories,
    read_crowd_flag,
    read_reference,
    to_categories,
)
from hf_maskadapter.model.vocabulary import Vocabulary

PATH = Path("a.json")


class TestCategories:
    def test_root_category_called_like_its_class_is_the_same_class(self):
        # As Roboflow exports them.
        categories = [
            {"id": 0, "name": "cat", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "cat"},
            {"id": 2, "name": "dog", "supercategory": "cat"},
        ]
        vocabulary, indices = read_categories(categories, {1, 2}, PATH)
        assert [(entry.name, entry.dataset_id) for entry in vocabulary] == [("cat", 1), ("dog", 2)]
        assert indices == {0: 0, 1: 0, 2: 1}

    def test_capitals_make_no_other_class(self):
        categories = [{"id": 0, "name": "Cat"}, {"id": 1, "name": "cat"}]
        vocabulary, indices = read_categories(categories, {1}, PATH)
        assert (vocabulary.names, indices) == (("cat",), {0: 0, 1: 0})

    def test_thing_and_stuff_of_one_name_are_refused_unless_only_one_is_used(self):
        categories = [{"id": 1, "name": "window", "isthing": 1}, {"id": 2, "name": "window", "isthing": 0}]
        vocabulary, indices = read_categories(categories, {2}, PATH)
        assert [(entry.is_thing, entry.dataset_id) for entry in vocabulary] == [(False, 2)]
        assert indices == {1: 0, 2: 0}
        with pytest.raises(ExchangeError, match=r"a\.json: the categories \[1, 2\] are all called 'window'"):
            read_categories(categories, {1, 2}, PATH)

    @pytest.mark.parametrize(
        ("category", "message"),
        [
            ({"id": "1", "name": "dog"}, "its id must be a whole number, got '1'"),
            ({"id": True, "name": "dog"}, "its id must be a whole number"),
            ({"name": "dog"}, "its id must be a whole number"),
            ({"id": 7, "name": "dog"}, "the id 7 is also that of 'cat'"),
            ({"id": 8, "name": 5}, "its name must be a text, got 5"),
            ({"id": 8}, "its name must be a text"),
        ],
    )
    def test_malformed_ones_are_refused_by_their_number(self, category, message):
        with pytest.raises(ExchangeError, match=rf"a\.json, category 1.*{message}"):
            read_categories([{"id": 7, "name": "cat"}, category], set(), PATH)

    def test_number_0_of_the_data_set_is_kept_and_named(self, caplog):
        vocabulary = Vocabulary.from_list([{"id": 0, "name": "wall"}, {"id": 5, "name": "cat"}])
        with caplog.at_level(logging.WARNING):
            assert [category["id"] for category in to_categories(vocabulary)] == [0, 5]
        (record,) = caplog.records
        assert "'wall'" in record.getMessage()
        caplog.clear()
        assert [category["id"] for category in to_categories(Vocabulary.from_list(["wall", "cat"]))] == [1, 2]
        assert not caplog.records


@pytest.mark.parametrize("known", [{1: "a", 2: "b"}, {"1": "a", "2": "b"}])
def test_references_are_of_the_type_of_the_ids(known):
    (first, _) = known
    assert read_reference(first, known, "image_id", "here") == first
    other = "1" if first == 1 else 1
    with pytest.raises(ExchangeError, match=r"here: image_id is .* another type: write both alike"):
        read_reference(other, known, "image_id", "here")


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.0, "another type"), (True, "another type"), (None, "missing"), (3, "does not list"), ([1], "does not list")],
)
def test_other_references_are_refused(value, message):
    with pytest.raises(ExchangeError, match=message):
        read_reference(value, {1: "a", 2: "b"}, "image_id", "here")


def test_crowd_flags_are_0_or_1():
    assert [read_crowd_flag(value, "here") for value in (None, 0, 1, True, False)] == [False, False, True, True, False]
    for value in (2, "1", [1]):
        with pytest.raises(ExchangeError, match="here: iscrowd must be 0 or 1"):
            read_crowd_flag(value, "here")


def test_pictures_are_numbered_from_1_unless_their_names_are_numbers():
    def numbers(*names: str) -> list[int]:
        return [number for number, _ in numbered(lambda: iter([{"file_name": name} for name in names]))]

    assert numbers("b.png", "a.png") == [1, 2]
    assert numbers("000139.jpg", "7.png") == [139, 7]
    assert numbers("x/7.png", "y/7.png") == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is a list, as COCO's results are"),
        ({"images": [], "annotations": []}, "needs images, annotations and categories"),
        ({"images": [], "annotations": {}, "categories": []}, "annotations must be a list of objects"),
        ({"images": ["a"], "annotations": [], "categories": []}, "images must be a list of objects"),
        ({"images": [], "annotations": [], "categories": []}, "the categories make no vocabulary"),
    ],
)
@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic"])
def test_other_files_get_one_error(tmp_path, content, message, name):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ExchangeError, match=rf"x\.json.*{message}"):
        list(read_results(path, name).results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "image 0: its id must be"),
        ({"id": 1.0}, "image 0: its id must be"),
        ({"file_name": 5}, "image 0: the picture's file name must be a text, got 5"),
        ({"height": 0}, r"picture 'a\.png': a picture 5 pixels wide and 0 high cannot be"),
        ({"width": "wide"}, r"picture 'a\.png': width must be a finite number"),
        ({"width": 10**9}, r"picture 'a\.png': a picture 1000000000 pixels wide"),
    ],
)
@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic"])
def test_malformed_pictures_are_refused(tmp_path, change, message, name):
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 5} | change
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(ExchangeError, match=rf"x\.json, {message}"):
        list(read_results(path, name).results)
