"""Pictures and masks at the size that a model sees, as arrays: the image processor's rules, with PIL and NumPy alone.

What needs PyTorch or Transformers stays in `image_processing_maskadapter.py`, so that an exported model, which runs
without them, prepares its pictures by the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .masks import as_array, masks_from_array

BILINEAR = int(Image.Resampling.BILINEAR)


def resized_size(height: int, width: int, shortest_edge: int, longest_edge: int | None = None) -> tuple[int, int]:
    """Size after scaling the shorter side to `shortest_edge`, or less so that the longer one fits `longest_edge`.

    Sizes are rounded as in the published evaluations: int(x + 0.5), at least 1. So are the intermediate results, whose
    last bits decide where a side is a whole number and a half: first the shorter side is scaled, then both to the cap.
    """
    scale = shortest_edge / min(height, width)
    sides = [float(shortest_edge) if side == min(height, width) else side * scale for side in (height, width)]
    if longest_edge is not None and max(sides) > longest_edge:
        scale = longest_edge / max(sides)
        sides = [side * scale for side in sides]
    new_height, new_width = (max(int(side + 0.5), 1) for side in sides)
    return new_height, new_width


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How pictures become a model's input; the fields are options of [`MaskAdapterImageProcessorPil`].

    Args:
        size: `shortest_edge`, `longest_edge` or both; or `height` and `width`.
        do_resize, do_rescale, do_normalize, do_pad: steps to take.
        rescale_factor: what pixels are multiplied by before they are normalised, with `do_rescale`.
        image_mean, image_std: pixel statistics.
        pad_size: least `height` and `width` to pad to.
        size_divisor: heights and widths are padded to a multiple of this.
        resample: PIL's number of the resampling filter.
    """

    size: Mapping[str, int | None]
    do_resize: bool = True
    do_rescale: bool = False
    do_normalize: bool = True
    do_pad: bool = True
    rescale_factor: float = 1 / 255
    image_mean: Sequence[float] = ()
    image_std: Sequence[float] = ()
    pad_size: Mapping[str, int | None] | None = None
    size_divisor: int = 32
    resample: int = BILINEAR

    def new_size(self, original: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a picture in the model's input, from those that it has.

        Raises:
            ValueError: if `size` holds none of its forms.
        """
        if not self.do_resize:
            return original
        shortest, longest, height, width = (
            self.size.get(name) for name in ("shortest_edge", "longest_edge", "height", "width")
        )
        if shortest or longest:
            return resized_size(*original, shortest or longest, longest)  # type: ignore[arg-type]
        if height and width:
            return height, width
        raise ValueError(
            f'size must hold "shortest_edge", "longest_edge", or "height" and "width", got {_given(self.size)}.'
        )

    def padded_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Height and width that hold pictures of some sizes.

        Raises:
            ValueError: if that is not possible with these options.
        """
        height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
        if not self.do_pad:
            if len(set(sizes)) > 1:
                raise ValueError("Pictures of different sizes make a batch only with do_pad=True.")
            return height, width
        if self.size_divisor < 1:
            raise ValueError(f"size_divisor must be at least 1, got {self.size_divisor}.")
        if self.pad_size is not None:
            least_height, least_width = self.pad_size.get("height"), self.pad_size.get("width")
            if not (least_height and least_width) or least_height < height or least_width < width:
                raise ValueError(
                    f'pad_size must hold a "height" of at least {height} and a "width" of at least {width}, those of '
                    f"the largest picture, got {_given(self.pad_size)}."
                )
            height, width = least_height, least_width
        return tuple(-(-side // self.size_divisor) * self.size_divisor for side in (height, width))  # type: ignore

    def pixels(self, picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """A picture's normalised pixels at a height and width, `(3, height, width)` fp32."""
        height, width = size
        if picture.size != (width, height):
            picture = picture.resize((width, height), resample=Image.Resampling(self.resample))
        pixels: Any = np.asarray(picture, dtype=np.float32)
        if self.do_rescale:
            pixels = pixels * np.float32(self.rescale_factor)
        if self.do_normalize:
            pixels = (pixels - np.asarray(self.image_mean, np.float32)) / np.asarray(self.image_std, np.float32)
        return pixels.transpose(2, 0, 1)

    def masks(self, masks: np.ndarray, size: tuple[int, int], padded: tuple[int, int]) -> np.ndarray:
        """A picture's masks in the model's input, `(num_masks, *padded)` fp32.

        Args:
            masks: from [`read_mask_array`].
            size: height and width of the picture in the input.
            padded: height and width of the input.
        """
        height, width = size
        result = np.zeros((len(masks), *padded), dtype=np.float32)
        if masks.dtype == bool:
            result[:, :height, :width] = resize_nearest(masks, size)
            return result
        for number, mask in enumerate(masks):
            resized = Image.fromarray(mask).resize((width, height), resample=Image.Resampling(self.resample))
            result[number, :height, :width] = np.asarray(resized).clip(0, 1)  # cubic kernels overshoot
        return result


def _given(size: Mapping[str, int | None]) -> dict[str, int]:
    return {name: side for name, side in size.items() if side is not None}


def read_mask_array(masks: Any, size: tuple[int, int], index: int) -> np.ndarray:
    """Masks of a picture, `(num_masks, height, width)`, hard ones as booleans, soft ones as floats."""
    try:
        array = as_array(masks)
    except ValueError:
        raise ValueError(f"The masks of picture {index} must all be of one size.") from None
    try:
        return masks_from_array(array, size)
    except ValueError as error:
        raise ValueError(f"Picture {index}: {error}") from None


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest resize of `(..., height, width)` values of any kind, of ids too large for PIL too.

    Positions are summed up from step to step as PIL does, whose last bits decide between two equally near pixels.
    """
    if values.shape[-2:] == size:
        return values
    rows, columns = (
        np.cumsum([0.5 * old / new] + [old / new] * (new - 1)).astype(np.int64)
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]


__all__ = ["Preparation", "read_mask_array", "resize_nearest", "resized_size"]
