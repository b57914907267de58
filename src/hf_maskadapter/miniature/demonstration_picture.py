"""The demo's picture: truth, both methods with what they get wrong, and where the adapter looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..model.class_colors import Color
from ..model.configuration_maskadapter import MaskEmbedding
from ..visualization import activation_heat_map
from ..visualization.lettering import INK, PAPER, font_of, text_size, wrap
from .scene_comparison import SceneComparison

METHOD_TITLES: dict[MaskEmbedding, str] = {"pooling": "Mask pooling", "adapter": "Mask-Adapter"}
"""The methods that are compared, as the picture calls them. The adapter is last."""

_RIGHT: Color = (12, 110, 60)
_WRONG: Color = (190, 24, 30)
_DIFFERENT: Color = (255, 214, 0)
_LEAST_PART = 0.15  # of a segment that another name must cover to be written


class _Label(NamedTuple):
    """A name for a part of the picture."""

    part: np.ndarray
    """(size, size) bool."""
    text: str
    color: Color


def draw_comparison(comparison: SceneComparison, panel_size: int, heat_maps: int) -> Image.Image:
    """All panels: the scene with its true segments, each method's result, and activation maps below.

    Args:
        comparison: what is drawn.
        panel_size: side of each panel in pixels.
        heat_maps: activation maps of so many segments at most.
    """
    letters = max(11, round(panel_size / 22))
    gap = max(2, letters // 2)
    results = [("The scene and its truth", "", _truth_panel(comparison, panel_size, letters))]
    for method, title in METHOD_TITLES.items():
        score = f"mIoU {comparison.mean_iou(method):.1f} %" if comparison.has_truth else ""
        results.append((title, score, _result_panel(comparison, method, panel_size, letters)))
    shown = comparison.segments_to_explain(heat_maps)
    maps = [_map_panel(comparison, index, panel_size, letters) for index in shown]
    rows = [_row(results, panel_size, letters, gap), _key(3 * panel_size + 4 * gap, letters, gap, comparison.has_truth)]
    rows.append(_map_row(maps, [_captions(comparison, index) for index in shown], panel_size, letters, gap))
    canvas = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas


def _enlarged(values: np.ndarray, size: int) -> np.ndarray:
    """A map of any kind at the panel's size, each pixel repeated."""
    rows = np.arange(size) * values.shape[0] // size
    return values[rows[:, None], rows[None]]


def _truth_panel(comparison: SceneComparison, size: int, letters: int) -> Image.Image:
    labels = [
        _Label(_enlarged(mask, size), name, INK)
        for mask, name in zip(comparison.masks, comparison.true_names, strict=True)
    ]
    borders = np.zeros((size, size), dtype=bool)
    for label in labels:
        borders |= _border(label.part)
    return _panel(comparison.picture, size, letters, borders, None, None, labels)


def _result_panel(comparison: SceneComparison, method: MaskEmbedding, size: int, letters: int) -> Image.Image:
    label_map = _enlarged(comparison.label_maps[method], size)
    truth = _enlarged(comparison.truth, size)
    wrong = (truth >= 0) & (label_map != truth) if comparison.has_truth else None
    one, other = comparison.label_maps.values()
    labels = []
    for mask, name in zip(comparison.masks, comparison.true_names, strict=True):
        segment = _enlarged(mask, size)
        indices, areas = np.unique(label_map[segment], return_counts=True)
        for index, area in zip(indices.tolist(), areas.tolist(), strict=True):
            if area < max(_LEAST_PART * areas.sum(), 1):
                continue
            found = comparison.names[index]
            color = INK if not comparison.has_truth else _RIGHT if found == name else _WRONG
            labels.append(_Label(segment & (label_map == index), found, color))
    different = _large_spots(_enlarged(one != other, size))
    return _panel(comparison.picture, size, letters, _border(label_map), wrong, different, labels)


