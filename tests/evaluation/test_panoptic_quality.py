"""PanopticQuality against a plain oracle and torchmetrics, and its errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.metric_samples import random_panoptic

evaluate = pytest.importorskip("evaluate")
torch = pytest.importorskip("torch")

from hf_maskadapter.evaluation import PanopticQuality, metric_path  # noqa: E402
from hf_maskadapter.evaluation.functional import match_panoptic, merge_panoptic, panoptic_quality  # noqa: E402
from hf_maskadapter.model.segments import Segments  # noqa: E402
from hf_maskadapter.model.vocabulary import Vocabulary  # noqa: E402

CATEGORIES = {3: True, 5: True, 8: False, 13: False}
seeds = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4)


def oracle(predictions, references, categories):
    """Segment by segment as sets of pixels, from the definition with panopticapi's rules for void and crowd."""
    iou_sum, tp, fp, fn = ({category: 0 for category in categories} for _ in range(4))
    for prediction, reference in zip(predictions, references, strict=True):
        void = reference["segmentation"] == 0
        annotated = [(info, reference["segmentation"] == info["id"]) for info in reference["segments_info"]]
        predicted = [(info, prediction["segmentation"] == info["id"]) for info in prediction["segments_info"]]
        matched: set[tuple[str, int]] = set()
        for info, mask in annotated:
            for other, guess in predicted:
                if info.get("iscrowd") or info["category_id"] != other["category_id"]:
                    continue
                iou = (mask & guess).sum() / (mask | guess & ~void).sum()
                if iou > 0.5:
                    iou_sum[info["category_id"]] += iou
                    tp[info["category_id"]] += 1
                    matched |= {("annotated", info["id"]), ("predicted", other["id"])}
        crowd = {info["category_id"]: mask for info, mask in annotated if info.get("iscrowd")}
        for info, _ in annotated:
            if ("annotated", info["id"]) not in matched and not info.get("iscrowd"):
                fn[info["category_id"]] += 1
        for other, guess in predicted:
            excused = void | crowd.get(other["category_id"], np.zeros_like(void))
            if ("predicted", other["id"]) not in matched and (guess & excused).sum() / guess.sum() <= 0.5:
                fp[other["category_id"]] += 1

    def mean(values):
        values = [value for value in values if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan

    rows = {}
    for category in categories:
        denominator = tp[category] + fp[category] / 2 + fn[category] / 2
        if not denominator:
            rows[category] = (math.nan, math.nan, math.nan)
            continue
        sq = iou_sum[category] / tp[category] if tp[category] else 0.0
        rows[category] = (iou_sum[category] / denominator, sq, tp[category] / denominator)
    result = {}
    for place, name in enumerate(("pq", "sq", "rq")):
        result[name] = mean([row[place] for row in rows.values()])
        result[f"{name}_things"] = mean([row[place] for category, row in rows.items() if categories[category]])
        result[f"{name}_stuff"] = mean([row[place] for category, row in rows.items() if not categories[category]])
        result[f"per_category_{name}"] = [row[place] for row in rows.values()]
    return result


def assert_same(result, expected, **tolerance):
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(result[key], value, err_msg=key, **tolerance)


@settings(max_examples=1000)
@given(seeds)
def test_equals_the_plain_oracle_with_void_and_crowd(seeds):
    predictions, references = zip(*(random_panoptic(seed, CATEGORIES) for seed in seeds), strict=True)
    counts = merge_panoptic(map(match_panoptic, predictions, references))
    assert_same(panoptic_quality(counts, CATEGORIES), oracle(predictions, references, CATEGORIES), rtol=1e-12)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_equals_torchmetrics_where_it_applies(seed):
    """Without crowds, which torchmetrics does not know, and with every pixel predicted: its void rule is another."""
    detection = pytest.importorskip("torchmetrics.detection")
    prediction, reference = random_panoptic(seed, CATEGORIES, crowd=False, predicted_void=False)

    def colors(picture):
        category_of = {info["id"]: info["category_id"] for info in picture["segments_info"]}
        ids = picture["segmentation"]
        category = np.vectorize(lambda segment: category_of.get(segment, 0), otypes=[int])(ids)
        return torch.from_numpy(np.stack([category, ids], -1))[None]

    theirs = detection.PanopticQuality(
        things={c for c, is_thing in CATEGORIES.items() if is_thing},
        stuffs={c for c, is_thing in CATEGORIES.items() if not is_thing},
        allow_unknown_preds_category=True,
        return_sq_and_rq=True,
    )
    expected = theirs(colors(prediction), colors(reference)).tolist()
    result = panoptic_quality(match_panoptic(prediction, reference), CATEGORIES)
    np.testing.assert_allclose([result["pq"], result["sq"], result["rq"]], expected, rtol=1e-6)


def _picture(segmentation, categories, crowd=()):
    segments = [
        {"id": segment_id, "category_id": category, "iscrowd": int(segment_id in crowd)}
        for segment_id, category in categories.items()
    ]
    return {"segmentation": np.array(segmentation), "segments_info": segments}


def _counts(prediction, reference):
    return {
        category: (matches.true_positives, matches.false_positives, matches.false_negatives)
        for category, matches in match_panoptic(prediction, reference).categories.items()
    }


def test_iou_of_exactly_one_half_is_no_match():
    assert _counts(_picture([[1, 1]], {1: 3}), _picture([[1, 2]], {1: 3, 2: 5})) == {3: (0, 1, 1), 5: (0, 0, 1)}


def test_void_pixels_do_not_count_in_the_union():
    prediction, reference = _picture([[1, 1, 1, 1]], {1: 3}), _picture([[1, 0, 0, 0]], {1: 3})
    assert match_panoptic(prediction, reference)[3].segmentation_quality == 1.0


def test_a_prediction_mostly_in_void_is_left_out():
    reference = _picture([[0, 0, 0, 1, 1]], {1: 8})
    assert _counts(_picture([[1, 1, 1, 1, 0]], {1: 3}), reference) == {8: (0, 0, 1)}
    assert _counts(_picture([[0, 1, 1, 1, 1]], {1: 3}), reference) == {3: (0, 1, 0), 8: (0, 0, 1)}


def test_a_crowd_excuses_predictions_of_its_category_only_and_is_never_missed():
    reference = _picture([[1, 1, 1, 1]], {1: 3}, crowd={1})
    assert _counts(_picture([[1, 2, 2, 0]], {1: 3, 2: 5}), reference) == {5: (0, 1, 0)}


def test_of_several_crowds_of_a_category_the_last_excuses_as_in_panopticapi():
    reference = _picture([[1, 1, 2, 2]], {1: 3, 2: 3}, crowd={1, 2})
    assert _counts(_picture([[1, 1, 2, 2]], {1: 3, 2: 3}), reference) == {3: (0, 1, 0)}


def test_accepts_coco_colors_pictures_tensors_and_label_ids():
    from PIL import Image

    prediction, reference = random_panoptic(5, CATEGORIES)
    expected = match_panoptic(prediction, reference)
    ids = reference["segmentation"]
    colors = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
    ids = prediction["segmentation"]
    infos = [{"id": info["id"], "label_id": info["category_id"]} for info in prediction["segments_info"]]
    for segmentation in (torch.from_numpy(ids), torch.from_numpy(np.where(ids == 0, -1, ids))):
        for annotated in (colors, Image.fromarray(colors), torch.from_numpy(colors)):
            found = match_panoptic(
                {"segmentation": segmentation, "segments_info": infos}, reference | {"segmentation": annotated}
            )
            assert found == expected


def test_segments_count_as_their_map():
    vocabulary = Vocabulary.from_list(["dog", "cat"])
    ids = np.array([[1, 1, 2], [1, 1, 2], [0, 2, 2]])
    infos = [{"id": 1, "label_id": 0}, {"id": 2, "label_id": 1}]
    reference = {"segmentation": np.array([[1, 1, 1], [1, 1, 2], [1, 2, 2]]), "segments_info": infos}
    segments = Segments.from_segmentation(ids, infos, vocabulary)
    found = match_panoptic(segments, reference)
    assert found.state_dict() == match_panoptic({"segmentation": ids, "segments_info": infos}, reference).state_dict()
    assert found[0].segmentation_quality == 4 / 6
    assert found[1].segmentation_quality == 3 / 4


def test_an_id_beyond_one_byte_is_read_from_coco_colors():
    colors = np.array([[[1, 2, 3]]], np.uint8)
    info = [{"id": 1 + 2 * 256 + 3 * 65536, "category_id": 3}]
    picture = {"segmentation": colors, "segments_info": info}
    assert _counts(picture, picture) == {3: (1, 0, 0)}


def test_a_prediction_in_which_nothing_was_found_counts_misses_only():
    reference = _picture([[1, 2, 2, 0]], {1: 3, 2: 8})
    for nothing in (torch.full((1, 4), -1.0), np.full((1, 4), -1.0), np.full((1, 4), -1)):
        assert _counts({"segmentation": nothing, "segments_info": []}, reference) == {3: (0, 0, 1), 8: (0, 0, 1)}


def test_predicted_segments_may_be_numbered_from_zero_and_come_as_floats():
    reference = _picture([[1, 2, 2, 0]], {1: 3, 2: 8})
    infos = [{"id": 0, "label_id": 3}, {"id": 1, "label_id": 8}]
    for kind in (np.int64, np.float32):
        prediction = {"segmentation": np.array([[0, 1, 1, -1]], dtype=kind), "segments_info": infos}
        assert _counts(prediction, reference) == {3: (1, 0, 0), 8: (1, 0, 0)}


def test_a_fused_entry_may_be_listed_again_but_not_as_another_class():
    reference = _picture([[1, 1, 2, 2]], {1: 8, 2: 3})
    sky, person = {"id": 1, "label_id": 8, "was_fused": True}, {"id": 2, "label_id": 3, "was_fused": False}
    prediction = {"segmentation": np.array([[1, 1, 2, 2]]), "segments_info": [sky, person, sky]}
    assert _counts(prediction, reference) == {8: (1, 0, 0), 3: (1, 0, 0)}
    prediction["segments_info"].append({"id": 2, "label_id": 5, "was_fused": False})
    with pytest.raises(ValueError, match="lists the segment 2 twice"):
        match_panoptic(prediction, reference)


def test_thing_flags_that_are_unknown_count_in_the_total_only():
    picture = _picture([[1, 2]], {1: 3, 2: 8})
    result = PanopticQuality({3: True, 8: None}).compute(predictions=[picture], references=[picture])
    assert (result["pq"], result["pq_things"]) == (1.0, 1.0)
    assert math.isnan(result["pq_stuff"])


def test_categories_that_do_not_occur_are_nan_and_left_out_of_the_mean():
    picture = _picture([[1, 1]], {1: 5})
    result = PanopticQuality().compute(predictions=[picture], references=[picture], categories=CATEGORIES)
    np.testing.assert_array_equal(result["per_category_pq"], [np.nan, 1, np.nan, np.nan])
    assert result["pq"] == 1.0


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9), st.integers(1, 4), st.randoms(use_true_random=False)
)
def test_uneven_shards_and_a_saved_state_give_the_same_result_to_the_last_bit(seeds, num_shards, random):
    pictures = [random_panoptic(seed, CATEGORIES) for seed in seeds]
    predictions, references = zip(*pictures, strict=True)
    expected = PanopticQuality(CATEGORIES).compute(predictions=predictions, references=references)
    shards = [PanopticQuality(CATEGORIES) for _ in range(num_shards)]
    random.shuffle(pictures)
    for prediction, reference in pictures:
        random.choice(shards).add(prediction=prediction, reference=reference)
    total = PanopticQuality(CATEGORIES)
    for shard in shards:
        restored = PanopticQuality(CATEGORIES)
        restored.load_state_dict(json.loads(json.dumps(shard.state_dict())))
        total.merge(restored)
    assert_same(total.compute(), expected, rtol=0)


