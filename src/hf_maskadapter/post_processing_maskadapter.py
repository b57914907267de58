"""Model outputs to semantic, panoptic and instance results at each picture's own size.

The rules are Mask2Former's as FC-CLIP and Mask-Adapter apply them (arXiv 2308.02487, 2412.04533). They differ from
those of Transformers' Mask2Former processors: masks are resized from the padded input, not from a fixed 384×384, and the
overlap rule looks at mask probabilities that are not weighted by the class score.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

MASK_THRESHOLD = 0.5
MASKS_AT_A_TIME = 32

Size = tuple[int, int]
ClassScore = Literal["softmax", "sigmoid"]


def _target_sizes(outputs: Any, target_sizes: Sequence[Size] | Tensor | None) -> list[Size]:
    batch_size = outputs.class_queries_logits.shape[0]
    sizes = outputs.image_sizes if target_sizes is None else target_sizes
    sizes = [(int(height), int(width)) for height, width in sizes]
    if len(sizes) != batch_size:
        raise ValueError(f"Give one target size (height, width) for each picture: got {len(sizes)} for {batch_size}.")
    if any(side < 1 for size in sizes for side in size):
        raise ValueError(f"Target sizes must be at least 1x1, got {sizes}.")
    return sizes


def _resize(maps: Tensor, size: Size) -> Tensor:
    """Bilinear resize of `(num_maps, height, width)`, no antialiasing."""
    if maps.shape[-2:] == size or len(maps) == 0:
        return maps.new_zeros(0, *size) if len(maps) == 0 else maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


class _ImageMasks:
    """One picture's masks: resized to the padded input, cropped to the picture, resized to the wanted size."""

    def __init__(self, outputs: Any, index: int, target_size: Size):
        self.are_logits = outputs.masks_queries_logits is not None
        masks = outputs.masks_queries_logits if self.are_logits else outputs.mask_probabilities
        if masks is None:
            raise ValueError("The outputs hold neither masks_queries_logits nor mask_probabilities.")
        self.masks = masks[index]
        self.padded_size: Size = tuple(outputs.padded_size.tolist())
        self.image_size: Size = tuple(outputs.image_sizes[index].tolist())
        self.target_size = target_size

    def __len__(self) -> int:
        return len(self.masks)

    def _probabilities(self, masks: Tensor) -> Tensor:
        return masks.sigmoid() if self.are_logits else masks

    def crop(self, maps: Tensor) -> Tensor:
        """The picture's part of maps at the padded size, at the wanted size."""
        height, width = self.image_size
        return _resize(maps[:, :height, :width], self.target_size)

    def at_padded_size(self, rows: Tensor) -> Tensor:
        """Probabilities of some masks at the padded size, `(len(rows), height, width)`."""
        return self._probabilities(_resize(self.masks[rows].float(), self.padded_size))

    def at_target_size(self, rows: Tensor) -> Tensor:
        """Probabilities of some masks at the wanted size, `(len(rows), height, width)`."""
        return self._probabilities(self.crop(_resize(self.masks[rows].float(), self.padded_size)))


def _images(outputs: Any, target_sizes: Sequence[Size] | Tensor | None) -> Iterator[tuple[Tensor, _ImageMasks]]:
    """Class scores and masks of one picture at a time."""
    for index, target_size in enumerate(_target_sizes(outputs, target_sizes)):
        yield outputs.class_queries_logits[index].float(), _ImageMasks(outputs, index, target_size)


