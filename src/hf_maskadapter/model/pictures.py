"""Any picture as RGB, as a viewer shows it: the one place where the package opens and converts pictures.

NumPy and Pillow are all that is needed.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .lossy_formats import note_lossiness
from .masks import as_array

_BACKGROUND = (255, 255, 255)  # behind transparent pixels, as most viewers show them
_SIXTEEN_TO_EIGHT_BITS = 257
_CHANNELS = (1, 3, 4)
_LONG_NAME = 200  # of a source in an error message; a data address is as long as its picture
_CHANNELS_FIRST, _CHANNELS_LAST = "channels_first", "channels_last"


def as_viewer_shows(image: Any, input_data_format: str | None = None) -> Image.Image:
    """A picture in any common form as an RGB picture that looks as a viewer shows it.

    Args:
        image: a PIL picture of any mode (EXIF orientation is applied, transparency is put on white, 16-bit values are
            scaled to 8 bits); or an array or tensor, `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)` with 1, 3 or 4 channels, of booleans, integers of 8 or 16 bits, or floats in
            [0, 1] or [0, 255].
        input_data_format: where an array's channels are, `"channels_first"` or `"channels_last"`. By default it is seen
            from the shape; if both could be, they are first in a tensor and last in an array.

    Raises:
        TypeError: if it is none of these.
        ValueError: if an array's shape or values cannot be a picture's.
    """
    if isinstance(image, Image.Image):
        if _is_as_shown(image):
            image.load()
            return image
        return as_rgb(ImageOps.exif_transpose(image))
    is_tensor = hasattr(image, "detach")
    if not is_tensor and not isinstance(image, np.ndarray):
        raise TypeError(f"A picture must be a PIL image, an array or a tensor, got {type(image).__name__}.")
    array = _channels_last(as_array(image), input_data_format, prefer_first=is_tensor)
    return as_rgb(Image.fromarray(_eight_bits(array)))


def _is_as_shown(image: Image.Image) -> bool:
    """Whether nothing is to be done: so that a picture which went through here is not copied again."""
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return image.mode == "RGB" and not image.has_transparency_data and upright


def as_rgb(image: Image.Image) -> Image.Image:
    """As [`as_viewer_shows`] for a PIL picture, but for its EXIF orientation, which is not applied."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


def read_picture(
    source: Any,
    input_data_format: str | None = None,
    timeout: float | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """As [`as_viewer_shows`], for whatever [`open_picture`] opens, too.

    Args:
        source: a file's path, its bytes, an address, or a picture.
        input_data_format: as [`as_viewer_shows`].
        timeout: seconds to wait for an address; by default as long as it takes.
        max_pixels: as [`open_picture`]; of no effect on pictures that are decoded already.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if an address cannot be fetched.
        ValueError: if it is no picture, a broken one or one of too many pixels; as [`as_viewer_shows`].
        TypeError: as [`as_viewer_shows`].
    """
    if not _is_encoded(source):
        return as_viewer_shows(source, input_data_format)
    image = open_picture(source, timeout, max_pixels)
    with naming(name_of_source(source)):
        return as_viewer_shows(image)


def open_picture(source: Any, timeout: float | None = None, max_pixels: int | None = None) -> Image.Image:
    """The decoded picture as it is stored: its own mode, and not turned.

    Args:
        source: a file's path; an address (`http://`, `https://`, `data:image/...;base64,`); the bytes of a file; what
            Hugging Face Datasets hold of a picture that is not decoded, a dict of `bytes` and `path`; or a PIL picture.
        timeout: seconds to wait for an address; by default as long as it takes.
        max_pixels: refuse a file of more pixels before it is decoded: pictures of strangers may be small files that
            fill the memory. PostScript, which Pillow has another program run, is then refused, too. By default
            Pillow's own limit alone holds.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if an address cannot be fetched.
        ValueError: if it is no picture, a broken one or one of too many pixels.
    """
    if isinstance(source, Image.Image):
        with naming("The picture"):
            source.load()
        return source
    name = name_of_source(source)
    if isinstance(source, Mapping):
        source = source.get("bytes") or source.get("path")
        if source is None:
            raise ValueError("The picture holds neither bytes nor a path.")
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else _fetch(os.fspath(source), timeout)
    with naming(name):
        try:
            image = Image.open(file)
        except Image.DecompressionBombError as error:
            if max_pixels is None:
                raise
            raise ValueError(
                f"it has too many pixels, and at most {max_pixels / 1e6:g} million are taken; make it smaller."
            ) from error
        try:
            if max_pixels is not None and image.format == "EPS":
                raise ValueError("it is a PostScript file; save it as PNG or JPEG.")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, {image.width * image.height / 1e6:.1f} million, "
                    f"and at most {max_pixels / 1e6:g} million are taken; make it smaller."
                )
            note_lossiness(image)
            image.load()
        except BaseException:
            image.close()
            raise
    return image


