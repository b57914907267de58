"""Masks in all the forms that people and other tools have them in, read as one array.

What a single mask, polygon or run-length encoding means is told in `masks.py`, what the values of a map mean in
`label_maps.py`; here is told which of them somebody's object is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .label_maps import distinct_segments, segment_ids, without_alpha
from .lossy_formats import refuse_lossy
from .masks import (
    as_array,
    coco_mask,
    colors_to_ids,
    contour_mask,
    is_nearly_black_and_white,
    is_noisy_mask,
    is_number,
    is_polygon,
    is_smooth_mask,
    masks_from_array,
    polygon_mask,
    share_of_flat_pixels,
    shortened,
)
from .pictures import open_picture

_FORMS = (
    "an array or tensor (num_masks, height, width), a label map (height, width), a panoptic PNG, COCO's run-length "
    "encodings, polygons or annotations, or detections with a .mask"
)
_INSIDE = ("masks", "segmentation", "mask")  # of results in dicts, in the order in which they are looked for
_ATTRIBUTES = ("mask", "pred_masks", "masks")  # of detections: supervision, Detectron2, Ultralytics
_FEWEST_ROWS = 16  # of nested lists that are pixels: fewer may be polygons of as many numbers as the picture is wide
_MANY_VALUES = 64  # of a map, from which on it may be a photograph
_SOME_VALUES = 16  # of a map, from which on it may be one mask that a lossy format has left its traces in
_LEAST_IN_LINES = 0.9  # share of a map's pixels that equal two around them: measured 0.99, of such a mask's 0.85

_LEAST_FLAT = 0.2  # share of a map's pixels, its background left out, that look like all around them
_MOST_BYTES = 1 << 31  # of a picture's masks
_JPEG = ("JPEG", "MPO")
_LOSSY = (*_JPEG, "WEBP", "AVIF")  # the latter can be lossless, too
_LARGEST_NOISE = 32  # between the channels of a grey JPEG


@dataclass
class ReadMasks:
    """Masks of one picture.

    Args:
        masks: `(num_masks, height, width)`, booleans, or floats in [0, 1].
        ids: for each mask its value in the map that it comes from, or its place in the list, from 0 on.
    """

    masks: np.ndarray
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = self.ids or list(range(len(self.masks)))


def read_masks(
    masks: Any,
    size: tuple[int, int],
    segments_info: Sequence[Mapping] | None = None,
    ignore_index: int | None = 0,
    *,
    may_be_empty: bool = False,
) -> ReadMasks:
    """Read the masks of one picture.

    Args:
        masks: one of

            - `(num_masks, height, width)` booleans, integers 0 and 1 or 0 and 255, or floats in [0, 1]: an array, a
              tensor or a list of one mask each, which may be PIL pictures or their paths; one mask may come as
              `(height, width)` booleans or floats; `(num_masks, 1, height, width)` is read, too (torchvision);
            - a label map or map of segments, `(height, width)` integers or a PIL picture: each value is a mask;
            - a panoptic map in COCO's form, `(height, width, 3)` or an RGB picture: R + 256 G + 65536 B is the segment;
            - a picture of one mask with smooth edges, or saved as JPEG, of which more than half white is inside; or of
              one mask in its alpha channel, of which more than half opaque is inside;
            - the path of a picture of one of these kinds, or what Hugging Face Datasets hold of it undecoded;
            - a list with one entry for each object, or one entry: COCO's run-length encoding, compressed or not (a dict
              of `size` and `counts`), a polygon (`[x, y, x, y, ...]` or `(num_points, 2)`, drawn by COCO's rule), a
              list of polygons that belong together, a contour of OpenCV (`(num_points, 1, 2)`, whose points are pixels
              inside), or a dict or object that holds one of these or an array as `"segmentation"` or `"mask"`: a COCO
              annotation, an entry of Segment Anything's `generate()`, of this package's pipeline or results;
            - an object with an attribute `mask`, like `supervision.Detections`, `pred_masks`, as Detectron2's, or
              `masks`, as Ultralytics' results of `retina_masks=True`;
            - a result of this package or of Transformers, a dict with `"masks"`, `"mask"` or `"segmentation"`, of which
              a `"segments_info"` counts, too: the segments that it lists are read, whatever their ids and
              `ignore_index` are, and those that others cover wholly are left out. Transformers' form under
              `return_coco_annotation=True` is read beside a `segments_info` only. A list of one such result is read.
        size: height and width in pixels of the picture as a viewer shows it.
        segments_info: dicts with the `id` of each segment of a map that counts, in their order; by default all count.
        ignore_index: value of maps that is no mask; `None` if all are. Negative values never are. It does not matter
            beside `segments_info`.
        may_be_empty: whether there may be no mask. The result of a model in which nothing was found, with an empty
            `"segments_info"` or no detection, always may.

    Raises:
        ValueError: if masks are malformed, empty or of another size than the picture, or there are none; if values are
            neither those of masks nor of a map, such as a photograph's, saying how many were found.
        TypeError: if they are nothing of the above.
        FileNotFoundError: if there is no such file.
    """
    size = (int(size[0]), int(size[1]))
    if _is_pair_of_map_and_list(masks):
        masks = {"segmentation": masks[0], "segments_info": masks[1]}
    masks = _only_result(masks)
    if _is_result(masks):
        return _masks_of_result(masks, size, segments_info, ignore_index)
    if min(size) < 1:
        raise ValueError(f"The picture has no pixel: its size is {size[0]}x{size[1]}.")
    if _is_array(masks):
        masks = as_array(masks)
        if masks.dtype == object:
            masks = list(masks) if masks.ndim == 1 else as_array(masks.tolist())
    _refuse_contours_with_hierarchy(masks)
    is_map = isinstance(masks, np.ndarray) and not _is_stack(masks, size)
    if segments_info is not None and not len(segments_info) and (is_map or isinstance(masks, Image.Image)):
        return _nothing(size)
    is_plain = isinstance(masks, (list, tuple, np.ndarray))
    is_sequence = is_plain or (isinstance(masks, Sequence) and not isinstance(masks, (str, bytes, bytearray)))
    if is_sequence and not len(masks) and (may_be_empty or not is_plain):  # the others are results
        return _nothing(size)
    return _checked(_read(masks, size, segments_info, ignore_index))


def _checked(read: ReadMasks) -> ReadMasks:
    if not len(read.masks):
        raise ValueError("There is no mask to read.")
    for number, mask in enumerate(read.masks):
        if not (mask > 0.5).any():
            raise ValueError(f"Mask {number} is empty: it covers no pixel of the picture.")
    return read


def _read(masks: Any, size: tuple[int, int], segments_info: Any, ignore_index: int | None) -> ReadMasks:
    if _is_encoded(masks):
        masks = _open(masks)
    if isinstance(masks, Image.Image):
        return _masks_of_picture(masks, size, segments_info, ignore_index)
    if isinstance(masks, Mapping):
        return ReadMasks(_mask_of_entry(masks, size, 0)[None])
    if _is_array(masks):
        return _masks_of_array(as_array(masks), size, segments_info, ignore_index)
    if (inside := _attribute_inside(masks)) is not None:
        return _read(inside, size, segments_info, ignore_index)
    if _is_tensor_with_outlines(masks):
        return ReadMasks(_masks_with_outlines(masks, size))
    if not isinstance(masks, Sequence) or isinstance(masks, (bytes, bytearray)):
        raise TypeError(f"Masks must be {_FORMS}; got {type(masks).__name__}.")
    if not len(masks):
        raise ValueError("There is no mask to read.")
    if _are_rows(masks, size):
        return _masks_of_array(np.asarray(masks), size, segments_info, ignore_index)
    if is_polygon(masks):
        return ReadMasks(_mask_of_entry(masks, size, 0)[None])
    if _are_runs_from_one_on(masks, size):
        raise ValueError(
            "These are run lengths as Transformers' return_coco_annotation=True gives them, the first of them perhaps "
            'the background: give the whole result, a dict with "segmentation" and "segments_info".'
        )
    return ReadMasks(np.stack([_mask_of_entry(entry, size, number) for number, entry in enumerate(masks)]))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, Image.Image)


def _attribute_inside(value: Any) -> Any:
    """The masks that an object holds as an attribute; `None` if it has no such attribute."""
    for name in _ATTRIBUTES:
        if hasattr(value, name):
            inside = getattr(value, name)
            if inside is None:
                raise ValueError(
                    f"These detections hold no masks (.{name} is None), only boxes: use a model that segments."
                )
            return inside
    return None


def _is_tensor_with_outlines(value: Any) -> bool:
    """Whether it is what Ultralytics call masks: `data`, a tensor of the network's size, and `xy`, the outlines."""
    return hasattr(value, "xy") and _is_array(getattr(value, "data", None))


def _masks_with_outlines(value: Any, size: tuple[int, int]) -> np.ndarray:
    array = as_array(value.data)
    array = array[None] if array.ndim == 2 else array
    if array.shape[1:] != size:
        raise ValueError(
            f"These masks are {array.shape[-2]}x{array.shape[-1]}, the size that the network saw, but the picture is "
            f"{size[0]}x{size[1]} as a viewer shows it: predict with retina_masks=True, or give the outlines, "
            "result.masks.xy."
        )
    return masks_from_array(array, size)


def _refuse_contours_with_hierarchy(value: Any) -> None:
    """Refuse all that `cv2.findContours` returns: a list of contours and an array that says which of them are holes."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not isinstance(value[0], (list, tuple)):
        return
    hierarchy_shape = (1, len(value[0]), 4)
    is_contours = all(_is_array(part) and np.shape(part)[1:] == (1, 2) for part in value[0])
    if is_contours and (value[1] is None or np.shape(value[1]) == hierarchy_shape):
        raise ValueError(
            "This is the pair of contours and hierarchy that cv2.findContours returns: give the contours alone, found "
            "by cv2.RETR_EXTERNAL, since those of holes are no masks."
        )


# --- results of models -----------------------------------------------------------------------------------------------


def _is_result(masks: Any) -> bool:
    """Whether it is what a model found in a whole picture, which may be nothing."""
    if isinstance(masks, Mapping):
        return any(name in masks for name in _INSIDE) and not _is_coco_annotation(masks)
    if _is_array(masks) or isinstance(masks, Image.Image):
        return False
    return any(hasattr(masks, name) for name in _ATTRIBUTES)


def _is_whole_result(value: Any) -> bool:
    """Whether it is a result that may hold several masks, rather than one object."""
    if isinstance(value, Mapping):
        return "segments_info" in value or "masks" in value
    return hasattr(value, "masks") or hasattr(value, "pred_masks")


def _only_result(masks: Any) -> Any:
    """The result in a list of one, as models give for one picture; anything else stays."""
    if not isinstance(masks, (list, tuple)) or not masks or not _is_whole_result(masks[0]):
        return masks
    if len(masks) > 1:
        raise ValueError(
            f"This is a list of {len(masks)} results, each with masks of its own: give the one of this picture."
        )
    return masks[0]


def _is_pair_of_map_and_list(masks: Any) -> bool:
    """Whether it is a map and its list of segments without a dict around, as Detectron2's `panoptic_seg`."""
    if not isinstance(masks, (list, tuple)) or len(masks) != 2 or not _is_array(masks[0]):
        return False
    entries = masks[1]
    return isinstance(entries, (list, tuple)) and all(isinstance(one, Mapping) and "id" in one for one in entries)


def _is_coco_annotation(entry: Mapping) -> bool:
    """Whether a dict is one object's: its segmentation is an encoding or polygons, and no map of all segments."""
    segmentation = entry.get("segmentation")
    return isinstance(segmentation, Mapping) or (
        isinstance(segmentation, (list, tuple)) and "segments_info" not in entry and "masks" not in entry
    )


def _masks_of_result(result: Any, size: tuple[int, int], segments_info: Any, ignore_index: int | None) -> ReadMasks:
    """What a model found, which may be nothing; empty masks, such as those that others cover, are left out."""
    if isinstance(result, Mapping):
        value = next(result[name] for name in _INSIDE if name in result)
        must_be_there = segments_info is not None
        if segments_info is None:
            segments_info = result.get("segments_info")
    else:
        value = _attribute_inside(result) if not hasattr(result, "__len__") or len(result) else None
    if _is_array(value):
        value = as_array(value)
    if value is None or (hasattr(value, "__len__") and not len(value)):
        if segments_info is not None and len(segments_info):
            raise ValueError(f"The result has no masks, but segments_info lists {len(segments_info)} segments.")
        return _nothing(size)
    if segments_info is None:
        return _without_empty_ones(_read(value, size, None, ignore_index))
    if not len(segments_info) and not (isinstance(value, np.ndarray) and _is_stack(value, size)):
        return _nothing(size)
    if _is_encoded(value):
        value = _open(value)
    elif _are_lists_of_numbers(value) and [len(row) for row in value] == [size[1]] * size[0]:
        value = as_array(value)
    if isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and not _is_stack(value, size)):
        return _listed_segments(value, size, distinct_segments(segments_info), must_be_there)
    masks = _stack_of_result(value, size, len(segments_info))
    return _without_empty_ones(ReadMasks(masks))


