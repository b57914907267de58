"""The miniature's segmenter around its CLIP: its architecture, its random start, and how it is saved."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from hf_maskadapter.data.scenes import training_class_names
from hf_maskadapter.miniature.known_world import KnownWorld
from hf_maskadapter.model.configuration_clips import ConvNextClipConfig
from hf_maskadapter.model.configuration_mask_generators import FcClipMaskGeneratorConfig
from hf_maskadapter.model.configuration_maskadapter import MaskAdapterConfig
from hf_maskadapter.model.image_processing_maskadapter import MaskAdapterImageProcessorPil
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.processing_maskadapter import MaskAdapterProcessor
from lab.miniature.measuring import evaluation_scenes
from lab.miniature.pretraining import normalize_pictures

SCENES_OF_KNOWN_WORLD = 400
"""Scenes that say what the miniature knows, and as many more for the threshold."""


def build_segmenter_config(clip_config: ConvNextClipConfig, withheld: str | None = None) -> MaskAdapterConfig:
    """The miniature's architecture: 24 queries, 3 decoder layers, an adapter of 128 channels with 16 maps.

    The ensemble's weights and the overlap threshold were chosen on validation scenes.
    """
    generator = FcClipMaskGeneratorConfig(
        feature_channels=clip_config.feature_channels,
        feature_strides=clip_config.feature_strides,
        text_embed_dim=clip_config.projection_dim,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_feedforward_dim=256,
        dim_feedforward=256,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=4,
        num_queries=24,
    )
    return MaskAdapterConfig(
        clip_config=clip_config,
        mask_generator_config=generator,
        hidden_size=128,
        num_blocks=3,
        layer_scale_init_value=0.1,
        training_vocabulary=[[name] for name in training_class_names(withheld)],
        ensemble_alpha=0.55,
        ensemble_beta=0.8,
        overlap_threshold=0.6,
    )


def build_segmenter(clip: nn.Module, config: MaskAdapterConfig, seed: int) -> MaskAdapterForOpenVocabularySegmentation:
    """A segmenter with a trained CLIP and everything else initialised from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = MaskAdapterForOpenVocabularySegmentation(config)
    segmenter.clip.load_state_dict(clip.state_dict())
    return segmenter.eval()


@torch.no_grad()
def save_segmenter(
    segmenter: MaskAdapterForOpenVocabularySegmentation, tokenizer: CLIPTokenizer, folder: str | os.PathLike
) -> None:
    """Write model, processor and what the model knows in the form that [`load_miniature`] reads."""
    image_processor = MaskAdapterImageProcessorPil(
        size={"shortest_edge": 192, "longest_edge": 320}, size_divisor=segmenter.config.clip_config.size_divisor
    )
    segmenter.save_pretrained(folder)
    MaskAdapterProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)

    def features(split: str) -> Iterator[Tensor]:
        for scene in evaluation_scenes(split, SCENES_OF_KNOWN_WORLD):
            yield segmenter.clip.get_feature_maps(normalize_pictures([scene.picture]))[-1]

    KnownWorld.of_scenes(features("train"), features("validation")).save(folder)


__all__ = ["build_segmenter", "build_segmenter_config", "save_segmenter"]
