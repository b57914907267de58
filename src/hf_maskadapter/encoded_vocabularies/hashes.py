"""Checksums of what a vocabulary is encoded with: a CLIP's text tower, a tokenizer."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model.modeling_clip import DenseClipModel

_SAMPLES = 64
_digests: weakref.WeakKeyDictionary[DenseClipModel, tuple[Any, str]] = weakref.WeakKeyDictionary()


def text_tower_hash(clip: DenseClipModel) -> str:
    """Checksum of all that a CLIP's text embeddings depend on: weights, their types, and the configuration.

    It is kept for a CLIP whose weights have not changed since.
    """
    weights = clip.text_weights()
    state = tuple(_fingerprint(tensor) for tensor in weights.values())
    known = _digests.get(clip)
    if known is not None and known[0] == state:
        return known[1]
    config = {
        name: value
        for name, value in clip.config.text_config.to_dict().items()
        if not name.startswith("_") and name not in ("transformers_version", "name_or_path", "dtype")
    }
    digest = hashlib.sha256(json.dumps([type(clip).__name__, config], sort_keys=True, default=str).encode())
    for name, tensor in weights.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    _digests[clip] = state, digest.hexdigest()
    return digest.hexdigest()


def forget() -> None:
    """Make the next checksums anew, as a new process does."""
    _digests.clear()


def _fingerprint(tensor: Tensor) -> tuple[int, int, float]:
    """What tells that a tensor's values may have changed, without reading all of them."""
    flat = tensor.detach().reshape(-1)
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, flat[:: max(len(flat) // _SAMPLES, 1)].double().sum().item()


def tokenizer_hash(tokenizer: Any) -> str | None:
    """Checksum of a tokenizer's rules and tokens; `None` for one that cannot tell them."""
    rules = getattr(getattr(tokenizer, "backend_tokenizer", None), "to_str", None)
    return None if rules is None else hashlib.sha256(rules().encode()).hexdigest()


__all__ = ["forget", "text_tower_hash", "tokenizer_hash"]
