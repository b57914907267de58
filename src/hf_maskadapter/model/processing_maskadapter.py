"""Image processor, tokenizer and prompt templates in one object."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedConfig, ProcessorMixin

from .configuration_clips import wrap_clip_config
from .configuration_maskadapter import MaskAdapterConfig
from .image_processing_maskadapter import MaskAdapterImageProcessorPil
from .modeling_text_classifier import tokenize_prompts
from .post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
)
from .vocabulary import PROMPT_TEMPLATES, Vocabulary, check_templates

_CONTEXT_LENGTH = 77  # of every CLIP text tower; for tokenizers that do not tell theirs


class MaskAdapterProcessor(ProcessorMixin):
    """Prepares pictures, masks and class names for a model, and turns its outputs into results.

    ```python
    processor = AutoProcessor.from_pretrained(name)
    inputs = processor(images=image, return_tensors="pt")
    vocabulary = model.encode_vocabulary(["cat, kitten", "sofa", "wall"], processor)
    ```

    Args:
        image_processor (`MaskAdapterImageProcessorPil`):
            The image processor.
        tokenizer (`CLIPTokenizer`):
            The CLIP's tokenizer.
        prompt_templates (`list[str]`, *optional*):
            Texts with one `{}` each, where a class name goes; by default the 14 published ones, `PROMPT_TEMPLATES`.
            They are saved in `processor_config.json`.
        lower_case (`bool`, defaults to `False`):
            Whether prompts are made lower-case, as SigLIP's text tower needs them. Saved likewise.

    Raises:
        ValueError: if a template has not exactly one `{}`.
    """

    post_process_semantic_segmentation = staticmethod(post_process_semantic_segmentation)
    post_process_panoptic_segmentation = staticmethod(post_process_panoptic_segmentation)
    post_process_instance_segmentation = staticmethod(post_process_instance_segmentation)

    def __init__(self, image_processor=None, tokenizer=None, prompt_templates=None, lower_case=False, **kwargs):
        super().__init__(image_processor, tokenizer, **kwargs)
        self.prompt_templates = list(PROMPT_TEMPLATES) if prompt_templates is None else prompt_templates
        check_templates(self.prompt_templates)
        self.lower_case = lower_case

    @classmethod
    def from_clip(
        cls,
        clip_config: PreTrainedConfig,
        tokenizer: Any,
        prompt_templates: Sequence[str] | None = None,
        **image_options: Any,
    ) -> MaskAdapterProcessor:
        """The processor that a CLIP needs: its pixel statistics, its stride, and the length of its texts.

        Args:
            clip_config: the CLIP's configuration, this package's (`model.config.clip_config`) or Transformers' own.
            tokenizer: the CLIP's tokenizer; a copy gets the text tower's length as its `model_max_length`.
            prompt_templates: see [`MaskAdapterProcessor`].
            **image_options: further arguments of [`MaskAdapterImageProcessorPil`], such as `size`, or `image_mean` and
                `image_std` for a CLIP that was trained with other statistics than its kind.
        """
        clip_config = wrap_clip_config(clip_config)
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = clip_config.text_config.max_position_embeddings
        options = {
            "image_mean": list(clip_config.pixel_mean),
            "image_std": list(clip_config.pixel_std),
            "size_divisor": clip_config.size_divisor,
        }
        image_processor = MaskAdapterImageProcessorPil(**options | image_options)
        return cls(image_processor, tokenizer, prompt_templates, lower_case=clip_config.lowers_text)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        segmentation_maps: Any = None,
        masks: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare pictures, class names or both.

        Args:
            images: a picture or a list of them.
            text: a vocabulary in any form that [`Vocabulary.parse`] reads. A model does not need it here:
                `model.encode_vocabulary` tokenizes in batches, once for any number of pictures.
            segmentation_maps: label maps, or with `segments_info` panoptic maps, of the pictures, for training.
            masks: masks to classify in place of generated ones.
            **kwargs: further arguments of the image processor, such as `segments_info`, `size` and `return_tensors`.

        Returns:
            The image processor's fields, if there are pictures; and for a vocabulary `input_ids`
            `(num_synonyms * num_templates, context_length)` in the order class, synonym, template, and `class_ids`
            `(num_synonyms,)`.

        Raises:
            ValueError: if there is neither a picture nor a vocabulary, or maps or masks come without pictures; as
                [`Vocabulary.parse`] and [`MaskAdapterProcessor.tokenize`].
        """
        of_images = {"segmentation_maps": segmentation_maps, "masks": masks}
        of_images = {name: value for name, value in of_images.items() if value is not None}
        if images is None and text is None:
            raise ValueError("Nothing to process: give images, text (a vocabulary) or both.")
        if images is None and of_images:
            raise ValueError(f"{' and '.join(of_images)} need the images that they belong to.")

        return_tensors = kwargs.pop("return_tensors", None)
        features = BatchFeature()
        if images is not None:
            features.update(self.image_processor(images, return_tensors=return_tensors, **of_images, **kwargs))
        elif kwargs:
            raise ValueError(f"{', '.join(kwargs)}: arguments of the image processor, but there are no images.")
        if text is not None:
            prompts, class_ids = Vocabulary.parse(text).prompts(self.prompt_templates)
            tokens = {"input_ids": self.tokenize(prompts), "class_ids": torch.tensor(class_ids)}
            features.update(BatchFeature(tokens, tensor_type=return_tensors))
        return features

    @property
    def context_length(self) -> int:
        """Number of tokens that the text tower reads, start and end tokens included."""
        length = self.tokenizer.model_max_length
        return length if length < 10**6 else _CONTEXT_LENGTH  # Transformers writes 1e30 for "not known"

    def tokenize(self, prompts: str | Sequence[str]) -> Tensor:
        """Token ids of prompts, padded at the right with the tokenizer's padding token, of CLIP's the end token.

        Args:
            prompts: texts as they are; templates are not applied.

        Returns:
            `torch.LongTensor` of shape `(num_prompts, context_length)`.

        Raises:
            ValueError: if there is no prompt, or one is longer than the text tower reads; it is never cut silently.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("There is no prompt to tokenize.")
        return tokenize_prompts(
            self.tokenizer, prompts, self.context_length, pad_to_max_length=True, lower_case=self.lower_case
        )


AutoProcessor.register(MaskAdapterConfig, MaskAdapterProcessor, exist_ok=True)


__all__ = ["MaskAdapterProcessor"]
