"""COCO's matching of detections and its precision-recall curves, for all thresholds and area ranges at a time.

The rules and the arithmetic are those of pycocotools' `COCOeval.evaluateImg` and `COCOeval.accumulate`, so that every
number is equal to the last bit, without their loops over thresholds, areas and annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Matches(NamedTuple):
    """What became of the detections of one category in one image.

    Args:
        matched: whether a detection was matched, `(areas, thresholds, detections)` bool.
        ignored: whether it counts neither as right nor as wrong, `(areas, thresholds, detections)` bool.
        num_annotated: annotations that count, `(areas,)` int64.
    """

    matched: np.ndarray
    ignored: np.ndarray
    num_annotated: np.ndarray


def match_category(
    ious: np.ndarray,
    detected_areas: np.ndarray,
    annotated_areas: np.ndarray,
    is_crowd: np.ndarray,
    thresholds: np.ndarray,
    area_ranges: np.ndarray,
) -> Matches:
    """Matches each detection, the best first, with the annotation that it overlaps most among those that are left.

    Of annotations that overlap equally the last is taken. Ignored ones, crowds and those out of the area range, are
    taken only where no other overlaps enough, and crowds by any number of detections.

    Args:
        ious: `(detections, annotations)` float64, detections in the order of falling scores.
        detected_areas: `(detections,)`.
        annotated_areas: `(annotations,)`.
        is_crowd: `(annotations,)` bool.
        thresholds: least overlaps, `(thresholds,)`.
        area_ranges: smallest and largest areas, `(areas, 2)`.
    """
    smallest, largest = area_ranges[:, :1], area_ranges[:, 1:]
    is_outside = (detected_areas < smallest) | (detected_areas > largest)
    is_ignored = is_crowd | (annotated_areas < smallest) | (annotated_areas > largest)
    num_detections, num_annotations = ious.shape
    num_counting = num_annotations - np.count_nonzero(is_ignored, axis=1)
    shape = len(area_ranges), len(thresholds), num_detections
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    least = np.minimum(thresholds, 1 - 1e-10)
    reaches = (ious.max(axis=1, initial=0.0) >= least.min()).nonzero()[0]
    if not len(reaches):
        ignored |= is_outside[:, None]
        return Matches(matched, ignored, num_counting)
    is_free = np.ones((*shape[:2], num_annotations), bool)
    first_rank = 1 + num_annotations * ~is_ignored[:, None]
    areas, levels = np.arange(shape[0])[:, None], np.arange(shape[1])
    for detection in reaches:
        overlaps = ious[detection]
        rank = overlaps.argsort(kind="stable").argsort()
        is_eligible = is_free & (overlaps >= least[:, None])
        ranks = is_eligible * (first_rank + rank)
        best = ranks.argmax(axis=2)
        is_match = ranks.max(axis=2) > 0
        matched[:, :, detection] = is_match
        ignored[:, :, detection] = is_match & is_ignored[areas, best]
        is_free[areas, levels, best] &= ~is_match | is_crowd[best]
    ignored |= ~matched & is_outside[:, None]
    return Matches(matched, ignored, num_counting)


def precision_at_recalls(
    scores: np.ndarray, matched: np.ndarray, ignored: np.ndarray, num_annotated: int, recalls: np.ndarray
) -> np.ndarray:
    """The precision-recall curve of a category: the largest precision at each recall or beyond, 0 where there is none.

    Args:
        scores: `(detections,)`; of equal ones the first counts first.
        matched: `(thresholds, detections)` bool.
        ignored: `(thresholds, detections)` bool.
        num_annotated: annotations that count, at least one.
        recalls: where precision is wanted, ascending, `(recalls,)`.

    Returns:
        `(thresholds, recalls)`.
    """
    order = np.argsort(-scores, kind="mergesort")
    counts, matched = ~ignored[:, order], matched[:, order]
    right = np.cumsum(matched & counts, axis=1).astype(float)
    wrong = np.cumsum(~matched & counts, axis=1).astype(float)
    recall = right / num_annotated
    precision = right / (wrong + right + np.spacing(1))
    envelope = np.zeros((precision.shape[0], precision.shape[1] + 1))
    envelope[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.stack([curve[of.searchsorted(recalls)] for curve, of in zip(envelope, recall, strict=True)])


def best_of_each(scores: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Which of several images' detections, one behind the other, are among the first `most` of their image, bool."""
    places = np.arange(max(map(len, scores), default=0))
    return np.concatenate([places[: len(of_image)] for of_image in scores]) < most


__all__ = ["Matches", "best_of_each", "match_category", "precision_at_recalls"]
