"""MaskAveragePrecision against pycocotools' evaluation of whole data sets, and its errors."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.metric_samples import random_instances

evaluate = pytest.importorskip("evaluate")
torch = pytest.importorskip("torch")
mask_api = pytest.importorskip("pycocotools.mask")

from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402

from hf_maskadapter.evaluation import MaskAveragePrecision, metric_path  # noqa: E402
from hf_maskadapter.evaluation.functional import (  # noqa: E402
    mask_average_precision,
    match_detections,
    merge_detections,
)
from hf_maskadapter.model.segments import Segment, Segments  # noqa: E402
from hf_maskadapter.model.vocabulary import Vocabulary  # noqa: E402

CATEGORIES = [2, 3, 7]
KEYS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
KEYS += ["ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"]


def encode(mask):
    return mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))


def pycocotools_stats(predictions, references, categories):
    """The twelve numbers of a COCO evaluation over files' contents, as its own demo runs it."""
    size = next((mask.shape for picture in (*references, *predictions) for mask in picture["masks"]), (1, 1))

    def data_set(pictures):
        annotations = []
        for image_id, picture in enumerate(pictures):
            for index, mask in enumerate(picture["masks"]):
                rle = encode(mask)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": int(picture["labels"][index]),
                        "segmentation": rle,
                        "area": float(mask_api.area(rle)),
                        "iscrowd": int(picture["iscrowd"][index]) if "iscrowd" in picture else 0,
                        "score": float(picture["scores"][index]) if "scores" in picture else 0.0,
                    }
                )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": index, "height": size[0], "width": size[1]} for index in range(len(pictures))],
            "categories": [{"id": category} for category in categories],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(data_set(references), data_set(predictions), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats == -1, np.nan, evaluation.stats)


def pictures(seeds, size=(24, 31)):
    return [list(column) for column in zip(*(random_instances(seed, CATEGORIES, size) for seed in seeds), strict=True)]


@settings(max_examples=120)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), st.sampled_from([(24, 31), (70, 90), (130, 150)]))
def test_equals_pycocotools_to_the_last_bit(seeds, size):
    predictions, references = pictures(seeds, size)
    records = merge_detections(
        match_detections(prediction, reference, index)
        for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True))
    )
    result = mask_average_precision(records, CATEGORIES)
    np.testing.assert_array_equal([result[key] for key in KEYS], pycocotools_stats(predictions, references, CATEGORIES))
    for index, category in enumerate(CATEGORIES):
        only = [
            [{key: value[picture["labels"] == category] for key, value in picture.items()} for picture in column]
            for column in (predictions, references)
        ]
        np.testing.assert_array_equal(result["per_category_ap"][index], pycocotools_stats(*only, [category])[0])


def test_equals_pycocotools_with_more_than_a_hundred_predictions_of_a_category():
    rng = np.random.default_rng(0)
    prediction, reference = random_instances(0, [2], (24, 31))
    prediction = {
        "masks": rng.random((150, 24, 31)) < 0.3,
        "labels": np.full(150, 2),
        "scores": rng.integers(0, 50, 150) / 50,
    }
    prediction["masks"][-3:] = reference["masks"][:3]
    result = MaskAveragePrecision([2]).compute(predictions=[prediction], references=[reference])
    np.testing.assert_array_equal([result[key] for key in KEYS], pycocotools_stats([prediction], [reference], [2]))


def test_area_of_the_annotation_prevails_over_that_of_its_mask():
    mask = np.ones((1, 20, 20), bool)
    prediction = {"masks": mask, "labels": [2], "scores": [1.0]}
    metric = MaskAveragePrecision([2])
    small = metric.compute(predictions=[prediction], references=[{"masks": mask, "labels": [2]}])
    large = metric.compute(predictions=[prediction], references=[{"masks": mask, "labels": [2], "area": [10_000.0]}])
    assert (small["ap_small"], large["ap_large"]) == pytest.approx((1.0, 1.0))
    assert np.isnan([small["ap_large"], large["ap_small"]]).all()