def _semantic_scores(probabilities: Tensor, masks_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over the masks of class probability times mask probability, `(num_classes, height, width)`."""
    rows = torch.arange(len(probabilities), device=probabilities.device)
    scores: Tensor | None = None
    for chunk in rows.split(MASKS_AT_A_TIME):
        part = torch.einsum("qc,qhw->chw", probabilities[chunk], masks_of(chunk))
        scores = part if scores is None else scores.add_(part)
    if scores is None:
        empty = masks_of(rows)
        return empty.new_zeros(probabilities.shape[-1], *empty.shape[-2:])
    return scores


def semantic_scores(
    outputs: Any, target_sizes: Sequence[Size] | Tensor | None = None, resize_scores: bool = False
) -> Iterator[Tensor]:
    """Class scores of every pixel, one picture at a time.

    Args:
        outputs: as [`post_process_semantic_segmentation`].
        target_sizes: as [`post_process_semantic_segmentation`].
        resize_scores: as [`post_process_semantic_segmentation`].

    Yields:
        `(num_classes, height, width)`.
    """
    for class_logits, masks in _images(outputs, target_sizes):
        probabilities = class_logits.softmax(dim=-1)[:, :-1]
        if resize_scores:
            yield masks.crop(_semantic_scores(probabilities, masks.at_padded_size))
        else:
            yield _semantic_scores(probabilities, masks.at_target_size)


def post_process_semantic_segmentation(
    outputs: Any, target_sizes: Sequence[Size] | Tensor | None = None, resize_scores: bool = False
) -> list[Tensor]:
    """One class for every pixel: the largest sum of class probability times mask probability. Void is never chosen.

    Args:
        outputs: a [`MaskAdapterSegmentationOutput`].
        target_sizes: height and width of each result; by default the pictures' size inside the padded input.
        resize_scores: compute scores at the padded size and resize them, as the published code does when only semantic
            results are wanted, instead of resizing the masks.

    Returns:
        For each picture class indices, a `torch.LongTensor` of shape `(height, width)`.

    Raises:
        ValueError: if there is not one target size for each picture.
    """
    return [scores.argmax(dim=0) for scores in semantic_scores(outputs, target_sizes, resize_scores)]


def post_process_panoptic_segmentation(
    outputs: Any,
    threshold: float = 0.0,
    mask_threshold: float = MASK_THRESHOLD,
    overlap_mask_area_threshold: float = 0.8,
    label_ids_to_fuse: Collection[int] | None = None,
    target_sizes: Sequence[Size] | Tensor | None = None,
) -> list[dict[str, Any]]:
    """Segments that do not overlap; those of one fused ("stuff") class are one segment.

    Every pixel goes to the mask with the largest class score times mask probability. A mask becomes a segment if the
    pixels that it won are at least `overlap_mask_area_threshold` of its own area; the segment is those of them that lie
    inside the mask.

    Args:
        outputs: a [`MaskAdapterSegmentationOutput`].
        threshold: class probability strictly above which a mask takes part.
        mask_threshold: probability from which a pixel lies inside a mask.
        overlap_mask_area_threshold: see above; published values lie between 0.7 and 0.8.
        label_ids_to_fuse: classes whose segments are merged, for example `vocabulary.stuff_ids`; by default none.
        target_sizes: as [`post_process_semantic_segmentation`].

    Returns:
        For each picture a dict with `segmentation`, a `torch.LongTensor` of shape `(height, width)` with segment ids
        from 1 on and 0 where there is no segment, and `segments_info`, a list of dicts with `id`, `label_id`,
        `was_fused` and `score`, the class probability (of a fused segment, the largest of its masks').

    Raises:
        ValueError: if there is not one target size for each picture.
    """
    to_fuse = frozenset(label_ids_to_fuse or ())
    results = []
    for class_logits, masks in _images(outputs, target_sizes):
        scores, labels = class_logits.softmax(dim=-1).max(dim=-1)
        kept = ((labels != class_logits.shape[-1] - 1) & (scores > threshold)).nonzero().flatten()
        segmentation = torch.zeros(masks.target_size, dtype=torch.long, device=class_logits.device)
        segments: list[dict[str, Any]] = []
        if len(kept):
            winners, own_areas, inside = _assign_pixels(masks, kept, scores[kept], mask_threshold)
            won_areas = torch.bincount(winners.flatten(), minlength=len(kept))
            segment_of: dict[int, dict[str, Any]] = {}
            for position, row in enumerate(kept.tolist()):
                won, own = int(won_areas[position]), int(own_areas[position])
                pixels = (winners == position) & inside
                if own == 0 or won / own < overlap_mask_area_threshold or not pixels.any():
                    continue
                label, score = int(labels[row]), float(scores[row])
                segment = segment_of.get(label)
                if segment is None:
                    segment = {
                        "id": len(segments) + 1,
                        "label_id": label,
                        "was_fused": label in to_fuse,
                        "score": score,
                    }
                    segments.append(segment)
                    if label in to_fuse:
                        segment_of[label] = segment
                segment["score"] = max(segment["score"], score)
                segmentation[pixels] = segment["id"]
        results.append({"segmentation": segmentation, "segments_info": segments})
    return results


def _assign_pixels(
    masks: _ImageMasks, rows: Tensor, scores: Tensor, mask_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel the winning mask and whether it lies inside that mask; for each mask its own area."""
    best: Tensor | None = None
    own_areas = []
    for start in range(0, len(rows), MASKS_AT_A_TIME):
        chunk = slice(start, start + MASKS_AT_A_TIME)
        probabilities = masks.at_target_size(rows[chunk])
        is_inside = probabilities >= mask_threshold
        own_areas.append(is_inside.sum(dim=(-2, -1)))
        value, position = (probabilities * scores[chunk, None, None]).max(dim=0)
        inside_winner = is_inside.gather(0, position[None])[0]
        if best is None:
            best, winners, inside = value, position, inside_winner
        else:
            better = value > best
            best = torch.where(better, value, best)
            winners = torch.where(better, position + start, winners)
            inside = torch.where(better, inside_winner, inside)
    return winners, torch.cat(own_areas), inside


def post_process_instance_segmentation(
    outputs: Any,
    threshold: float = 0.0,
    mask_threshold: float = MASK_THRESHOLD,
    top_k: int = 100,
    label_ids_to_keep: Collection[int] | None = None,
    target_sizes: Sequence[Size] | Tensor | None = None,
    return_binary_maps: bool = False,
    class_score: ClassScore = "softmax",
) -> list[dict[str, Any]]:
    """The best pairs of mask and class, which may overlap.

    The score is the class probability times the mean mask probability inside the mask.

    Args:
        outputs: a [`MaskAdapterSegmentationOutput`].
        threshold: score strictly above which an instance is returned.
        mask_threshold: probability strictly above which a pixel lies inside a mask (the published warm-up model: 0.45).
        top_k: number of pairs over all masks and classes, taken by class probability.
        label_ids_to_keep: classes that count, for example `vocabulary.thing_ids`; the others are dropped *after* the
            best `top_k` were taken, as in the published code. By default all are kept.
        target_sizes: as [`post_process_semantic_segmentation`].
        return_binary_maps: whether `segmentation` holds one mask for each instance.
        class_score: `"softmax"`, or `"sigmoid"` of each class score (the published warm-up model).

    Returns:
        For each picture a dict with `segmentation` and `segments_info`, best first. `segmentation` is a
        `torch.LongTensor` of shape `(height, width)` with ids from 1 on and 0 where there is no instance, better
        instances in front of others; or with `return_binary_maps` a `torch.BoolTensor` of shape
        `(num_instances, height, width)`.
        `segments_info` is a list of dicts with `id`, `label_id`, `was_fused` (never) and `score`.

    Raises:
        ValueError: if there is not one target size for each picture, or `class_score` is unknown.
    """
    if class_score not in ("softmax", "sigmoid"):
        raise ValueError(f'class_score must be "softmax" or "sigmoid", got {class_score!r}.')
    results = []
    for class_logits, masks in _images(outputs, target_sizes):
        class_scores = class_logits.softmax(dim=-1) if class_score == "softmax" else class_logits.sigmoid()
        class_scores = class_scores[:, :-1]
        num_classes = class_scores.shape[-1]
        pair_scores, pairs = class_scores.flatten().topk(min(top_k, class_scores.numel()))
        labels = pairs % num_classes
        if label_ids_to_keep is not None:
            keep = torch.isin(labels, torch.tensor(sorted(label_ids_to_keep), device=labels.device))
            pair_scores, pairs, labels = pair_scores[keep], pairs[keep], labels[keep]
        rows, position_of_pair = (pairs // num_classes).unique(return_inverse=True)
        binary, mask_scores = _binary_masks(masks, rows, mask_threshold)
        scores = pair_scores * mask_scores[position_of_pair]
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > threshold]
        chosen = binary[position_of_pair[order]]
        segments = [
            {"id": number, "label_id": int(labels[pair]), "was_fused": False, "score": float(scores[pair])}
            for number, pair in enumerate(order.tolist(), start=1)
        ]
        segmentation = chosen if return_binary_maps else _paint(chosen)
        results.append({"segmentation": segmentation, "segments_info": segments})
    return results


def _binary_masks(masks: _ImageMasks, rows: Tensor, mask_threshold: float) -> tuple[Tensor, Tensor]:
    """Some masks as booleans, and the mean probability inside each."""
    binary, means = (
        [torch.zeros(0, *masks.target_size, dtype=torch.bool, device=rows.device)],
        [rows.new_zeros(0).float()],
    )
    for chunk in rows.split(MASKS_AT_A_TIME):
        probabilities = masks.at_target_size(chunk)
        inside = probabilities > mask_threshold
        binary.append(inside)
        means.append((probabilities * inside).sum(dim=(-2, -1)) / (inside.sum(dim=(-2, -1)) + 1e-6))
    return torch.cat(binary), torch.cat(means)


def _paint(masks: Tensor) -> Tensor:
    """Ids from 1 on, the first mask in front."""
    segmentation = torch.zeros(masks.shape[-2:], dtype=torch.long, device=masks.device)
    for number in range(len(masks), 0, -1):
        segmentation[masks[number - 1]] = number
    return segmentation


__all__ = [
    "post_process_instance_segmentation",
    "post_process_panoptic_segmentation",
    "post_process_semantic_segmentation",
    "semantic_scores",
]
