"""Whether a picture's file changed its values, which a map or mask must not suffer."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import BinaryIO

from PIL import Image

_KEY = "is_lossy"  # in what Pillow keeps of a picture beside its pixels
_JPEG = ("JPEG", "MPO")
_FRAME_HEAD = 16  # bytes before the chunks of an animation's frame


def note_lossiness(image: Image.Image) -> None:
    """Keep what the file tells, before decoding lets go of it."""
    if image.format == "WEBP" and _KEY not in image.info:
        is_lossy = _webp_is_lossy(image)
        if is_lossy is not None:
            image.info[_KEY] = is_lossy


def is_lossy(image: Image.Image) -> bool | None:
    """Whether a picture comes from a file that changes values.

    Returns:
        `None` if that cannot be told: of AVIF, whose container does not say so, and of a WebP whose file has gone.
    """
    if image.format in _JPEG:
        return True
    if image.format == "WEBP":
        note_lossiness(image)
        return image.info.get(_KEY)
    return None if image.format == "AVIF" else False


def refuse_lossy(image: Image.Image) -> None:
    """Refuse a map that was opened from a lossy file; warn where that cannot be told.

    Raises:
        ValueError: if it was.
    """
    lossy = is_lossy(image)
    if lossy is None:
        kind = "a WebP" if image.format == "WEBP" else "an AVIF"
        warnings.warn(
            f"A map was opened from {kind} file, which usually changes values, and nothing tells whether this one "
            "does: its classes may be wrong. Save maps as PNG.",
            stacklevel=2,
        )
    elif lossy:
        kind = "JPEG" if image.format in _JPEG else "lossy WebP"
        raise ValueError(f"is a {kind}, which changes values: save maps as PNG.")


def _webp_is_lossy(image: Image.Image) -> bool | None:
    """Read the file from where Pillow has it, or from its path."""
    file = getattr(image, "fp", None)
    if file is not None and not file.closed:
        with contextlib.suppress(OSError, ValueError):
            place = file.tell()
            try:
                return _has_lossy_frames(file)
            finally:
                file.seek(place)
    path = getattr(image, "filename", "")
    if path and os.path.isfile(path):
        with open(path, "rb") as again:
            return _has_lossy_frames(again)
    return None


def _has_lossy_frames(file: BinaryIO) -> bool | None:
    """Whether a WebP holds `VP8 ` chunks, which are lossy, and not only `VP8L`; `None` if it holds neither."""
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        return None
    found = set()
    while len(chunk := file.read(8)) == 8:
        kind, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        found.add(kind)
        file.seek(_FRAME_HEAD if kind == b"ANMF" else size + size % 2, os.SEEK_CUR)
    if b"VP8 " in found:
        return True
    return False if b"VP8L" in found else None


__all__ = ["is_lossy", "note_lossiness", "refuse_lossy"]