def _forms(picture, role):
    """The same instances in every form that is accepted."""
    masks = picture["masks"]
    rest = {key: value for key, value in picture.items() if key != "masks"}
    yield {key: torch.from_numpy(value) for key, value in picture.items()}
    yield {"masks": list(masks), **{key: list(value) for key, value in rest.items()}}
    rles = [encode(mask) for mask in masks]
    yield {"masks": rles, **rest}
    uncompressed = []
    for mask in masks:
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
        runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        uncompressed.append({"size": list(mask.shape), "counts": runs})
    yield {"masks": uncompressed, **rest}
    infos = [
        {"id": index, "label_id": int(rest["labels"][index])}
        | ({"score": float(rest["scores"][index])} if role == "prediction" else {"iscrowd": rest["iscrowd"][index]})
        for index in range(len(masks))
    ]
    yield {"segmentation": torch.from_numpy(masks), "segments_info": infos}
    yield {"segmentation": rles, "segments_info": infos}


def test_accepts_masks_of_any_form():
    prediction, reference = random_instances(3, CATEGORIES, (24, 31))
    assert len(prediction["masks"]) > 1 < len(reference["masks"])
    expected = match_detections(prediction, reference)
    for one in _forms(prediction, "prediction"):
        for other in _forms(reference, "reference"):
            assert match_detections(one, other).state_dict() == expected.state_dict()


def test_reads_instances_from_a_map_of_segment_ids_and_leaves_out_stuff():
    ids = np.array([[1, 1, 2], [3, 3, 0]])
    segments = [
        {"id": 1, "category_id": 2, "isthing": True},
        {"id": 2, "category_id": 3, "isthing": True},
        {"id": 3, "category_id": 9, "isthing": False},
    ]
    scored = [{"id": info["id"], "label_id": info["category_id"], "score": 0.5} for info in segments[:2]]
    colors = np.stack([ids, 0 * ids, 0 * ids], -1).astype(np.uint8)
    metric = MaskAveragePrecision(CATEGORIES)
    for annotated in (ids, torch.from_numpy(ids), colors):
        result = metric.compute(
            predictions=[{"segmentation": ids, "segments_info": scored}],
            references=[{"segmentation": annotated, "segments_info": segments}],
        )
        np.testing.assert_allclose(result["per_category_ap"], [1.0, 1.0, np.nan])


def test_segments_are_read_with_the_best_first_and_without_stuff_in_annotations():
    vocabulary = Vocabulary.from_list(["sky", "dog", "cat"], things=["dog", "cat"])
    masks = np.zeros((4, 6, 8), dtype=bool)
    masks[0, :2], masks[1, 2:4], masks[2, 4:, :4], masks[3, 4:, 4:] = True, True, True, True
    entries = [(1, 0.4, False), (2, 0.9, False), (1, 0.9, True)]
    found = [
        Segment.of_class(vocabulary, class_id, mask, score=score, is_crowd=is_crowd)
        for (class_id, score, is_crowd), mask in zip(entries, masks[1:], strict=True)
    ]
    segments = Segments(found, (6, 8), vocabulary)
    with_sky = Segments([*found, Segment.of_class(vocabulary, 0, masks[0])], (6, 8), vocabulary)
    prediction = {"masks": masks[[2, 3, 1]], "labels": [2, 1, 1], "scores": [0.9, 0.9, 0.4]}
    reference = {"masks": masks[1:], "labels": [1, 2, 1], "iscrowd": [0, 0, 1]}
    expected = match_detections(prediction, reference).state_dict()
    assert match_detections(segments, with_sky).state_dict() == expected
    with pytest.raises(ValueError, match="no `score`"):
        match_detections(with_sky, reference)


SQUARES = np.zeros((2, 10, 10), dtype=bool)
SQUARES[0, :4, :4], SQUARES[1, 5:, 5:] = True, True
ANNOTATED = {"masks": SQUARES, "labels": [3, 3]}


def precision(prediction, reference=ANNOTATED):
    metric = MaskAveragePrecision({3: True})
    metric.add(prediction=prediction, reference=reference)
    return metric.compute()["ap"]


