"""Pictures and masks from strangers: looked at before they are decoded, and refused where they are too large."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..model.mask_collections import read_masks
from ..model.masks import coco_mask
from ..model.pictures import as_viewer_shows, naming
from .errors import RequestError
from .limits import RequestLimits

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is decoded. Pillow reads more, some by calling other programs."""

Size = tuple[int, int]


def open_within_limits(content: bytes, limits: RequestLimits, name: str = "The picture") -> Image.Image:
    """An encoded picture of which only the head was read.

    Args:
        content: the file's bytes.
        limits: how many pixels it may have.
        name: what messages call it.

    Raises:
        RequestError: if it is no picture, or has too many pixels (413).
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise RequestError(413, f"{name} has too many pixels; at most {limits.pixels} are read: shrink it.") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise RequestError(415, f"{name} cannot be read: it is not a picture in a known format ({known}).") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise RequestError(422, f"{name} cannot be read: it is broken.") from error
    if image.width * image.height > limits.pixels:
        raise RequestError(
            413,
            f"{name} has {image.width}x{image.height} pixels; at most {limits.pixels} are read: shrink it.",
        )
    return image


def decode(image: Image.Image, name: str = "The picture") -> Image.Image:
    """The whole picture as a viewer shows it.

    Raises:
        RequestError: if it is broken.
    """
    try:
        with naming(name):
            return as_viewer_shows(image)
    except ValueError as error:
        raise RequestError(422, str(error)) from error
    except Exception as error:  # likewise
        raise RequestError(422, f"{name} cannot be read: it is broken.") from error


def read_own_masks(entries: Sequence[Any], size: Size, limits: RequestLimits) -> np.ndarray:
    """The masks of a request, `(num_masks, height, width)` bool.

    Args:
        entries: of each a run-length encoding, polygons, or the bytes of a picture, which may be a map of several.
        size: height and width of the picture that they belong to.
        limits: how many there may be.

    Raises:
        RequestError: if there are none or too many, or one is broken, empty or of another size.
    """
    masks: list[np.ndarray] = []
    for number, entry in enumerate(entries):
        name = f"Mask {number}"
        try:
            if isinstance(entry, bytes):
                image = open_within_limits(entry, limits, name)
                if (image.height, image.width) != size:
                    raise ValueError(f"it has {image.width}x{image.height} pixels, the picture {size[1]}x{size[0]}.")
                found = list(read_masks(_loaded(image, name), size).masks)
            else:
                found = [coco_mask(entry, size)]
        except (ValueError, TypeError, OverflowError) as error:
            text = str(error)
            raise RequestError(422, text if text.startswith(name) else f"{name}: {text}") from error
        masks += [mask if mask.dtype == bool else mask > 0.5 for mask in found]
        if len(masks) > limits.max_masks:
            raise RequestError(422, f"masks: more than {limits.max_masks}; ask for fewer of them at a time.")
        if not all(mask.any() for mask in found):
            raise RequestError(422, f"{name} is empty: no pixel lies inside; leave it out.")
    if not masks:
        raise RequestError(422, "masks: there is none; to have masks found, ask /v1/segment.")
    return np.stack(masks)


def _loaded(image: Image.Image, name: str) -> Image.Image:
    """The picture decoded in its own mode, since a mask's values count."""
    try:
        image.load()
    except Exception as error:  # likewise
        raise RequestError(422, f"{name} cannot be read: it is broken.") from error
    return image


__all__ = ["FORMATS", "decode", "open_within_limits", "read_own_masks"]
