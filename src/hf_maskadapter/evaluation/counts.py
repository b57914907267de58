"""What an evaluation counts: for each method the states of the metrics that its tasks need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.samples import SegmentationSample
from ..model.vocabulary import Vocabulary
from .functional.mask_average_precision import DetectionRecords, mask_average_precision, match_detections
from .functional.mean_iou import ConfusionCounts, check_class_ids, confusion_matrix, count_confusions, mean_iou
from .functional.panoptic_quality import PanopticCounts, check_categories, match_panoptic, panoptic_quality
from .predictors import NO_CLASS, Prediction, Task


@dataclass
class SegmentCounts:
    """How many annotated segments got the right class, by their class.

    Attributes:
        correct: ``(num_classes,)`` int64.
        total: ``(num_classes,)`` int64.
    """

    correct: np.ndarray
    total: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int) -> SegmentCounts:
        """No segments yet."""
        return cls(np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))

    def add(self, other: SegmentCounts) -> None:
        """Adds other counts in place."""
        self.correct += other.correct
        self.total += other.total

    def accuracy(self, members: np.ndarray | None = None) -> float:
        """Share of segments with the right class, of all classes or of those that a boolean array marks."""
        members = np.ones(len(self.total), bool) if members is None else members
        total = int(self.total[members].sum())
        return int(self.correct[members].sum()) / total if total else float("nan")


@dataclass
class MethodCounts:
    """The counts of one method; parts of tasks that are not evaluated are None.

    Attributes:
        semantic, panoptic, instance: States of the three metrics.
        segments: Classified segments, where masks come from the annotation.
    """

    semantic: ConfusionCounts | None = None
    panoptic: PanopticCounts | None = None
    instance: DetectionRecords | None = None
    segments: SegmentCounts | None = None

    @classmethod
    def empty(cls, tasks: Sequence[Task], num_classes: int, with_segments: bool) -> MethodCounts:
        """Nothing counted yet."""
        return cls(
            semantic=ConfusionCounts() if "semantic" in tasks else None,
            panoptic=PanopticCounts() if "panoptic" in tasks else None,
            instance=DetectionRecords() if "instance" in tasks else None,
            segments=SegmentCounts.zeros(num_classes) if with_segments else None,
        )

    def add(self, other: MethodCounts) -> None:
        """Adds other counts of the same tasks in place."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            if mine is not None:
                mine.add(theirs)

    def state_dict(self) -> dict[str, Any]:
        """The counts as plain lists, numbers and strings, for JSON."""
        state: dict[str, Any] = {}
        for name in ("semantic", "panoptic", "instance"):
            part = getattr(self, name)
            state[name] = None if part is None else part.state_dict()
        state["segments"] = None
        if self.segments is not None:
            state["segments"] = {"correct": self.segments.correct.tolist(), "total": self.segments.total.tolist()}
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> MethodCounts:
        """Counts from the result of `state_dict`."""
        classes = {"semantic": ConfusionCounts, "panoptic": PanopticCounts, "instance": DetectionRecords}
        parts = {
            name: None if state[name] is None else part.from_state_dict(state[name])  # type: ignore[attr-defined]
            for name, part in classes.items()
        }
        segments = state["segments"]
        if segments is not None:
            segments = SegmentCounts(np.array(segments["correct"], np.int64), np.array(segments["total"], np.int64))
        return cls(**parts, segments=segments)


def count_sample(
    prediction: Prediction, sample: SegmentationSample, index: int, vocabulary: Vocabulary, tasks: Sequence[Task]
) -> MethodCounts:
    """Counts one picture.

    Args:
        prediction: What the model says.
        sample: Picture and annotation.
        index: The sample's place in its data set, by which ties in instance scores are ranked.
        vocabulary: The classes.
        tasks: What to count.

    Raises:
        ValueError, TypeError: The prediction does not fit the annotation; see the metrics' functions.
    """
    counts = MethodCounts()
    segments = [
        {
            "id": segment.id,
            "category_id": segment.category_id,
            "iscrowd": segment.iscrowd,
            "isthing": vocabulary.classes[segment.category_id].is_thing is not False,
        }
        for segment in sample.segments_info
    ]
    annotation = {"segmentation": sample.segmentation, "segments_info": segments}
    if "semantic" in tasks:
        counts.semantic = count_confusions(prediction.semantic, sample.label_map(NO_CLASS), index)
        check_class_ids(counts.semantic, len(vocabulary), NO_CLASS)
    if "panoptic" in tasks:
        counts.panoptic = match_panoptic(prediction.panoptic, annotation, index)
        check_categories(counts.panoptic, range(len(vocabulary)))
    if "instance" in tasks:
        counts.instance = match_detections(prediction.instance, annotation, index)
        check_categories(counts.instance, vocabulary.thing_ids)
    if prediction.segment_labels is not None:
        counts.segments = SegmentCounts.zeros(len(vocabulary))
        for segment, label in zip(sample.segments_info, prediction.segment_labels, strict=True):
            if not segment.iscrowd:
                counts.segments.total[segment.category_id] += 1
                counts.segments.correct[segment.category_id] += label == segment.category_id
    return counts


