"""Any of Transformers' universal segmenters (Mask2Former, MaskFormer, OneFormer, EoMT, DETR) as a mask generator.

Its masks are used, and its probability that a query found nothing; its labels are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForUniversalSegmentation, PreTrainedModel
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING

from .configuration_mask_generators import UniversalMaskGeneratorConfig
from .modeling_mask_generator import MaskGeneratorOutput, PictureMaskGenerator, place_masks, resize_picture, wrap

_TASK_TEXT = "the task is panoptic"  # OneFormer's task that asks for everything


class UniversalMaskGenerator(PictureMaskGenerator):
    """A universal segmenter as a class-agnostic mask generator, with preprocessing and resolution of its own.

    ```python
    segmenter = AutoModelForUniversalSegmentation.from_pretrained(name)
    generator = UniversalMaskGenerator.from_segmenter(segmenter, AutoImageProcessor.from_pretrained(name))
    ```

    Each picture is prepared as the segmenter's image processor does with a picture alone, from the pixels that the CLIP
    sees. EoMT always sees whole pictures, scaled to fit its square; its processor's windows are not used.
    """

    config: UniversalMaskGeneratorConfig
    config_class = UniversalMaskGeneratorConfig

    def __init__(self, config: UniversalMaskGeneratorConfig):
        super().__init__(config)
        self.segmenter = _without_double_precision(
            AutoModelForUniversalSegmentation.from_config(config.segmenter_config)
        )
        self.post_init()

    @classmethod
    def from_segmenter(cls, segmenter: PreTrainedModel, processor: Any, **fields: Any) -> UniversalMaskGenerator:
        """Wrap a segmenter; its weights are neither copied nor changed.

        Args:
            segmenter: a model of `AutoModelForUniversalSegmentation`. Only of OneFormer, Transformers holds a weight
                of its loss in double precision, which Apple's GPUs refuse; it becomes one of single precision.
            processor: its image processor, or OneFormer's processor.
            **fields: fields of [`UniversalMaskGeneratorConfig`] in place of those that follow from these.

        Raises:
            ValueError: if it is no such model, or OneFormer's tokenizer is missing.
            StrictDataclassClassValidationError: if its processor prepares pictures in a way that is not known here.
        """
        is_known = type(segmenter.config) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
        if not is_known or segmenter.main_input_name == "pixel_values_videos":
            raise ValueError(
                f"{type(segmenter).__name__} is no universal segmenter for pictures: load it with "
                "AutoModelForUniversalSegmentation (Mask2Former, MaskFormer, OneFormer, EoMT, ...)."
            )
        preparation = _preparation(segmenter.config, getattr(processor, "image_processor", processor))
        if segmenter.config.model_type == "oneformer":
            preparation["task_input_ids"] = _task_tokens(processor, segmenter.config.task_seq_len)
        config = cls.config_class(segmenter_config=segmenter.config, **preparation | fields)
        return wrap(lambda: cls(config), "segmenter", _without_double_precision(segmenter))

    def prepare(self, picture: Tensor) -> tuple[Tensor, tuple[float, float]]:
        """What the segmenter sees of a picture.

        Args:
            picture: `(3, height, width)` floats in [0, 255].

        Returns:
            Normalised pixels `(3, input_height, input_width)`, and the fraction of its height and width that the
            picture takes up.

        Raises:
            ValueError: if the resized picture is larger than `pad_size`.
        """
        config = self.config
        picture = resize_picture(picture, _resized_size(picture.shape[-2:], config.size, config.size_divisor))
        size, padded = tuple(picture.shape[-2:]), tuple(picture.shape[-2:])
        if config.pad_size is not None:
            padded = (config.pad_size["height"], config.pad_size["width"])
            if size[0] > padded[0] or size[1] > padded[1]:
                raise ValueError(
                    f"A picture of {size[0]}x{size[1]} pixels does not fit the mask generator's pad_size of "
                    f"{padded[0]}x{padded[1]}: choose a smaller size for it."
                )
        margins = (0, padded[1] - size[1], 0, padded[0] - size[0])
        mean, std = (picture.new_tensor(values)[:, None, None] for values in (config.image_mean, config.image_std))
        if config.pad_black:
            picture, margins = F.pad(picture, margins), (0, 0, 0, 0)
        pixels = F.pad((picture - mean) / std, margins)
        return pixels, (size[0] / padded[0], size[1] / padded[1])

    def find_masks(self, pictures: list[Tensor], padded_size: tuple[int, int]) -> MaskGeneratorOutput:
        """Masks and void probabilities; pictures of one size are seen together, others one by one."""
        prepared = [self.prepare(picture) for picture in pictures]
        of_one_size = len({pixels.shape for pixels, _ in prepared}) == 1
        batches = [[pixels for pixels, _ in prepared]] if of_one_size else [[pixels] for pixels, _ in prepared]
        masks: list[Tensor] = []
        class_logits = []
        for batch in batches:
            of_batch, of_batch_classes = self._segment(torch.stack(batch))
            masks += of_batch.unbind()
            class_logits.append(of_batch_classes)
        placed = [
            place_masks(of_picture, used, (picture.shape[-2], picture.shape[-1]), padded_size, self.config.mask_stride)
            for of_picture, (_, used), picture in zip(masks, prepared, pictures, strict=True)
        ]
        void = torch.cat(class_logits).softmax(dim=-1)[..., -1] if self.config.use_void_scores else None
        return MaskGeneratorOutput(masks_queries_logits=torch.stack(placed), void_probabilities=void)

    def _segment(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The segmenter's mask logits and class logits."""
        extra = {}
        if self.config.task_input_ids is not None:
            tokens = torch.tensor(self.config.task_input_ids, device=pixel_values.device)
            extra["task_inputs"] = tokens.expand(len(pixel_values), -1)
        output = self.segmenter(pixel_values=pixel_values, **extra, return_dict=True)
        if "pred_masks" in output:  # DETR's names
            return output.pred_masks.float(), output.logits.float()
        return output.masks_queries_logits.float(), output.class_queries_logits.float()


