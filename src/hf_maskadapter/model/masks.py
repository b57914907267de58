"""Masks in all the forms that people have them in, read as one array.

COCO's run-length encodings are decoded and polygons are filled here, in a few lines of numpy, so that no further
library is needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

_FORMS = (
    "an array or tensor (num_masks, height, width), a label map (height, width), a panoptic PNG, COCO's run-length "
    "encodings, polygons or annotations, or detections with a .mask"
)
_RGB_WEIGHTS = (1, 256, 256**2)  # COCO's panoptic colours
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
        if _is_polygon(masks):
            return ReadMasks(_object_mask(masks, size, 0)[None])
        of_each = [_mask_of_entry(entry, size, number) for number, entry in enumerate(masks)]
        return ReadMasks(np.stack(of_each))
    if not isinstance(masks, (np.ndarray, torch.Tensor)):
        raise TypeError(f"Masks must be {_FORMS}; got {type(masks).__name__}.")
    array = as_array(masks)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[:2] == size and array.dtype.kind in "iu":
        array = array[..., :3].astype(np.int64) @ _RGB_WEIGHTS
    if array.ndim == 2 and array.dtype.kind in "iu":
        return _masks_of_map(array, size, segments_info, ignore_index)
    return ReadMasks(masks_from_array(array, size))


def as_array(values: Any) -> np.ndarray:
    """Values of an array or tensor on any device; half precision becomes single."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()  # numpy knows no bfloat16
    return np.asarray(values)


def masks_from_array(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks as booleans or, soft ones, as floats, `(num_masks, height, width)`.

    Args:
        array: `(num_masks, height, width)` or one mask `(height, width)`: booleans, integers 0 and 1 or 0 and 255, or
            floats in [0, 1].
        size: height and width of the picture.

    Raises:
        ValueError: if shape or values are others.
    """
    if array.size == 0:
        return np.zeros((0, *size), dtype=bool)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1:] != tuple(size):
        raise ValueError(
            f"Masks must have shape (num_masks, {size[0]}, {size[1]}), the picture's size as a viewer shows it, got "
            f"{array.shape}."
        )
    if array.dtype == bool:
        return array
    if array.dtype.kind in "iu" and any(np.isin(array, (0, inside)).all() for inside in (1, 255)):
        return array > 0
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # false for NaN
        return array.astype(np.float32)
    raise ValueError(
        f"Masks must be booleans, integers 0 and 1 or 0 and 255, or floats in [0, 1], got {array.dtype} from "
        f"{array.min()} to {array.max()}."
    )


def decode_rle(encoding: Mapping) -> np.ndarray:
    """Decode COCO's run-length encoding of a mask.

    Args:
        encoding: `size` (height, width), and `counts`: lengths of runs down the columns, zeros first, as a list; or the
            same compressed, as a text or bytes.

    Returns:
        `(height, width)` booleans.

    Raises:
        ValueError: if the runs do not fill the size, or the text is broken.
    """
    try:
        height, width = (int(side) for side in encoding["size"])
        counts = encoding["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            'A run-length encoding needs "size" (height, width) and "counts", got a dict with '
            f"{', '.join(map(repr, encoding))}."
        ) from None
    if isinstance(counts, str):
        counts = counts.encode("latin-1", errors="replace")
    runs = np.asarray(_decompress(counts) if isinstance(counts, bytes) else counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(
            f"The counts of a run-length encoding must be whole numbers, none negative, that sum up to {height} x "
            f"{width} = {height * width} pixels; these are something else."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(text: bytes) -> list[int]:
    """Runs of COCO's compressed form: 5 bits a character, the next bit says "more", differences to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = character - 48
        if not 0 <= code < 64:
            raise ValueError(
                f"The compressed run-length encoding holds the character {chr(character)!r}: it is broken."
            )
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("The compressed run-length encoding ends in the middle of a number: it is broken.")
    return runs


def draw_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels inside any of some polygons.

    Args:
        polygons: each `[x, y, x, y, ...]` or `(num_points, 2)`, in pixels from the top left corner of the picture, so
            that the first pixel's centre is at (0.5, 0.5), as in COCO. Points may lie outside.
        size: height and width of the picture.

    Returns:
        `(height, width)` booleans: pixels whose centre lies inside by the even-odd rule. At edges they may differ from
        those of pycocotools, which rounds otherwise.

    Raises:
        ValueError: if a polygon has fewer than three points, or coordinates are not pairs of finite numbers.
    """
    inside = np.zeros(size, dtype=bool)
    for polygon in polygons:
        try:
            values = np.asarray(as_array(polygon), dtype=float)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.ndim > 2 or values.size < 6 or values.size % 2 or (values.ndim == 2 and values.shape[1] != 2):
            raise ValueError(
                "A polygon must hold at least three points, [x, y, x, y, x, y, ...] or (num_points, 2), got "
                f"{_short(polygon)}."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"A polygon's coordinates must be finite numbers, got {_short(polygon)}.")
        inside |= _inside_polygon(values.reshape(-1, 2), size)
    return inside


def _inside_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre has an odd number of edges to its left."""
    height, width = size
    centers = np.arange(height) + 0.5
    starts = np.zeros(
        (height, width + 1), dtype=np.int64
    )  # edges that pass between a pixel's centre and the one before
    for (x, y), (next_x, next_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
        (rows,) = np.nonzero((centers >= min(y, next_y)) & (centers < max(y, next_y)))
        crossings = x + (centers[rows] - y) * (next_x - x) / (next_y - y if len(rows) else 1)
        starts[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)] += 1
    return starts.cumsum(axis=1)[:, :-1] % 2 == 1


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
            mask = decode_rle(entry)
            if mask.shape != tuple(size):
                raise ValueError(
                    f"the run-length encoding is of a picture of {mask.shape[0]}x{mask.shape[1]}, this one is "
                    f"{size[0]}x{size[1]} as a viewer shows it."
                )
            return mask
        if isinstance(entry, (np.ndarray, torch.Tensor)) or _is_polygon(entry):
            return draw_polygons([entry], size)
        if isinstance(entry, (list, tuple)) and entry:
            return draw_polygons(entry, size)
    except ValueError as error:
        raise ValueError(f"Mask {number}: {error}") from None
    raise TypeError(f"Mask {number} is {_short(entry)}; masks must be {_FORMS}.")


def _is_coco_annotation(entry: Mapping) -> bool:
    """Whether a dict is one object's: its segmentation is an encoding or polygons, and no map of all segments."""
    segmentation = entry.get("segmentation")
    return isinstance(segmentation, Mapping) or (
        isinstance(segmentation, (list, tuple)) and "segments_info" not in entry and "masks" not in entry
    )


def _is_polygon(values: Any) -> bool:
    """Whether a list is one polygon, numbers or pairs of numbers, and no list of things."""
    if not isinstance(values, (list, tuple)) or not values:
        return False
    if all(isinstance(value, (int, float)) for value in values):
        return True
    return all(
        isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(part, (int, float)) for part in value)
        for value in values
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


__all__ = ["ReadMasks", "decode_rle", "draw_polygons", "masks_from_array", "read_masks"]
