"""From a picture with its truth to what a training step takes: jitter, flip, crop, masks, normalisation.

Large-scale jitter as Mask2Former and FC-CLIP train with it: the picture is scaled so that it would fit a square of
`crop_size` times a random factor, then cut to `crop_size` at a random place, or padded with grey at bottom and right.
Padding never belongs to a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from .samples import SegmentationSample
from .sampling import sample_generator


@dataclass(frozen=True)
class TrainingSample:
    """One sample of a training batch.

    Args:
        pixel_values: (3, S, S) float32, normalised picture; grey where padded.
        pixel_mask: (S, S) bool, where the picture is (its top left part); the rest is padding.
        mask_map: (S / mask_stride, S / mask_stride) int16, index of the mask that each pixel belongs to, -1 for none.
            The masks are disjoint, so this holds all of them in a fraction of the memory.
        class_labels: (N,) int64, class index of each mask. The masks come in random order: the first k of them are a
            random choice of k.
        sample_id: the sample's name in its data set.
        epoch: the epoch that it was drawn for.
    """

    pixel_values: torch.Tensor
    pixel_mask: torch.Tensor
    mask_map: torch.Tensor
    class_labels: torch.Tensor
    sample_id: str
    epoch: int

    @property
    def mask_labels(self) -> torch.Tensor:
        """The masks, (N, S / mask_stride, S / mask_stride) bool."""
        return masks_from_map(self.mask_map, len(self.class_labels))


def masks_from_map(mask_map: torch.Tensor, num_masks: int) -> torch.Tensor:
    """Masks of an index map: (h, w) integers, -1 for none, to (num_masks, h, w) bool, on the map's device."""
    return mask_map == torch.arange(num_masks, dtype=mask_map.dtype, device=mask_map.device)[:, None, None]


@dataclass(frozen=True)
class Jitter:
    """A drawn geometry: scale to `scaled_size`, cut the crop at (`top`, `left`), flip it.

    Sizes and positions are (height, width) in pixels of the scaled picture.
    """

    scaled_size: tuple[int, int]
    top: int
    left: int
    crop_size: tuple[int, int]
    flip: bool

    def apply_to_image(self, image: Image.Image) -> Image.Image:
        """The crop, bilinear with antialiasing; only the part of the picture that is needed is resampled."""
        scale_y, scale_x = self.scaled_size[0] / image.height, self.scaled_size[1] / image.width
        box = (
            self.left / scale_x,
            self.top / scale_y,
            min((self.left + self.crop_size[1]) / scale_x, image.width),
            min((self.top + self.crop_size[0]) / scale_y, image.height),
        )
        crop = image.resize((self.crop_size[1], self.crop_size[0]), Image.Resampling.BILINEAR, box=box)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else crop

    def apply_to_map(self, values: np.ndarray) -> np.ndarray:
        """The crop of an (H, W) map of labels or numbers, by nearest neighbour."""
        rows = self._source(values.shape[0], self.scaled_size[0], self.top, self.crop_size[0])
        columns = self._source(values.shape[1], self.scaled_size[1], self.left, self.crop_size[1])
        return values[rows[:, None], columns[None, ::-1] if self.flip else columns[None]]

    @staticmethod
    def _source(size: int, scaled: int, first: int, length: int) -> np.ndarray:
        # Whole-number arithmetic: floor((first + i + 0.5) * size / scaled).
        return (2 * np.arange(first, first + length) + 1) * size // (2 * scaled)


