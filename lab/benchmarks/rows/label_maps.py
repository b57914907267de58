"""Outputs to label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lab.benchmarks.builds import of_build

Inputs = Mapping[str, Any]


def _outputs(inputs: Inputs) -> Any:
    return SimpleNamespace(**{name: value for name, value in inputs.items() if isinstance(value, Tensor)})


def label_map(inputs: Inputs) -> Callable[[], Tensor]:
    """The class of every pixel."""
    post_process = of_build("post_processing_maskadapter", "post_process_semantic_segmentation")
    outputs, sizes = _outputs(inputs), [tuple(inputs["image_sizes"][0].tolist())]
    return lambda: post_process(outputs, sizes)[0]


def dense_label_map(inputs: Inputs) -> Callable[[], Tensor]:
    """The same from every class's score at full size."""
    from lab.benchmarks.dense_opponent import dense_semantic_segmentation

    outputs, sizes = _outputs(inputs), [tuple(inputs["image_sizes"][0].tolist())]
    return lambda: dense_semantic_segmentation(outputs, sizes)[0]


def mask2former_label_map(inputs: Inputs) -> Callable[[], Tensor]:
    """Transformers' own, which resizes masks to 384×384, sums, and resizes the sums."""
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    processor = Mask2FormerImageProcessorPil()
    outputs, sizes = _outputs(inputs), [tuple(inputs["image_sizes"][0].tolist())]

    @torch.no_grad()
    def post_process() -> Tensor:
        return processor.post_process_semantic_segmentation(outputs, sizes)[0]

    return post_process
