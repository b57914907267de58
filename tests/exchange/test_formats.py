"""Each format, written and read back, and read by other tools' code where it is at hand."""

from pathlib import Path

import numpy as np
import pytest

from hf_maskadapter.exchange import FORMATS, ExchangeError, read_results, write_results
from hf_maskadapter.exchange.formats import picture_name
from hf_maskadapter.model.segments import Segment, Segments
from support.result_samples import assert_equal

KEEPS_SCORES = {"coco-instance", "coco-panoptic", "label-studio"}


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"label-map"}))
def test_what_is_written_is_read_back(tmp_path, results, vocabulary, name):
    write_results(tmp_path / "out", name, results, vocabulary, model="a model")
    stored = read_results(tmp_path / "out", name)
    assert stored.vocabulary.names == vocabulary.names
    for result, expected in zip(stored.results, results, strict=True):
        assert_equal(result, expected, scores=name in KEEPS_SCORES)


def test_label_maps_are_read_back(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-map", results, vocabulary)
    stored = read_results(tmp_path, "label-map")
    assert stored.vocabulary.names == vocabulary.names
    read = {result.picture: result for result in stored.results}
    assert sorted(read) == ["a.png", "nothing.png", "sub/b ü.png"]
    for result in results:
        maps = read[str(Path(result.picture).with_suffix(".png"))]
        assert (maps.label_map() == result.label_map()).all()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_nothing_but_the_format_is_left_in_the_folder(tmp_path, results, vocabulary, name):
    written = write_results(tmp_path, name, results, vocabulary)
    assert sorted(tmp_path.iterdir()) == sorted(written)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_no_pictures_make_files_that_can_be_read(tmp_path, vocabulary, name):
    write_results(tmp_path, name, [], vocabulary)
    if name == "label-map":
        with pytest.raises(ExchangeError, match="no label maps"):
            list(read_results(tmp_path, name).results)
    else:
        assert list(read_results(tmp_path, name).results) == []


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_is_not_there_gets_one_error(tmp_path, name):
    with pytest.raises(ExchangeError, match=str(tmp_path)):
        list(read_results(tmp_path / "nothing", name).results)


def test_unknown_format_is_refused(tmp_path, vocabulary):
    with pytest.raises(ExchangeError, match=r"no format 'voc'.*coco-instance"):
        write_results(tmp_path, "voc", [], vocabulary)


@pytest.mark.parametrize("file_name", ["../a.png", "/a.png", "b/../../a.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, vocabulary, file_name):
    result = Segments(
        [Segment.of_class(vocabulary, 0, np.ones((4, 4), dtype=bool))], (4, 4), vocabulary, picture=file_name
    )
    with pytest.raises(ExchangeError, match=r"without '\.\.'"):
        write_results(tmp_path / "out", "label-map", [result], vocabulary)


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(ExchangeError, match="zero character"):
        picture_name("a\0.png", ".png")
