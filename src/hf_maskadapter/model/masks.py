"""Masks as arrays and back: soft and hard values, run lengths, polygons, and the colours of panoptic maps.

Every other file that meets one of these forms comes here, so that each is read by one rule. NumPy and Pillow are all
that is needed.

Two rules say which pixels a polygon encloses. *Center*: those whose centres lie inside, by the even-odd rule. *COCO*:
those that COCO's own rasteriser marks (`pycocotools.mask.frPyObjects`), which rounds corners to fifths of a pixel. On
shapes with whole coordinates whose sides are parallel to the picture's the two agree; on slanted sides they differ by
about 3 % of the area of middle-sized objects. Polygons of COCO's files are read by COCO's rule everywhere, so that
areas and IoUs are those that its own tools compute; polygons of tools that draw shapes (CVAT, Label Studio) by the
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

PolygonRule = Literal["center", "coco"]

_FARTHEST = 1e9  # of a polygon's corners from the picture, in pixels: beyond, doubles no longer tell pixels apart
_COCO_SCALE = 5  # COCO's rasteriser counts in fifths of a pixel
_NEARLY_OUTSIDE, _NEARLY_INSIDE = 31, 224  # grey values that noise and smooth edges leave of 0 and 255
_MOST_MIDDLE = 0.5  # share of pixels that may be neither nearly black nor nearly white in a mask
_LEAST_SLOPES = 0.4  # share of a smooth edge's pixels between darker and lighter ones: measured 0.6 to 1, of maps 0.1
_NOISE = 8  # between neighbouring pixels of one colour in a lossy format, and of its black and white
_MOST_STRAYS = 0.03  # share of a noisy mask's pixels that are neither black nor white: measured 0.01
_NUM_IDS = 1 << 24
_MOST_ENCODED_PIXELS = (1 << 32) - 1  # COCO's own code counts them in 32 bits


def as_array(values: Any) -> np.ndarray:
    """Values of any kind as an array.

    Args:
        values: an array; a tensor on any device, of which half precision becomes single; a PIL picture, turned as EXIF
            says, of a palette the indices; anything else that offers `__array__`; or a list of such.

    Raises:
        ValueError: if the parts of a list are not of one shape.
    """
    if hasattr(values, "detach"):  # a tensor; PyTorch need not be there
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()  # NumPy has no bfloat16
        return values.numpy()
    if isinstance(values, Image.Image):
        return np.asarray(ImageOps.exif_transpose(values))
    if isinstance(values, (list, tuple)):
        return np.asarray([value if is_number(value) else as_array(value) for value in values])
    return np.asarray(values)


def binary_mask(mask: Any) -> np.ndarray:
    """What lies inside a mask, or inside each of several.

    Args:
        mask: an array, tensor or picture of any shape, of

            - booleans;
            - whole numbers, 0 and 1 or 0 and 255;
            - floats between 0 and 1, of which those above 0.5 lie inside; or 0 and 255;
            - grey values from 0 to 255 of a mask `(height, width)` or of masks `(num_masks, height, width)` with smooth
              edges or the noise of a lossy format (see [`is_smooth_mask`], [`is_noisy_mask`]), of which those above 127
              lie inside.

    Returns:
        Booleans of the same shape.

    Raises:
        ValueError: if the values are others: logits, labels, not finite.
    """
    array = as_array(mask)
    if array.dtype == bool or array.size == 0:
        return array.astype(bool, copy=False)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"A mask must hold booleans or numbers, got {array.dtype}.")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and low >= 0 and high <= 1:  # false for NaN
        return array > 0.5
    if array.dtype.kind in "iu" and low >= 0 and high <= 1:
        return array == 1
    if low >= 0 and high == 255:
        inside = array == 255
        if (inside | (array == 0)).all():
            return inside
    may_be_gray = array.dtype.kind in "iu" and low >= 0 and high <= 255 and array.ndim in (2, 3)
    if may_be_gray and all(is_smooth_mask(one) or is_noisy_mask(one) for one in array.reshape(-1, *array.shape[-2:])):
        return array > 127
    raise ValueError(
        "A mask must hold booleans, integers 0 and 1 or 0 and 255, or floats in [0, 1] (inside above 0.5); got "
        f"{array.dtype} with {len(np.unique(array))} different values from {low} to {high}. Turn logits into "
        "probabilities by a sigmoid first, a map of labels into one mask for each, grey values into a mask by a "
        "threshold."
    )


def is_smooth_mask(values: np.ndarray) -> bool:
    """Whether grey values are those of one mask with smooth edges.

    A map of labels is none: its values stand in areas of their own, while a pixel on a smooth edge lies between a
    darker and a lighter one. A photograph is none either: most of its pixels are neither nearly black nor nearly white.

    Args:
        values: `(height, width)` whole numbers from 0 to 255.
    """
    low, high = values.min(), values.max()
    if low > _NEARLY_OUTSIDE or high < _NEARLY_INSIDE or high > 255:
        return bool(low >= _NEARLY_INSIDE and high <= 255 and len(np.unique(values)) > 2)
    is_between = (values > 0) & (values < 255)
    levels = np.unique(values[is_between])
    if not len(levels):
        return True
    is_middle = (values > _NEARLY_OUTSIDE) & (values < _NEARLY_INSIDE)
    on_slopes = _share_on_slopes(values.astype(np.int64), is_between)
    return bool(len(levels) > 1 and is_middle.mean() <= _MOST_MIDDLE and on_slopes >= _LEAST_SLOPES)


def is_noisy_mask(values: np.ndarray, *, is_lossy: bool = False) -> bool:
    """Whether grey values are those of one mask that was saved in a lossy format, such as JPEG or WebP.

    Its values scatter around black and around white.

    Args:
        values: `(height, width)` whole numbers from 0 to 255.
        is_lossy: whether they come from such a format for sure, so that they need not scatter.
    """
    is_middle = (values > _NEARLY_OUTSIDE) & (values < _NEARLY_INSIDE)
    levels = np.unique(values[~is_middle])
    scatters = all(
        np.count_nonzero(part) >= 2 for part in ((levels > 0) & (levels < 128), (levels > 128) & (levels < 255))
    )
    if not (is_lossy or scatters) or values.min() > _NEARLY_OUTSIDE or values.max() < _NEARLY_INSIDE:
        return False
    on_slopes = _share_on_slopes(values.astype(np.int64), is_middle, _NOISE)
    return bool(is_middle.mean() <= _MOST_MIDDLE and on_slopes >= _LEAST_SLOPES)


def is_nearly_black_and_white(values: np.ndarray) -> bool:
    """Whether a few stray pixels of a mask are not quite black or white, as the best lossy quality leaves them.

    Segments of a map are areas or lines; such pixels are neither, least of all where they are only dark or only light.

    Args:
        values: `(height, width)` whole numbers.
    """
    is_stray = (values != 0) & (values != 255)
    if not is_stray.any() or is_stray.mean() > _MOST_STRAYS or values.min() != 0 or values.max() != 255:
        return False
    is_middle = (values > _NOISE) & (values < 255 - _NOISE)
    is_two_sided = (is_stray & (values < 128)).any() and (is_stray & (values > 127)).any()
    in_segments = share_of_flat_pixels(values, is_stray, neighbors=8 if is_two_sided else 2)
    return bool(not is_middle.any() and in_segments == 0)


def _share_on_slopes(values: np.ndarray, chosen: np.ndarray, margin: int = 0) -> float:
    """Which share of some pixels has a lighter and a darker one, by more than a margin, among the eight around it.

    It is 1 if there are no such pixels.
    """
    chosen = chosen[1:-1, 1:-1]
    if not chosen.any():
        return 1.0
    center = values[1:-1, 1:-1]
    height, width = values.shape
    has_lighter, has_darker = np.zeros_like(chosen), np.zeros_like(chosen)
    for row in range(3):
        for column in range(3):
            neighbor = values[row : height - 2 + row, column : width - 2 + column]
            has_lighter |= neighbor > center + margin
            has_darker |= neighbor < center - margin
    return float(np.count_nonzero(chosen & has_lighter & has_darker) / np.count_nonzero(chosen))


def share_of_flat_pixels(values: np.ndarray, chosen: np.ndarray, neighbors: int = 8) -> float:
    """Which share of some pixels equals the eight pixels around them, or some of these.

    Args:
        values: `(height, width)`; pixels at the border are not looked at.
        chosen: `(height, width)` bool, the pixels in question.
        neighbors: how many of the eight a pixel must equal at least.

    Returns:
        The share, 0 if there is none of them.
    """
    chosen = chosen[1:-1, 1:-1]
    if not chosen.any():
        return 0.0
    center = values[1:-1, 1:-1]
    height, width = values.shape
    equal = np.full(chosen.shape, -1, dtype=np.int8)  # each pixel equals itself
    for row in range(3):
        for column in range(3):
            equal += values[row : height - 2 + row, column : width - 2 + column] == center
    return float(np.count_nonzero(equal[chosen] >= neighbors) / np.count_nonzero(chosen))


def masks_from_array(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks of a picture as booleans or, soft ones, as floats, `(num_masks, height, width)`.

    Args:
        array: `(num_masks, height, width)` or one mask `(height, width)`: floats in [0, 1], which stay as they are, or
            anything else that [`binary_mask`] takes.
        size: height and width of the picture.

    Raises:
        ValueError: if shape or values are others.
    """
    if array.size == 0:
        return np.zeros((0, *size), dtype=bool)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1:] != tuple(size):
        raise ValueError(
            f"Masks must have shape (num_masks, {size[0]}, {size[1]}), the picture's size as a viewer shows it, got "
            f"{array.shape}."
        )
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # false for NaN
        return array.astype(np.float32)
    return binary_mask(array)