@dataclass(frozen=True)
class TrainingTransform:
    """Turns a [`SegmentationSample`] into a [`TrainingSample`], with random numbers from (seed, epoch, sample id) only.

    Args:
        crop_size: side S of the crop in pixels (768 for the warm-up, 1024 for mixed masks).
        scale_range: range of the jitter's factor; at 1 the picture just fits the crop. `(1, 1)` with
            `flip_probability=0` leaves nothing to chance.
        flip_probability: probability of a horizontal flip.
        color_augmentation: SSD's random brightness, contrast, saturation and hue. Off in the published recipes.
        mask_unit: `"segment"`: a mask for each segment (FC-CLIP); `"class"`: one for each class (MAFT+).
        max_masks: keep so many masks at most, chosen at random; `None`: all.
        mask_stride: 1 or an even number: give the masks reduced so many times. A reduced pixel belongs to a mask if
            bilinear resizing of the mask would put it above 0.5.
        min_mask_area: leave out masks with fewer pixels in the crop (at least 1), counted after reduction.
        seed: the run's seed.
        image_mean: mean of each channel on the 0-255 scale.
        image_std: standard deviation of each channel on the 0-255 scale.
        pad_value: grey of the padding, 0-255.

    Crowd segments and pixels without a segment belong to no mask. A crop may hold no mask at all. The reference draws
    one random number for both axes of the crop's position; here each axis has its own.

    Raises:
        ValueError: if an argument is out of range.
    """

    crop_size: int = 768
    scale_range: tuple[float, float] = (0.1, 2.0)
    flip_probability: float = 0.5
    color_augmentation: bool = False
    mask_unit: Literal["segment", "class"] = "segment"
    max_masks: int | None = None
    mask_stride: int = 1
    min_mask_area: int = 1
    seed: int = 0
    image_mean: Sequence[float] = PIXEL_MEAN
    image_std: Sequence[float] = PIXEL_STD
    pad_value: int = 128

    def __post_init__(self) -> None:
        smallest, largest = self.scale_range
        if not 0 < smallest <= largest:
            raise ValueError(f"scale_range must be two positive numbers in ascending order, got {self.scale_range}.")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability must lie in 0..1, got {self.flip_probability}.")
        if self.mask_unit not in ("segment", "class"):
            raise ValueError(f"mask_unit must be 'segment' or 'class', got {self.mask_unit!r}.")
        if self.mask_stride != 1 and (self.mask_stride < 1 or self.mask_stride % 2):
            raise ValueError(f"mask_stride must be 1 or an even number, got {self.mask_stride}.")
        if self.crop_size < 1 or self.crop_size % self.mask_stride:
            raise ValueError(f"crop_size={self.crop_size} must be a multiple of mask_stride={self.mask_stride}.")
        if self.max_masks is not None and self.max_masks < 1:
            raise ValueError(f"max_masks must be at least 1 or None, got {self.max_masks}.")
        if self.min_mask_area < 1:
            raise ValueError(f"min_mask_area must be at least 1, got {self.min_mask_area}.")

    def __call__(self, sample: SegmentationSample, epoch: int = 0) -> TrainingSample:
        """Draw the sample for an epoch."""
        jitter = self.draw_jitter(*sample.size, sample_generator(self.seed, epoch, sample.sample_id, "jitter"))
        crop = jitter.apply_to_image(sample.image)
        if self.color_augmentation:
            crop = ssd_color_augmentation(crop, sample_generator(self.seed, epoch, sample.sample_id, "color"))
        unit_map, unit_classes = self._units(sample, jitter)
        mask_map, class_labels = self._choose(
            unit_map, unit_classes, sample_generator(self.seed, epoch, sample.sample_id, "masks")
        )
        pixel_mask = torch.zeros(self.crop_size, self.crop_size, dtype=torch.bool)
        pixel_mask[: crop.height, : crop.width] = True
        return TrainingSample(
            pixel_values=self._normalize(crop),
            pixel_mask=pixel_mask,
            mask_map=torch.from_numpy(mask_map),
            class_labels=torch.from_numpy(class_labels),
            sample_id=sample.sample_id,
            epoch=epoch,
        )

    def draw_jitter(self, height: int, width: int, rng: np.random.Generator) -> Jitter:
        """Draw the geometry for a picture of a size in pixels."""
        scale, top, left, flip = rng.random(4)
        factor = self.scale_range[0] + scale * (self.scale_range[1] - self.scale_range[0])
        ratio = factor * self.crop_size / max(height, width)
        scaled = (max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5)))
        crop = (min(scaled[0], self.crop_size), min(scaled[1], self.crop_size))
        return Jitter(
            scaled_size=scaled,
            top=int(top * (scaled[0] - crop[0] + 1)),
            left=int(left * (scaled[1] - crop[1] + 1)),
            crop_size=crop,
            flip=bool(flip < self.flip_probability),
        )

    def _units(self, sample: SegmentationSample, jitter: Jitter) -> tuple[np.ndarray, np.ndarray]:
        """Map of unit indices over the padded crop (-1: none) and the class of each unit."""
        segments = [segment for segment in sample.segments_info if not segment.iscrowd]
        classes = np.array([segment.category_id for segment in segments], dtype=np.int64)
        units = np.arange(len(segments))
        if self.mask_unit == "class":
            classes, units = np.unique(classes, return_inverse=True)
        highest = max((segment.id for segment in sample.segments_info), default=0)
        unit_of_segment = np.full(highest + 1, -1, dtype=np.int16)
        unit_of_segment[[segment.id for segment in segments]] = units
        unit_map = np.full((self.crop_size, self.crop_size), -1, dtype=np.int16)
        unit_map[: jitter.crop_size[0], : jitter.crop_size[1]] = unit_of_segment[
            jitter.apply_to_map(sample.segmentation)
        ]
        return _reduce(unit_map, self.mask_stride), classes

    def _choose(
        self, unit_map: np.ndarray, unit_classes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks that are large enough, in random order, up to `max_masks` of them."""
        areas = np.bincount(unit_map.ravel() + 1, minlength=len(unit_classes) + 1)[1:]
        chosen = rng.permutation(np.flatnonzero(areas >= self.min_mask_area))[: self.max_masks]
        mask_of_unit = np.full(len(unit_classes) + 1, -1, dtype=np.int16)  # its last entry stands for unit -1
        mask_of_unit[chosen] = np.arange(len(chosen))
        return mask_of_unit[unit_map], unit_classes[chosen]

    def _normalize(self, crop: Image.Image) -> torch.Tensor:
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (self.image_mean, self.image_std))
        pixel_values = ((self.pad_value - mean) / std)[:, None, None].repeat(1, self.crop_size, self.crop_size)
        pixel_values[:, : crop.height, : crop.width] = normalize_image(crop, self.image_mean, self.image_std)
        return pixel_values


def normalize_image(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels of an RGB picture, less the mean and divided by the deviation of each channel: (3, H, W) float32."""
    statistics = [torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std)]
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().sub_(statistics[0]).div_(statistics[1])


