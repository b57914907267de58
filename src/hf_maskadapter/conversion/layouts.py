"""What a checkpoint is, told from its keys, and its conversion part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .adapter import ADAPTER_KEYS
from .errors import ConversionError
from .fcclip import FCCLIP_KEYS
from .key_tables import KeyTable, StateDict, shorten
from .maft_plus import MAFT_PLUS_IGNORED, TRANSFER_KEYS
from .openai_resnet import FIRST_KEY as FIRST_RESNET_KEY
from .openai_resnet import RESNET_IGNORED, RESNET_KEYS
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
    "transfer": Part("cdt.", "text_transfer.", TRANSFER_KEYS, {}),
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
        ignored: how keys begin that belong to no part, and why they are not needed.
    """

    name: str
    title: str
    parts: Mapping[str, Part]
    ignored: Mapping[str, str] = field(default_factory=dict)

    def has(self, part: str) -> bool:
        """Whether a part is in such a checkpoint."""
        return part in self.parts

    @property
    def is_clip_alone(self) -> bool:
        """Whether such a checkpoint is a CLIP, and not a segmenter with one."""
        return len(self.parts) == 1

    def reason_to_ignore(self, key: str) -> str | None:
        """Why a key that belongs to no part is not needed; `None` if nothing is known about it."""
        reasons = (reason for prefix, reason in self.ignored.items() if key.startswith(prefix))
        return IGNORED.get(key) or next(reasons, None)


def _layout(name: str, title: str, *parts: str) -> Layout:
    ignored = MAFT_PLUS_IGNORED if "transfer" in parts else {}
    return Layout(name, title, {part: PARTS[part] for part in parts}, ignored)


OPENCLIP = Layout("openclip", "an OpenCLIP ConvNeXt CLIP", {"clip": Part("", "", OPENCLIP_KEYS, OPENCLIP_IGNORED)})
OPENCLIP_RESNET = Layout(
    "openclip_resnet",
    "an OpenAI or OpenCLIP ResNet CLIP",
    {"resnet_clip": Part("", "", RESNET_KEYS, RESNET_IGNORED)},
)
FCCLIP = _layout("fcclip", "an FC-CLIP checkpoint without adapter", "clip", "generator", "void")
FCCLIP_ADAPTER = _layout(
    "fcclip_adapter", "an FC-CLIP + Mask-Adapter checkpoint", "clip", "generator", "adapter", "void"
)
WARMUP = _layout("warmup", "a warm-up checkpoint (adapter without mask generator)", "clip", "adapter", "void")
MAFT_PLUS = _layout("maft_plus", "a MAFT+ checkpoint without adapter", "clip", "generator", "transfer", "void")
MAFT_PLUS_ADAPTER = _layout(
    "maft_plus_adapter", "a MAFT+ + Mask-Adapter checkpoint", "clip", "generator", "transfer", "adapter", "void"
)
MAFT_PLUS_WARMUP = _layout(
    "maft_plus_warmup",
    "a warm-up checkpoint on MAFT+ (text transfer and adapter without mask generator)",
    "clip",
    "transfer",
    "adapter",
    "void",
)
LAYOUTS = (OPENCLIP, OPENCLIP_RESNET, FCCLIP, FCCLIP_ADAPTER, WARMUP, MAFT_PLUS, MAFT_PLUS_ADAPTER, MAFT_PLUS_WARMUP)

_OPENCLIP_PREFIXES = ("visual.", "transformer.resblocks.")


def recognize(state: StateDict, name: str) -> Layout:
    """The layout of a checkpoint.

    Args:
        state: its state dict.
        name: what to call it in messages.

    Raises:
        ConversionError: if it has none of [`LAYOUTS`].
    """
    found = {
        part_name
        for part_name, part in PARTS.items()
        if part_name != "void" and any(key.startswith(part.source_prefix) for key in state)
    }
    if not found and any(key.startswith(_OPENCLIP_PREFIXES) for key in state):
        if FIRST_RESNET_KEY in state:
            return OPENCLIP_RESNET
        _require_convnext(FIRST_KEY in state, name)
        return OPENCLIP
    for layout in LAYOUTS:
        if not layout.is_clip_alone and found == layout.parts.keys() - {"void"}:
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
            f"The CLIP in {name} has no ConvNeXt image tower ({FIRST_KEY} is missing): only CLIPs with "
            "ConvNeXts, and OpenAI's ResNets outside segmenters, are converted; Transformers' own CLIPs need no "
            "conversion. If it should be one, the file is incomplete."
        )


