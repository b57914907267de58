"""Embeddings of names on disk, so that a vocabulary is encoded once for each text tower."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..model.modeling_text_classifier import EncodedVocabulary
from .form import VocabularyFileError, read_file, write_file
from .hashes import text_tower_hash, tokenizer_hash

if TYPE_CHECKING:
    from ..model.modeling_clip import DenseClipModel

_COMPUTATION = 1
"""Counts changes of how names are encoded that change results beyond rounding: older files are then not read."""


class VocabularyCache:
    """Embeddings of names on disk, so that a vocabulary is encoded once for each text tower, not once a process.

    A file holds the names of one vocabulary, under a name that is the checksum of text tower, tokenizer, names,
    templates and precision; the names themselves are not in it. A damaged or foreign file is ignored with a warning and
    written anew. What was not used for longest goes when there is too much.

    Args:
        folder: where the files lie; made when it is needed.
        max_bytes: what all files may take.
        max_files: how many there may be.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 256 * 2**20, max_files: int = 1000) -> None:
        self.folder, self.max_bytes, self.max_files = Path(folder), max_bytes, max_files

    def embed(
        self,
        clip: DenseClipModel,
        tokenizer: Any,
        names: Sequence[str],
        templates: Sequence[str],
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """The embeddings of names from their file, else computed and put into one.

        Args:
            clip: the CLIP whose text tower `compute` uses.
            tokenizer: the tokenizer that it uses.
            names: the names, each once.
            templates: the prompt templates.
            compute: makes the embeddings, `(num_names, projection_dim)`.
        """
        key = self._key(clip, tokenizer, names, templates)
        if key is None:
            return compute()
        path = self.folder / f"{key}.safetensors"
        found = self._find(path, key, (len(names), clip.config.projection_dim))
        if found is not None:
            return found.to(clip.device)
        embeddings = compute()
        self._keep(path, key, embeddings)
        return embeddings

    @staticmethod
    def _key(clip: DenseClipModel, tokenizer: Any, names: Sequence[str], templates: Sequence[str]) -> str | None:
        tokenizer_digest = tokenizer_hash(tokenizer)
        if tokenizer_digest is None:
            return None
        device = clip.device.type
        precision = [torch.get_float32_matmul_precision()]
        if torch.is_autocast_enabled(device):
            precision.append(str(torch.get_autocast_dtype(device)))
        settings = [clip.config.pads_text, clip.config.lowers_text, _COMPUTATION]
        parts = [text_tower_hash(clip), tokenizer_digest, list(names), list(templates), settings, precision]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @staticmethod
    def _find(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
        try:
            encoded, metadata = read_file(path)
            if metadata.get("key") != key or encoded.text_embeds.shape != shape:
                raise VocabularyFileError(f"{path} holds other names than its own name says.")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, VocabularyFileError) as error:
            warnings.warn(f"An encoded vocabulary in the cache is not used: {error}", stacklevel=2)
            return None
        return encoded.text_embeds

    def _keep(self, path: Path, key: str, embeddings: Tensor) -> None:
        """Write a file, if that can be done: without it, only time is lost."""
        count = len(embeddings)
        if embeddings.nbytes > self.max_bytes:
            return
        encoded = EncodedVocabulary(embeddings, torch.arange(count), torch.zeros(count, dtype=torch.bool))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(path, encoded, {"key": key})
            self._make_room()
        except OSError as error:
            warnings.warn(f"The encoded vocabulary cannot be kept for the next time: {error}", stacklevel=2)

    def _make_room(self) -> None:
        files = []
        for path in self.folder.glob("*.safetensors"):
            try:
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except FileNotFoundError:  # another process made room
                continue
        total = 0
        for number, (_, size, path) in enumerate(sorted(files, reverse=True)):
            total += size
            if total > self.max_bytes or number >= self.max_files:
                path.unlink(missing_ok=True)


__all__ = ["VocabularyCache"]
