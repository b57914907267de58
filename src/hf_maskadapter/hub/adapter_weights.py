"""Adapter-only weights: what training changed (about 60 MB), to be attached to a base model by its name.

A folder or Hub repository of adapter weights holds `mask_adapter.safetensors` (the adapter and the void embedding) and
`mask_adapter_config.json` (the adapter's configuration, the base model's name, and how to recognise it).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file, save
from torch import Tensor

from ..files import write_atomically, write_json
from ..model.configuration_maskadapter import MaskAdapterConfig
from ..model.modeling_adapter import MaskAdapterModel
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from .errors import HubError, explaining

ADAPTER_WEIGHTS_NAME = "mask_adapter.safetensors"
ADAPTER_CONFIG_NAME = "mask_adapter_config.json"
ADAPTER_FIELDS = (
    "embed_dim",
    "mask_channels",
    "hidden_size",
    "num_blocks",
    "num_output_maps",
    "layer_scale_init_value",
    "mask_threshold",
    "ensemble_alpha",
    "ensemble_beta",
    "object_threshold",
    "overlap_threshold",
)
"""Fields of [`MaskAdapterConfig`] that go with an adapter; the others are the base model's."""

_PREFIX = "adapter."
_VOID = "void_embedding"
_NUM_PROBES = 16
_PROBE_TOLERANCE = 0.02  # so that bfloat16 weights count as the same


