"""What Label Studio exports, read: which annotation counts, classes, names and sizes of pictures."""

import json
import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hf_maskadapter.exchange import ExchangeError, StoredResults, read_results
from hf_maskadapter.exchange.label_studio_brush import encode_brush

SIZE = (8, 10)


def region(label: str | None = "cat", number: int = 1, **changes: object) -> dict:
    """A brush mask whose area tells which one it is: as many pixels as its number."""
    mask = np.arange(80).reshape(SIZE) < number
    entry = {
        "id": f"r{number}",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "img",
        "original_width": 10,
        "original_height": 8,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label] if label else []},
    }
    return entry | changes


def annotation(*numbers: int, **changes: object) -> dict:
    return {"result": [region(number=number) for number in numbers], "created_at": "2026-01-02T10:00:00Z"} | changes


def task(*annotations: dict, **changes: object) -> dict:
    return {"id": 1, "data": {"image": "/data/upload/1/a.png"}, "annotations": list(annotations)} | changes


def read(folder: Path, *tasks: dict) -> StoredResults:
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return read_results(path, "label-studio")


def areas(stored: StoredResults) -> list[list[int]]:
    return [[segment.area for segment in result] for result in stored.results]


class TestWhichAnnotationCounts:
    @pytest.mark.parametrize("key", ["was_cancelled", "skipped"])
    def test_a_skipped_one_never_replaces_a_good_one(self, tmp_path, key):
        skipped = annotation(9, created_at="2026-05-01T10:00:00Z", **{key: True})
        assert areas(read(tmp_path, task(annotation(3), skipped))) == [[3]]
        assert areas(read(tmp_path, task(skipped, annotation(3)))) == [[3]]

    @pytest.mark.parametrize("key", ["created_at", "updated_at"])
    def test_the_newest_counts_wherever_it_stands(self, tmp_path, key):
        older = annotation(3, **{key: "2026-02-01T10:00:00.5Z"})
        newer = annotation(4, **{key: "2026-02-01T12:30:00+02:00"})  # 10:30 UTC
        undated = annotation(5, created_at=None)
        for order in ([older, newer, undated], [newer, undated, older], [undated, older, newer]):
            assert areas(read(tmp_path, task(*order))) == [[4]]

    def test_a_later_change_counts_more_than_a_later_beginning(self, tmp_path):
        changed = annotation(3, created_at="2026-01-01T10:00:00Z", updated_at="2026-03-01T10:00:00Z")
        begun = annotation(4, created_at="2026-02-01T10:00:00Z", updated_at="2026-02-01T10:00:00Z")
        assert areas(read(tmp_path, task(changed, begun))) == [[3]]

    def test_without_dates_the_last_counts(self, tmp_path):
        assert areas(read(tmp_path, task(annotation(3, created_at=None), annotation(4, created_at=None)))) == [[4]]

    def test_unfinished_and_skipped_tasks_are_left_out_and_counted(self, tmp_path, caplog):
        stored = read(
            tmp_path,
            task(),
            task(annotation(3), data={"image": "b.png"}),
            task(annotation(3, was_cancelled=True), data={"image": "c.png"}),
            task(data={"image": "d.png"}, predictions=[annotation(7)], drafts=[{"result": []}]),
            {"data": {"image": "e.png"}, "predictions": []},
        )
        with caplog.at_level(logging.WARNING):
            results = list(stored.results)
        assert [result.picture for result in results] == ["b.png"]
        assert stored.left_out.counts == {
            "tasks that nobody has finished": 2, "tasks that were skipped": 1, "tasks without a prediction": 1,
        }  # fmt: skip
        (record,) = caplog.records
        assert "2 tasks that nobody has finished" in record.getMessage()

    def test_an_annotation_that_found_nothing_is_a_result(self, tmp_path):
        nothing = {"result": [], "created_at": "2026-05-01T10:00:00Z"}
        stored = read(tmp_path, task(annotation(3), nothing), task(annotation(2), data={"image": "b.png"}))
        result = next(stored.results)
        assert (result.picture, result.size, len(result)) == ("a.png", SIZE, 0)

    def test_one_whose_pictures_size_is_not_told_is_named(self, tmp_path):
        nothing = {"result": []}
        stored = read(tmp_path, task(nothing), task(annotation(2), data={"image": "b.png"}))
        assert [result.picture for result in stored.results] == ["b.png"]
        assert sum(stored.left_out.counts.values()) == 1

    def test_tasks_made_for_the_import_have_predictions_of_which_the_newest_counts(self, tmp_path):
        made = {"data": {"image": "a.png"}, "predictions": [annotation(3), annotation(4, created_at=None)]}
        assert areas(read(tmp_path, made)) == [[3]]

    def test_dates_that_are_none_are_refused(self, tmp_path):
        with pytest.raises(ExchangeError, match=r"export\.json, task 1: 'yesterday' is no date"):
            read(tmp_path, task(annotation(3, created_at="yesterday")))


