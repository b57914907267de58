"""A plain implementation of the published computation, to compare speed and memory with.

It computes what the published implementation does in its order and memory layout (METHOD of arXiv 2412.04533 and its
code's behaviour): CLIP's features are repeated for every mask, the adapter's blocks run densely on every position of
every mask, norms over channels are written out on NCHW tensors, pooling weights are softmax(logsigmoid(maps)), every
pooled vector is projected, class heads run after every decoder layer, prompts are padded to 77 tokens, and results are
computed from all masks and scores at full size. It uses the weights of this package's modules, and shares with it only
formulas that cost nothing (cosines, ensemble). `tests/lab/test_dense_opponent.py` holds it to the golden files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskPredictor,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
)

from hf_maskadapter.model.modeling_adapter import MaskAdapterModel, MaskAdapterOutput
from hf_maskadapter.model.modeling_clip_convnext import ConvNextBlock, ConvNextTrunk
from hf_maskadapter.model.modeling_mask_generator import MaskGeneratorOutput
from hf_maskadapter.model.modeling_mask_generator_fcclip import FcClipMaskGenerator
from hf_maskadapter.model.modeling_maskadapter import (
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterSegmentationOutput,
)
from hf_maskadapter.model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits, tokenize_prompts
from hf_maskadapter.model.vocabulary import Vocabulary

_MASK_ENCODER_STRIDE = 4
_CLASSES_AT_A_TIME = 128

Size = tuple[int, int]


def _channel_norm(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    """Layer norm over the channels of `(batch_size, channels, height, width)`, written out."""
    mean = features.mean(dim=1, keepdim=True)
    variance = (features - mean).pow(2).mean(dim=1, keepdim=True)
    normed = (features - mean) / torch.sqrt(variance + norm.eps)
    return norm.weight[:, None, None] * normed + norm.bias[:, None, None]


def _convnext_block(block: ConvNextBlock, features: Tensor) -> Tensor:
    hidden = block.depthwise_conv(features).permute(0, 2, 3, 1)
    hidden = F.layer_norm(hidden, hidden.shape[-1:], block.norm.weight, block.norm.bias, block.norm.eps)
    hidden = block.pointwise_conv2(block.activation(block.pointwise_conv1(hidden)))
    if block.layer_scale is not None:
        hidden = block.layer_scale * hidden
    return features + hidden.permute(0, 3, 1, 2)


def dense_feature_maps(trunk: ConvNextTrunk, pixel_values: Tensor) -> tuple[Tensor, ...]:
    """A ConvNeXt's feature maps; trunks with a patch stem and layer norms."""
    features = _channel_norm(trunk.stem.norms[0], trunk.stem.convs[0](pixel_values))
    feature_maps = []
    for number, stage in enumerate(trunk.stages):
        if number:
            features = stage.downsample.conv(_channel_norm(stage.downsample.norm, features))
        for block in stage.blocks:
            features = _convnext_block(block, features)
        feature_maps.append(features)
    return tuple(feature_maps)


class DenseAdapter:
    """The adapter as published.

    Args:
        adapter: whose weights it uses.
    """

    def __init__(self, adapter: MaskAdapterModel):
        self.adapter = adapter

    def activation_maps(self, projected_features: Tensor, masks: Tensor) -> Tensor:
        """Semantic activation maps, arguments and result as of [`MaskAdapterModel.get_activation_maps`]."""
        adapter, num_masks = self.adapter, masks.shape[1]
        height, width = (_MASK_ENCODER_STRIDE * side for side in projected_features.shape[-2:])
        codes = F.interpolate(masks.float(), size=(height, width), mode="bilinear", align_corners=False)
        codes = codes.flatten(0, 1)[:, None]
        for conv, norm in zip(adapter.mask_encoder.convs, adapter.mask_encoder.norms, strict=True):
            codes = F.gelu(_channel_norm(norm, conv(codes)))
        codes = adapter.mask_encoder.projection(codes)
        hidden = adapter.fuse(projected_features.repeat_interleave(num_masks, dim=0) + codes)
        for block in adapter.blocks:
            hidden = _convnext_block(block, hidden)
        return adapter.final(_channel_norm(adapter.norm, hidden)).unflatten(0, masks.shape[:2])

    def __call__(
        self,
        projected_features: Tensor,
        masks: Tensor,
        dense_features: Tensor,
        project: Callable[[Tensor], Tensor],
    ) -> MaskAdapterOutput:
        """Mask embeddings, arguments and result as of [`MaskAdapterModel`]."""
        maps = self.activation_maps(projected_features, masks)
        weights = F.softmax(F.logsigmoid(maps).flatten(-2), dim=-1).flatten(1, 2)
        pooled = torch.bmm(weights, dense_features.flatten(-2).transpose(1, 2)).unflatten(1, maps.shape[1:3])
        return MaskAdapterOutput(
            semantic_activation_maps=maps, pooled_features=pooled, mask_embeddings=project(pooled).mean(dim=2)
        )


