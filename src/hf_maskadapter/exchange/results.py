"""What reading results gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary

PictureResult, ResultSegment = Segments, Segment
"""Names of version 0.1."""


class StoredResults(NamedTuple):
    """Results that were read from files."""

    vocabulary: Vocabulary
    """The classes that `class_id` counts."""
    results: Iterator[Segments]
    """The pictures one by one; masks are decoded when a picture is reached."""


def polygon_mask(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres a polygon encloses, its outline included.

    Args:
        points: x and y of its corners in pixels, 0 at the picture's left and upper edge.
        size: height and width of the picture.

    Returns:
        `(height, width)` bool.
    """
    canvas = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1)
    return np.asarray(canvas).copy()


__all__ = ["PictureResult", "ResultSegment", "StoredResults", "polygon_mask"]
