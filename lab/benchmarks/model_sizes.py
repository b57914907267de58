"""The configurations that are measured. What is imported here is public in every build that is compared."""

from __future__ import annotations

from typing import Any, Literal

from hf_maskadapter import ConvNextClipConfig, FcClipMaskGeneratorConfig, MaskAdapterConfig

ModelSize = Literal["large", "base", "tiny"]

END_OF_TEXT = 49407

_LAYER_SCALE = 0.5  # so that the adapter's blocks show in results
_OUT_VOCABULARY_SHARE = 0.1  # random weights would give every mask the same class
_CLIP_SIZES: dict[str, dict[str, Any]] = {
    "large": {
        "hidden_sizes": [192, 384, 768, 1536],
        "depths": [3, 3, 27, 3],
        "projection_dim": 768,
        "projection_hidden_dim": 1536,
        "text_config": {"hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12},
    },
    "base": {
        "hidden_sizes": [128, 256, 512, 1024],
        "depths": [3, 3, 27, 3],
        "projection_dim": 640,
        "projection_hidden_dim": None,
        "text_config": {"hidden_size": 640, "num_hidden_layers": 12, "num_attention_heads": 10},
    },
    "tiny": {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 2, 1],
        "projection_dim": 16,
        "projection_hidden_dim": 20,
        "text_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
}
_TINY_GENERATOR = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "encoder_layers": 1,
    "decoder_layers": 4,
    "num_attention_heads": 2,
}


def build_config(model_size: ModelSize, num_masks: int = 250) -> MaskAdapterConfig:
    """The complete model's configuration: FC-CLIP's at `"large"` or `"base"`, or a `"tiny"` one for a trial."""
    clip: dict[str, Any] = dict(_CLIP_SIZES[model_size])
    text = clip.pop("text_config")
    text = text | {"intermediate_size": 4 * text["hidden_size"], "projection_dim": clip["projection_dim"]}
    text |= {"hidden_act": "gelu", "bos_token_id": END_OF_TEXT - 1, "eos_token_id": END_OF_TEXT}
    text |= {"pad_token_id": END_OF_TEXT}
    generator = {"feature_channels": clip["hidden_sizes"], "text_embed_dim": clip["projection_dim"]}
    generator |= {"num_queries": num_masks} | (_TINY_GENERATOR if model_size == "tiny" else {})
    adapter = {"hidden_size": 24, "num_output_maps": 4} if model_size == "tiny" else {}
    return MaskAdapterConfig(
        clip_config=ConvNextClipConfig(**clip, text_config=text),
        mask_generator_config=FcClipMaskGeneratorConfig(**generator),
        layer_scale_init_value=_LAYER_SCALE,
        ensemble_alpha=_OUT_VOCABULARY_SHARE,
        ensemble_beta=_OUT_VOCABULARY_SHARE,
        **adapter,
    )


__all__ = ["END_OF_TEXT", "ModelSize", "build_config"]