def _nothing(size: tuple[int, int]) -> ReadMasks:
    return ReadMasks(np.zeros((0, *size), dtype=bool))


def _without_empty_ones(read: ReadMasks) -> ReadMasks:
    kept = [number for number, mask in enumerate(read.masks) if (mask > 0.5).any()]
    return ReadMasks(read.masks[kept], [read.ids[number] for number in kept])


def _is_stack(array: np.ndarray, size: tuple[int, int]) -> bool:
    return array.ndim > 2 and array.shape[-2:] == size


def _stack_of_result(value: Any, size: tuple[int, int], number: int) -> np.ndarray:
    """One mask for each entry of a list of `number` segments."""
    if not isinstance(value, np.ndarray) and _are_lists_of_numbers(value):
        return _masks_of_runs_from_one_on(value, size, number)
    if len(value) != number:
        raise ValueError(f"The result has {len(value)} masks, but segments_info lists {number} segments.")
    if isinstance(value, np.ndarray):
        return masks_from_array(_without_channel(value), size)
    return np.stack([_mask_of_entry(entry, size, place) for place, entry in enumerate(value)])


def _are_lists_of_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(entry, (list, tuple)) and all(is_number(part) for part in entry) for entry in value
    )


def _are_rows(value: Any, size: tuple[int, int]) -> bool:
    """Whether nested lists are the pixels of a picture, rather than polygons: as many rows and columns, and not few."""
    is_large = size[0] >= _FEWEST_ROWS and isinstance(value, (list, tuple)) and len(value) == size[0]
    return is_large and _are_lists_of_numbers(value) and all(len(row) == size[1] for row in value)