class TestClasses:
    CONFIG = (
        '<View><Image name="img" value="$photo"/><BrushLabels name="brush" toName="img">'
        '<Label value="domestic cat" alias="cat"/><Label value="dog"/></BrushLabels>'
        '<PolygonLabels name="polygon" toName="img"><Label value="dog"/></PolygonLabels></View>'
    )

    def test_aliases_and_the_key_of_the_picture_are_those_of_the_interface(self, tmp_path):
        (tmp_path / "label_config.xml").write_text(self.CONFIG)
        data = {"id": "7", "photo": "s3://bucket/x/photo%201.jpg", "thumbnail": "t.png"}
        entry = task({"result": [region("cat", 3), region("dog", 4)]}, data=data)
        stored = read(tmp_path, entry)
        assert stored.vocabulary.names == ("domestic cat", "dog")
        (result,) = stored.results
        assert result.picture == "photo 1.jpg"
        assert [segment.label for segment in result] == ["domestic cat", "dog"]

    def test_labels_are_matched_as_the_file_spells_them(self, tmp_path):
        stored = read(tmp_path, task({"result": [region(" big  cat ", 2), region("dog", 3)]}))
        (result,) = stored.results
        assert [segment.class_id for segment in result] == [0, 1]

    def test_labels_that_the_interface_lacks_are_refused(self, tmp_path):
        (tmp_path / "label_config.xml").write_text(self.CONFIG)
        with pytest.raises(ExchangeError, match=r"task 1 \(a\.png\), region 'r1': .*no label 'bird'"):
            list(read(tmp_path, task({"result": [region("bird")]}, data={"photo": "a.png"})).results)

    def test_regions_without_a_label_and_further_labels_are_named(self, tmp_path):
        both = region("cat", 3)
        both["value"]["brushlabels"] = ["cat", "dog"]
        empty = region("cat", 4)
        empty["value"]["rle"] = encode_brush(np.zeros(SIZE, dtype=bool))
        stored = read(tmp_path, task({"result": [region(None, 2), both, empty]}))
        assert areas(stored) == [[3]]
        assert stored.left_out.counts == {
            "regions without a label": 1, "labels of regions that have another before": 1, "regions without a pixel": 1,
        }  # fmt: skip

    def test_without_an_interface_classes_are_those_that_occur(self, tmp_path):
        stored = read(tmp_path, task({"result": [region("dog", 2), region("cat", 3), region("dog", 4)]}))
        assert stored.vocabulary.names == ("dog", "cat")

    def test_if_none_occurs_the_interface_is_asked_for(self, tmp_path):
        with pytest.raises(ExchangeError, match=r"classes of .*export\.json cannot be told.*label_config\.xml"):
            read(tmp_path, task({"result": []}))


class TestPictures:
    @pytest.mark.parametrize(
        ("data", "name"),
        [
            ({"photo": "/data/upload/1/4a-a.png"}, "4a-a.png"),
            ({"photo": "https://example.org/x/a%20b.JPG?width=3", "text": "a street"}, "a b.JPG"),
            ({"image": "/data/local-files/?d=sub/a%20b.png", "mask": "m.png"}, "sub/a b.png"),
            ({"photo": "/data/local-files/?d=sub/a.webp", "n": 3}, "sub/a.webp"),
            ({"image": "/data/x", "file_name": "sub/y.png"}, "sub/y.png"),
            ({"image": "s3://bucket/x/1"}, "1"),
        ],
    )
    def test_the_address_is_found_whatever_its_key(self, tmp_path, data, name):
        (result,) = read(tmp_path, task(annotation(3), data=data)).results
        assert result.picture == name

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"a": "a.png", "b": "b.png"}, r"which of its data 'a', 'b' is the picture"),
            ({"text": "a street"}, "which of its data 'text'"),
            ({}, "there are none"),
            ({"image": "data:image/png;base64,AAAA"}, "ends in no file name"),
            ({"image": "https://example.org/"}, "ends in no file name"),
            ({"image": ["a.png"]}, "which of its data 'image'"),
            ({"file_name": 5}, "file name must be a text, got 5"),
        ],
    )
    def test_what_cannot_be_told_is_asked_for(self, tmp_path, data, message):
        with pytest.raises(ExchangeError, match=rf"export\.json, task 1.*{message}"):
            list(read(tmp_path, task(annotation(3), data=data)).results)

    def test_regions_of_different_sizes_are_refused(self, tmp_path):
        entry = task({"result": [region(), region(number=2, original_width=8, original_height=10)]})
        with pytest.raises(ExchangeError, match=r"task 1 \(a\.png\), region 'r2': it was drawn on a picture of 8×10"):
            list(read(tmp_path, entry).results)

    @pytest.mark.parametrize("change", [{"original_width": 0}, {"original_width": None}, {"original_height": "x"}])
    def test_sizes_that_cannot_be_are_refused(self, tmp_path, change):
        with pytest.raises(ExchangeError, match=r"task 1 \(a\.png\), region 'r1'"):
            list(read(tmp_path, task({"result": [region(**change)]})).results)


