"""Letters and lines that fit the size of a picture."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

from PIL import ImageFont

from ..model.class_colors import Color

INK: Color = (28, 28, 30)
PAPER: Color = (255, 255, 255)
MIN_LETTERS = 9
"""Height of letters in pixels; smaller ones cannot be read."""


def scale(size: tuple[int, int]) -> float:
    """Side of the square that has the picture's area: what line widths and letters are measured by."""
    return math.sqrt(size[0] * size[1])


def line_width(size: tuple[int, int]) -> int:
    """Width of the lines around segments, in pixels, for a picture of that width and height."""
    return max(1, round(scale(size) / 200))


def letter_size(size: tuple[int, int]) -> int:
    """Size of letters, in pixels, for a picture of that width and height."""
    return max(MIN_LETTERS + 2, round(scale(size) / 40))


def font_of(size: int, path: str | Path | None) -> Any:
    """A font of that size in pixels: from a file, or Pillow's own."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def drawable(text: str, font_path: str | Path | None) -> str:
    """The text without accents if it is to be drawn in Pillow's own font, which has next to none."""
    if font_path is not None:
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def text_size(font: Any, text: str) -> tuple[int, int]:
    """Width of the text, and height of a line, which is the same for every text."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)), ascent + descent


def wrap(font: Any, text: str, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken at blanks, after hyphens and commas, or else anywhere."""
    lines: list[str] = []
    rest = text.strip()
    while font.getlength(rest) > width and len(rest) > 1:
        fits = next((n for n in range(len(rest) - 1, 0, -1) if font.getlength(rest[:n].rstrip()) <= width), 1)
        breaks = [n for n in range(1, fits + 1) if rest[n : n + 1] == " " or rest[n - 1] in " -,/"]
        end = breaks[-1] if breaks else fits
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*lines, rest]


__all__ = ["INK", "MIN_LETTERS", "PAPER", "drawable", "font_of", "letter_size", "line_width", "text_size", "wrap"]