class DenseGenerator:
    """FC-CLIP's mask generator with Transformers' and PyTorch's own modules, and class heads after every layer.

    Args:
        generator: whose weights it copies.
    """

    def __init__(self, generator: FcClipMaskGenerator):
        copied = deepcopy(generator)
        self.first_level, self.class_head = copied.first_level, copied.class_head
        self.pixel_decoder, self.transformer_module = copied.pixel_decoder, copied.transformer_module
        for layer in self.pixel_decoder.encoder.layers:
            layer.self_attn.__class__ = Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention
        decoder = self.transformer_module.decoder
        for layer in decoder.layers:
            layer.cross_attn.__class__ = nn.MultiheadAttention
        decoder.mask_predictor.__class__ = Mask2FormerMaskPredictor

    def __call__(
        self, feature_maps: Sequence[Tensor], vocabulary: EncodedVocabulary, void_embeds: Tensor
    ) -> MaskGeneratorOutput:
        """The last of all layers' masks and class scores, arguments as of [`FcClipMaskGenerator`]."""
        with torch.autocast(feature_maps[0].device.type, enabled=False):
            features = [feature_map.float() for feature_map in feature_maps[self.first_level :]]
            pixels = self.pixel_decoder(features)
            decoded = self.transformer_module(pixels.multi_scale_features, pixels.mask_features)
            outputs = [
                MaskGeneratorOutput(
                    masks_queries_logits=masks,
                    in_vocabulary_logits=self.class_head(
                        queries.transpose(0, 1), masks, pixels.mask_features, vocabulary, void_embeds
                    ),
                )
                for queries, masks in zip(decoded.intermediate_hidden_states, decoded.masks_queries_logits, strict=True)
            ]
        return outputs[-1]


class DenseSegmenter:
    """The whole model as published, for one forward pass without gradients.

    Args:
        model: whose weights it uses; with an adapter, a mask generator and a trunk that [`dense_feature_maps`] knows.
    """

    def __init__(self, model: MaskAdapterForOpenVocabularySegmentation):
        self.model = model
        assert model.mask_generator is not None
        assert model.adapter is not None
        self.generator: Callable[..., MaskGeneratorOutput] = DenseGenerator(model.mask_generator)
        self.adapter = DenseAdapter(model.adapter)

    @torch.no_grad()
    def __call__(
        self, pixel_values: Tensor, vocabulary: EncodedVocabulary, pixel_mask: Tensor | None = None
    ) -> MaskAdapterSegmentationOutput:
        """Arguments and result as of [`MaskAdapterForOpenVocabularySegmentation`]."""
        model = self.model
        feature_maps = dense_feature_maps(model.clip.vision_model, pixel_values)
        dense_features, void_embeds = feature_maps[-1], model.get_void_embeds()
        generated = self.generator(feature_maps, vocabulary, void_embeds)
        masks = generated.masks_queries_logits.sigmoid() > model.config.mask_threshold
        projected = model.project_features(dense_features)
        embedded = self.adapter(projected, masks, dense_features, model.clip.project)
        texts, void = model.adapt_texts(vocabulary, void_embeds, projected)
        logits = open_vocabulary_logits(embedded.mask_embeddings, texts, void, model.clip.get_logit_scale())
        sizes = torch.tensor(pixel_values.shape[-2:], device=pixel_values.device)
        image_sizes = sizes.expand(len(pixel_values), 2)
        if pixel_mask is not None:
            image_sizes = torch.stack([pixel_mask.amax(dim=axis).sum(dim=-1) for axis in (2, 1)], dim=-1)
        return MaskAdapterSegmentationOutput(
            class_queries_logits=model.ensemble(generated.in_vocabulary_logits, logits, vocabulary),
            masks_queries_logits=generated.masks_queries_logits,
            mask_embeddings=embedded.mask_embeddings,
            semantic_activation_maps=embedded.semantic_activation_maps,
            in_vocabulary_logits=generated.in_vocabulary_logits,
            out_vocabulary_logits=logits,
            image_sizes=image_sizes,
            padded_size=sizes,
        )


