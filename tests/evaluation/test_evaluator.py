"""The evaluation loop: every sample once, resumable, with the metrics' numbers."""

from __future__ import annotations

import json
import math
import os

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter.data import DataError, load_segmentation_dataset
from hf_maskadapter.evaluation import MaskAveragePrecision, MeanIoU, PanopticQuality, evaluate_model
from hf_maskadapter.evaluation import evaluator as evaluator_module
from hf_maskadapter.evaluation.counts import MethodCounts, SegmentCounts, count_sample, sample_score, summarize
from hf_maskadapter.evaluation.evaluator import EvaluationStopped
from hf_maskadapter.evaluation.predictors import EvaluationItem, label_segments
from hf_maskadapter.evaluation.progress import Progress, ProgressError, ProgressStore
from hf_maskadapter.model.vocabulary import Vocabulary
from support import evaluation_helpers
from support.data_samples import encode, labels, picture
from support.evaluation_helpers import VOCABULARY, LabelPredictor, SampleList, make_sample
from support.two_processes import run_by_two_processes

pytest.importorskip("pycocotools")


def same(first, second):
    """Whether two results hold the same numbers, NaN included."""
    return json.dumps(first) == json.dumps(second)


def run(predictor=None, dataset=None, **options):
    return evaluate_model(predictor or LabelPredictor(), dataset or SampleList(), show_progress=False, **options)


# --- Numbers ---


@pytest.mark.parametrize("batch_size", [1, 2])
def test_reading_ahead_changes_no_number(monkeypatch, batch_size):
    expected = run(batch_size=batch_size)
    monkeypatch.setattr(evaluator_module, "prefetching_pays", lambda device: True)
    ahead = run(batch_size=batch_size)
    assert same(ahead.methods, expected.methods)
    assert ahead.num_samples == expected.num_samples


def test_inputs_are_pinned_for_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    item = EvaluationItem(3, make_sample(0), {"pixel_values": torch.zeros(2), "size": (1, 2)}, (1, 2))
    pinned = item.pin_memory()
    assert pinned.inputs["pixel_values"].tolist() == [1, 1]
    assert pinned.inputs["size"] == (1, 2)
    assert (pinned.index, pinned.sample, pinned.group) == (3, item.sample, (1, 2))
    assert EvaluationItem(0, item.sample, None, ()).pin_memory().inputs is None


def test_metrics_are_those_of_the_metric_classes():
    dataset, predictor = SampleList(), LabelPredictor()
    result = run(predictor, dataset)
    assert list(result.methods) == ["one", "other"]
    assert result.num_samples == len(dataset)
    metrics = {
        "semantic": MeanIoU(num_labels=4, ignore_index=-1),
        "panoptic": PanopticQuality({0: True, 1: True, 2: False, 3: False}),
        "instance": MaskAveragePrecision([0, 1]),
    }
    for index, sample in enumerate(dataset.samples):
        prediction = predictor.predict([EvaluationItem(index, sample, None, ())])["one"][0]
        infos = [vars_of(segment) for segment in sample.segments_info]
        reference = {"segmentation": sample.segmentation, "segments_info": infos}
        metrics["semantic"].add(prediction=prediction.semantic, reference=sample.label_map())
        metrics["panoptic"].add(prediction=prediction.panoptic, reference=reference)
        metrics["instance"].add(prediction=prediction.instance, reference=reference, sample_id=index)
    expected = {name: metric.compute() for name, metric in metrics.items()}
    found = result.methods["one"]["metrics"]
    for values in expected.values():
        for key, value in values.items():
            if not key.startswith("per_category"):
                np.testing.assert_equal(found[key], value, err_msg=key)
    per_class = result.methods["one"]["per_class"]
    np.testing.assert_equal([row["iou"] for row in per_class], expected["semantic"]["per_category_iou"].tolist())
    np.testing.assert_equal([row["pq"] for row in per_class], expected["panoptic"]["per_category_pq"].tolist())
    np.testing.assert_equal([row["ap"] for row in per_class[:2]], expected["instance"]["per_category_ap"].tolist())
    assert "ap" not in per_class[2]
    assert found["mean_iou_seen"] == pytest.approx((per_class[0]["iou"] + per_class[2]["iou"]) / 2)
    assert found["mean_iou_stuff"] == pytest.approx((per_class[2]["iou"] + per_class[3]["iou"]) / 2)
    assert result.methods["other"]["metrics"]["mean_iou"] != found["mean_iou"]
    assert result.metrics is found


