"""Sizes read from weights and settings together → configurations."""

from __future__ import annotations

from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..model.configuration_clips import ConvNextClipConfig, ResNetClipConfig
from ..model.configuration_mask_generators import FcClipMaskGeneratorConfig
from ..model.configuration_maskadapter import MaskAdapterConfig
from .adapter import read_adapter_sizes
from .errors import ConversionError
from .fcclip import read_generator_sizes
from .key_tables import StateDict
from .layouts import OPENCLIP, OPENCLIP_RESNET, PARTS, Layout
from .openai_resnet import read_resnet_sizes
from .openclip import read_clip_sizes
from .presets import ConversionSettings

_CLIP_SETTINGS = ("norm_eps", "image_size")
_SEGMENTER_SETTINGS = (
    "ensemble_alpha",
    "ensemble_beta",
    "ensemble_on_valid_masks",
    "mask_threshold",
    "object_threshold",
    "overlap_threshold",
    "instance_top_k",
    "warmup_scoring",
    "text_transfer_heads",
    "text_transfer_panoptic",
    "mix_projected_positions",
)


def read_sizes(state: StateDict, layout: Layout) -> dict[str, Any]:
    """Fields of the model's configuration that the weights tell, nested as in `config.json`.

    Args:
        state: converted state dict, real or on the meta device.
        layout: the checkpoint's layout.

    Raises:
        ConversionError: if weights are missing.
    """
    if layout == OPENCLIP:
        return read_clip_sizes(state)
    if layout == OPENCLIP_RESNET:
        return read_resnet_sizes(state)
    clip = read_clip_sizes(_part(state, "clip"))
    sizes: dict[str, Any] = {
        "clip_config": clip,
        "mask_generator_config": None,
        "use_adapter": layout.has("adapter"),
        "text_transfer": layout.has("transfer"),
    }
    if layout.has("generator"):
        strides = [clip["patch_size"] * 2**stage for stage in range(len(clip["hidden_sizes"]))]
        sizes["mask_generator_config"] = read_generator_sizes(_part(state, "generator"), clip["hidden_sizes"], strides)
    if layout.has("adapter"):
        sizes |= read_adapter_sizes(_part(state, "adapter"))
    return sizes


def _part(state: StateDict, part: str) -> StateDict:
    prefix = PARTS[part].target_prefix
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def build_config(
    sizes: dict[str, Any], layout: Layout, settings: ConversionSettings
) -> ConvNextClipConfig | ResNetClipConfig | MaskAdapterConfig:
    """The configuration of a converted model.

    Args:
        sizes: see [`read_sizes`].
        layout: the checkpoint's layout.
        settings: what the weights cannot tell.

    Raises:
        ConversionError: if settings and sizes contradict each other.
    """
    try:
        if layout == OPENCLIP:
            config: ConvNextClipConfig | ResNetClipConfig | MaskAdapterConfig = _clip_config(sizes, settings)
        elif layout == OPENCLIP_RESNET:
            text_config = _text_config(sizes, settings) | {
                "hidden_act": "quick_gelu" if settings.quick_gelu else "gelu"
            }
            config = ResNetClipConfig(**sizes | {"text_config": text_config})
        else:
            generator = sizes["mask_generator_config"]
            if layout.has("transfer"):
                _check_transfer_heads(sizes["clip_config"]["projection_dim"], settings)
            config = MaskAdapterConfig(
                **sizes
                | {
                    "clip_config": _clip_config(sizes["clip_config"], settings),
                    "mask_generator_config": None if generator is None else _generator_config(generator, settings),
                    "training_vocabulary": settings.read_training_vocabulary(),
                }
                | _given(settings, _SEGMENTER_SETTINGS)
            )
        config.validate_architecture()
    except ConversionError:
        raise
    except (ValueError, StrictDataclassError) as error:
        raise ConversionError(f"The checkpoint's parts do not fit together: {error.__cause__ or error}") from error
    return config


def _clip_config(sizes: dict[str, Any], settings: ConversionSettings) -> ConvNextClipConfig:
    text_config = _text_config(sizes, settings)
    return ConvNextClipConfig(**sizes | {"text_config": text_config} | _given(settings, _CLIP_SETTINGS))


def _text_config(sizes: dict[str, Any], settings: ConversionSettings) -> dict[str, Any]:
    text_heads, width = settings.text_heads, sizes["text_config"]["hidden_size"]
    if width % text_heads:
        raise ConversionError(
            f"text_heads={text_heads} does not divide the width of the checkpoint's text tower, {width}: give the "
            "number of heads that it was trained with."
        )
    return sizes["text_config"] | {"num_attention_heads": text_heads}


def _check_transfer_heads(width: int, settings: ConversionSettings) -> None:
    heads = settings.text_transfer_heads
    if heads is not None and width % heads:
        raise ConversionError(
            f"text_transfer_heads={heads} does not divide the width of the checkpoint's text transfer, {width}: give "
            "the number of heads that it was trained with."
        )


def _generator_config(sizes: dict[str, Any], settings: ConversionSettings) -> FcClipMaskGeneratorConfig:
    heads = sizes["num_attention_heads"]
    if settings.decoder_heads not in (None, heads):
        raise ConversionError(
            f"decoder_heads={settings.decoder_heads} contradicts the weights: the pixel decoder has {heads} heads, and "
            "the transformer decoder as many. Correct it or leave it out."
        )
    return FcClipMaskGeneratorConfig(**sizes)


def _given(settings: ConversionSettings, names: tuple[str, ...]) -> dict[str, Any]:
    given = settings.given()
    return {name: given[name] for name in names if name in given}


__all__ = ["build_config", "read_sizes"]
