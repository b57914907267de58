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