@dataclass(frozen=True)
class ConvertedWeights:
    """A state dict in this package's names.

    Args:
        state: new name → tensor, contiguous, fp32 but for counters.
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
    ignored = {key: reason for key in state if (reason := layout.reason_to_ignore(key)) is not None}
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
        key: tensor.to(
            torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=not tensor.is_contiguous()
        ).contiguous()
        for key, tensor in converted.items()
    }
    return ConvertedWeights(state, targets, ignored)


def fuse(
    adapter_state: StateDict, generator_state: StateDict, adapter_name: str, generator_name: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give a warm-up checkpoint the mask generator and void embedding of an FC-CLIP or MAFT+ checkpoint.

    MAFT+'s text transfer comes from either; if both have one, it must be the same.

    Args:
        adapter_state: state dict of the warm-up checkpoint: CLIP, adapter, void embedding, perhaps a text transfer.
        generator_state: state dict of the FC-CLIP or MAFT+ checkpoint: the same CLIP, generator, void embedding, and
            MAFT+'s text transfer.
        adapter_name: what to call the first in messages.
        generator_name: what to call the second.

    Returns:
        State dict of an FC-CLIP or MAFT+ checkpoint with Mask-Adapter; and what was left out of either, with the
        reason.

    Raises:
        ConversionError: if the first has a generator or the second an adapter already (a fused checkpoint must not be
            fused again), or their CLIPs or text transfers differ.
    """
    adapter_layout = recognize(adapter_state, adapter_name)
    if adapter_layout.has("generator"):
        raise ConversionError(
            f"{adapter_name} already has a mask generator, it is {adapter_layout.title}: convert it without "
            "generator_from (--generator-from). That is for warm-up checkpoints, which have none, and only once."
        )
    if not adapter_layout.has("adapter"):
        raise ConversionError(f"{adapter_name} has no adapter, it is {adapter_layout.title}: there is nothing to fuse.")
    generator_layout = recognize(generator_state, generator_name)
    if not generator_layout.has("generator"):
        raise ConversionError(f"{generator_name} has no mask generator to take, it is {generator_layout.title}.")
    if generator_layout.has("adapter"):
        raise ConversionError(
            f"{generator_name} already has an adapter, it is {generator_layout.title}: give the plain FC-CLIP or "
            "MAFT+ checkpoint as generator_from (--generator-from), or convert this one as it is."
        )
    if adapter_layout.has("transfer") and not generator_layout.has("transfer"):
        raise ConversionError(
            f"{adapter_name} was trained on MAFT+, but {generator_name} is {generator_layout.title}: give the plain "
            "MAFT+ checkpoint that the warm-up started from as generator_from (--generator-from)."
        )
    shared = [part for part in ("clip", "transfer") if adapter_layout.has(part)]
    for part in shared:
        _require_same(part, adapter_state, generator_state, adapter_name, generator_name)
    if VOID_KEY not in generator_state:
        raise ConversionError(f"{generator_name} is incomplete: it has no {VOID_KEY}.")
    generator_prefix = PARTS["generator"].source_prefix
    shared_prefixes = tuple(PARTS[part].source_prefix for part in shared)
    fused = {key: tensor for key, tensor in adapter_state.items() if key != VOID_KEY}
    fused |= {
        key: tensor for key, tensor in generator_state.items() if key == VOID_KEY or key.startswith(generator_prefix)
    }
    left_out = {}
    if VOID_KEY in adapter_state:
        left_out[f"{adapter_name}: {VOID_KEY}"] = f"replaced by that of {generator_name}"
    for key in generator_state.keys() - fused.keys():
        if key.startswith(shared_prefixes):
            reason: str | None = f"the same as in {adapter_name}"
        else:
            reason = generator_layout.reason_to_ignore(key)
        if reason is not None:
            left_out[f"{generator_name}: {key}"] = reason
        else:
            fused[key] = generator_state[key]
    return fused, left_out


_SHARED_PARTS = {"clip": ("CLIPs", "the CLIP"), "transfer": ("text transfers", "the text transfer")}


def _require_same(part_name: str, first: StateDict, second: StateDict, first_name: str, second_name: str) -> None:
    part = PARTS[part_name]
    prefix = part.source_prefix
    weights = [
        {
            key: tensor
            for key, tensor in state.items()
            if key.startswith(prefix) and key.removeprefix(prefix) not in part.ignored
        }
        for state in (first, second)
    ]
    differing = [
        key.removeprefix(prefix)
        for key in sorted(weights[0].keys() | weights[1].keys())
        if not _same_tensor(weights[0].get(key), weights[1].get(key))
    ]
    if differing:
        plural, singular = _SHARED_PARTS[part_name]
        raise ConversionError(
            f"{first_name} and {second_name} hold different {plural} ({len(differing)} of {len(weights[0])} weights "
            f"differ: {shorten(differing)}). An adapter and a mask generator work together only with {singular} that "
            "both were trained on."
        )


def _same_tensor(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.shape != second.shape:
        return False
    return first.is_meta or second.is_meta or torch.equal(first.float(), second.float())


__all__ = [
    "FCCLIP",
    "FCCLIP_ADAPTER",
    "LAYOUTS",
    "MAFT_PLUS",
    "MAFT_PLUS_ADAPTER",
    "MAFT_PLUS_WARMUP",
    "OPENCLIP",
    "OPENCLIP_RESNET",
    "WARMUP",
    "ConvertedWeights",
    "Layout",
    "convert_state_dict",
    "fuse",
    "recognize",
]