def vars_of(segment):
    names = ("id", "category_id", "isthing", "iscrowd")
    return {name: getattr(segment, name) for name in names}


def test_perfect_predictions_are_perfect_in_every_task():
    metrics = run(LabelPredictor(right=lambda *_: True)).metrics
    perfect = ("mean_iou", "mean_accuracy", "overall_accuracy", "pq", "pq_things", "pq_stuff", "ap", "ap50")
    assert [metrics[name] for name in perfect] == pytest.approx([1.0] * len(perfect))


def test_only_the_tasks_asked_for_are_measured():
    metrics = run(LabelPredictor(tasks=("semantic",))).metrics
    assert "mean_iou" in metrics
    assert "pq" not in metrics
    assert "ap" not in metrics


def test_confusions_are_sorted_by_pixels_with_their_share_of_the_annotated_class():
    result = run(LabelPredictor(right=lambda index, number, _: number != 0, methods=("one",), tasks=("semantic",)))
    confusions = result.methods["one"]["confusions"]
    assert [(row["annotated"], row["predicted"]) for row in confusions] == [("sky", "grass")]
    sky = next(row for row in result.methods["one"]["per_class"] if row["name"] == "sky")
    assert confusions[0]["pixels"] == sky["pixels"]
    assert confusions[0]["share_of_annotated"] == 1.0


def test_classified_segments_are_counted_without_crowds():
    sample = make_sample(1)
    assert [segment.iscrowd for segment in sample.segments_info] == [False, False, False, False, True]
    truth = [segment.category_id for segment in sample.segments_info]
    prediction = label_segments(sample, [*truth[:3], 1 - truth[3], truth[4]], [0.5] * 5, VOCABULARY)
    counts = count_sample(prediction, sample, 0, VOCABULARY, ())
    assert counts.segments.total.sum() == 4
    assert counts.segments.correct.sum() == 3
    summary = summarize(counts, VOCABULARY, None)
    assert summary["metrics"]["segment_accuracy"] == 0.75
    assert summary["metrics"]["segment_accuracy_stuff"] == 1.0
    assert summary["metrics"]["segment_accuracy_things"] == 0.5


def test_segments_labeled_as_one_stuff_class_merge_and_things_stay_apart():
    sample = make_sample(0)
    prediction = label_segments(sample, [2, 2, 1, 1], [0.5, 0.5, 0.5, 0.5], VOCABULARY)
    assert prediction.panoptic.class_ids.tolist() == [2, 1, 1]
    np.testing.assert_array_equal(prediction.panoptic.segment_map() == 1, np.isin(sample.segmentation, (1, 2)))
    assert len(prediction.instance.masks) == 2


@pytest.mark.parametrize(("tasks", "name"), [(("semantic",), "mean_iou"), (("panoptic",), "pq"), (("instance",), None)])
def test_the_score_of_a_sample_is_its_own_result(tasks, name):
    predictor = LabelPredictor(tasks=tasks, right=lambda index, number, _: number != 2)
    sample = make_sample(2)
    prediction = predictor.predict([EvaluationItem(2, sample, None, ())])["one"][0]
    counts = count_sample(prediction, sample, 2, VOCABULARY, tasks)
    score = sample_score(counts, len(VOCABULARY))
    things = sum(segment.isthing for segment in sample.segments_info)
    expected = (things - 1) / things if name is None else summarize(counts, VOCABULARY, None)["metrics"][name]
    assert score == pytest.approx(expected)


# --- Batches, processes, streams ---


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_hold_pictures_of_one_size_and_change_nothing(batch_size):
    predictor = LabelPredictor()
    result = run(predictor, batch_size=batch_size)
    assert max(map(len, predictor.batches)) == batch_size
    assert sorted(index for batch in predictor.batches for index in batch) == list(range(11))
    assert same(result.methods, run().methods)


def test_few_pictures_wait_for_others_of_their_size():
    sizes = [(index, 1) for index in range(100)]
    items = [EvaluationItem(index, make_sample(0), None, size) for index, size in enumerate(sizes)]
    taken = []
    batches = evaluator_module._batches((taken.append(item.index) or item for item in items), 2)
    for number, batch in enumerate(batches):
        assert len(taken) - number - len(batch) < 8