def _are_runs_from_one_on(value: Any, size: tuple[int, int]) -> bool:
    """Whether lists are the runs of Transformers' `return_coco_annotation`: they tile the picture, counted from 1."""
    if not _are_lists_of_numbers(value) or any(len(entry) % 2 or not entry for entry in value):
        return False
    starts = np.concatenate([np.asarray(entry[::2]) for entry in value])
    lengths = np.concatenate([np.asarray(entry[1::2]) for entry in value])
    if starts.dtype.kind not in "iu" or lengths.dtype.kind not in "iu" or lengths.min() < 1:
        return False
    order = starts.argsort()
    ends = np.cumsum(lengths[order])
    return bool((starts[order] == np.concatenate([[1], ends[:-1] + 1])).all() and ends[-1] == size[0] * size[1])


def _masks_of_runs_from_one_on(value: Sequence[Sequence[int]], size: tuple[int, int], number: int) -> np.ndarray:
    """Masks of Transformers' `return_coco_annotation`: for each value of a map, ascending, `[start, length, ...]`.

    They run along the rows and begin with 1. The first value, -1, is the background; segments that others cover wholly
    are missing, so that only where there is one list more than segments it is known which is which.
    """
    if not _are_runs_from_one_on(value, size):
        raise ValueError(
            f"The run lengths in the result do not tile a picture of {size[0]}x{size[1]} (Transformers' "
            "return_coco_annotation): was the result post-processed with its size in target_sizes?"
        )
    if len(value) != number + 1:
        raise ValueError(
            f"The result has run lengths of {len(value)} values of its map, but segments_info lists {number} segments: "
            "some are covered wholly by others, or there is no background, so that it cannot be told which is which. "
            "Post-process with return_coco_annotation=False."
        )
    masks = np.zeros((number, size[0] * size[1]), dtype=bool)
    for mask, runs in zip(masks, value[1:], strict=True):
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            mask[int(start) - 1 : int(start) - 1 + int(length)] = True
    return masks.reshape(number, *size)


