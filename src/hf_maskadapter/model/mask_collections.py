"""Masks in all the forms that people and other tools have them in, read as one array."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .masks import (
    as_array,
    coco_mask,
    colors_to_ids,
    decode_run_lengths,
    is_polygon,
    masks_from_array,
    polygon_mask,
    shortened,
)

_FORMS = (
    "an array or tensor (num_masks, height, width), a label map (height, width), a panoptic PNG, COCO's run-length "
    "encodings, polygons or annotations, or detections with a .mask"
)
_INSIDE = ("masks", "segmentation", "mask")  # of results in dicts, in the order in which they are looked for


@dataclass
class ReadMasks:
    """Masks of one picture.

    Args:
        masks: `(num_masks, height, width)`, booleans, or floats in [0, 1].
        ids: for each mask its value in the map that it comes from, or its number from 0 on.
    """

    masks: np.ndarray
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = self.ids or list(range(len(self.masks)))


def read_masks(
    masks: Any, size: tuple[int, int], segments_info: Sequence[Mapping] | None = None, ignore_index: int | None = 0
) -> ReadMasks:
    """Read the masks of one picture.

    Args:
        masks: one of

            - `(num_masks, height, width)` booleans, integers 0 and 1 or 0 and 255, or floats in [0, 1]: an array, a
              tensor or a list of one mask each, which may be PIL pictures; one mask may come as `(height, width)`
              booleans or floats;
            - a label map or map of segments, `(height, width)` integers or a PIL picture: each value is a mask;
            - a panoptic map in COCO's form, `(height, width, 3)` or an RGB picture: R + 256 G + 65536 B is the segment;
            - the path of a picture of one of these kinds;
            - a list with one entry for each object, or one entry: COCO's run-length encoding, compressed or not (a dict
              of `size` and `counts`), a polygon (`[x, y, x, y, ...]` or `(num_points, 2)`), a list of polygons that
              belong together, or a COCO annotation, a dict with one of these as `"segmentation"`;
            - an object with an attribute `mask`, like `supervision.Detections`;
            - a result of this package or of Transformers, a dict with `"masks"`, `"mask"` or `"segmentation"`, of which
              a `"segments_info"` counts, too.
        size: height and width in pixels of the picture as a viewer shows it.
        segments_info: dicts with the `id` of each segment of a map that counts, in their order; by default all count.
        ignore_index: value of maps that is no mask; `None` if all are. Negative values never are.

    Raises:
        ValueError: if masks are malformed, empty or of another size than the picture, or there are none.
        TypeError: if they are nothing of the above.
        FileNotFoundError: if there is no such file.
    """
    read = _read(masks, size, segments_info, ignore_index)
    if not len(read.masks):
        raise ValueError("There is no mask to read.")
    empty = [number for number, mask in enumerate(read.masks) if not (mask > 0.5).any()]
    if empty:
        raise ValueError(f"Mask {empty[0]} is empty: it covers no pixel of the picture.")
    return read


def _read(masks: Any, size: tuple[int, int], segments_info: Any, ignore_index: int | None) -> ReadMasks:
    if not isinstance(masks, (Mapping, np.ndarray, torch.Tensor, Image.Image)) and hasattr(masks, "mask"):
        if masks.mask is None:
            raise ValueError("These detections hold no masks (.mask is None), only boxes: use a model that segments.")
        masks = masks.mask
    if isinstance(masks, Mapping):
        inside = next((name for name in _INSIDE if name in masks), None)
        if inside is not None and not _is_coco_annotation(masks):
            segments_info = masks.get("segments_info") if segments_info is None else segments_info
            return _read(masks[inside], size, segments_info, ignore_index)
        return ReadMasks(_object_mask(masks, size, 0)[None])
    if isinstance(masks, (str, os.PathLike)):
        masks = _open(masks)
    if isinstance(masks, Image.Image):
        masks = np.asarray(ImageOps.exif_transpose(masks))
    if isinstance(masks, (list, tuple)):
        if not masks:
            raise ValueError("There is no mask to read.")
        if is_polygon(masks):
            return ReadMasks(_object_mask(masks, size, 0)[None])
        of_each = [_mask_of_entry(entry, size, number) for number, entry in enumerate(masks)]
        return ReadMasks(np.stack(of_each))
    if not isinstance(masks, (np.ndarray, torch.Tensor)):
        raise TypeError(f"Masks must be {_FORMS}; got {type(masks).__name__}.")
    array = as_array(masks)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[:2] == size and array.dtype.kind in "iu":
        array = colors_to_ids(array)
    if array.ndim == 2 and array.dtype.kind in "iu":
        return _masks_of_map(array, size, segments_info, ignore_index)
    return ReadMasks(masks_from_array(array, size))


def _masks_of_map(
    values: np.ndarray, size: tuple[int, int], segments_info: Sequence[Mapping] | None, ignore_index: int | None
) -> ReadMasks:
    if values.shape != tuple(size):
        raise ValueError(
            f"The map is {values.shape[0]}x{values.shape[1]}, but the picture {size[0]}x{size[1]} as a viewer shows "
            "it: they must be of one size."
        )
    present = [value for value in np.unique(values).tolist() if value >= 0 and value != ignore_index]
    ids = present
    if segments_info is not None:
        try:
            ids = [int(segment["id"]) for segment in segments_info]
        except (KeyError, TypeError, ValueError):
            raise ValueError('segments_info must be a list of dicts with an "id" each.') from None
        absent = sorted(set(ids) - set(present))
        if absent:
            raise ValueError(f"The map has no pixel of segment {absent[0]}, which segments_info lists.")
    elif not ids:
        raise ValueError(
            f"The map holds nothing but {np.unique(values).tolist()}, which is no mask: say which value is not one by "
            "ignore_index, or None if all are."
        )
    return ReadMasks(values[None] == np.array(ids, dtype=values.dtype)[:, None, None], ids)


def _mask_of_entry(entry: Any, size: tuple[int, int], number: int) -> np.ndarray:
    """One mask of a list, `(height, width)` booleans or floats."""
    if isinstance(entry, Image.Image):
        entry = np.asarray(ImageOps.exif_transpose(entry))
    if isinstance(entry, Mapping) and not _is_coco_annotation(entry) and "mask" in entry:
        return _mask_of_entry(entry["mask"], size, number)
    if isinstance(entry, (np.ndarray, torch.Tensor)):
        array = as_array(entry)
        if not (array.ndim == 2 and array.shape[1] == 2 and array.shape != tuple(size)):
            try:
                (mask,) = masks_from_array(array, size)
            except ValueError as error:
                raise ValueError(f"Mask {number}: {error}") from None
            return mask
    return _object_mask(entry, size, number)


def _object_mask(entry: Any, size: tuple[int, int], number: int) -> np.ndarray:
    """The mask of an object in one of COCO's forms, or of a polygon."""
    if isinstance(entry, Mapping) and "segmentation" in entry:
        entry = entry["segmentation"]
    try:
        if isinstance(entry, Mapping):
            return decode_run_lengths(entry, size)
        if isinstance(entry, (np.ndarray, torch.Tensor)) or is_polygon(entry):
            return polygon_mask(entry, size, rule="coco")
        if isinstance(entry, (list, tuple)) and entry:
            return coco_mask(entry, size)
    except ValueError as error:
        raise ValueError(f"Mask {number}: {error}") from None
    raise TypeError(f"Mask {number} is {shortened(entry)}; masks must be {_FORMS}.")


def _is_coco_annotation(entry: Mapping) -> bool:
    """Whether a dict is one object's: its segmentation is an encoding or polygons, and no map of all segments."""
    segmentation = entry.get("segmentation")
    return isinstance(segmentation, Mapping) or (
        isinstance(segmentation, (list, tuple)) and "segments_info" not in entry and "masks" not in entry
    )


def _open(path: str | os.PathLike) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: PIL's, for broken PNG files
        raise ValueError(f"The masks in {os.fspath(path)} cannot be read: {error}") from error


__all__ = ["ReadMasks", "read_masks"]
