"""A mask's embedding from a picture's features, and both branches' class scores together: functions of tensors.

Pooling inside masks (FC-CLIP, arXiv 2308.02487), pooling with the adapter's activation maps (arXiv 2412.04533), masked
crops, and the geometric ensemble.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .configuration_maskadapter import MaskPooling

CROPS_AT_A_TIME = 16
PROBABILITY_FLOOR = 1e-8


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(batch_size, num_masks, height, width)` masks bilinearly to `size`, without antialiasing."""
    if masks.shape[-2:] == tuple(size):
        return masks
    if 0 in masks.shape[:2]:
        return masks.new_zeros(*masks.shape[:2], *size)
    return F.interpolate(masks, size=size, mode="bilinear", align_corners=False)


def pool_inside_masks(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features over binary or weighted masks; zero for an empty mask.

    Args:
        features: `(batch_size, channels, height, width)`.
        masks: non-negative weights, `(batch_size, num_masks, height, width)`.

    Returns:
        `(batch_size, num_masks, channels)`.
    """
    masks = masks.to(features.dtype)
    weights = masks / (masks.sum(dim=(-2, -1), keepdim=True) + 1e-8)
    return torch.einsum("bchw,bnhw->bnc", features, weights)


def pooling_weights(masks: Tensor, size: tuple[int, int], form: MaskPooling, threshold: float = 0.5) -> Tensor:
    """Weight of each feature cell in mask pooling, `(batch_size, num_masks, *size)`.

    Args:
        masks: mask probabilities or logits, `(batch_size, num_masks, height, width)`.
        size: height and width of the feature grid.
        form: `"hard"`: masks resized bilinearly, then compared with the threshold; `"area"`: covered fraction of each
            cell; `"any"`: every cell that the mask touches.
        threshold: value strictly above which a pixel belongs to the mask: 0.5 for probabilities, 0 for logits.
    """
    if form == "hard":
        return (resize_masks(masks, size) > threshold).float()
    masks = (masks > threshold).float()
    if 0 in masks.shape[:2]:
        return masks.new_zeros(*masks.shape[:2], *size)
    return F.adaptive_avg_pool2d(masks, size) if form == "area" else F.adaptive_max_pool2d(masks, size)


def pool_with_maps(features: Tensor, maps: Tensor) -> Tensor:
    """Mean of features weighted by each map's sigmoid, however small that is (arXiv 2412.04533, section 3.2).

    Args:
        features: `(batch_size, channels, height, width)`.
        maps: activation maps before the sigmoid, `(batch_size, num_masks, num_output_maps, height, width)`.

    Returns:
        `(batch_size, num_masks, num_output_maps, channels)`.
    """
    weights = F.logsigmoid(maps.float()).flatten(-2).softmax(dim=-1).to(features.dtype)
    return torch.einsum("bnkp,bcp->bnkc", weights, features.flatten(-2))


def crop_with_mask(pixel_values: Tensor, mask: Tensor, side: int, margin: float) -> Tensor:
    """Cut a mask's box out of a picture, fill what is outside the mask with the pixel mean, and resize.

    Args:
        pixel_values: normalised picture, `(channels, height, width)`; its pixel mean is zero.
        mask: binary mask, `(height, width)`; an empty one gives a blank crop.
        side: height and width in pixels of the result.
        margin: margin around the box on each side, as a fraction of the box.

    Returns:
        `(channels, side, side)`.
    """
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if len(rows) == 0:
        return pixel_values.new_zeros(pixel_values.shape[0], side, side)
    slices = []
    for positions, length in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        first, last = int(positions[0]), int(positions[-1]) + 1
        extra = round(margin * (last - first))
        slices.append(slice(max(first - extra, 0), min(last + extra, length)))
    crop = pixel_values[:, slices[0], slices[1]] * mask[slices[0], slices[1]]
    return F.interpolate(crop[None], size=(side, side), mode="bilinear", align_corners=False, antialias=True)[0]


def embed_crops(
    embed_pictures: Callable[[Tensor], Tensor],
    pixel_values: Tensor,
    masks: Tensor,
    side: int,
    margin: float,
    threshold: float = 0.5,
) -> Tensor:
    """Embeddings of masked crops, for each picture and each mask of it.

    Args:
        embed_pictures: a CLIP's image embeddings, `(number, channels, side, side)` to `(number, projection_dim)`.
        pixel_values: normalised, padded pictures, `(batch_size, channels, height, width)`.
        masks: mask probabilities or logits, at least one of each picture, `(batch_size, num_masks, height, width)`.
        side: height and width in pixels of the crops.
        margin: margin around a mask's box on each side, as a fraction of the box.
        threshold: value strictly above which a pixel belongs to the mask: 0.5 for probabilities, 0 for logits.

    Returns:
        `(batch_size, num_masks, projection_dim)`.
    """
    embeddings = []
    for picture, of_picture in zip(pixel_values, masks, strict=True):
        embedded = []
        for chunk in of_picture.float().split(CROPS_AT_A_TIME):
            binary_masks = resize_masks(chunk[None], picture.shape[-2:])[0] > threshold
            embedded.append(
                embed_pictures(torch.stack([crop_with_mask(picture, mask, side, margin) for mask in binary_masks]))
            )
        embeddings.append(torch.cat(embedded))
    return torch.stack(embeddings)


def geometric_ensemble(
    in_vocabulary_logits: Tensor, out_vocabulary_logits: Tensor, out_vocabulary_weight: Tensor
) -> Tensor:
    """Combine both branches' class logits geometrically (FC-CLIP, arXiv 2308.02487).

    Args:
        in_vocabulary_logits: `(batch_size, num_masks, num_classes + 1)`, void last. The probability of void comes from
            here alone.
        out_vocabulary_logits: the same of the mask embeddings; its void plays no part.
        out_vocabulary_weight: exponent of the out-of-vocabulary probability (alpha of seen classes, beta of unseen
            ones), broadcast to `(batch_size, num_masks, num_classes)`.

    Returns:
        Log-probabilities, `(batch_size, num_masks, num_classes + 1)`, void last.
    """
    log_in = in_vocabulary_logits[..., :-1].float().log_softmax(dim=-1)
    log_out = out_vocabulary_logits[..., :-1].float().log_softmax(dim=-1)
    class_probabilities = ((1 - out_vocabulary_weight) * log_in + out_vocabulary_weight * log_out).softmax(dim=-1)
    void = void_probability(in_vocabulary_logits)[..., None]
    return log_with_void(class_probabilities * (1 - void), void)


def void_probability(in_vocabulary_logits: Tensor) -> Tensor:
    """Probability of void by the generator's class branch, `(batch_size, num_masks)`."""
    return in_vocabulary_logits.float().softmax(dim=-1)[..., -1]


def log_with_void(class_probabilities: Tensor, void_probability: Tensor) -> Tensor:
    """Logarithm of class probabilities with void appended, kept finite."""
    return torch.cat([class_probabilities, void_probability], dim=-1).add(PROBABILITY_FLOOR).log()


__all__ = [
    "crop_with_mask",
    "embed_crops",
    "geometric_ensemble",
    "log_with_void",
    "pool_inside_masks",
    "pool_with_maps",
    "pooling_weights",
    "resize_masks",
    "void_probability",
]