def _panel(
    picture: np.ndarray,
    size: int,
    letters: int,
    borders: np.ndarray,
    wrong: np.ndarray | None,
    different: np.ndarray | None,
    labels: Sequence[_Label],
) -> Image.Image:
    """A picture, paler, with segments' borders, hatched mistakes, framed differences and names."""
    base = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.array(Image.blend(base, Image.new("RGB", base.size, PAPER), 0.25))
    if wrong is not None:
        y, x = np.mgrid[:size, :size]
        stripes = (x + y) // max(2, size // 96) % 3 == 0
        pixels[wrong] = (0.55 * pixels[wrong] + 0.45 * np.array(_WRONG)).astype(np.uint8)
        pixels[wrong & stripes] = _WRONG
    pixels[_grown(borders, 1)] = PAPER
    pixels[borders] = INK
    if different is not None:
        frame = _border(different)
        width = max(3, size // 110)
        pixels[_grown(frame, width)] = INK
        pixels[_grown(frame, width - 2)] = _DIFFERENT
    panel = Image.fromarray(pixels)
    _write_labels(panel, labels, letters)
    return panel


def _map_panel(comparison: SceneComparison, index: int, size: int, letters: int) -> Image.Image:
    base = Image.fromarray(comparison.picture).resize((size, size), Image.Resampling.LANCZOS)
    heat = np.array(activation_heat_map(base, comparison.activation_maps[index]))
    border = _border(_enlarged(comparison.proposals[index], size))
    heat[_grown(border, max(1, letters // 14))] = PAPER
    return Image.fromarray(heat)


def _captions(comparison: SceneComparison, index: int) -> list[tuple[str, Color]]:
    name = comparison.true_names[index]
    lines: list[tuple[str, Color]] = [(f"Where it looks: {name}", INK)]
    for method, title in METHOD_TITLES.items():
        called = comparison.named(method)[index]
        color = INK if not comparison.has_truth else _RIGHT if called == name else _WRONG
        lines.append((f"{title}: {called}", color))
    return lines


def _border(values: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another value."""
    border = np.zeros(values.shape, dtype=bool)
    border[:, :-1] |= values[:, :-1] != values[:, 1:]
    border[:-1] |= values[:-1] != values[1:]
    return border


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0 if pixels > 0 else mask


def _large_spots(mask: np.ndarray) -> np.ndarray:
    """The mask without what is thin or tiny: seams between segments, which every method draws a little differently."""
    width = max(3, mask.shape[0] // 32) | 1
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    opened = image.filter(ImageFilter.MinFilter(width)).filter(ImageFilter.MaxFilter(width))
    spots = np.asarray(opened) > 0
    return spots


def _write_labels(panel: Image.Image, labels: Sequence[_Label], letters: int) -> None:
    """Write each name on its part, or beside it with a line, without covering another name."""
    font = font_of(letters, None)
    line = text_size(font, "")[1]
    margin = max(2, letters // 6)
    taken: list[tuple[int, int, int, int]] = []
    draw = ImageDraw.Draw(panel, "RGBA")
    labels = sorted(labels, key=lambda label: np.count_nonzero(label.part))
    anchors = [_middle(label.part) for label in labels]
    for label, anchor in zip(labels, anchors, strict=True):
        text = wrap(font, label.text, round(7.2 * letters)) if " " in label.text else [label.text]
        width = max(text_size(font, part)[0] for part in text) + 2 * margin
        height = len(text) * line + 2 * margin
        box = _free_box(anchor, (width, height), panel.size, taken, anchors)
        taken.append(box)
        if not (box[0] <= anchor[0] <= box[2] and box[1] <= anchor[1] <= box[3]):
            nearest = min(max(anchor[0], box[0]), box[2]), min(max(anchor[1], box[1]), box[3])
            draw.line((*anchor, *nearest), fill=PAPER, width=max(3, letters // 5))
            draw.line((*anchor, *nearest), fill=label.color, width=max(2, letters // 9))
            radius = max(3, letters // 5)
            draw.ellipse(
                (anchor[0] - radius, anchor[1] - radius, anchor[0] + radius, anchor[1] + radius),
                fill=label.color,
                outline=PAPER,
            )
        draw.rounded_rectangle(box, radius=2 * margin, fill=(*label.color, 215))
        for number, part in enumerate(text):
            draw.text((box[0] + margin, box[1] + margin + number * line), part, fill=PAPER, font=font)


def _middle(part: np.ndarray) -> tuple[int, int]:
    """Left and top distance of a pixel deep inside the part, found on a coarse grid by eroding it."""
    step = max(1, part.shape[0] // 96)
    remaining = part[::step, ::step]
    last = remaining
    while remaining.any():
        last = remaining
        padded = np.pad(remaining, 1)
        remaining = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    points = np.argwhere(last)
    if len(points) == 0:
        points, step = np.argwhere(part), 1
    center = points.mean(axis=0)
    y, x = points[np.linalg.norm(points - center, axis=1).argmin()] * step
    return int(x), int(y)


def _free_box(
    anchor: tuple[int, int],
    box_size: tuple[int, int],
    size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    anchors: Sequence[tuple[int, int]],
) -> tuple[int, int, int, int]:
    """The box nearest to its anchor that covers no other box, and no other name's anchor if that can be."""
    width, height = box_size
    left, top = np.meshgrid(np.arange(2, max(3, size[0] - width - 1), 4), np.arange(2, max(3, size[1] - height - 1), 4))
    cost = np.abs(left + width / 2 - anchor[0]) + 1.5 * np.abs(top + height / 2 - anchor[1])
    for other in taken:
        across = np.minimum(left + width, other[2]) - np.maximum(left, other[0]) + 8
        down = np.minimum(top + height, other[3]) - np.maximum(top, other[1]) + 8
        cost += 50 * across.clip(0) * down.clip(0)
    for x, y in anchors:
        if (x, y) != anchor:
            cost += 100 * ((left - 4 <= x) & (x <= left + width + 4) & (top - 4 <= y) & (y <= top + height + 4))
    row, column = np.unravel_index(cost.argmin(), cost.shape)
    x, y = int(left[row, column]), int(top[row, column])
    return x, y, x + width, y + height


def _row(panels: Sequence[tuple[str, str, Image.Image]], size: int, letters: int, gap: int) -> Image.Image:
    """Panels side by side, each with a title at its left and a score at its right."""
    font = font_of(round(1.15 * letters), None)
    line = text_size(font, "")[1]
    canvas = Image.new("RGB", (len(panels) * (size + gap) + gap, line + size + 2 * gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (title, score, panel) in enumerate(panels):
        left = gap + number * (size + gap)
        draw.text((left, gap // 2), title, fill=INK, font=font)
        draw.text((left + size, gap // 2), score, fill=INK, font=font, anchor="ra")
        canvas.paste(panel, (left, gap + line))
    return canvas


def _key(width: int, letters: int, gap: int, has_truth: bool) -> Image.Image:
    """What the marks mean."""
    font = font_of(letters, None)
    line = text_size(font, "")[1]
    canvas = Image.new("RGB", (width, line + 2 * gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    left = gap
    marks: list[tuple[str, Color, str]] = [("frame", _DIFFERENT, "the two methods differ here")]
    if has_truth:
        marks += [("fill", _RIGHT, "right name"), ("fill", _WRONG, "wrong name"), ("hatch", _WRONG, "wrong pixels")]
    marks.append(("outline", INK, "generated mask, below"))
    for kind, color, text in marks:
        box = (left, gap + line // 6, left + line, gap + line - line // 6)
        _swatch(draw, kind, color, box)
        draw.text((left + line + gap, gap), text, fill=INK, font=font)
        left += line + 4 * gap + text_size(font, text)[0]
    return canvas


def _swatch(draw: Any, kind: str, color: Color, box: tuple[int, int, int, int]) -> None:
    if kind == "frame":
        draw.rectangle(box, outline=INK, width=6)
        draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=color, width=4)
        return
    draw.rectangle(box, fill=color)
    if kind == "outline":
        draw.rectangle((box[0] + 4, box[1] + 4, box[2] - 4, box[3] - 4), outline=PAPER, width=3)
    if kind == "hatch":
        for offset in range(0, box[2] - box[0] + box[3] - box[1], 9):
            start = (min(box[0] + offset, box[2]), box[1] + max(0, offset - (box[2] - box[0])))
            end = (box[0] + max(0, offset - (box[3] - box[1])), min(box[1] + offset, box[3]))
            draw.line((*start, *end), fill=(240, 160, 160), width=3)


def _map_row(
    panels: Sequence[Image.Image],
    captions: Sequence[list[tuple[str, Color]]],
    size: int,
    letters: int,
    gap: int,
) -> Image.Image:
    font = font_of(letters, None)
    line = round(1.15 * text_size(font, "")[1])
    texts = [[(part, color) for text, color in lines for part in wrap(font, text, size)] for lines in captions]
    height = max(map(len, texts)) * line
    canvas = Image.new("RGB", (len(panels) * (size + gap) + gap, height + size + 2 * gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (panel, lines) in enumerate(zip(panels, texts, strict=True)):
        left = gap + number * (size + gap)
        for place, (text, color) in enumerate(lines):
            draw.text((left, gap // 2 + place * line), text, fill=color, font=font)
        canvas.paste(panel, (left, gap + height))
    return canvas


__all__ = ["METHOD_TITLES", "draw_comparison"]
