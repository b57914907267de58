"""Each format, written and read back, and read by other tools' code where it is at hand."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from hf_maskadapter.data.folders import index_coco_panoptic
from hf_maskadapter.exchange import FORMATS, ExchangeError, read_results, write_results
from hf_maskadapter.exchange.coco_panoptic import segment_numbers
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.visualization import class_colors
from support.result_samples import assert_equal, discs

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


class TestCocoInstances:
    def test_pycocotools_loads_it(self, tmp_path, results, vocabulary, capsys):
        write_results(tmp_path, "coco-instance", results, vocabulary)
        coco = COCO(tmp_path / "annotations.json")
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(vocabulary.names)
        for image, result in zip(coco.loadImgs(coco.getImgIds()), results, strict=True):
            assert (image["file_name"], image["height"]) == (result.picture, result.height)
            annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
            for annotation, segment in zip(annotations, result.segments, strict=True):
                assert (coco.annToMask(annotation).astype(bool) == segment.mask).all()
                assert annotation["area"] == coco_mask.area(annotation["segmentation"])
                assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
                assert annotation["category_id"] == segment.class_id + 1

    def test_its_annotations_are_results_that_pycocotools_loads(self, tmp_path, results, vocabulary, capsys):
        write_results(tmp_path, "coco-instance", results, vocabulary)
        coco = COCO(tmp_path / "annotations.json")
        content = json.loads((tmp_path / "annotations.json").read_text())
        detected = coco.loadRes(content["annotations"])
        assert [annotation["score"] for annotation in detected.anns.values()] == [0.5, 0.25, 0.75] * 2

    def test_data_sets_numbers_are_kept(self, tmp_path):
        vocabulary = Vocabulary.from_list([{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}])
        full = Segment.of_class(vocabulary, 1, np.ones((2, 2), dtype=bool))
        names = ("000000000139.jpg", "000000000285.jpg")
        pictures = [Segments([full], (2, 2), vocabulary, picture=name) for name in names]
        write_results(tmp_path, "coco-instance", pictures, vocabulary)
        content = json.loads((tmp_path / "annotations.json").read_text())
        assert [image["id"] for image in content["images"]] == [139, 285]
        assert {annotation["category_id"] for annotation in content["annotations"]} == {3}

    def test_polygons_and_uncompressed_masks_of_other_tools_are_read(self, tmp_path):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
            "categories": [{"id": 9, "name": "cat"}],
            "annotations": [
                {"image_id": 1, "category_id": 9, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
                {"image_id": 1, "category_id": 9, "segmentation": {"size": [4, 5], "counts": [4, 8, 8]}},
            ],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        (result,) = read_results(tmp_path, "coco-instance").results
        expected = np.zeros((4, 5), dtype=bool)
        expected[1:3, 1:4] = True
        assert (result.segments[0].mask == expected).all()
        assert (result.segments[1].mask == ([False, True, True, False, False],) * 4).all()


class TestCocoPanoptic:
    def test_numbers_are_those_of_panopticapi(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "coco-panoptic", results, vocabulary)
        content = json.loads((tmp_path / "panoptic.json").read_text())
        for annotation, result in zip(content["annotations"], results, strict=True):
            pixels = np.asarray(Image.open(tmp_path / "panoptic" / annotation["file_name"])).astype(int)
            ids = pixels[..., 0] + 256 * pixels[..., 1] + 256 * 256 * pixels[..., 2]
            assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
            for info, segment in zip(annotation["segments_info"], result.segments, strict=True):
                assert ((ids == info["id"]) == segment.mask).all()
                assert (info["area"], tuple(info["bbox"])) == (segment.area, segment.box)
                assert info["category_id"] == segment.class_id + 1

    def test_this_packages_data_sets_read_it(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "coco-panoptic", results, vocabulary)
        index = index_coco_panoptic(tmp_path / "panoptic.json", image_folder=tmp_path)
        assert index.classes.vocabulary.stuff_ids == (0,)
        assert [Path(path).name for path in index.columns["image"]] == ["a.jpg", "b ü.png", "nothing.png"]

    def test_overlap_goes_to_the_smaller_segment(self, tmp_path, vocabulary):
        whole, part = np.ones((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
        part[:2] = True
        segments = [Segment.of_class(vocabulary, class_id, mask) for class_id, mask in enumerate((whole, part, part))]
        write_results(tmp_path, "coco-panoptic", [Segments(segments, (4, 4), vocabulary, picture="a.png")], vocabulary)
        (annotation,) = json.loads((tmp_path / "panoptic.json").read_text())["annotations"]
        assert sorted(info["area"] for info in annotation["segments_info"]) == [8, 8]

    def test_segments_have_their_classs_color_or_one_near_it(self):
        colors = class_colors(["sky", "cat"])
        numbers = segment_numbers([1] * 40 + [0], colors)
        assert len(set(numbers)) == 41
        assert 0 not in numbers
        channels = [np.array([number & 255, number >> 8 & 255, number >> 16]) for number in numbers]
        assert tuple(channels[0]) == colors[1]
        assert tuple(channels[-1]) == colors[0]
        assert max(abs(channel - colors[1]).max() for channel in channels[:40]) <= 48


class TestLabelMaps:
    def test_palette_has_the_colors_of_the_overlay(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "label-map", results, vocabulary)
        with Image.open(tmp_path / "annotations" / "a.png") as image:
            assert image.mode == "P"
            painted, labels = np.asarray(image.convert("RGB")), np.asarray(image)
        for label, color in enumerate(class_colors(vocabulary.names)[:2]):
            assert (painted[labels == label] == color).all()
        assert (painted[labels == 255] == 0).all()

    def test_more_than_255_classes_make_16_bits(self, tmp_path):
        vocabulary = Vocabulary.from_list([[f"class {number}"] for number in range(300)])
        mask = discs(20, 20)[0]
        segments = [Segment.of_class(vocabulary, 299, mask)]
        write_results(tmp_path, "label-map", [Segments(segments, (20, 20), vocabulary, picture="a.png")], vocabulary)
        (result,) = read_results(tmp_path, "label-map").results
        assert (result.label_map(65535) == np.where(mask, 299, 65535)).all()

    def test_with_pictures_beside_them_they_are_a_data_set(self, tmp_path, results, vocabulary):
        from hf_maskadapter.data import load_segmentation_dataset

        write_results(tmp_path, "label-map", results[:1], vocabulary)
        (tmp_path / "images").mkdir()
        Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
        (sample,) = load_segmentation_dataset(tmp_path)
        assert (sample.label_map(255) == results[0].label_map()).all()


class TestCvat:
    def test_masks_are_rows_of_runs_inside_their_box(self, tmp_path, vocabulary):
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

    def test_a_mask_that_cvat_exported_is_read(self, tmp_path):
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

    def test_polygons_drawn_by_a_corrector_are_read(self, tmp_path, vocabulary):
        write_results(tmp_path, "cvat", [Segments([], (5, 6), vocabulary, picture="a.png")], vocabulary)
        path = tmp_path / "annotations.xml"
        polygon = '<polygon label="sky" points="1.0,1.0;4.0,1.0;4.0,3.0;1.0,3.0" z_order="0"></polygon></image>'
        path.write_text(path.read_text().replace("</image>", polygon))
        (result,) = read_results(path, "cvat").results
        assert result.segments[0].class_id == 0
        assert result.segments[0].mask[1:3, 1:4].all()

    def test_labels_for_the_task_have_the_classes_colors(self, tmp_path, vocabulary):
        write_results(tmp_path, "cvat", [], vocabulary)
        labels = json.loads((tmp_path / "labels.json").read_text())
        assert [label["name"] for label in labels] == list(vocabulary.names)
        assert [tuple(bytes.fromhex(label["color"][1:])) for label in labels] == class_colors(vocabulary.names)

    @pytest.mark.parametrize(("old", "new"), [('left="0"', 'left="900"'), ('rle="0, ', 'rle="3, '), ("sky", "sea")])
    def test_damaged_masks_get_one_error_that_names_the_picture(self, tmp_path, results, vocabulary, old, new):
        write_results(tmp_path, "cvat", results[:1], vocabulary)
        path = tmp_path / "annotations.xml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ExchangeError, match=r"a\.jpg"):
            list(read_results(path, "cvat").results)
