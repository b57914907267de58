"""The released checkpoints on the Hub: found by name, else by layout, downloaded and verified."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers
from torch._subclasses.fake_tensor import FakeTensorMode

from ..hub.errors import HubError, hub_reason
from ..hub.released_models import REPOSITORY, ReleasedModel
from ..provenance import file_hash
from .configs import read_sizes
from .errors import ConversionError
from .key_tables import shorten
from .layouts import convert_state_dict, recognize
from .presets import Preset, fitting_presets
from .reading import CHECKPOINT_SUFFIXES, find_state_dict

_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A checkpoint on the Hub.

    Args:
        repository: name of the repository.
        path: the file in it.
        revision: the commit that the listing showed.
        size: bytes.
        sha256: checksum, if the Hub tells it.
    """

    repository: str
    path: str
    revision: str
    size: int
    sha256: str | None


def list_checkpoints(repository: str, revision: str | None = None, token: str | bool | None = None) -> list[RemoteFile]:
    """The checkpoint files of a Hub repository, as its listing shows them.

    Raises:
        HubError: if the listing cannot be had; the message says why and what to do.
    """
    try:
        info = HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # of whichever HTTP library the Hub's client uses
        reason = hub_reason(error)
        if reason is None:
            raise
        raise HubError(f"Cannot list the files of {repository} on the Hub: {reason}.") from error
    return [
        RemoteFile(
            repository,
            file.rfilename,
            info.sha or "main",
            file.size or 0,
            None if file.lfs is None else file.lfs.sha256,
        )
        for file in info.siblings or ()
        if file.rfilename.endswith(CHECKPOINT_SUFFIXES)
    ]


def presets_of_remote(file: RemoteFile, token: str | bool | None = None) -> list[Preset]:
    """The presets that a checkpoint on the Hub fits, read from its names and shapes: its weights stay there.

    Returns:
        The presets, the likeliest first; none if it is a file of another kind.

    Raises:
        HubError: if it cannot be read.
    """
    try:
        state = _remote_shapes(file, token)
        layout = recognize(state, file.path)
        meta = {key: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for key, tensor in state.items()}
        return list(fitting_presets(layout, read_sizes(convert_state_dict(meta, layout, file.path).state, layout)))
    except Exception as error:  # whatever a file that is no checkpoint makes of it
        reason = hub_reason(error)
        if reason is not None:
            raise HubError(f"Cannot read {file.path} in {file.repository} on the Hub: {reason}.") from error
        return []


def _remote_shapes(file: RemoteFile, token: str | bool | None) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint on the Hub, whose tensors hold nothing."""
    if file.path.endswith(".safetensors"):
        found = HfApi(token=token).parse_safetensors_file_metadata(file.repository, file.path, revision=file.revision)
        return {
            key: torch.empty(
                tuple(tensor.shape), dtype=None if "F" in tensor.dtype else torch.int64, device="meta"
            )  # BF16, F16, F32, F64 and F8 are floating
            for key, tensor in found.tensors.items()
        }
    address = f"{file.repository}@{file.revision}/{file.path}"
    with HfFileSystem(token=token).open(address, block_size=_BLOCK) as stream, FakeTensorMode():
        content = torch.load(stream, map_location="cpu", weights_only=True)
    return find_state_dict(content, file.path)[0]


def find_release(model: ReleasedModel, token: str | bool | None = None) -> RemoteFile:
    """Where a released model's checkpoint lies: by its name, else by the layout of the files that are there.

    Raises:
        HubError: if the repository cannot be read.
        ConversionError: if no file there is that model; the message lists what is there.
    """
    files = list_checkpoints(REPOSITORY, token=token)
    by_name = {file.path: file for file in files}
    if model.file in by_name:
        return by_name[model.file]
    likeliest = difflib.get_close_matches(model.file, by_name, n=len(by_name), cutoff=0.0)
    fitting = [path for path in likeliest if model.preset in _names(presets_of_remote(by_name[path], token))]
    if len(fitting) == 1:
        return by_name[fitting[0]]
    found = shorten(sorted(by_name), 10) or "no checkpoint at all"
    if fitting:
        reason = f"{shorten(fitting)} all have its layout and sizes"
    else:
        reason = f"it has no {model.file}, nor another file of its layout and sizes; it has {found}"
    raise ConversionError(
        f"The checkpoint of {model.name} was not found in the Hub repository {REPOSITORY}: {reason}. Convert the right "
        f"one by name: maskadapter convert {REPOSITORY}:FILE --preset {model.preset} --output DIR"
    )


def _names(presets: list[Preset]) -> list[str]:
    return [preset.name for preset in presets]


def download(file: RemoteFile, folder: Path, token: str | bool | None = None) -> Path:
    """Fetch a checkpoint into a folder, with a bar, going on where an earlier try broke off, and verify it.

    Raises:
        HubError: if it cannot be fetched; what arrived is kept for the next try.
        ConversionError: if what arrived is not the Hub's file; it is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(file.path).name
    # Named by its content, so that another version starts anew. The client's own download begins again from the start
    # in every process (huggingface_hub 2).
    partial = folder / f"{(file.sha256 or file.revision)[:16]}.partial"
    arrived = partial.stat().st_size if partial.is_file() else 0
    try:
        with partial.open("ab") as stream:
            http_get(
                hf_hub_url(file.repository, file.path, revision=file.revision),
                stream,
                resume_size=arrived,
                headers=build_hf_headers(token=token),
                expected_size=file.size or None,
                displayed_filename=path.name,
            )
    except Exception as error:  # of whichever HTTP library the Hub's client uses
        reason = hub_reason(error)
        if reason is None:
            raise
        raise HubError(
            f"The download of {file.path} from {file.repository} broke off: {reason}. The same command goes on where "
            "it stopped."
        ) from error
    partial.replace(path)
    if file.sha256 is not None:
        found = file_hash(path)
        if found != file.sha256:
            path.unlink()
            raise ConversionError(
                f"{file.path} from {file.repository} is damaged: its checksum is {found[:12]}…, the Hub names "
                f"{file.sha256[:12]}…. It was deleted; run the same command again."
            )
    return path


__all__ = [
    "RemoteFile",
    "download",
    "find_release",
    "list_checkpoints",
    "presets_of_remote",
]
