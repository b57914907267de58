"""Mean intersection over union from counts of value pairs: validate and count, merge, compute.

The definition is that of the `mean_iou` metric of Hugging Face Evaluate (after MMSegmentation): intersections and areas
are summed over all pixels of all images first and divided once. Because the counts are kept by *raw* value pair, every
option (number of labels, ignored value, label map, reduction) can be chosen after counting.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .label_maps import SampleId, as_integer_map, check_cells, check_same_size, pair_counts


def _no_values() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class ConfusionCounts:
    """Pixels by pair of raw values (annotated, predicted), over any number of images; its size depends on neither.

    Attributes:
        reference_values: ``(R,)`` int64, ascending: values that occurred in annotations.
        prediction_values: ``(P,)`` int64, ascending: values that occurred in predictions.
        counts: ``(R, P)`` int64 numbers of pixels.
        reference_samples: Sample in which each of ``reference_values`` was met first, for messages.
        prediction_samples: The same for ``prediction_values``.
        num_samples: Images counted.
    """

    reference_values: np.ndarray = field(default_factory=_no_values)
    prediction_values: np.ndarray = field(default_factory=_no_values)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    reference_samples: dict[int, SampleId] = field(default_factory=dict)
    prediction_samples: dict[int, SampleId] = field(default_factory=dict)
    num_samples: int = 0

    def add(self, other: ConfusionCounts) -> None:
        """Adds the counts of ``other`` in place.

        Raises:
            ValueError: So many distinct values that the maps cannot hold class ids.
        """
        rows = _union(self.reference_values, other.reference_values)
        columns = _union(self.prediction_values, other.prediction_values)
        if rows is not self.reference_values or columns is not self.prediction_values:
            check_cells(len(rows), len(columns), next(reversed(other.reference_samples.values()), 0))
            counts = np.zeros((len(rows), len(columns)), np.int64)
            counts[
                np.ix_(np.searchsorted(rows, self.reference_values), np.searchsorted(columns, self.prediction_values))
            ] = self.counts
            self.reference_values, self.prediction_values, self.counts = rows, columns, counts
            self.reference_samples = other.reference_samples | self.reference_samples
            self.prediction_samples = other.prediction_samples | self.prediction_samples
        place: Any = np.searchsorted(rows, other.reference_values), np.searchsorted(columns, other.prediction_values)
        if len(place[0]) == len(rows):  # the same values then, since all of other's are among these; much faster
            place = slice(None), place[1]
        elif len(place[1]) == len(columns):
            place = place[0], slice(None)
        else:
            place = np.ix_(*place)
        self.counts[place] += other.counts
        self.num_samples += other.num_samples

    def state_dict(self) -> dict[str, Any]:
        """The counts as plain lists of numbers and strings (JSON, `torch.save`), by non-zero cell."""
        rows, columns = np.nonzero(self.counts)
        return {
            "reference": self.reference_values[rows].tolist(),
            "prediction": self.prediction_values[columns].tolist(),
            "pixels": self.counts[rows, columns].tolist(),
            "reference_samples": [[value, sample] for value, sample in self.reference_samples.items()],
            "prediction_samples": [[value, sample] for value, sample in self.prediction_samples.items()],
            "num_samples": self.num_samples,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ConfusionCounts:
        """Counts from the result of `state_dict`."""
        rows, row_index = np.unique(np.asarray(state["reference"], np.int64), return_inverse=True)
        columns, column_index = np.unique(np.asarray(state["prediction"], np.int64), return_inverse=True)
        counts = np.zeros((len(rows), len(columns)), np.int64)
        counts[row_index, column_index] = state["pixels"]
        return cls(
            reference_values=rows,
            prediction_values=columns,
            counts=counts,
            reference_samples={int(value): sample for value, sample in state["reference_samples"]},
            prediction_samples={int(value): sample for value, sample in state["prediction_samples"]},
            num_samples=int(state["num_samples"]),
        )


def _union(values: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Ascending union of two ascending arrays; ``values`` itself if it holds all of ``more``."""
    place = np.searchsorted(values, more)
    known = place < len(values)
    known[known] = values[place[known]] == more[known]
    return values if known.all() else np.union1d(values, more)


