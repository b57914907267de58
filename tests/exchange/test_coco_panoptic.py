"""COCO's panoptic files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.data.folders import index_coco_panoptic
from hf_maskadapter.evaluation import PanopticQuality
from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.exchange.coco_panoptic import segment_numbers
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.visualization import class_colors
from support.result_samples import box


def test_numbers_are_those_of_panopticapi(tmp_path, results, vocabulary):
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


def test_this_packages_data_sets_read_it(tmp_path, results, vocabulary):
    write_results(tmp_path, "coco-panoptic", results, vocabulary)
    index = index_coco_panoptic(tmp_path / "panoptic.json", image_folder=tmp_path)
    assert index.classes.vocabulary.stuff_ids == (0,)
    assert [Path(path).name for path in index.columns["image"]] == ["a.jpg", "b ü.png", "nothing.png"]


def test_overlap_goes_to_the_smaller_segment(tmp_path, vocabulary):
    whole, part = np.ones((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    part[:2] = True
    segments = [Segment.of_class(vocabulary, class_id, mask) for class_id, mask in enumerate((whole, part, part))]
    write_results(tmp_path, "coco-panoptic", [Segments(segments, (4, 4), vocabulary, picture="a.png")], vocabulary)
    (annotation,) = json.loads((tmp_path / "panoptic.json").read_text())["annotations"]
    assert sorted(info["area"] for info in annotation["segments_info"]) == [8, 8]


def test_segments_have_their_classs_color_or_one_near_it():
    colors = class_colors(["sky", "cat"])
    numbers = segment_numbers([1] * 40 + [0], colors)
    assert len(set(numbers)) == 41
    assert 0 not in numbers
    channels = [np.array([number & 255, number >> 8 & 255, number >> 16]) for number in numbers]
    assert tuple(channels[0]) == colors[1]
    assert tuple(channels[-1]) == colors[0]
    assert max(abs(channel - colors[1]).max() for channel in channels[:40]) <= 48


SEGMENT = {"id": 70000, "category_id": 9}
CATEGORIES = [{"id": 9, "name": "cat", "isthing": 1}, {"id": 4, "name": "sky", "isthing": 0}]
IDS = np.array([[0, 0, 70000, 70000], [3, 3, 70000, 70000], [3, 3, 3, 0]])


def panoptic_file(folder: Path, mode: str = "RGB", **changes: object) -> Path:
    """A file of one picture, as another tool writes it."""
    colors = np.stack([IDS % 256, IDS // 256 % 256, IDS // 65536], axis=-1).astype(np.uint8)
    (folder / "panoptic").mkdir(exist_ok=True)
    picture = Image.fromarray(colors)
    picture = picture.quantize(256) if mode == "P" else picture.convert(mode)
    picture.save(folder / "panoptic" / "a.png")
    annotation = {
        "image_id": 1,
        "file_name": "a.png",
        "segments_info": [{"id": 70000, "category_id": 9, "iscrowd": 1}, {"id": 3, "category_id": 4}],
    }
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}],
        "categories": CATEGORIES,
        "annotations": [annotation | changes],
    }
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_maps_are_read_whatever_mode_their_colors_are_saved_in(tmp_path, mode):
    (result,) = read_results(panoptic_file(tmp_path, mode), "coco-panoptic").results
    assert [(segment.label, segment.is_thing, segment.is_crowd) for segment in result] == [
        ("cat", True, True),
        ("sky", False, False),
    ]
    for segment, number in zip(result, (70000, 3), strict=True):
        assert (segment.mask == (number == IDS)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_maps_of_gray_values_hold_numbers(tmp_path, dtype):
    factor = 100 if dtype == np.uint16 else 1
    infos = [{"id": 7 * factor, "category_id": 9}, {"id": 3 * factor, "category_id": 4}]
    path = panoptic_file(tmp_path, segments_info=infos)
    Image.fromarray(np.where(IDS == 70000, 7, IDS).astype(dtype) * dtype(factor)).save(tmp_path / "panoptic" / "a.png")
    (result,) = read_results(path, "coco-panoptic").results
    assert [segment.area for segment in result] == [4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": "1"}, "another type"),
        ({"image_id": 2}, "does not list"),
        (
            {"segments_info": [{"id": 70000, "category_id": 9}]},
            "holds segments that segments_info does not list: 3",
        ),
        (
            {"segments_info": [{"id": number, "category_id": 9} for number in (70000, 3, 3)]},
            r"picture 'a\.jpg', segment 3: segments_info lists it twice",
        ),
        ({"segments_info": [{"id": 0, "category_id": 9}]}, "segment 0: its id must be a whole number of at least 1"),
        (
            {"segments_info": [SEGMENT, {"id": 3, "category_id": 1}]},
            "segment 3: category_id is 1, which",
        ),
        (
            {"segments_info": [SEGMENT, {"id": 3, "category_id": 9, "score": 2}]},
            "segment 3: the score must lie",
        ),
        ({"segments_info": {}}, "must be a list of objects"),
        ({"file_name": None}, r"picture 'a\.jpg', its PNG: the picture's file name"),
        ({"file_name": "b.png"}, r"b\.png cannot be read"),
    ],
)
def test_malformed_annotations_get_one_error(tmp_path, changes, message):
    with pytest.raises(ExchangeError, match=rf"panoptic\.json.*{message}"):
        list(read_results(panoptic_file(tmp_path, **changes), "coco-panoptic").results)


def test_gray_colors_that_an_optimizer_saved_in_one_channel_are_colors(tmp_path):
    infos = [{"id": gray * (1 + 256 + 65536), "category_id": 9} for gray in (7, 3)]
    path = panoptic_file(tmp_path, segments_info=infos)
    Image.fromarray(np.where(IDS == 70000, 7, IDS).astype(np.uint8)).save(tmp_path / "panoptic" / "a.png")
    (result,) = read_results(path, "coco-panoptic").results
    assert [segment.area for segment in result] == [4, 5]


def test_maps_of_another_size_are_refused(tmp_path):
    path = panoptic_file(tmp_path)
    Image.new("RGB", (3, 4)).save(tmp_path / "panoptic" / "a.png")
    with pytest.raises(ExchangeError, match=r"picture 'a\.jpg': .*a\.png is 4x3 .*, but its picture 3x4"):
        list(read_results(path, "coco-panoptic").results)


def test_segments_without_a_pixel_and_pictures_without_an_annotation_are_named(tmp_path):
    infos = [{"id": number, "category_id": 9} for number in (70000, 3, 12)]
    path = panoptic_file(tmp_path, segments_info=infos)
    content = json.loads(path.read_text())
    content["images"].append({"id": 2, "file_name": "b.jpg", "height": 3, "width": 4})
    path.write_text(json.dumps(content))
    stored = read_results(path, "coco-panoptic")
    assert [len(result) for result in stored.results] == [2]
    assert stored.left_out.counts == {"segments without a pixel": 1, "pictures without an annotation": 1}


def test_two_annotations_of_one_picture_are_refused(tmp_path):
    path = panoptic_file(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"annotations": content["annotations"] * 2}))
    with pytest.raises(ExchangeError, match=r"annotation 1: there is another one for the picture 'a\.jpg'"):
        list(read_results(path, "coco-panoptic").results)


@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic", "cvat", "label-studio"])
def test_panoptic_quality_of_a_set_with_a_crowd_stays_1(tmp_path, vocabulary, name):
    size = (8, 10)
    found = [(1, box(size, 0, 4, 0, 4), False), (1, box(size, 4, 8, 0, 10), True), (2, box(size, 0, 4, 6, 9), False)]
    segments = [Segment.of_class(vocabulary, label, mask, is_crowd=is_crowd) for label, mask, is_crowd in found]
    truth = Segments(segments, size, vocabulary, "panoptic", "a.png")
    write_results(tmp_path, name, [truth], vocabulary)
    (read,) = read_results(tmp_path, name).results
    assert [segment.is_crowd for segment in read] == [False, True, False]
    # A prediction that finds both objects, and one more within the crowd.
    guesses = [segments[0], segments[2], Segment.of_class(vocabulary, 1, box(size, 5, 7, 2, 5))]
    guess = Segments(guesses, size, vocabulary, "panoptic", "a.png")
    metric = PanopticQuality({0: False, 1: True, 2: True})
    metric.add(prediction=with_category_ids(guess), reference=with_category_ids(read))
    assert metric.compute()["pq"] == 1


def with_category_ids(result: Segments) -> dict:
    """A panoptic map in the form of the metric."""
    panoptic = result.panoptic_map()
    infos = [info | {"category_id": info["label_id"]} for info in panoptic["segments_info"]]
    return {"segmentation": panoptic["segmentation"], "segments_info": infos}
