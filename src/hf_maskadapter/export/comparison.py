"""How far an exported model is from the one in PyTorch, on pictures of two shapes that are drawn for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline
from ..model.processing_maskadapter import MaskAdapterProcessor
from .segmenter import ExportedSegmenter

LABELS = ("red circle", "blue square", "green triangle", "grass", "sky")
_SIZES = ((129, 201), (230, 97))  # odd, wide and tall
_OWN_BOXES = ((0.1, 0.1, 0.5, 0.6), (0.4, 0.3, 0.9, 0.9), (0.0, 0.0, 0.01, 0.01))


def measure_difference(
    segmenter: MaskAdapterForOpenVocabularySegmentation, processor: MaskAdapterProcessor, folder: Path
) -> dict[str, Any]:
    """Compare results of an exported model with those of the model.

    Args:
        segmenter: the model.
        processor: its processor.
        folder: of the exported model.

    Returns:
        `engine` and `precision` that ran; `least_cosine` of the embeddings of the same three masks, and
        `largest_score_difference` of their scores; with a mask generator `equal_pixels`, the share of equal pixels of
        semantic label maps.
    """
    pipeline = ZeroShotImageSegmentationPipeline(model=segmenter, processor=processor, device="cpu")
    exported = ExportedSegmenter.from_pretrained(folder)
    cosines, scores, equal = [], [], []
    for number, size in enumerate(_SIZES):
        picture = draw_picture(size, number)
        inputs = {"image": picture, "masks": own_masks(size)}
        expected, actual = (
            run(inputs, candidate_labels=list(LABELS), return_segments=True) for run in (pipeline, exported)
        )
        for one, other in zip(expected, actual, strict=True):
            # Of normalised embeddings; those of masks that touch no cell are all zero in both.
            cosines.append(1 - float(np.square(one.embedding - other.embedding).sum()) / 2)
            scores.append(abs(one.score - other.score))
        if segmenter.mask_generator is not None:
            maps = [
                run(picture, candidate_labels=list(LABELS), return_segments=True).label_map()
                for run in (pipeline, exported)
            ]
            equal.append(float((maps[0] == maps[1]).mean()))
    measured = {
        "engine": exported.engine.name,
        "precision": exported.precision,
        "least_cosine": min(cosines),
        "largest_score_difference": max(scores),
    }
    return measured | ({"equal_pixels": min(equal)} if equal else {})


def draw_picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Shapes on a noisy ground, of a height and width."""
    height, width = size
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), np.uint8)
    picture = Image.fromarray(noise + np.uint8(90))
    draw = ImageDraw.Draw(picture)
    for color, (left, top, right, bottom) in zip(("red", "blue"), _OWN_BOXES[:2], strict=True):
        draw.ellipse((left * width, top * height, right * width, bottom * height), fill=color)
    return picture


def own_masks(size: tuple[int, int]) -> np.ndarray:
    """Three boxes in a picture of a height and width, the last one smaller than a feature cell."""
    height, width = size
    masks = np.zeros((len(_OWN_BOXES), height, width), bool)
    for mask, (left, top, right, bottom) in zip(masks, _OWN_BOXES, strict=True):
        mask[int(top * height) : int(bottom * height) + 1, int(left * width) : int(right * width) + 1] = True
    return masks


__all__ = ["draw_picture", "measure_difference", "own_masks"]