def test_probabilities_are_cut_at_one_half_and_logits_are_refused():
    good = {"labels": [3, 3], "scores": [0.9, 0.8]}
    probabilities = np.where(SQUARES, 0.51, 0.5)
    assert precision(good | {"masks": probabilities}) == 1.0
    assert precision(good | {"masks": torch.from_numpy(probabilities).half()}) == 1.0
    assert precision(good | {"masks": SQUARES * np.uint8(255)}) == 1.0
    with pytest.raises(ValueError, match=r"prediction of sample 0, mask 0: .*Turn logits into probabilities"):
        precision(good | {"masks": np.where(SQUARES, 4.0, -4.0)})


def test_instances_of_transformers_are_read_and_those_that_others_cover_left_out():
    values = np.where(SQUARES[0], 1.0, np.where(SQUARES[1], 2.0, -1.0)).astype(np.float32)
    infos = [{"id": number, "label_id": 3, "score": score} for number, score in ((0, 0.99), (1, 0.9), (2, 0.8))]
    assert precision({"segmentation": torch.from_numpy(values), "segments_info": infos}) == 1.0
    assert precision({"segmentation": torch.full((10, 10), -1.0), "segments_info": []}) == 0.0


@pytest.mark.parametrize("role", ["prediction", "reference"])
@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([{"size": [10, 10], "counts": [3, 4]}] * 2, "mask 0: The counts .* fill its size; these sum to 7"),
        ([{"size": [10, 10], "counts": "1O"}] * 2, "mask 0: The counts"),
        ([{"size": [10, 10], "counts": [200, -100]}] * 2, "mask 0: The counts"),
        ([[0, 0, 4, 0, 4, 4, 0, 4]] * 2, "mask 0: it is a polygon"),
        ([SQUARES[0], SQUARES[1] * 7], "mask 1: A mask must hold booleans"),
        ({"size": [10, 10], "counts": [100]}, "masks in a list or an array, got dict"),
        ([SQUARES[0], np.where(SQUARES[1], np.nan, 0)], "mask 1: A mask must hold"),
    ],
)
def test_masks_that_cannot_be_right_are_refused_before_pycocotools_sees_them(role, masks, message):
    given = {"prediction": ANNOTATED | {"scores": [0.9, 0.8]}, "reference": ANNOTATED}
    given[role] = given[role] | {"masks": masks}
    with pytest.raises(ValueError, match=rf"The {role} of sample 0.* {message}"):
        precision(**given)


def test_run_lengths_that_fill_their_size_count_as_the_masks():
    encodings = [mask_api.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in SQUARES]
    as_text = [encoding | {"counts": encoding["counts"].decode()} for encoding in encodings]
    for masks in (encodings, as_text):
        assert precision({"masks": masks, "labels": [3, 3], "scores": [0.9, 0.8]}) == 1.0


def test_scores_and_labels_that_are_no_numbers_of_their_kind_are_refused():
    for wrong, message in (
        ({"scores": [0.9, float("nan")]}, "mask 1, has the score nan"),
        ({"labels": [3, 3.5]}, "label 3.5"),
        ({"labels": [float("nan"), 3]}, "mask 0, has the label nan"),
    ):
        with pytest.raises(ValueError, match=message):
            precision(ANNOTATED | {"scores": [0.9, 0.8]} | wrong)


def test_the_area_of_an_annotation_counts_in_both_forms_and_that_of_a_prediction_nowhere():
    whole = np.ones((1, 40, 40), dtype=bool)  # 1600 pixels are medium, 900 small
    good = {"masks": whole, "labels": [3], "scores": [0.9], "area": [5.0]}
    in_list = {"masks": whole, "labels": [3], "area": [900.0]}
    in_info = {"segmentation": whole, "segments_info": [{"id": 1, "category_id": 3, "area": 900}]}
    for reference in (in_list, in_info):
        metric = MaskAveragePrecision({3: True})
        metric.add(prediction=good, reference=reference)
        result = metric.compute()
        assert (result["ap"], result["ap_small"]) == (pytest.approx(1), pytest.approx(1))
        assert np.isnan(result["ap_medium"])
    plain = MaskAveragePrecision({3: True})
    plain.add(prediction=good, reference={"masks": whole, "labels": [3]})
    assert plain.compute()["ap_medium"] == pytest.approx(1)


