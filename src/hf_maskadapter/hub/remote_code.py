"""Save a model with the code that defines it, for people who load it without installing this package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save

from ..model.pipeline_zero_shot_image_segmentation import TASK, ZeroShotImageSegmentationPipeline


@contextmanager
def _code_goes_along(auto_classes: dict[Any, str]) -> Iterator[None]:
    """Have `save_pretrained` copy the code of classes; Transformers keeps that switch on the class, so turn it back."""
    before = {owner: owner._auto_class for owner in auto_classes}
    for owner, auto_class in auto_classes.items():
        owner._auto_class = auto_class
    try:
        yield
    finally:
        for owner, auto_class in before.items():
            owner._auto_class = auto_class


def save_with_remote_code(
    output_dir: str | os.PathLike, model: PreTrainedModel, processor: ProcessorMixin | None = None
) -> None:
    """Save a model, its processor and their code, so that `trust_remote_code=True` loads them without this package.

    The folder serves `AutoConfig`, `AutoModelForUniversalSegmentation` (`AutoModel` for a part of a segmenter),
    `AutoProcessor`, `AutoImageProcessor` and, with a processor, `pipeline("zero-shot-image-segmentation")`.

    Args:
        output_dir: folder to write into.
        model: a model of this package.
        processor: its processor.
    """
    model.save_pretrained(output_dir)
    save_remote_code(output_dir, type(model), model.config, processor)


def save_remote_code(
    output_dir: str | os.PathLike,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    processor: ProcessorMixin | None = None,
) -> None:
    """Save all that [`save_with_remote_code`] does but the weights: configuration, processor and all their code.

    Args:
        output_dir: folder to write into.
        model_class: the model's class.
        config: its configuration.
        processor: its processor.
    """
    is_segmenter = hasattr(model_class, "encode_vocabulary")
    auto_class = "AutoModelForUniversalSegmentation" if is_segmenter else "AutoModel"
    auto_classes: dict[type, str] = {type(config): "AutoConfig"}
    if processor is not None:
        auto_classes[type(processor)] = "AutoProcessor"
        auto_classes[type(processor.image_processor)] = "AutoImageProcessor"
    try:
        config.auto_map = {auto_class: _reference(model_class)}
        if is_segmenter and processor is not None:
            pipeline_class = ZeroShotImageSegmentationPipeline
            config.custom_pipelines = {
                TASK: {"impl": _reference(pipeline_class), "pt": [auto_class], "type": "multimodal"}
            }
            custom_object_save(pipeline_class, output_dir)
        with _code_goes_along(auto_classes):
            config.save_pretrained(output_dir)
            if processor is not None:
                processor.save_pretrained(output_dir)
        custom_object_save(model_class, output_dir)
    finally:
        for name in ("auto_map", "custom_pipelines"):
            if hasattr(config, name):
                delattr(config, name)


def _reference(owner: type) -> str:
    """How a configuration names a class of the code beside it."""
    return f"{owner.__module__.rpartition('.')[2]}.{owner.__name__}"


__all__ = ["save_remote_code", "save_with_remote_code"]
