"""What a checkpoint is, told from its keys, and its conversion part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .adapter import ADAPTER_KEYS
from .errors import ConversionError
from .fcclip import FCCLIP_KEYS
from .key_tables import KeyTable, StateDict, shorten
from .openclip import FIRST_KEY, OPENCLIP_IGNORED, OPENCLIP_KEYS

VOID_KEY = "void_embedding.weight"


@dataclass(frozen=True)
class Part:
    """One part of a checkpoint.

    Args:
        source_prefix, target_prefix: what its keys begin with, before and after.
        keys: the table for the rest of the key.
        ignored: keys (without prefix) that hold nothing to convert, and why.
    """

    source_prefix: str
    target_prefix: str
    keys: KeyTable
    ignored: Mapping[str, str]


PARTS: dict[str, Part] = {
    "clip": Part("backbone.clip_model.", "clip.", OPENCLIP_KEYS, OPENCLIP_IGNORED),
    "generator": Part("sem_seg_head.", "mask_generator.", FCCLIP_KEYS, {}),
    "adapter": Part("mask_adapter.", "adapter.", ADAPTER_KEYS, {}),
    "void": Part("void_embedding.", "", KeyTable({"weight": "void_embedding"}), {}),
}

#: Keys of complete checkpoints that belong to no part, and why they are not needed.
IGNORED = {
    "criterion.empty_weight": "class weights of the training loss",
    "pixel_mean": "kept by the image processor",
    "pixel_std": "kept by the image processor",
}


@dataclass(frozen=True)
class Layout:
    """A kind of released checkpoint.

    Args:
        name: what presets and reports call it.
        title: what messages call it.
        parts: its parts by name.
    """

    name: str
    title: str
    parts: Mapping[str, Part]

    def has(self, part: str) -> bool:
        """Whether a part is in such a checkpoint."""
        return part in self.parts


def _layout(name: str, title: str, *parts: str) -> Layout:
    return Layout(name, title, {part: PARTS[part] for part in parts})


OPENCLIP = Layout("openclip", "an OpenCLIP ConvNeXt CLIP", {"clip": Part("", "", OPENCLIP_KEYS, OPENCLIP_IGNORED)})
FCCLIP = _layout("fcclip", "an FC-CLIP checkpoint without adapter", "clip", "generator", "void")
FCCLIP_ADAPTER = _layout(
    "fcclip_adapter", "an FC-CLIP + Mask-Adapter checkpoint", "clip", "generator", "adapter", "void"
)
WARMUP = _layout("warmup", "a warm-up checkpoint (adapter without mask generator)", "clip", "adapter", "void")
LAYOUTS = (OPENCLIP, FCCLIP, FCCLIP_ADAPTER, WARMUP)

_TEXT_TRANSFER_PREFIX = "cdt."
_OPENCLIP_PREFIXES = ("visual.", "transformer.resblocks.")


def recognise(state: StateDict, name: str) -> Layout:
    """The layout of a checkpoint.

    Args:
        state: its state dict.
        name: what to call it in messages.

    Raises:
        ConversionError: if it has none of [`LAYOUTS`].
    """
    if any(key.startswith(_TEXT_TRANSFER_PREFIX) for key in state):
        raise ConversionError(
            f"{name} is a MAFT+ checkpoint: its text transfer ({_TEXT_TRANSFER_PREFIX}*) has no counterpart in this "
            f"version's models. These are converted: {_titles()}."
        )
    found = {
        part_name
        for part_name, part in PARTS.items()
        if part_name != "void" and any(key.startswith(part.source_prefix) for key in state)
    }
    if not found and any(key.startswith(_OPENCLIP_PREFIXES) for key in state):
        _require_convnext(FIRST_KEY in state, name)
        return OPENCLIP
    for layout in (FCCLIP, FCCLIP_ADAPTER, WARMUP):
        if found == layout.parts.keys() - {"void"}:
            _require_convnext(PARTS["clip"].source_prefix + FIRST_KEY in state, name)
            return layout
    if found and "clip" not in found:
        raise ConversionError(
            f"{name} holds no CLIP (backbone.clip_model.*), only {shorten(sorted(state))}: give the complete released "
            "checkpoint."
        )
    raise ConversionError(
        f"{name} is no checkpoint that is known here; its keys are {shorten(state, 4)}. These are converted: "
        f"{_titles()}."
    )


def _titles() -> str:
    return "; ".join(layout.title for layout in LAYOUTS)


def _require_convnext(present: bool, name: str) -> None:
    if not present:
        raise ConversionError(
            f"The CLIP in {name} has no ConvNeXt image tower ({FIRST_KEY} is missing): only ConvNeXt CLIPs are "
            "converted. If it should be one, the file is incomplete."
        )


@dataclass(frozen=True)
class ConvertedWeights:
    """A state dict in this package's names.

    Args:
        state: new name → tensor, fp32 and contiguous.
        targets: old name → new names.
        ignored: old name → why it is not needed.
    """

    state: dict[str, Tensor]
    targets: dict[str, tuple[str, ...]]
    ignored: dict[str, str]


def convert_state_dict(state: StateDict, layout: Layout, name: str = "The checkpoint") -> ConvertedWeights:
    """Rename, split and transpose the weights of a checkpoint; a pure function, also on the meta device.

    Args:
        state: its state dict.
        layout: its layout, see [`recognise`].
        name: what to call it in messages.

    Raises:
        ConversionError: if a key is not known.
    """
    converted: dict[str, Tensor] = {}
    targets: dict[str, tuple[str, ...]] = {}
    ignored = {key: IGNORED[key] for key in state if key in IGNORED}
    unknown = set(state) - ignored.keys()
    for part in layout.parts.values():
        renamed = part.keys.rename(
            {key: tensor for key, tensor in state.items() if key not in ignored}, part.source_prefix, part.target_prefix
        )
        converted |= renamed.state
        targets |= renamed.targets
        for key in renamed.unmatched:
            reason = part.ignored.get(key.removeprefix(part.source_prefix))
            if reason is not None:
                ignored[key] = reason
        unknown -= renamed.targets.keys() | ignored.keys()
    if unknown:
        raise ConversionError(
            f"{name} looks like {layout.title}, but holds {len(unknown)} weights that such a model does not have: "
            f"{shorten(sorted(unknown))}. Leaving them out would change the model, so nothing was converted."
        )
    state = {
        key: tensor.to(torch.float32, copy=not tensor.is_contiguous()).contiguous() for key, tensor in converted.items()
    }
    return ConvertedWeights(state, targets, ignored)


def fuse(
    adapter_state: StateDict, generator_state: StateDict, adapter_name: str, generator_name: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give a warm-up checkpoint the mask generator and void embedding of an FC-CLIP checkpoint.

    Args:
        adapter_state: state dict of the warm-up checkpoint: CLIP, adapter, void embedding.
        generator_state: state dict of the FC-CLIP checkpoint: the same CLIP, generator, void embedding.
        adapter_name, generator_name: what to call them in messages.

    Returns:
        State dict of an FC-CLIP + Mask-Adapter checkpoint; and what was left out of either, with the reason.

    Raises:
        ConversionError: if the first has a generator or the second an adapter already (a fused checkpoint must not be
            fused again), or their CLIPs differ.
    """
    adapter_layout = recognise(adapter_state, adapter_name)
    if adapter_layout.has("generator"):
        raise ConversionError(
            f"{adapter_name} already has a mask generator, it is {adapter_layout.title}: convert it without "
            "generator_from (--generator-from). That is for warm-up checkpoints, which have none, and only once."
        )
    if not adapter_layout.has("adapter"):
        raise ConversionError(f"{adapter_name} has no adapter, it is {adapter_layout.title}: there is nothing to fuse.")
    generator_layout = recognise(generator_state, generator_name)
    if not generator_layout.has("generator"):
        raise ConversionError(f"{generator_name} has no mask generator to take, it is {generator_layout.title}.")
    if generator_layout.has("adapter"):
        raise ConversionError(
            f"{generator_name} already has an adapter, it is {generator_layout.title}: give the plain FC-CLIP "
            "checkpoint as generator_from (--generator-from), or convert this one as it is."
        )
    _require_same_clip(adapter_state, generator_state, adapter_name, generator_name)
    if VOID_KEY not in generator_state:
        raise ConversionError(f"{generator_name} is incomplete: it has no {VOID_KEY}.")
    generator_prefix, clip_prefix = PARTS["generator"].source_prefix, PARTS["clip"].source_prefix
    fused = {key: tensor for key, tensor in adapter_state.items() if key != VOID_KEY}
    fused |= {
        key: tensor for key, tensor in generator_state.items() if key == VOID_KEY or key.startswith(generator_prefix)
    }
    left_out = {}
    if VOID_KEY in adapter_state:
        left_out[f"{adapter_name}: {VOID_KEY}"] = f"replaced by that of {generator_name}"
    for key in generator_state.keys() - fused.keys():
        reason = f"the same as in {adapter_name}" if key.startswith(clip_prefix) else IGNORED.get(key)
        if reason is not None:
            left_out[f"{generator_name}: {key}"] = reason
        else:
            fused[key] = generator_state[key]
    return fused, left_out


def _require_same_clip(first: StateDict, second: StateDict, first_name: str, second_name: str) -> None:
    prefix = PARTS["clip"].source_prefix
    clips = [
        {
            key: tensor
            for key, tensor in state.items()
            if key.startswith(prefix) and key.removeprefix(prefix) not in OPENCLIP_IGNORED
        }
        for state in (first, second)
    ]
    differing = [
        key.removeprefix(prefix)
        for key in sorted(clips[0].keys() | clips[1].keys())
        if not _same_tensor(clips[0].get(key), clips[1].get(key))
    ]
    if differing:
        raise ConversionError(
            f"{first_name} and {second_name} hold different CLIPs ({len(differing)} of {len(clips[0])} weights differ: "
            f"{shorten(differing)}). An adapter and a mask generator work together only on the CLIP that both were "
            "trained on."
        )


def _same_tensor(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.shape != second.shape:
        return False
    return first.is_meta or second.is_meta or torch.equal(first.float(), second.float())


__all__ = [
    "FCCLIP",
    "FCCLIP_ADAPTER",
    "LAYOUTS",
    "OPENCLIP",
    "WARMUP",
    "ConvertedWeights",
    "Layout",
    "convert_state_dict",
    "fuse",
    "recognise",
]
