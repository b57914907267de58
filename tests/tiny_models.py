"""Tiny random models and a tokenizer without files, for tests."""

import torch

from hf_maskadapter import (
    ConvNextClipConfig,
    ConvNextClipModel,
    FcClipMaskGenerator,
    FcClipMaskGeneratorConfig,
    MaskAdapterConfig,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterModel,
)

HIDDEN_SIZES = [8, 16, 24, 32]
EMBED_DIM = 16
FEATURE_STRIDE = 32
START, END = 510, 511
TEXT_CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "projection_dim": EMBED_DIM,
    "hidden_act": "gelu",
    "vocab_size": 512,
    "max_position_embeddings": 77,
    "bos_token_id": START,
    "eos_token_id": END,
    "pad_token_id": END,
}


class CharacterTokenizer:
    """One token a character, called as a Hugging Face tokenizer is."""

    def __call__(self, prompts, **kwargs):
        return {"input_ids": [[START, *(ord(character) % START for character in prompt), END] for prompt in prompts]}


def clip_config(**changes) -> ConvNextClipConfig:
    fields = {
        "hidden_sizes": HIDDEN_SIZES,
        "depths": [1, 1, 2, 1],
        "projection_dim": EMBED_DIM,
        "projection_hidden_dim": 20,
        "layer_scale_init_value": 0.5,
        "image_size": 64,
        "text_config": TEXT_CONFIG,
    }
    return ConvNextClipConfig(**fields | changes)


def generator_config(**changes) -> FcClipMaskGeneratorConfig:
    fields = {
        "feature_channels": HIDDEN_SIZES,
        "text_embed_dim": EMBED_DIM,
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 32,
        "dim_feedforward": 32,
        "encoder_layers": 1,
        "decoder_layers": 4,
        "num_attention_heads": 2,
        "num_queries": 6,
    }
    return FcClipMaskGeneratorConfig(**fields | changes)


def segmenter_config(**changes) -> MaskAdapterConfig:
    fields = {
        "clip_config": clip_config(),
        "mask_generator_config": generator_config(),
        "hidden_size": 24,
        "num_output_maps": 4,
        "layer_scale_init_value": 0.5,
        "training_vocabulary": [["cat", "kitten"], ["sky"]],
    }
    return MaskAdapterConfig(**fields | changes)


def build(model_class, config):
    """A model with weights from a fixed seed, in eval mode."""
    torch.manual_seed(0)
    return model_class(config).eval()


def clip(**changes) -> ConvNextClipModel:
    return build(ConvNextClipModel, clip_config(**changes))


def generator(**changes) -> FcClipMaskGenerator:
    return build(FcClipMaskGenerator, generator_config(**changes))


def adapter(**changes) -> MaskAdapterModel:
    return build(MaskAdapterModel, segmenter_config(**changes))


def segmenter(**changes) -> MaskAdapterForOpenVocabularySegmentation:
    return build(MaskAdapterForOpenVocabularySegmentation, segmenter_config(**changes))
