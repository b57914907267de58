"""Label maps of any origin as integer arrays, and the joint histogram of two of them."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from PIL import Image

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


def as_integer_map(value: Any, role: str, sample_id: SampleId, *, channels: bool = False) -> IntegerMap:
    """Turns a label map of any accepted form into an integer array or tensor.

    Args:
        value: numpy array, torch tensor (stays on its device), PIL picture (palette indices, grey, 16 or 32 bit),
            nested list, or what `datasets.Image` stores: a path, bytes, or ``{"path": ..., "bytes": ...}``.
        role: ``"prediction"`` or ``"reference"``, for messages.
        sample_id: What messages call the sample.
        channels: Whether ``(height, width, 3)`` is accepted besides ``(height, width)``.

    Returns:
        Array or tensor of an integer or boolean type.

    Raises:
        ValueError: A missing map, or one that has not two axes.
        TypeError: Values that are not whole numbers.
        FileNotFoundError: A path that leads to no file.
    """
    if value is None:
        raise ValueError(f"The {role} of sample {sample_id!r} is missing (None).")
    if isinstance(value, dict) and {"path", "bytes"} & value.keys():
        value = value.get("bytes") or value.get("path")
        if value is None:
            raise ValueError(f"The {role} of sample {sample_id!r} is missing: neither a path nor bytes are given.")
    if isinstance(value, str | os.PathLike | bytes):
        value = _decode(value, role, sample_id)
    if not is_torch_tensor(value):
        value = np.asarray(value)
        if value.dtype.kind not in "biu":
            raise TypeError(
                f"The {role} of sample {sample_id!r} holds {value.dtype} values, but class ids are whole numbers. "
                "Pass the result of `post_process_semantic_segmentation`, or take the arg max of the scores."
            )
    elif value.is_floating_point() or value.is_complex():
        raise TypeError(
            f"The {role} of sample {sample_id!r} holds {value.dtype} values, but class ids are whole numbers. "
            "Pass the result of `post_process_semantic_segmentation`, or take the arg max of the scores."
        )
    if value.ndim != 2 and not (channels and value.ndim == 3 and value.shape[-1] == 3):
        raise ValueError(
            f"The {role} of sample {sample_id!r} has shape {tuple(value.shape)}; expected (height, width)"
            + (" or (height, width, 3)." if channels else ".")
        )
    return value


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


def _decode(source: Any, role: str, sample_id: SampleId) -> np.ndarray:
    if isinstance(source, bytes):
        name, handle = f"the {role} of sample {sample_id!r}", io.BytesIO(source)
    else:
        name, handle = f"{os.fspath(source)} (the {role} of sample {sample_id!r})", source
        if not os.path.isfile(source):
            raise FileNotFoundError(f"There is no file {name}.")
    try:
        with Image.open(handle) as picture:
            return np.array(picture)
    except OSError as error:
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
