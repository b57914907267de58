"""Pictures next to each other, with titles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..model.class_colors import Color, class_color
from ..model.pictures import as_viewer_shows
from ..model.segments import Segments
from .index_map import IndexMap, from_map, from_masks, from_segments
from .lettering import INK, PAPER, drawable, font_of, letter_size, text_size, wrap
from .overlays import least_legend_width, legend_panel, paint, present_names, stack


def side_by_side(
    images: Sequence[Image.Image | np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    font: str | Path | None = None,
) -> Image.Image:
    """Put pictures next to each other, at one height, with titles above.

    Args:
        images: one or more pictures; all are scaled to the height of the tallest.
        titles: a title for each.
        columns: how many in a row; by default all.
        font: see [`overlay`].

    Raises:
        ValueError: without pictures, or if there are not as many titles as pictures.
    """
    if not images:
        raise ValueError("side_by_side needs at least one picture.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"there must be one title for each picture, got {len(titles)} for {len(images)}.")
    pictures = [as_viewer_shows(image) for image in images]
    height = max(picture.height for picture in pictures)
    pictures = [
        picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)
        if picture.height != height
        else picture
        for picture in pictures
    ]
    letters = letter_size(pictures[0].size)
    title_font = font_of(letters, font)
    line = text_size(title_font, "")[1]
    gap = max(2, letters // 2)
    columns = min(columns or len(pictures), len(pictures))
    widths = [max(picture.width for picture in pictures[column::columns]) for column in range(columns)]
    lines = [
        wrap(title_font, drawable(title, font), widths[position % columns])
        for position, title in enumerate(titles or [])
    ]
    title_height = max(map(len, lines)) * line + gap if lines else 0
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new(
        "RGB",
        (sum(widths) + gap * (columns + 1), rows * (title_height + height + gap) + gap),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        left = gap + sum(widths[:column]) + gap * column
        top = gap + row * (title_height + height + gap)
        if lines:
            first = top + title_height - gap // 2 - len(lines[position]) * line  # next to the picture
            for number, text in enumerate(lines[position]):
                draw.text((left, first + number * line), text, fill=INK, font=title_font)
        canvas.paste(picture, (left, top + title_height))
    return canvas


def compare(
    image: Image.Image | np.ndarray,
    results: Mapping[str, Any],
    labels: Sequence[str] | None = None,
    *,
    title: str = "Input",
    columns: int | None = None,
    alpha: float = 0.5,
    font: str | Path | None = None,
) -> Image.Image:
    """Put a picture and several results for it next to each other, with one legend below for all.

    Args:
        image: the picture.
        results: title and result of each: [`Segments`], what a segmentation pipeline returns, a `(height, width)` map
            of class indices, or a dict with `segmentation` and `segments_info`, as panoptic post-processing returns it.
        labels: name of each class, for results that do not bring names.
        title: the picture's own title.
        columns: how many in a row; by default all.
        alpha: see [`overlay`].
        font: see [`overlay`].

    Raises:
        ValueError: without results, if sizes do not match or names are missing.
    """
    if not results:
        raise ValueError("compare needs at least one result.")
    picture = as_viewer_shows(image)
    painted, colors = [picture], dict[str, Color]()
    for result in results.values():
        index_map = _as_index_map(picture, result, labels)
        painted.append(paint(picture, index_map, alpha=alpha, font=font, legend=False))
        colors |= {name: class_color(name) for name in present_names(index_map)}
    pictures = side_by_side(painted, [title, *results], columns=columns, font=font)
    letters = letter_size(picture.size)
    entries = [(color, name) for name, color in colors.items()] or [(PAPER, "nothing found")]
    return stack(pictures, legend_panel(entries, max(pictures.width, least_legend_width(letters)), letters, font))


def _as_index_map(picture: Image.Image, result: Any, labels: Sequence[str] | None) -> IndexMap:
    if isinstance(result, Segments):
        return from_segments(picture, result)
    if isinstance(result, Mapping):
        return from_map(picture, result["segmentation"], result["segments_info"], labels)
    if isinstance(result, Sequence) and (not result or isinstance(result[0], Mapping)):
        return from_masks(picture, result)
    return from_map(picture, result, None, labels)


__all__ = ["compare", "side_by_side"]
