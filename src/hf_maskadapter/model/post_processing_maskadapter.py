"""Model outputs to semantic, panoptic and instance results at each picture's own size.

[`segment`] gives them as [`Segments`]; the three `post_process_*` functions in the forms of Transformers' processors.

The rules are Mask2Former's as FC-CLIP and Mask-Adapter apply them (arXiv 2308.02487, 2412.04533). They differ from
those of Transformers' Mask2Former processors: masks are resized from the padded input, not from a fixed size of
384×384, and the overlap rule looks at mask probabilities that are not weighted by the class score.

Everything is computed in single precision, one picture at a time and a strip of rows at a time, so that memory stays
bounded whatever the size of the picture and the vocabulary. A bilinear resize reads rows and columns independently:
the rows that a strip needs are read first, from maps of the masks' own small size, and columns follow.
Labels of many classes are searched without computing every class's score, see `semantic_label_search.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .segments import TASKS, Segment, Segments, Task
from .semantic_label_search import Axis, LabelSearch, bilinear_taps, index_of_largest
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput

MASK_THRESHOLD = 0.5
TOP_K = 100
OVERLAP_THRESHOLD = 0.8

Size = tuple[int, int]
ClassScore = Literal["softmax", "sigmoid"]

_STRIP_ELEMENTS_ON_CPU = 2**21  # 8 MiB of floats, which stay in the processor's cache
_STRIP_ELEMENTS_ELSEWHERE = 2**25  # 128 MiB, which keep a GPU busy
_SEARCH_FROM_PRODUCTS = 2**30  # masks × classes × pixels
_SEARCH_FROM_MASKS = 200
_SEARCH_FROM_VALUES = 2**23  # masks × pixels
_AREA_EPS = 1e-6


def _target_sizes(outputs: Any, target_sizes: Sequence[Size] | Tensor | None) -> list[Size]:
    batch_size = outputs.class_queries_logits.shape[0]
    sizes = outputs.image_sizes if target_sizes is None else target_sizes
    if isinstance(sizes, Tensor):
        sizes = sizes.tolist()
    if any(not isinstance(size, Collection) or len(size) != 2 for size in sizes):
        raise ValueError(f"target_sizes must be a list of one (height, width) for each picture, got {sizes}.")
    sizes = [(int(height), int(width)) for height, width in sizes]
    if len(sizes) != batch_size:
        raise ValueError(f"Give one target size (height, width) for each picture: got {len(sizes)} for {batch_size}.")
    if any(side < 1 for size in sizes for side in size):
        raise ValueError(f"Target sizes must be at least 1x1, got {sizes}.")
    return sizes


def _check_mask_threshold(mask_threshold: float) -> None:
    if not 0 <= mask_threshold <= 1:
        raise ValueError(f"mask_threshold is a probability, between 0 and 1, got {mask_threshold}.")


def _mix_rows(maps: Tensor, lower: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(maps[:, lower].float(), maps[:, upper].float(), share[:, None].to(maps.device))


def _rows_of_resized(maps: Tensor, new_height: int, rows: Tensor) -> Tensor:
    """Some rows of maps `(num_maps, height, width)` as after a bilinear resize to `new_height` rows."""
    if maps.shape[1] == new_height:
        return maps[:, rows].float()
    lower, upper, share = bilinear_taps(maps.shape[1], new_height, rows)
    return _mix_rows(maps, lower, upper, share)


def _resize_columns(maps: Tensor, new_width: int) -> Tensor:
    if maps.shape[2] == new_width or maps.numel() == 0:
        return maps if maps.shape[2] == new_width else maps.new_zeros(*maps.shape[:2], new_width)
    return F.interpolate(maps[None], size=(maps.shape[1], new_width), mode="bilinear", align_corners=False)[0]


class _PictureMasks:
    """One picture's masks: resized to the padded input, cropped to the picture, resized to the wanted size.

    All resizes are bilinear, without antialiasing and with `align_corners=False`.
    """

    def __init__(self, outputs: Any, index: int, target_size: Size):
        masks, self.are_logits = outputs.masks_queries_logits, True
        if masks is None:
            masks, self.are_logits = outputs.mask_probabilities, False
        if masks is None:
            raise ValueError("The outputs hold neither masks_queries_logits nor mask_probabilities.")
        self.masks: Tensor = masks[index]
        self.rows = torch.arange(len(self.masks), device=self.masks.device)  # which of the picture's masks these are
        self.padded_height, self.padded_width = (int(side) for side in outputs.padded_size)
        self.image_height, self.image_width = (int(side) for side in outputs.image_sizes[index])
        self.height, self.width = target_size

    def chosen(self, rows: Tensor) -> _PictureMasks:
        """Some of the masks."""
        result = copy(self)
        result.masks, result.rows = self.masks[rows], self.rows[rows]
        return result

    def __len__(self) -> int:
        return len(self.masks)

    def strips(self, maps_per_row: int) -> Iterator[slice]:
        """Rows of the wanted size, as many at a time as memory is meant for."""
        elements = _STRIP_ELEMENTS_ON_CPU if self.masks.device.type == "cpu" else _STRIP_ELEMENTS_ELSEWHERE
        rows = max(elements // (max(maps_per_row, 1) * max(self.width, self.padded_width)), 1)
        for start in range(0, self.height, rows):
            yield slice(start, min(start + rows, self.height))

    def rows_of_picture(self, rows: Tensor) -> Tensor:
        """Some of the picture's rows at the padded size, `(num_masks, num_rows, image_width)`."""
        maps = _rows_of_resized(self.masks, self.padded_height, rows)
        return _resize_columns(maps, self.padded_width)[..., : self.image_width]

    def taps_of_strip(self, strip: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The picture's rows at the padded size that a strip mixes, which two of these, and the second's share."""
        lower, upper, share = bilinear_taps(self.image_height, self.height, torch.arange(strip.start, strip.stop))
        rows, which = torch.cat([lower, upper]).unique(return_inverse=True)
        return rows, *which.chunk(2), share

    def strip_values(self, strip: slice) -> Tensor:
        """Logits or probabilities in a strip, `(num_masks, strip_height, width)`."""
        rows, lower, upper, share = self.taps_of_strip(strip)
        maps = _rows_of_resized(self.masks, self.padded_height, rows)
        maps = _mix_rows(maps, lower, upper, share)
        maps = _resize_columns(maps, self.padded_width)[..., : self.image_width]
        return _resize_columns(maps, self.width)

    def probabilities(self, values: Tensor) -> Tensor:
        """Mask probabilities of logits or probabilities."""
        return values.sigmoid() if self.are_logits else values

    def cutoff(self, mask_threshold: float) -> float:
        """What a value must exceed for its probability to exceed a threshold."""
        return torch.tensor(mask_threshold, dtype=torch.float64).logit().item() if self.are_logits else mask_threshold


def _pictures(outputs: Any, target_sizes: Sequence[Size] | Tensor | None) -> Iterator[tuple[Tensor, _PictureMasks]]:
    """Class scores `(num_masks, num_classes + 1)` and masks of one picture at a time."""
    for index, target_size in enumerate(_target_sizes(outputs, target_sizes)):
        class_logits, masks = outputs.class_queries_logits[index].float(), _PictureMasks(outputs, index, target_size)
        valid_masks = getattr(outputs, "valid_masks", None)
        if valid_masks is not None:
            is_there = valid_masks[index]
        elif not masks.are_logits:
            is_there = masks.masks.flatten(1).any(dim=1).bool()
        else:
            is_there = None
        if is_there is not None:  # the others fill up the batch
            class_logits, masks = class_logits[is_there], masks.chosen(is_there)
        yield class_logits, masks


def _sum_over_masks(class_probabilities: Tensor, mask_probabilities: Tensor) -> Tensor:
    """Class probability times mask probability, summed over masks, `(num_classes, height, width)`."""
    with torch.autocast(mask_probabilities.device.type, enabled=False):
        scores = class_probabilities.T @ mask_probabilities.flatten(1)
    return scores.unflatten(1, mask_probabilities.shape[1:])


def _score_strips(class_logits: Tensor, masks: _PictureMasks, resize_scores: bool) -> Iterator[tuple[slice, Tensor]]:
    """Class scores of a picture, a strip of rows after the other, each `(num_classes, strip_height, width)`."""
    probabilities = class_logits.softmax(dim=-1)[:, :-1]
    maps_per_row = max(probabilities.shape)
    if not resize_scores:
        for strip in masks.strips(maps_per_row):
            yield strip, _sum_over_masks(probabilities, masks.probabilities(masks.strip_values(strip)))
        return
    for strip in masks.strips(2 * maps_per_row):
        rows, lower, upper, share = masks.taps_of_strip(strip)
        scores = _sum_over_masks(probabilities, masks.probabilities(masks.rows_of_picture(rows)))
        scores = _mix_rows(scores, lower, upper, share)
        yield strip, _resize_columns(scores, masks.width)


def _search_pays(class_logits: Tensor, masks: _PictureMasks) -> bool:
    """Whether labels are found faster by [`LabelSearch`] than from all scores, by measurements.

    Its many small steps do not pay for small pictures and few classes. They use hardly more than one thread, and keep a
    GPU waiting.
    """
    if masks.masks.device.type != "cpu":
        return False
    values, threads = len(masks) * masks.height * masks.width, torch.get_num_threads()
    if len(masks) >= _SEARCH_FROM_MASKS and values > _SEARCH_FROM_VALUES * threads**2:
        return True  # of few classes, too: resizing that many masks takes longer
    return values * (class_logits.shape[-1] - 1) > _SEARCH_FROM_PRODUCTS * threads**2


def _searched_labels(class_logits: Tensor, masks: _PictureMasks, resize_scores: bool) -> Tensor:
    height, width = masks.masks.shape[1:]
    search = LabelSearch(
        class_logits.softmax(dim=-1)[:, :-1],
        masks.masks,
        masks.probabilities,
        Axis.of(height, masks.padded_height, masks.image_height, masks.height, resize_scores),
        Axis.of(width, masks.padded_width, masks.image_width, masks.width, resize_scores),
    )
    return search.label_map()


@torch.no_grad()
def semantic_scores(
    outputs: Any, target_sizes: Sequence[Size] | Tensor | None = None, resize_scores: bool = False
) -> Iterator[Tensor]:
    """Class scores of every pixel, one picture at a time.

    Args:
        outputs: as [`post_process_semantic_segmentation`].
        target_sizes: as [`post_process_semantic_segmentation`].
        resize_scores: as [`post_process_semantic_segmentation`].

    Yields:
        A float tensor of shape `(num_classes, height, width)`. It is the one thing here that grows with the product of
        classes and pixels.
    """
    for class_logits, masks in _pictures(outputs, target_sizes):
        scores = class_logits.new_empty(class_logits.shape[-1] - 1, masks.height, masks.width)
        for strip, of_strip in _score_strips(class_logits, masks, resize_scores):
            scores[:, strip] = of_strip
        yield scores


@torch.no_grad()
def post_process_semantic_segmentation(
    outputs: Any,
    target_sizes: Sequence[Size] | Tensor | None = None,
    resize_scores: bool = False,
    return_segmentation_scores: bool = False,
) -> list[Tensor] | list[SemanticSegmentationPostProcessorOutput]:
    """One class for every pixel: the largest sum of class probability times mask probability. Void is never chosen.

    Args:
        outputs: a [`MaskAdapterSegmentationOutput`], or an object with its `class_queries_logits`,
            `masks_queries_logits` or `mask_probabilities`, `image_sizes` and `padded_size`, of any float type and on
            any device. Masks that its `valid_masks` does not count, if it has any, and empty ones of the caller's play
            no part.
        target_sizes: height and width of each result; by default the pictures' size inside the padded input.
        resize_scores: compute scores at the padded size and resize them, as the published code does when only semantic
            results are wanted, instead of resizing the masks.
        return_segmentation_scores: whether to return the scores too, see [`semantic_scores`].

    Returns:
        For each picture class indices, a `torch.LongTensor` of shape `(height, width)`; the first class where there is
        no mask at all. With `return_segmentation_scores` an object with these as `segmentation`, and
        `segmentation_scores` of shape `(num_classes, height, width)`.

    Raises:
        ValueError: if there is not one target size for each picture.
    """
    if return_segmentation_scores:
        from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput

        return [
            SemanticSegmentationPostProcessorOutput(
                data={"segmentation": scores.argmax(dim=0), "segmentation_scores": scores}
            )
            for scores in semantic_scores(outputs, target_sizes, resize_scores)
        ]
    label_maps = []
    for class_logits, masks in _pictures(outputs, target_sizes):
        if class_logits.shape[-1] == 2:  # one class and void, which is never chosen
            label_maps.append(torch.zeros(masks.height, masks.width, dtype=torch.long, device=class_logits.device))
            continue
        if _search_pays(class_logits, masks):
            label_maps.append(_searched_labels(class_logits, masks, resize_scores))
            continue
        label_map = torch.empty(masks.height, masks.width, dtype=torch.long, device=class_logits.device)
        for strip, scores in _score_strips(class_logits, masks, resize_scores):
            label_map[strip], _ = index_of_largest(scores)
        label_maps.append(label_map)
    return label_maps


@torch.no_grad()
def post_process_panoptic_segmentation(
    outputs: Any,
    threshold: float = 0.0,
    mask_threshold: float = MASK_THRESHOLD,
    overlap_mask_area_threshold: float = OVERLAP_THRESHOLD,
    label_ids_to_fuse: Collection[int] | None = None,
    target_sizes: Sequence[Size] | Tensor | None = None,
) -> list[dict[str, Any]]:
    """Segments that do not overlap; those of one fused ("stuff") class are one segment.

    Every pixel goes to the mask with the largest class score times mask probability. A mask becomes a segment if the
    pixels that it won are at least `overlap_mask_area_threshold` of its own area; the segment is those of them that lie
    inside the mask.

    Args:
        outputs: as [`post_process_semantic_segmentation`].
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
        ValueError: if there is not one target size for each picture, or `mask_threshold` is not a probability.
    """
    _check_mask_threshold(mask_threshold)
    to_fuse = frozenset(label_ids_to_fuse or ())
    results = (
        _panoptic_result(class_logits, masks, threshold, mask_threshold, overlap_mask_area_threshold, to_fuse)
        for class_logits, masks in _pictures(outputs, target_sizes)
    )
    return [{"segmentation": result.segmentation, "segments_info": result.infos} for result in results]


class _Result(NamedTuple):
    segmentation: Tensor
    infos: list[dict[str, Any]]
    rows: list[int]
    """Which of the picture's masks each segment's score is of."""


def _panoptic_result(
    class_logits: Tensor,
    masks: _PictureMasks,
    threshold: float,
    mask_threshold: float,
    overlap_mask_area_threshold: float,
    to_fuse: Collection[int],
) -> _Result:
    """One picture's result; see [`post_process_panoptic_segmentation`]."""
    scores, labels = class_logits.softmax(dim=-1).max(dim=-1)
    kept = ((labels != class_logits.shape[-1] - 1) & (scores > threshold)).nonzero().flatten()
    segments: list[dict[str, Any]] = []
    rows: list[int] = []
    segment_of_mask = labels.new_zeros(len(kept) + 1)  # the last entry is for pixels without a segment
    segmentation = torch.full((masks.height, masks.width), len(kept), device=labels.device)
    if len(kept):
        won, own, visible = _assign_pixels(masks.chosen(kept), scores[kept], mask_threshold, segmentation)
        fused: dict[int, dict[str, Any]] = {}
        of_kept = zip(labels[kept].tolist(), scores[kept].tolist(), masks.rows[kept].tolist(), strict=True)
        for position, (label, score, row) in enumerate(of_kept):
            if not visible[position] or won[position] / own[position] < overlap_mask_area_threshold:
                continue
            segment = fused.get(label)
            if segment is None:
                was_fused = label in to_fuse
                segment = {"id": len(segments) + 1, "label_id": label, "was_fused": was_fused, "score": score}
                segments.append(segment)
                rows.append(row)
                if was_fused:
                    fused[label] = segment
            elif score > segment["score"]:
                segment["score"], rows[segment["id"] - 1] = score, row
            segment_of_mask[position] = segment["id"]
    return _Result(segment_of_mask[segmentation], segments, rows)


def _assign_pixels(
    masks: _PictureMasks, scores: Tensor, mask_threshold: float, winners: Tensor
) -> tuple[list[int], list[int], list[int]]:
    """Write the winning mask of every pixel that lies inside it to `winners`, and leave the other pixels as they are.

    Returns:
        For each mask its numbers of pixels that it won, of pixels inside it, and of those that are both.
    """
    areas = torch.zeros(3, len(masks), dtype=torch.long, device=scores.device)
    for strip in masks.strips(len(masks)):
        probabilities = masks.probabilities(masks.strip_values(strip))
        is_inside = probabilities >= mask_threshold
        weighted = probabilities * scores[:, None, None]
        winner, largest = index_of_largest(weighted)
        winner_is_inside = is_inside.gather(0, winner[None])[0]
        winners[strip] = torch.where(winner_is_inside, winner, winners[strip])
        areas[0] += winner[largest > 0].bincount(minlength=len(masks))
        areas[1] += is_inside.flatten(1).sum(dim=1, dtype=torch.int32)
        areas[2] += winner[winner_is_inside].bincount(minlength=len(masks))
    won, own, visible = areas.tolist()
    return won, own, visible


@torch.no_grad()
def post_process_instance_segmentation(
    outputs: Any,
    threshold: float = 0.0,
    mask_threshold: float = MASK_THRESHOLD,
    top_k: int = TOP_K,
    label_ids_to_keep: Collection[int] | None = None,
    target_sizes: Sequence[Size] | Tensor | None = None,
    return_binary_maps: bool = False,
    return_coco_annotation: bool = False,
    class_score: ClassScore = "softmax",
) -> list[dict[str, Any]]:
    """The best pairs of mask and class, which may overlap.

    The score is the class probability times the mean mask probability inside the mask.

    Args:
        outputs: as [`post_process_semantic_segmentation`].
        threshold: score strictly above which an instance is returned; the default drops masks that are empty.
        mask_threshold: probability strictly above which a pixel lies inside a mask (the published warm-up model: 0.45).
        top_k: number of pairs over all masks and classes, taken by class probability.
        label_ids_to_keep: classes that count, for example `vocabulary.thing_ids`; the others are dropped *after* the
            best `top_k` were taken, as in the published code. By default all are kept.
        target_sizes: as [`post_process_semantic_segmentation`].
        return_binary_maps: whether `segmentation` holds one mask for each instance.
        return_coco_annotation: whether `segmentation` holds one run-length encoded mask for each instance.
        class_score: `"softmax"`, or `"sigmoid"` of each class score (the published warm-up model).

    Returns:
        For each picture a dict with `segmentation` and `segments_info`, best first. `segmentation` is a
        `torch.LongTensor` of shape `(height, width)` with ids from 1 on and 0 where there is no instance, better
        instances in front of others; with `return_binary_maps` a `torch.BoolTensor` of shape
        `(num_instances, height, width)`; or with `return_coco_annotation` a list of COCO's uncompressed encodings,
        dicts with `size` `[height, width]` and `counts`, which `pycocotools.mask.frPyObjects` reads (Transformers'
        processors return lists of another form under this name).
        `segments_info` is a list of dicts with `id`, `label_id`, `was_fused` (never) and `score`.

    Raises:
        ValueError: if there is not one target size for each picture, `mask_threshold` is not a probability,
            `top_k` is negative, `class_score` is unknown, or two forms of masks are asked for.
    """
    _check_mask_threshold(mask_threshold)
    if class_score not in ("softmax", "sigmoid"):
        raise ValueError(f'class_score must be "softmax" or "sigmoid", got {class_score!r}.')
    if top_k < 0:
        raise ValueError(f"top_k is a number of pairs, at least 0, got {top_k}.")
    if return_binary_maps and return_coco_annotation:
        raise ValueError("Ask for return_binary_maps or return_coco_annotation, not both.")
    results = []
    for class_logits, masks in _pictures(outputs, target_sizes):
        segments, chosen = _best_instances(
            class_logits, masks, threshold, mask_threshold, top_k, label_ids_to_keep, class_score
        )
        segmentation: Tensor | list[dict[str, list[int]]]
        if return_binary_maps:
            segmentation = _binary_maps(chosen, mask_threshold)
        elif return_coco_annotation:
            segmentation = _coco_annotations(chosen, mask_threshold)
        else:
            segmentation = _painted(chosen, mask_threshold)
        results.append({"segmentation": segmentation, "segments_info": segments})
    return results


def _best_instances(
    class_logits: Tensor,
    masks: _PictureMasks,
    threshold: float,
    mask_threshold: float,
    top_k: int,
    label_ids_to_keep: Collection[int] | None,
    class_score: ClassScore,
) -> tuple[list[dict[str, Any]], _PictureMasks]:
    """One picture's instances and their masks, best first; see [`post_process_instance_segmentation`]."""
    class_scores = class_logits.softmax(dim=-1) if class_score == "softmax" else class_logits.sigmoid()
    class_scores = class_scores[:, :-1]
    num_classes = class_scores.shape[-1]
    pair_scores, pairs = class_scores.flatten().topk(min(top_k, class_scores.numel()))
    labels = pairs % num_classes
    if label_ids_to_keep is not None:
        keep = torch.isin(labels, torch.tensor(sorted(label_ids_to_keep), device=labels.device))
        pair_scores, pairs, labels = pair_scores[keep], pairs[keep], labels[keep]
    rows, mask_of_pair = (pairs // num_classes).unique(return_inverse=True)
    scores = pair_scores * _mean_inside(masks.chosen(rows), mask_threshold)[mask_of_pair]
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > threshold]
    segments = [
        {"id": number, "label_id": label, "was_fused": False, "score": score}
        for number, (label, score) in enumerate(
            zip(labels[order].tolist(), scores[order].tolist(), strict=True), start=1
        )
    ]
    return segments, masks.chosen(rows[mask_of_pair[order]])


def _mean_inside(masks: _PictureMasks, mask_threshold: float) -> Tensor:
    """Mean probability inside each of some masks, 0 for an empty one."""
    totals = torch.zeros(2, len(masks), device=masks.masks.device)
    for strip in masks.strips(len(masks)):
        values = masks.strip_values(strip)
        is_inside = values > masks.cutoff(mask_threshold)
        totals[0] += (masks.probabilities(values) * is_inside).sum(dim=(1, 2))
        totals[1] += is_inside.sum(dim=(1, 2))
    return totals[0] / (totals[1] + _AREA_EPS)


def _binary_maps(masks: _PictureMasks, mask_threshold: float) -> Tensor:
    """Some masks as booleans, `(num_masks, height, width)`."""
    maps = torch.empty(len(masks), masks.height, masks.width, dtype=torch.bool, device=masks.masks.device)
    for strip in masks.strips(len(masks)):
        maps[:, strip] = masks.strip_values(strip) > masks.cutoff(mask_threshold)
    return maps


def _painted(masks: _PictureMasks, mask_threshold: float) -> Tensor:
    """The place, from 1 on, of the first of some masks that covers a pixel, 0 where none does."""
    segmentation = torch.zeros(masks.height, masks.width, dtype=torch.long, device=masks.masks.device)
    if len(masks):
        for strip in masks.strips(len(masks)):
            is_inside = masks.strip_values(strip) > masks.cutoff(mask_threshold)
            segmentation[strip] = torch.where(is_inside.any(dim=0), index_of_largest(is_inside.byte())[0] + 1, 0)
    return segmentation


def _coco_annotations(masks: _PictureMasks, mask_threshold: float) -> list[dict[str, list[int]]]:
    """COCO's uncompressed run-length encoding of each mask: lengths of runs down the columns, zeros first."""
    annotations = []
    for number in range(len(masks)):
        one = masks.chosen(torch.tensor([number], device=masks.masks.device))
        pixels = _binary_maps(one, mask_threshold)[0].T.flatten()
        changes = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1
        ends = torch.cat([changes.new_zeros(1), changes, changes.new_full((1,), len(pixels))])
        counts = ends.diff().tolist()
        annotations.append({"size": [masks.height, masks.width], "counts": [0, *counts] if pixels[0] else counts})
    return annotations


@torch.no_grad()
def segment(
    outputs: Any,
    task: Task,
    vocabulary: Vocabulary,
    target_sizes: Sequence[Size] | Tensor | None = None,
    *,
    threshold: float | None = None,
    mask_threshold: float = MASK_THRESHOLD,
    overlap_mask_area_threshold: float = OVERLAP_THRESHOLD,
    top_k: int = TOP_K,
    resize_scores: bool = False,
    pictures: Sequence[str | None] | None = None,
) -> list[Segments]:
    """The segments of each picture.

    Args:
        outputs: as [`post_process_semantic_segmentation`].
        task: `"semantic"`: one segment for each class that wins a pixel, in the vocabulary's order. `"panoptic"`:
            segments that do not overlap, those of one stuff class in one. `"instance"`: things, which may overlap, the
            larger first, so that smaller ones lie on top.
        vocabulary: the classes that the model was given.
        target_sizes: as [`post_process_semantic_segmentation`].
        threshold: score that a panoptic or instance segment must exceed; default 0.
        mask_threshold: as [`post_process_panoptic_segmentation`] and [`post_process_instance_segmentation`].
        overlap_mask_area_threshold: as [`post_process_panoptic_segmentation`].
        top_k: as [`post_process_instance_segmentation`].
        resize_scores: as [`post_process_semantic_segmentation`].
        pictures: file name of each picture, for the results to carry along.

    Returns:
        Segments with their scores and, if the outputs hold `mask_embeddings`, normalised embeddings; of several masks
        in one stuff segment those of the one with the highest score. Semantic segments have neither.

    Raises:
        ValueError: as the three functions; if there is no such task, a threshold is given for semantic results, which
            have no scores, or the vocabulary has not as many classes as the outputs.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    if task == "semantic" and threshold is not None:
        raise ValueError("Semantic segments have no score, so that a threshold has no effect: leave it out.")
    num_classes = outputs.class_queries_logits.shape[-1] - 1
    if num_classes != len(vocabulary):
        raise ValueError(
            f"The outputs are of {num_classes} classes, the vocabulary has {len(vocabulary)}: give the one that the "
            "model was given."
        )
    if pictures is None:
        pictures = [None] * len(outputs.class_queries_logits)
    if task == "semantic":
        label_maps = post_process_semantic_segmentation(outputs, target_sizes, resize_scores)
        return [
            Segments.from_label_map(label_map, vocabulary, None, picture)
            for label_map, picture in zip(label_maps, pictures, strict=True)
        ]
    _check_mask_threshold(mask_threshold)
    results = []
    for index, (class_logits, masks) in enumerate(_pictures(outputs, target_sizes)):
        if task == "panoptic":
            segmentation, infos, rows = _panoptic_result(
                class_logits, masks, threshold or 0.0, mask_threshold, overlap_mask_area_threshold, vocabulary.stuff_ids
            )
            ids = segmentation.cpu().numpy()
            found_masks: Any = (ids == info["id"] for info in infos)
        else:
            infos, chosen = _best_instances(
                class_logits, masks, threshold or 0.0, mask_threshold, top_k, vocabulary.thing_ids, "softmax"
            )
            rows = chosen.rows.tolist()
            found_masks = _binary_maps(chosen, mask_threshold).cpu().numpy()
        embeddings = _embeddings(outputs, index, rows)
        found = [
            Segment.of_class(vocabulary, info["label_id"], mask, score=info["score"], embedding=embedding)
            for info, mask, embedding in zip(infos, found_masks, embeddings, strict=True)
        ]
        segments = Segments(found, (masks.height, masks.width), vocabulary, task, pictures[index])
        results.append(segments if task == "panoptic" else segments.smaller_on_top())
    return results


def _embeddings(outputs: Any, index: int, rows: list[int]) -> list[np.ndarray] | list[None]:
    """Normalised embeddings of some of a picture's masks, if the outputs hold them."""
    embeddings = getattr(outputs, "mask_embeddings", None)
    if embeddings is None:
        return [None] * len(rows)
    return list(F.normalize(embeddings[index, rows].float(), dim=-1).cpu().numpy())


__all__ = [
    "TASKS",
    "Task",
    "post_process_instance_segmentation",
    "post_process_panoptic_segmentation",
    "post_process_semantic_segmentation",
    "segment",
    "semantic_scores",
]
