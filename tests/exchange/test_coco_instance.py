"""COCO's instance files."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hf_maskadapter.exchange import ExchangeError, read_results, write_results
from hf_maskadapter.model.mask_collections import read_masks
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from support.result_samples import box


def test_pycocotools_loads_it(tmp_path, results, vocabulary, capsys):
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


def test_its_annotations_are_results_that_pycocotools_loads(tmp_path, results, vocabulary, capsys):
    write_results(tmp_path, "coco-instance", results, vocabulary)
    coco = COCO(tmp_path / "annotations.json")
    content = json.loads((tmp_path / "annotations.json").read_text())
    detected = coco.loadRes(content["annotations"])
    assert [annotation["score"] for annotation in detected.anns.values()] == [0.5, 0.25, 0.75] * 2


def test_data_sets_numbers_are_kept(tmp_path):
    vocabulary = Vocabulary.from_list([{"id": 17, "name": "cat"}, {"id": 3, "name": "car"}])
    full = Segment.of_class(vocabulary, 1, np.ones((2, 2), dtype=bool))
    names = ("000000000139.jpg", "000000000285.jpg")
    pictures = [Segments([full], (2, 2), vocabulary, picture=name) for name in names]
    write_results(tmp_path, "coco-instance", pictures, vocabulary)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in content["images"]] == [139, 285]
    assert {annotation["category_id"] for annotation in content["annotations"]} == {3}


def test_polygons_and_uncompressed_masks_of_other_tools_are_read(tmp_path):
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


def coco_file(folder: Path, *annotations: dict, size: tuple[int, int] = (8, 10)) -> Path:
    """A file of one picture, as another tool writes it."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 9, "iscrowd": 0, **annotation}
            for number, annotation in enumerate(annotations, start=1)
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


POLYGONS = [
    [[2, 2, 6, 2, 6, 5, 2, 5]],
    [[1.2, 1.1, 7.3, 2.9, 4.1, 7.4]],
    [[1.1, 0.9, 7.2, 0.9, 7.2, 6.7, 4.3, 2.4, 1.1, 6.7]],  # concave
    [[-3.3, 2.2, 20.4, 3.6, 20.4, 5.1, -3.3, 4.2]],  # beyond both edges
    [[0, 0, 3, 0, 3, 3, 0, 3], [2, 2, 5.5, 2.2, 5, 5.7]],  # two that overlap: what both cover is inside
    [[0.5, 0.5, 2.5, 0.5, 2.5, 2.5], [5, 5, 7, 5, 7, 7, 5, 7]],  # two apart
]


class TestPolygons:
    @pytest.mark.parametrize("size", [(8, 14), (14, 8)])
    @pytest.mark.parametrize("polygons", POLYGONS)
    def test_they_are_those_of_coco_wherever_they_come_in(self, tmp_path, polygons, size):
        path = coco_file(tmp_path, {"segmentation": polygons, "area": 1, "bbox": [0, 0, 1, 1]}, size=size)
        coco = COCO(path)
        expected = coco.annToMask(coco.loadAnns(1)[0]).astype(bool)
        assert expected.shape == size
        (result,) = read_results(path, "coco-instance").results
        assert (result[0].mask == expected).all()
        assert (read_masks([polygons], size).masks[0] == expected).all()

    def test_axis_parallel_ones_enclose_the_pixels_within(self, tmp_path):
        (result,) = read_results(coco_file(tmp_path, {"segmentation": POLYGONS[0]}), "coco-instance").results
        assert result[0].area == 12
        assert (result[0].mask == box((8, 10), 2, 5, 2, 6)).all()

    def test_those_far_away_take_no_memory(self, tmp_path):
        far = [[-1e8, 2, 1e8, 2, 1e8, 4, -1e8, 4]]
        (result,) = read_results(coco_file(tmp_path, {"segmentation": far}), "coco-instance").results
        assert (result[0].mask == box((8, 10), 2, 4, 0, 10)).all()


