"""A random checkpoint in the names, shapes and size of the released one, written without being held in memory."""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path

import numpy as np
import torch

from .golden import FIXTURES
from .hub_server import Blob

MANIFEST = FIXTURES / "manifests" / "fcclip_mask_adapter_convnext_large.json"
"""Every key of the released checkpoint of `fcclip-large` with its shape and type."""

_BLOCK = 1 << 22
_ONES = ("norm", ".ln_", "ln_final", "mask_downscaling.1", "mask_downscaling.4", "_mask_pooling_proj.0")


def write_full_size_checkpoint(path: Path, optimizer_numbers: int = 30_000_000) -> None:
    """Write a checkpoint as trainers leave it: weights that give finite results, and beside them an optimizer's state.

    Args:
        path: the file; another one beside it holds the numbers meanwhile.
        optimizer_numbers: how many numbers the optimizer's state has: 120 MB of a release of 1.67 GB.
    """
    shapes = {key: tuple(shape) for key, (shape, _) in json.loads(MANIFEST.read_text()).items()}
    counts = {key: math.prod(shape) for key, shape in shapes.items()}
    numbers = np.memmap(
        path.with_suffix(".numbers"), np.float32, mode="w+", shape=(sum(counts.values()) + optimizer_numbers,)
    )
    generator = np.random.default_rng(0)
    for start in range(0, len(numbers), _BLOCK):
        block = numbers[start : start + _BLOCK]
        generator.standard_normal(out=block, dtype=np.float32)
    state, start = {}, 0
    for key, shape in shapes.items():
        values = numbers[start : start + counts[key]]
        start += counts[key]
        _scale(key, shape, values)
        state[key] = torch.from_numpy(values.reshape(shape))
    moments = torch.from_numpy(numbers[start:])
    torch.save({"model": state, "optimizer": {"state": {0: {"exp_avg": moments}}}, "iteration": 90_000}, path)
    del state, moments, values, block, numbers
    path.with_suffix(".numbers").unlink()


def _scale(key: str, shape: tuple[int, ...], values: np.ndarray) -> None:
    """Turn standard normal numbers into weights through which a picture passes."""
    if key.endswith("gamma"):
        values *= 0.1
    elif key.endswith("logit_scale"):
        values[:] = math.log(100)
    elif len(shape) >= 2:
        values *= 1 / math.sqrt(math.prod(shape[1:]))
    else:
        values *= 0.02
        if key.endswith("weight") and any(part in key for part in _ONES):
            values += 1


def mapped_blob(path: Path) -> Blob:
    """A file for the Hub on loopback that stays on disk."""
    with path.open("rb") as file:
        return Blob(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), is_lfs=True)
