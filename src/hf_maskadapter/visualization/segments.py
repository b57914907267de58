"""Results in any form, as a map of segments that can be painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..model.masks import as_array
from ..model.pictures import as_viewer_shows

ABSENT = -1
"""In a map of segment indices: no segment here."""


def as_picture(image: Any) -> Image.Image:
    """A picture in any form as RGB, turned as a viewer shows it."""
    return as_viewer_shows(image)


class Segments(NamedTuple):
    """What is where in a picture."""

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


def from_map(
    picture: Image.Image,
    segmentation: Any,
    segments_info: Sequence[Mapping[str, Any]] | None,
    labels: Sequence[str] | None,
) -> Segments:
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
        return Segments(lookup[known], [labels[i] for i in present], [None] * len(present))

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
    return Segments(indices, names, scores)


def from_masks(picture: Image.Image, segments: Sequence[Mapping[str, Any]]) -> Segments:
    """Masks with names, as a segmentation pipeline returns them.

    Raises:
        ValueError: if a mask is not of the picture's size.
    """
    masks = [as_array(segment["mask"]) for segment in segments]
    for mask in masks:
        _check_size(picture, mask, "a mask")
    indices = np.full((picture.height, picture.width), ABSENT)
    for index in sorted(range(len(masks)), key=lambda index: -np.count_nonzero(masks[index])):
        indices[masks[index] > 0] = index  # where masks overlap, the smaller one lies on top
    names = [str(segment["label"]) for segment in segments]
    scores = [segment.get("score") for segment in segments]
    return Segments(indices, names, scores)


__all__ = ["ABSENT", "Segments", "as_picture", "from_map", "from_masks"]
