"""Segments painted over their picture, with outlines, their names on them, and a legend below."""

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
from .index_map import ABSENT, IndexMap, from_map, from_masks, from_segments
from .lettering import INK, MIN_LETTERS, PAPER, drawable, font_of, letter_size, line_width, text_size, wrap

_FADING = 0.6  # how much of its own colour a picture loses under paint, so that the paint looks as in the legend
_PLACEMENT_GRID = 320  # names are placed on a grid of at most this many cells a side
_MIN_COVERAGE = 0.8  # of a name's box that must lie on its own segment
_MAX_SHARE = 0.25  # of a segment that its name may hide


def _boundaries(indices: np.ndarray, width: int) -> np.ndarray:
    """Lines of about `width` pixels along the borders between segments, in their middle. `(height, width)` bool."""
    edges = np.zeros(indices.shape, dtype=bool)
    for axis in (0, 1):
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        changed = indices[tuple(before)] != indices[tuple(after)]
        edges[tuple(after)] |= changed
        if width > 1:
            edges[tuple(before)] |= changed
    for _ in range(width // 2 - 1):
        grown = edges.copy()
        grown[1:] |= edges[:-1]
        grown[:-1] |= edges[1:]
        grown[:, 1:] |= edges[:, :-1]
        grown[:, :-1] |= edges[:, 1:]
        edges = grown
    return edges


class _Placement:
    """Finds room for names on the segments that they belong to, on a coarse grid, without overlap."""

    def __init__(self, indices: np.ndarray):
        self.step = max(1, math.ceil(max(indices.shape) / _PLACEMENT_GRID))
        self.grid = indices[self.step // 2 :: self.step, self.step // 2 :: self.step]
        if self.grid.size == 0:
            self.grid = indices[:1, :1]
        self.occupied = np.zeros(self.grid.shape, dtype=bool)

    @staticmethod
    def _box_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
        """Sum inside the box whose top left corner is at each cell where the box fits into the grid."""
        integral = np.pad(values.astype(np.int32), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        return (
            integral[height:, width:]
            - integral[:-height, width:]
            - integral[height:, :-width]
            + integral[:-height, :-width]
        )

    def place(self, index: int, width: int, height: int) -> tuple[int, int] | None:
        """Reserve a box of that many pixels on segment `index`; return its top left corner, or None without room."""
        columns, rows = math.ceil(width / self.step), math.ceil(height / self.step)
        if rows > self.grid.shape[0] or columns > self.grid.shape[1]:
            return None
        own = self.grid == index
        if rows * columns > _MAX_SHARE * np.count_nonzero(own):
            return None
        coverage = self._box_sums(own, rows, columns) / (rows * columns)
        coverage[self._box_sums(self.occupied, rows, columns) > 0] = 0
        middles = own[rows // 2 :, columns // 2 :][: coverage.shape[0], : coverage.shape[1]]
        coverage[~middles] = 0  # the middle of the name always lies on its segment
        best = coverage.max()
        if best < _MIN_COVERAGE:
            return None
        candidates = np.argwhere(coverage >= best - 1e-6)
        center = np.argwhere(own).mean(axis=0) - (rows / 2, columns / 2)
        row, column = candidates[np.linalg.norm(candidates - center, axis=1).argmin()]
        self.occupied[row : row + rows, column : column + columns] = True
        return int(column) * self.step, int(row) * self.step


def _draw_names(picture: Image.Image, index_map: IndexMap, texts: list[str], font_path: str | Path | None) -> None:
    """Write each segment's text on it, in smaller letters if need be, and not at all where there is no room."""
    texts = [drawable(text, font_path) for text in texts]
    placement = _Placement(index_map.indices)
    areas = np.bincount(placement.grid[placement.grid != ABSENT], minlength=len(texts))
    largest = letter_size(picture.size)
    fonts = [
        font_of(size, font_path) for size in dict.fromkeys(max(MIN_LETTERS, round(largest * f)) for f in (1, 0.8, 0.65))
    ]
    draw = ImageDraw.Draw(picture, "RGBA")
    for index in np.argsort(areas, kind="stable"):  # small ones first: they have the least choice
        if areas[index] == 0:
            continue
        for font in fonts:
            width, height = text_size(font, texts[index])
            margin = max(1, round(height * 0.15))
            box = width + 2 * margin, height
            corner = placement.place(int(index), *box)
            if corner is None:
                continue
            left, top = corner
            draw.rounded_rectangle((left, top, left + box[0], top + box[1]), radius=2 * margin, fill=(*INK, 170))
            draw.text((left + margin, top), texts[index], fill=PAPER, font=font)
            break


def least_legend_width(letters: int) -> int:
    """Width in pixels below which a legend in letters of that size cannot be read."""
    return 12 * letters


def legend_panel(
    entries: Sequence[tuple[Color, str]], width: int, letters: int, font_path: str | Path | None
) -> Image.Image:
    """A white panel with one swatch and text for each entry, in as many columns as fit. Long texts take several lines.

    Args:
        entries: colours and texts.
        width: of the panel, in pixels.
        letters: size of the letters, in pixels.
        font_path: a font file, or None for Pillow's own.
    """
    font = font_of(letters, font_path)
    line = text_size(font, "")[1]
    gap = max(3, line // 2)
    swatch = max(6, round(line * 0.75))
    room = max(1, width - swatch - 3 * gap)
    texts = [wrap(font, drawable(text, font_path), room) for _, text in entries]
    cell = swatch + 3 * gap + max(text_size(font, line)[0] for lines in texts for line in lines)
    columns = max(1, min(width // cell, len(entries)))
    row_height = round(line * 1.25)
    heights = [row_height + (len(lines) - 1) * line for lines in texts]
    per_column = _fill_columns(heights, columns)
    panel = Image.new("RGB", (width, max(sum(column) for column in per_column) + 2 * gap), PAPER)
    draw = ImageDraw.Draw(panel)
    remaining = iter(zip(entries, texts, strict=True))
    for number, column in enumerate(per_column):
        left, top = gap + number * cell, gap
        for height in column:
            (color, _), lines = next(remaining)
            middle = top + row_height / 2
            box = (left, round(middle - swatch / 2), left + swatch, round(middle + swatch / 2))
            draw.rounded_rectangle(box, radius=max(1, swatch // 6), fill=color)
            for place, text in enumerate(lines):
                draw.text((left + swatch + gap, middle + place * line), text, fill=INK, font=font, anchor="lm")
            top += height
    return panel


def _fill_columns(heights: Sequence[int], columns: int) -> list[list[int]]:
    """Heights in order, in so many columns at most, which are about as high as each other."""
    limit = max(max(heights), math.ceil(sum(heights) / columns))
    while True:
        filled: list[list[int]] = [[]]
        for height in heights:
            if filled[-1] and sum(filled[-1]) + height > limit:
                filled.append([])
            filled[-1].append(height)
        if len(filled) <= columns:
            return filled
        limit += min(heights)


def present_names(index_map: IndexMap) -> dict[str, int]:
    """The names that occur, by area, each with its number of segments."""
    present = index_map.indices[index_map.indices != ABSENT]
    areas = np.bincount(present, minlength=len(index_map.names))
    total: dict[str, int] = {}
    count: dict[str, int] = {}
    for name, area in zip(index_map.names, areas.tolist(), strict=True):
        if area:
            total[name] = total.get(name, 0) + area
            count[name] = count.get(name, 0) + 1
    return {name: count[name] for name in sorted(total, key=lambda name: (-total[name], name))}


def _legend_entries(index_map: IndexMap) -> list[tuple[Color, str]]:
    """Colour and text of each name, with the number of segments where there are several."""
    return [
        (class_color(name), name if count == 1 else f"{name} ({count})")
        for name, count in present_names(index_map).items()
    ]


def stack(picture: Image.Image, panel: Image.Image) -> Image.Image:
    """A picture with a panel below."""
    canvas = Image.new("RGB", (max(picture.width, panel.width), picture.height + panel.height), PAPER)
    canvas.paste(picture, (0, 0))
    canvas.paste(panel, (0, picture.height))
    return canvas


def paint(
    picture: Image.Image,
    index_map: IndexMap,
    *,
    alpha: float = 0.5,
    outlines: bool = True,
    names: bool = True,
    scores: bool = False,
    legend: bool = True,
    font: str | Path | None = None,
) -> Image.Image:
    """Paint segments over an RGB picture; the options are those of [`overlay`]."""
    entries = _legend_entries(index_map)
    if entries:
        present = index_map.indices != ABSENT
        lookup = np.array([class_color(name) for name in index_map.names], dtype=np.uint8)
        pixels = np.asarray(picture)
        painted = np.where(present[..., None], lookup[index_map.indices], pixels)
        faded = Image.blend(picture, Image.merge("RGB", [picture.convert("L")] * 3), _FADING)
        backdrop = Image.fromarray(np.where(present[..., None], np.asarray(faded), pixels))
        blended = np.array(Image.blend(backdrop, Image.fromarray(painted), alpha))
        if outlines:
            edges = _boundaries(index_map.indices, line_width(picture.size)) & present
            blended[edges] = painted[edges]
        picture = Image.fromarray(blended)
    else:
        picture = picture.copy()
    if names:
        texts = [
            f"{name} {score:.0%}" if scores and score is not None else name
            for name, score in zip(index_map.names, index_map.scores, strict=True)
        ]
        _draw_names(picture, index_map, texts, font)
    if legend:
        letters = letter_size(picture.size)
        width = max(picture.width, least_legend_width(letters))
        picture = stack(picture, legend_panel(entries or [(PAPER, "nothing found")], width, letters, font))
    return picture


def overlay(
    image: Image.Image | np.ndarray,
    segmentation: Any,
    segments_info: Sequence[Mapping[str, Any]] | None = None,
    labels: Sequence[str] | None = None,
    *,
    alpha: float = 0.5,
    outlines: bool = True,
    names: bool = True,
    scores: bool = False,
    legend: bool = True,
    font: str | Path | None = None,
) -> Image.Image:
    """Paint a result over its picture: [`Segments`], a label map, or a map of segment ids.

    Args:
        image: the picture, in any form that [`as_viewer_shows`] reads: a PIL image, an array, a tensor.
        segmentation: [`Segments`]; or `(height, width)` integers at the picture's size, as the `post_process_*`
            functions return them: class indices, or segment ids if `segments_info` is given. What is no class or
            segment stays unpainted.
        segments_info: for each segment its `id`, and `label_id` (an index into `labels`) or `label`; optionally
            `score`.
        labels: name of each class.
        alpha: how strongly to paint, 0 (not at all) to 1.
        outlines: whether to draw the segments' outlines.
        names: whether to write each segment's name on it, where there is room.
        scores: whether to add the segments' scores to their names.
        legend: whether to append a legend below. Without it, the result has the picture's size.
        font: a TrueType or OpenType file for names that Pillow's own font lacks letters for, such as Chinese ones.

    Returns:
        An RGB picture. A legend that would not be readable at the width of a tiny picture makes the result wider.

    Raises:
        TypeError, ValueError: if it is no picture, sizes do not match or names are missing.
    """
    picture = as_viewer_shows(image)
    if isinstance(segmentation, Segments):
        index_map = from_segments(picture, segmentation)
    else:
        index_map = from_map(picture, segmentation, segments_info, labels)
    return paint(
        picture, index_map, alpha=alpha, outlines=outlines, names=names, scores=scores, legend=legend, font=font
    )


def overlay_masks(
    image: Image.Image | np.ndarray,
    segments: Segments | Sequence[Mapping[str, Any]],
    *,
    alpha: float = 0.5,
    outlines: bool = True,
    names: bool = True,
    scores: bool = False,
    legend: bool = True,
    font: str | Path | None = None,
) -> Image.Image:
    """Paint masks, such as a segmentation pipeline's result, over their picture.

    Args:
        image: the picture.
        segments: for each segment a `label`, a `mask` (PIL image or `(height, width)` array, in any form that
            [`binary_mask`] reads) and optionally a `score`. Where masks overlap, the smaller one lies on top. Or
            [`Segments`].
        alpha: see [`overlay`].
        outlines: see [`overlay`].
        names: see [`overlay`].
        scores: see [`overlay`].
        legend: see [`overlay`].
        font: see [`overlay`].

    Raises:
        TypeError, ValueError: if it is no picture, or a mask is none of the picture's size.
    """
    picture = as_viewer_shows(image)
    index_map = from_segments(picture, segments) if isinstance(segments, Segments) else from_masks(picture, segments)
    return paint(
        picture,
        index_map,
        alpha=alpha,
        outlines=outlines,
        names=names,
        scores=scores,
        legend=legend,
        font=font,
    )


__all__ = ["least_legend_width", "legend_panel", "overlay", "overlay_masks", "paint", "present_names", "stack"]
