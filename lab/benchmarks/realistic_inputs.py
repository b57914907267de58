"""Masks and class scores as a trained model predicts them, drawn from annotated or drawn pictures.

Speed that depends on the masks can only be measured with masks like real ones, and random weights predict noise. So
masks are annotated segments, displaced a little, with a soft border, and a share of queries is empty, as most of
Mask2Former's are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hf_maskadapter.data.scenes import SceneConfig, SceneDataset
from hf_maskadapter.model.mask_embedding import log_with_void
from hf_maskadapter.model.masks import colors_to_ids
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterSegmentationOutput

_SHARED_MAPS = ("coco_panoptic_sample/panoptic_examples", "camvid/val/annotations")
_LEAST_SEGMENT = 5e-4  # of the picture
_INSIDE_LOGIT = 10.0
_PIXELS_A_CELL = 4


@dataclass(frozen=True)
class SegmentMaps:
    """Segment maps to draw masks from, those with most segments first.

    Attributes:
        maps: Integer arrays ``(height, width)``, one value for each segment.
        source: Where they are from, for the report.
    """

    maps: tuple[np.ndarray, ...]
    source: str


def read_segment_maps(folders: Sequence[Path] | None = None, maps_per_folder: int = 4) -> SegmentMaps:
    """Reads annotations: PNGs with a class for each value, or COCO's panoptic ones.

    Args:
        folders: Folders of PNGs. By default the COCO and CamVid samples under the folder ``data`` of the one that
            ``MASKADAPTER_SHARED`` names; without it, scenes of the miniature world are drawn.
        maps_per_folder: How many to read from each.

    Raises:
        ValueError: A folder holds no PNG.
    """
    if folders is None:
        shared = os.environ.get("MASKADAPTER_SHARED")
        folders = [Path(shared, "data", name) for name in _SHARED_MAPS] if shared else []
        folders = [folder for folder in folders if folder.is_dir()]
    maps = []
    for folder in folders:
        paths = sorted(folder.rglob("*.png"))
        if not paths:
            raise ValueError(f"{folder} holds no PNG with annotations.")
        for path in paths[:: -(-len(paths) // maps_per_folder)]:
            with Image.open(path) as picture:
                pixels = np.asarray(picture)
            maps.append(colors_to_ids(pixels) if pixels.ndim == 3 else pixels.astype(np.int32))
    source = "annotations of " + ", ".join("/".join(folder.parts[-2:]) for folder in folders)
    if not maps:
        scenes = SceneDataset("validation", 4, SceneConfig(size=256))
        maps = [scenes.scene(index).panoptic_map.astype(np.int32) for index in range(4)]
        source = "drawn scenes"
    return SegmentMaps(tuple(sorted(maps, key=lambda one: -len(np.unique(one)))), source)


@dataclass(frozen=True)
class PredictedMasks:
    """Masks of one picture.

    Attributes:
        logits: ``(num_masks, height, width)``.
        segments: For each mask the number of the segment that it shows, -1 for an empty one, ``(num_masks,)``.
    """

    logits: Tensor
    segments: Tensor


def draw_masks(
    segment_map: np.ndarray, size: tuple[int, int], num_masks: int, empty_share: float = 0.3, seed: int = 0
) -> PredictedMasks:
    """Draws mask logits, the annotated segments in turn, then empty ones.

    Args:
        segment_map: ``(height, width)`` integers.
        size: Height and width of the masks.
        num_masks: Their number.
        empty_share: Share of masks that are nowhere positive.
        seed: Of displacements and unevenness.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.from_numpy(segment_map.astype(np.int64))
    values, areas = ids.unique(return_counts=True)
    values = values[areas >= _LEAST_SEGMENT * ids.numel()]
    num_full = num_masks - round(empty_share * num_masks)
    unevenness = torch.randn(num_masks, 1, 6, 6, generator=generator)
    logits = F.interpolate(unevenness, size=size, mode="bicubic")[:, 0] - _INSIDE_LOGIT
    segments = torch.full((num_masks,), -1)
    for number in range(num_full):
        segments[number] = number % len(values)
        shift = (torch.randn(2, generator=generator) * 0.01 * torch.tensor(ids.shape)).round().int().tolist()
        mask = (ids == values[number % len(values)]).float().roll(shift, (0, 1))
        mask = F.interpolate(mask[None, None], size=size, mode="area")
        logits[number] += 2 * _INSIDE_LOGIT * F.avg_pool2d(F.pad(mask, (1, 1, 1, 1), "replicate"), 3, 1)[0, 0]
    return PredictedMasks(logits, segments)


def draw_class_scores(segments: Tensor, num_classes: int, seed: int = 0) -> Tensor:
    """Draws class log-probabilities, void last, ``(num_masks, num_classes + 1)``.

    The first mask of a segment is sure of its class, later ones of the same segment lean to void, empty ones are void.
    """
    generator = torch.Generator().manual_seed(seed)
    num_masks = len(segments)
    class_of_segment = torch.randint(num_classes, (num_masks + 1,), generator=generator)
    logits = 1.5 * torch.randn(num_masks, num_classes, generator=generator)
    peaks = 7 + 4 * torch.rand(num_masks, generator=generator)
    logits[torch.arange(num_masks), class_of_segment[segments]] += peaks
    void = 0.5 + 0.49 * torch.rand(num_masks, generator=generator)
    void[segments < 0] = 0.95 + 0.05 * void[segments < 0]
    void[: int(segments.amax()) + 1] = 0.1
    return log_with_void(logits.softmax(dim=-1) * (1 - void[:, None]), void[:, None])


def draw_outputs(
    segment_map: np.ndarray, padded_size: tuple[int, int], num_masks: int, num_classes: int, seed: int = 0
) -> MaskAdapterSegmentationOutput:
    """What a model returns for one picture without padding, as far as post-processing reads it."""
    size = (padded_size[0] // _PIXELS_A_CELL, padded_size[1] // _PIXELS_A_CELL)
    masks = draw_masks(segment_map, size, num_masks, seed=seed)
    return MaskAdapterSegmentationOutput(
        class_queries_logits=draw_class_scores(masks.segments, num_classes, seed)[None],
        masks_queries_logits=masks.logits[None],
        image_sizes=torch.tensor([padded_size]),
        padded_size=torch.tensor(padded_size),
    )


__all__ = ["PredictedMasks", "SegmentMaps", "draw_class_scores", "draw_masks", "draw_outputs", "read_segment_maps"]