# --- maps and pictures -----------------------------------------------------------------------------------------------


def _is_encoded(value: Any) -> bool:
    """Whether it is a file's path, or a picture that Hugging Face Datasets have not decoded."""
    return isinstance(value, (str, os.PathLike)) or (isinstance(value, Mapping) and {"bytes", "path"} == set(value))


def _open(source: str | os.PathLike | Mapping) -> Image.Image:
    try:
        return open_picture(source)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"There are no masks to read: {error}") from error


def _masks_of_picture(
    image: Image.Image, size: tuple[int, int], segments_info: Any, ignore_index: int | None
) -> ReadMasks:
    kind, opened = image.format, image
    if segments_info is not None:
        try:
            refuse_lossy(image)
        except ValueError as error:
            raise ValueError(f"The map of segments {error}") from None
    image = ImageOps.exif_transpose(image)
    _check_size((image.height, image.width), size)
    if segments_info is not None:
        return _listed_segments(image, size, distinct_segments(segments_info), must_be_there=True)
    if (mask := _mask_of_picture(image, kind)) is not None:
        return ReadMasks(mask[None])
    try:
        refuse_lossy(opened)
    except ValueError as error:
        raise ValueError(f"The picture is neither one mask of black and white nor a map, since it {error}") from None
    if image.mode == "1":
        return ReadMasks(np.asarray(image)[None])
    image = image.getchannel(0) if image.mode == "PA" else without_alpha(image)
    if image.mode == "P":
        return _masks_of_map(np.asarray(image), size, ignore_index)
    return _masks_of_array(np.asarray(image), size, None, ignore_index)


