"""What the speed benchmark measures: parts of the model at full size, each against the plain dense implementation.

A case holds functions that compute the same from the same inputs. Weights are random, which does not change what is
computed; masks and class scores are drawn as in `realistic_inputs`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hf_maskadapter.model.configuration_maskadapter import MaskAdapterConfig
from hf_maskadapter.model.image_processing_maskadapter import MaskAdapterImageProcessor
from hf_maskadapter.model.modeling_adapter import MaskAdapterModel
from hf_maskadapter.model.modeling_mask_generator import MaskGeneratorOutput
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.modeling_text_classifier import EncodedVocabulary
from hf_maskadapter.model.post_processing_maskadapter import (
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
)
from hf_maskadapter.model.vocabulary import PROMPT_TEMPLATES, Vocabulary
from lab.benchmarks.dense_opponent import (
    DenseAdapter,
    DenseGenerator,
    DenseSegmenter,
    dense_encode_vocabulary,
    dense_feature_maps,
    dense_panoptic_segmentation,
    dense_semantic_segmentation,
)
from lab.benchmarks.model_sizes import END_OF_TEXT, ModelSize, build_config
from lab.benchmarks.realistic_inputs import SegmentMaps, draw_class_scores, draw_masks, draw_outputs

PACKAGE, DENSE = "this package", "dense"

_ASPECT = 0.75
_STRIDE, _MASK_STRIDE = 32, 4
_TEXT_CLASSES, _SYNONYMS_PER_CLASS = 10, 2
_OVERLAP = 0.8


@dataclass(frozen=True)
class Setting:
    """How large a case is.

    Args:
        size: longer side of the picture in pixels; the shorter one is three quarters of it.
        num_masks: masks, of which 30 % are empty.
        num_classes: classes.
    """

    size: int = 896
    num_masks: int = 250
    num_classes: int = 150

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the picture, multiples of 32."""
        height, width = (-(-round(side) // _STRIDE) * _STRIDE for side in (self.size, _ASPECT * self.size))
        return height, width

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the generator's masks."""
        height, width = self.padded_size
        return height // _MASK_STRIDE, width // _MASK_STRIDE

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of CLIP's feature grid."""
        height, width = self.padded_size
        return height // _STRIDE, width // _STRIDE


@dataclass
class Case:
    """Functions that compute the same.

    Args:
        contenders: name → function without arguments; this package's first, the dense one second, others for
            comparison only.
        difference: how far the results of the first two are apart, as a fraction.
        tolerance: largest difference in fp32.
        needs_gradients: whether it is about training.
    """

    contenders: dict[str, Callable[[], Any]]
    difference: Callable[[Any, Any], float]
    tolerance: float = 1e-3
    needs_gradients: bool = False


@dataclass
class Workshop:
    """Builds cases, and keeps models between them.

    Args:
        maps: to draw masks from.
        model_size: of CLIP and generator.
        device: where everything is.
    """

    maps: SegmentMaps
    model_size: ModelSize = "large"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _models: dict[Any, nn.Module] = field(default_factory=dict)

    def config(self, num_masks: int = 250) -> MaskAdapterConfig:
        """The complete model's configuration."""
        return build_config(self.model_size, num_masks)

    def segmenter(self, num_masks: int = 250) -> MaskAdapterForOpenVocabularySegmentation:
        """A complete model with random weights."""
        return self._model(MaskAdapterForOpenVocabularySegmentation, num_masks)

    def adapter(self) -> MaskAdapterModel:
        """An adapter with random weights."""
        return self._model(MaskAdapterModel, 0)

    def _model(self, model_class: type, num_masks: int) -> Any:
        key = model_class, num_masks
        if key not in self._models:
            self._models.clear()  # one at a time fits into memory
            torch.manual_seed(0)
            self._models[key] = model_class(self.config(num_masks or 250)).eval().to(self.device)
        return self._models[key]

    def build(self, name: str, setting: Setting) -> Case:
        """A case by its name, one of `CASES`."""
        return CASES[name].build(self, setting)

    def binary_masks(self, setting: Setting) -> Tensor:
        """Masks as the generator's would be after the threshold, `(1, num_masks, height, width)`."""
        return (draw_masks(self.maps.maps[0], setting.mask_size, setting.num_masks).logits > 0)[None].to(self.device)

    def features(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """Random dense features and their projection."""
        torch.manual_seed(1)
        clip = self.config().clip_config
        dense, projected = (
            torch.randn(1, channels, *setting.grid, device=self.device)
            for channels in (clip.feature_dim, clip.projection_dim)
        )
        return dense, projected

    def projection(self) -> nn.Sequential:
        """A stand-in for CLIP's projection, of the same form."""
        clip = self.config().clip_config
        torch.manual_seed(2)
        hidden = clip.projection_hidden_dim or clip.feature_dim
        layers = [nn.LayerNorm(clip.feature_dim), nn.Linear(clip.feature_dim, hidden), nn.GELU()]
        return nn.Sequential(*layers, nn.Linear(hidden, clip.projection_dim, bias=False)).to(self.device)

    def vocabulary(self, num_classes: int) -> EncodedVocabulary:
        """Random text embeddings, one a class."""
        torch.manual_seed(3)
        texts = torch.randn(num_classes, self.config().clip_config.projection_dim, device=self.device)
        return EncodedVocabulary(
            text_embeds=nn.functional.normalize(texts, dim=-1),
            class_ids=torch.arange(num_classes, device=self.device),
            seen_classes=torch.zeros(num_classes, dtype=torch.bool, device=self.device),
        )


def largest_difference(ours: Tensor, others: Tensor) -> float:
    """Largest absolute difference as a fraction of the largest absolute value."""
    others = others.float()
    return ((ours.float() - others).abs().amax() / others.abs().amax().clamp(min=1e-12)).item()


def share_of_different(ours: Tensor, others: Tensor) -> float:
    """Share of positions whose integers differ."""
    return (ours != others).double().mean().item()


def _build_adapter(workshop: Workshop, setting: Setting) -> Case:
    adapter, masks = workshop.adapter(), workshop.binary_masks(setting)
    dense, projected = workshop.features(setting)
    arguments = projected, masks, dense, workshop.projection()
    return Case(
        {
            PACKAGE: lambda: (
                adapter(*arguments, output_semantic_activation_maps=False, return_dict=True).mask_embeddings
            ),
            DENSE: lambda: DenseAdapter(adapter)(*arguments).mask_embeddings,
        },
        largest_difference,
    )


def _build_training(workshop: Workshop, setting: Setting) -> Case:
    adapter, masks = workshop.adapter(), workshop.binary_masks(setting)
    dense, projected = workshop.features(setting)
    arguments = projected, masks, dense, workshop.projection().requires_grad_(False)

    def step(forward: Callable[..., Any]) -> Tensor:
        adapter.zero_grad()
        forward(*arguments).mask_embeddings.square().sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])

    return Case(
        {
            PACKAGE: partial(step, lambda *values: adapter(*values, return_dict=True)),
            DENSE: partial(step, DenseAdapter(adapter)),
        },
        largest_difference,
        needs_gradients=True,
    )


def _build_backbone(workshop: Workshop, setting: Setting) -> Case:
    clip = workshop.segmenter(setting.num_masks).clip
    torch.manual_seed(4)
    pixel_values = torch.randn(1, 3, *setting.padded_size, device=workshop.device)
    return Case(
        {
            PACKAGE: lambda: clip.get_feature_maps(pixel_values)[-1],
            DENSE: lambda: dense_feature_maps(clip.vision_model, pixel_values)[-1],
        },
        largest_difference,
    )


def _build_generator(workshop: Workshop, setting: Setting) -> Case:
    model = workshop.segmenter(setting.num_masks)
    generator: Any = model.mask_generator
    published = DenseGenerator(generator)
    vocabulary, void = workshop.vocabulary(setting.num_classes), model.get_void_embeds().detach()
    torch.manual_seed(5)
    feature_maps = tuple(
        torch.randn(1, channels, *(side // stride for side in setting.padded_size), device=workshop.device)
        for channels, stride in zip(
            model.config.mask_generator_config.feature_channels,
            model.config.mask_generator_config.feature_strides,
            strict=True,
        )
    )
    class_predictor = nn.Linear(model.config.mask_generator_config.hidden_dim, setting.num_classes + 1)
    class_predictor.to(workshop.device)

    def mask2former() -> Any:
        pixels = published.pixel_decoder(list(feature_maps))
        output = published.transformer_module(pixels.multi_scale_features, pixels.mask_features)
        return [class_predictor(queries.transpose(0, 1)) for queries in output.intermediate_hidden_states]

    return Case(
        {
            PACKAGE: lambda: generator(feature_maps, vocabulary, void, return_dict=True).masks_queries_logits,
            DENSE: lambda: published(feature_maps, vocabulary, void).masks_queries_logits,
            "Transformers' Mask2Former": mask2former,
        },
        largest_difference,
        tolerance=1e-2,  # a rounded bit can flip an attention mask's pixel
    )


def _build_semantic(workshop: Workshop, setting: Setting) -> Case:
    outputs = _drawn_outputs(workshop, setting)
    sizes = [setting.padded_size]
    return Case(
        {
            PACKAGE: lambda: post_process_semantic_segmentation(outputs, sizes)[0],
            DENSE: lambda: dense_semantic_segmentation(outputs, sizes)[0],
            "Transformers' Mask2Former": lambda: _mask2former_processor().post_process_semantic_segmentation(
                outputs, sizes
            ),
        },
        share_of_different,
        tolerance=1e-4,
    )


def _build_panoptic(workshop: Workshop, setting: Setting) -> Case:
    outputs = _drawn_outputs(workshop, setting)
    sizes, stuff = [setting.padded_size], set(range(0, setting.num_classes, 2))
    return Case(
        {
            PACKAGE: lambda: post_process_panoptic_segmentation(
                outputs, 0.0, overlap_mask_area_threshold=_OVERLAP, label_ids_to_fuse=stuff, target_sizes=sizes
            )[0]["segmentation"],
            DENSE: lambda: dense_panoptic_segmentation(outputs, sizes, 0.0, _OVERLAP, stuff)[0]["segmentation"],
            "Transformers' Mask2Former": lambda: _mask2former_processor().post_process_panoptic_segmentation(
                outputs, threshold=0.0, label_ids_to_fuse=stuff, target_sizes=sizes
            ),
        },
        share_of_different,
    )


def _drawn_outputs(workshop: Workshop, setting: Setting) -> Any:
    outputs = draw_outputs(workshop.maps.maps[0], setting.padded_size, setting.num_masks, setting.num_classes)
    for name in ("class_queries_logits", "masks_queries_logits"):
        outputs[name] = outputs[name].to(workshop.device)
    return outputs


def _mask2former_processor() -> Any:
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    return Mask2FormerImageProcessorPil()


class LetterTokenizer:
    """One token for four letters, about as many as CLIP's tokenizer makes of English."""

    def __call__(self, prompts: Iterable[str], **_: Any) -> dict[str, list[list[int]]]:
        """Token ids of prompts, as a Hugging Face tokenizer returns them."""
        ids = []
        for prompt in prompts:
            pieces = [prompt[start : start + 4] for start in range(0, len(prompt), 4)]
            ids.append([END_OF_TEXT - 1, *(sum(map(ord, piece)) % (END_OF_TEXT - 1) for piece in pieces), END_OF_TEXT])
        return {"input_ids": ids}


def _build_text(workshop: Workshop, setting: Setting) -> Case:
    model = workshop.segmenter(setting.num_masks)
    letters = np.random.default_rng(0)
    vocabulary = Vocabulary.from_list(
        [
            ["".join(letters.choice(list(string.ascii_lowercase), 9)) for _ in range(_SYNONYMS_PER_CLASS)]
            for _ in range(_TEXT_CLASSES)
        ]
    )
    tokenizer = LetterTokenizer()
    return Case(
        {
            PACKAGE: lambda: model.encode_vocabulary(vocabulary, tokenizer).text_embeds,
            DENSE: lambda: dense_encode_vocabulary(model, vocabulary, tokenizer, PROMPT_TEMPLATES).text_embeds,
        },
        largest_difference,
    )


class DrawnMasks(nn.Module):
    """A generator that computes everything, and returns drawn masks and scores instead of random weights' noise."""

    def __init__(self, generator: Callable[..., MaskGeneratorOutput], output: MaskGeneratorOutput):
        super().__init__()
        self.generator, self.output = generator, output

    def forward(self, *arguments: Any, **options: Any) -> MaskGeneratorOutput:
        self.generator(*arguments, **options)
        return self.output


def _build_pipeline(workshop: Workshop, setting: Setting) -> Case:
    model = workshop.segmenter(setting.num_masks)
    opponent, generator = DenseSegmenter(model), model.mask_generator
    assert generator is not None
    masks = draw_masks(workshop.maps.maps[0], setting.mask_size, setting.num_masks)
    drawn = MaskGeneratorOutput(
        masks_queries_logits=masks.logits[None].to(workshop.device),
        in_vocabulary_logits=draw_class_scores(masks.segments, setting.num_classes)[None].to(workshop.device),
    )
    opponent.generator = DrawnMasks(opponent.generator, drawn)
    drawing = DrawnMasks(generator, drawn)
    height, width = setting.padded_size
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    processor = MaskAdapterImageProcessor(
        size={"shortest_edge": min(height, width), "longest_edge": max(height, width)}
    )
    vocabulary = workshop.vocabulary(setting.num_classes)

    def segment(forward: Callable[..., Any], post_process: Callable[..., Any]) -> Tensor:
        inputs = processor(images=[image], return_tensors="pt")
        pixels, pixel_mask = (inputs[name].to(workshop.device) for name in ("pixel_values", "pixel_mask"))
        outputs = forward(pixels, vocabulary, pixel_mask=pixel_mask)
        return post_process(outputs, [(height, width)])[0]

    def package(*arguments: Any, **options: Any) -> Any:
        model.mask_generator = drawing
        try:
            return model(*arguments, **options, return_dict=True)
        finally:
            model.mask_generator = generator

    contenders: dict[str, Callable[[], Any]] = {
        PACKAGE: partial(segment, package, post_process_semantic_segmentation),
        DENSE: partial(segment, opponent, dense_semantic_segmentation),
    }
    if workshop.model_size != "tiny":
        contenders["Transformers' CLIPSeg, one prompt"] = _clipseg(workshop.device)
    return Case(contenders, share_of_different, tolerance=1e-2)  # random weights: scores that hardly differ


def _clipseg(device: torch.device) -> Callable[[], Any]:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    torch.manual_seed(6)
    model = CLIPSegForImageSegmentation(CLIPSegConfig()).eval().to(device)
    pixel_values = torch.randn(1, 3, 352, 352, device=device)
    input_ids = torch.tensor([[49406, 320, 2368, 49407]], device=device)
    return lambda: model(pixel_values=pixel_values, input_ids=input_ids).logits.sigmoid()


@dataclass(frozen=True)
class CaseKind:
    """A kind of case.

    Args:
        build: makes it.
        axes: fields of [`Setting`] that it depends on.
        what: in words.
    """

    build: Callable[[Workshop, Setting], Case]
    axes: tuple[str, ...]
    what: str


CASES: dict[str, CaseKind] = {
    "adapter": CaseKind(_build_adapter, ("size", "num_masks"), "binary masks to mask embeddings"),
    "training": CaseKind(_build_training, ("size", "num_masks"), "forward and backward pass of the adapter"),
    "semantic": CaseKind(_build_semantic, ("size", "num_masks", "num_classes"), "outputs to a label map"),
    "panoptic": CaseKind(_build_panoptic, ("size", "num_masks"), "outputs to panoptic segments"),
    "text": CaseKind(_build_text, (), "10 classes of two names, 14 prompts each, to a text classifier"),
    "backbone": CaseKind(_build_backbone, ("size",), "pixels to feature maps"),
    "generator": CaseKind(_build_generator, ("size", "num_masks"), "feature maps to masks and their classes"),
    "pipeline": CaseKind(_build_pipeline, ("size", "num_masks", "num_classes"), "picture to label map"),
}


__all__ = [
    "CASES",
    "DENSE",
    "PACKAGE",
    "Case",
    "CaseKind",
    "ModelSize",
    "Setting",
    "Workshop",
    "largest_difference",
    "share_of_different",
]