class FakeAccelerator:
    """A process of several, without the others."""

    device = torch.device("cpu")
    mixed_precision = "no"

    def __init__(self, num_processes, process_index):
        self.num_processes, self.process_index = num_processes, process_index


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("done", [set(), {0, 3, 10}])
def test_each_remaining_sample_belongs_to_exactly_one_process(num_processes, done):
    predictor, dataset = LabelPredictor(), SampleList()
    found = [
        item.index
        for rank in range(num_processes)
        for item in evaluator_module._items(predictor, dataset, FakeAccelerator(num_processes, rank), done, None, 0)
    ]
    assert sorted([*found, *done]) == list(range(11))


def stream_of(size):
    columns = {
        "id": [f"s{i}" for i in range(size)],
        "image": [{"bytes": encode(picture(i)), "path": None} for i in range(size)],
        "label_map": [{"bytes": encode(labels(i)), "path": None} for i in range(size)],
    }
    features = {"id": datasets.Value("string"), "image": datasets.Image(), "label_map": datasets.Image()}
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return (
        load_segmentation_dataset(source, ["dog", "cat", "sky", "grass"])
        for source in (dataset, dataset.to_iterable_dataset())
    )


def test_a_stream_gives_the_result_of_the_data_set():
    dataset, stream = stream_of(7)
    results = []
    for source in (dataset, stream):
        predictor = LabelPredictor(tasks=("semantic",))
        results.append(run(predictor, source, num_worst=2))
    assert same(results[0].methods, results[1].methods)
    assert results[1].num_samples == 7
    assert [one["sample_id"] for one in results[0].worst] == [one["sample_id"] for one in results[1].worst]
    limited = [run(LabelPredictor(tasks=("semantic",)), source, max_samples=4) for source in (dataset, stream)]
    assert limited[0].num_samples == limited[1].num_samples == 4
    assert same(limited[0].methods, limited[1].methods)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_stream_is_shared_by_processes_without_the_samples_done(num_processes):
    _, stream = stream_of(7)
    predictor = LabelPredictor(tasks=("semantic",))
    found = [
        (item.index, item.sample.sample_id)
        for rank in range(num_processes)
        for item in evaluator_module._items(predictor, stream, FakeAccelerator(num_processes, rank), {1, 2}, None, 0)
    ]
    assert sorted(found) == [(index, f"s{index}") for index in (0, 3, 4, 5, 6)]


def test_worker_processes_change_nothing():
    assert same(run(num_workers=2).methods, run().methods)


# --- Going on ---


class StoppedError(Exception):
    """Stands for whatever stops a run."""


def stop_at(number):
    """Raises when the predictor meets its batch of that number."""
    seen = []

    def before(indices):
        seen.append(indices)
        if len(seen) == number:
            raise StoppedError

    return before


@pytest.mark.parametrize("stop", [1, 2, 7, 11])
def test_an_interrupted_evaluation_goes_on_and_gives_the_same(tmp_path, stop):
    expected = run(num_worst=3)
    with pytest.raises(StoppedError):
        run(LabelPredictor(before=stop_at(stop)), output_dir=tmp_path, save_every=2, num_worst=3)
    again = LabelPredictor()
    result = run(again, output_dir=tmp_path, num_worst=3)
    assert result.num_resumed == stop - 1
    assert result.num_samples == 11
    predicted = [index for batch in again.batches for index in batch]
    assert predicted[: 12 - stop] == list(range(stop - 1, 11))  # then the worst ones, to draw them
    assert same(result.methods, expected.methods)
    assert result.worst == expected.worst


def test_it_stops_before_the_next_batch_when_told_to_and_goes_on_later(tmp_path):
    answers = iter([False, False, True])
    with pytest.raises(EvaluationStopped, match="after 2 samples"):
        run(output_dir=tmp_path, should_stop=lambda: next(answers))
    result = run(output_dir=tmp_path)
    assert result.num_resumed == 2
    assert same(result.methods, run().methods)


def test_progress_survives_several_interruptions(tmp_path):
    for stop in (2, 3, 4):
        with pytest.raises(StoppedError):
            run(LabelPredictor(before=stop_at(stop)), output_dir=tmp_path)
    result = run(output_dir=tmp_path)
    assert result.num_resumed == 6
    assert same(result.methods, run().methods)