def _mask_of_picture(image: Image.Image, kind: str | None) -> np.ndarray | None:
    """The one mask that a picture is, where its alpha channel, smooth edges or its format say that it is one."""
    is_jpeg = kind in _JPEG
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if not alpha.any():
            raise ValueError(
                "The picture is transparent everywhere: a mask in its alpha channel is empty. If its colours are "
                "segments, leave alpha out: image.convert('RGB'), or array[..., :3]."
            )
        is_label_map = image.mode == "P" and np.isin(alpha, (0, 255)).all()  # of which one index is transparent
        if alpha.min() != alpha.max() and not is_label_map:
            return _mask_of_alpha(image, alpha)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return None
    colors = np.asarray(image.convert("RGB")).astype(np.int16)
    difference = int((colors.max(axis=-1) - colors.min(axis=-1)).max())
    if difference <= (_LARGEST_NOISE if kind in _LOSSY else 0):
        gray = np.asarray(image.convert("L"))
        if is_jpeg and (gray.max() == 0 or gray.min() > 127):
            return gray > 127
        is_noisy = kind in _LOSSY and is_noisy_mask(gray, is_lossy=is_jpeg)
        if is_noisy or (not is_jpeg and _is_mask_of_grays(gray)):
            return gray > 127
        if kind not in _LOSSY and _has_traces_of_a_lossy_format(gray):
            raise _traces_of_a_lossy_format(len(np.unique(gray)))
    if is_jpeg:
        count = len(np.unique(colors_to_ids(np.asarray(image.convert("RGB")))))
        raise ValueError(
            f"The picture is a JPEG with {count} different values, which is neither one mask of black and white nor a "
            "map: JPEG changes values. Save masks and maps as PNG; of a picture of one mask give one threshold's "
            "result, such as pixels > 127."
        )
    return None


