"""FC-CLIP's mask generator → [`FcClipMaskGenerator`], in the names of Transformers' Mask2Former."""

from __future__ import annotations

from typing import Any

from .errors import ConversionError
from .key_tables import KeyTable, Shapes, StateDict, split_attention

_DECODER = "transformer_module.decoder"
_LAYER = "transformer_module.decoder.layers.{i}"
_ENCODER_LAYER = "pixel_decoder.encoder.layers.{i}"
_NUM_LEVELS = 3
_NUM_POINTS = 4

FCCLIP_KEYS = KeyTable(
    {
        # pixel decoder
        "pixel_decoder.input_proj.{i}.{j}.{p}": "pixel_decoder.input_projections.{i}.{j}.{p}",
        "pixel_decoder.transformer.level_embed": "pixel_decoder.level_embed",
        "pixel_decoder.transformer.encoder.layers.{i}.self_attn.sampling_offsets.{p}": (
            f"{_ENCODER_LAYER}.self_attn.sampling_offsets.{{p}}"
        ),
        "pixel_decoder.transformer.encoder.layers.{i}.self_attn.attention_weights.{p}": (
            f"{_ENCODER_LAYER}.self_attn.attention_weights.{{p}}"
        ),
        "pixel_decoder.transformer.encoder.layers.{i}.self_attn.value_proj.{p}": (
            f"{_ENCODER_LAYER}.self_attn.value_proj.{{p}}"
        ),
        "pixel_decoder.transformer.encoder.layers.{i}.self_attn.output_proj.{p}": (
            f"{_ENCODER_LAYER}.self_attn.output_proj.{{p}}"
        ),
        "pixel_decoder.transformer.encoder.layers.{i}.norm1.{p}": f"{_ENCODER_LAYER}.self_attn_layer_norm.{{p}}",
        "pixel_decoder.transformer.encoder.layers.{i}.linear1.{p}": f"{_ENCODER_LAYER}.fc1.{{p}}",
        "pixel_decoder.transformer.encoder.layers.{i}.linear2.{p}": f"{_ENCODER_LAYER}.fc2.{{p}}",
        "pixel_decoder.transformer.encoder.layers.{i}.norm2.{p}": f"{_ENCODER_LAYER}.final_layer_norm.{{p}}",
        "pixel_decoder.mask_features.{p}": "pixel_decoder.mask_projection.{p}",
        "pixel_decoder.adapter_{n}.weight": "pixel_decoder.adapter_{n}.0.weight",
        "pixel_decoder.adapter_{n}.norm.{p}": "pixel_decoder.adapter_{n}.1.{p}",
        "pixel_decoder.layer_{n}.weight": "pixel_decoder.layer_{n}.0.weight",
        "pixel_decoder.layer_{n}.norm.{p}": "pixel_decoder.layer_{n}.1.{p}",
        # transformer decoder
        "predictor.query_feat.weight": "transformer_module.queries_features.weight",
        "predictor.query_embed.weight": "transformer_module.queries_embedder.weight",
        "predictor.level_embed.weight": "transformer_module.level_embed.weight",
        "predictor.input_proj.{i}.{p}": "transformer_module.input_projections.{i}.{p}",
        "predictor.transformer_self_attention_layers.{i}.self_attn.in_proj_weight": (
            split_attention(f"{_LAYER}.self_attn", "weight")
        ),
        "predictor.transformer_self_attention_layers.{i}.self_attn.in_proj_bias": (
            split_attention(f"{_LAYER}.self_attn", "bias")
        ),
        "predictor.transformer_self_attention_layers.{i}.self_attn.out_proj.{p}": f"{_LAYER}.self_attn.out_proj.{{p}}",
        "predictor.transformer_self_attention_layers.{i}.norm.{p}": f"{_LAYER}.self_attn_layer_norm.{{p}}",
        "predictor.transformer_cross_attention_layers.{i}.multihead_attn.in_proj_{p}": (
            f"{_LAYER}.cross_attn.in_proj_{{p}}"
        ),
        "predictor.transformer_cross_attention_layers.{i}.multihead_attn.out_proj.{p}": (
            f"{_LAYER}.cross_attn.out_proj.{{p}}"
        ),
        "predictor.transformer_cross_attention_layers.{i}.norm.{p}": f"{_LAYER}.cross_attn_layer_norm.{{p}}",
        "predictor.transformer_ffn_layers.{i}.linear1.{p}": f"{_LAYER}.fc1.{{p}}",
        "predictor.transformer_ffn_layers.{i}.linear2.{p}": f"{_LAYER}.fc2.{{p}}",
        "predictor.transformer_ffn_layers.{i}.norm.{p}": f"{_LAYER}.final_layer_norm.{{p}}",
        "predictor.decoder_norm.{p}": f"{_DECODER}.layernorm.{{p}}",
        "predictor.mask_embed.layers.{i}.{p}": f"{_DECODER}.mask_predictor.mask_embedder.{{i}}.0.{{p}}",
        # class branch
        "predictor._mask_pooling_proj.0.{p}": "class_head.pooling_norm.{p}",
        "predictor._mask_pooling_proj.1.{p}": "class_head.pooling_projection.{p}",
        "predictor.class_embed.layers.{i}.{p}": "class_head.class_embedder.{i}.0.{p}",
        "predictor.logit_scale": "class_head.logit_scale",
    }
)


