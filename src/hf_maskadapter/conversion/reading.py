"""Checkpoint files, on this machine or on the Hub → state dicts. Nothing that a file holds is executed."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download, list_repo_files
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..hub.errors import hub_reason
from ..provenance import file_hash
from .errors import ConversionError
from .key_tables import shorten

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
SOURCE_FORMS = "a file, or a file in a Hub repository: owner/name:path/in/repository"

_STATE_DICT_KEYS = ("model", "state_dict")
_BESIDE_THE_WEIGHTS = {
    "optimizer": "state of a training's optimizer",
    "scheduler": "state of a training's learning rate schedule",
    "iteration": "progress of a training",
    "epoch": "progress of a training",
    "scaler": "state of a training's loss scaling",
    "trainer": "state of a training",
}
_HUB_SOURCE = re.compile(
    r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/:]+))?(?P<separator>[:/])(?P<path>[^:]+)"
)
_NAME_ONLY = re.compile(r"(?:hf://)?(?P<repo>[\w-][\w.-]*/[\w.-]+)(?:@(?P<revision>[^/:]+))?")
_FORBIDDEN_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        name: what to call it in messages and reports: the file's name, or its address on the Hub.
        state: the state dict.
        ignored: what else is in the file, and why it is not needed.
        sha256: checksum of the file.
    """

    name: str
    state: dict[str, Tensor]
    ignored: dict[str, str] = field(default_factory=dict)
    sha256: str | None = None


def read_checkpoint(
    source: str | os.PathLike[str], revision: str | None = None, token: str | bool | None = None
) -> Checkpoint:
    """Read a checkpoint: `.pth`, `.pt`, `.bin` or `.safetensors`, told apart by content.

    Args:
        source: a local file, `owner/name:path/in/repository` or `hf://owner/name/path/in/repository`.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub; by default the one of `hf auth login`.

    Raises:
        ConversionError: if there is no such file, it cannot be fetched, it is damaged or of another format, or it is a
            pickle with code in it.
    """
    path, name = locate(source, revision, token)
    state, ignored = find_state_dict(_load(path, name), name)
    state = _without_wrapper_prefix(state)
    broken = [key for key, tensor in state.items() if not tensor.is_meta and not torch.isfinite(tensor).all()]
    if broken:
        raise ConversionError(f"{name} is damaged: {shorten(broken)} hold values that are not finite.")
    return Checkpoint(name, state, ignored, file_hash(path))


def locate(
    source: str | os.PathLike[str], revision: str | None = None, token: str | bool | None = None
) -> tuple[Path, str]:
    """Path of a checkpoint, downloaded if it is on the Hub, and what to call it.

    Raises:
        ConversionError: if there is no such file, or it cannot be fetched.
    """
    path = Path(source)
    if path.is_file():
        return path, path.name
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if entry.suffix in CHECKPOINT_SUFFIXES)
        hint = f"it holds {shorten(found)}" if found else "it holds none that this could be"
        raise ConversionError(f"{path} is a folder: name the checkpoint file in it ({hint}).")
    text = os.fspath(source)
    match = _HUB_SOURCE.fullmatch(text)
    if isinstance(source, str) and match and (match["separator"] == ":" or text.startswith("hf://")):
        repo, path_in_repo = match["repo"], match["path"]
        file = _download(repo, path_in_repo, revision or match["revision"], token)
        return file, f"{repo}:{path_in_repo}"
    repository = repository_of(source)
    if repository is not None:
        raise ConversionError(
            f"There is no file {text}. If it is a Hub repository, name the file in it: "
            f"{repository[0]}:path/in/repository (`maskadapter convert {repository[0]}` lists them)."
        )
    raise ConversionError(f"There is no file {text}. Give {SOURCE_FORMS}.")


def repository_of(source: str | os.PathLike[str]) -> tuple[str, str | None] | None:
    """The Hub repository that a source without a file is, and the revision if it has one; `None` for other sources."""
    match = _NAME_ONLY.fullmatch(source) if isinstance(source, str) else None
    if match is None or Path(source).exists() or match["repo"].endswith(CHECKPOINT_SUFFIXES):
        return None
    return match["repo"], match["revision"]


