"""Label maps of any origin as integer arrays, and the joint histogram of two of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from PIL import Image

from ...model.label_maps import label_values, segment_ids
from ...model.masks import as_array, colors_to_ids, shortened, whole_number
from ...model.pictures import open_picture

if TYPE_CHECKING:
    import torch

IntegerMap: TypeAlias = "np.ndarray | torch.Tensor"
"""A label map ready for counting: a numpy array, or a tensor where its owner left it (an accelerator, say)."""

SampleId: TypeAlias = "int | str"
"""What a message calls a sample: its file name, the data set's own id, or its running number."""

# Joint histograms up to this many cells (16-bit codes) are counted directly, others over the values that occur.
_DIRECT_CELLS = (1 << 16) - 1
_MAX_CELLS = 1 << 24  # 128 MiB
_LOOKUP_RANGE = 1 << 20


class SegmentEntry(NamedTuple):
    """An entry of ``segments_info``.

    Attributes:
        id: The segment's number in the map; 0 where there is no map, but a mask for each entry.
        category: Its class.
        info: The entry as it came.
    """

    id: int
    category: int
    info: Mapping[str, Any]


class PairCounts(NamedTuple):
    """How many pixels hold each pair of values in two maps of one size.

    Attributes:
        rows: ``(R,)`` int64, ascending: the values that occur in the first map.
        columns: ``(C,)`` int64, ascending: the values that occur in the second map.
        counts: ``(R, C)`` int64: pixels with ``rows[i]`` in the first and ``columns[j]`` in the second map.
    """

    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray


def is_torch_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether ``value`` is a `torch.Tensor`; does not import torch."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(value, torch_module.Tensor)


def segment_entries(segments_info: Any, role: str, sample_id: SampleId, *, of_map: bool = True) -> list[SegmentEntry]:
    """Checks a ``segments_info``.

    Args:
        segments_info: A list of dicts with ``category_id`` or ``label_id`` and, beside a map, ``id``. An entry that was
            fused (``was_fused``) may be listed again.
        role: ``"prediction"`` or ``"reference"``, for messages.
        sample_id: What messages call the sample.
        of_map: Whether there is a map whose numbers the ids are, rather than one mask for each entry.

    Returns:
        The entries in their order, fused ones once if there is a map.

    Raises:
        ValueError: It is no such list, ids or categories are no whole numbers, or an id is given twice.
    """
    where = f"the {role} of sample {sample_id!r}"
    is_list = isinstance(segments_info, Sequence) and all(isinstance(info, Mapping) for info in segments_info)
    if not is_list or isinstance(segments_info, str):
        raise ValueError(
            f"The `segments_info` in {where} must be a list of dicts, one for each segment, got "
            f"{shortened(segments_info)}."
        )
    entries: list[SegmentEntry] = []
    categories: dict[int, int] = {}
    for info in segments_info:
        category = info.get("category_id", info.get("label_id"))
        if category is None:
            raise ValueError(f"A segment in {where} has neither `category_id` nor `label_id`: {dict(info)}.")
        category = _whole_entry(category, "category", where)
        number = _whole_entry(info.get("id"), "id", where) if of_map else 0
        if of_map and number in categories:
            if categories[number] != category or not info.get("was_fused", False) or info.get("iscrowd", False):
                raise ValueError(f"The {role} of sample {sample_id!r} lists the segment {number} twice.")
            continue
        categories[number] = category
        entries.append(SegmentEntry(number, category, info))
    return entries


def _whole_entry(value: Any, name: str, where: str) -> int:
    try:
        return whole_number(value)
    except ValueError as error:
        raise ValueError(f"The {name} of a segment in {where} {error}") from None


def check_listed(present: np.ndarray, segments: Collection[int], role: str, sample_id: SampleId) -> None:
    """Raises a ValueError if a map holds segments, numbers above 0, that its ``segments_info`` does not list."""
    unlisted = [number for number in present.tolist() if number > 0 and number not in segments]
    if unlisted:
        raise ValueError(
            f"The map in the {role} of sample {sample_id!r} holds the segment ids {unlisted[:5]}, which its "
            "`segments_info` does not list. Do map and list belong to the same picture?"
        )


