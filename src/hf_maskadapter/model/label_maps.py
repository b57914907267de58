"""Maps whose values are classes or segments, from pictures of any mode and from arrays: the one place that reads them.

A *label map* holds a number in each pixel: the class. A *panoptic map* in COCO's form holds the number of a segment as
a colour, R + 256 G + 65536 B, and `segments_info` lists the segments beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from .lossy_formats import refuse_lossy
from .masks import as_array, colors_to_ids, whole_number

_LABELS = ("label_id", "category_id", "label")  # of an entry of segments_info
_LARGEST = np.iinfo(np.int64).max


def label_values(value: Any) -> np.ndarray:
    """The numbers in a label map.

    Args:
        value: a PIL picture of any mode, turned as EXIF says: of a palette the indices, of grey values of 1 to 32 bits
            these, of colours with equal channels one of them, and transparency left out; or an array or tensor of whole
            numbers or booleans, `(height, width)` or with one channel, or equal ones, first or last.

    Returns:
        `(height, width)` whole numbers or booleans of the type that they come in.

    Raises:
        ValueError: if it has colours, or another shape, or is a JPEG, whose values are not those that were saved.
        TypeError: if its values are not whole numbers.
    """
    is_picture = isinstance(value, Image.Image)
    array = _channels_of_picture(value) if is_picture else as_array(value)
    if array.ndim == 3:
        if not is_picture and (len(array) == 1 or (len(array) <= 4 < array.shape[-1])):
            array = np.moveaxis(array, 0, -1)
        colors = array[..., :1] if array.shape[-1] in (1, 2) else array[..., :3]
        if array.shape[-1] <= 4 and (colors[..., :1] == colors).all():
            array = colors[..., 0]
    if array.ndim != 2:
        raise ValueError(
            f"has shape {array.shape} and type {array.dtype}; it must be a picture of one channel with whole numbers. "
            "If its colours are segment numbers in COCO's form, read it as a panoptic map together with segments_info; "
            "if they stand for classes, turn them into class indices first."
        )
    return _whole_numbers(array)


def segment_ids(
    value: Any,
    listed: Iterable[int],
    size: tuple[int, int] | None = None,
    *,
    unlisted: Literal["refuse", "drop", "keep"] = "refuse",
) -> np.ndarray:
    """The number of each pixel's segment in a panoptic map.

    The numbers are colours, whatever mode the picture was saved in: lossless optimisers turn colours into palettes and
    grey values. Only where these give segments that nobody lists, but the numbers in a palette or in 8 bits give listed
    ones, the numbers count; 16 and 32 bits are always numbers.

    Args:
        value: a PIL picture of any mode, turned as EXIF says; or an array or tensor: `(height, width)` whole numbers,
            also as floats; or `(height, width, channels)`, of which the first three are colours.
        listed: the segments that `segments_info` lists.
        size: height and width that the map must have; by default any.
        unlisted: whether segments that nobody lists are an error, none (-1), or stay for the caller to look at.

    Returns:
        `(height, width)` int64. What no one lists is 0 or negative: no segment.

    Raises:
        ValueError: if a segment is listed twice, the map holds others than those listed and 0, it is of another size,
            or no map at all, or a JPEG.
        TypeError: if its values are not whole numbers.
    """
    known = checked_ids(listed)
    candidates = _candidates(value)
    if size is not None and candidates[0].shape != tuple(size):
        height, width = candidates[0].shape
        raise ValueError(f"is {height}x{width} (height x width), but its picture {size[0]}x{size[1]}: do they belong?")
    strange = [_unlisted(ids, known) for ids in candidates]
    for ids, values in zip(candidates, strange, strict=True):
        if not len(values) and (ids is candidates[0] or (ids > 0).any()):
            return ids
    if unlisted != "refuse":
        best = max(candidates, key=lambda ids: np.isin(ids, list(known)).sum())
        return best if unlisted == "keep" else np.where(np.isin(best, list(known)), best, -1)
    raise ValueError(
        f"holds segments that segments_info does not list: {listed_values(strange[0])}. Check that map and "
        "segments_info belong to the same picture."
    )


def checked_ids(ids: Iterable[int], *, lowest: int | None = None) -> dict[int, int]:
    """The place of each segment in a list.

    Args:
        ids: the segments that `segments_info` lists.
        lowest: the least that a segment's id may be; 1 in COCO's form, where 0 means no segment.

    Raises:
        ValueError: if one is listed twice, or is too low.
    """
    places: dict[int, int] = {}
    for place, number in enumerate(ids):
        if lowest is not None and number < lowest:
            raise ValueError(f"segments_info lists the segment id {number}; ids begin at {lowest}, 0 means no segment.")
        if number in places:
            raise ValueError(f"segments_info lists the segment id {number} twice.")
        places[number] = place
    return places


def distinct_segments(segments_info: Any) -> list[Mapping]:
    """The entries of a result's `segments_info`, those that were fused once.

    Args:
        segments_info: dicts with an `id` each, and what class they are of.

    Raises:
        ValueError: if an entry has no id, or two of one id are not the same class.
    """
    entries: dict[int, Mapping] = {}
    for entry in segments_info:
        try:
            number = whole_number(entry["id"])
        except (KeyError, TypeError, ValueError):
            raise ValueError('segments_info must be a list of dicts with an "id" each, a whole number.') from None
        if number not in entries:
            entries[number] = entry
            continue
        labels = [next((other[name] for name in _LABELS if name in other), None) for other in (entries[number], entry)]
        if labels[0] != labels[1]:
            raise ValueError(
                f"segments_info lists the segment {number} twice, as class {labels[0]} and as class {labels[1]}: "
                "Transformers gives one id to several segments where label_ids_to_fuse is set. Post-process without "
                "it, and fuse afterwards."
            )
        if labels[0] is None:
            raise ValueError(f"segments_info lists the segment {number} twice.")
    return list(entries.values())


def _candidates(value: Any) -> list[np.ndarray]:
    """What a map may mean, the likeliest first."""
    if isinstance(value, Image.Image):
        refuse_lossy(value)
        image = without_alpha(ImageOps.exif_transpose(value))
        numbers = np.asarray(image)
        if image.mode in ("1", "L", "P"):
            return [colors_to_ids(np.asarray(image.convert("RGB"))).astype(np.int64), numbers.astype(np.int64)]
        return [_ids_of_array(numbers)]
    array = as_array(value)
    ids = _ids_of_array(array)
    if array.dtype == np.uint8 and array.ndim == 2:  # a picture that was opened before, perhaps an optimised one
        return [ids, colors_to_ids(np.repeat(array[..., None], 3, axis=-1)).astype(np.int64)]
    return [ids]


def _ids_of_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        colors = _whole_numbers(array[..., :3])
        if colors.size and (colors.min() < 0 or colors.max() > 255):
            raise ValueError(f"has colours from {colors.min()} to {colors.max()}; they must lie in 0..255.")
        return colors_to_ids(colors).astype(np.int64)
    if array.ndim != 2:
        raise ValueError(
            f"has shape {array.shape} and type {array.dtype}; it must be an RGB picture or one channel of whole "
            "numbers."
        )
    return _whole_numbers(array, also_floats=True).astype(np.int64)


def _whole_numbers(array: np.ndarray, also_floats: bool = False) -> np.ndarray:
    if array.dtype.kind == "f" and also_floats and np.isfinite(array).all() and (array == np.round(array)).all():
        return array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise TypeError(f"holds {array.dtype} values; they must be whole numbers.")
    if array.dtype == np.uint64 and array.size and array.max() > _LARGEST:
        raise ValueError(f"holds the number {array.max()}, which is too large.")
    return array


def without_alpha(image: Image.Image) -> Image.Image:
    """A picture of one channel or RGB, whatever mode holds them: of grey values with alpha, CMYK, YCbCr and others.

    Transparency is left out; a palette's indices stay.
    """
    if image.mode == "LA":
        return image.getchannel(0)
    return image if len(image.getbands()) == 1 or image.mode == "RGB" else image.convert("RGB")


def _channels_of_picture(image: Image.Image) -> np.ndarray:
    refuse_lossy(image)
    if image.mode == "PA":  # its indices
        image = image.getchannel(0)
    return np.asarray(without_alpha(ImageOps.exif_transpose(image)))


def _unlisted(ids: np.ndarray, known: Collection[int]) -> list[int]:
    return [number for number in np.unique(ids).tolist() if number > 0 and number not in known]


def listed_values(values: Sequence[Any], limit: int = 8) -> str:
    """Some values as a message shows them."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown + (f", ... ({len(values)} in all)" if len(values) > limit else "")


__all__ = [
    "checked_ids",
    "distinct_segments",
    "label_values",
    "listed_values",
    "segment_ids",
    "without_alpha",
]
