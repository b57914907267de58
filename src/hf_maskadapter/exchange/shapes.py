"""Masks of the shapes that people draw in CVAT and Label Studio: the pixels whose centres lie inside.

The rule is that of `polygon_mask` with `rule="center"`; a corner at (0, 0) is the picture's outer corner, so that the
first pixel's centre is at (0.5, 0.5). Angles are in degrees, clockwise as one looks at the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..model.masks import polygon_mask

Point = tuple[float, float]
"""x and y in pixels."""


def rectangle_mask(
    left_top: Point, right_bottom: Point, size: tuple[int, int], rotation: float = 0.0, about: Point | None = None
) -> np.ndarray:
    """A rectangle, turned about a point.

    Args:
        left_top: its corner before it was turned.
        right_bottom: likewise.
        size: height and width of the picture.
        rotation: by how much it is turned.
        about: what it is turned about; by default its centre.

    Returns:
        `(height, width)` bool.
    """
    (left, top), (right, bottom) = left_top, right_bottom
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    center = ((left + right) / 2, (top + bottom) / 2) if about is None else about
    return polygon_mask(_turned(corners, rotation, center), size)


def ellipse_mask(center: Point, radii: tuple[float, float], size: tuple[int, int], rotation: float = 0.0) -> np.ndarray:
    """An ellipse, turned about its centre.

    Args:
        center: its centre.
        radii: half its width and half its height before it was turned; nothing lies inside unless both are positive.
        size: height and width of the picture.
        rotation: by how much it is turned.

    Returns:
        `(height, width)` bool.
    """
    if min(radii) <= 0:
        return np.zeros(size, dtype=bool)
    y, x = np.ogrid[: size[0], : size[1]]
    x, y = x + 0.5 - center[0], y + 0.5 - center[1]
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    return ((x * cosine + y * sine) / radii[0]) ** 2 + ((y * cosine - x * sine) / radii[1]) ** 2 <= 1


def _turned(points: Sequence[Point], rotation: float, about: Point) -> list[Point]:
    if rotation == 0:
        return list(points)
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    return [
        (
            about[0] + (x - about[0]) * cosine - (y - about[1]) * sine,
            about[1] + (x - about[0]) * sine + (y - about[1]) * cosine,
        )
        for x, y in points
    ]


__all__ = ["Point", "ellipse_mask", "rectangle_mask"]
