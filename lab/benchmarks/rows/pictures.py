"""The image tower, and the way from a picture to its label map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from hf_maskadapter import (
    ConvNextClipModel,
    EncodedVocabulary,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterImageProcessor,
    MaskGeneratorOutput,
)
from lab.benchmarks.builds import of_build
from lab.benchmarks.model_sizes import build_config

Inputs = Mapping[str, Any]

_TOWER_LAYER_SCALE = 0.1  # so that what the blocks compute shows in results


def set_precision(model: nn.Module, precision: str) -> nn.Module:
    """A model as `from_pretrained` and `use_int8` would give it for `"float32"`, `"bfloat16"` or `"int8"`."""
    if precision == "bfloat16":
        generator = getattr(model, "mask_generator", None)
        model.to(torch.bfloat16)
        if generator is not None:
            generator.float()
    elif precision == "int8":
        from hf_maskadapter import use_int8

        use_int8(model)
    return model


def image_tower(inputs: Inputs, precision: str = "float32") -> Callable[[], Tensor]:
    """Pixels to CLIP's dense features."""
    config = build_config(inputs["model_size"]).clip_config
    config.layer_scale_init_value = _TOWER_LAYER_SCALE
    torch.manual_seed(0)
    clip = set_precision(ConvNextClipModel(config).eval(), precision)
    del clip.text_model
    return torch.no_grad()(lambda: clip.get_feature_maps(inputs["pixel_values"])[-1].float())


class _DrawnMasks(nn.Module):
    """A generator that computes everything, and returns drawn masks and scores instead of random weights' noise."""

    def __init__(self, generator: Callable[..., Any], inputs: Inputs):
        super().__init__()
        self.generator = generator
        self.drawn = MaskGeneratorOutput(
            masks_queries_logits=inputs["masks"], in_vocabulary_logits=inputs["class_scores"]
        )

    def forward(self, *arguments: Any, **options: Any) -> MaskGeneratorOutput:
        self.generator(*arguments, **options)
        return self.drawn


def _segmenter(inputs: Inputs) -> Any:
    torch.manual_seed(0)
    num_masks = inputs["masks"].shape[1]
    model = MaskAdapterForOpenVocabularySegmentation(build_config(inputs["model_size"], num_masks)).eval()
    del model.clip.text_model
    return model


def _segmenting(
    inputs: Inputs, forward: Callable[..., Any], post_process: Callable[..., Any], dtype: torch.dtype
) -> Callable[[], Tensor]:
    image = Image.fromarray(inputs["picture"].numpy())
    sides = sorted(image.size)
    processor = MaskAdapterImageProcessor(size={"shortest_edge": sides[0], "longest_edge": sides[1]})
    texts = inputs["text_embeds"]
    vocabulary = EncodedVocabulary(
        text_embeds=texts,
        class_ids=torch.arange(len(texts)),
        seen_classes=torch.zeros(len(texts), dtype=torch.bool),
    )

    @torch.no_grad()
    def segment() -> Tensor:
        prepared = processor(images=[image], return_tensors="pt")
        outputs = forward(prepared["pixel_values"].to(dtype), vocabulary, pixel_mask=prepared["pixel_mask"])
        return post_process(outputs, [(image.height, image.width)])[0]

    return segment


def label_map(inputs: Inputs, precision: str = "float32") -> Callable[[], Tensor]:
    """A picture to the class of each of its pixels."""
    model = set_precision(_segmenter(inputs), precision)
    model.mask_generator = _DrawnMasks(model.mask_generator, inputs)
    post_process = of_build("post_processing_maskadapter", "post_process_semantic_segmentation")
    return _segmenting(inputs, model, post_process, model.dtype)


def dense_label_map(inputs: Inputs) -> Callable[[], Tensor]:
    """The same in the published way."""
    from lab.benchmarks.dense_opponent import DenseSegmenter, dense_semantic_segmentation

    opponent = DenseSegmenter(_segmenter(inputs))
    opponent.generator = _DrawnMasks(opponent.generator, inputs)
    return _segmenting(inputs, opponent, dense_semantic_segmentation, torch.float32)