def _has_traces_of_a_lossy_format(values: np.ndarray) -> bool:
    """Whether whole numbers up to 255 are not quite those of one mask, as a copy of a lossy file holds them."""
    return len(np.unique(values)) > 2 and (is_noisy_mask(values) or is_nearly_black_and_white(values))


def _traces_of_a_lossy_format(number: int) -> ValueError:
    return ValueError(
        f"The map holds {number} different values, nearly all of them nearly 0 or nearly 255, such as a lossy format "
        "leaves of one mask: give pixels > 127 if it is one, or segments_info if it is a map."
    )


def _is_mask_of_grays(values: np.ndarray) -> bool:
    """Whether whole numbers are one mask with grey edges; one of black and white alone may be a map as well."""
    is_gray = values.size > 0 and values.min() >= 0 and values.max() <= 255
    return bool(is_gray and ((values > 0) & (values < 255)).any() and is_smooth_mask(values))


def _mask_of_alpha(image: Image.Image, alpha: np.ndarray) -> np.ndarray:
    inside = alpha > 127
    colors = colors_to_ids(np.asarray(image.convert("RGBA")))
    present = np.unique(colors[inside])
    is_cut_out = len(present) > 1 and share_of_flat_pixels(colors, inside) < _LEAST_FLAT  # a photograph's
    if len(present) > 1 and not is_cut_out:
        raise ValueError(
            f"The picture has a mask in its alpha channel, and {len(present)} different colours where it is opaque, so "
            "that it is not clear which are the masks: give image.getchannel('A'), or the picture without alpha, "
            "image.convert('RGB')."
        )
    return inside


def _masks_of_array(
    array: np.ndarray, size: tuple[int, int], segments_info: Any, ignore_index: int | None
) -> ReadMasks:
    if segments_info is not None and not _is_stack(array, size):
        return _listed_segments(array, size, distinct_segments(segments_info), must_be_there=True)
    if _is_outline(array, size):
        return ReadMasks(_mask_of_entry(array, size, 0)[None])
    array = _without_channel(array)
    if array.shape == (*size, 1) and array.shape[1:] != size:
        array = array[..., 0]
    if array.dtype.kind in "iu" and array.shape in ((*size, 3), (*size, 4)) and array.shape[1:] != size:
        if array.dtype == np.uint8 and (mask := _mask_of_picture(Image.fromarray(array), None)) is not None:
            return ReadMasks(mask[None])
        array = colors_to_ids(array)
    if array.ndim == 2 and array.dtype.kind == "f" and _is_map_of_floats(array):
        array = array.astype(np.int64)
    if array.ndim == 2 and array.dtype.kind in "iu":
        if _is_mask_of_grays(array):
            return ReadMasks((array > 127)[None])
        return _masks_of_map(array, size, ignore_index)
    if array.ndim == 3 and array.shape[-1] == 2 and array.shape[-2:] != size and array.dtype.kind in "iuf":
        return ReadMasks(np.stack([_mask_of_entry(entry, size, number) for number, entry in enumerate(array)]))
    return ReadMasks(masks_from_array(array, size))