def _reduce(unit_map: np.ndarray, stride: int) -> np.ndarray:
    """Reduce a map of disjoint masks: bilinear resizing (no antialiasing) of each mask, then > 0.5.

    At an even stride a reduced pixel's bilinear value is the mean of the four pixels at the centre of its block, so it
    exceeds 0.5 for the unit that owns at least three of them.
    """
    if stride == 1:
        return unit_map
    low, high = stride // 2 - 1, stride // 2
    a, b, c, d = (unit_map[i::stride, j::stride] for i in (low, high) for j in (low, high))
    three_with_a = (a == b).astype(np.int8) + (a == c) + (a == d) >= 2
    return np.where(three_with_a, a, np.where((b == c) & (c == d), b, np.int16(-1)))


def ssd_color_augmentation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random photometric distortion of SSD (Liu et al. 2016, sec. 2.2), as used for semantic segmentation.

    Each with probability 0.5: brightness ±32 of 255, contrast and saturation ×0.5 to ×1.5, hue ±36°; contrast comes
    before or after saturation and hue, by chance.

    Args:
        image: RGB picture.
        rng: random numbers.
    """
    switches, amounts = rng.random(5), rng.random(4)
    brightness, contrast, saturation, hue, contrast_first = (switches < 0.5).tolist()
    factors = 0.5 + amounts

    pixels = np.asarray(image)
    if brightness:
        pixels = _to_uint8(pixels.astype(np.float32) + np.float32(64 * amounts[0] - 32))
    if contrast and contrast_first:
        pixels = _to_uint8(pixels * np.float32(factors[1]))
    if saturation or hue:
        h, s, v = Image.fromarray(pixels).convert("HSV").split()
        if saturation:
            s = Image.fromarray(_to_uint8(np.asarray(s) * np.float32(factors[2])))
        if hue:
            turned = np.asarray(h).astype(np.int16) + round((2 * amounts[3] - 1) * 256 / 10)
            h = Image.fromarray((turned % 256).astype(np.uint8))
        pixels = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB"))
    if contrast and not contrast_first:
        pixels = _to_uint8(pixels * np.float32(factors[1]))
    return Image.fromarray(pixels)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def collate_training_samples(samples: Sequence[TrainingSample], mask_labels: bool = True) -> dict[str, Any]:
    """Make a batch of samples with different numbers of masks.

    Args:
        samples: samples of the same crop size.
        mask_labels: also give the masks themselves. Without, a batch is smaller to hand over from a worker and to copy
            to a device; [`masks_from_map`] makes the masks there.

    Returns:
        - `pixel_values` (B, 3, S, S) float32, `pixel_mask` (B, S, S) bool,
        - `mask_map` (B, s, s) int16, s = S / mask_stride,
        - `class_labels` list of B tensors (N_i,) int64,
        - `mask_labels` list of B tensors (N_i, s, s) bool, if asked for,
        - `sample_id` list of B strings, `epoch` list of B integers.
    """
    batch: dict[str, Any] = {
        "pixel_values": torch.stack([sample.pixel_values for sample in samples]),
        "pixel_mask": torch.stack([sample.pixel_mask for sample in samples]),
        "mask_map": torch.stack([sample.mask_map for sample in samples]),
        "class_labels": [sample.class_labels for sample in samples],
        "sample_id": [sample.sample_id for sample in samples],
        "epoch": [sample.epoch for sample in samples],
    }
    if mask_labels:
        batch["mask_labels"] = [sample.mask_labels for sample in samples]
    return batch


__all__ = [
    "Jitter",
    "TrainingSample",
    "TrainingTransform",
    "collate_training_samples",
    "masks_from_map",
    "normalize_image",
    "ssd_color_augmentation",
]
