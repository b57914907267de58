"""Panoptic quality (Kirillov et al., 2019, arXiv 1801.00868): match one image, merge, compute.

The rules for void and crowd are those of `panopticapi`, the implementation behind published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...model.segments import Segments
from .label_maps import SampleId, as_segment_map, check_listed, check_same_size, pair_counts, segment_entries, to_numpy

# The IoU of a match lies in (0.5, 1], where doubles are whole multiples of 2**-53: their sum is kept as an integer.
_IOU_UNITS = 1 << 53


@dataclass
class CategoryMatches:
    """Matches of one category.

    Attributes:
        iou_units: Sum of the matches' IoU in units of 2⁻⁵³, exact, so that the order of adding does not matter.
        true_positives: Matched pairs of segments.
        false_positives: Predicted segments without a match.
        false_negatives: Annotated segments without a match.
    """

    iou_units: int = 0
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def counted(self) -> bool:
        """Whether the category occurred in what was evaluated."""
        return self.true_positives + self.false_positives + self.false_negatives > 0

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the matches; 0 without any."""
        return self.iou_units / (_IOU_UNITS * self.true_positives) if self.true_positives else 0.0

    @property
    def recognition_quality(self) -> float:
        """F1 score of the matching; NaN if the category did not occur."""
        errors = 0.5 * (self.false_positives + self.false_negatives)
        return self.true_positives / (self.true_positives + errors) if self.counted else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """Sum of IoU over matches plus half the errors; NaN if the category did not occur."""
        errors = 0.5 * (self.false_positives + self.false_negatives)
        return self.iou_units / _IOU_UNITS / (self.true_positives + errors) if self.counted else float("nan")