def count_confusions(prediction: Any, reference: Any, sample_id: SampleId = 0) -> ConfusionCounts:
    """Counts one image.

    Args:
        prediction: ``(height, width)`` predicted class ids: numpy, torch (counted on its device), PIL, nested list, or
            an encoded picture (path, bytes).
        reference: Annotated class ids, of the same size.
        sample_id: What messages call the sample.

    Raises:
        ValueError: A missing map, a wrong number of axes, different sizes.
        TypeError: Values that are not whole numbers.
        FileNotFoundError: A map given as a path that does not exist.
    """
    prediction = as_integer_map(prediction, "prediction", sample_id)
    reference = as_integer_map(reference, "reference", sample_id)
    check_same_size(prediction, reference, sample_id)
    pairs = pair_counts(reference, prediction, sample_id)
    return ConfusionCounts(
        reference_values=pairs.rows,
        prediction_values=pairs.columns,
        counts=pairs.counts,
        reference_samples=dict.fromkeys(pairs.rows.tolist(), sample_id),
        prediction_samples=dict.fromkeys(pairs.columns.tolist(), sample_id),
        num_samples=1,
    )


def merge_confusions(parts: Iterable[ConfusionCounts]) -> ConfusionCounts:
    """The sum of several counts; exact, so that neither the order nor the division into parts matters."""
    total = ConfusionCounts()
    for part in parts:
        total.add(part)
    return total