@pytest.mark.parametrize(("killed_with", "resumed_with"), [(1, 3), (3, 1), (2, 3)])
def test_progress_of_several_processes_is_summed_up_for_any_other_number(tmp_path, killed_with, resumed_with):
    dataset, predictor = SampleList(), LabelPredictor()

    def work(num_processes, limit):
        store = ProgressStore(tmp_path, {"model": "a"})
        store.begin()
        before = store.load()
        everything = before
        for rank in range(num_processes):
            mine = ProgressStore(tmp_path, {"model": "a"})
            done = set(mine.load().done)
            own = Progress(counts=evaluator_module._empty_counts(predictor))
            items = evaluator_module._items(predictor, dataset, FakeAccelerator(num_processes, rank), done, None, 0)
            for item in list(items)[:limit]:
                evaluator_module._count(predictor, [item], own, num_worst=2)
                mine.save(rank, own)
            everything.add(own)
        return everything

    assert len(work(killed_with, 2).done) == 2 * killed_with
    total = work(resumed_with, None)
    assert sorted(total.done) == list(range(11))
    found = {name: summarize(counts, VOCABULARY, [True, False, True, False]) for name, counts in total.counts.items()}
    assert same(found, run().methods)


def test_a_run_killed_between_base_and_cleaning_up_counts_nothing_twice(tmp_path):
    store = ProgressStore(tmp_path, {})
    store.begin()
    store.load()
    store.save(0, Progress(done=[1, 2]))
    old = {path: path.read_text() for path in tmp_path.iterdir()}
    store.begin()
    for path, text in old.items():
        path.write_text(text)
    store.begin()
    assert store.load().done == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["generation-000002-base.json"]


def test_progress_of_another_evaluation_is_refused(tmp_path):
    with pytest.raises(StoppedError):
        run(LabelPredictor(before=stop_at(3)), output_dir=tmp_path)
    other = LabelPredictor()
    torch.nn.init.zeros_(other.model.weight)
    with pytest.raises(ProgressError, match=r"another evaluation; what differs: model\. .*overwrite"):
        run(other, output_dir=tmp_path)
    with pytest.raises(ProgressError, match=r"what differs: tasks"):
        run(LabelPredictor(tasks=("semantic",)), output_dir=tmp_path)
    assert run(output_dir=tmp_path).num_resumed == 2


def test_a_damaged_progress_file_is_named(tmp_path):
    store = ProgressStore(tmp_path, {})
    store.begin()
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text()[:20])
    with pytest.raises(ProgressError, match=r"generation-000000-base\.json is damaged"):
        store.begin()


def test_a_failed_write_leaves_the_progress_before_it(tmp_path, monkeypatch):
    store = ProgressStore(tmp_path, {})
    store.begin()
    store.load()
    store.save(0, Progress(done=[1]))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(0, Progress(done=[1, 2]))
    monkeypatch.undo()
    store.begin()
    assert store.load().done == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_samples_counted_twice_are_an_error():
    with pytest.raises(ProgressError, match="counted twice, for example number 2"):
        Progress(done=[1, 2]).add(Progress(done=[2, 3]))


def test_counts_are_restored_from_json():
    predictor, sample = LabelPredictor(), make_sample(1)
    prediction = predictor.predict([EvaluationItem(1, sample, None, ())])["one"][0]
    prediction.segment_labels = [0] * len(sample.segments_info)
    counts = count_sample(prediction, sample, 1, VOCABULARY, predictor.tasks)
    restored = MethodCounts.from_state_dict(json.loads(json.dumps(counts.state_dict())))
    assert same(summarize(restored, VOCABULARY, None), summarize(counts, VOCABULARY, None))
    total = MethodCounts.empty(predictor.tasks, len(VOCABULARY), with_segments=True)
    total.add(restored)
    assert same(summarize(total, VOCABULARY, None), summarize(counts, VOCABULARY, None))
    assert math.isnan(SegmentCounts.zeros(3).accuracy())


# --- Worst samples ---


def test_the_worst_samples_are_drawn_worst_first(tmp_path):
    predictor = LabelPredictor(right=lambda index, number, _: index not in (4, 7) or (index == 7 and number > 1))
    result = run(predictor, output_dir=tmp_path, num_worst=3)
    assert [one["sample_id"] for one in result.worst[:2]] == ["sample4", "sample7"]
    scores = [one["score"] for one in result.worst]
    assert scores == sorted(scores)
    assert len(result.pictures) == 3
    assert result.pictures[0].name == "01_000_sample4.jpg"
    for path in result.pictures:
        with Image.open(path) as drawn:
            drawn.load()
            assert min(drawn.size) > 2 * 18
    assert not list(tmp_path.glob("worst/.*"))


# --- Mistakes ---