def add_adapter(
    model: MaskAdapterForOpenVocabularySegmentation, **fields: Any
) -> MaskAdapterForOpenVocabularySegmentation:
    """Give a model a new adapter with initial weights from PyTorch's random numbers, in place of any it has.

    Args:
        model: the model, changed in place.
        **fields: fields of [`MaskAdapterConfig`] that describe the adapter, among [`ADAPTER_FIELDS`].

    Returns:
        The model.

    Raises:
        ValueError: if a field is none of the adapter's or does not fit.
    """
    unknown = sorted(set(fields) - set(ADAPTER_FIELDS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no field of an adapter; these are: {', '.join(ADAPTER_FIELDS)}.")
    before = {name: getattr(model.config, name) for name in (*fields, "use_adapter", "mask_embedding")}
    for name, value in (fields | {"use_adapter": True, "mask_embedding": "adapter"}).items():
        setattr(model.config, name, value)
    try:
        model.config.validate_architecture()
        adapter = MaskAdapterModel._from_config(model.config)
    except Exception:
        for name, value in before.items():
            setattr(model.config, name, value)
        raise
    model.adapter = adapter.to(device=model.void_embedding.device, dtype=model.void_embedding.dtype)
    model.adapter.train(model.training)
    return model


def save_adapter_weights(
    model: MaskAdapterForOpenVocabularySegmentation,
    directory: str | os.PathLike[str],
    base_model: str,
    base_revision: str | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Save a model's adapter and void embedding.

    Args:
        model: a model with an adapter.
        directory: folder to write; made if it is not there.
        base_model: name or folder of a model with the same CLIP and mask generator, to attach the weights to.
        base_revision: its version on the Hub.
        state_dict: the model's weights, if they are not those that it holds now.

    Raises:
        ValueError: if the model has no adapter.
    """
    if model.adapter is None:
        raise ValueError("The model has no adapter whose weights could be saved.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() if state_dict is None else state_dict
    kept = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in weights.items()
        if name.startswith(_PREFIX) or name == _VOID
    }
    description = {
        "base_model": base_model,
        "base_revision": base_revision,
        "base_probe": _probe(model),
        "adapter": {name: getattr(model.config, name) for name in ADAPTER_FIELDS},
    }
    content = save(kept, metadata={"format": "pt"})
    write_atomically(directory / ADAPTER_WEIGHTS_NAME, lambda file: file.write(content))
    write_json(directory / ADAPTER_CONFIG_NAME, description, indent=2)


def attach_adapter_weights(
    model: MaskAdapterForOpenVocabularySegmentation,
    adapter: str | os.PathLike[str],
    revision: str | None = None,
    **hub_options: Any,
) -> MaskAdapterForOpenVocabularySegmentation:
    """Put saved adapter weights into a model, in place of any adapter that it has.

    Args:
        model: the base model, changed in place.
        adapter: folder or Hub repository of adapter weights.
        revision: version on the Hub.
        **hub_options: of `huggingface_hub.hf_hub_download`, such as `subfolder`, `token` and `cache_dir`; `subfolder`
            applies to folders, too.

    Returns:
        The model.

    Raises:
        ValueError: if the weights were trained in front of another CLIP, or do not fit their own description.
        FileNotFoundError: if there are no adapter weights.
        HubError: if they cannot be fetched.
    """
    description = read_adapter_description(adapter, revision, **hub_options)
    expected, found = torch.tensor(description["base_probe"]), torch.tensor(_probe(model))
    if expected.shape != found.shape or not torch.allclose(
        expected, found, rtol=_PROBE_TOLERANCE, atol=_PROBE_TOLERANCE * float(expected.abs().max())
    ):
        raise ValueError(
            f"The adapter {adapter} was trained in front of another CLIP than this model's: its base model is "
            f"{description['base_model']}."
        )
    weights = load_file(_find(adapter, ADAPTER_WEIGHTS_NAME, revision, **hub_options))
    void = weights.pop(_VOID)
    add_adapter(model, **description["adapter"])
    assert model.adapter is not None
    try:
        model.adapter.load_state_dict({name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"The weights of the adapter {adapter} do not fit its configuration: {error}") from error
    with torch.no_grad():
        model.void_embedding.copy_(void)
    return model


def load_with_adapter(
    adapter: str | os.PathLike[str],
    base_model: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    *,
    subfolder: str | None = None,
    **kwargs: Any,
) -> MaskAdapterForOpenVocabularySegmentation:
    """Load a base model and attach adapter weights to it.

    Args:
        adapter: folder or Hub repository of adapter weights.
        base_model: name or folder of the base model; by default the one that the weights name.
        revision: version of the adapter weights on the Hub.
        subfolder: the adapter's folder inside its repository.
        **kwargs: of the base model's `from_pretrained`; `token`, `cache_dir` and `local_files_only` apply to the
            adapter, too.

    Returns:
        The complete model, in eval mode.

    Raises:
        ValueError, FileNotFoundError, HubError: as [`attach_adapter_weights`].
    """
    shared = {name: kwargs[name] for name in ("token", "cache_dir", "local_files_only") if name in kwargs}
    hub_options: dict[str, Any] = {"subfolder": subfolder} | shared
    description = read_adapter_description(adapter, revision, **hub_options)
    if base_model is None:
        base_model = description["base_model"]
        if description["base_revision"] is not None:
            kwargs.setdefault("revision", description["base_revision"])
    with explaining(f"load the base model of {adapter},", str(base_model), kwargs.get("revision")):
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(base_model, **kwargs)
    return attach_adapter_weights(model, adapter, revision, **hub_options).eval()


def _probe(model: MaskAdapterForOpenVocabularySegmentation) -> list[float]:
    """A few weights by which a base model is recognised: of the CLIP's projection, spread over the matrix."""
    weights = model.clip.projection_weight.detach().flatten()
    places = torch.linspace(0, len(weights) - 1, _NUM_PROBES).long().to(weights.device)
    return [round(value, 6) for value in weights[places].float().tolist()]


def read_adapter_description(
    adapter: str | os.PathLike[str], revision: str | None = None, **hub_options: Any
) -> dict[str, Any]:
    """What adapter weights tell of themselves: `base_model`, `base_revision`, `base_probe` and `adapter`, its fields.

    Args:
        adapter: as [`attach_adapter_weights`].
        revision: likewise.
        **hub_options: likewise.

    Raises:
        FileNotFoundError, HubError: as [`attach_adapter_weights`].
    """
    description = json.loads(_find(adapter, ADAPTER_CONFIG_NAME, revision, **hub_options).read_text(encoding="utf-8"))
    known = {name: value for name, value in description["adapter"].items() if hasattr(MaskAdapterConfig, name)}
    return description | {"adapter": known}


def _find(
    adapter: str | os.PathLike[str], name: str, revision: str | None, subfolder: str | None = None, **hub_options: Any
) -> Path:
    folder = Path(adapter)
    if folder.is_dir():
        folder = folder / (subfolder or "")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no adapter weights: there is no {name}.")
        return folder / name
    try:
        with explaining("fetch the adapter", str(adapter), revision):
            return Path(hf_hub_download(str(adapter), name, revision=revision, subfolder=subfolder, **hub_options))
    except HubError as error:
        if isinstance(error.__cause__, EntryNotFoundError) and not isinstance(error.__cause__, LocalEntryNotFoundError):
            raise FileNotFoundError(f"{adapter} holds no adapter weights: there is no {name}.") from error
        raise


__all__ = [
    "ADAPTER_CONFIG_NAME",
    "ADAPTER_FIELDS",
    "ADAPTER_WEIGHTS_NAME",
    "add_adapter",
    "attach_adapter_weights",
    "load_with_adapter",
    "read_adapter_description",
    "save_adapter_weights",
]
