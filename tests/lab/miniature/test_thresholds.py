"""Choosing the miniature's thresholds of panoptic results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from hf_maskadapter.data.scenes import CLASS_NAMES, STUFF
from hf_maskadapter.evaluation.functional.panoptic_quality import PanopticCounts, match_panoptic
from hf_maskadapter.miniature import checkpoint_path
from hf_maskadapter.model.segments import Segments
from lab.miniature import thresholds
from lab.miniature.measuring import evaluation_scenes

RESULT = Path(__file__).parents[3] / "model_cards" / "results" / "thresholds.md"


@pytest.fixture(scope="module")
def scene():
    return next(iter(evaluation_scenes("validation", 1)))


def test_the_embedded_model_has_the_thresholds_that_were_chosen():
    chosen = re.search(r"Chosen: ([\d.]+) and ([\d.]+)\.$", RESULT.read_text(encoding="utf-8").strip())
    config = json.loads((checkpoint_path() / "config.json").read_text())
    assert (config["object_threshold"], config["overlap_threshold"]) == (float(chosen[1]), float(chosen[2]))


def test_vocabularies_hold_all_classes_what_is_shown_and_half_of_the_things(scene):
    every, shown, half = thresholds.vocabularies_of(scene)
    things = list(dict.fromkeys(thing.name for thing in scene.things))
    assert every.names == tuple(CLASS_NAMES)
    assert set(shown.names) == {*things, *STUFF}
    assert half.names == (*things[::2], *dict.fromkeys(scene.stuff))
    assert [half.names[index] for index in half.stuff_ids] == list(dict.fromkeys(scene.stuff))


def test_a_segment_on_a_thing_that_is_not_named_is_wrong(scene):
    *_, half = thresholds.vocabularies_of(scene)
    unnamed = next(info for info in scene.segments_info if CLASS_NAMES[info["category_id"]] not in half.names)
    label_map = np.where(scene.panoptic_map == unnamed["id"], 0, 255)
    segments = Segments.from_label_map(label_map, half)
    counts = match_panoptic(thresholds.prediction_of(segments), thresholds.reference_of(scene, half))
    assert counts[CLASS_NAMES.index(half.names[0])].false_positives == 1
    assert counts[thresholds.UNNAMED].false_negatives > 0


def test_quality_is_that_of_things_and_of_stuff_together():
    counts = PanopticCounts()
    for category, iou, positives, wrong in ((0, 0.75, 1, 1), (7, 0.625, 1, 2), (len(CLASS_NAMES) - 1, 1.0, 1, 0)):
        counts[category].iou_units = int(iou * 2**53)
        counts[category].true_positives, counts[category].false_positives = positives, wrong
    counts[thresholds.UNNAMED].false_negatives = 9
    assert thresholds.quality(counts) == (pytest.approx(100 * 1.375 / (2 + 3 / 2)), 100.0)


def test_measured_values_are_those_of_the_pipelines_results(scene):
    measured = thresholds.measure(1, [0.0], [0.5, 0.9], scenes=[scene])
    segmenter = pipeline("zero-shot-image-segmentation", model=str(checkpoint_path()), device="cpu")
    for of_vocabulary, vocabulary in zip(measured.values, thresholds.vocabularies_of(scene), strict=True):
        for (threshold, overlap), value in of_vocabulary.items():
            segments = segmenter(
                Image.fromarray(scene.picture),
                vocabulary,
                subtask="panoptic",
                threshold=threshold,
                overlap_mask_area_threshold=overlap,
                return_segments=True,
            )
            prediction, reference = thresholds.prediction_of(segments), thresholds.reference_of(scene, vocabulary)
            assert value == thresholds.quality(match_panoptic(prediction, reference))
    assert measured.scenes == 1


def test_the_best_pair_is_marked_in_the_report():
    values = {(0.0, 0.5): (50.0, 60.0), (0.0, 0.6): (52.0, 60.0), (0.3, 0.5): (10.0, 20.0), (0.3, 0.6): (52.0, 60.0)}
    measured = thresholds.Measured(5, [values] * 3)
    assert measured.best() == (0.0, 0.6)
    text = thresholds.report(measured, (0.0, 0.5))
    assert "| 0 | 55.0 | **56.0** |" in text
    assert "| all classes | 50.0 | 60.0 | 52.0 | 60.0 |" in text
    assert text.endswith("Chosen: 0 and 0.6.\n")
