"""Results in any form, as the map that is painted: which segment each pixel shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..model.masks import as_array, binary_mask
from ..model.segments import Segments

ABSENT = -1
"""In a map of segment indices: no segment here."""


class IndexMap(NamedTuple):
    """What each pixel of a picture shows."""

    indices: np.ndarray
    """(height, width) index into `names`, or `ABSENT`."""
    names: list[str]
    scores: list[float | None]


def _check_size(picture: Image.Image, array: np.ndarray, what: str) -> None:
    if array.shape != (picture.height, picture.width):
        raise ValueError(
            f"{what} has shape {array.shape}, but the picture is {picture.height} pixels high and {picture.width} "
            "wide: post-process with target_sizes=[(height, width)] of the picture."
        )


def from_segments(picture: Image.Image, segments: Segments) -> IndexMap:
    """The result that everything here gives; later segments lie on top.

    Raises:
        ValueError: if it is of a picture of another size.
    """
    indices = segments.segment_map() - 1
    _check_size(picture, indices, "the result")
    return IndexMap(indices, segments.labels, [segment.score for segment in segments])


def from_map(
    picture: Image.Image,
    segmentation: Any,
    segments_info: Sequence[Mapping[str, Any]] | None,
    labels: Sequence[str] | None,
) -> IndexMap:
    """A label map, or a map of segment ids with what they are.

    Raises:
        ValueError: if sizes do not match or names are missing.
    """
    values = as_array(segmentation)
    _check_size(picture, values, "the segmentation")
    values = values.astype(np.int64)
    if segments_info is None:
        if labels is None:
            raise ValueError("a label map needs labels=, the name of each class index.")
        known = np.where((values >= 0) & (values < len(labels)), values, len(labels))
        present = np.flatnonzero(np.bincount(known.ravel(), minlength=len(labels) + 1)[: len(labels)]).tolist()
        lookup = np.full(len(labels) + 1, ABSENT)
        lookup[present] = np.arange(len(present))
        return IndexMap(lookup[known], [labels[i] for i in present], [None] * len(present))

    names = []
    for info in segments_info:
        if info.get("label") is not None:
            names.append(str(info["label"]))
        elif labels is not None:
            names.append(labels[info["label_id"]])
        else:
            raise ValueError('segments_info without a "label" needs labels=, the name of each label_id.')
    indices = np.full(values.shape, ABSENT)
    if segments_info:
        ids = np.array([info["id"] for info in segments_info])
        order = np.argsort(ids)
        nearest = np.searchsorted(ids[order], values).clip(max=len(ids) - 1)
        indices = np.where(ids[order][nearest] == values, order[nearest], ABSENT)
    scores = [info.get("score") for info in segments_info]
    return IndexMap(indices, names, scores)


def from_masks(picture: Image.Image, segments: Sequence[Mapping[str, Any]]) -> IndexMap:
    """Masks with names, as a segmentation pipeline returns them.

    Raises:
        ValueError: if a mask is none, or not of the picture's size.
    """
    names = [str(segment["label"]) for segment in segments]
    masks = []
    for name, segment in zip(names, segments, strict=True):
        try:
            mask = binary_mask(segment["mask"])
        except ValueError as error:
            raise ValueError(f"The mask of {name!r} cannot be read: {error}") from error
        _check_size(picture, mask, f"{name!r}: a mask")
        masks.append(mask)
    indices = np.full((picture.height, picture.width), ABSENT)
    for index in sorted(range(len(masks)), key=lambda index: -np.count_nonzero(masks[index])):
        indices[masks[index]] = index  # where masks overlap, the smaller one lies on top
    scores = [segment.get("score") for segment in segments]
    return IndexMap(indices, names, scores)


__all__ = ["ABSENT", "IndexMap", "from_map", "from_masks", "from_segments"]
