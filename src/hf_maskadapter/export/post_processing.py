"""Class scores and masks to segments at the picture's size, with NumPy: the rules of `post_processing_maskadapter`.

A bilinear resize mixes rows and columns independently, each by a matrix. From a mask's cells to the picture's pixels
there are two resizes, first to the padded input and from its part that is the picture to the wanted size, so that rows
pass one product of two such matrices, and so do columns. A strip of rows is computed at a time, so that memory stays
bounded whatever the size of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..model.segments import Segment, Segments, Task
from ..model.vocabulary import Vocabulary

MASK_THRESHOLD = 0.5

Size = tuple[int, int]

_STRIP_ELEMENTS = 2**21  # 8 MiB of floats
_AREA_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class PictureMasks:
    """One picture's masks, on their way from the padded input to the wanted size.

    Args:
        logits: `(num_masks, height, width)` fp32, covering the padded input.
        padded: height and width of the padded input.
        image: the picture's inside it.
        wanted: of the result.
        places: which of the picture's masks these are, `(num_masks,)`.
    """

    logits: np.ndarray
    padded: Size
    image: Size
    wanted: Size
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)

    def chosen(self, places: np.ndarray) -> PictureMasks:
        """Some of the masks."""
        return replace(self, logits=self.logits[places], places=self.places[places])

    def strips(self, maps_per_row: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of the wanted size, as many at a time as memory is meant for, and their logits.

        Args:
            maps_per_row: what else is kept of each row, as maps.

        Yields:
            Rows, and `(num_masks, num_rows, width)` fp32.
        """
        rows_of, columns_of = (self._matrix(axis) for axis in (0, 1))
        height, width = self.wanted
        rows = max(_STRIP_ELEMENTS // (max(maps_per_row, len(self), 1) * max(width, self.padded[1])), 1)
        for start in range(0, height, rows):
            strip = slice(start, min(start + rows, height))
            mixing = rows_of[strip]
            cells = np.flatnonzero(mixing.any(axis=0))
            window = slice(int(cells[0]), int(cells[-1]) + 1)
            yield strip, mixing[:, window] @ (self.logits[:, window] @ columns_of.T)

    def _matrix(self, axis: int) -> np.ndarray:
        """What mixes cells into wanted rows or columns, `(wanted, cells)`."""
        cells, padded, image, wanted = (
            size[axis] for size in (self.logits.shape[1:], self.padded, self.image, self.wanted)
        )
        return _bilinear(image, wanted) @ _bilinear(cells, padded)[:image]


def _bilinear(old: int, new: int) -> np.ndarray:
    """The matrix `(new, old)` of a bilinear resize (`align_corners=False`, no antialiasing)."""
    if old == new:
        return np.eye(new, dtype=np.float32)
    centers = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    lower = centers.astype(np.int64)
    share = (centers - lower).astype(np.float32)
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), lower] = 1 - share
    matrix[np.arange(new), np.minimum(lower + 1, old - 1)] += share
    return matrix


def resize_masks(masks: np.ndarray, size: Size) -> np.ndarray:
    """Resize `(num_masks, height, width)` masks bilinearly, without antialiasing."""
    if masks.shape[1:] == tuple(size):
        return masks
    rows, columns = (_bilinear(old, new) for old, new in zip(masks.shape[1:], size, strict=True))
    return rows @ (masks @ columns.T)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-value)), without overflow."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-values))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax along the last dimension."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def label_map(class_logits: np.ndarray, masks: PictureMasks) -> np.ndarray:
    """The class of every pixel: the largest sum of class probability times mask probability. Void is never chosen.

    Args:
        class_logits: `(num_masks, num_classes + 1)`, void last.
        masks: the picture's.

    Returns:
        `(height, width)` int64.
    """
    probabilities = np.ascontiguousarray(softmax(class_logits)[:, :-1].T)
    labels = np.zeros(masks.wanted, np.int64)
    if not len(masks):
        return labels
    for strip, logits in masks.strips(len(probabilities)):
        scores = probabilities @ sigmoid(logits).reshape(len(masks), -1)
        labels[strip] = scores.argmax(axis=0).reshape(labels[strip].shape)
    return labels


@dataclass(frozen=True)
class Thresholds:
    """Of panoptic and instance results; see `post_process_panoptic_segmentation`."""

    score: float
    overlap: float
    top_k: int


def find_segments(
    class_logits: np.ndarray,
    masks: PictureMasks,
    embeddings: np.ndarray,
    task: Task,
    vocabulary: Vocabulary,
    thresholds: Thresholds,
) -> Segments:
    """A picture's segments.

    Args:
        class_logits: `(num_masks, num_classes + 1)`, void last.
        masks: the picture's.
        embeddings: of the masks, normalised, `(num_masks, embed_dim)`.
        task: `"semantic"`, `"panoptic"` or `"instance"`.
        vocabulary: the classes.
        thresholds: of segments with scores.
    """
    if task == "semantic":
        return Segments.from_label_map(label_map(class_logits, masks), vocabulary, None)
    find = _panoptic_segments if task == "panoptic" else _instances
    found = [
        Segment.of_class(vocabulary, label, mask, score=score, embedding=embeddings[place])
        for label, score, place, mask in find(class_logits, masks, vocabulary, thresholds)
    ]
    segments = Segments(found, masks.wanted, vocabulary, task)
    return segments if task == "panoptic" else segments.smaller_on_top()