def _without_double_precision(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.parameters():
        if parameter.dtype == torch.float64:
            parameter.data = parameter.data.float()
    return model


def _preparation(config: Any, image_processor: Any) -> dict[str, Any]:
    """Fields of [`UniversalMaskGeneratorConfig`] that say what an image processor does."""
    scale = image_processor.rescale_factor if image_processor.do_rescale else 1.0
    fields: dict[str, Any] = {"image_mean": [0.0] * 3, "image_std": [1 / scale] * 3}
    if image_processor.do_normalize:
        fields["image_mean"] = [value / scale for value in image_processor.image_mean]
        fields["image_std"] = [value / scale for value in image_processor.image_std]
    fields["size"] = _plain_size(image_processor.size) if image_processor.do_resize else None
    fields["size_divisor"] = getattr(image_processor, "size_divisor", None) or 1
    fields["pad_size"] = _plain_size(getattr(image_processor, "pad_size", None))
    if config.model_type.startswith("eomt"):
        side = config.image_size
        fields |= {"size": {"shortest_edge": side, "longest_edge": side}, "pad_black": True}
        fields["pad_size"] = {"height": side, "width": side}
    return fields


def _plain_size(size: Any) -> dict[str, int] | None:
    if size is None:
        return None
    return {name: int(value) for name, value in dict(size).items() if value is not None}


def _task_tokens(processor: Any, length: int) -> list[int]:
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            "OneFormer is told its task as text: give its OneFormerProcessor, which holds a tokenizer, not the image "
            "processor alone."
        )
    encoded = tokenizer(_TASK_TEXT, padding="max_length", max_length=length, truncation=True)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    return [token * attended for token, attended in zip(ids, mask, strict=True)]


def _resized_size(size: Sequence[int], wanted: dict[str, int] | None, divisor: int) -> tuple[int, int]:
    height, width = size
    if wanted is None:
        new_size = (height, width)
    elif "height" in wanted:
        new_size = (wanted["height"], wanted["width"])
    else:
        new_size = get_size_with_aspect_ratio((height, width), wanted["shortest_edge"], wanted.get("longest_edge"))
    new_height, new_width = (-(-side // divisor) * divisor for side in new_size)
    return new_height, new_width


AutoModel.register(UniversalMaskGeneratorConfig, UniversalMaskGenerator, exist_ok=True)


__all__ = ["UniversalMaskGenerator"]