class Broken(SampleList):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def __getitem__(self, index):
        if index == 5:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named_and_progress_is_kept(tmp_path, num_workers):
    broken = Broken(DataError("test set, sample 'sample5' (folder/sample5.jpg): the picture cannot be read"))
    with pytest.raises(
        DataError, match=r"^test set, sample 'sample5' \(folder/sample5\.jpg\): the picture cannot be read$"
    ):
        run(dataset=broken, output_dir=tmp_path, num_workers=num_workers)
    assert run(output_dir=tmp_path).num_resumed == 5
    with pytest.raises(DataError, match=r"^test set, sample number 5: \[Errno 5\] Input/output error$"):
        run(dataset=Broken(OSError(5, "Input/output error")), num_workers=num_workers)


def wrong_size(prediction):
    prediction.semantic = prediction.semantic[:-1]


def wrong_class(prediction):
    prediction.semantic[0, 0] = 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_size, r"Sample 'sample6' \(folder/sample6\.jpg\): The prediction .* is 19×30 .*, its annotation 20×30"),
        (
            wrong_class,
            r"Sample 'sample6' \(folder/sample6\.jpg\): .* holds the class id 4, but 4 classes have the ids 0 to 3",
        ),
    ],
)
def test_a_prediction_that_does_not_fit_is_named_with_its_file(spoil, message):
    class Spoiled(LabelPredictor):
        def _predict(self, item, method):
            prediction = super()._predict(item, method)
            if item.index == 6:
                spoil(prediction)
            return prediction

    with pytest.raises(DataError, match=message):
        run(Spoiled())


def test_a_prediction_of_an_unknown_class_is_refused_in_every_task():
    sample = make_sample(0)
    for task in ("panoptic", "instance"):
        larger = Vocabulary.from_list([f"class {number}" for number in range(14)])
        prediction = label_segments(sample, [9, 12, 9, 9], [1.0] * 4, larger)
        with pytest.raises(ValueError, match="not among the"):
            count_sample(prediction, sample, 0, VOCABULARY, (task,))


def test_what_does_not_fit_together_is_refused_before_anything_is_run():
    dataset = SampleList()
    dataset.has_instances = False
    with pytest.raises(ValueError, match=r"test set has label maps.* panoptic and instance results cannot be measured"):
        run(dataset=dataset)
    with pytest.raises(ValueError, match=r"asked for 4 classes .* but test set has 1 \(dog"):
        run(dataset=SampleList(vocabulary=type(VOCABULARY).from_list(["dog"])))
    with pytest.raises(ValueError, match="Say what to evaluate"):
        run(LabelPredictor(tasks=()))
    with pytest.raises(ValueError, match="given twice: one, one"):
        run(LabelPredictor(methods=("one", "one")))


def test_annotations_that_do_not_fit_are_named_by_the_data_set(tmp_path):
    for name, values in (("a", labels(0)), ("b", labels(0, width=15)), ("c", labels(0) + 7)):
        for folder, content in (("images", picture(0)), ("labels", values)):
            path = tmp_path / name / folder / "p.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(encode(content))
    tasks = ("semantic",)
    names = ["dog", "cat", "sky", "grass"]
    assert run(LabelPredictor(tasks=tasks), load_segmentation_dataset(tmp_path / "a", names)).num_samples == 1
    with pytest.raises(DataError, match=r"b/images/p\.png.*16×12 pixels, but its label map 15×12"):
        run(LabelPredictor(tasks=tasks), load_segmentation_dataset(tmp_path / "b", names))
    with pytest.raises(DataError, match=r"c/images/p\.png.*label map holds .*outside the vocabulary"):
        run(LabelPredictor(tasks=tasks), load_segmentation_dataset(tmp_path / "c", names))
    (tmp_path / "a" / "labels" / "p.png").unlink()
    (tmp_path / "a" / "labels" / "q.png").write_bytes(encode(labels(0)))
    with pytest.raises(DataError, match=r"have no label map of the same name .*'p'"):
        load_segmentation_dataset(tmp_path / "a", names)


# --- Two processes ---


def test_two_processes_give_the_result_of_one_also_after_one_was_interrupted(tmp_path):
    expected = run(num_worst=3)
    with pytest.raises(StoppedError):
        run(LabelPredictor(before=stop_at(4)), output_dir=tmp_path, save_every=1, num_worst=3)
    run_by_two_processes(evaluation_helpers.__file__, str(tmp_path))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert same(found["methods"], json.loads(json.dumps(expected.methods)))
        assert found["worst"] == expected.worst
        assert found["num_resumed"] == 3
        assert len(found["pictures"]) == 3
