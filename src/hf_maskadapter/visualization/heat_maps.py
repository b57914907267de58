"""Values over a picture, such as the adapter's activations, as heat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..model.masks import as_array
from ..model.pictures import as_viewer_shows

_HEAT = np.array(  # dark to bright in even steps of lightness, so that it reads in grey, too
    [
        (0, 0, 4),
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    dtype=float,
)


def heat_map(
    image: Image.Image | np.ndarray,
    values: Any,
    *,
    maximum: float | None = None,
    alpha: float = 0.6,
) -> Image.Image:
    """Paint values over a picture, dark where they are low, bright where they are high.

    Args:
        image: the picture.
        values: `(height, width)` non-negative numbers of any resolution that cover the whole picture.
        maximum: the value that gets the brightest colour; by default the largest one.
        alpha: how strongly to paint, 0 to 1.

    Raises:
        ValueError: if `values` is not a map.
    """
    picture = as_viewer_shows(image)
    array = as_array(values).astype(np.float32)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"values must have shape (height, width), got {array.shape}.")
    array = np.nan_to_num(array / max(float(maximum if maximum is not None else array.max()), 1e-12)).clip(0, 1)
    smooth = Image.fromarray(array).resize(picture.size, Image.Resampling.BILINEAR)
    levels = np.linspace(0, 1, 256)
    stops = np.linspace(0, 1, len(_HEAT))
    lookup = np.stack([np.interp(levels, stops, channel) for channel in _HEAT.T], axis=1).round().astype(np.uint8)
    heat = lookup[(np.asarray(smooth) * 255).round().astype(np.uint8)]
    gray = Image.merge("RGB", [picture.convert("L")] * 3)
    return Image.blend(gray, Image.fromarray(heat), alpha)


def activation_weights(
    activation_maps: Any, *, image_size: Sequence[int] | None = None, padded_size: Sequence[int] | None = None
) -> np.ndarray:
    """Where the Mask-Adapter looks for one mask: the mean of its pooling weights.

    Args:
        activation_maps: one mask's semantic activation maps, `(num_output_maps, height, width)`, before the sigmoid,
            or one of them, `(height, width)`: `outputs.semantic_activation_maps[image, mask]`.
        image_size: height and width of the picture inside the padded input, `outputs.image_sizes[image]`.
        padded_size: height and width of the padded input, `outputs.padded_size`. Both or neither must be given.

    Returns:
        `(map_height, map_width)` floats that cover the picture; without padding they sum to 1.

    Raises:
        ValueError: if the shapes do not fit.
    """
    maps = as_array(activation_maps).astype(np.float64)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim != 3:
        raise ValueError(f"activation_maps must have shape (num_output_maps, height, width), got {maps.shape}.")
    if (image_size is None) != (padded_size is None):
        raise ValueError("image_size and padded_size belong together: give both or neither.")
    weights = 1 / (1 + np.exp(-maps))
    weights = (weights / weights.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    if image_size is not None and padded_size is not None:
        shares = as_array(image_size).astype(float) / as_array(padded_size).astype(float)
        height, width = (max(1, round(n * share)) for n, share in zip(weights.shape, shares, strict=True))
        weights = weights[:height, :width]
    return weights


def activation_heat_map(
    image: Image.Image | np.ndarray,
    activation_maps: Any,
    *,
    image_size: Sequence[int] | None = None,
    padded_size: Sequence[int] | None = None,
    alpha: float = 0.6,
) -> Image.Image:
    """Show where the Mask-Adapter looks for one mask, see [`activation_weights`], as heat over the picture.

    Args:
        image: the picture.
        activation_maps: see [`activation_weights`].
        image_size: see [`activation_weights`].
        padded_size: see [`activation_weights`].
        alpha: see [`heat_map`].

    Raises:
        ValueError: if the shapes do not fit.
    """
    weights = activation_weights(activation_maps, image_size=image_size, padded_size=padded_size)
    return heat_map(image, weights, alpha=alpha)


__all__ = ["activation_heat_map", "activation_weights", "heat_map"]
