"""Runs of equal values, which every mask format counts in its own way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def run_lengths(values: np.ndarray) -> np.ndarray:
    """Lengths of the runs in a mask, background first.

    Args:
        values: `(n,)` bool.

    Returns:
        `(runs,)` int64: lengths of background and foreground by turns; the first is 0 if the mask begins inside.
    """
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [len(values)]]))
    return np.concatenate([[0], lengths]) if len(values) and values[0] else lengths


def from_run_lengths(lengths: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """The mask of some run lengths, background first: `(size,)` bool.

    Raises:
        ValueError: if they do not add up to `size`.
    """
    counts = np.asarray(lengths, dtype=np.int64)
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != size:
        raise ValueError(f"run lengths must add up to {size} pixels, these give {counts.sum()}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


__all__ = ["from_run_lengths", "run_lengths"]