def test_regions_without_a_pixel_are_left_out_and_counted(tmp_path, caplog):
    path = coco_file(
        tmp_path,
        {"segmentation": []},
        {"segmentation": POLYGONS[0]},
        {"bbox": [1, 1, 3, 3]},
        {"segmentation": [[2.1, 2.1, 2.2, 2.1, 2.2, 2.2]]},
        {"segmentation": [[2, 2]]},  # a dot, as contours of one pixel are written
        {"segmentation": [[]]},
        {"segmentation": {"size": [8, 10], "counts": [80]}},
        {"segmentation": None},
    )
    stored = read_results(path, "coco-instance")
    with caplog.at_level(logging.WARNING):
        (result,) = stored.results
    assert [segment.area for segment in result] == [12]
    assert stored.left_out.counts == {"annotations without a segmentation": 3, "annotations without a pixel": 4}
    assert [record.getMessage().count("annotation 1)") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": "1"}, "image_id is '1', but the file lists 1 as an id of another type"),
        ({"image_id": 2}, "image_id is 2, which the file does not list"),
        ({"image_id": None}, "image_id is missing"),
        ({"category_id": "9"}, "category_id is '9'.* another type"),
        ({"category_id": 3}, "category_id is 3, which the file does not list"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, "x"]]}, "segmentation cannot be read"),
        ({"segmentation": 5}, "segmentation cannot be read"),
        ({"segmentation": {"size": [8, 10], "counts": [3]}}, "sum to 3"),
        ({"segmentation": {"size": [10, 8], "counts": [80]}}, "10x8, this one is 8x10"),
        ({"segmentation": {"size": [8, 10], "counts": "a!"}}, "broken"),
        ({"segmentation": {"counts": [80]}}, "needs"),
        ({"iscrowd": 2}, "iscrowd must be 0 or 1"),
        ({"score": "0.5"}, "the score must be a number"),
        ({"score": 97.5}, "the score must lie between 0 and 1"),
    ],
)
def test_malformed_annotations_get_one_error_that_names_them(tmp_path, annotation, message):
    path = coco_file(tmp_path, {"segmentation": POLYGONS[0]}, {"segmentation": POLYGONS[0], **annotation})
    with pytest.raises(ExchangeError, match=rf"annotations\.json.*annotation 2: {message}|annotation 2:.*{message}"):
        list(read_results(path, "coco-instance").results)


def test_crowds_are_kept(tmp_path, vocabulary):
    segments = [
        Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), is_crowd=True, score=0.5),
        Segment.of_class(vocabulary, 1, box((8, 10), 4, 6, 4, 6), score=0.25),
    ]
    write_results(tmp_path, "coco-instance", [Segments(segments, (8, 10), vocabulary, picture="a.png")], vocabulary)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [annotation["iscrowd"] for annotation in content["annotations"]] == [1, 0]
    (read,) = read_results(tmp_path, "coco-instance").results
    assert [segment.is_crowd for segment in read] == [True, False]
    assert [entry["score"] for entry in json.loads((tmp_path / "results.json").read_text())] == [0.25]


@pytest.mark.parametrize("score", [np.float32(0.5), np.float64(0.5), np.int64(1), torch.tensor(0.5), 1, True])
@pytest.mark.parametrize("name", ["coco-instance", "coco-panoptic", "label-studio", "cvat", "label-map"])
def test_scores_of_any_number_type_are_written(tmp_path, vocabulary, score, name):
    segment = Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=score)
    write_results(tmp_path, name, [Segments([segment], (8, 10), vocabulary, picture="a.png")], vocabulary)
    (read,) = read_results(tmp_path, name).results
    assert read[0].score in (float(score), None)
    if name in ("coco-instance", "coco-panoptic", "label-studio"):
        assert read[0].score == float(score)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(vocabulary, score):
    with pytest.raises(ValueError, match="score of a segment must be a finite number"):
        Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=score)


def test_classes_of_another_vocabulary_are_matched_by_name_or_refused(tmp_path, vocabulary):
    own = Vocabulary.from_list([["dog & <cat>"], ["boat"]])
    segment = Segment.of_class(own, 0, box((8, 10), 0, 2, 0, 2))
    write_results(tmp_path, "coco-instance", [Segments([segment], (8, 10), own, picture="a.png")], vocabulary)
    (read,) = read_results(tmp_path, "coco-instance").results
    assert (read[0].class_id, read[0].label) == (1, "dog & <cat>")
    boat = Segment.of_class(own, 1, box((8, 10), 0, 2, 0, 2))
    with pytest.raises(ExchangeError, match=r"a\.png, segment 0: the class 'boat' is none of those"):
        write_results(tmp_path, "coco-instance", [Segments([boat], (8, 10), own, picture="a.png")], vocabulary)


