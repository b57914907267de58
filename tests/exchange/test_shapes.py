"""Shapes that people draw, against values counted by hand and matplotlib's polygons."""

import math

import numpy as np
import pytest

from hf_maskadapter.exchange.shapes import ellipse_mask, rectangle_mask
from support.result_samples import box, centers_inside


def test_rectangle_encloses_the_pixels_whose_centers_lie_inside():
    assert (rectangle_mask((2, 2), (6, 5), (8, 10)) == box((8, 10), 2, 5, 2, 6)).all()
    assert (rectangle_mask((1.6, 1.4), (6.4, 4.6), (8, 10)) == box((8, 10), 1, 5, 2, 6)).all()


def test_quarter_turns_about_the_center_swap_the_sides():
    expected = box((9, 12), 1, 7, 5, 7)  # 6 wide and 2 high about (6, 4) becomes 2 wide and 6 high
    assert (rectangle_mask((3, 3), (9, 5), (9, 12), rotation=90) == expected).all()
    assert (rectangle_mask((3, 3), (9, 5), (9, 12), rotation=-90) == expected).all()


def test_turns_are_clockwise_about_the_given_point():
    # A quarter turn clockwise about the left top corner: the right side comes to lie below.
    assert (rectangle_mask((6, 2), (9, 4), (9, 12), rotation=90, about=(6, 2)) == box((9, 12), 2, 5, 4, 6)).all()


@pytest.mark.parametrize("rotation", [20.0, 100.0, -33.0])
def test_slanted_rectangles_are_those_of_matplotlib(rotation):
    angle, size = math.radians(rotation), (40, 30)
    center = 14.3, 19.7
    corners = [
        (center[0] + x * math.cos(angle) - y * math.sin(angle), center[1] + x * math.sin(angle) + y * math.cos(angle))
        for x, y in [(-9, -5), (9, -5), (9, 5), (-9, 5)]
    ]
    mask = rectangle_mask((center[0] - 9, center[1] - 5), (center[0] + 9, center[1] + 5), size, rotation)
    assert (mask == centers_inside(corners, size)).all()


def test_ellipse_of_equal_radii_is_a_disc():
    rows, columns = np.mgrid[:20, :30]
    disc = (columns + 0.5 - 12) ** 2 + (rows + 0.5 - 9) ** 2 <= 5**2
    assert disc.sum() == 80
    assert (ellipse_mask((12, 9), (5, 5), (20, 30)) == disc).all()


@pytest.mark.parametrize("rotation", [0.0, 30.0, 75.0])
def test_turned_ellipses_are_polygons_of_many_corners(rotation):
    angle, size, center = math.radians(rotation), (50, 40), (18.3, 26.9)
    corners = []
    for step in range(20000):
        x, y = 15 * math.cos(step * math.pi / 10000), 6 * math.sin(step * math.pi / 10000)
        corners.append(
            (
                center[0] + x * math.cos(angle) - y * math.sin(angle),
                center[1] + x * math.sin(angle) + y * math.cos(angle),
            )
        )
    assert (ellipse_mask(center, (15, 6), size, rotation) == centers_inside(corners, size)).all()


@pytest.mark.parametrize("radii", [(0, 3), (3, 0), (-2, 3)])
def test_ellipse_without_extent_is_empty(radii):
    assert not ellipse_mask((5, 5), radii, (10, 10)).any()
