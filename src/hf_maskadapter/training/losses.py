"""Matching of predicted with ground-truth masks, and the losses of adapter and mask generator training.

Functions of tensors; only the Hungarian matcher needs SciPy. Two conventions keep results independent of how a batch is
spread over processes and accumulation steps:

- every loss is a sum divided by a `denominator` that the caller gives, so that it can be the count over all processes;
- every random choice comes from a `torch.Generator` that the caller gives, so that it can be seeded for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .options import MaskLossOptions

IGNORED_LABEL = -1
"""Class label of mask slots that hold no mask."""


class MaskMatches(NamedTuple):
    """Pairs of predicted and ground-truth masks of one picture, ascending by ground-truth mask.

    Args:
        queries: indices of the predictions, `(num_matches,)`.
        targets: indices of the ground-truth masks, `(num_matches,)`.
    """

    queries: Tensor
    targets: Tensor


def reduce_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks bilinearly, without antialiasing and binarisation: `(num_masks, H, W)` to `(num_masks, *size)`."""
    masks = masks.float()
    if masks.shape[-2:] == tuple(size) or len(masks) == 0:
        return masks.reshape(len(masks), *size)
    return F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]


def pairwise_mask_iou(masks: Tensor, other_masks: Tensor) -> Tensor:
    """Intersection over union of every two masks.

    Args:
        masks: `(num_masks, height, width)` bool.
        other_masks: `(num_other_masks, height, width)` bool.

    Returns:
        `(num_masks, num_other_masks)` float32; 0 for two empty masks.
    """
    with torch.autocast(masks.device.type, enabled=False):
        masks, other_masks = masks.flatten(1).float(), other_masks.flatten(1).float()
        intersection = masks @ other_masks.T
        union = masks.sum(dim=1)[:, None] + other_masks.sum(dim=1) - intersection
    return intersection / union.clamp(min=1)


@torch.no_grad()
def match_by_iou(
    masks_queries_logits: Tensor,
    mask_labels: Tensor,
    *,
    generator: torch.Generator,
    iou_threshold: float = 0.7,
    binarize_threshold: float = 0.4,
    max_matches: int | None = 8,
) -> MaskMatches:
    """The paper's IoU matcher (arXiv 2412.04533, section 3.3): good predictions of each ground-truth mask, by chance.

    For each ground-truth mask one prediction is drawn among those with an IoU strictly above the threshold, taken
    at the predictions' resolution: ground truth reduced bilinearly, then > 0.5; predictions with a probability of at
    least `binarize_threshold`.

    Args:
        masks_queries_logits: predicted mask logits of one picture, `(num_queries, height, width)`.
        mask_labels: its ground-truth masks, `(num_masks, H, W)`; they cover the same area.
        generator: CPU generator for the choice of predictions and of the matches that stay.
        iou_threshold: IoU that a match must exceed.
        binarize_threshold: probability from which a pixel belongs to a prediction.
        max_matches: if there are more matches, so many stay, chosen at random; `None` keeps all.
    """
    predicted = masks_queries_logits.float().sigmoid() >= binarize_threshold
    target = reduce_masks(mask_labels, masks_queries_logits.shape[-2:]) > 0.5
    candidates = (pairwise_mask_iou(target, predicted) > iou_threshold).cpu()
    lots = torch.rand(candidates.shape, generator=generator).masked_fill(~candidates, -1.0)
    targets = candidates.any(dim=1).nonzero().flatten()
    if max_matches is not None and len(targets) > max_matches:
        targets = targets[torch.randperm(len(targets), generator=generator)[:max_matches].sort().values]
    queries = lots[targets].argmax(dim=1) if len(targets) else targets
    return MaskMatches(queries.to(mask_labels.device), targets.to(mask_labels.device))


def sample_points(masks: Tensor, points: Tensor) -> Tensor:
    """Values of masks at points, bilinearly.

    Args:
        masks: `(num_masks, height, width)`.
        points: x and y in [0, 1], `(num_masks, num_points, 2)`, or `(1, num_points, 2)` for the same points everywhere.

    Returns:
        `(num_masks, num_points)`.
    """
    grid = (2 * points - 1).expand(len(masks), -1, -1)[:, None]
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0, 0]