def test_pictures_without_predictions_or_annotations_count():
    prediction, reference = random_instances(3, CATEGORIES, (24, 31))
    nothing = {"masks": [], "labels": [], "scores": []}
    predictions, references = [nothing, prediction, nothing], [reference, nothing, nothing]
    metric = MaskAveragePrecision(CATEGORIES)
    result = metric.compute(predictions=predictions, references=references)
    np.testing.assert_array_equal([result[key] for key in KEYS], pycocotools_stats(predictions, references, CATEGORIES))
    assert np.isnan(metric.compute(predictions=[nothing], references=[nothing])["ap"])


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False)
)
def test_uneven_shards_and_a_saved_state_give_the_same_result_though_scores_tie(seeds, num_shards, random):
    predictions, references = pictures(seeds)
    expected = MaskAveragePrecision(CATEGORIES).compute(predictions=predictions, references=references)
    shards = [MaskAveragePrecision(CATEGORIES) for _ in range(num_shards)]
    samples = list(enumerate(zip(predictions, references, strict=True)))
    random.shuffle(samples)
    for index, (prediction, reference) in samples:
        random.choice(shards).add(prediction=prediction, reference=reference, sample_id=index)
    total = MaskAveragePrecision(CATEGORIES)
    for shard in shards:
        restored = MaskAveragePrecision(CATEGORIES)
        restored.load_state_dict(json.loads(json.dumps(shard.state_dict())))
        total.merge(restored)
    result = total.compute()
    for key, value in expected.items():
        np.testing.assert_array_equal(result[key], value, err_msg=key)


def test_prints_nothing(capsys):
    prediction, reference = random_instances(3, CATEGORIES, (24, 31))
    MaskAveragePrecision(CATEGORIES).compute(predictions=[prediction], references=[reference])
    assert capsys.readouterr() == ("", "")


def test_is_loaded_by_evaluate_without_network():
    metric = evaluate.load(metric_path("mask_average_precision"), categories=CATEGORIES)
    assert isinstance(metric, MaskAveragePrecision)
    prediction, reference = random_instances(3, CATEGORIES, (24, 31))
    assert metric.compute(predictions=[prediction], references=[reference])["ap"] >= 0


def test_a_missing_pycocotools_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"pip install 'hf-maskadapter\[eval\]'"):
        match_detections(None, None)


MASK = np.ones((1, 4, 5), bool)
GOOD_PREDICTION = {"masks": MASK, "labels": [2], "scores": [0.5]}
GOOD_REFERENCE = {"masks": MASK, "labels": [2]}


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (GOOD_PREDICTION, None, r"reference of sample 'a\.png' is missing"),
        (GOOD_REFERENCE, GOOD_REFERENCE, r"prediction of sample 'a\.png' must be a dict with masks, labels, scores"),
        (GOOD_PREDICTION, [1], r"reference of sample 'a\.png' must be a dict .* got list"),
        (GOOD_PREDICTION | {"scores": [0.5, 0.5]}, GOOD_REFERENCE, r"'a\.png' has 1 masks but 2 scores"),
        (
            GOOD_PREDICTION | {"masks": MASK[:, :3]},
            GOOD_REFERENCE,
            r"'a\.png' differ in size .* \[\(3, 5\)\].*\[\(4, 5\)\]",
        ),
        (GOOD_PREDICTION | {"masks": [MASK[0, 0]]}, GOOD_REFERENCE, r"has a mask of shape \(5,\)"),
        (
            GOOD_PREDICTION | {"labels": [4]},
            GOOD_REFERENCE,
            r"prediction of sample 'a\.png' has a segment of category 4",
        ),
        (GOOD_PREDICTION, GOOD_REFERENCE | {"labels": [4]}, r"annotation of sample 'a\.png' has .* another data set"),
        (
            {"segmentation": MASK, "segments_info": [{"id": 1, "label_id": 2}]},
            GOOD_REFERENCE,
            r"'a\.png' has no `score`",
        ),
        ({"segmentation": MASK, "segments_info": []}, GOOD_REFERENCE, "has 1 masks but 0 entries in segments_info"),
        (GOOD_PREDICTION, {"segmentation": MASK, "segments_info": [{"id": 1}]}, "neither `category_id` nor `label_id`"),
    ],
)
def test_a_bad_sample_is_named_and_leaves_the_counts_alone(prediction, reference, message):
    metric = MaskAveragePrecision(CATEGORIES)
    with pytest.raises(ValueError, match=message):
        metric.add_batch(
            predictions=[GOOD_PREDICTION, prediction],
            references=[GOOD_REFERENCE, reference],
            sample_ids=["good.png", "a.png"],
        )
    assert len(metric) == 0