def map_reference_values(
    values: np.ndarray,
    num_labels: int,
    ignore_index: int,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Applies ``label_map`` and ``reduce_labels`` to annotated values.

    Up to 254 labels, ``reduce_labels`` is the Hub metric's: v → v − 1, and both 0 and 255 become 255. Above, where 255
    is a class like others, 0 is ignored whatever ``ignore_index`` is and every other value v becomes v − 1, save an
    ``ignore_index`` beyond the raw labels (65535, say), which keeps its meaning; the Hub's metric loses two classes
    there.

    Returns:
        The new values and a boolean array that marks those to ignore.
    """
    mapped = values.astype(np.int64)
    for old, new in (label_map or {}).items():
        mapped[values == old] = new
    void = np.zeros(len(values), bool)
    if reduce_labels and num_labels <= 254:
        mapped = np.where((mapped == 0) | (mapped == 255), 255, mapped - 1)
    elif reduce_labels:
        void = mapped == 0
        kept = (mapped == ignore_index) & ((ignore_index > num_labels) | (ignore_index < 0))
        mapped = np.where(kept, mapped, mapped - 1)
    return mapped, void | (mapped == ignore_index)


def check_class_ids(
    counts: ConfusionCounts,
    num_labels: int,
    ignore_index: int,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
) -> None:
    """Checks that annotations hold classes or ignored values only, and predictions classes or ``ignore_index``.

    Raises:
        ValueError: Names the value and the first sample that holds it.
    """
    mapped, ignored = map_reference_values(counts.reference_values, num_labels, ignore_index, label_map, reduce_labels)
    allowed = ignored | ((mapped >= 0) & (mapped < num_labels))
    if reduce_labels and num_labels <= 254:
        allowed |= mapped == 255
    if not allowed.all():
        value = int(counts.reference_values[~allowed][0])
        raise ValueError(
            f"The annotation of sample {counts.reference_samples[value]!r} holds the value {value}, but {num_labels} "
            f"classes have the ids {int(reduce_labels)} to {num_labels - 1 + int(reduce_labels)} and {ignore_index} is "
            "ignored. Is it the annotation of another data set, or are `num_labels`, `ignore_index`, `label_map` or "
            "`reduce_labels` not the data set's?"
        )
    predicted = counts.prediction_values
    allowed = ((predicted >= 0) & (predicted < num_labels)) | (predicted == ignore_index)
    if not allowed.all():
        value = int(predicted[~allowed][0])
        raise ValueError(
            f"The prediction of sample {counts.prediction_samples[value]!r} holds the class id {value}, but "
            f"{num_labels} classes have the ids 0 to {num_labels - 1} (no prediction: {ignore_index}). Was it made "
            "with another vocabulary?"
        )


def confusion_matrix(
    counts: ConfusionCounts,
    num_labels: int,
    ignore_index: int,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
) -> np.ndarray:
    """Pixels by annotated and predicted class, without ignored pixels.

    Returns:
        ``(num_labels + 1, num_labels + 1)`` int64; ``[i, j]`` counts pixels of class i predicted as j. The last column
        holds predictions of no class (``ignore_index``), the last row annotations out of range that are not ignored.
    """
    mapped, ignored = map_reference_values(counts.reference_values, num_labels, ignore_index, label_map, reduce_labels)
    rows = np.where((mapped >= 0) & (mapped < num_labels), mapped, num_labels)[~ignored]
    predicted = counts.prediction_values
    columns = np.where((predicted >= 0) & (predicted < num_labels), predicted, num_labels)
    matrix = np.zeros((num_labels + 1, num_labels + 1), np.int64)
    np.add.at(matrix, np.ix_(rows, columns), counts.counts[~ignored])
    return matrix


def check_options(num_labels: int | None, ignore_index: int | None, reduce_labels: bool = False) -> None:
    """Checks the options of `mean_iou` that do not depend on data.

    Raises:
        TypeError: ``num_labels`` or ``ignore_index`` is missing.
        ValueError: ``num_labels`` is not positive, or above 254 reduced labels ``ignore_index`` is one of the classes.
    """
    if num_labels is None or ignore_index is None:
        missing = "num_labels" if num_labels is None else "ignore_index"
        raise TypeError(f"MeanIoU needs `{missing}`: give it to `compute` or when the metric is made.")
    if num_labels < 1:
        raise ValueError(f"`num_labels` must be at least 1, not {num_labels}.")
    if reduce_labels and num_labels > 254 and 0 <= ignore_index < num_labels:
        raise ValueError(
            f"With reduce_labels=True and {num_labels} labels, ignore_index={ignore_index} is one of the classes. "
            "Above 254 labels the background (raw 0) is ignored by itself; use an ignore_index outside the classes, "
            "e.g. 65535."
        )


def mean_iou(
    counts: ConfusionCounts,
    num_labels: int,
    ignore_index: int,
    nan_to_num: float | None = None,
    label_map: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
    strict: bool = True,
) -> dict[str, Any]:
    """Mean IoU and accuracies of what was counted.

    Args:
        counts: From `count_confusions`, merged over images.
        num_labels: Number of classes.
        ignore_index: Annotated pixels of this value (after ``label_map`` and ``reduce_labels``) are left out.
            Predictions are never left out for their own value: ``ignore_index`` predicted on a counted pixel is a miss.
        nan_to_num: What replaces NaN (classes that occur neither in annotations nor in predictions) in the result.
        label_map: Annotated value → class id, applied to raw values; values that it does not name stay.
        reduce_labels: Whether annotated class ids start at 1 and 0 is background; see `map_reference_values`.
        strict: Whether class ids out of range are errors (`check_class_ids`). If False they are treated as by the Hub's
            metric: not counted in the class's own area, yet predictions on such pixels count in the union.

    Returns:
        ``mean_iou``, ``mean_accuracy``, ``overall_accuracy``: numbers; ``per_category_iou``, ``per_category_accuracy``:
        ``(num_labels,)`` float64 arrays.

    Raises:
        ValueError: From `check_options` and, if ``strict``, `check_class_ids`.
    """
    check_options(num_labels, ignore_index, reduce_labels)
    if strict:
        check_class_ids(counts, num_labels, ignore_index, label_map, reduce_labels)
    matrix = confusion_matrix(counts, num_labels, ignore_index, label_map, reduce_labels)
    intersection = matrix.diagonal()[:num_labels].astype(np.float64)
    annotated = matrix[:num_labels].sum(axis=1).astype(np.float64)
    predicted = matrix[:, :num_labels].sum(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        per_category_iou = intersection / (annotated + predicted - intersection)
        per_category_accuracy = intersection / annotated
        result = {
            "mean_iou": np.nanmean(per_category_iou),
            "mean_accuracy": np.nanmean(per_category_accuracy),
            "overall_accuracy": intersection.sum() / annotated.sum(),
            "per_category_iou": per_category_iou,
            "per_category_accuracy": per_category_accuracy,
        }
    if nan_to_num is not None:
        result = {name: np.nan_to_num(value, nan=nan_to_num) for name, value in result.items()}
    return result