def _without_channel(array: np.ndarray) -> np.ndarray:
    """`(num_masks, 1, height, width)`, as torchvision gives masks, without the 1."""
    return array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array


def _is_outline(array: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether an array is a polygon or contour rather than pixels."""
    is_polygon_or_contour = array.ndim == 1 or array.shape[1:] in ((2,), (1, 2))
    return is_polygon_or_contour and array.size > 0 and array.shape[-2:] != size and array.dtype.kind in "iuf"


def _is_map_of_floats(array: np.ndarray) -> bool:
    """Whether floats are the numbers of segments, as in Transformers' instance results."""
    return bool(
        array.size
        and np.isfinite(array).all()
        and (array.min() == -1 or (array.min() >= 0 and array.max() > 1))
        and (array == np.round(array)).all()
    )


def _check_size(found: tuple[int, ...], size: tuple[int, int]) -> None:
    if found != size:
        raise ValueError(
            f"The map is {found[0]}x{found[1]}, but the picture {size[0]}x{size[1]} as a viewer shows it: they must be "
            "of one size."
        )


def _listed_segments(value: Any, size: tuple[int, int], entries: Sequence[Mapping], must_be_there: bool) -> ReadMasks:
    """The segments of a map that `segments_info` lists, in its order; those without a pixel may be left out."""
    ids = [int(entry["id"]) for entry in entries]
    try:
        values = segment_ids(value, ids, size, unlisted="drop")
    except (ValueError, TypeError) as error:
        raise type(error)(f"The map of segments {error}") from None
    present = set(np.unique(values).tolist())
    absent = [number for number in ids if number not in present]
    if absent and must_be_there:
        raise ValueError(
            f"The map has no pixel of segment {absent[0]}, which segments_info lists. Of a whole result, a dict, "
            "segments that others cover are left out."
        )
    if len(absent) == len(ids):
        raise ValueError(
            f"The map has no pixel of any segment that segments_info lists, such as {ids[0]}: do they belong together?"
        )
    ids = [number for number in ids if number in present]
    return _split(values, ids)


def _masks_of_map(values: np.ndarray, size: tuple[int, int], ignore_index: int | None) -> ReadMasks:
    _check_size(values.shape, size)
    if values.dtype == np.uint64 and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"The map holds the number {values.max()}, which is too large.")
    present = np.unique(values).tolist()
    if present[0] >= 0 and present[-1] <= 255 and _has_traces_of_a_lossy_format(values):
        raise _traces_of_a_lossy_format(len(present))
    _check_is_map(values, present)
    if ignore_index == 0 and present[0] < 0 and 0 in present:
        raise ValueError(
            "The map holds negative values, which are no masks, and 0, so that it is not clear whether 0 is one: give "
            "the segments_info beside it, ignore_index=-1 if 0 is a mask, or a map without negative values if not."
        )
    ids = [value for value in present if value >= 0 and value != ignore_index]
    if not ids:
        raise ValueError(
            f"The map holds nothing but {present}, which is no mask: say which value is not one by ignore_index, or "
            "None if all are."
        )
    return _split(values, ids)


def _check_is_map(values: np.ndarray, present: Sequence[int]) -> None:
    """Refuse photographs, pictures of scores and traces of lossy formats, whose values change from pixel to pixel."""
    if len(present) <= _SOME_VALUES or min(values.shape) < _FEWEST_ROWS:
        return
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    is_not_most_frequent = where.reshape(values.shape) != counts.argmax()
    is_no_map = share_of_flat_pixels(values, is_not_most_frequent, neighbors=2) < _LEAST_IN_LINES
    if not is_no_map and len(present) > _MANY_VALUES:
        is_no_map = share_of_flat_pixels(values, is_not_most_frequent) < _LEAST_FLAT
    if is_no_map:
        raise ValueError(
            f"The map holds {len(present)} different values, which change from pixel to pixel: it is a photograph, a "
            "picture of scores or a mask with soft edges, and no map of masks. Of scores or a soft mask give one "
            "threshold's result, such as pixels > 127."
        )


