"""OpenAI's ResNet CLIPs, in the layout of OpenAI's and OpenCLIP's state dicts → [`ResNetClipModel`]."""

from __future__ import annotations

import math
from typing import Any

from .key_tables import KeyTable, Shapes, StateDict, Target
from .openclip import OPENCLIP_IGNORED, TEXT_KEYS, read_text_sizes

#: Present in every CLIP with attention pooling on a ResNet, and in no other.
FIRST_KEY = "visual.attnpool.positional_embedding"

_HEAD_WIDTH = 64
_BLOCK = "vision_model.stages.{s_minus_1}.{b}"


def _norm_keys(source: str, target: str) -> dict[str, Target]:
    return {
        f"{source}.{name}": f"{target}.{name}" for name in ("{p}", "running_mean", "running_var", "num_batches_tracked")
    }


RESNET_KEYS = KeyTable(
    {
        "visual.conv{c}.weight": "vision_model.stem_convs.{c_minus_1}.weight",
        **_norm_keys("visual.bn{c}", "vision_model.stem_norms.{c_minus_1}"),
        "visual.layer{s}.{b}.conv{c}.weight": f"{_BLOCK}.convs.{{c_minus_1}}.weight",
        **_norm_keys("visual.layer{s}.{b}.bn{c}", f"{_BLOCK}.norms.{{c_minus_1}}"),
        "visual.layer{s}.{b}.downsample.0.weight": f"{_BLOCK}.shortcut_conv.weight",
        **_norm_keys("visual.layer{s}.{b}.downsample.1", f"{_BLOCK}.shortcut_norm"),
        "visual.attnpool.positional_embedding": "visual_projection.position_embedding",
        "visual.attnpool.q_proj.{p}": "visual_projection.q_proj.{p}",
        "visual.attnpool.k_proj.{p}": "visual_projection.k_proj.{p}",
        "visual.attnpool.v_proj.{p}": "visual_projection.v_proj.{p}",
        "visual.attnpool.c_proj.{p}": "visual_projection.out_proj.{p}",
        **TEXT_KEYS,
    }
)

#: Keys that hold nothing to convert, and why.
RESNET_IGNORED = OPENCLIP_IGNORED | {
    "input_resolution": "the pictures' side, which the position embeddings tell",
    "context_length": "the texts' length, which the position embeddings tell",
    "vocab_size": "the number of tokens, which the token embeddings tell",
}


def read_resnet_sizes(state: StateDict) -> dict[str, Any]:
    """Fields of [`ResNetClipConfig`] that the weights tell: all but the text tower's heads and activation.

    Heads of the attention pooling are 64 channels wide in every such CLIP.

    Args:
        state: converted state dict of the CLIP, real or on the meta device.

    Raises:
        ConversionError: if weights are missing.
    """
    shapes = Shapes(state)
    num_stages = max(shapes.count("vision_model.stages."), 1)
    channels = shapes.size("visual_projection.position_embedding", 1)
    grid_size = math.isqrt(shapes.size("visual_projection.position_embedding", 0) - 1)
    return {
        "num_channels": shapes.size("vision_model.stem_convs.0.weight", 1),
        "width": shapes.size("vision_model.stem_convs.2.weight", 0),
        "depths": [shapes.count(f"vision_model.stages.{stage}.") for stage in range(num_stages)],
        "num_attention_heads": max(channels // _HEAD_WIDTH, 1),
        "projection_dim": shapes.size("visual_projection.out_proj.weight", 0),
        "image_size": grid_size * 4 * 2 ** (num_stages - 1),
        "text_config": read_text_sizes(shapes),
    }


__all__ = ["FIRST_KEY", "RESNET_IGNORED", "RESNET_KEYS", "read_resnet_sizes"]