def test_is_loaded_by_evaluate_without_network():
    metric = evaluate.load(metric_path("panoptic_quality"), categories=CATEGORIES)
    assert isinstance(metric, PanopticQuality)
    picture = _picture([[1, 2]], {1: 3, 2: 8})
    assert metric.compute(predictions=[picture], references=[picture])["pq"] == 1.0


GOOD = _picture([[1, 1]], {1: 3})


@pytest.mark.parametrize(
    ("prediction", "reference", "error", "message"),
    [
        (GOOD, None, ValueError, r"reference of sample 'a\.png' is missing"),
        ([[1]], GOOD, ValueError, r"prediction of sample 'a\.png' must be a dict with .*; got list"),
        ({"segmentation": [[1]]}, GOOD, ValueError, r"got a dict with \['segmentation'\]"),
        (_picture([[1], [1]], {1: 3}), GOOD, ValueError, r"'a\.png' is 2×1 \(height×width\), its annotation 1×2"),
        (_picture([[1, 7]], {1: 3}), GOOD, ValueError, r"prediction of sample 'a\.png' holds the segment ids \[7\]"),
        (GOOD, _picture([[1, 7]], {1: 3}), ValueError, r"reference of sample 'a\.png' holds the segment ids \[7\]"),
        (
            _picture([[1, 1]], {1: 3, 2: 5}),
            GOOD,
            ValueError,
            r"lists the segments \[2\], of which its map has no pixel",
        ),
        (GOOD, _picture([[0, 1]], {0: 3, 1: 3}), ValueError, "id 0 or less, which is kept for void"),
        (_picture([[1, 1]], {1: 4}), GOOD, ValueError, r"prediction of sample 'a\.png' has a segment of category 4"),
        (GOOD, _picture([[1, 1]], {1: 4}), ValueError, r"annotation of sample 'a\.png' has .* another data set"),
        (
            {"segmentation": [[1, 1]], "segments_info": [{"id": 1}]},
            GOOD,
            ValueError,
            "neither `category_id` nor `label_id`",
        ),
        (
            {"segmentation": [[1, 1]], "segments_info": GOOD["segments_info"] * 2},
            GOOD,
            ValueError,
            r"lists the segment 1 twice",
        ),
        ({"segmentation": [[1.0, 1.0]], "segments_info": []}, GOOD, TypeError, "holds float64 values"),
    ],
)
def test_a_bad_sample_is_named_and_leaves_the_counts_alone(prediction, reference, error, message):
    metric = PanopticQuality(CATEGORIES)
    with pytest.raises(error, match=message):
        metric.add_batch(predictions=[GOOD, prediction], references=[GOOD, reference], sample_ids=["good.png", "a.png"])
    assert len(metric) == 0