def test_categories_must_be_given():
    with pytest.raises(TypeError, match="needs `categories`"):
        MaskAveragePrecision().compute(predictions=[GOOD_PREDICTION], references=[GOOD_REFERENCE])


def test_encodings_with_runs_of_length_nought_count_as_their_masks():
    encodings = []
    for mask in SQUARES:
        changes = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.ravel()]).astype(int))).tolist()
        counts = np.diff([0, *changes, mask.size]).tolist()
        encodings.append({"size": list(mask.shape), "counts": [*counts[:1], 0, 0, *counts[1:]]})
    found = {"masks": encodings, "labels": [3, 3], "scores": [0.9, 0.8]}
    assert precision(found) == 1.0
    assert precision(found, {"masks": encodings, "labels": [3, 3]}) == 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": ["cat", 3]}, "prediction of sample 0, mask 0, has the label cat; category ids are whole numbers"),
        ({"labels": None}, "must be a dict with masks, labels, scores"),
        ({"scores": [None, 0.5]}, "mask 0, has the score None; scores are finite numbers"),
        ({"scores": ["high", 0.5]}, "mask 0, has the score high"),
        ({"masks": SQUARES[0] * 3}, r"shape \(10, 10\); expected \(instances, height, width\)"),
        ({"masks": [np.array([[0, 0], [4, 0], [4, 4]])] * 2}, "mask 0: it is a polygon"),
        ({"masks": [[[0, 0, 4, 0, 4, 4, 0, 4]]] * 2}, "mask 0: it is a polygon"),
    ],
)
def test_columns_that_cannot_be_right_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        precision(ANNOTATED | {"scores": [0.9, 0.8]} | wrong)


def test_areas_that_are_no_number_of_pixels_are_refused():
    for area in (float("nan"), -1, "large"):
        with pytest.raises(ValueError, match=rf"reference of sample 0, mask 1, has the area {area}"):
            precision(ANNOTATED | {"scores": [0.9, 0.8]}, ANNOTATED | {"area": [5, area]})


def test_a_fused_segment_counts_once_and_a_map_may_come_as_rows():
    values = np.where(SQUARES[0], 1, np.where(SQUARES[1], 2, 0))
    first, second = ({"id": number, "label_id": 3, "score": 0.9, "was_fused": True} for number in (1, 2))
    for rows in (values, values.astype(np.float32), values.tolist()):
        assert precision({"segmentation": rows, "segments_info": [first, second, first]}) == 1.0


def test_annotated_maps_with_segments_that_nobody_lists_are_refused():
    values = np.where(SQUARES[0], 1, np.where(SQUARES[1], 2, 0))
    reference = {"segmentation": values, "segments_info": [{"id": 1, "category_id": 3}]}
    with pytest.raises(ValueError, match=r"reference of sample 0 holds the segment ids \[2\]"):
        precision(ANNOTATED | {"scores": [0.9, 0.8]}, reference)


def test_equals_faster_coco_eval():
    pytest.importorskip("faster_coco_eval")
    from lab.benchmarks.rows import mask_ap

    inputs = mask_ap.draw_instances(6, (130, 170), 4)
    found = mask_ap.mask_ap(inputs)()
    assert (found > 0).sum() >= 10
    torch.testing.assert_close(found, mask_ap.faster_coco_eval(inputs)(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, mask_ap.faster_coco_eval_with_pycocotools(inputs)(), rtol=0, atol=1e-12)