def _is_encoded(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike, bytes, bytearray, Mapping))


def name_of_source(source: Any) -> str:
    """What messages call a picture's source: its path or address, or "The picture" if it does not tell."""
    path = source.get("path") if isinstance(source, Mapping) else source
    if not isinstance(path, (str, os.PathLike)):
        return "The picture"
    name = os.fspath(path)
    return name if len(name) <= _LONG_NAME else f"{name[:_LONG_NAME]}..."


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors in reading a picture that tell its name."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"{name} cannot be read: it is not a picture in a known format.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL's, for broken pictures
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{name} cannot be read: {reason}") from error


def _fetch(address: str, timeout: float | None) -> str | io.BytesIO:
    """What an address holds, or the path that it is."""
    if address.startswith("data:image/"):
        try:
            return io.BytesIO(base64.b64decode(address.partition(",")[2], validate=True))
        except ValueError as error:
            raise ValueError(f"{name_of_source(address)} cannot be read: {error}") from error
    if not address.startswith(("http://", "https://")):
        return address
    from huggingface_hub.utils import httpx  # as Transformers fetches pictures

    try:
        return io.BytesIO(httpx.get(address, timeout=timeout, follow_redirects=True).raise_for_status().content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{address} cannot be fetched: {error}") from error


def _channels_last(array: np.ndarray, input_data_format: str | None, prefer_first: bool) -> np.ndarray:
    shape = array.shape
    if array.ndim == 3:
        can_be_first, can_be_last = shape[0] in _CHANNELS, shape[-1] in _CHANNELS
        is_first = can_be_first and (prefer_first or not can_be_last)
        if input_data_format is not None:
            if input_data_format not in (_CHANNELS_FIRST, _CHANNELS_LAST):
                raise ValueError(
                    f'input_data_format must be "{_CHANNELS_FIRST}" or "{_CHANNELS_LAST}", got {input_data_format!r}.'
                )
            is_first = input_data_format == _CHANNELS_FIRST
        if is_first:
            array = np.moveaxis(array, 0, -1)
        if array.shape[-1] == 1:
            array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS) or 0 in shape:
        raise ValueError(
            "A picture's array must have shape (height, width), (height, width, channels) or (channels, height, width) "
            f"with 1, 3 or 4 channels, got {shape}."
        )
    return np.ascontiguousarray(array)


def _eight_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise ValueError(f"A picture's array must hold booleans, integers or floats, got {array.dtype}.")
    if not np.isfinite(array).all():
        raise ValueError("The picture holds values that are not finite.")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
        scale = 255.0 if high <= 1 else 1.0
    else:
        has_sixteen_bits = (array.dtype.kind == "u" and array.dtype.itemsize == 2) or high > 255
        scale = 1 / _SIXTEEN_TO_EIGHT_BITS if has_sixteen_bits else 1.0
    if low < 0 or high * scale > 255:
        raise ValueError(
            f"Pixel values must lie in [0, 1], [0, 255] or, for integers, [0, 65535], got {low} to {high}."
        )
    return np.round(array * scale).astype(np.uint8)


__all__ = ["as_rgb", "as_viewer_shows", "name_of_source", "naming", "open_picture", "read_picture"]
