"""The regions in Label Studio's results: which entries belong together, and which pixels they enclose.

A region of a control with labels of its own, such as BrushLabels, is one entry. One of a control without, such as
Brush, is an entry for the shape and one for the labels, which have the same id. Coordinates are per cents of the
picture's width and height; polygons, rectangles and ellipses enclose the pixels whose centres lie inside.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..model.masks import is_smooth_mask, polygon_mask
from .errors import ExchangeError
from .label_studio_brush import decode_brush
from .reading import LeftOut, read_number
from .shapes import ellipse_mask, rectangle_mask

_LABELS = "labels"
_SHAPES = ("bitmask", "brush", "ellipse", "polygon", "rectangle")
_FURTHER_PAGE = "item_index"


@dataclass(frozen=True)
class Region:
    """A region.

    Args:
        name: its id or number, for messages.
        shape: one of bitmask, brush, ellipse, polygon, rectangle.
        entry: its entry in the results.
        control: name of the control that its labels are of.
        labels: its labels, as the control calls them.
        num_further_labels: how many labels beside the first it has, from this control and others.
    """

    name: str
    shape: str
    entry: dict[str, Any]
    control: str | None
    labels: list[str]
    num_further_labels: int = 0


def regions_of(result: Any, where: str, left_out: LeftOut) -> list[Region]:
    """The regions of an annotation or prediction; what is none is counted.

    Args:
        result: its `result`.
        where: file and task, for messages.
        left_out: what counts the rest.

    Raises:
        ExchangeError: if it is malformed.
    """
    if not isinstance(result, list) or not all(isinstance(entry, dict) for entry in result):
        raise ExchangeError(f"{where}: result must be a list of objects.")
    label_entries = defaultdict(list)
    for entry in result:
        if entry.get("type") == _LABELS and entry.get("id") is not None:
            label_entries[str(entry["id"])].append(entry)
    with_shape = {str(entry["id"]) for entry in result if _shape(entry) is not None and entry.get("id") is not None}
    regions = []
    for number, entry in enumerate(result, start=1):
        kind = entry.get("type")
        name = repr(entry.get("id", number))
        of_region = f"{where}, region {name}"
        shape, labeled, of_id = _shape(entry), entry, label_entries.get(str(entry.get("id")), [])
        if kind == _LABELS and of_id and entry is not of_id[0]:  # counted with the first
            continue
        if kind == _LABELS and str(entry.get("id")) not in with_shape:  # the shape's own entry was not exported
            shape = _shape_of_value(entry.get("value"))
        elif shape is not None and kind == shape:
            labeled = next(iter(of_id), entry)
        elif kind == _LABELS:
            continue
        if shape is None:
            left_out.add(f"results of type {kind}", of_region)
        elif not isinstance(entry.get("value"), dict):
            raise ExchangeError(f"{of_region}: its value must be an object.")
        elif entry.get("image_rotation"):
            left_out.add("regions that were drawn on a turned picture (image_rotation)", of_region)
        elif entry.get(_FURTHER_PAGE):
            left_out.add(f"regions on further pictures of a task ({_FURTHER_PAGE})", of_region)
        elif shape == "polygon" and entry["value"].get("closed") is False:
            left_out.add("polygons that are not closed", of_region)
        else:
            labels = _labels(labeled, of_region)
            others = [other for other in of_id if other is not labeled]
            num_labels = len(labels) + sum(len(_labels(other, of_region)) for other in others)
            regions.append(Region(name, shape, entry, labeled.get("from_name"), labels, max(0, num_labels - 1)))
    return regions


def region_mask(region: Region, size: tuple[int, int], where: str) -> np.ndarray:
    """The pixels of a region.

    Args:
        region: the region.
        size: height and width of the picture.
        where: file, task and region, for messages.

    Returns:
        `(height, width)` bool.

    Raises:
        ExchangeError: if it is malformed.
    """
    value = region.entry["value"]
    try:
        if region.shape == "brush" and "rle" in value:
            return decode_brush(value["rle"], size)
        if region.shape in ("brush", "bitmask"):
            return _bit_mask(value.get("imageDataURL", value.get("maskDataURL")), size)
        return _drawn_mask(region.shape, value, size, where)
    except ExchangeError:
        raise
    except (ValueError, TypeError) as error:
        raise ExchangeError(f"{where}: it cannot be read: {str(error).removesuffix('.')}.") from error


def _drawn_mask(shape: str, value: dict[str, Any], size: tuple[int, int], where: str) -> np.ndarray:
    def pixels(key: str, side: int, default: float | None = None) -> float:
        return read_number(value.get(key, default), key, where) / 100 * side

    height, width = size
    rotation = read_number(value.get("rotation", 0), "rotation", where)
    if shape == "polygon":
        pairs = value.get("points")
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ExchangeError(f"{where}: points must be a list of pairs.")
        numbers = [(read_number(x, "points", where), read_number(y, "points", where)) for x, y in pairs]
        return polygon_mask([(x / 100 * width, y / 100 * height) for x, y in numbers], size)
    corner = pixels("x", width), pixels("y", height)
    if shape == "ellipse":
        return ellipse_mask(corner, (pixels("radiusX", width), pixels("radiusY", height)), size, rotation)
    opposite = corner[0] + pixels("width", width), corner[1] + pixels("height", height)
    return rectangle_mask(corner, opposite, size, rotation, about=corner)


def _bit_mask(address: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask of a PNG in a data URL.

    Inside is what is not transparent; of a picture without transparency what is not black, or, if its greys are those
    of a mask with smooth edges, what is lighter than 127.
    """
    if not isinstance(address, str) or ";base64," not in address:
        raise ValueError("without an rle, a mask must be a PNG in a data URL (imageDataURL): data:image/png;base64,...")
    try:
        with Image.open(io.BytesIO(base64.b64decode(address.split(";base64,", 1)[1], validate=True))) as image:
            if (image.height, image.width) != size:
                raise ValueError(f"the bit mask is {image.width}×{image.height}, its picture {size[1]}×{size[0]}")
            channels = np.asarray(image.convert("RGBA"))
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the bit mask is no PNG: {error}") from error
    is_visible = channels[..., 3] > 0
    colors = channels[..., :3]
    if not is_visible.all() or not colors.any():
        return is_visible
    is_gray = (colors == colors[..., :1]).all()
    if is_gray and is_smooth_mask(colors[..., 0]):
        return np.asarray(colors[..., 0] > 127)
    if colors.any(axis=-1).all() and (colors != colors[0, 0]).any():
        raise ValueError(
            "no pixel of the bit mask is transparent or black, so that it cannot be told what lies outside"
        )
    return np.asarray(colors.any(axis=-1))


def _shape(entry: dict[str, Any]) -> str | None:
    """The shape of an entry, `None` if it has none of its own."""
    kind = str(entry.get("type")).removesuffix(_LABELS)
    return kind if kind in _SHAPES else None


def _shape_of_value(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else {}
    telling = {"rle": "brush", "imageDataURL": "bitmask", "points": "polygon", "radiusX": "ellipse"}
    found = next((shape for key, shape in telling.items() if key in keys), None)
    return "rectangle" if found is None and {"x", "y", "width", "height"} <= set(keys) else found


def _labels(entry: dict[str, Any], where: str) -> list[str]:
    value = entry.get("value")
    labels = value.get(entry.get("type")) if isinstance(value, dict) else None
    if labels is None:
        return []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ExchangeError(f"{where}: its labels must be a list of texts, got {labels!r}.")
    return labels


__all__ = ["Region", "region_mask", "regions_of"]
