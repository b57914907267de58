"""MeanIoU against a plain oracle, against the Hub's script where there is a copy, and its errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from support.metric_samples import random_label_maps

evaluate = pytest.importorskip("evaluate")
torch = pytest.importorskip("torch")

from hf_maskadapter.evaluation import MeanIoU, metric_path  # noqa: E402
from hf_maskadapter.evaluation.functional import label_maps  # noqa: E402
from hf_maskadapter.evaluation.functional.mean_iou import (  # noqa: E402
    confusion_matrix,
    count_confusions,
    mean_iou,
    merge_confusions,
)

SCRIPT = os.environ.get("MASKADAPTER_MEAN_IOU_SCRIPT")
KEYS = ["mean_iou", "mean_accuracy", "overall_accuracy", "per_category_iou", "per_category_accuracy"]


def oracle(predictions, references, num_labels, ignore_index, nan_to_num=None, label_map=None, reduce_labels=False):
    """Pixel by pixel, from the documented definition: areas over all images first, then one division per class."""
    correct, annotated, predicted = (np.zeros(num_labels) for _ in range(3))
    for prediction, reference in zip(predictions, references, strict=True):
        for guess, label in zip(np.asarray(prediction).flat, np.asarray(reference).flat, strict=True):
            label = (label_map or {}).get(int(label), int(label))
            if reduce_labels and num_labels > 254:
                if label == 0:
                    continue
                label = label if label == ignore_index > num_labels else label - 1
            elif reduce_labels:
                label = 255 if label in (0, 255) else label - 1
            if label == ignore_index:
                continue
            if 0 <= label < num_labels:
                annotated[label] += 1
            if 0 <= guess < num_labels:
                predicted[guess] += 1
                correct[guess] += guess == label
    with np.errstate(invalid="ignore"):
        iou = correct / (annotated + predicted - correct)
        accuracy = correct / annotated
        overall = correct.sum() / annotated.sum()
    mean = lambda values: values[~np.isnan(values)].mean() if (~np.isnan(values)).any() else np.nan  # noqa: E731
    values = dict(zip(KEYS, (mean(iou), mean(accuracy), overall, iou, accuracy), strict=True))
    return (
        values if nan_to_num is None else {key: np.nan_to_num(value, nan=nan_to_num) for key, value in values.items()}
    )


def assert_same(result, expected, *, exact=True):
    assert list(result) == KEYS
    for key in KEYS:
        if exact or key.startswith("per") or key.startswith("overall"):
            np.testing.assert_array_equal(result[key], expected[key], err_msg=key)
        else:  # the oracle adds the classes in another order
            np.testing.assert_allclose(result[key], expected[key], rtol=1e-14, err_msg=key)


@st.composite
def cases(draw):
    """Maps with the options they are to be evaluated with, over everything the definition distinguishes."""
    num_labels = draw(st.one_of(st.integers(1, 12), st.sampled_from([19, 150, 253, 254, 255, 256, 459, 847])))
    reduce_labels = draw(st.booleans())
    outside = [65535] if num_labels > 254 else [255, 65535]
    if reduce_labels:
        ignore_index = draw(st.sampled_from(outside))
        ignored = (0, ignore_index) if num_labels > 254 else (0, 255)
    else:
        ignore_index = draw(st.one_of(st.sampled_from([*outside, -1]), st.integers(0, num_labels - 1)))
        ignored = (ignore_index,)
    seed = draw(st.integers(0, 2**32 - 1))
    predictions, references = random_label_maps(
        seed, num_labels, ignored, missed=(ignore_index,) if draw(st.booleans()) else (), offset=int(reduce_labels)
    )
    label_map = None
    if draw(st.booleans()):
        values = np.unique(np.concatenate([reference.ravel() for reference in references]))
        targets = np.random.default_rng(seed).choice(values, len(values))
        label_map = dict(zip(values.tolist(), targets.tolist(), strict=True))
    options = {
        "num_labels": num_labels,
        "ignore_index": ignore_index,
        "label_map": label_map,
        "reduce_labels": reduce_labels,
        "nan_to_num": draw(st.sampled_from([None, 0])),
    }
    return predictions, references, options


@settings(max_examples=1500)
@given(cases())
def test_equals_the_plain_oracle(case):
    predictions, references, options = case
    counts = merge_confusions(map(count_confusions, predictions, references))
    assert_same(mean_iou(counts, **options), oracle(predictions, references, **options), exact=False)


@pytest.mark.skipif(not SCRIPT, reason="MASKADAPTER_MEAN_IOU_SCRIPT does not name a copy of the Hub's mean_iou.py")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150)
@given(case=cases())
def test_equals_the_hub_script_bit_for_bit(case):
    predictions, references, options = case
    if options["reduce_labels"] and options["num_labels"] > 254:
        options["reduce_labels"] = False  # there the script is wrong
        references = [np.where(reference == 0, 1, reference) - 1 for reference in references]
        options["label_map"] = None
    script = evaluate.load(SCRIPT)
    dtype = np.int32
    expected = script.compute(
        predictions=[prediction.astype(dtype) for prediction in predictions],
        references=[reference.astype(dtype) for reference in references],
        **options,
    )
    result = MeanIoU(strict=False).compute(predictions=predictions, references=references, **options)
    assert_same(result, expected)


@pytest.mark.skipif(not SCRIPT, reason="MASKADAPTER_MEAN_IOU_SCRIPT does not name a copy of the Hub's mean_iou.py")
@pytest.mark.filterwarnings("ignore")
def test_takes_ids_out_of_range_as_the_hub_script_does_when_not_strict():
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 30, (2, 4, 9, 9)).astype(np.uint8)
    options = {"num_labels": 20, "ignore_index": 3, "reduce_labels": True}
    expected = evaluate.load(SCRIPT).compute(predictions=predictions, references=references, **options)
    assert_same(MeanIoU(strict=False).compute(predictions=predictions, references=references, **options), expected)


def test_a_predicted_ignore_value_is_a_miss_and_an_annotated_one_is_left_out():
    result = MeanIoU().compute(predictions=[[[255, 1, 0]]], references=[[[0, 255, 0]]], num_labels=2, ignore_index=255)
    np.testing.assert_array_equal(result["per_category_iou"], [0.5, np.nan])
    assert result["overall_accuracy"] == 0.5


def test_label_255_is_a_class_above_254_reduced_labels():
    raw = np.array([[0, 1, 255, 256, 300, 65535]])
    result = MeanIoU().compute(
        predictions=[raw.clip(1, 300) - 1], references=[raw], num_labels=300, ignore_index=65535, reduce_labels=True
    )
    assert result["mean_iou"] == 1.0
    assert np.flatnonzero(~np.isnan(result["per_category_iou"])).tolist() == [0, 254, 255, 299]


def test_label_map_reads_raw_values_once():
    result = MeanIoU().compute(
        predictions=[[[1, 0, 1]]],
        references=[[[0, 1, 7]]],
        num_labels=2,
        ignore_index=255,
        label_map={0: 1, 1: 0, 7: 1},
    )
    assert result["mean_iou"] == 1.0


def test_a_class_mapped_to_the_ignored_value_is_left_out():
    result = MeanIoU().compute(
        predictions=[[[0, 1]]], references=[[[0, 1]]], num_labels=2, ignore_index=255, label_map={1: 255}
    )
    np.testing.assert_array_equal(result["per_category_iou"], [1.0, np.nan])


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _palette(array: np.ndarray) -> Image.Image:
    picture = Image.fromarray(array).convert("L")
    picture.putpalette(bytes(range(256)) * 3)
    return picture


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: array.astype(np.int64),
        lambda array: array.astype(np.uint16),
        lambda array: np.asfortranarray(array.astype(np.int8)),
        lambda array: array.tolist(),
        lambda array: torch.from_numpy(array),
        lambda array: torch.from_numpy(array.astype(np.int64)),
        Image.fromarray,
        _palette,
        lambda array: Image.fromarray(array.astype(np.int32)),
        lambda array: Image.fromarray(array.astype(np.uint16)),
        _png,
        lambda array: {"path": None, "bytes": _png(array)},
    ],
    ids=["int64", "uint16", "fortran", "list", "tensor", "long", "grey", "palette", "int32", "16bit", "png", "encoded"],
)
def test_accepts_maps_of_any_form(convert):
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 5, (2, 3, 6, 7)).astype(np.uint8)
    options = {"num_labels": 5, "ignore_index": 255}
    result = MeanIoU().compute(
        predictions=[convert(array) for array in predictions],
        references=[convert(array) for array in references],
        **options,
    )
    assert_same(result, oracle(predictions, references, **options), exact=False)


def test_accepts_a_batch_as_one_tensor_and_files_by_name(tmp_path):
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 5, (2, 3, 6, 7)).astype(np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, array in zip(paths, references, strict=True):
        Image.fromarray(array).save(path)
    options = {"num_labels": 5, "ignore_index": 255}
    result = MeanIoU(**options).compute(predictions=torch.from_numpy(predictions), references=paths)
    assert_same(result, oracle(predictions, references, **options), exact=False)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32 - 1),
    low=st.sampled_from([-(2**40), -70000, -3, 0, 1]),
    span=st.sampled_from([0, 3, 300, 70000, 2**41]),
)
def test_pairs_are_counted_alike_in_numpy_and_torch_for_values_of_any_range(seed, low, span):
    rng = np.random.default_rng(seed)
    values = rng.integers(low, low + span + 1, 5)
    first, second = rng.choice(values, (2, *rng.integers(0, 6, 2)))
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    for pairs in (
        label_maps.pair_counts(first, second),
        label_maps._pair_counts_torch(torch.from_numpy(first), second, 0, torch.device("cpu")),
    ):
        found = {
            (row, column): int(pairs.counts[i, j])
            for i, row in enumerate(pairs.rows.tolist())
            for j, column in enumerate(pairs.columns.tolist())
            if pairs.counts[i, j]
        }
        assert found == expected


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_pairs_are_counted_over_the_whole_range_of_small_types(dtype):
    low, high = (False, True) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    first = np.array([[low, high, high]], dtype)
    pairs = label_maps.pair_counts(first, first[:, ::-1])
    assert pairs.rows.tolist() == pairs.columns.tolist() == [int(low), int(high)]
    assert pairs.counts.tolist() == [[0, 1], [1, 1]]


def test_confusion_matrix_holds_pixels_by_annotated_and_predicted_class():
    counts = count_confusions([[0, 1, 255, 2, 2]], [[0, 0, 1, 255, 2]])
    assert confusion_matrix(counts, 3, 255).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_counts_as_samples_come_and_starts_anew_after_compute():
    options = {"num_labels": 3, "ignore_index": 255}
    metric = MeanIoU(**options)
    metric.add(prediction=[[0, 1]], reference=[[0, 0]])
    metric.add_batch(predictions=[[[2]], [[1]]], references=[[[2]], [[1]]])
    assert len(metric) == 3
    running = metric.result()
    assert_same(metric.compute(), running)
    assert_same(running, oracle([[[0, 1]], [[2]], [[1]]], [[[0, 0]], [[2]], [[1]]], **options), exact=False)
    assert len(metric) == 0
    with pytest.raises(ValueError, match="Nothing was counted"):
        metric.compute()


def test_options_of_compute_prevail_over_those_of_the_constructor():
    metric = MeanIoU(num_labels=3, ignore_index=255)
    metric.add(prediction=[[0, 1]], reference=[[0, 2]])
    assert metric.result()["mean_iou"] == pytest.approx(1 / 3)
    assert metric.result(ignore_index=2)["mean_iou"] == 1.0


def test_state_does_not_grow_and_nothing_is_written(tmp_path):
    metric = MeanIoU(num_labels=150, ignore_index=255, cache_dir=str(tmp_path))
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(30):
        metric.add_batch(predictions=rng.integers(0, 150, (1, 90, 90)), references=rng.integers(0, 150, (1, 90, 90)))
        sizes.append(metric.state.counts.nbytes)
    assert sizes[-1] == sizes[1] == 150 * 150 * 8
    metric.compute()
    assert not any(tmp_path.iterdir())


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), num_shards=st.integers(1, 5))
def test_uneven_shards_and_a_saved_state_give_the_same_result(seed, num_shards):
    rng = np.random.default_rng(seed)
    predictions, references = random_label_maps(seed, 20, (255,), (255,))
    options = {"num_labels": 20, "ignore_index": 255}
    expected = MeanIoU().compute(predictions=predictions, references=references, **options)
    shards = [MeanIoU(**options) for _ in range(num_shards)]
    for prediction, reference in zip(predictions, references, strict=True):
        shards[rng.integers(num_shards)].add(prediction=prediction, reference=reference)
    total = MeanIoU(**options)
    for shard in shards:
        restored = MeanIoU(**options)
        restored.load_state_dict(json.loads(json.dumps(shard.state_dict())))
        total.merge(restored)
    assert len(total) == len(predictions)
    assert_same(total.compute(), expected)


def test_is_loaded_by_evaluate_without_network():
    metric = evaluate.load(metric_path("mean_iou"), num_labels=2, ignore_index=255)
    assert isinstance(metric, MeanIoU)
    assert set(metric.features) == {"predictions", "references"}
    assert metric.compute(predictions=[[[0, 1]]], references=[[[0, 1]]])["mean_iou"] == 1.0
    combined = evaluate.combine([evaluate.load(metric_path("mean_iou"), num_labels=2, ignore_index=255)])
    assert combined.compute(predictions=[[[0, 1]]], references=[[[0, 1]]])["mean_iou"] == 1.0
    with pytest.raises(ValueError, match="There is no metric 'iou'; there are mask_average_precision, mean_iou"):
        metric_path("iou")


def test_functions_need_neither_torch_nor_evaluate():
    program = (
        "import sys; sys.modules['evaluate'] = None; import hf_maskadapter.evaluation.functional as f;"
        "print(f.mean_iou(f.count_confusions([[0, 1]], [[0, 1]]), 2, 255)['mean_iou'], 'torch' in sys.modules);"
        "import hf_maskadapter.evaluation as e; e.MeanIoU"
    )
    source = Path(label_maps.__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert run.stdout.split() == ["1.0", "False"]
    assert "pip install 'hf-maskadapter[eval]'" in run.stderr


@pytest.mark.parametrize(
    ("prediction", "reference", "error", "message"),
    [
        (
            np.zeros((2, 3), int),
            np.zeros((3, 2), int),
            ValueError,
            r"'a\.png' is 2×3 \(height×width\), its annotation 3×2",
        ),
        (
            [[7]],
            [[0]],
            ValueError,
            r"prediction of sample 'a\.png' holds the class id 7, but 3 classes have the ids 0 to 2",
        ),
        (
            [[0]],
            [[7]],
            ValueError,
            r"annotation of sample 'a\.png' holds the value 7, but 3 classes have the ids 0 to 2",
        ),
        ([[0]], None, ValueError, r"reference of sample 'a\.png' is missing"),
        ([[0]], {"path": None, "bytes": None}, ValueError, r"reference of sample 'a\.png' is missing"),
        ([[0]], "no/such.png", FileNotFoundError, r"no file no/such\.png \(the reference of sample 'a\.png'\)"),
        ([[0]], b"no picture", ValueError, r"Cannot read the reference of sample 'a\.png' as a picture"),
        ([[0.5]], [[0]], TypeError, r"prediction of sample 'a\.png' holds float64 values"),
        (torch.zeros(1, 1), [[0]], TypeError, r"prediction of sample 'a\.png' holds torch\.float32 values"),
        ([0], [0], ValueError, r"prediction of sample 'a\.png' has shape \(1,\); expected \(height, width\)"),
        (np.zeros((1, 1, 3), int), [[0]], ValueError, r"has shape \(1, 1, 3\); expected \(height, width\)\."),
    ],
)
def test_a_bad_sample_is_named_when_it_is_added_and_leaves_the_counts_alone(prediction, reference, error, message):
    metric = MeanIoU(num_labels=3, ignore_index=255)
    with pytest.raises(error, match=message):
        metric.add_batch(
            predictions=[[[0]], prediction], references=[[[0]], reference], sample_ids=["good.png", "a.png"]
        )
    assert len(metric) == 0


def test_ids_out_of_range_are_named_at_compute_when_the_options_come_only_then():
    metric = MeanIoU()
    for index, value in enumerate([0, 1, 9, 9]):
        metric.add(prediction=[[0]], reference=[[value]], sample_id=f"{index}.png")
    with pytest.raises(ValueError, match=r"'2\.png' holds the value 9.*another data set"):
        metric.compute(num_labels=2, ignore_index=255)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.compute(predictions=[[[0]]], references=[[[0]]]), TypeError, "needs `num_labels`"),
        (lambda m: m.compute(predictions=[[[0]]], references=[[[0]]], num_labels=2), TypeError, "needs `ignore_index`"),
        (
            lambda m: m.add_batch(predictions=[[[0]]], references=[]),
            ValueError,
            r"predictions \(1\) and references \(0\)",
        ),
        (lambda m: m.add_batch(predictions=[[[0]]]), ValueError, "references are missing"),
        (
            lambda m: m.add_batch(predictions=[], references=[], masks=[]),
            ValueError,
            r"Bad inputs for metric: \['masks'\]",
        ),
        (lambda m: m.add_batch(predictions=[[[0]]], references=[[[0]]], sample_ids=[]), ValueError, "sample_ids"),
        (lambda m: MeanIoU(num_labels=0, ignore_index=255), ValueError, "must be at least 1, not 0"),
        (lambda m: MeanIoU(num_labels=847, ignore_index=255, reduce_labels=True), ValueError, "is one of the classes"),
        (lambda m: MeanIoU(num_process=2, process_id=1), ValueError, r"`reduce\(accelerator\)`"),
    ],
)
def test_wrong_arguments_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(MeanIoU())


@pytest.mark.parametrize("num_images", [1, 10])
def test_maps_of_segment_ids_are_refused(num_images):
    images = np.arange(9000).reshape(num_images, -1, 10)
    with pytest.raises(ValueError, match=r"sample '.' the annotations hold .* these are not class ids"):
        MeanIoU().add_batch(predictions=images, references=images, sample_ids="abcdefghij"[:num_images])
