"""OpenCLIP's ConvNeXt CLIPs → [`ConvNextClipModel`].

The image tower has timm's names, the text tower OpenCLIP's own.
"""

from __future__ import annotations

from typing import Any

from .key_tables import KeyTable, Shapes, StateDict, Target, Transposed, split_attention

_STAGE = "vision_model.stages.{s}"
_BLOCK = "vision_model.stages.{s}.blocks.{b}"
_LAYER = "text_model.text_model.encoder.layers.{i}"

#: Present in every ConvNeXt image tower, and in no other.
FIRST_KEY = "visual.trunk.stem.0.weight"

#: The text tower of every OpenCLIP model, and the logit scale.
TEXT_KEYS: dict[str, Target] = {
    "token_embedding.weight": "text_model.text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.text_model.embeddings.position_embedding.weight",
    "transformer.resblocks.{i}.ln_1.{p}": f"{_LAYER}.layer_norm1.{{p}}",
    "transformer.resblocks.{i}.attn.in_proj_weight": split_attention(f"{_LAYER}.self_attn", "weight"),
    "transformer.resblocks.{i}.attn.in_proj_bias": split_attention(f"{_LAYER}.self_attn", "bias"),
    "transformer.resblocks.{i}.attn.out_proj.{p}": f"{_LAYER}.self_attn.out_proj.{{p}}",
    "transformer.resblocks.{i}.ln_2.{p}": f"{_LAYER}.layer_norm2.{{p}}",
    "transformer.resblocks.{i}.mlp.c_fc.{p}": f"{_LAYER}.mlp.fc1.{{p}}",
    "transformer.resblocks.{i}.mlp.c_proj.{p}": f"{_LAYER}.mlp.fc2.{{p}}",
    "ln_final.{p}": "text_model.text_model.final_layer_norm.{p}",
    "text_projection": Transposed("text_model.text_projection.weight"),
    "logit_scale": "logit_scale",
}

OPENCLIP_KEYS = KeyTable(
    {
        "visual.trunk.stem.0.{p}": "vision_model.stem.convs.0.{p}",
        "visual.trunk.stem.1.{p}": "vision_model.stem.norms.0.{p}",
        "visual.trunk.stages.{s}.downsample.0.{p}": f"{_STAGE}.downsample.norm.{{p}}",
        "visual.trunk.stages.{s}.downsample.1.{p}": f"{_STAGE}.downsample.conv.{{p}}",
        "visual.trunk.stages.{s}.blocks.{b}.conv_dw.{p}": f"{_BLOCK}.depthwise_conv.{{p}}",
        "visual.trunk.stages.{s}.blocks.{b}.norm.{p}": f"{_BLOCK}.norm.{{p}}",
        "visual.trunk.stages.{s}.blocks.{b}.mlp.fc1.{p}": f"{_BLOCK}.pointwise_conv1.{{p}}",
        "visual.trunk.stages.{s}.blocks.{b}.mlp.fc2.{p}": f"{_BLOCK}.pointwise_conv2.{{p}}",
        "visual.trunk.stages.{s}.blocks.{b}.gamma": f"{_BLOCK}.layer_scale",
        "visual.trunk.head.norm.{p}": "visual_projection.norm.{p}",
        "visual.head.mlp.fc1.{p}": "visual_projection.fc1.{p}",
        "visual.head.mlp.fc2.weight": "visual_projection.fc2.weight",
        "visual.head.proj.weight": "visual_projection.fc2.weight",
        **TEXT_KEYS,
    }
)

#: Keys of older files that hold nothing to convert, and why.
OPENCLIP_IGNORED = {"attn_mask": "the text tower's causal mask, which is computed"}


def read_text_sizes(shapes: Shapes) -> dict[str, Any]:
    """Fields of the text tower's configuration that the weights tell: all but its heads.

    Args:
        shapes: of the converted state dict.

    Raises:
        ConversionError: if weights are missing.
    """
    text, layers = "text_model.text_model.", "text_model.text_model.encoder.layers."
    vocab_size = shapes.size(f"{text}embeddings.token_embedding.weight", 0)
    return {
        "vocab_size": vocab_size,
        "hidden_size": shapes.size(f"{text}embeddings.token_embedding.weight", 1),
        "intermediate_size": shapes.size(f"{layers}0.mlp.fc1.weight", 0),
        "projection_dim": shapes.size("text_model.text_projection.weight", 0),
        "num_hidden_layers": shapes.count(layers),
        "max_position_embeddings": shapes.size(f"{text}embeddings.position_embedding.weight", 0),
        "hidden_act": "gelu",
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }


def read_clip_sizes(state: StateDict) -> dict[str, Any]:
    """Fields of [`ConvNextClipConfig`] that the weights tell: all but epsilons and the text tower's heads.

    Args:
        state: converted state dict of the CLIP, real or on the meta device.

    Raises:
        ConversionError: if weights are missing.
    """
    shapes = Shapes(state)
    num_stages = max(shapes.count("vision_model.stages."), 1)
    blocks = [f"vision_model.stages.{stage}.blocks." for stage in range(num_stages)]
    kernel_sizes = [shapes.size(f"{prefix}0.depthwise_conv.weight", -1) for prefix in blocks]
    fields = {
        "num_channels": shapes.size("vision_model.stem.convs.0.weight", 1),
        "patch_size": shapes.size("vision_model.stem.convs.0.weight", -1),
        "hidden_sizes": [shapes.size(f"{prefix}0.depthwise_conv.weight", 0) for prefix in blocks],
        "depths": [shapes.count(prefix) for prefix in blocks],
        "kernel_sizes": kernel_sizes[0] if len(set(kernel_sizes)) == 1 else kernel_sizes,
        "projection_dim": shapes.size("visual_projection.fc2.weight", 0),
        "projection_hidden_dim": (
            shapes.size("visual_projection.fc1.weight", 0) if "visual_projection.fc1.weight" in shapes else None
        ),
        "text_config": read_text_sizes(shapes),
    }
    if f"{blocks[0]}0.layer_scale" not in shapes:
        fields["layer_scale_init_value"] = 0.0
    return fields


__all__ = ["FIRST_KEY", "OPENCLIP_IGNORED", "OPENCLIP_KEYS", "TEXT_KEYS", "read_clip_sizes", "read_text_sizes"]
