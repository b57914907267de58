"""Encoded vocabularies in files: one form for those that users save, and a cache of names encoded before.

The form is a safetensors file. Its metadata say what it is, by [`FORMAT`] and [`VERSION`], and which text tower made
it. Readers refuse another version, and leave alone tensors that they do not know: what later files hold beside the
texts, such as embeddings of example pictures, comes under names of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_atomically
from .model.modeling_text_classifier import EncodedVocabulary

if TYPE_CHECKING:
    from .model.modeling_clip import DenseClipModel
    from .model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation

FORMAT = "maskadapter.encoded_vocabulary"
"""What the metadata of such a file call it."""

VERSION = "1"
"""Version of the form: `text_embeds`, `class_ids` and `seen_classes`, as [`EncodedVocabulary`] has them."""

_FIELDS = ("text_embeds", "class_ids", "seen_classes")
_COMPUTATION = 1
"""Counts changes of how names are encoded that change results beyond rounding: older files are then not read."""

_SAMPLES = 64
_digests: weakref.WeakKeyDictionary[DenseClipModel, tuple[Any, str]] = weakref.WeakKeyDictionary()


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
    _write(Path(path), encoded, {"text_tower": text_tower_hash(model.clip)})


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
    encoded, metadata = _read(Path(path))
    if metadata.get("text_tower") != text_tower_hash(model.clip):
        raise VocabularyFileError(
            f"{path} was encoded by another text tower than this model's: encode its names again "
            "(model.encode_vocabulary)."
        )
    return encoded.to(model.void_embedding.device)


def _write(path: Path, encoded: EncodedVocabulary, metadata: dict[str, str]) -> None:
    tensors = {name: getattr(encoded, name).detach().cpu().contiguous() for name in _FIELDS}
    content = save(tensors, {"format": FORMAT, "version": VERSION} | metadata)
    write_atomically(path, lambda file: file.write(content))


def _read(path: Path) -> tuple[EncodedVocabulary, dict[str, str]]:
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


def _fingerprint(tensor: Tensor) -> tuple[int, int, float]:
    """What tells that a tensor's values may have changed, without reading all of them."""
    flat = tensor.detach().reshape(-1)
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, flat[:: max(len(flat) // _SAMPLES, 1)].double().sum().item()


def tokenizer_hash(tokenizer: Any) -> str | None:
    """Checksum of a tokenizer's rules and tokens; `None` for one that cannot tell them."""
    rules = getattr(getattr(tokenizer, "backend_tokenizer", None), "to_str", None)
    return None if rules is None else hashlib.sha256(rules().encode()).hexdigest()


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
            encoded, metadata = _read(path)
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
            _write(path, encoded, {"key": key})
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


__all__ = [
    "FORMAT",
    "VERSION",
    "VocabularyCache",
    "VocabularyFileError",
    "load_vocabulary",
    "save_vocabulary",
    "text_tower_hash",
    "tokenizer_hash",
]
