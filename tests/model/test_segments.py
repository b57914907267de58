"""The result of a picture: its segments, their maps, and the forms that they turn into."""

import base64
import io
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from hf_maskadapter.model.class_colors import class_color
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_list(["sky", "cat", "dog <&>"], things=[False, True, True])


def box(*sides: int, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    top, bottom, left, right = sides
    mask[top:bottom, left:right] = True
    return mask


def segment(class_id: int, *sides: int, **fields) -> Segment:
    return Segment.of_class(VOCABULARY, class_id, box(*sides), **fields)


@pytest.fixture
def overlapping() -> Segments:
    """The sky with a cat over its left half and a dog over some of the cat."""
    found = [
        segment(0, 0, 3, 0, 8, score=0.5),
        segment(1, 1, 5, 0, 4, score=0.9),
        segment(2, 2, 4, 2, 6, score=0.25, is_crowd=True),
    ]
    return Segments(found, (6, 8), VOCABULARY, "instance", "a.png")


def test_area_and_box_of_a_segment():
    one = segment(0, 1, 3, 2, 7)
    assert one.area == 10
    assert one.box == (2, 1, 5, 2)
    assert Segment(0, "sky", np.zeros((4, 4), dtype=bool)).box == (0, 0, 0, 0)


def test_label_and_kind_of_a_segment_are_the_vocabularys():
    assert (segment(0, 0, 1, 0, 1).label, segment(0, 0, 1, 0, 1).is_thing) == ("sky", False)
    assert segment(1, 0, 1, 0, 1).is_thing is True
    with pytest.raises(ValueError, match="no class 3"):
        segment(3, 0, 1, 0, 1)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1], [1, 0]], dtype=np.uint8),
        np.array([[0, 255], [255, 0]], dtype=np.uint8),
        np.array([[0.5, 0.51], [1.0, 0.0]]),
        torch.tensor([[0.1, 0.9], [0.8, 0.2]], dtype=torch.bfloat16),
        Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)),
    ],
)
def test_masks_of_every_kind_mean_the_same(values):
    assert Segment(0, "sky", values).mask.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("mask", [np.zeros((2, 3, 4), dtype=bool), np.array([[3.0, -1.0]]), np.array([[0, 128, 255]])])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match=r"mask|Mask"):
        Segment(0, "sky", mask)


def test_smaller_segment_lies_on_top_in_maps():
    small, large = segment(2, 2, 3, 2, 3), segment(1, 0, 4, 0, 8)
    result = Segments([small, large], (6, 8), VOCABULARY).smaller_on_top()
    assert list(result) == [large, small]
    assert result.segment_map()[2, 2] == 2
    assert result.segment_map()[0, 0] == 1
    assert result.label_map()[2, 2] == 2
    assert result.label_map()[5, 5] == 255
    assert result.label_map(ignore_index=-1)[5, 5] == -1


def test_later_segments_lie_on_top(overlapping):
    expected = np.zeros((6, 8), dtype=int)
    for number, (top, bottom, left, right) in enumerate([(0, 3, 0, 8), (1, 5, 0, 4), (2, 4, 2, 6)], start=1):
        expected[top:bottom, left:right] = number
    assert (overlapping.segment_map() == expected).all()
    assert (overlapping.label_map() == np.where(expected == 0, 255, expected - 1)).all()
    hidden = Segments([segment(1, 0, 1, 0, 1), segment(0, 0, 6, 0, 8)], (6, 8), VOCABULARY).panoptic_map()
    assert (hidden["segmentation"] == 2).all()
    assert [info["id"] for info in hidden["segments_info"]] == [2]


def test_panoptic_map_is_read_back(overlapping):
    panoptic = overlapping.panoptic_map()
    assert panoptic["segments_info"][1:] == [
        {"id": 2, "label_id": 1, "score": 0.9, "iscrowd": 0},
        {"id": 3, "label_id": 2, "score": 0.25, "iscrowd": 1},
    ]
    read = Segments.from_segmentation(**panoptic, vocabulary=VOCABULARY)
    assert [(one.label, one.score, one.is_crowd) for one in read] == [
        ("sky", 0.5, False), ("cat", 0.9, False), ("dog <&>", 0.25, True),
    ]  # fmt: skip
    assert (read.segment_map() == overlapping.segment_map()).all()


def test_ignored_value_that_is_a_class_is_refused(overlapping):
    with pytest.raises(ValueError, match="another ignore_index"):
        overlapping.label_map(ignore_index=2)


def test_label_map_is_read_back(overlapping):
    label_map = overlapping.label_map(ignore_index=9)
    read = Segments.from_label_map(torch.from_numpy(label_map), VOCABULARY, ignore_index=9)
    assert read.labels == ["sky", "cat", "dog <&>"]
    assert (read.label_map(9) == label_map).all()
    with pytest.raises(ValueError, match="no class 9"):
        Segments.from_label_map(label_map, VOCABULARY)