@torch.no_grad()
def dense_encode_vocabulary(
    model: MaskAdapterForOpenVocabularySegmentation,
    vocabulary: Vocabulary,
    tokenizer: Callable,
    templates: Sequence[str],
) -> EncodedVocabulary:
    """The text classifier as published: every synonym of every class with every template, padded to the full length."""
    length = model.config.clip_config.text_config.max_position_embeddings
    synonyms = [(number, name) for number, entry in enumerate(vocabulary.classes) for name in entry.synonyms]
    prompts = [template.replace("{}", name) for _, name in synonyms for template in templates]
    embeddings = []
    for start in range(0, len(prompts), _CLASSES_AT_A_TIME):
        tokens = tokenize_prompts(tokenizer, prompts[start : start + _CLASSES_AT_A_TIME], length)
        padded = torch.cat([tokens, tokens[:, -1:].expand(-1, length - tokens.shape[1])], dim=1)
        embeddings.append(F.normalize(model.clip.get_text_features(padded.to(model.device)), dim=-1))
    means = torch.cat(embeddings).unflatten(0, (len(synonyms), len(templates))).mean(dim=1)
    return EncodedVocabulary(
        text_embeds=F.normalize(means, dim=-1),
        class_ids=torch.tensor([number for number, _ in synonyms], device=means.device),
        seen_classes=torch.tensor(vocabulary.seen(model.config.training_vocabulary or []), device=means.device),
    )


def _full_size_masks(outputs: Any, index: int, target_size: Size) -> Tensor:
    """Mask logits of a picture, upsampled to the padded input, cropped, and resized to the wanted size."""
    masks = outputs.masks_queries_logits[index : index + 1]
    masks = F.interpolate(masks, size=tuple(outputs.padded_size.tolist()), mode="bilinear", align_corners=False)
    height, width = outputs.image_sizes[index].tolist()
    return F.interpolate(masks[..., :height, :width], size=target_size, mode="bilinear", align_corners=False)[0]


@torch.no_grad()
def dense_semantic_segmentation(outputs: Any, target_sizes: Sequence[Size]) -> list[Tensor]:
    """Label maps from all class scores at full size."""
    label_maps = []
    for index, target_size in enumerate(target_sizes):
        class_probabilities = outputs.class_queries_logits[index].softmax(dim=-1)[..., :-1]
        mask_probabilities = _full_size_masks(outputs, index, target_size).sigmoid()
        label_maps.append(torch.einsum("qc,qhw->chw", class_probabilities, mask_probabilities).argmax(dim=0))
    return label_maps


@torch.no_grad()
def dense_panoptic_segmentation(
    outputs: Any,
    target_sizes: Sequence[Size],
    threshold: float,
    overlap_threshold: float,
    label_ids_to_fuse: Collection[int],
) -> list[dict[str, Any]]:
    """Panoptic results from all masks at full size, in the form of `post_process_panoptic_segmentation`."""
    results = []
    for index, target_size in enumerate(target_sizes):
        scores, labels = outputs.class_queries_logits[index].softmax(dim=-1).max(dim=-1)
        masks = _full_size_masks(outputs, index, target_size).sigmoid()
        keep = (labels != outputs.class_queries_logits.shape[-1] - 1) & (scores > threshold)
        scores, labels, masks = scores[keep], labels[keep], masks[keep]
        segmentation = torch.zeros(target_size, dtype=torch.long, device=masks.device)
        segments: list[dict[str, Any]] = []
        fused: dict[int, int] = {}
        winners = (scores[:, None, None] * masks).argmax(dim=0) if len(masks) else segmentation
        for number, label in enumerate(labels.tolist()):
            won, own = (winners == number).sum().item(), (masks[number] >= 0.5).sum().item()
            visible = (winners == number) & (masks[number] >= 0.5)
            if won == 0 or own == 0 or visible.sum().item() == 0 or won / own < overlap_threshold:
                continue
            was_fused = label in label_ids_to_fuse
            if was_fused and label in fused:
                segmentation[visible] = fused[label]
                continue
            segmentation[visible] = len(segments) + 1
            segments.append({"id": len(segments) + 1, "label_id": label, "was_fused": was_fused})
            if was_fused:
                fused[label] = len(segments)
        results.append({"segmentation": segmentation, "segments_info": segments})
    return results


__all__ = [
    "DenseAdapter",
    "DenseGenerator",
    "DenseSegmenter",
    "dense_encode_vocabulary",
    "dense_feature_maps",
    "dense_panoptic_segmentation",
    "dense_semantic_segmentation",
]