def as_integer_map(value: Any, role: str, sample_id: SampleId) -> IntegerMap:
    """Turns a label map of any accepted form into an integer array or tensor.

    Args:
        value: numpy array, torch tensor (stays on its device), PIL picture (palette indices, grey, 16 or 32 bit),
            nested list, or what `datasets.Image` stores: a path, bytes, or ``{"path": ..., "bytes": ...}``.
        role: ``"prediction"`` or ``"reference"``, for messages.
        sample_id: What messages call the sample.

    Returns:
        ``(height, width)`` array or tensor of an integer or boolean type.

    Raises:
        ValueError: A missing map, or one that has not two axes.
        TypeError: Values that are not whole numbers.
        FileNotFoundError: A path that leads to no file.
    """
    value = _opened(value, role, sample_id)
    if is_torch_tensor(value) and (value.is_floating_point() or value.is_complex()):
        raise _not_whole(value.dtype, role, sample_id)
    if not isinstance(value, Image.Image) and value.ndim != 2:
        raise _not_flat(value.shape, role, sample_id)
    if is_torch_tensor(value):
        return value
    try:
        return label_values(value)
    except TypeError:
        raise _not_whole(as_array(value).dtype, role, sample_id) from None
    except ValueError as error:
        raise ValueError(f"The {role} of sample {sample_id!r} {error}") from None


def as_segment_map(value: Any, segments: Collection[int], role: str, sample_id: SampleId) -> IntegerMap:
    """Turns a map of segment ids of any accepted form into an integer array or tensor.

    Args:
        value: As for `as_integer_map`, and ``(height, width, 3)`` colours, with id = R + 256·G + 256²·B; pictures are
            colours whatever mode they were saved in (`hf_maskadapter.model.label_maps.segment_ids`). Floats count if
            they are whole numbers of listed segments or negative, as in Transformers' instance results.
        segments: The ids that ``segments_info`` lists.
        role: ``"prediction"`` or ``"reference"``, for messages.
        sample_id: What messages call the sample.

    Returns:
        ``(height, width)`` array or tensor of an integer type; ids that nobody lists are still in it.

    Raises:
        ValueError, TypeError, FileNotFoundError: As `as_integer_map`.
    """
    value = _opened(value, role, sample_id)
    if is_torch_tensor(value) and value.device.type != "cpu":
        value = value.long() if value.is_floating_point() and _holds_listed(to_numpy(value), segments) else value
        if value.ndim == 3 and value.shape[-1] in (3, 4) and not value.is_floating_point():
            value = colors_to_ids(value)
        return as_integer_map(value, role, sample_id)
    if not isinstance(value, Image.Image):
        value = as_array(value)
        if value.dtype.kind == "f" and value.ndim == 2 and not _holds_listed(value, segments):
            raise _not_whole(value.dtype, role, sample_id)
    try:
        return segment_ids(value, segments, unlisted="keep")
    except TypeError:
        raise _not_whole(as_array(value).dtype, role, sample_id) from None
    except ValueError as error:
        raise ValueError(f"The {role} of sample {sample_id!r} {error}") from None


def _holds_listed(values: np.ndarray, segments: Collection[int]) -> bool:
    return all(value < 0 or value in segments or (value == 0 and segments) for value in np.unique(values).tolist())


def _not_whole(dtype: Any, role: str, sample_id: SampleId) -> TypeError:
    return TypeError(
        f"The {role} of sample {sample_id!r} holds {dtype} values, but class ids are whole numbers. "
        "Pass the result of `post_process_semantic_segmentation`, or take the arg max of the scores."
    )


def _not_flat(shape: Any, role: str, sample_id: SampleId) -> ValueError:
    return ValueError(f"The {role} of sample {sample_id!r} has shape {tuple(shape)}; expected (height, width).")


def check_same_size(prediction: IntegerMap, reference: IntegerMap, sample_id: SampleId) -> None:
    """Raises a ValueError that states both sizes if the two maps differ in height or width."""
    predicted, annotated = tuple(prediction.shape[:2]), tuple(reference.shape[:2])
    if predicted != annotated:
        raise ValueError(
            f"The prediction of sample {sample_id!r} is {predicted[0]}×{predicted[1]} (height×width), its annotation "
            f"{annotated[0]}×{annotated[1]}. Bring the prediction to the annotation's size, e.g. by `target_sizes` of "
            "the post-processing functions."
        )


def pair_counts(first: IntegerMap, second: IntegerMap, sample_id: SampleId = 0) -> PairCounts:
    """Counts the pairs of values of two maps of one size; on the tensors' device if one of them is not on the CPU.

    Args:
        first: ``(height, width)`` integers of any range.
        second: Integers of the same shape.
        sample_id: What messages call the sample.

    Raises:
        ValueError: The maps hold more distinct values than any set of classes or segments has.
    """
    for value in (first, second):
        if is_torch_tensor(value) and value.device.type != "cpu":
            return _pair_counts_torch(first, second, sample_id, value.device)
    return _pair_counts_numpy(to_numpy(first), to_numpy(second), sample_id)


