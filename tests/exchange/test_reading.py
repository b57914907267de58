"""What all readers share."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.exchange import ExchangeError, LeftOut, read_results, write_results
from hf_maskadapter.exchange.reading import read_name, read_number, read_score, read_size, read_whole_number
from hf_maskadapter.model.segments import Segment, Segments
from support.result_samples import png_claiming


@pytest.mark.parametrize("value", [0, 1, 0.25, np.float64(1)])
def test_scores_between_0_and_1_are_believed(value):
    assert read_score(value, "here") == float(value)


def test_regions_need_no_score():
    assert read_score(None, "here") is None


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), float("inf"), -0.1, 97, [0.5], {}])
def test_other_scores_are_refused(value):
    with pytest.raises(ExchangeError, match=r"a\.json, picture 'x', region 3.*score"):
        read_score(value, "a.json, picture 'x', region 3")


@pytest.mark.parametrize("size", [(4, 6), ("4", "6"), (4.0, 6.0)])
def test_sizes_are_whole_numbers_or_texts_of_them(size):
    assert read_size(*size, "here") == (4, 6)


@pytest.mark.parametrize(
    "size", [(0, 6), (4, -6), (4.5, 6), (None, 6), ("4px", 6), (True, 6), (10**6, 10**6), (float("inf"), 6), ([4], 6)]
)
def test_other_sizes_are_refused(size):
    with pytest.raises(ExchangeError, match=r"^a\.xml, picture 'x'"):
        read_size(*size, "a.xml, picture 'x'")


def test_numbers_say_what_they_are_of_in_the_message():
    assert read_number("1.5", "xtl", "here") == 1.5
    assert read_whole_number("3", "left", "here") == 3
    with pytest.raises(ExchangeError, match="here: xtl is missing"):
        read_number(None, "xtl", "here")
    with pytest.raises(ExchangeError, match="here: xtl must be a finite number, got 'nan'"):
        read_number("nan", "xtl", "here")
    with pytest.raises(ExchangeError, match=r"here: left must be a whole number, got 1\.5"):
        read_whole_number(1.5, "left", "here")


@pytest.mark.parametrize("value", [None, 12, "", ["a.png"]])
def test_names_of_pictures_are_texts(value):
    with pytest.raises(ExchangeError, match="file name must be a text"):
        read_name(value, "here")


def test_what_is_left_out_is_counted_and_told_once(caplog):
    left_out = LeftOut("a.xml")
    left_out.add("polylines", "picture 'x', polyline 2")
    left_out.add("polylines", "picture 'y', polyline 0")
    left_out.add("skeletons", "picture 'y', skeleton 1", count=3)
    assert left_out.counts == {"polylines": 2, "skeletons": 3}
    with caplog.at_level(logging.WARNING):
        left_out.report()
    (record,) = caplog.records
    assert record.getMessage() == (
        "a.xml: left out 2 polylines (first: picture 'x', polyline 2); 3 skeletons (first: picture 'y', skeleton 1)."
    )


def test_nothing_left_out_is_not_told(caplog):
    LeftOut("a.xml").report()
    assert not caplog.records


@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic", "cvat", "label-studio"])
def test_two_results_of_one_picture_are_refused(tmp_path, vocabulary, name):
    mask = np.ones((4, 6), dtype=bool)
    pictures = [
        Segments([Segment.of_class(vocabulary, 0, mask)], (4, 6), vocabulary, picture=picture)
        for picture in ("a.png", "b.png")
    ]
    main_file = write_results(tmp_path, name, pictures, vocabulary)[0]
    main_file.write_text(main_file.read_text().replace('"b.png"', '"a.png"'))
    if name == "coco-panoptic":
        text = main_file.read_text()
        first, second = text.rsplit('"file_name":"a.png"', 1)
        main_file.write_text(f'{first}"file_name":"b.png"{second}')
    with pytest.raises(ExchangeError, match=r"two results for the picture 'a\.png'"):
        list(read_results(tmp_path, name).results)


@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic", "cvat", "label-studio"])
def test_results_of_another_size_than_the_picture_beside_them_are_refused(tmp_path, vocabulary, name):
    result = Segments(
        [Segment.of_class(vocabulary, 0, np.ones((4, 6), dtype=bool))], (4, 6), vocabulary, picture="sub/a.png"
    )
    write_results(tmp_path, name, [result], vocabulary)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "sub" / "a.png")
    assert len(list(read_results(tmp_path, name).results)) == 1
    turned = Image.new("RGB", (4, 6))
    turned.getexif()[0x0112] = 6  # a viewer turns it by a quarter, to 6×4
    turned.save(tmp_path / "images" / "sub" / "a.png", exif=turned.getexif())
    assert len(list(read_results(tmp_path, name).results)) == 1
    Image.new("RGB", (4, 6)).save(tmp_path / "images" / "sub" / "a.png")
    with pytest.raises(ExchangeError, match=r"told as 6×4, but .*a\.png is 4×6"):
        list(read_results(tmp_path, name).results)


class TestPicturesThatClaimASize:
    @pytest.mark.parametrize(("name", "file"), [("coco-panoptic", "panoptic"), ("label-map", "annotations")])
    def test_maps_are_refused_by_name(self, tmp_path, results, vocabulary, name, file):
        write_results(tmp_path, name, results[:1], vocabulary)
        path = tmp_path / file / "a.png"
        path.write_bytes(png_claiming(30_000, 30_000))
        with pytest.raises(ExchangeError, match=rf"{path} cannot be read: .*900000000 pixels"):
            list(read_results(tmp_path, name).results)

    def test_a_picture_beside_that_cannot_be_opened_does_not_matter(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "coco-instance", results[:1], vocabulary)
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.jpg").write_bytes(png_claiming(30_000, 30_000))
        (result,) = read_results(tmp_path, "coco-instance").results
        assert [segment.area for segment in result] == [segment.area for segment in results[0]]


def test_names_that_no_file_can_have_stay_names(tmp_path, results, vocabulary):
    name = "a" * 5000 + ".png"
    write_results(tmp_path, "coco-instance", [replace(results[0], picture=name)], vocabulary)
    (tmp_path / "images").mkdir()
    (result,) = read_results(tmp_path, "coco-instance").results
    assert result.picture == name