# --- run lengths ------------------------------------------------------------------------------------------------------


def run_lengths(values: np.ndarray) -> np.ndarray:
    """Lengths of the runs in a mask, background first.

    Args:
        values: `(n,)` bool, the mask's pixels in any order.

    Returns:
        `(runs,)` int64: lengths of background and foreground by turns; the first is 0 if the mask begins inside.
    """
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [len(values)]]))
    return np.concatenate([[0], lengths]) if len(values) and values[0] else lengths


def from_run_lengths(lengths: Any, size: int) -> np.ndarray:
    """The mask of some run lengths, background first: `(size,)` bool.

    Raises:
        ValueError: if they are not whole numbers, one is negative, or they do not add up to `size`.
    """
    counts = _checked_counts(lengths, size, f"the mask has {size} pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def _checked_counts(lengths: Any, size: int, shape: str) -> np.ndarray:
    try:
        counts = np.asarray(lengths)
    except ValueError:
        counts = np.zeros(0, dtype=object)
    is_whole = counts.ndim == 1 and counts.size > 0 and counts.dtype.kind in "iu"
    total = sum(counts.tolist()) if is_whole else None  # of Python's numbers, which do not overflow
    if not is_whole or (counts < 0).any() or total != size:
        found = f"these sum to {total}, but {shape}" if is_whole else f"these are {shortened(counts.tolist())}"
        raise ValueError(
            f"The counts of a run-length encoding must be whole numbers, none negative, that fill its size; {found}."
        )
    return counts.astype(np.int64)


def checked_run_lengths(record: Any, size: tuple[int, int] | None = None) -> tuple[tuple[int, int], np.ndarray]:
    """Size and counts of COCO's run-length encoding, without unfolding them.

    Args:
        record: a dict of `size` (height, width) and `counts`: lengths of runs down the columns, background first, as a
            list; or the same compressed, as a text or bytes.
        size: height and width that it must have; by default any.

    Returns:
        Height and width, and `(runs,)` int64, of which none but the first is 0.

    Raises:
        ValueError: if the record is not such a dict, is of another size, its counts do not fill the size, or the
            text is broken.
    """
    try:
        height, width = (int(side) for side in record["size"])
        if (height, width) != tuple(record["size"]):
            raise ValueError
        counts = record["counts"]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise ValueError(
            'A run-length encoding needs "size" (height and width, whole numbers) and "counts", got '
            f"{shortened(dict(record) if isinstance(record, Mapping) else record)}."
        ) from None
    if height < 1 or width < 1:
        raise ValueError(f"A run-length encoding needs a size of at least 1x1, got {height}x{width}.")
    if size is not None and (height, width) != tuple(size):
        raise ValueError(
            f"the run-length encoding is of a picture of {height}x{width}, this one is {size[0]}x{size[1]} as a viewer "
            "shows it."
        )
    if isinstance(counts, str):
        counts = counts.encode("latin-1", errors="replace")
    if isinstance(counts, bytes):
        counts = _decompress(counts)
    checked = _checked_counts(as_array(counts), height * width, f"its size is {height}×{width}")
    if height * width > _MOST_ENCODED_PIXELS:
        raise ValueError(
            f"A run-length encoding holds at most {_MOST_ENCODED_PIXELS} pixels; its size {height}×{width} is more."
        )
    return (height, width), _without_empty_runs(checked)


def _without_empty_runs(counts: np.ndarray) -> np.ndarray:
    """The same runs without any of length 0 but the first, at which pycocotools stops comparing masks."""
    lengths = np.where(np.arange(len(counts)) % 2 == 1, counts, -counts)  # what lies outside counts below 0
    signs = np.sign(lengths[lengths != 0])
    starts = np.concatenate([[0], np.flatnonzero(signs[1:] != signs[:-1]) + 1])
    merged = np.abs(np.add.reduceat(lengths[lengths != 0], starts))
    return np.concatenate([[0], merged]) if signs[0] > 0 else merged


def decode_run_lengths(record: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """The mask of COCO's run-length encoding, compressed or not.

    Args:
        record: as [`checked_run_lengths`].
        size: height and width that it must have; by default any.

    Returns:
        `(height, width)` bool.

    Raises:
        ValueError: as [`checked_run_lengths`].
    """
    (height, width), counts = checked_run_lengths(record, size)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def encode_run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's run-length encoding of a `(height, width)` bool mask, not compressed: `size` and `counts` as lists."""
    return {"size": [int(side) for side in mask.shape], "counts": run_lengths(mask.T.ravel()).tolist()}


def encode_compressed_run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a `(height, width)` bool mask, with `counts` as a text for JSON."""
    return {"size": [int(side) for side in mask.shape], "counts": _compress(run_lengths(mask.T.ravel()))}


def _compress(counts: np.ndarray) -> str:
    """COCO's text of some counts: 5 bits a character, the next bit says "more", differences to the last but one."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    characters = []
    is_open = np.ones(len(values), dtype=bool)
    while is_open.any():
        bits = values & 31
        values = values >> 5
        goes_on = is_open & (values != np.where(bits & 16, -1, 0))
        characters.append(np.where(is_open, bits + 32 * goes_on + 48, 0))
        is_open = goes_on
    text = np.stack(characters, axis=1).ravel() if characters else np.zeros(0, dtype=np.int64)
    return text[text > 0].astype(np.uint8).tobytes().decode("ascii")


def _decompress(text: bytes) -> np.ndarray:
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if (strange := np.flatnonzero((codes < 0) | (codes >= 64))).size:
        character = chr(text[strange[0]])
        raise ValueError(f"The compressed run-length encoding holds the character {character!r}: it is broken.")
    ends = np.flatnonzero((codes & 32) == 0)
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("The compressed run-length encoding ends in the middle of a number: it is broken.")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("The compressed run-length encoding holds a number of more than 60 bits: it is broken.")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    counts = np.add.reduceat((codes & 31) << shifts, starts)
    counts = np.where(codes[ends] & 16, counts - (1 << 5 * lengths), counts)
    counts[1::2] = counts[1::2].cumsum()  # differences to the last but one begin with the fourth
    counts[2::2] = counts[2::2].cumsum()
    return counts


# --- polygons ---------------------------------------------------------------------------------------------------------


def polygon_mask(points: Any, size: tuple[int, int], rule: PolygonRule = "center") -> np.ndarray:
    """The pixels that a polygon encloses.

    Args:
        points: its corners, `[x, y, x, y, ...]` or `(num_points, 2)`, in pixels from the top left corner of the
            picture, so that the first pixel's centre is at (0.5, 0.5). They may lie outside the picture.
        size: height and width of the picture.
        rule: `"center"` or `"coco"`, see above.

    Returns:
        `(height, width)` bool. Nothing but the picture and the polygon's corners takes memory, wherever they lie.

    Raises:
        ValueError: if there are fewer than three points, or coordinates are not pairs of finite numbers, or are more
            than a thousand million pixels away.
    """
    corners = _corners(points)
    return _inside_by_coco(corners, size) if rule == "coco" else _inside_by_centers(corners, size)


def coco_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The mask of a COCO annotation's `segmentation`.

    Args:
        segmentation: a run-length encoding, compressed or not; a polygon, or a list of polygons that belong together.
        size: height and width of the picture.

    Returns:
        `(height, width)` bool.

    Raises:
        ValueError: if it is malformed or of another size.
    """
    if isinstance(segmentation, Mapping):
        return decode_run_lengths(segmentation, size)
    if not hasattr(segmentation, "__iter__") or isinstance(segmentation, (str, bytes)):
        raise ValueError(f"A segmentation must be a run-length encoding or polygons, got {shortened(segmentation)}.")
    polygons = [segmentation] if is_polygon(segmentation) else segmentation
    mask = np.zeros(size, dtype=bool)
    for polygon in polygons:
        mask |= polygon_mask(polygon, size, rule="coco")
    return mask


def is_polygon(values: Any) -> bool:
    """Whether something is one polygon, numbers or pairs of numbers in lists or arrays, and no list of things."""
    if hasattr(values, "ndim"):
        return values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 2)
    if not isinstance(values, (list, tuple)) or not values:
        return False
    if all(is_number(value) for value in values):
        return True
    return all(np.shape(value) == (2,) if hasattr(value, "ndim") else _is_pair_of_numbers(value) for value in values)


def is_number(value: Any) -> bool:
    """Whether something is one number of Python or NumPy, and no truth value."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def whole_number(value: Any) -> int:
    """A whole number of Python, NumPy or PyTorch, also one that comes as a float or a text, as a number of Python.

    Raises:
        ValueError: if it is none, such as 2.5 or a truth value.
    """
    try:
        plain = value.item() if hasattr(value, "item") else value
        number = int(plain)
        if isinstance(plain, bool) or (number != plain and not isinstance(plain, str)):
            raise ValueError
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(f"must be a whole number, got {shortened(value)}.") from None
    return number


def _is_pair_of_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(is_number(part) for part in value)


def contour_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a contour as OpenCV finds and fills it: its points are pixels, which belong to the object.

    Args:
        points: `(num_points, 1, 2)` or `(num_points, 2)`, column and row of each; one point is a dot, two are a line.
        size: height and width of the picture.

    Returns:
        `(height, width)` bool.

    Raises:
        ValueError: if coordinates are not finite numbers.
    """
    corners = _checked_coordinates(points.reshape(-1, 2).astype(float), points)
    mask = _inside_by_centers(corners + 0.5, size)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        start, end = _cut_to_picture(start, end, size)
        steps = int(np.ceil(np.abs(end - start).max()))
        columns, rows = np.round(np.linspace(start, end, steps + 1)).astype(np.int64).T
        within = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
        mask[rows[within], columns[within]] = True
    return mask


def _cut_to_picture(start: np.ndarray, end: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The part of a line that lies within a pixel of the picture; an empty one becomes a point outside."""
    way = end - start
    low, high = 0.0, 1.0
    for axis, side in ((0, size[1]), (1, size[0])):
        if way[axis] == 0:
            if not -1 <= start[axis] <= side:
                high = -1.0
            continue
        one, other = sorted(((-1 - start[axis]) / way[axis], (side - start[axis]) / way[axis]))
        low, high = max(low, one), min(high, other)
    if low > high:
        return np.array([-1.0, -1.0]), np.array([-1.0, -1.0])
    return (start if low == 0 else start + low * way), (end if high == 1 else start + high * way)


def _corners(points: Any) -> np.ndarray:
    try:
        values = as_array(points)
        values = values.astype(float) if values.dtype.kind in "iuf" else np.zeros(0)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim > 2 or values.size < 6 or values.size % 2 or (values.ndim == 2 and values.shape[1] != 2):
        raise ValueError(
            "A polygon must hold at least three points, [x, y, x, y, x, y, ...] or (num_points, 2), got "
            f"{shortened(points)}."
        )
    return _checked_coordinates(values.reshape(-1, 2), points)


def _checked_coordinates(corners: np.ndarray, points: Any) -> np.ndarray:
    if not np.isfinite(corners).all():
        raise ValueError(f"A polygon's coordinates must be finite numbers, got {shortened(points)}.")
    if np.abs(corners).max() > _FARTHEST:
        raise ValueError(
            f"A polygon's coordinates must be pixels, at most {_FARTHEST:.0e} away, got {shortened(points)}."
        )
    return corners


def _edges(corners: np.ndarray) -> zip[tuple[np.ndarray, np.ndarray]]:
    return zip(corners, np.roll(corners, -1, axis=0), strict=True)


def _inside_by_centers(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre has an odd number of edges to its left."""
    height, width = size
    centers = np.arange(height) + 0.5
    # Whether an odd number of edges passes between a pixel's centre and that of the one before.
    crossed = np.zeros((height, width + 1), dtype=bool)
    for (x, y), (next_x, next_y) in _edges(corners):
        first, last = np.searchsorted(centers, (min(y, next_y), max(y, next_y)))
        if first < last:
            columns = x + (centers[first:last] - y) * (next_x - x) / (next_y - y)
            places = np.ceil(columns - 0.5).clip(0, width).astype(np.int64)
            crossed[np.arange(first, last), places] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :-1]


def _inside_by_coco(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """COCO's rule: the outline is drawn in fifths of a pixel, and counted where it passes a column's centre.

    Going down a column and on to the next one, each such place changes between outside and inside. On steep edges the
    place is the first row of fifths beyond the column's centre, on others the upper one of the two beside it.
    """
    height, width = size
    changes = np.zeros(height * width + 1, dtype=bool)
    points = np.trunc(_COCO_SCALE * corners + 0.5)
    for start, end in _edges(points):
        is_flat = abs(end[0] - start[0]) >= abs(end[1] - start[1])
        if start[int(not is_flat)] > end[int(not is_flat)]:
            start, end = end, start
        (x, y), (last_x, last_y) = start, end
        left, right = min(x, last_x), max(x, last_x)
        middle = _COCO_SCALE // 2
        columns = np.arange(
            max(int(np.ceil((left - middle) / _COCO_SCALE)), 0),
            min(int(np.floor((right - middle - 1) / _COCO_SCALE)), width - 1) + 1,
        )
        if not len(columns):
            continue
        fifths = _COCO_SCALE * columns + middle  # the step from here to the next one passes the centre
        if is_flat:
            slope = (last_y - y) / (last_x - x)
            above = np.minimum(*(np.floor(y + slope * (at - x) + 0.5) for at in (fifths, fifths + 1)))
        else:
            slope = (last_x - x) / (last_y - y)
            above = y + _first_step_beyond(x, slope, fifths + 1) - 1
        rows = np.ceil(((above + 0.5) / _COCO_SCALE - 0.5).clip(0, height)).astype(np.int64)
        np.logical_xor.at(changes, columns * height + rows, True)
    return np.logical_xor.accumulate(changes)[:-1].reshape(width, height).T


def _first_step_beyond(x: float, slope: float, bound: np.ndarray) -> np.ndarray:
    """The first whole number of steps along a steep edge after which the rounded x has passed a bound."""
    guess = np.round((bound - 0.5 - x) / slope)
    steps = guess[:, None] + np.arange(-2, 3)
    is_at_least = x + slope * steps + 0.5 >= bound[:, None]
    passed = is_at_least if slope > 0 else ~is_at_least
    return steps[np.arange(len(bound)), passed.argmax(axis=1)]


# --- colours of panoptic maps -----------------------------------------------------------------------------------------


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """Colours of a panoptic map in COCO's form.

    Args:
        ids: `(...)` whole numbers below 2**24.

    Returns:
        `(..., 3)` uint8: an id is R + 256 G + 65536 B.

    Raises:
        ValueError: if a number does not fit.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= _NUM_IDS):
        raise ValueError(f"Segment numbers must lie in 0..{_NUM_IDS - 1}, got {ids.min()}..{ids.max()}.")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def colors_to_ids(colors: Any) -> Any:
    """Numbers of the segments in a panoptic map.

    Args:
        colors: `(..., channels)` values from 0 to 255, of which the first three channels count: an array or what
            becomes one, or a tensor.

    Returns:
        `(...)` int32, R + 256 G + 65536 B; for a tensor one of int64 on its device.
    """
    channels = colors.long() if hasattr(colors, "detach") else np.asarray(colors).astype(np.int32)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


__all__ = [
    "PolygonRule",
    "as_array",
    "binary_mask",
    "checked_run_lengths",
    "coco_mask",
    "colors_to_ids",
    "contour_mask",
    "decode_run_lengths",
    "encode_compressed_run_lengths",
    "encode_run_lengths",
    "from_run_lengths",
    "ids_to_colors",
    "is_nearly_black_and_white",
    "is_noisy_mask",
    "is_number",
    "is_polygon",
    "is_smooth_mask",
    "masks_from_array",
    "polygon_mask",
    "run_lengths",
    "share_of_flat_pixels",
    "shortened",
    "whole_number",
]
