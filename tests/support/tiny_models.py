"""Tiny random models and a tokenizer without files, for tests."""

from collections.abc import Callable

import torch
from transformers import CLIPTokenizer

from hf_maskadapter import (
    ConvNextClipConfig,
    ConvNextClipModel,
    DenseClipModel,
    FcClipMaskGenerator,
    FcClipMaskGeneratorConfig,
    MaskAdapterConfig,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterModel,
    ResNetClipConfig,
    ResNetClipModel,
    SiglipClipConfig,
    SiglipClipModel,
    VitClipConfig,
    VitClipModel,
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

    eos_token_id = pad_token_id = END

    def __call__(self, prompts, **kwargs):
        return {"input_ids": [[START, *(ord(character) % START for character in prompt), END] for prompt in prompts]}


def byte_level_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer without merges: one token for each byte, in CLIP's form. It needs no file and reads any text."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


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


def resnet_clip_config(**changes) -> ResNetClipConfig:
    fields = {
        "width": 8,
        "depths": [1, 1, 2, 1],
        "num_attention_heads": 4,
        "projection_dim": EMBED_DIM,
        "image_size": 64,
        "text_config": TEXT_CONFIG,
    }
    return ResNetClipConfig(**fields | changes)


VISION_CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 64,
    "patch_size": 16,
}


def vit_clip_config(model_type: str = "clip", **changes) -> VitClipConfig:
    wrapped = {
        "model_type": model_type,
        "text_config": TEXT_CONFIG,
        "vision_config": VISION_CONFIG,
        "projection_dim": EMBED_DIM,
    }
    return VitClipConfig(wrapped_config=wrapped, **changes)


def siglip_clip_config(model_type: str = "siglip") -> SiglipClipConfig:
    """Its texts are up to 64 tokens, as SigLIP's are, and its embeddings as wide as its patches."""
    vision_config = VISION_CONFIG | {"hidden_size": EMBED_DIM}
    if model_type == "siglip2":
        del vision_config["image_size"]
        vision_config["num_patches"] = 16
    text_config = TEXT_CONFIG | {"max_position_embeddings": 64, "projection_size": EMBED_DIM}
    return SiglipClipConfig(
        wrapped_config={"model_type": model_type, "text_config": text_config, "vision_config": vision_config}
    )


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


#: A tiny version of every CLIP, by name.
TINY_CLIPS: dict[str, Callable[[], DenseClipModel]] = {
    "convnext": clip,
    "resnet": lambda: build(ResNetClipModel, resnet_clip_config()),
    "clip": lambda: build(VitClipModel, vit_clip_config("clip")),
    "metaclip_2": lambda: build(VitClipModel, vit_clip_config("metaclip_2")),
    "siglip": lambda: build(SiglipClipModel, siglip_clip_config("siglip")),
    "siglip2": lambda: build(SiglipClipModel, siglip_clip_config("siglip2")),
}


def generator(**changes) -> FcClipMaskGenerator:
    return build(FcClipMaskGenerator, generator_config(**changes))


def adapter(**changes) -> MaskAdapterModel:
    return build(MaskAdapterModel, segmenter_config(**changes))


def segmenter(**changes) -> MaskAdapterForOpenVocabularySegmentation:
    return build(MaskAdapterForOpenVocabularySegmentation, segmenter_config(**changes))
