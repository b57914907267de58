"""What made a result: versions, weights, preprocessing, and hashes by which two runs tell whether they are alike."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import __version__

_PACKAGES = (
    "hf-maskadapter",
    "torch",
    "transformers",
    "pillow",
    "numpy",
    "accelerate",
    "datasets",
    "pycocotools",
)
_MOST_IMPORTANT = ("hf-maskadapter", "torch", "transformers", "pillow", "numpy", "python")


def versions() -> dict[str, str]:
    """Versions of everything that results depend on; Pillow's resampling alone changes them by about 0.2 mIoU."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "hf-maskadapter":
                found[package] = __version__
    return found


def versions_text(versions: Mapping[str, str]) -> str:
    """The versions that results depend on most, as text."""
    return ", ".join(f"{name} {versions[name]}" for name in _MOST_IMPORTANT if name in versions)


def model_hash(model: Any) -> str:
    """Hash of a model's weights, the same wherever and in whatever files they are: names, types and values.

    Args:
        model: a `torch.nn.Module`.

    Returns:
        32 hexadecimal digits.
    """
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def content_hash(content: Any) -> str:
    """Hash of what JSON can hold, whatever the order of keys; anything else counts by its text.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_model(model: Any, processor: Any) -> dict[str, Any]:
    """A model's class and configuration, and how pictures are prepared for it, for JSON.

    Args:
        model: a model of Transformers.
        processor: its processor or image processor.
    """
    image_processor = getattr(processor, "image_processor", processor)
    return {
        "class": type(model).__name__,
        "config": json.loads(model.config.to_json_string()),
        "image_processor": json.loads(image_processor.to_json_string()),
    }


__all__ = ["content_hash", "describe_model", "file_hash", "model_hash", "versions", "versions_text"]