def _split(values: np.ndarray, ids: list[int]) -> ReadMasks:
    if len(ids) * values.size > _MOST_BYTES:
        raise ValueError(
            f"The map holds {len(ids)} different values, whose masks of {values.shape[0]}x{values.shape[1]} pixels do "
            f"not fit into {_MOST_BYTES >> 30} GiB: is it a photograph? Choose segments by segments_info."
        )
    masks = np.zeros((len(ids), *values.shape), dtype=bool)
    for mask, number in zip(masks, ids, strict=True):
        np.equal(values, number, out=mask)
    return ReadMasks(masks, ids)


# --- entries of lists ------------------------------------------------------------------------------------------------


def _mask_of_entry(entry: Any, size: tuple[int, int], number: int) -> np.ndarray:
    """One object's mask, `(height, width)` booleans or floats."""
    try:
        return _object_mask(entry, size, number)
    except ValueError as error:
        if str(error).startswith("Mask "):
            raise
        raise ValueError(f"Mask {number}: {error}") from None


def _object_mask(entry: Any, size: tuple[int, int], number: int) -> np.ndarray:
    if _is_encoded(entry):
        entry = _open(entry)
    if isinstance(entry, Mapping):
        inside = next((name for name in _INSIDE if name in entry), None)
        if inside is None:
            return coco_mask(entry, size)
        entry = entry[inside]
        if isinstance(entry, (list, tuple)) and not entry:
            raise ValueError("the object has no outline, only a box perhaps: leave it out.")
        return _object_mask(entry, size, number)
    if isinstance(entry, Image.Image):
        kind = entry.format
        entry = ImageOps.exif_transpose(entry)
        mask = _mask_of_picture(entry, kind)
        if mask is not None:
            _check_mask_shape(mask, size)
            return mask
        entry = _values_of_mask_picture(entry)
    if _is_array(entry):
        array = as_array(entry)
        return _outline_mask(array, size) if _is_outline(array, size) else _mask_of_array(array, size)
    if (inside := _attribute_inside(entry)) is not None:
        return _object_mask(inside, size, number)
    if _are_rows(entry, size):
        return _mask_of_array(np.asarray(entry), size)
    if is_polygon(entry):
        return polygon_mask(entry, size, rule="coco")
    if isinstance(entry, (list, tuple)) and entry:
        if all(_is_array(part) for part in entry):
            return np.any([_outline_mask(as_array(part), size) for part in entry], axis=0)
        return coco_mask(entry, size)
    raise TypeError(f"Mask {number} is {shortened(entry)}; masks must be {_FORMS}.")


def _values_of_mask_picture(image: Image.Image) -> np.ndarray:
    """Grey values of a picture of one mask; of a palette of colours the indices."""
    if image.mode == "P":
        colors = np.asarray(image.convert("RGB"))
        return colors[..., 0] if (colors[..., :1] == colors).all() else np.asarray(image)
    return np.asarray(image.convert("L") if image.mode in ("RGB", "RGBA", "LA", "PA") else image)


def _outline_mask(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if array.ndim == 3 and array.shape[1:] == (1, 2):
        return contour_mask(array, size)
    return polygon_mask(array, size, rule="coco")


def _mask_of_array(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    _check_mask_shape(array, size)
    (mask,) = masks_from_array(array, size)
    return mask


def _check_mask_shape(array: np.ndarray, size: tuple[int, int]) -> None:
    if array.shape != size:
        raise ValueError(
            f"Masks must have shape ({size[0]}, {size[1]}), the picture's size as a viewer shows it, or be polygons "
            f"(num_points, 2), got shape {array.shape}."
        )


__all__ = ["ReadMasks", "read_masks"]