@dataclass
class PanopticCounts:
    """Matches by category, over any number of images.

    Attributes:
        categories: Category id → its matches.
        reference_samples: Category id → first sample whose annotation holds it, for messages.
        prediction_samples: Category id → first sample whose prediction holds it.
        num_samples: Images counted.
    """

    categories: dict[int, CategoryMatches] = field(default_factory=dict)
    reference_samples: dict[int, SampleId] = field(default_factory=dict)
    prediction_samples: dict[int, SampleId] = field(default_factory=dict)
    num_samples: int = 0

    def __getitem__(self, category: int) -> CategoryMatches:
        return self.categories.setdefault(category, CategoryMatches())

    def add(self, other: PanopticCounts) -> None:
        """Adds the counts of ``other`` in place."""
        for category, more in other.categories.items():
            mine = self[category]
            mine.iou_units += more.iou_units
            mine.true_positives += more.true_positives
            mine.false_positives += more.false_positives
            mine.false_negatives += more.false_negatives
        self.reference_samples = other.reference_samples | self.reference_samples
        self.prediction_samples = other.prediction_samples | self.prediction_samples
        self.num_samples += other.num_samples

    def state_dict(self) -> dict[str, Any]:
        """The counts as plain lists of numbers and strings (JSON, `torch.save`)."""
        return {
            "categories": [
                # The sum of IoUs may exceed 64 bits, which some readers of JSON would round.
                [category, str(m.iou_units), m.true_positives, m.false_positives, m.false_negatives]
                for category, m in sorted(self.categories.items())
            ],
            "reference_samples": [[category, sample] for category, sample in self.reference_samples.items()],
            "prediction_samples": [[category, sample] for category, sample in self.prediction_samples.items()],
            "num_samples": self.num_samples,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> PanopticCounts:
        """Counts from the result of `state_dict`."""
        return cls(
            categories={
                int(category): CategoryMatches(int(iou), int(tp), int(fp), int(fn))
                for category, iou, tp, fp, fn in state["categories"]
            },
            reference_samples={int(category): sample for category, sample in state["reference_samples"]},
            prediction_samples={int(category): sample for category, sample in state["prediction_samples"]},
            num_samples=int(state["num_samples"]),
        )


def match_panoptic(prediction: Any, reference: Any, sample_id: SampleId = 0) -> PanopticCounts:
    """Matches the segments of one image.

    Args:
        prediction: [`Segments`]; or a dict of ``segmentation``, a map of segment ids, and ``segments_info``, a list
            of dicts with ``id`` and ``label_id`` or ``category_id``, as the `post_process_panoptic_segmentation`
            functions of Transformers and of this package give it. The map is (height, width), or (height, width, 3)
            with id = R + 256·G + 256²·B (COCO's PNG). Pixels of id 0 or less that no segment lists belong to no
            segment: where nothing was found, Transformers gives a map of floats −1, which counts misses only, as does
            `None` beside an empty list. An entry that was fused may be listed again.
        reference: The same for the annotation, with an optional ``"iscrowd"`` in each segment. Id 0 (or less) is void.
        sample_id: What messages call the sample.

    Returns:
        Counts of this image. An annotated segment and a predicted one of its category match if their IoU, without the
        pixels that are void in the annotation, exceeds one half. Of the rest, crowd segments are left out, and so are
        predicted segments of which more than one half lies in void or in the crowd segment of their category (the last
        one listed, if an image has several).

    Raises:
        ValueError: A missing part, sizes that differ, an id given twice or not listed, a listed prediction without
            pixels.
        TypeError: Segment ids that are not whole numbers.
    """
    predicted_map, predicted_segments = _parse(prediction, "prediction", sample_id)
    reference_map, reference_segments = _parse(reference, "reference", sample_id)
    if predicted_map is None:
        predicted_map = np.full(to_numpy(reference_map).shape, -1)
    check_same_size(predicted_map, reference_map, sample_id)
    pairs = pair_counts(reference_map, predicted_map, sample_id)
    check_listed(pairs.rows, reference_segments, "reference", sample_id)
    check_listed(pairs.columns, predicted_segments, "prediction", sample_id)
    if any(segment_id <= 0 for segment_id in reference_segments):
        raise ValueError(
            f"The reference of sample {sample_id!r} lists a segment of id 0 or less, which is kept for void."
        )
    column_of = {int(segment_id): column for column, segment_id in enumerate(pairs.columns)}
    row_of = {int(segment_id): row for row, segment_id in enumerate(pairs.rows)}
    if missing := predicted_segments.keys() - column_of.keys():
        raise ValueError(
            f"The prediction of sample {sample_id!r} lists the segments {sorted(missing)}, of which its map has no "
            "pixel."
        )

    predicted_areas, reference_areas = pairs.counts.sum(axis=0), pairs.counts.sum(axis=1)
    void_areas = pairs.counts[pairs.rows <= 0].sum(axis=0)
    counts = PanopticCounts(num_samples=1)
    matched_rows, matched_columns = set(), set()
    for row, column in np.argwhere(2 * pairs.counts > reference_areas[:, None]).tolist():
        # IoU > 1/2 implies that more than half of the annotated segment is covered, so that no other pair needs a look.
        segment = reference_segments.get(int(pairs.rows[row]))
        predicted = predicted_segments.get(int(pairs.columns[column]))
        if segment is None or predicted is None or segment[1] or segment[0] != predicted[0]:
            continue
        intersection = int(pairs.counts[row, column])
        union = int(predicted_areas[column] + reference_areas[row] - void_areas[column]) - intersection
        iou = intersection / union
        if iou > 0.5:
            matches = counts[segment[0]]
            matches.true_positives += 1
            matches.iou_units += int(iou * _IOU_UNITS)
            matched_rows.add(row)
            matched_columns.add(column)

    crowd_rows: dict[int, int] = {}
    for segment_id, (category, is_crowd) in reference_segments.items():
        counts.reference_samples[category] = sample_id
        row = row_of.get(segment_id, -1)
        if row in matched_rows:
            continue
        if is_crowd:
            crowd_rows[category] = row
        else:
            counts[category].false_negatives += 1
    for segment_id, (category, _) in predicted_segments.items():
        counts.prediction_samples[category] = sample_id
        column = column_of[segment_id]
        if column in matched_columns:
            continue
        excused = int(void_areas[column])
        if crowd_rows.get(category, -1) >= 0:
            excused += int(pairs.counts[crowd_rows[category], column])
        if excused / int(predicted_areas[column]) <= 0.5:
            counts[category].false_positives += 1
    return counts


def merge_panoptic(parts: Iterable[PanopticCounts]) -> PanopticCounts:
    """The sum of several counts; exact, so that neither the order nor the division into parts matters."""
    total = PanopticCounts()
    for part in parts:
        total.add(part)
    return total


def check_categories(counts: Any, categories: Iterable[int]) -> None:
    """Checks that all counted categories are among those evaluated.

    Args:
        counts: Counts with ``reference_samples`` and ``prediction_samples`` by category.
        categories: Category ids.

    Raises:
        ValueError: Names the category and the first sample that holds it.
    """
    known = set(categories)
    for role, samples in (("annotation", counts.reference_samples), ("prediction", counts.prediction_samples)):
        for category in sorted(samples.keys() - known):
            hint = (
                "Is it the annotation of another data set?"
                if role == "annotation"
                else "Was it made for other classes?"
            )
            raise ValueError(
                f"The {role} of sample {samples[category]!r} has a segment of category {category}, which is not among "
                f"the {len(known)} categories evaluated. {hint}"
            )


def panoptic_quality(counts: PanopticCounts, categories: Mapping[int, bool | None]) -> dict[str, Any]:
    """Panoptic, segmentation and recognition quality of what was counted.

    Args:
        counts: From `match_panoptic`, merged over images.
        categories: Category id → whether it is a thing (True) or stuff (False); None: counted in "all" only.

    Returns:
        ``pq``, ``sq``, ``rq`` and the same with ``_things`` and ``_stuff``: means over the categories that occurred, as
        fractions (NaN if none did); ``per_category_pq``, ``per_category_sq``, ``per_category_rq``: float64 arrays in
        the order of ``categories``, NaN for categories that did not occur (panopticapi prints 0 for them).

    Raises:
        ValueError: A counted category is not among ``categories``.
    """
    check_categories(counts, categories)
    matches = [counts.categories.get(category, CategoryMatches()) for category in categories]
    occurred = np.array([m.counted for m in matches], bool)
    values = {
        "pq": np.array([m.panoptic_quality for m in matches]),
        "sq": np.array([m.segmentation_quality if m.counted else np.nan for m in matches]),
        "rq": np.array([m.recognition_quality for m in matches]),
    }
    groups = {
        "": np.ones(len(matches), bool),
        "_things": np.array([is_thing is True for is_thing in categories.values()], bool),
        "_stuff": np.array([is_thing is False for is_thing in categories.values()], bool),
    }
    result: dict[str, Any] = {}
    for suffix, members in groups.items():
        chosen = occurred & members
        for name, per_category in values.items():
            result[name + suffix] = float(per_category[chosen].mean()) if chosen.any() else float("nan")
    return result | {f"per_category_{name}": per_category for name, per_category in values.items()}


def _parse(value: Any, role: str, sample_id: SampleId) -> tuple[Any, dict[int, tuple[int, bool]]]:
    """The map of segment ids and, by id, (category, is crowd)."""
    if value is None:
        raise ValueError(f"The {role} of sample {sample_id!r} is missing (None).")
    if isinstance(value, Segments):
        value = value.panoptic_map()
    if not isinstance(value, Mapping) or not {"segmentation", "segments_info"} <= value.keys():
        raise ValueError(
            f"The {role} of sample {sample_id!r} must be a dict with `segmentation` (a map of segment ids) and "
            f"`segments_info` (a list of dicts with `id` and `category_id`); got {_describe(value)}."
        )
    segments = {
        entry.id: (entry.category, bool(entry.info.get("iscrowd", False)))
        for entry in segment_entries(value["segments_info"], role, sample_id)
    }
    if value["segmentation"] is None and not segments and role == "prediction":
        return None, segments
    return as_segment_map(value["segmentation"], segments, role, sample_id), segments


def _describe(value: Any) -> str:
    return f"a dict with {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