def test_categories_must_be_given_and_are_checked_at_compute():
    metric = PanopticQuality()
    metric.add(prediction=GOOD, reference=GOOD, sample_id="a.png")
    with pytest.raises(TypeError, match="needs `categories`"):
        metric.compute()
    with pytest.raises(ValueError, match=r"annotation of sample 'a\.png' has a segment of category 3, .* 1 categories"):
        metric.compute(categories={5: True})


def test_nothing_found_may_be_none_beside_an_empty_list():
    reference = _picture([[1, 2, 2, 0]], {1: 3, 2: 8})
    assert _counts({"segmentation": None, "segments_info": []}, reference) == {3: (0, 0, 1), 8: (0, 0, 1)}
    with pytest.raises(ValueError, match="prediction of sample 0 is missing"):
        match_panoptic({"segmentation": None, "segments_info": [{"id": 1, "label_id": 3}]}, reference)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (None, "must be a list of dicts, one for each segment, got None"),
        ({"id": [1, 2], "category_id": [3, 8]}, "must be a list of dicts"),
        (["sky", "dog"], "must be a list of dicts"),
        ([{"category_id": 3}], "The id of a segment in the .* of sample 0 must be a whole number, got None"),
        ([{"id": 1.5, "category_id": 3}], "The id of a segment .* got 1.5"),
        ([{"id": 1, "category_id": "sky"}], "The category of a segment .* got 'sky'"),
        ([{"id": 1, "category_id": 3.5}], "The category of a segment .* got 3.5"),
    ],
)
def test_lists_of_segments_that_cannot_be_right_are_named(segments, message):
    good = _picture([[1, 2, 2, 0]], {1: 3, 2: 8})
    wrong = good | {"segments_info": segments}
    for pair in ((wrong, good), (good, wrong)):
        with pytest.raises(ValueError, match=message):
            match_panoptic(*pair)


def test_run_lengths_of_transformers_are_told_from_a_map():
    prediction = {"segmentation": [[1, 2, 4, 1], [3, 1]], "segments_info": [{"id": 0, "label_id": 3}]}
    with pytest.raises(ValueError, match=r"lists of different lengths.*return_coco_annotation=False"):
        match_panoptic(prediction, _picture([[1, 2, 2, 0]], {1: 3, 2: 8}))


def test_floats_may_hold_the_number_of_no_segment():
    reference = _picture([[1, 2, 2, 0]], {1: 3, 2: 8})
    infos = [{"id": 1, "label_id": 3}, {"id": 2, "label_id": 8}]
    prediction = {"segmentation": np.array([[1, 2, 2, 0]], dtype=np.float32), "segments_info": infos}
    assert _counts(prediction, reference) == {3: (1, 0, 0), 8: (1, 0, 0)}