Found = tuple[int, float, int, np.ndarray]
"""A segment's class, score, mask among the picture's, and pixels."""


def _panoptic_segments(
    class_logits: np.ndarray, masks: PictureMasks, vocabulary: Vocabulary, thresholds: Thresholds
) -> list[Found]:
    probabilities = softmax(class_logits)
    labels, scores = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    kept = np.flatnonzero((labels != class_logits.shape[-1] - 1) & (scores > thresholds.score))
    if not len(kept):
        return []
    winners, areas = _assign_pixels(masks.chosen(kept), scores[kept])
    segments: list[list] = []
    segment_of = np.full(len(kept) + 1, -1)  # the last entry is for pixels without a segment
    fused: dict[int, int] = {}
    stuff = set(vocabulary.stuff_ids)
    for position, place in enumerate(kept.tolist()):
        won, own, visible = areas[:, position]
        label, score = int(labels[place]), float(scores[place])
        if not visible or won / own < thresholds.overlap:
            continue
        number = fused.get(label)
        if number is None:
            number = len(segments)
            segments.append([label, score, int(masks.places[place])])
            if label in stuff:
                fused[label] = number
        elif score > segments[number][1]:
            segments[number][1:] = [score, int(masks.places[place])]
        segment_of[position] = number
    ids = segment_of[winners]
    return [(*segment, ids == number) for number, segment in enumerate(segments)]  # type: ignore[misc]


def _assign_pixels(masks: PictureMasks, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The winning mask of every pixel that lies inside it, else their number; and of each mask three areas.

    Returns:
        `(height, width)` int64; and the pixels that each mask won, those inside it, those that are both, `(3,
        num_masks)`.
    """
    number = len(masks)
    winners = np.full(masks.wanted, number, np.int64)
    areas = np.zeros((3, number), np.int64)
    for strip, logits in masks.strips(number):
        probabilities = sigmoid(logits)
        is_inside = probabilities >= MASK_THRESHOLD
        weighted = probabilities * scores[:, None, None].astype(np.float32)
        winner = weighted.argmax(axis=0)
        largest = weighted.max(axis=0)
        winner_is_inside = np.take_along_axis(is_inside, winner[None], axis=0)[0]
        winners[strip] = np.where(winner_is_inside, winner, number)
        areas[0] += np.bincount(winner[largest > 0], minlength=number)
        areas[1] += is_inside.sum(axis=(1, 2))
        areas[2] += np.bincount(winner[winner_is_inside], minlength=number)
    return winners, areas


def _instances(
    class_logits: np.ndarray, masks: PictureMasks, vocabulary: Vocabulary, thresholds: Thresholds
) -> list[Found]:
    class_scores = softmax(class_logits)[:, :-1]
    num_classes = class_scores.shape[-1]
    pairs = np.argsort(-class_scores.ravel(), kind="stable")[: thresholds.top_k]
    pairs = pairs[np.isin(pairs % num_classes, vocabulary.thing_ids)]
    places, of_pair = np.unique(pairs // num_classes, return_inverse=True)
    chosen = masks.chosen(places)
    scores = class_scores.ravel()[pairs] * _mean_inside(chosen)[of_pair]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > thresholds.score]
    pixels = np.empty((len(chosen), *masks.wanted), bool)
    for strip, logits in chosen.strips(len(chosen)):
        pixels[:, strip] = logits > 0
    return [
        (int(pairs[one] % num_classes), float(scores[one]), int(chosen.places[of_pair[one]]), pixels[of_pair[one]])
        for one in order
    ]


def _mean_inside(masks: PictureMasks) -> np.ndarray:
    """Mean probability inside each mask, 0 for an empty one, `(num_masks,)`."""
    totals = np.zeros((2, len(masks)), np.float32)
    for _, logits in masks.strips(len(masks)):
        is_inside = logits > 0
        totals[0] += (sigmoid(logits) * is_inside).sum(axis=(1, 2))
        totals[1] += is_inside.sum(axis=(1, 2))
    return totals[0] / (totals[1] + _AREA_EPS)


def pooling_weights(masks: np.ndarray, size: Size, form: str, threshold: float) -> np.ndarray:
    """Weight of each feature cell in mask pooling, `(num_masks, *size)` fp32; see `mask_embedding.pooling_weights`."""
    if form == "hard":
        return (resize_masks(masks, size) > threshold).astype(np.float32)
    inside = (masks > threshold).astype(np.float32)
    for axis, new in ((1, size[0]), (2, size[1])):
        old = inside.shape[axis]
        bounds = [(number * old // new, -(-(number + 1) * old // new)) for number in range(new)]
        reduce = np.mean if form == "area" else np.max
        inside = np.stack([reduce(inside.take(range(*bound), axis), axis=axis) for bound in bounds], axis)
    return inside


__all__ = [
    "PictureMasks",
    "Thresholds",
    "find_segments",
    "label_map",
    "pooling_weights",
    "resize_masks",
    "sigmoid",
    "softmax",
]