def pairwise_point_costs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice loss of every prediction with every target.

    Args:
        logits: predictions at some points, `(num_queries, num_points)`.
        labels: targets in [0, 1] at the same points, `(num_masks, num_points)`.

    Returns:
        Two tensors `(num_queries, num_masks)`.
    """
    num_points = logits.shape[1]
    cross_entropy = (F.softplus(-logits) @ labels.T + F.softplus(logits) @ (1 - labels).T) / num_points
    probabilities = logits.sigmoid()
    overlap = 2 * probabilities @ labels.T
    areas = probabilities.sum(dim=1)[:, None] + labels.sum(dim=1)
    return cross_entropy, 1 - (overlap + 1) / (areas + 1)


@torch.no_grad()
def match_by_assignment(
    masks_queries_logits: Tensor,
    class_queries_logits: Tensor,
    mask_labels: Tensor,
    class_labels: Tensor,
    *,
    generator: torch.Generator,
    class_cost: float = 2.0,
    mask_cost: float = 5.0,
    dice_cost: float = 5.0,
    num_points: int = 12544,
    max_matches: int | None = None,
) -> MaskMatches:
    """Hungarian matching as in Mask2Former (arXiv 2112.01527): a prediction for each ground-truth mask, at least cost.

    It trains mask generators, and is the alternative to the IoU matcher in the paper's ablation. Costs that are not
    finite count as the worst.

    Args:
        masks_queries_logits: `(num_queries, height, width)`.
        class_queries_logits: `(num_queries, num_classes + 1)`, void last.
        mask_labels: `(num_masks, H, W)`, covering the same area.
        class_labels: class index of each mask, `(num_masks,)`.
        generator: draws the points at which masks are compared (on the logits' device), and which matches stay.
        class_cost: weight of the class's probability.
        mask_cost: weight of the binary cross-entropy at the points.
        dice_cost: weight of the dice loss at the points.
        num_points: points at which masks are compared.
        max_matches: if there are more matches, so many stay, chosen at random; `None` keeps all.

    Raises:
        ImportError: without SciPy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("Hungarian matching needs SciPy: pip install 'hf-maskadapter[train]'.") from error

    device = masks_queries_logits.device
    if len(mask_labels) == 0:
        return MaskMatches(class_labels.new_zeros(0), class_labels.new_zeros(0))
    with torch.autocast(device.type, enabled=False):
        points = torch.rand(1, num_points, 2, generator=generator, device=generator.device).to(device)
        cross_entropy, dice = pairwise_point_costs(
            sample_points(masks_queries_logits.float(), points), sample_points(mask_labels.float(), points)
        )
        probabilities = class_queries_logits.float().softmax(dim=-1)
        cost = mask_cost * cross_entropy + dice_cost * dice - class_cost * probabilities[:, class_labels]
        worst = torch.finfo(cost.dtype).max
        cost = torch.nan_to_num(cost, nan=worst, posinf=worst, neginf=worst)
    rows, columns = linear_sum_assignment(cost.T.cpu().numpy())
    targets, queries = torch.from_numpy(rows), torch.from_numpy(columns)
    if max_matches is not None and len(targets) > max_matches:
        lots = torch.randperm(len(targets), generator=generator, device=generator.device).cpu()
        chosen = lots[:max_matches].sort().values
        targets, queries = targets[chosen], queries[chosen]
    return MaskMatches(queries.to(device), targets.to(device))


def mask_classification_loss(class_logits: Tensor, labels: Tensor, denominator: Tensor | float) -> Tensor:
    """Cross-entropy of mask class logits over classes and void (arXiv 2412.04533, section 3.3).

    Args:
        class_logits: `(batch_size, num_masks, num_classes + 1)`, void last.
        labels: class index of each mask, `(batch_size, num_masks)`; -1 leaves a slot out.
        denominator: what the sum is divided by: the number of masks with a label, over all processes.

    Returns:
        A scalar; zero, connected to the logits, if no mask has a label.
    """
    valid = labels != IGNORED_LABEL
    return F.cross_entropy(class_logits[valid].float(), labels[valid], reduction="sum") / denominator


def mask_consistency_loss(
    predicted_embeddings: Tensor, target_embeddings: Tensor, denominator: Tensor | float, detach_target: bool = True
) -> Tensor:
    """1 − cosine between the embeddings of predicted masks and of the ground-truth masks that they match.

    See arXiv 2412.04533, section 3.3.

    Args:
        predicted_embeddings: `(num_pairs, dim)`.
        target_embeddings: `(num_pairs, dim)`.
        denominator: what the sum is divided by: the number of pairs, over all processes.
        detach_target: whether gradients stop at the ground-truth side (FC-CLIP) or not (MAFT+).

    Returns:
        A scalar; zero, connected to the embeddings, without pairs.
    """
    if detach_target:
        target_embeddings = target_embeddings.detach()
    cosines = F.cosine_similarity(predicted_embeddings.float(), target_embeddings.float(), dim=-1)
    return (1 - cosines).sum() / denominator


@torch.no_grad()
def draw_uncertain_points(
    masks_logits: Tensor,
    num_points: int,
    *,
    generator: torch.Generator,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
) -> Tensor:
    """Points for the mask losses, most of them where the prediction is uncertain (PointRend, arXiv 1912.08193).

    Args:
        masks_logits: `(num_masks, height, width)`.
        num_points: points for each mask.
        generator: a generator on the logits' device.
        oversample_ratio: so many times `num_points` are drawn to choose the uncertain ones from.
        importance_sample_ratio: fraction of the points that are uncertain ones; the rest lie anywhere.

    Returns:
        x and y in [0, 1], `(num_masks, num_points, 2)`.
    """
    num_masks, device = len(masks_logits), masks_logits.device
    num_uncertain = int(importance_sample_ratio * num_points)
    drawn = torch.rand(num_masks, int(oversample_ratio * num_points), 2, generator=generator, device=device)
    uncertainty = -sample_points(masks_logits, drawn).abs()
    chosen = uncertainty.topk(num_uncertain, dim=1).indices
    uncertain = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
    anywhere = torch.rand(num_masks, num_points - num_uncertain, 2, generator=generator, device=device)
    return torch.cat([uncertain, anywhere], dim=1)


def point_mask_losses(logits: Tensor, labels: Tensor, denominator: Tensor | float) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice loss of matched masks at points (Mask2Former, arXiv 2112.01527).

    Args:
        logits: predictions, `(num_masks, num_points)`.
        labels: targets in [0, 1], `(num_masks, num_points)`.
        denominator: what the sums over masks are divided by: the number of ground-truth masks, over all processes.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
    probabilities = logits.sigmoid()
    dice = 1 - (2 * (probabilities * labels).sum(dim=1) + 1) / (probabilities.sum(dim=1) + labels.sum(dim=1) + 1)
    return cross_entropy.sum() / denominator, dice.sum() / denominator


def mask_generator_losses(
    masks_queries_logits: Tensor,
    class_queries_logits: Tensor,
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    *,
    generators: Sequence[torch.Generator],
    mask_denominator: Tensor | float,
    class_denominator: Tensor | float,
    class_weight: float = 2.0,
    options: MaskLossOptions | None = None,
) -> dict[str, Tensor]:
    """Mask2Former's losses (arXiv 2112.01527) of one prediction of a mask generator, weighted.

    Hungarian matching, cross-entropy of the class logits with unmatched queries as void, binary cross-entropy and dice
    loss of the matched masks at points.

    Args:
        masks_queries_logits: `(batch_size, num_queries, height, width)`.
        class_queries_logits: `(batch_size, num_queries, num_classes + 1)`, void last; with an open vocabulary, of the
            training classes.
        mask_labels: for each picture `(num_masks, H, W)`.
        class_labels: for each picture `(num_masks,)`.
        generators: a generator for each picture, on the logits' device.
        mask_denominator: number of ground-truth masks, over all processes.
        class_denominator: sum of the queries' weights, over all processes; see [`query_weight_sum`].
        class_weight: weight of the cross-entropy, and of the classes in matching.
        options: weights of the other losses and of their matching costs, and the points at which masks are compared.

    Returns:
        `loss_class`, `loss_mask` and `loss_dice`, weighted scalars.
    """
    options = options or MaskLossOptions()
    void = class_queries_logits.shape[-1] - 1
    losses = {name: class_queries_logits.new_zeros(()) for name in ("loss_class", "loss_mask", "loss_dice")}
    for masks_logits, class_logits, masks, labels, generator in zip(
        masks_queries_logits.float(), class_queries_logits.float(), mask_labels, class_labels, generators, strict=True
    ):
        matches = match_by_assignment(
            masks_logits,
            class_logits,
            masks,
            labels,
            generator=generator,
            class_cost=class_weight,
            mask_cost=options.mask_weight,
            dice_cost=options.dice_weight,
            num_points=options.num_matching_points or options.num_points,
        )
        target_classes = labels.new_full((len(class_logits),), void)
        target_classes[matches.queries] = labels[matches.targets]
        weights = class_logits.new_ones(void + 1)
        weights[void] = options.no_object_weight
        cross_entropy = F.cross_entropy(class_logits, target_classes, weight=weights, reduction="sum")
        losses["loss_class"] = losses["loss_class"] + class_weight * cross_entropy / class_denominator

        matched_logits = masks_logits[matches.queries]
        points = draw_uncertain_points(
            matched_logits,
            options.num_points,
            generator=generator,
            oversample_ratio=options.oversample_ratio,
            importance_sample_ratio=options.importance_sample_ratio,
        )
        point_labels = sample_points(masks[matches.targets].float(), points)
        loss_mask, loss_dice = point_mask_losses(sample_points(matched_logits, points), point_labels, mask_denominator)
        losses["loss_mask"] = losses["loss_mask"] + options.mask_weight * loss_mask
        losses["loss_dice"] = losses["loss_dice"] + options.dice_weight * loss_dice
    return losses


def query_weight_sum(num_queries: int, num_masks: Sequence[int], no_object_weight: float = 0.1) -> float:
    """Sum of the queries' weights in the class loss of a batch, known before matching.

    A matched query weighs 1, the others `no_object_weight`.

    Args:
        num_queries: queries of each picture.
        num_masks: ground-truth masks of each picture.
        no_object_weight: weight of an unmatched query.
    """
    matched = [min(num_queries, count) for count in num_masks]
    return sum(count + no_object_weight * (num_queries - count) for count in matched)


__all__ = [
    "IGNORED_LABEL",
    "MaskMatches",
    "draw_uncertain_points",
    "mask_classification_loss",
    "mask_consistency_loss",
    "mask_generator_losses",
    "match_by_assignment",
    "match_by_iou",
    "pairwise_mask_iou",
    "pairwise_point_costs",
    "point_mask_losses",
    "query_weight_sum",
    "reduce_masks",
    "sample_points",
]
