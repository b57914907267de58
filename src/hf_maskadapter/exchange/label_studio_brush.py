"""Label Studio's encoding of brush masks.

A brush mask is the picture's RGBA bytes in the run-length encoding of thi.ng's rle-pack, which Label Studio uses: a
stream of bits, most significant first, that holds the number of values (32 bits), the bits of a value less 1 (5 bits)
and four field sizes less 1 (4 bits each); then chunks. A chunk begins with a flag (1 bit), the number of its field size
(2 bits) and in such a field the count less 1. If the flag is set, one value follows, which is repeated so often, else
so many values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model.masks import run_lengths

_VALUE_BITS = 8
_FIELD_BITS = (3, 4, 8, 16)


def encode_brush(mask: np.ndarray) -> list[int]:
    """A `(height, width)` bool mask in Label Studio's encoding: RGBA bytes, 255 inside and 0 outside."""
    counts = 4 * run_lengths(mask.ravel())
    values = np.where(np.arange(len(counts)) % 2 == 1, 255, 0)
    counts, values = _split_runs(counts, values, 1 << _FIELD_BITS[-1])
    field = np.searchsorted([1 << bits for bits in _FIELD_BITS], counts)
    field_bits = np.array(_FIELD_BITS)[field]
    flag = 1
    chunks = (((flag << 2 | field) << field_bits | counts - 1) << _VALUE_BITS) | values
    header = [(4 * mask.size, 32), (_VALUE_BITS - 1, 5), *((bits - 1, 4) for bits in _FIELD_BITS)]
    numbers = np.concatenate([[number for number, _ in header], chunks]).astype(np.int64)
    widths = np.concatenate([[width for _, width in header], 3 + field_bits + _VALUE_BITS])
    return _pack_bits(numbers, widths).tolist()


def decode_brush(encoded: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The `(height, width)` bool mask of Label Studio's encoding: where the alpha channel is not wholly transparent.

    Raises:
        ValueError: if these are no bytes, end too early, go on after the last pixel, or hold a picture of another size.
    """
    if not isinstance(encoded, (list, tuple, bytes)) or not all(
        isinstance(byte, int) and 0 <= byte <= 255 for byte in encoded
    ):
        raise ValueError("the brush mask must be a list of whole numbers from 0 to 255")
    bits = "".join(f"{byte:08b}" for byte in encoded)
    position = 0

    def take(width: int) -> int:
        nonlocal position
        position += width
        if position > len(bits):
            raise ValueError("the brush mask ends too early")
        return int(bits[position - width : position], 2)

    total = take(32)
    if total != 4 * size[0] * size[1]:
        raise ValueError(
            f"the brush mask holds {total} values, a picture of {size[1]}×{size[0]} has {4 * size[0] * size[1]}"
        )
    value_bits = take(5) + 1
    field_bits = [take(4) + 1 for _ in range(4)]
    is_nonzero = np.empty(total, dtype=bool)  # of every channel; that of alpha counts
    done = 0
    while done < total:
        is_run = take(1)
        end = done + take(field_bits[take(2)]) + 1
        if end > total:
            raise ValueError(f"the brush mask's runs go on after the last of its {total} values")
        if is_run:
            is_nonzero[done:end] = take(value_bits) > 0
        else:
            is_nonzero[done:end] = [take(value_bits) > 0 for _ in range(done, end)]
        done = end
    if "1" in bits[position:]:
        raise ValueError(f"the brush mask goes on after the last of its {total} values")
    return is_nonzero.reshape(*size, 4)[..., 3].copy()


def _split_runs(counts: np.ndarray, values: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of at most `longest`; empty ones go."""
    pieces = -(-counts // longest)
    last = np.cumsum(pieces)[pieces > 0] - 1
    split = np.full(int(pieces.sum()), longest, dtype=np.int64)
    split[last] = ((counts - 1) % longest + 1)[pieces > 0]
    return split, np.repeat(values, pieces)


def _pack_bits(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bytes of numbers of given widths in bits, one after the other; the last byte is filled up with zeros."""
    places = np.arange(int(widths.max()))[::-1]
    bits = numbers[:, None] >> places & 1
    return np.packbits(bits[places < widths[:, None]].astype(np.uint8))


__all__ = ["decode_brush", "encode_brush"]
