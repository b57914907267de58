"""A colour for every class name: the same in every picture, vocabulary, run and machine."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_SIMILAR = 0.11  # two colours closer than this look alike at a glance
_LIGHTNESS_WEIGHT = 0.4  # painted over a picture, lightness tells colours apart less well than hue does
_COLOR_ATTEMPTS = 24
_SUFFIXES = ("-other-merged", "-merged", "-other")
"""Of COCO's names for what others call by the bare name: "sky-other-merged" is sky."""

_EXPECTED = {
    "sky": (0.74, 0.11, 4.25),
    "tree": (0.58, 0.15, 2.45),
    "grass": (0.82, 0.19, 2.25),
    "water": (0.60, 0.13, 4.45),
}
"""OKLCH of classes that look wrong in any colour but their own."""

# What pictures are full of, most frequent first: these colours are kept apart from each other.
_FREQUENT = (
    *("person", "road", "building", "car", "wall", "floor", "sidewalk", "chair"),
    *("table", "window", "mountain", "house", "dog", "cat", "ceiling", "door", "sofa", "bed", "sea", "horse", "cow"),
    *("bus", "truck", "bicycle", "motorcycle", "boat", "plant", "fence", "sand", "snow", "bird", "curtain", "sheep"),
    *("train", "airplane", "flower", "book", "bottle", "traffic light", "river", "rock", "field"),
)


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """OKLCH (hue in radians) to sRGB in 0..1, outside of it where the screen has no such colour (Ottosson, 2020)."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _encode_gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _encode_gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _encode_gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def _encode_gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


class _Candidate(NamedTuple):
    rgb: Color
    place: tuple[float, float, float]
    """Where the colour lies in OKLab, lightness weighted by `_LIGHTNESS_WEIGHT`."""


def _key(name: str) -> str:
    """What names of one class in different vocabularies have in common."""
    key = " ".join(name.lower().split())
    suffix = next((suffix for suffix in _SUFFIXES if key.endswith(suffix)), "")
    return key.removesuffix(suffix) or key


def _candidates(key: str) -> Iterator[_Candidate]:
    """Yield the colours that a class may get, in the class's own order of preference."""
    for attempt in range(_COLOR_ATTEMPTS):
        digest = hashlib.sha256(f"{key}\n{attempt}".encode()).digest()
        hue = int.from_bytes(digest[:4], "big") / 2**32 * 2 * math.pi
        warm = 0.5 < hue < 2.2  # orange to yellow: dark ones are brown, which drowns in photographs
        darkest = 0.70 if warm else 0.52
        lightness = darkest + (0.86 - darkest) * digest[4] / 255
        chroma = 0.13 + 0.12 * digest[5] / 255
        yield _candidate(lightness, chroma, hue)


def _candidate(lightness: float, chroma: float, hue: float) -> _Candidate:
    """A colour, made paler as far as a screen needs it to show it."""
    rgb = _oklch_to_rgb(lightness, chroma, hue)
    while chroma > 0 and not all(0 <= value <= 1 for value in rgb):
        chroma = max(chroma - 0.01, 0)
        rgb = _oklch_to_rgb(lightness, chroma, hue)
    red, green, blue = (min(max(round(255 * value), 0), 255) for value in rgb)
    place = (_LIGHTNESS_WEIGHT * lightness, chroma * math.cos(hue), chroma * math.sin(hue))
    return _Candidate((red, green, blue), place)


@functools.cache
def _colors_of_frequent() -> Mapping[str, Color]:
    chosen = {key: _candidate(*color) for key, color in _EXPECTED.items()}
    for key in _FREQUENT:
        taken = np.array([candidate.place for candidate in chosen.values()])
        best, best_distance = None, -1.0
        for candidate in _candidates(key):
            distance = np.linalg.norm(taken - candidate.place, axis=1).min()
            if distance > best_distance:
                best, best_distance = candidate, distance
            if distance >= _SIMILAR:
                break
        assert best is not None
        chosen[key] = best
    return {key: candidate.rgb for key, candidate in chosen.items()}


def class_color(name: str) -> Color:
    """Return the colour of a class name: it depends on the name alone.

    Frequent classes have colours that differ clearly from each other. Those of all others are drawn by the name, so
    that two may happen to be alike; outlines and written names tell such classes apart.

    Args:
        name: the class's name; case and surrounding blanks play no part, nor do COCO's endings "-other" and "-merged".
    """
    key = _key(name)
    return _colors_of_frequent().get(key) or next(_candidates(key)).rgb


def class_colors(names: Sequence[str]) -> list[Color]:
    """Return the [`class_color`] of each class of a vocabulary."""
    return [class_color(name) for name in names]


__all__ = ["Color", "class_color", "class_colors"]
