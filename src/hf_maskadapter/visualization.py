"""Pictures of results: overlays with outlines, names and a legend, heat maps of activations, side-by-side comparisons.

Everything is drawn with Pillow and NumPy. Sizes of lines and letters follow from the picture's size, so that a
thumbnail and a 12-megapixel photograph both stay readable.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_INK: Color = (28, 28, 30)
_PAPER: Color = (255, 255, 255)
_ABSENT = -1  # in a map of segment indices: no segment here

_SIMILAR = 0.11  # two colours closer than this look alike at a glance
_LIGHTNESS_WEIGHT = 0.4  # painted over a picture, lightness tells colours apart less well than hue does
_COLOR_ATTEMPTS = 24
_FADING = 0.6  # how much of its own colour a picture loses under paint, so that the paint looks as in the legend

_PLACEMENT_GRID = 320  # names are placed on a grid of at most this many cells a side
_MIN_COVERAGE = 0.8  # of a name's box that must lie on its own segment
_MAX_SHARE = 0.25  # of a segment that its name may hide
_MIN_LETTERS = 9  # pixels; smaller ones cannot be read


# --- colours ----------------------------------------------------------------------------------------------------------


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


def _candidates(name: str) -> Iterator[_Candidate]:
    """Yield the colours that a name may get, in the name's own order of preference."""
    key = " ".join(name.lower().split())
    for attempt in range(_COLOR_ATTEMPTS):
        digest = hashlib.sha256(f"{key}\n{attempt}".encode()).digest()
        hue = int.from_bytes(digest[:4], "big") / 2**32 * 2 * math.pi
        warm = 0.5 < hue < 2.2  # orange to yellow: dark ones are brown, which drowns in photographs
        darkest = 0.70 if warm else 0.52
        lightness = darkest + (0.86 - darkest) * digest[4] / 255
        chroma = 0.13 + 0.12 * digest[5] / 255
        rgb = _oklch_to_rgb(lightness, chroma, hue)
        while chroma > 0 and not all(0 <= value <= 1 for value in rgb):
            chroma = max(chroma - 0.01, 0)
            rgb = _oklch_to_rgb(lightness, chroma, hue)
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in rgb)
        place = (_LIGHTNESS_WEIGHT * lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        yield _Candidate((red, green, blue), place)


def class_color(name: str) -> Color:
    """Return the colour of a class name: the same in every picture, run and machine.

    Args:
        name: the class's name; case and surrounding blanks play no part.
    """
    return next(_candidates(name)).rgb


def class_colors(names: Sequence[str]) -> list[Color]:
    """Return one colour for each class of a vocabulary, no two alike as far as there is room.

    A name gets [`class_color`] unless a name before it in the list has a similar one; then it takes its next choice.
    So colours are stable for a vocabulary, appending classes changes none of them, and in a small vocabulary nearly
    every name keeps the colour that it has everywhere.
    """
    chosen: list[Color] = []
    taken = np.empty((len(names), 3))
    for count, name in enumerate(names):
        best, best_distance = None, -1.0
        for candidate in _candidates(name):
            distance = np.linalg.norm(taken[:count] - candidate.place, axis=1).min(initial=math.inf)
            if distance > best_distance:
                best, best_distance = candidate, distance
            if distance >= _SIMILAR:
                break
        assert best is not None
        chosen.append(best.rgb)
        taken[count] = best.place
    return chosen


# --- inputs -----------------------------------------------------------------------------------------------------------


def _as_array(values: Any) -> np.ndarray:
    """NumPy array of an array, a tensor on any device, a PIL image or nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()  # NumPy has no bfloat16
    return np.asarray(values)


def _as_picture(image: Any) -> Image.Image:
    from .image_processing_maskadapter import as_viewer_shows  # here, because it imports PyTorch and Transformers

    return as_viewer_shows(image)


class _Segments(NamedTuple):
    indices: np.ndarray
    """(height, width) index into `names`, or `_ABSENT`."""
    names: list[str]
    scores: list[float | None]
    vocabulary: list[str]
    """Every name that takes part in the choice of colours, in a fixed order."""


def _check_size(picture: Image.Image, array: np.ndarray, what: str) -> None:
    if array.shape != (picture.height, picture.width):
        raise ValueError(
            f"{what} has shape {array.shape}, but the picture is {picture.height} pixels high and {picture.width} "
            "wide: post-process with target_sizes=[(height, width)] of the picture."
        )


def _from_map(
    picture: Image.Image,
    segmentation: Any,
    segments_info: Sequence[Mapping[str, Any]] | None,
    labels: Sequence[str] | None,
) -> _Segments:
    values = _as_array(segmentation)
    _check_size(picture, values, "the segmentation")
    values = values.astype(np.int64)
    if segments_info is None:
        if labels is None:
            raise ValueError("a label map needs labels=, the name of each class index.")
        known = np.where((values >= 0) & (values < len(labels)), values, len(labels))
        present = np.flatnonzero(np.bincount(known.ravel(), minlength=len(labels) + 1)[: len(labels)]).tolist()
        lookup = np.full(len(labels) + 1, _ABSENT)
        lookup[present] = np.arange(len(present))
        return _Segments(lookup[known], [labels[i] for i in present], [None] * len(present), list(labels))

    names = []
    for info in segments_info:
        if info.get("label") is not None:
            names.append(str(info["label"]))
        elif labels is not None:
            names.append(labels[info["label_id"]])
        else:
            raise ValueError('segments_info without a "label" needs labels=, the name of each label_id.')
    indices = np.full(values.shape, _ABSENT)
    if segments_info:
        ids = np.array([info["id"] for info in segments_info])
        order = np.argsort(ids)
        nearest = np.searchsorted(ids[order], values).clip(max=len(ids) - 1)
        indices = np.where(ids[order][nearest] == values, order[nearest], _ABSENT)
    scores = [info.get("score") for info in segments_info]
    return _Segments(indices, names, scores, list(labels) if labels is not None else sorted(set(names)))


def _from_masks(picture: Image.Image, segments: Sequence[Mapping[str, Any]], labels: Sequence[str] | None) -> _Segments:
    masks = [_as_array(segment["mask"]) for segment in segments]
    for mask in masks:
        _check_size(picture, mask, "a mask")
    indices = np.full((picture.height, picture.width), _ABSENT)
    for index in sorted(range(len(masks)), key=lambda index: -np.count_nonzero(masks[index])):
        indices[masks[index] > 0] = index  # where masks overlap, the smaller one lies on top
    names = [str(segment["label"]) for segment in segments]
    scores = [segment.get("score") for segment in segments]
    return _Segments(indices, names, scores, list(labels) if labels is not None else sorted(set(names)))


# --- letters and lines ------------------------------------------------------------------------------------------------


def _scale(size: tuple[int, int]) -> float:
    """Side of the square that has the picture's area: what line widths and letters are measured by."""
    return math.sqrt(size[0] * size[1])


def _line_width(size: tuple[int, int]) -> int:
    return max(1, round(_scale(size) / 400))


def _letter_size(size: tuple[int, int]) -> int:
    return max(_MIN_LETTERS + 2, round(_scale(size) / 40))


def _font(size: int, path: str | Path | None) -> Any:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _drawable(text: str, font_path: str | Path | None) -> str:
    """The text without accents if it is to be drawn in Pillow's own font, which has next to none."""
    if font_path is not None:
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _text_size(font: Any, text: str) -> tuple[int, int]:
    """Width of the text, and height of a line, which is the same for every text."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)), ascent + descent


def _shorten(font: Any, text: str, width: int) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text.rstrip() + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _boundaries(indices: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` of another segment, on both sides of each border. `(height, width)` bool."""
    edges = np.zeros(indices.shape, dtype=bool)
    for axis in (0, 1):
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        changed = indices[tuple(before)] != indices[tuple(after)]
        edges[tuple(before)] |= changed
        edges[tuple(after)] |= changed
    for _ in range(width - 1):
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
        best = coverage.max()
        if best < _MIN_COVERAGE:
            return None
        candidates = np.argwhere(coverage >= best - 1e-6)
        centre = np.argwhere(own).mean(axis=0) - (rows / 2, columns / 2)
        row, column = candidates[np.linalg.norm(candidates - centre, axis=1).argmin()]
        self.occupied[row : row + rows, column : column + columns] = True
        return int(column) * self.step, int(row) * self.step


def _draw_names(picture: Image.Image, segments: _Segments, texts: list[str], font_path: str | Path | None) -> None:
    """Write each segment's text on it, in smaller letters if need be, and not at all where there is no room."""
    texts = [_drawable(text, font_path) for text in texts]
    placement = _Placement(segments.indices)
    areas = np.bincount(placement.grid[placement.grid != _ABSENT], minlength=len(texts))
    largest = _letter_size(picture.size)
    fonts = [
        _font(size, font_path) for size in dict.fromkeys(max(_MIN_LETTERS, round(largest * f)) for f in (1, 0.8, 0.65))
    ]
    draw = ImageDraw.Draw(picture, "RGBA")
    for index in np.argsort(areas, kind="stable"):  # small ones first: they have the least choice
        if areas[index] == 0:
            continue
        for font in fonts:
            width, height = _text_size(font, texts[index])
            margin = max(1, round(height * 0.15))
            box = width + 2 * margin, height
            corner = placement.place(int(index), *box)
            if corner is None:
                continue
            left, top = corner
            draw.rounded_rectangle((left, top, left + box[0], top + box[1]), radius=2 * margin, fill=(*_INK, 170))
            draw.text((left + margin, top), texts[index], fill=_PAPER, font=font)
            break


def _legend(
    entries: Sequence[tuple[Color, str]], width: int, letters: int, font_path: str | Path | None
) -> Image.Image:
    """A white panel of the given width with one swatch and text for each entry, in as many columns as fit."""
    font = _font(letters, font_path)
    line = _text_size(font, "")[1]
    gap = max(3, line // 2)
    swatch = max(6, round(line * 0.75))
    room = max(1, width - swatch - 3 * gap)
    texts = [_shorten(font, _drawable(text, font_path), room) for _, text in entries]
    cell = swatch + 2 * gap + max(_text_size(font, text)[0] for text in texts)
    columns = max(1, min((width - gap) // cell, len(entries)))
    rows = math.ceil(len(entries) / columns)
    row_height = round(line * 1.25)
    panel = Image.new("RGB", (width, rows * row_height + 2 * gap), _PAPER)
    draw = ImageDraw.Draw(panel)
    for position, ((color, _), text) in enumerate(zip(entries, texts, strict=True)):
        column, row = divmod(position, rows)
        left, top = gap + column * cell, gap + row * row_height
        middle = top + row_height / 2
        box = (left, round(middle - swatch / 2), left + swatch, round(middle + swatch / 2))
        draw.rounded_rectangle(box, radius=max(1, swatch // 6), fill=color)
        draw.text((left + swatch + gap, middle), text, fill=_INK, font=font, anchor="lm")
    return panel


def _legend_entries(segments: _Segments, colors: Mapping[str, Color]) -> list[tuple[Color, str]]:
    """Names that occur, by area, with the number of segments where there are several."""
    present = segments.indices[segments.indices != _ABSENT]
    areas = np.bincount(present, minlength=len(segments.names))
    total: dict[str, int] = {}
    count: dict[str, int] = {}
    for name, area in zip(segments.names, areas.tolist(), strict=True):
        if area:
            total[name] = total.get(name, 0) + area
            count[name] = count.get(name, 0) + 1
    names = sorted(total, key=lambda name: (-total[name], name))
    return [(colors[name], name if count[name] == 1 else f"{name} ({count[name]})") for name in names]


def _stack(picture: Image.Image, panel: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (max(picture.width, panel.width), picture.height + panel.height), _PAPER)
    canvas.paste(picture, (0, 0))
    canvas.paste(panel, (0, picture.height))
    return canvas


# --- results ----------------------------------------------------------------------------------------------------------


def _overlay(
    picture: Image.Image,
    segments: _Segments,
    alpha: float,
    outlines: bool,
    names: bool,
    scores: bool,
    legend: bool,
    font: str | Path | None,
) -> Image.Image:
    colors = dict(zip(segments.vocabulary, class_colors(segments.vocabulary), strict=True))
    entries = _legend_entries(segments, colors)
    if entries:
        present = segments.indices != _ABSENT
        lookup = np.array([colors[name] for name in segments.names], dtype=np.uint8)
        pixels = np.asarray(picture)
        painted = np.where(present[..., None], lookup[segments.indices], pixels)
        faded = Image.blend(picture, picture.convert("L").convert("RGB"), _FADING)
        backdrop = Image.fromarray(np.where(present[..., None], np.asarray(faded), pixels))
        blended = np.array(Image.blend(backdrop, Image.fromarray(painted), alpha))
        if outlines:
            edges = _boundaries(segments.indices, _line_width(picture.size)) & present
            blended[edges] = painted[edges]
        picture = Image.fromarray(blended)
    else:
        picture = picture.copy()
    if names:
        texts = [
            f"{name} {score:.0%}" if scores and score is not None else name
            for name, score in zip(segments.names, segments.scores, strict=True)
        ]
        _draw_names(picture, segments, texts, font)
    if legend:
        letters = _letter_size(picture.size)
        width = max(picture.width, 12 * letters)
        picture = _stack(picture, _legend(entries or [(_PAPER, "nothing found")], width, letters, font))
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
    """Paint a label map, or a map of segment ids, over its picture.

    Args:
        image: the picture, in any form that [`as_viewer_shows`] reads: a PIL image, an array, a tensor.
        segmentation: `(height, width)` integers at the picture's size, as the `post_process_*` functions return them:
            class indices, or segment ids if `segments_info` is given. What is no class or segment stays unpainted.
        segments_info: for each segment its `id`, and `label_id` (an index into `labels`) or `label`; optionally
            `score`.
        labels: name of each class. Give the whole vocabulary, so that colours are the same in every picture.
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
    picture = _as_picture(image)
    segments = _from_map(picture, segmentation, segments_info, labels)
    return _overlay(picture, segments, alpha, outlines, names, scores, legend, font)


def overlay_masks(
    image: Image.Image | np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    labels: Sequence[str] | None = None,
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
        segments: for each segment a `label`, a `mask` (PIL image or `(height, width)` array, non-zero inside) and
            optionally a `score`. Where masks overlap, the smaller one lies on top.
        labels: every name of the vocabulary, so that colours are the same in every picture.
        alpha, outlines, names, scores, legend, font: see [`overlay`].
    """
    picture = _as_picture(image)
    return _overlay(picture, _from_masks(picture, segments, labels), alpha, outlines, names, scores, legend, font)


_HEAT = np.array(  # dark to bright in even steps of lightness, so that it reads in grey, too
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    dtype=float,
)


def heat_map(
    image: Image.Image | np.ndarray,
    values: Any,
    *,
    maximum: float | None = None,
    alpha: float = 0.6,
) -> Image.Image:
    """Paint values over a picture, dark where they are low, bright where they are high.

    Args:
        image: the picture.
        values: `(height, width)` non-negative numbers of any resolution that cover the whole picture.
        maximum: the value that gets the brightest colour; by default the largest one.
        alpha: how strongly to paint, 0 to 1.

    Raises:
        ValueError: if `values` is not a map.
    """
    picture = _as_picture(image)
    array = _as_array(values).astype(np.float32)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"values must have shape (height, width), got {array.shape}.")
    array = np.nan_to_num(array / max(float(maximum if maximum is not None else array.max()), 1e-12)).clip(0, 1)
    smooth = Image.fromarray(array).resize(picture.size, Image.Resampling.BILINEAR)
    levels = np.linspace(0, 1, 256)
    stops = np.linspace(0, 1, len(_HEAT))
    lookup = np.stack([np.interp(levels, stops, channel) for channel in _HEAT.T], axis=1).round().astype(np.uint8)
    heat = lookup[(np.asarray(smooth) * 255).round().astype(np.uint8)]
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray(heat), alpha)


def activation_heat_map(
    image: Image.Image | np.ndarray,
    activation_maps: Any,
    *,
    image_size: Sequence[int] | None = None,
    padded_size: Sequence[int] | None = None,
    alpha: float = 0.6,
) -> Image.Image:
    """Show where the Mask-Adapter looks for one mask: the mean of its pooling weights.

    Args:
        image: the picture.
        activation_maps: one mask's semantic activation maps, `(num_output_maps, height, width)`, before the sigmoid,
            or one of them, `(height, width)`: `outputs.semantic_activation_maps[image, mask]`.
        image_size: height and width of the picture inside the padded input, `outputs.image_sizes[image]`.
        padded_size: height and width of the padded input, `outputs.padded_size`. Both or neither must be given.
        alpha: see [`heat_map`].

    Raises:
        ValueError: if the shapes do not fit.
    """
    maps = _as_array(activation_maps).astype(np.float64)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3:
        raise ValueError(f"activation_maps must have shape (num_output_maps, height, width), got {maps.shape}.")
    if (image_size is None) != (padded_size is None):
        raise ValueError("image_size and padded_size belong together: give both or neither.")
    weights = 1 / (1 + np.exp(-maps))
    weights = (weights / weights.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    if image_size is not None and padded_size is not None:
        shares = _as_array(image_size).astype(float) / _as_array(padded_size).astype(float)
        height, width = (max(1, round(n * share)) for n, share in zip(weights.shape, shares, strict=True))
        weights = weights[:height, :width]
    return heat_map(image, weights, alpha=alpha)


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
    pictures = [_as_picture(image) for image in images]
    height = max(picture.height for picture in pictures)
    pictures = [
        picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)
        if picture.height != height
        else picture
        for picture in pictures
    ]
    letters = _letter_size(pictures[0].size)
    title_font = _font(letters, font)
    gap = max(2, letters // 2)
    title_height = _text_size(title_font, "")[1] + gap if titles is not None else 0
    columns = min(columns or len(pictures), len(pictures))
    widths = [max(picture.width for picture in pictures[column::columns]) for column in range(columns)]
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new(
        "RGB",
        (sum(widths) + gap * (columns + 1), rows * (title_height + height + gap) + gap),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for position, picture in enumerate(pictures):
        row, column = divmod(position, columns)
        left = gap + sum(widths[:column]) + gap * column
        top = gap + row * (title_height + height + gap)
        if titles is not None:
            title = _shorten(title_font, _drawable(titles[position], font), widths[column])
            draw.text((left, top), title, fill=_INK, font=title_font)
        canvas.paste(picture, (left, top + title_height))
    return canvas


__all__ = [
    "Color",
    "activation_heat_map",
    "class_color",
    "class_colors",
    "heat_map",
    "overlay",
    "overlay_masks",
    "side_by_side",
]