def test_results_of_the_pipeline_and_of_post_processing_give_the_same():
    vocabulary = Vocabulary.from_list(["sky", "cat"])
    mask = box(0, 2, 0, 8)
    piped = [
        {"label": "cat", "score": 0.5, "mask": Image.fromarray(mask.astype(np.uint8) * 255)},
        {"label": "sky", "score": 0.9, "mask": Image.new("L", (8, 6))},
    ]
    first = Segments.from_pipeline(piped, (6, 8), vocabulary)
    ids = torch.from_numpy(np.where(mask, 7, -1))
    info = [{"id": 7, "label_id": 1, "score": 0.5}, {"id": 8, "label_id": 0, "score": 0.9}]
    second = Segments.from_segmentation(ids, info, vocabulary)
    for result in (first, second):
        (one,) = result  # the empty one is left out
        assert (result.height, result.width, one.class_id, one.label, one.score) == (6, 8, 1, "cat", 0.5)
        assert (one.mask == mask).all()


def test_label_that_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"'zebra'.*sky, cat"):
        Segments.from_pipeline([{"label": "zebra", "mask": box(0, 1, 0, 1)}], (6, 8), VOCABULARY)


def test_pipelines_form_is_read_back(overlapping):
    piped = overlapping.to_pipeline()
    assert [(entry["label"], entry["score"]) for entry in piped] == [("sky", 0.5), ("cat", 0.9), ("dog <&>", 0.25)]
    assert all(entry["mask"].mode == "L" and entry["mask"].size == (8, 6) for entry in piped)
    read = Segments.from_pipeline(piped, (6, 8), VOCABULARY)
    assert sorted(one.mask.tobytes() for one in read) == sorted(one.mask.tobytes() for one in overlapping)


@pytest.mark.parametrize(
    ("mask", "part"), [(np.ones((3, 3), dtype=bool), "shape"), (np.zeros((6, 8), dtype=bool), "empty")]
)
def test_unusable_masks_are_refused(mask, part):
    with pytest.raises(ValueError, match=part) as error:
        Segments([segment(1, 0, 1, 0, 1), Segment(0, "sky", mask)], (6, 8), VOCABULARY, picture="a.png")
    assert str(error.value).startswith("a.png, segment 1 (sky)")


def test_label_of_another_class_is_refused():
    with pytest.raises(ValueError, match="class 0 of the vocabulary is not called 'cat'"):
        Segments([Segment(0, "cat", box(0, 1, 0, 1))], (6, 8), VOCABULARY)


def test_it_is_a_sequence(overlapping):
    assert len(overlapping) == 3
    assert overlapping[-1].label == "dog <&>"
    assert overlapping[0] in overlapping
    assert overlapping[1:].labels == ["cat", "dog <&>"]
    assert (overlapping[1:].task, overlapping[1:].picture, overlapping[1:].size) == ("instance", "a.png", (6, 8))


def test_arrays_of_all_segments(overlapping):
    encoded = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in overlapping.masks]
    assert overlapping.masks.shape == (3, 6, 8)
    assert overlapping.areas.tolist() == coco_mask.area(encoded).tolist() == [24, 16, 8]
    assert overlapping.boxes("xywh").tolist() == [coco_mask.toBbox(one).tolist() for one in encoded]
    assert overlapping.boxes().tolist() == [[0, 0, 8, 3], [0, 1, 4, 5], [2, 2, 6, 4]]
    assert overlapping.class_ids.tolist() == [0, 1, 2]
    assert overlapping.scores.tolist() == [0.5, 0.9, 0.25]
    with pytest.raises(ValueError, match="xyxy"):
        overlapping.boxes("cxcywh")


def test_nothing_found_is_a_result_too():
    nothing = Segments([], (6, 8), VOCABULARY)
    assert (nothing.masks.shape, nothing.boxes().shape, nothing.areas.shape) == ((0, 6, 8), (0, 4), (0,))
    assert (nothing.label_map() == 255).all()
    assert repr(nothing) == "Segments(6x8: nothing found)"
    assert nothing.to_pipeline() == []
    assert len(nothing.to_pandas()) == 0
    assert "<img" in nothing._repr_html_()


def test_segments_are_chosen_by_label_score_and_area(overlapping):
    assert overlapping.filter("cat").labels == ["cat"]
    assert overlapping.filter(["dog <&>", "sky"]).labels == ["sky", "dog <&>"]
    assert overlapping.filter(min_score=0.5).labels == ["sky", "cat"]
    assert overlapping.filter(min_area=16).labels == ["sky", "cat"]
    with pytest.raises(ValueError, match="zebra"):
        overlapping.filter("zebra")
    with pytest.raises(ValueError, match="no score"):
        Segments([segment(0, 0, 1, 0, 1)], (6, 8), VOCABULARY).filter(min_score=0.1)


