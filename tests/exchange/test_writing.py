"""Writing picture by picture, stopped and gone on with."""

import json

import numpy as np
import pytest

from hf_maskadapter.exchange import FORMATS, ExchangeError, ResultWriter, read_results, write_results
from hf_maskadapter.model.segments import Segment, Segments


def writer(folder, vocabulary, name="coco-instance", **options) -> ResultWriter:
    return ResultWriter(FORMATS[name](folder, vocabulary), {"model": "m", "task": "instance"}, **options)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_stopped_writing_goes_on_to_the_same_files(tmp_path, results, vocabulary, name):
    with writer(tmp_path / "at_once", vocabulary, name) as at_once:
        for result in results:
            at_once.add(result)
        at_once.finish()
    with writer(tmp_path / "stopped", vocabulary, name) as first:
        first.add(results[0])
    with writer(tmp_path / "stopped", vocabulary, name) as second:
        assert second.done == {"a.jpg"}
        for result in results[1:]:
            second.add(result)
        second.finish()
    assert contents(tmp_path / "stopped") == contents(tmp_path / "at_once")


@pytest.mark.parametrize("kept", [1, 40, 200, -1])
def test_line_that_was_being_written_when_it_was_stopped_does_not_count(tmp_path, results, vocabulary, kept):
    with writer(tmp_path, vocabulary) as first:
        first.add(results[0])
        before = first.path.stat().st_size
        first.add(results[1])
    content = first.path.read_bytes()
    first.path.write_bytes(content[: before + kept] if kept > 0 else content[:kept])
    with writer(tmp_path, vocabulary) as second:
        assert second.done == {"a.jpg"}
        second.add(results[1])
        second.finish()
    assert first.path.read_bytes() == content
    assert len(json.loads((tmp_path / "annotations.json").read_text())["images"]) == 2


def test_stopped_before_the_first_line_was_complete_begins_anew(tmp_path, results, vocabulary):
    (tmp_path / "progress.jsonl").write_bytes(b'{"made_b')
    with writer(tmp_path, vocabulary) as again:
        again.add(results[0])
    with writer(tmp_path, vocabulary) as second:
        assert second.done == {"a.jpg"}


def test_results_that_were_made_otherwise_are_not_mixed(tmp_path, results, vocabulary):
    with writer(tmp_path, vocabulary) as first:
        first.add(results[0])
    with pytest.raises(ExchangeError, match="what differs: model, task"):
        ResultWriter(FORMATS["coco-instance"](tmp_path, vocabulary), {"model": "another", "task": "panoptic"})
    with pytest.raises(ExchangeError, match="what differs: format"):
        writer(tmp_path, vocabulary, "cvat")
    with writer(tmp_path, vocabulary, "cvat", overwrite=True) as anew:
        assert anew.done == set()


def test_damaged_journal_is_refused(tmp_path, results, vocabulary):
    with writer(tmp_path, vocabulary) as first:
        first.add(results[0])
    first.path.write_text(first.path.read_text().replace('{"file_name"', '{"fi', 1))
    with pytest.raises(ExchangeError, match=r"damaged.*overwrite"):
        writer(tmp_path, vocabulary)


def test_result_of_a_nameless_picture_is_refused(tmp_path, vocabulary):
    with pytest.raises(ExchangeError, match="picture=file_name"):
        write_results(tmp_path / "out", "coco-instance", [Segments([], (2, 2), vocabulary)], vocabulary)


@pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "a.jpg")])
def test_two_pictures_with_one_file_are_refused(tmp_path, vocabulary, names):
    full = [Segment.of_class(vocabulary, 0, np.ones((2, 2), dtype=bool))]
    pictures = [Segments(full, (2, 2), vocabulary, picture=name) for name in names]
    with pytest.raises(ExchangeError, match=r"a\.png"):
        write_results(tmp_path, "label-map", pictures, vocabulary)


def test_failure_to_write_leaves_the_picture_unfinished(tmp_path, results, vocabulary, monkeypatch):
    with writer(tmp_path, vocabulary, "coco-panoptic") as first:
        monkeypatch.setattr("PIL.Image.Image.save", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            first.add(results[0])
    assert list((tmp_path / "panoptic").iterdir()) == []
    monkeypatch.undo()
    with writer(tmp_path, vocabulary, "coco-panoptic") as second:
        assert second.done == set()


class TestEarlierLabelMaps:
    def test_beginning_anew_leaves_none_of_an_earlier_run(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "label-map", results, vocabulary)
        write_results(tmp_path, "label-map", results[2:], vocabulary)
        assert [result.picture for result in read_results(tmp_path, "label-map").results] == ["nothing.png"]

    def test_a_stopped_run_leaves_nothing_that_reads_as_finished(self, tmp_path, results, vocabulary):
        def stopped():
            yield results[0]
            raise RuntimeError("stopped")

        write_results(tmp_path, "label-map", results, vocabulary)
        with pytest.raises(RuntimeError, match="stopped"):
            write_results(tmp_path, "label-map", stopped(), vocabulary)
        assert set(contents(tmp_path)) == {"annotations/a.png"}
        with pytest.raises(ExchangeError, match="does not name the classes"):
            read_results(tmp_path, "label-map")

    def test_a_data_sets_own_label_maps_are_not_written_over(self, tmp_path, results, vocabulary):
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "a.png").write_bytes(b"drawn by hand")
        with pytest.raises(ExchangeError, match=r"holds annotations/a\.png already"):
            writer(tmp_path, vocabulary, "label-map")
        assert contents(tmp_path) == {"annotations/a.png": b"drawn by hand"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_after_an_error_no_journal_stays(tmp_path, results, vocabulary, name):
    with pytest.raises(ExchangeError, match="two pictures of the name"):
        write_results(tmp_path, name, [results[0], results[0]], vocabulary)
    assert not (tmp_path / "progress.jsonl").exists()