class TestResults:
    """`results.json` with pycocotools' own evaluation."""

    def evaluate(self, folder: Path) -> np.ndarray:
        coco = COCO(folder / "annotations.json")
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats

    def test_average_precision_by_size_is_that_of_the_masks(self, tmp_path, capsys):
        vocabulary = Vocabulary.from_list(["stroke"])
        stroke = np.eye(150, dtype=bool) | np.eye(150, k=1, dtype=bool)  # 299 pixels in a box of 22500
        segment = Segment.of_class(vocabulary, 0, stroke, score=0.5)
        write_results(
            tmp_path, "coco-instance", [Segments([segment], (150, 150), vocabulary, picture="a.png")], vocabulary
        )
        assert (tmp_path / "annotations.json").exists()
        average, _, _, small, medium, large = self.evaluate(tmp_path)[:6]
        assert (average, small, medium, large) == pytest.approx((1, 1, -1, -1))
        detected = COCO(tmp_path / "annotations.json").loadRes(str(tmp_path / "results.json"))
        assert [annotation["area"] for annotation in detected.anns.values()] == [299]

    def test_false_alarms_count_in_the_range_of_their_mask(self, tmp_path, capsys):
        # A thin stroke that is wrong must not count among large objects, where it would spoil the large disc's AP.
        vocabulary = Vocabulary.from_list(["thing"])
        rows, columns = np.mgrid[:200, :200]
        disc = (rows - 60) ** 2 + (columns - 60) ** 2 < 58**2
        stroke = np.eye(200, dtype=bool) & (rows > 102)
        found = [(disc, 0.25), (stroke, 0.5)]
        segments = [Segment.of_class(vocabulary, 0, mask, score=score) for mask, score in found]
        write_results(
            tmp_path, "coco-instance", [Segments(segments, (200, 200), vocabulary, picture="a.png")], vocabulary
        )
        path = tmp_path / "annotations.json"
        content = json.loads(path.read_text())
        content["annotations"] = content["annotations"][:1]  # the truth is the disc alone
        path.write_text(json.dumps(content))
        average, _, _, _, _, large = self.evaluate(tmp_path)[:6]
        assert average == pytest.approx(0.5)
        assert large == pytest.approx(1)

    def test_objects_of_the_first_annotation_are_matched(self, tmp_path, vocabulary, capsys):
        segments = [
            Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=0.5),
            Segment.of_class(vocabulary, 1, box((8, 10), 4, 6, 4, 6), score=0.5),
        ]
        write_results(tmp_path, "coco-instance", [Segments(segments, (8, 10), vocabulary, picture="a.png")], vocabulary)
        assert self.evaluate(tmp_path)[0] == pytest.approx(1)

    def test_they_are_not_written_without_scores_and_earlier_ones_go(self, tmp_path, vocabulary):
        scored = Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=0.5)
        plain = Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2))
        for segment, is_there in ((scored, True), (plain, False)):
            write_results(
                tmp_path, "coco-instance", [Segments([segment], (8, 10), vocabulary, picture="a.png")], vocabulary
            )
            assert (tmp_path / "results.json").exists() is is_there

    def test_they_alone_cannot_be_read(self, tmp_path, results, vocabulary):
        write_results(tmp_path, "coco-instance", results, vocabulary)
        with pytest.raises(ExchangeError, match=r"results\.json is a list"):
            read_results(tmp_path / "results.json", "coco-instance")

    def test_boxes_in_results_would_be_taken_for_their_areas(self, tmp_path, capsys):
        vocabulary = Vocabulary.from_list(["stroke"])
        segment = Segment.of_class(vocabulary, 0, np.eye(150, dtype=bool), score=0.5)
        write_results(
            tmp_path, "coco-instance", [Segments([segment], (150, 150), vocabulary, picture="a.png")], vocabulary
        )
        content = json.loads((tmp_path / "annotations.json").read_text())
        with_boxes = COCO(tmp_path / "annotations.json").loadRes(content["annotations"])
        assert [annotation["area"] for annotation in with_boxes.anns.values()] == [150 * 150]

    def test_an_annotation_of_number_0_would_not_be_found(self, tmp_path, vocabulary, capsys):
        segments = [
            Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=0.5),
            Segment.of_class(vocabulary, 1, box((8, 10), 4, 6, 4, 6), score=0.5),
        ]
        write_results(tmp_path, "coco-instance", [Segments(segments, (8, 10), vocabulary, picture="a.png")], vocabulary)
        path = tmp_path / "annotations.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["id"] -= 1
        path.write_text(json.dumps(content))
        assert self.evaluate(tmp_path)[0] < 0.6


@pytest.mark.parametrize("score", [1.5, -0.25])
def test_scores_that_could_not_be_read_back_are_not_written(tmp_path, vocabulary, score):
    segment = Segment.of_class(vocabulary, 1, box((8, 10), 0, 2, 0, 2), score=score)
    picture = Segments([segment], (8, 10), vocabulary, picture="a.png")
    with pytest.raises(ExchangeError, match=r"a\.png, segment 0 \(dog & <cat>\): the score .* between 0 and 1"):
        write_results(tmp_path, "coco-instance", [picture], vocabulary)
    assert list(tmp_path.iterdir()) == []


def test_more_masks_than_memory_are_refused_before_they_are_made(tmp_path):
    path = coco_file(tmp_path, *({"segmentation": POLYGONS[0]} for _ in range(102)))
    content = json.loads(path.read_text())
    content["images"][0] |= {"height": 13_000, "width": 13_000}  # which a file can claim in a few bytes
    path.write_text(json.dumps(content))
    with pytest.raises(ExchangeError, match=r"picture 'a\.png': 102 masks of 13000×13000 pixels do not fit"):
        list(read_results(path, "coco-instance").results)


@pytest.mark.parametrize("segmentation", [3, "abc", True])
def test_segmentations_that_are_no_masks_are_named(tmp_path, segmentation):
    path = coco_file(tmp_path, {"segmentation": segmentation})
    with pytest.raises(ExchangeError, match=r"annotation 1: .* must be a run-length encoding or polygons, got"):
        list(read_results(path, "coco-instance").results)