def test_best_come_first(overlapping):
    unscored = Segments([segment(0, 0, 1, 0, 1), *overlapping], (6, 8), VOCABULARY)
    assert [one.score for one in unscored.best_first()] == [0.9, 0.5, 0.25, None]


def test_reprs_are_one_readable_line(overlapping):
    assert repr(overlapping) == "Segments(instance a.png, 6x8: sky, cat, dog <&>)"
    two = Segments([segment(1, 0, 1, 0, 1), segment(1, 2, 3, 0, 1)], (6, 8), VOCABULARY)
    assert repr(two) == "Segments(6x8: cat (2))"
    assert repr(overlapping[2]) == "Segment(dog <&> 0.25, 8 pixels in 4x2 at (2, 2), crowd)"


def test_table_has_a_row_for_each_segment(overlapping):
    table = overlapping.to_pandas()
    assert table.columns.tolist() == [
        "class_id", "label", "score", "area", "left", "top", "width", "height", "is_crowd", "is_thing",
    ]  # fmt: skip
    assert table.iloc[2].tolist() == [2, "dog <&>", 0.25, 8, 2, 2, 4, 2, True, True]
    assert table["is_thing"].tolist() == [False, True, True]


def test_supervision_reads_boxes_masks_and_classes(overlapping):
    supervision = pytest.importorskip("supervision")
    detections = overlapping.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert (detections.mask == overlapping.masks).all()
    assert detections.area.tolist() == [24, 16, 8]
    assert detections.box_area.tolist() == [24, 16, 8]  # these masks are boxes
    assert detections.confidence.tolist() == pytest.approx([0.5, 0.9, 0.25])
    assert detections["class_name"].tolist() == ["sky", "cat", "dog <&>"]
    assert detections["iscrowd"].tolist() == [0, 0, 1]
    assert len(Segments([], (6, 8), VOCABULARY).to_supervision()) == 0
    unscored = Segments([segment(0, 0, 1, 0, 1)], (6, 8), VOCABULARY).to_supervision()
    assert unscored.confidence is None


@pytest.mark.parametrize("library", ["supervision", "pandas"])
def test_missing_libraries_are_named(overlapping, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"pip install {library}"):
        getattr(overlapping, f"to_{library}")()


class Shown(HTMLParser):
    """The pictures and the texts of table cells."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures: list[Image.Image] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            data = dict(attributes)["src"].removeprefix("data:image/png;base64,")
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        else:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_notebook_shows_colors_and_a_table(overlapping):
    shown = Shown(overlapping._repr_html_())
    assert not shown.open
    (picture,) = shown.pictures
    colors = [(255, 255, 255), *map(class_color, VOCABULARY.names)]
    expected = np.array(colors, dtype=np.uint8)[overlapping.segment_map()]
    assert (np.asarray(picture) == expected).all()
    cells = [[cell.replace("■", "").strip() for cell in row] for row in shown.rows]
    assert cells == [
        ["label", "score", "pixels"], ["sky", "0.50", "24"], ["cat", "0.90", "16"], ["dog <&>", "0.25", "8"],
    ]  # fmt: skip


def test_notebook_shows_large_pictures_small_and_many_segments_shortened():
    mask = np.zeros((2000, 1000), dtype=bool)
    mask[:, :500] = True
    many = Segments([Segment.of_class(VOCABULARY, 1, mask)] * 60, mask.shape, VOCABULARY)
    shown = Shown(many._repr_html_())
    assert shown.pictures[0].size == (240, 480)
    assert len(shown.rows) == 1 + 50 + 1
    assert shown.rows[-1][0] == "and 10 more"


def test_colors_are_those_of_every_picture(overlapping):
    from hf_maskadapter.visualization import class_color as of_overlays

    assert of_overlays is class_color
    assert overlapping.color_map().getpixel((3, 3)) == class_color("dog <&>")


def test_neither_pandas_nor_transformers_is_imported_for_it():
    code = (
        "import sys, hf_maskadapter.model.segments; "
        "print([name for name in ('pandas', 'transformers', 'supervision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_whose_ids_collide_and_scores_that_are_no_numbers_are_refused():
    vocabulary = Vocabulary.from_list(["sky", "person", "cat"])
    values = np.array([[1, 1, 2]])
    sky, person, cat = ({"id": number, "label_id": label} for number, label in ((1, 0), (2, 1), (2, 2)))
    assert len(Segments.from_segmentation(values, [sky, person, sky], vocabulary)) == 2
    with pytest.raises(ValueError, match="segment 2 twice"):
        Segments.from_segmentation(values, [sky, person, sky, cat], vocabulary)
    with pytest.raises(ValueError, match="score of a segment must be a finite number, got nan"):
        Segment(0, "sky", values == 1, score=float("nan"))
