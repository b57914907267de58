"""Label maps."""

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.visualization import class_colors
from support.result_samples import box, discs


def test_palette_has_the_colors_of_the_overlay(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-map", results, vocabulary)
    with Image.open(tmp_path / "annotations" / "a.png") as image:
        assert image.mode == "P"
        painted, labels = np.asarray(image.convert("RGB")), np.asarray(image)
    for label, color in enumerate(class_colors(vocabulary.names)[:2]):
        assert (painted[labels == label] == color).all()
    assert (painted[labels == 255] == 0).all()


def test_more_than_255_classes_make_16_bits(tmp_path):
    vocabulary = Vocabulary.from_list([[f"class {number}"] for number in range(300)])
    mask = discs(20, 20)[0]
    segments = [Segment.of_class(vocabulary, 299, mask)]
    write_results(tmp_path, "label-map", [Segments(segments, (20, 20), vocabulary, picture="a.png")], vocabulary)
    (result,) = read_results(tmp_path, "label-map").results
    assert (result.label_map(65535) == np.where(mask, 299, 65535)).all()


def test_with_pictures_beside_them_they_are_a_data_set(tmp_path, results, vocabulary):
    from hf_maskadapter.data import load_segmentation_dataset

    write_results(tmp_path, "label-map", results[:1], vocabulary)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
    (sample,) = load_segmentation_dataset(tmp_path)
    assert (sample.label_map(255) == results[0].label_map()).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)), r"holds the values \[7\], but .* names 3 classes"),
        (Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), r"a\.png has shape \(4, 4, 3\)"),
    ],
)
def test_maps_of_other_values_are_refused(tmp_path, results, vocabulary, picture, message):
    write_results(tmp_path, "label-map", results[:1], vocabulary)
    picture.save(tmp_path / "annotations" / "a.png")
    with pytest.raises(ExchangeError, match=message):
        list(read_results(tmp_path, "label-map").results)


def test_later_segment_counts_where_they_overlap(tmp_path, vocabulary):
    size = (6, 8)
    masks = box(size, 0, 2, 0, 2), box(size, 0, 4, 0, 4)
    segments = [Segment.of_class(vocabulary, class_id, mask) for class_id, mask in zip((1, 2), masks, strict=True)]
    write_results(tmp_path, "label-map", [Segments(segments, size, vocabulary, picture="a.png")], vocabulary)
    (read,) = read_results(tmp_path, "label-map").results
    assert [(segment.class_id, segment.area) for segment in read] == [(2, 16)]


def test_its_main_file_stands_for_the_folder(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-map", results, vocabulary)
    names = [result.picture for result in read_results(tmp_path / "vocabulary.json", "label-map").results]
    assert names == ["a.png", "nothing.png", "sub/b ü.png"]


def test_pngs_are_known_by_any_suffix_and_other_pictures_are_named(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-map", results[:1], vocabulary)
    path = tmp_path / "annotations" / "a.png"
    with Image.open(path) as image:
        image.save(tmp_path / "annotations" / "c.tif")
    path.rename(path.with_name("b.PNG"))
    stored = read_results(tmp_path, "label-map")
    assert [result.picture for result in stored.results] == ["b.PNG"]
    assert stored.left_out.counts == {"pictures that are no PNGs": 1}


def test_classes_by_ids_are_refused_since_values_are_places(tmp_path, results, vocabulary):
    write_results(tmp_path, "label-map", results[:1], vocabulary)
    (tmp_path / "vocabulary.json").write_text('{"1": "sky", "0": "cat"}')
    with pytest.raises(ExchangeError, match="gives its classes ids"):
        read_results(tmp_path, "label-map")


@pytest.mark.parametrize("name", ["label-map", "coco-panoptic"])
def test_segments_wholly_under_others_are_named(tmp_path, vocabulary, caplog, name):
    masks = [box((8, 10), 2, 4, 2, 4), box((8, 10), 0, 2, 0, 2), box((8, 10), 1, 6, 1, 6)]
    segments = [Segment.of_class(vocabulary, number, mask) for number, mask in enumerate(masks)]
    write_results(tmp_path, name, [Segments(segments, (8, 10), vocabulary, picture="a.png")], vocabulary)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "a.png: 1 segments lie wholly under later ones, and a map cannot hold them: 0 (sky)."
    (result,) = read_results(tmp_path, name).results
    assert sorted(segment.area for segment in result) == [3, 25]
