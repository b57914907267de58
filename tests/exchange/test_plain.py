"""Segments as plain JSON and PNGs."""

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.exchange.plain import describe, id_map, in_order, mask_picture, segment_records
from hf_maskadapter.model.class_colors import class_color
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_list(["cat", "sofa", "wall"])


def box_mask(left, top, right, bottom):
    mask = np.zeros((4, 6), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def result(task, *found):
    segments = [Segment.of_class(VOCABULARY, class_id, mask, score=score) for class_id, mask, score in found]
    return Segments(segments, (4, 6), VOCABULARY, task, "a.png")


LEFT, RIGHT = box_mask(0, 0, 2, 4), box_mask(4, 1, 6, 3)


def test_ids_of_semantic_segments_are_places_in_the_vocabulary_and_others_are_counted():
    assert [record["id"] for record in segment_records(result("semantic", (0, LEFT, None), (2, RIGHT, None)))] == [1, 3]
    assert [record["id"] for record in segment_records(result("panoptic", (2, LEFT, 0.5), (2, RIGHT, 0.9)))] == [1, 2]


def test_instances_are_told_with_the_best_one_first():
    segments = result("instance", (0, LEFT, 0.25), (1, RIGHT, 0.75))
    assert [segment.label for segment in in_order(segments)] == ["sofa", "cat"]
    assert segment_records(segments)[0] == {
        "id": 1,
        "label": "sofa",
        "label_id": 1,
        "score": 0.75,
        "area": 4,
        "box": [4, 1, 2, 2],
    }


def test_a_result_is_described_with_its_labels_and_its_size():
    described = describe(result("panoptic", (0, LEFT, 0.5)), "miniature")
    assert {key: described[key] for key in described if key != "segments"} == {
        "picture": "a.png",
        "width": 6,
        "height": 4,
        "task": "panoptic",
        "model": "miniature",
        "labels": ["cat", "sofa", "wall"],
    }
    assert describe(result("panoptic"), "m", "other.png")["picture"] == "other.png"


@pytest.mark.parametrize("number_of_classes", [3, 300])
def test_the_map_of_ids_holds_the_ids_of_the_records(number_of_classes):
    vocabulary = Vocabulary.from_list([f"class {number}" for number in range(number_of_classes)])
    last = Segment.of_class(vocabulary, number_of_classes - 1, RIGHT)
    segments = Segments([last], (4, 6), vocabulary, "semantic")
    image = id_map(segments)
    assert image.mode == ("P" if number_of_classes == 3 else "I;16")
    assert np.array_equal(np.asarray(image), np.where(RIGHT, number_of_classes, 0))


def test_the_map_of_ids_shows_the_classes_colors():
    segments = result("semantic", (0, LEFT, None))
    assert id_map(segments).convert("RGB").getpixel((0, 0)) == class_color("cat")


def test_a_mask_is_white_inside():
    (segment,) = result("semantic", (0, LEFT, None))
    assert np.array_equal(np.asarray(mask_picture(segment)), np.where(LEFT, 255, 0))
    assert isinstance(mask_picture(segment), Image.Image)