def check_cells(num_rows: int, num_columns: int, sample_id: SampleId) -> None:
    """Raises a ValueError if a table of so many distinct values is too large to be one of classes or segments."""
    if num_rows * num_columns > _MAX_CELLS:
        raise ValueError(
            f"Up to sample {sample_id!r} the annotations hold {num_rows} distinct values and the predictions "
            f"{num_columns}: these are not class ids. Segment ids must be turned into class ids first."
        )


def to_numpy(value: IntegerMap) -> np.ndarray:
    """The map as a numpy array; a tensor is moved to the CPU."""
    return value.detach().cpu().numpy() if is_torch_tensor(value) else np.asarray(value)


def _opened(value: Any, role: str, sample_id: SampleId) -> Any:
    """The map as a picture if it is encoded; what is no picture stays."""
    if value is None:
        raise ValueError(f"The {role} of sample {sample_id!r} is missing (None).")
    path = value
    if isinstance(value, dict) and {"path", "bytes"} & value.keys():
        value, path = value.get("bytes") or value.get("path"), value.get("path")
        if value is None:
            raise ValueError(f"The {role} of sample {sample_id!r} is missing: neither a path nor bytes are given.")
    if not isinstance(value, str | os.PathLike | bytes):
        if is_torch_tensor(value) or isinstance(value, Image.Image):
            return value
        try:
            return np.asarray(value)
        except ValueError:
            raise ValueError(
                f"The {role} of sample {sample_id!r} is no map, (height, width), but lists of different lengths. Of "
                "Transformers' results post-process with return_coco_annotation=False."
            ) from None
    name = f"the {role} of sample {sample_id!r}"
    if not isinstance(value, bytes):
        name = f"{os.fspath(path)} ({name})"
        if not os.path.isfile(value):
            raise FileNotFoundError(f"There is no file {name}.")
    try:
        return open_picture(value)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read {name} as a picture: {error}") from error


def _pair_counts_numpy(first: np.ndarray, second: np.ndarray, sample_id: SampleId) -> PairCounts:
    first, second = first.ravel(), second.ravel()
    if first.size == 0:
        empty = np.zeros(0, np.int64)
        return PairCounts(empty, empty, np.zeros((0, 0), np.int64))
    first_low, first_high = int(first.min()), int(first.max())
    second_low, second_high = int(second.min()), int(second.max())
    height, width = first_high - first_low + 1, second_high - second_low + 1
    if height * width <= _DIRECT_CELLS:
        rows, first_index = np.arange(first_low, first_high + 1), _shifted(first, first_low, np.uint16)
        columns, second_index = np.arange(second_low, second_high + 1), _shifted(second, second_low, np.uint16)
    else:
        rows, first_index = _compress(first, first_low, first_high)
        columns, second_index = _compress(second, second_low, second_high)
        check_cells(len(rows), len(columns), sample_id)
    first_index *= first_index.dtype.type(len(columns))
    first_index += second_index
    counts = np.bincount(first_index, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns))
    row_used, column_used = counts.any(axis=1), counts.any(axis=0)
    if not (row_used.all() and column_used.all()):
        rows, columns, counts = rows[row_used], columns[column_used], counts[np.ix_(row_used, column_used)]
    return PairCounts(rows, columns, counts.astype(np.int64, copy=False))


def _shifted(values: np.ndarray, low: int, dtype: type[np.unsignedinteger] | type[np.intp]) -> np.ndarray:
    """``values - low`` as a new array, which wraps around to the right result in an unsigned type."""
    index = values.astype(dtype)
    if low:
        index -= np.asarray(low).astype(dtype)
    return index


def _compress(values: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, ascending, and for each element its place among them."""
    if high - low >= _LOOKUP_RANGE:
        distinct = np.unique(values)
        return distinct.astype(np.int64), np.searchsorted(distinct, values)
    offsets = _shifted(values, low, np.intp)
    present = np.flatnonzero(np.bincount(offsets))
    place = np.zeros(high - low + 1, np.intp)
    place[present] = np.arange(len(present))
    return present.astype(np.int64) + low, place[offsets]


def _pair_counts_torch(first: IntegerMap, second: IntegerMap, sample_id: SampleId, device: torch.device) -> PairCounts:
    import torch

    first = torch.as_tensor(first).to(device, torch.int64).ravel()
    second = torch.as_tensor(second).to(device, torch.int64).ravel()
    if first.numel() == 0:
        return _pair_counts_numpy(np.zeros(0, np.int64), np.zeros(0, np.int64), sample_id)
    rows, first_index = torch.unique(first, return_inverse=True)
    columns, second_index = torch.unique(second, return_inverse=True)
    check_cells(len(rows), len(columns), sample_id)
    counts = torch.bincount(first_index * len(columns) + second_index, minlength=len(rows) * len(columns))
    return PairCounts(rows.cpu().numpy(), columns.cpu().numpy(), counts.view(len(rows), len(columns)).cpu().numpy())
