"""A result as the page shows it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.app.segmenting import Comparison, Explanation, SegmentedPicture
from hf_maskadapter.app.viewing import comparison_pictures, shown_picture, shown_segments, shown_size, viewer_value
from hf_maskadapter.model.class_colors import class_color
from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_list(["cat", "sofa", "wall"])


def result(size, *found, task="instance"):
    segments = [Segment.of_class(VOCABULARY, class_id, mask, score=score) for class_id, mask, score in found]
    ordered = sorted(segments, key=lambda segment: -segment.score)
    explanations = [Explanation(s.label, s.score, True, s.mask.mean(), (), 0.0, np.ones((2, 2))) for s in ordered]
    return SegmentedPicture(Segments(segments, size, VOCABULARY, task), tuple(explanations), "adapter")


def decoded(address):
    head, _, content = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((800, 600), (800, 600)), ((4000, 3000), (1024, 768)), ((96, 192), (384, 768)), ((9000, 2), (1024, 1))],
)
def test_large_pictures_are_shown_smaller_and_tiny_ones_larger(size, shown):
    assert shown_size(*size) == shown
    assert shown_picture(Image.new("RGB", size)).size == shown


def test_the_viewer_gets_the_place_of_each_pixels_uppermost_segment():
    below, above = np.zeros((600, 800), bool), np.zeros((600, 800), bool)
    below[100:400, 100:500] = True
    above[200:300, 200:900] = True
    shown = viewer_value(Image.new("RGB", (800, 600)), result((600, 800), (0, below, 0.25), (1, above, 0.75)))
    places = np.repeat(shown["runs"][::2], shown["runs"][1::2]).reshape(shown["height"], shown["width"])
    expected = np.where(above, 1, np.where(below, 2, 0))  # the best one is told first
    assert np.array_equal(places, expected)
    assert [(entry["label"], entry["score"]) for entry in shown["segments"]] == [("sofa", 0.75), ("cat", 0.25)]
    assert shown["segments"][0]["share"] == 600 * 100 / (600 * 800)
    assert shown["segments"][0]["color"] == "#{:02x}{:02x}{:02x}".format(*class_color("sofa"))
    assert decoded(shown["plain"]).size == decoded(shown["painted"]).size == (800, 600)
    assert decoded(shown["plain"]).tobytes() != decoded(shown["painted"]).tobytes()
    assert shown["alt"] == "The picture with its segments painted over it: sofa, cat."


def test_a_picture_without_segments_is_shown_as_such():
    shown = viewer_value(Image.new("RGB", (800, 600)), result((600, 800)))
    assert shown["segments"] == []
    assert shown["runs"] == [0, 800 * 600]


def test_a_segment_too_small_to_be_shown_keeps_its_place_in_the_list():
    point, rest = np.zeros((2048, 2048), bool), np.ones((2048, 2048), bool)
    point[1, 1] = True  # between the pixels that are shown
    of_picture = result((2048, 2048), (0, point, 0.9), (1, rest, 0.5))
    shown = viewer_value(Image.new("RGB", (1024, 1024)), of_picture)
    assert [entry["label"] for entry in shown["segments"]] == ["cat", "sofa"]
    assert 2 in shown["runs"][::2]
    assert shown_segments(of_picture.segments).size == (1024, 1024)


def test_the_comparison_shows_both_and_where_they_differ():
    left = np.zeros((600, 800), bool)
    left[:, :400] = True
    pooling, adapter = (
        Segments([Segment.of_class(VOCABULARY, class_id, left)], (600, 800), VOCABULARY) for class_id in (0, 1)
    )
    pictures = comparison_pictures(Image.new("RGB", (800, 600), "gray"), Comparison(pooling, adapter, left, ()))
    differs = np.asarray(pictures["Bright: where they differ"].convert("L"))
    assert differs[:, :400].min() > differs[:, 400:].max()
    assert {picture.size for picture in pictures.values()} == {(800, 600)}
