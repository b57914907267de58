"""Results of pictures for the tests of their formats."""

import struct
import zlib

import numpy as np

from hf_maskadapter.model.segments import Segments


def discs(height: int, width: int) -> np.ndarray:
    """Three masks that do not overlap: a band, and two discs, one of which touches two edges."""
    rows, columns = np.mgrid[:height, :width]
    band = rows < height // 4
    disc = ~band & ((rows - height * 0.6) ** 2 + (columns - width * 0.3) ** 2 < (min(height, width) * 0.2) ** 2)
    corner = ~band & ~disc & ((rows - height) ** 2 + (columns - width) ** 2 < (min(height, width) * 0.4) ** 2)
    return np.stack([band, disc, corner])


def assert_equal(result: Segments, expected: Segments, scores: bool = True) -> None:
    """The same segments, in any order."""

    def content(picture: Segments) -> list:
        return sorted(
            (segment.class_id, segment.mask.tobytes(), segment.score if scores else None)
            for segment in picture.segments
        )

    assert (result.picture, result.size) == (expected.picture, expected.size)
    assert content(result) == content(expected)


def box(size: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """A mask of a rectangle, given by the edges of its pixels."""
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def centers_inside(corners: list[tuple[float, float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie inside a polygon, as matplotlib sees it; corners must keep away from the centres."""
    from matplotlib.path import Path

    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return Path([*corners, corners[0]]).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(size)


def png_claiming(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose head claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
