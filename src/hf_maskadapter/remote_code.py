"""Save a model with the code that defines it, for people who load it without installing this package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel, ProcessorMixin
from transformers.dynamic_module_utils import custom_object_save

from .pipeline_zero_shot_image_segmentation import TASK, ZeroShotImageSegmentationPipeline


@contextmanager
def _code_goes_along(auto_classes: dict[type, str]) -> Iterator[None]:
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
    is_segmenter = hasattr(model, "encode_vocabulary")
    auto_classes = {
        type(model.config): "AutoConfig",
        type(model): "AutoModelForUniversalSegmentation" if is_segmenter else "AutoModel",
    }
    if processor is not None:
        auto_classes[type(processor)] = "AutoProcessor"
        auto_classes[type(processor.image_processor)] = "AutoImageProcessor"
    with _code_goes_along(auto_classes):
        try:
            pipeline_class = ZeroShotImageSegmentationPipeline
            serves_pipeline = is_segmenter and processor is not None
            if serves_pipeline:
                model.config.custom_pipelines = {
                    TASK: {
                        "impl": f"{pipeline_class.__module__.rpartition('.')[2]}.{pipeline_class.__name__}",
                        "pt": ["AutoModelForUniversalSegmentation"],
                        "type": "multimodal",
                    }
                }
            model.save_pretrained(output_dir)
            if processor is not None:
                processor.save_pretrained(output_dir)
            if serves_pipeline:
                custom_object_save(pipeline_class, output_dir)
        finally:
            for name in ("auto_map", "custom_pipelines"):
                if hasattr(model.config, name):
                    delattr(model.config, name)


__all__ = ["save_with_remote_code"]
