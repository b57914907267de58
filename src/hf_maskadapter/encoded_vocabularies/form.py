"""The form of an encoded vocabulary in a file.

It is a safetensors file. Its metadata say what it is, by [`FORMAT`] and [`VERSION`], and which text tower made it.
Readers refuse another version, and leave alone tensors that they do not know: what later files hold beside the texts,
such as embeddings of example pictures, comes under names of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_atomically
from ..model.modeling_text_classifier import EncodedVocabulary
from .hashes import text_tower_hash

if TYPE_CHECKING:
    from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation

FORMAT = "maskadapter.encoded_vocabulary"
"""What the metadata of such a file call it."""

VERSION = "1"
"""Version of the form: `text_embeds`, `class_ids` and `seen_classes`, as [`EncodedVocabulary`] has them."""

_FIELDS = ("text_embeds", "class_ids", "seen_classes")


class VocabularyFileError(ValueError):
    """A file holds no encoded vocabulary, or one of another model; the message says which."""


def save_vocabulary(
    encoded: EncodedVocabulary,
    path: str | os.PathLike[str],
    model: MaskAdapterForOpenVocabularySegmentation,
) -> None:
    """Save an encoded vocabulary, complete or not at all.

    ```python
    save_vocabulary(model.encode_vocabulary("ade20k_847", processor), "ade20k_847.safetensors", model)
    encoded = load_vocabulary("ade20k_847.safetensors", model)
    ```

    Args:
        encoded: what `model.encode_vocabulary` gave.
        path: the file, replaced if it exists.
        model: the model that encoded it.

    Raises:
        OSError: if the file cannot be written.
    """
    write_file(Path(path), encoded, {"text_tower": text_tower_hash(model.clip)})


def load_vocabulary(path: str | os.PathLike[str], model: MaskAdapterForOpenVocabularySegmentation) -> EncodedVocabulary:
    """An encoded vocabulary as [`save_vocabulary`] wrote it, on the model's device.

    Args:
        path: the file.
        model: a model with the same text tower as the one that encoded it.

    Raises:
        OSError: if the file cannot be read.
        VocabularyFileError: if it holds something else, or was made by another text tower: its numbers would mean
            nothing to this model.
    """
    encoded, metadata = read_file(Path(path))
    if metadata.get("text_tower") != text_tower_hash(model.clip):
        raise VocabularyFileError(
            f"{path} was encoded by another text tower than this model's: encode its names again "
            "(model.encode_vocabulary)."
        )
    return encoded.to(model.void_embedding.device)


def write_file(path: Path, encoded: EncodedVocabulary, metadata: dict[str, str]) -> None:
    """Write a file, complete or not at all.

    Args:
        path: the file, replaced if it exists. Its folder must exist.
        encoded: what it holds.
        metadata: what else to note of it.

    Raises:
        OSError: if it cannot be written.
    """
    tensors = {name: getattr(encoded, name).detach().cpu().contiguous() for name in _FIELDS}
    content = save(tensors, {"format": FORMAT, "version": VERSION} | metadata)
    write_atomically(path, lambda file: file.write(content))


def read_file(path: Path) -> tuple[EncodedVocabulary, dict[str, str]]:
    """What a file holds, and its metadata.

    Raises:
        OSError: if it cannot be read.
        VocabularyFileError: if it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _FIELDS if name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise VocabularyFileError(f"{path} is damaged, or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise VocabularyFileError(f"{path} holds no encoded vocabulary.")
    if metadata.get("version") != VERSION:
        raise VocabularyFileError(
            f"{path} has version {metadata.get('version')} of its form, and this release reads version {VERSION}: "
            "encode its names again."
        )
    if not _is_sound(tensors):
        raise VocabularyFileError(f"{path} is damaged: its tensors do not fit together.")
    return EncodedVocabulary(**tensors), metadata


def _is_sound(tensors: dict[str, Tensor]) -> bool:
    if tensors.keys() != set(_FIELDS):
        return False
    embeddings, class_ids, seen = (tensors[name] for name in _FIELDS)
    return (
        embeddings.ndim == 2
        and embeddings.is_floating_point()
        and bool(embeddings.isfinite().all())
        and class_ids.dtype == torch.int64
        and seen.dtype == torch.bool
        and class_ids.shape == embeddings.shape[:1]
        and seen.ndim == 1
        and len(seen) > 0
        and torch.equal(class_ids.unique(), torch.arange(len(seen)))
        and bool((class_ids.diff() >= 0).all())
    )


__all__ = [
    "FORMAT",
    "VERSION",
    "VocabularyFileError",
    "load_vocabulary",
    "read_file",
    "save_vocabulary",
    "write_file",
]