def read_generator_sizes(state: StateDict, feature_channels: list[int], feature_strides: list[int]) -> dict[str, Any]:
    """Fields of [`FcClipMaskGeneratorConfig`] that the weights tell.

    The number of heads is among them: the encoder has 4 sampling points for each head and level, and as many heads as
    the decoder.

    Args:
        state: converted state dict of the generator, real or on the meta device.
        feature_channels: those of the CLIP.
        feature_strides: likewise.

    Raises:
        ConversionError: if weights are missing, or the number of attention weights is impossible.
    """
    shapes = Shapes(state)
    layer = "pixel_decoder.encoder.layers.0"
    attention_weights = shapes.size(f"{layer}.self_attn.attention_weights.weight", 0)
    heads, rest = divmod(attention_weights, _NUM_LEVELS * _NUM_POINTS)
    if rest:
        raise ConversionError(
            f"The pixel decoder has {attention_weights} attention weights, not a multiple of {_NUM_LEVELS} levels × "
            f"{_NUM_POINTS} points: this is not FC-CLIP's."
        )
    feature_size = shapes.size("pixel_decoder.mask_projection.weight", 1)
    hidden_dim = shapes.size("transformer_module.queries_features.weight", 1)
    fpn_levels = sum(f"pixel_decoder.adapter_{level}.0.weight" in shapes for level in (1, 2, 3))
    return {
        "feature_channels": feature_channels,
        "feature_strides": feature_strides,
        "text_embed_dim": shapes.size("class_head.class_embedder.2.0.weight", 0),
        "feature_size": feature_size,
        "mask_feature_size": shapes.size("pixel_decoder.mask_projection.weight", 0),
        "hidden_dim": hidden_dim,
        "encoder_feedforward_dim": shapes.size(f"{layer}.fc1.weight", 0),
        "encoder_layers": shapes.count("pixel_decoder.encoder.layers."),
        "decoder_layers": shapes.count(f"{_DECODER}.layers.") + 1,
        "num_attention_heads": heads,
        "dim_feedforward": shapes.size(f"{_DECODER}.layers.0.fc1.weight", 0),
        "enforce_input_projection": (
            feature_size == hidden_dim and "transformer_module.input_projections.0.weight" in shapes
        ),
        "common_stride": feature_strides[-_NUM_LEVELS:][0] // 2**fpn_levels,
        "num_queries": shapes.size("transformer_module.queries_features.weight", 0),
    }


__all__ = ["FCCLIP_KEYS", "read_generator_sizes"]