def _download(repo: str, path: str, revision: str | None, token: str | bool | None) -> Path:
    where = f"{path} in the Hub repository {repo}" + (f" at {revision}" if revision else "")
    try:
        return Path(hf_hub_download(repo, path, revision=revision, token=token))
    except LocalEntryNotFoundError as error:
        raise ConversionError(
            f"Cannot fetch {where}: {hub_reason(error)}; or download the file elsewhere and give its path."
        ) from None
    except EntryNotFoundError:
        raise ConversionError(
            f"The Hub repository {repo} has no file {path}{_files_there(repo, revision, token)}."
        ) from None
    except Exception as error:  # of whichever HTTP library the Hub's client uses
        raise ConversionError(f"Cannot fetch {where}: {hub_reason(error) or _first_line(error)}.") from error


def _files_there(repo: str, revision: str | None, token: str | bool | None) -> str:
    try:
        files = list_repo_files(repo, revision=revision, token=token)
    except Exception:  # the list is only a help: the error that it belongs to counts
        return ""
    found = [file for file in files if file.endswith(CHECKPOINT_SUFFIXES)]
    return f"; it has {shorten(found, 10)}" if found else ", nor any other checkpoint"


def _load(path: Path, name: str) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ConversionError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not head:
        raise ConversionError(f"{name} is empty: fetch it again.")
    if head.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{name} is a Git LFS pointer, not the weights: run `git lfs pull` where it came from.")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ConversionError(f"{name} is a web page, not a checkpoint: use the page's download link.")
    if head[8:9] == b"{":
        return _load_safetensors(path, name)
    if head.startswith((b"PK", b"\x80")):
        return _load_pickle(path, name)
    raise ConversionError(
        f"{name} is not a checkpoint that PyTorch or safetensors wrote ({', '.join(CHECKPOINT_SUFFIXES)})."
    )


def _load_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ConversionError(
            f"{name} is truncated or damaged, fetch it again. safetensors says: {_first_line(error)}"
        ) from error


def _load_pickle(path: Path, name: str) -> Any:
    is_archive = zipfile.is_zipfile(path)  # mapped from disk instead of read; older files cannot be
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        forbidden = _FORBIDDEN_GLOBAL.search(str(error))
        if forbidden is None:  # what PyTorch says begins with how to switch its safety off, which is no advice
            raise ConversionError(
                f"{name} is truncated, damaged or holds more than tensors and plain values; nothing of it was "
                "executed. Fetch it again, or save the state dict alone where you trust the file."
            ) from None
        raise ConversionError(
            f"{name} was refused: beside tensors it holds the Python object {forbidden[1]}, and reading that could run "
            "code. Nothing was executed. Get a file with tensors only, or save the state dict alone where you trust "
            "the file."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        raise ConversionError(
            f"{name} is truncated or damaged, or not a checkpoint: fetch it again. PyTorch says: {_first_line(error)}"
        ) from error


def _numpy_globals() -> list[Any]:
    """What pickles of NumPy's numbers and arrays name, which training scripts leave beside the weights.

    They hold values alone. NumPy 1 and 2 call the same functions by other names; arrays of Python objects are left out.
    """
    multiarray = importlib.import_module("numpy._core.multiarray")
    functions = [
        (getattr(multiarray, function), f"numpy.{core}.multiarray.{function}")
        for core in ("core", "_core")
        for function in ("scalar", "_reconstruct")
    ]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}
    return [*functions, np.dtype, np.ndarray, *dtypes]


def find_state_dict(content: Any, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in what a checkpoint file holds, and what lies beside it with the reason to ignore it.

    Raises:
        ConversionError: if there is none.
    """
    ignored: dict[str, str] = {}
    if isinstance(content, Mapping):
        nested = next((key for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
        if nested is not None:
            ignored = {
                str(key): _BESIDE_THE_WEIGHTS.get(key, f"beside the weights, which are under {nested!r}")
                for key in content
                if key != nested
            }
            content = content[nested]
        state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if state:
            others = {str(key): f"not a tensor but {type(content[key]).__name__}" for key in content.keys() - state}
            return state, ignored | others
        raise ConversionError(
            f"{name} holds no state dict, neither flat nor under 'model' or 'state_dict': its keys are "
            f"{shorten(map(repr, content), 6) or 'none'}."
        )
    raise ConversionError(f"{name} holds no state dict but {type(content).__name__}.")


def _without_wrapper_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are without the data-parallel wrapper of some training scripts."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


__all__ = ["Checkpoint", "find_state_dict", "locate", "read_checkpoint", "repository_of"]
