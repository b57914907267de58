"""Tiny random mask generators, and what they wrap, for tests."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from transformers import (
    AutoModelForUniversalSegmentation,
    EomtConfig,
    EomtImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerImageProcessorPil,
    MaskFormerConfig,
    MaskFormerImageProcessorPil,
    OneFormerConfig,
    OneFormerImageProcessorPil,
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    SamConfig,
    SamModel,
    SwinConfig,
)

from hf_maskadapter import SamMaskGenerator, UniversalMaskGenerator
from support import tiny_models

SWIN = SwinConfig(
    image_size=32,
    embed_dim=8,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    out_features=["stage1", "stage2", "stage3", "stage4"],
)
SIZE = {"shortest_edge": 64, "longest_edge": 96}
MASK_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
    "iou_head_depth": 2,
}
#: Every mask of a random model passes.
NO_FILTERS = {
    "pred_iou_threshold": -1e6,
    "stability_threshold": -1.0,
    "box_nms_threshold": 1.0,
    "mask_nms_threshold": 1.0,
    "min_fragment_area": 0.0,
}


def from_config(config) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForUniversalSegmentation.from_config(config).eval()


def mask2former() -> UniversalMaskGenerator:
    config = Mask2FormerConfig(
        backbone_config=SWIN,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=5,
        num_labels=4,
    )
    return UniversalMaskGenerator.from_segmenter(from_config(config), Mask2FormerImageProcessorPil(size=SIZE))


def maskformer() -> UniversalMaskGenerator:
    decoder = {
        "model_type": "detr",
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 5,
    }
    config = MaskFormerConfig(
        backbone_config=SWIN, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_labels=4
    )
    return UniversalMaskGenerator.from_segmenter(from_config(config), MaskFormerImageProcessorPil(size=SIZE))


class TaskTokenizer:
    """Character codes, padded, as OneFormer's processor asks its tokenizer for them."""

    def __call__(self, texts, padding, max_length, truncation):
        single = isinstance(texts, str)
        ids, masks = [], []
        for text in [texts] if single else texts:
            codes = [ord(character) % 300 for character in text]
            ids.append(codes + [301] * (max_length - len(codes)))
            masks.append([1] * len(codes) + [0] * (max_length - len(codes)))
        return {"input_ids": ids[0] if single else ids, "attention_mask": masks[0] if single else masks}


def oneformer() -> UniversalMaskGenerator:
    config = OneFormerConfig(
        backbone_config=SWIN,
        num_queries=5,
        hidden_dim=32,
        mask_dim=32,
        conv_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=320,
        num_labels=4,
    )
    image_processor = OneFormerImageProcessorPil(
        size=SIZE, class_info_file=None, num_labels=4, metadata={"class_names": [], "thing_ids": []}
    )
    processor = SimpleNamespace(image_processor=image_processor, tokenizer=TaskTokenizer())
    return UniversalMaskGenerator.from_segmenter(from_config(config), processor)


def eomt() -> UniversalMaskGenerator:
    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_blocks=1,
        num_upscale_blocks=1,
        num_queries=5,
        image_size=64,
        patch_size=16,
        num_labels=4,
    )
    processor = EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    return UniversalMaskGenerator.from_segmenter(from_config(config), processor)


def sam_model() -> SamModel:
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config=MASK_DECODER,
    )
    torch.manual_seed(0)
    return SamModel(config).eval()


def sam2_model() -> Sam2Model:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [4, 4],
        "global_attention_blocks": [3],
    }
    config = Sam2Config(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config=MASK_DECODER,
    )
    torch.manual_seed(0)
    return Sam2Model(config).eval()


def sam3_model() -> Sam3TrackerModel:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [0],
        "pretrain_image_size": 28,
    }
    config = Sam3TrackerConfig(
        vision_config={
            "backbone_config": backbone,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 56, "patch_size": 14, "mask_input_channels": 4},
        mask_decoder_config=MASK_DECODER,
    )
    torch.manual_seed(0)
    return Sam3TrackerModel(config).eval()


def sam(**settings) -> SamMaskGenerator:
    return SamMaskGenerator.from_sam(sam_model(), **{"points_per_side": 3, "max_masks": 6} | NO_FILTERS | settings)


def sam2(**settings) -> SamMaskGenerator:
    return SamMaskGenerator.from_sam(sam2_model(), **{"points_per_side": 3, "max_masks": 6} | NO_FILTERS | settings)


#: A tiny version of every kind of mask generator, by name.
TINY_GENERATORS: dict[str, Callable[[], PreTrainedModel]] = {
    "fcclip": tiny_models.generator,
    "mask2former": mask2former,
    "maskformer": maskformer,
    "oneformer": oneformer,
    "eomt": eomt,
    "sam": sam,
    "sam2": sam2,
}