def sample_score(counts: MethodCounts, num_classes: int) -> float:
    """How good the prediction of one picture is, from 0 to 1, to find the worst; NaN if nothing is annotated.

    Mean IoU over the classes that occur in it; without semantic predictions, panoptic quality over all segments, or the
    share of annotated instances that are found with an IoU of at least one half.
    """
    if counts.semantic is not None:
        return float(mean_iou(counts.semantic, num_classes, NO_CLASS)["mean_iou"])
    if counts.panoptic is not None:
        return panoptic_quality(counts.panoptic, dict.fromkeys(range(num_classes)))["pq"]
    assert counts.instance is not None
    records = [record for records in counts.instance.categories.values() for record in records]
    annotated = sum(int(record.num_annotated[0]) for record in records)
    found = sum(int((record.matched[0] & ~record.ignored[0] & 1).sum()) for record in records)
    return found / annotated if annotated else float("nan")


def summarize(counts: MethodCounts, vocabulary: Vocabulary, seen_classes: Sequence[bool] | None) -> dict[str, Any]:
    """The results of one method.

    Args:
        counts: Its counts, over all samples.
        vocabulary: The classes.
        seen_classes: Which of them the model saw in training, if that is known.

    Returns:
        A dict of ``metrics`` (name → number, fractions from 0 to 1), ``per_class`` (a dict for each class) and
        ``confusions`` (the most frequent confusions of two classes).
    """
    metrics: dict[str, float] = {}
    num_classes = len(vocabulary)
    per_class: list[dict[str, Any]] = [{"name": entry.name, "thing": entry.is_thing} for entry in vocabulary]
    groups = {
        "things": np.array([entry.is_thing is True for entry in vocabulary]),
        "stuff": np.array([entry.is_thing is False for entry in vocabulary]),
    }
    if seen_classes is not None:
        groups |= {"seen": np.array(seen_classes), "unseen": ~np.array(seen_classes)}
        for row, seen in zip(per_class, seen_classes, strict=True):
            row["seen"] = bool(seen)

    def add_column(name: str, values: np.ndarray, classes: Sequence[int]) -> None:
        for index, value in zip(classes, values.tolist(), strict=True):
            per_class[index][name] = value

    def add_groups(name: str, values: np.ndarray, suffixes: Sequence[str]) -> None:
        for suffix in suffixes:
            chosen = values[groups[suffix]] if suffix in groups else values[:0]
            if not np.isnan(chosen).all():
                metrics[f"{name}_{suffix}"] = float(np.nanmean(chosen))

    everything = range(num_classes)
    confusions: list[dict[str, Any]] = []
    if counts.semantic is not None:
        result = mean_iou(counts.semantic, num_classes, NO_CLASS)
        metrics |= {name: float(result[name]) for name in ("mean_iou", "mean_accuracy", "overall_accuracy")}
        add_groups("mean_iou", result["per_category_iou"], ("things", "stuff", "seen", "unseen"))
        matrix = confusion_matrix(counts.semantic, num_classes, NO_CLASS)
        add_column("pixels", matrix[:num_classes].sum(axis=1), everything)
        add_column("iou", result["per_category_iou"], everything)
        add_column("accuracy", result["per_category_accuracy"], everything)
        confusions = _confusions(matrix, vocabulary)
    if counts.panoptic is not None:
        result = panoptic_quality(counts.panoptic, {index: entry.is_thing for index, entry in enumerate(vocabulary)})
        metrics |= {name: value for name, value in result.items() if not name.startswith("per_category")}
        add_groups("pq", result["per_category_pq"], ("seen", "unseen"))
        for name in ("pq", "sq", "rq"):
            add_column(name, result[f"per_category_{name}"], everything)
    if counts.instance is not None:
        things = vocabulary.thing_ids
        result = mask_average_precision(counts.instance, things)
        metrics |= {name: value for name, value in result.items() if not name.startswith("per_category")}
        of_all = np.full(num_classes, np.nan)
        of_all[list(things)] = result["per_category_ap"]
        add_groups("ap", of_all, ("seen", "unseen"))
        add_column("ap", result["per_category_ap"], things)
    if counts.segments is not None:
        metrics["segment_accuracy"] = counts.segments.accuracy()
        for suffix, members in groups.items():
            value = counts.segments.accuracy(members)
            if not np.isnan(value):
                metrics[f"segment_accuracy_{suffix}"] = value
        add_column("segments", counts.segments.total, everything)
        add_column("segments_right", counts.segments.correct, everything)
    return {"metrics": metrics, "per_class": per_class, "confusions": confusions}


def _confusions(matrix: np.ndarray, vocabulary: Vocabulary, limit: int = 20) -> list[dict[str, Any]]:
    num_classes = len(vocabulary)
    pixels = matrix[:num_classes, :num_classes].copy()
    np.fill_diagonal(pixels, 0)
    annotated = matrix[:num_classes].sum(axis=1)
    order = np.argsort(-pixels, axis=None, kind="stable")[:limit]
    rows = []
    for truth, guess in zip(*(axis.tolist() for axis in np.unravel_index(order, pixels.shape)), strict=True):
        count = int(pixels[truth, guess])
        if count:
            names = {"annotated": vocabulary.names[truth], "predicted": vocabulary.names[guess]}
            rows.append({**names, "pixels": count, "share_of_annotated": count / int(annotated[truth])})
    return rows


__all__ = ["MethodCounts", "SegmentCounts", "count_sample", "sample_score", "summarize"]
