"""Small pictures and label maps for the tests of data sets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, width: int = 16, height: int = 12) -> Image.Image:
    """A picture of random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def labels(seed: int = 0, width: int = 16, height: int = 12, classes: int = 3) -> np.ndarray:
    """A random label map of blocks."""
    blocks = np.random.default_rng(seed).integers(0, classes, ((height + 3) // 4, (width + 3) // 4))
    return np.kron(blocks, np.ones((4, 4), dtype=np.int64))[:height, :width].astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG") -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format=kind)
    return buffer.getvalue()


def save(path: Path, image: Image.Image | np.ndarray) -> Path:
    """Write a picture, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path