def test_crowds_are_regions_with_that_note(tmp_path):
    entry = task({"result": [region(number=1, meta={"text": ["crowd"]}), region(number=2, meta={"text": ["blurred"]})]})
    (result,) = read(tmp_path, entry).results
    assert [segment.is_crowd for segment in result] == [True, False]


def test_later_regions_lie_on_top(tmp_path):
    (result,) = read(tmp_path, task({"result": [region("cat", 30), region("dog", 10)]})).results
    expected = np.full(80, 255)
    expected[:30] = 0
    expected[:10] = 1
    assert (result.label_map().ravel() == expected).all()


@pytest.mark.parametrize("score", ["0.9", 90, float("nan"), True])
def test_scores_that_are_none_are_refused(tmp_path, score):
    with pytest.raises(ExchangeError, match=r"task 1 \(a\.png\), region 'r1': the score"):
        list(read(tmp_path, task({"result": [region(score=score)]})).results)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tasks": []}, "holds no list of tasks"),
        ([5], "task 1: a task must be an object with data"),
        ([{"image": "a.png", "tag": []}], "task 1: a task must be an object with data"),
        ([{"data": {}, "annotations": [12]}], "task 1: annotations must be a list of objects"),
        ([{"data": {}, "annotations": [{"result": None}]}], "task 1: result must be a list"),
    ],
)
def test_other_files_get_one_error(tmp_path, content, message):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ExchangeError, match=rf"export\.json.*{message}"):
        read_results(path, "label-studio")


class TestTasksOfSeveralPictures:
    INTERFACE = (
        '<View><Image name="left" value="$l"/><Image name="right" value="$r"/>'
        '<BrushLabels name="brush" toName="left,right"><Label value="cat"/></BrushLabels></View>'
    )
    DATA: ClassVar = {"l": "/data/left.png", "r": "/data/right.png", "width": 10, "height": 8}

    def on_both(self) -> dict:
        wide = np.arange(160).reshape(8, 20) < 5
        value = {"format": "rle", "rle": encode_brush(wide), "brushlabels": ["cat"]}
        return annotation() | {
            "result": [
                region(number=3, to_name="left"),
                region(number=5, to_name="right", original_width=20, value=value),
                region(number=7, to_name="left"),
            ]
        }

    def test_each_picture_gets_its_own_regions(self, tmp_path):
        (tmp_path / "label_config.xml").write_text(self.INTERFACE)
        left, right = read(tmp_path, task(self.on_both(), data=self.DATA)).results
        assert (left.picture, left.size, [segment.area for segment in left]) == ("left.png", (8, 10), [3, 7])
        assert (right.picture, right.size, [segment.area for segment in right]) == ("right.png", (8, 20), [5])

    def test_a_picture_without_a_region_is_named_if_its_size_is_not_told(self, tmp_path):
        (tmp_path / "label_config.xml").write_text(self.INTERFACE)
        stored = read(tmp_path, task(annotation(), data=self.DATA))
        assert list(stored.results) == []
        ((kind, count),) = stored.left_out.counts.items()
        assert "size is not told" in kind  # width and height beside two pictures are of neither
        assert count == 2

    def test_without_the_interface_the_regions_of_the_second_are_left_out(self, tmp_path):
        stored = read(tmp_path, task(self.on_both(), data={"image": "/data/left.png"}))
        assert areas(stored) == [[3, 7]]
        ((kind, count),) = stored.left_out.counts.items()
        assert "further pictures" in kind
        assert count == 1


@pytest.mark.parametrize(
    "changes", [{"predictions": 5}, {"predictions": [1, 2]}, {"predictions": [{"result": 5}]}, {"predictions": "none"}]
)
def test_predictions_that_do_not_count_may_be_anything(tmp_path, changes):
    assert areas(read(tmp_path, task(annotation(3), {"result": 5, "was_cancelled": True}, **changes))) == [[3]]


def test_where_nothing_is_left_the_error_says_what_was_left_out(tmp_path):
    with pytest.raises(ExchangeError, match=r"cannot be told.*left out 1 tasks that nobody has finished"):
        read(tmp_path, task())


@pytest.mark.parametrize("note", ["crowd", "Crowd", " crowd\n"])
def test_the_note_of_a_crowd_is_known_however_it_was_typed(tmp_path, note):
    noted = annotation() | {"result": [region(number=3, meta={"text": [note]}), region(number=4)]}
    (result,) = read(tmp_path, task(noted)).results
    assert [segment.is_crowd for segment in result] == [True, False]


def test_more_masks_than_memory_are_refused_before_they_are_made(tmp_path):
    value = {"x": 0, "y": 0, "width": 1, "height": 1, "rectanglelabels": ["cat"]}
    regions = [
        region(number=number, type="rectanglelabels", value=value, original_width=13_000, original_height=13_000)
        for number in range(1, 103)  # of 169 MB each
    ]
    with pytest.raises(ExchangeError, match=r"task 1 \(a\.png\): 102 masks of 13000×13000 .* do not fit"):
        list(read(tmp_path, task(annotation() | {"result": regions})).results)
