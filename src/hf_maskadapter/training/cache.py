"""What the frozen parts compute from pictures, kept on disk for the epochs to come.

An entry's name is a digest of the picture as the model sees it, so that another sample or another augmentation is
another entry; the folder that it lies in, of the frozen weights, the precision and what is kept. Nothing can go stale.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..files import write_atomically

_DIGEST_SIZE = 16


class FeatureCache:
    """Tensors of pictures on disk, up to a size.

    Several processes may share a folder. What does not fit any more is computed again each time: all samples come
    equally often, so it does not matter which ones are kept.

    Args:
        directory: the folder; made if it is not there.
        max_bytes: the size that its files may reach together.
        frozen_parts: the modules that compute the tensors; their weights must not change any more.
        facts: what else decides the tensors, for JSON.
        num_processes: processes that write to the folder.

    Raises:
        OSError: if the folder cannot be made.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        max_bytes: int,
        frozen_parts: Iterable[nn.Module],
        facts: Mapping[str, Any],
        num_processes: int = 1,
    ) -> None:
        root = Path(directory)
        root.mkdir(parents=True, exist_ok=True)
        self._frozen_parts = list(frozen_parts)
        self._facts = dict(facts)
        self._root = root
        self._folders: dict[torch.dtype | None, Path] = {}
        there = sum(file.stat().st_size for file in root.glob("*/*.safetensors"))
        self._bytes_left = max(max_bytes - there, 0) // num_processes

    def complete(
        self, pictures: Mapping[str, Tensor], compute: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Tensors of pictures, read where they are kept, else computed and kept.

        Args:
            pictures: everything that the tensors depend on, each `(batch_size, ...)`.
            compute: pictures to tensors of the same batch size, by name.

        Returns:
            The tensors by name, on the pictures' device.
        """
        rows = range(len(next(iter(pictures.values()))))
        device = next(iter(pictures.values())).device
        paths = [self._path([values[row] for values in pictures.values()], device) for row in rows]
        entries = [self._read(path) for path in paths]
        missing = [row for row, entry in enumerate(entries) if entry is None]
        if missing:
            computed = compute({name: values[missing] for name, values in pictures.items()})
            for position, row in enumerate(missing):
                entry = {name: values[position].contiguous() for name, values in computed.items()}
                entries[row] = entry
                self._write(paths[row], entry)
        found = [entry for entry in entries if entry is not None]
        return {name: torch.stack([entry[name].to(device) for entry in found]) for name in found[0]}

    def _path(self, picture: list[Tensor], device: torch.device) -> Path:
        device_type = device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        if dtype not in self._folders:
            facts = json.dumps(self._facts | {"autocast": str(dtype)}, sort_keys=True)
            digest = hashlib.blake2b(facts.encode(), digest_size=_DIGEST_SIZE)
            for part in self._frozen_parts:
                for name, tensor in part.state_dict().items():
                    digest.update(name.encode())
                    _add_tensor(digest, tensor)
            self._folders[dtype] = self._root / digest.hexdigest()
            self._folders[dtype].mkdir(exist_ok=True)
        digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
        for values in picture:
            _add_tensor(digest, values)
        return self._folders[dtype] / f"{digest.hexdigest()}.safetensors"

    @staticmethod
    def _read(path: Path) -> dict[str, Tensor] | None:
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError):  # absent, or damaged and to be written again
            return None

    def _write(self, path: Path, entry: dict[str, Tensor]) -> None:
        content = save({name: values.cpu() for name, values in entry.items()})
        if len(content) <= self._bytes_left:
            write_atomically(path, lambda file: file.write(content))
            self._bytes_left -= len(content)


def _add_tensor(digest: hashlib.blake2b, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))


__all__ = ["FeatureCache"]
