"""Pictures, masks and label maps to a model's inputs, with PIL and numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

from .configuration_maskadapter import MaskAdapterConfig
from .post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
)

#: OpenCLIP's pixel statistics on the 0–255 scale, as FC-CLIP and Mask-Adapter use them.
PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.32316305)

_BACKGROUND = (255, 255, 255)  # behind transparent pixels, as most viewers show them
_SIXTEEN_TO_EIGHT_BITS = 257


def as_viewer_shows(image: Any) -> Image.Image:
    """A picture in any common form as an RGB picture that looks as a viewer shows it.

    Args:
        image: a PIL picture of any mode (EXIF orientation is applied, transparency is put on white, 16-bit values are
            scaled to 8 bits); or an array or tensor, `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)` with 1, 3 or 4 channels, of booleans, integers of 8 or 16 bits, or floats in
            [0, 1] or [0, 255].

    Raises:
        TypeError: if it is none of these.
        ValueError: if an array's shape or values cannot be a picture's.
    """
    if isinstance(image, Image.Image):
        return _rgb(ImageOps.exif_transpose(image))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise TypeError(f"A picture must be a PIL image, an array or a tensor, got {type(image).__name__}.")
    return _rgb(Image.fromarray(_eight_bits(_channels_last(image))))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ValueError(
            "A picture's array must have shape (height, width), (height, width, channels) or (channels, height, width) "
            f"with 1, 3 or 4 channels, got {array.shape}."
        )
    return array


def _eight_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if not np.isfinite(array).all():
        raise ValueError("The picture holds values that are not finite.")
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        scale = 255.0 if high <= 1 else 1.0
    else:
        scale = 1 / _SIXTEEN_TO_EIGHT_BITS if array.dtype == np.uint16 or high > 255 else 1.0
    if low < 0 or high * scale > 255:
        raise ValueError(
            f"Pixel values must lie in [0, 1], [0, 255] or, for integers, [0, 65535], got {low} to {high}."
        )
    return np.round(array * scale).astype(np.uint8)


def resized_size(height: int, width: int, shortest_edge: int, longest_edge: int | None = None) -> tuple[int, int]:
    """Size after scaling the shorter side to `shortest_edge`, or less so that the longer one fits `longest_edge`.

    Sizes are rounded as in the published evaluations: int(x + 0.5), at least 1.
    """
    scale = shortest_edge / min(height, width)
    if longest_edge is not None and max(height, width) * scale > longest_edge:
        scale = longest_edge / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


class MaskAdapterImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    size_divisor (`int`, *optional*, defaults to 32):
        Heights and widths are padded to a multiple of this.
    ignore_index (`int`, *optional*, defaults to 255):
        Value of label maps that is no class.
    do_reduce_labels (`bool`, *optional*, defaults to `False`):
        Whether label maps count from 1 and 0 is to be ignored (ADE20K).
    """

    size_divisor: int
    ignore_index: int | None
    do_reduce_labels: bool


class MaskAdapterImageProcessorPil(PilBackend):
    r"""Prepares pictures, and masks or label maps with them.

    Pictures are resized so that the shorter side is `size["shortest_edge"]` and the longer one at most
    `size["longest_edge"]` (PIL, bilinear), normalised on the 0–255 scale, and only then padded with zeros at the bottom
    and right: to the largest height and width of the batch, and to a multiple of `size_divisor`.

    Args:
        size (`dict`, defaults to `{"shortest_edge": 800, "longest_edge": 1333}`):
            As above; or `{"height": ..., "width": ...}` for one fixed size.
        do_resize, do_normalize, do_pad (`bool`, default to `True`):
            Steps to take.
        image_mean, image_std (`list[float]`):
            Pixel statistics on the 0–255 scale.
        size_divisor (`int`, defaults to 32), ignore_index (`int`, defaults to 255), do_reduce_labels (`bool`, defaults
        to `False`):
            See `MaskAdapterImageProcessorKwargs`.
    """

    valid_kwargs = MaskAdapterImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012
    resample = PILImageResampling.BILINEAR
    size = {"shortest_edge": 800, "longest_edge": 1333}  # noqa: RUF012
    default_to_square = False
    do_resize = True
    do_rescale = False
    do_normalize = True
    do_pad = True
    do_convert_rgb = True
    image_mean = PIXEL_MEAN
    image_std = PIXEL_STD
    size_divisor = 32
    ignore_index = 255
    do_reduce_labels = False

    post_process_semantic_segmentation = staticmethod(post_process_semantic_segmentation)
    post_process_panoptic_segmentation = staticmethod(post_process_panoptic_segmentation)
    post_process_instance_segmentation = staticmethod(post_process_instance_segmentation)

    def preprocess(
        self,
        images: Any,
        segmentation_maps: Any = None,
        segments_info: Sequence | None = None,
        masks: Any = None,
        **kwargs: Unpack[MaskAdapterImageProcessorKwargs],
    ) -> BatchFeature:
        """
        Prepare a picture or a list of pictures.

        Args:
            images: pictures, see [`as_viewer_shows`], or their paths or addresses.
            segmentation_maps: for each picture a label map (class ids) or, with `segments_info`, a panoptic map:
                segment ids, or COCO's RGB picture of them. Integer arrays or PIL pictures of the pictures' sizes.
            segments_info: for each picture a list of dicts with `id`, `category_id` and optionally `iscrowd`; segments
                that are not listed and crowds are left out.
            masks: for each picture masks of its size, `(num_masks, height, width)`: booleans, integers 0 and 1, or
                floats in [0, 1].

        Returns:
            `pixel_values` `(batch_size, 3, height, width)`; `pixel_mask` `(batch_size, height, width)`, 1 for pixels of
            the picture; `original_sizes` `(batch_size, 2)`, height and width as a viewer shows the picture. With
            segmentation maps `mask_labels` and `class_labels`, for each picture `(num_masks, height, width)` floats and
            `(num_masks,)` class ids; with masks `masks` `(batch_size, max_num_masks, height, width)`, those of pictures
            with fewer masks filled up with empty ones, and `num_masks` `(batch_size,)`.

        Raises:
            ValueError, TypeError, OSError: if a picture cannot be read, or a map or mask does not fit its picture.
        """
        return super().preprocess(images, segmentation_maps, segments_info, masks, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: Any,
        segmentation_maps: Any,
        segments_info: Sequence | None,
        masks: Any,
        size: SizeDict,
        do_resize: bool,
        do_normalize: bool,
        do_pad: bool,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        size_divisor: int,
        ignore_index: int | None,
        do_reduce_labels: bool,
        resample: PILImageResampling,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        pictures = [as_viewer_shows(self._open(image)) for image in _as_list(images)]
        if not pictures:
            raise ValueError("There is no picture to process.")
        original_sizes = [(picture.height, picture.width) for picture in pictures]
        new_sizes = [_new_size(original, size) if do_resize else original for original in original_sizes]
        padded = tuple(max(new_size[axis] for new_size in new_sizes) for axis in (0, 1))
        if do_pad:
            padded = tuple(-(-side // size_divisor) * size_divisor for side in padded)
        elif len(set(new_sizes)) > 1:
            raise ValueError("Pictures of different sizes make a batch only with do_pad=True.")

        pixel_values = np.zeros((len(pictures), 3, *padded), dtype=np.float32)
        pixel_mask = np.zeros((len(pictures), *padded), dtype=np.int64)
        for index, (picture, (height, width)) in enumerate(zip(pictures, new_sizes, strict=True)):
            if picture.size != (width, height):
                picture = picture.resize((width, height), resample=resample)
            pixels = np.asarray(picture, dtype=np.float32)
            if do_normalize:
                pixels = (pixels - np.float32(image_mean)) / np.float32(image_std)
            pixel_values[index, :, :height, :width] = pixels.transpose(2, 0, 1)
            pixel_mask[index, :height, :width] = 1
        features = {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "original_sizes": np.array(original_sizes)}

        if masks is not None:
            features |= _prepare_masks(_one_each(masks, pictures, "masks"), original_sizes, new_sizes, padded)
        batch = BatchFeature(features, tensor_type=return_tensors)
        if segmentation_maps is not None:
            maps = _one_each(segmentation_maps, pictures, "segmentation_maps")
            infos = [None] * len(pictures) if segments_info is None else _of_one(segments_info, len(pictures))
            targets = []
            for index, (label_map, info) in enumerate(zip(maps, infos, strict=True)):
                values = _read_map(label_map, original_sizes[index], index, is_panoptic=info is not None)
                if info is None and do_reduce_labels:
                    values = np.where(values == 0, -1, values - 1)
                    ignored = {-1} if ignore_index is None else {-1, ignore_index - 1, ignore_index}
                else:
                    ignored = set() if ignore_index is None else {ignore_index}
                values = _resize_nearest(values, new_sizes[index])
                targets.append(_targets(values, info, ignored, padded))
            batch["mask_labels"] = [torch.from_numpy(masks_of_image) for masks_of_image, _ in targets]
            batch["class_labels"] = [torch.from_numpy(labels) for _, labels in targets]
        return batch

    def _open(self, image: Any) -> Any:
        if not isinstance(image, str) and not hasattr(image, "__fspath__"):
            return image
        try:
            return self.fetch_images(image) if str(image).startswith(("http://", "https://")) else Image.open(image)
        except UnidentifiedImageError:
            raise ValueError(f"{image} is not a picture that can be read.") from None


def _as_list(images: Any) -> list:
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    return list(images) if isinstance(images, (list, tuple)) else [images]


def _new_size(original: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    if size.shortest_edge:
        return resized_size(*original, size.shortest_edge, size.longest_edge)
    if size.height and size.width:
        return size.height, size.width
    raise ValueError(f'size must hold "shortest_edge" (and "longest_edge") or "height" and "width", got {size}.')


def _of_one(values: Any, number: int) -> list:
    """A list with one entry for each picture; with a single picture, its entry may come without the list."""
    is_list_of_dicts = isinstance(values, (list, tuple)) and bool(values) and isinstance(values[0], dict)
    values = [values] if number == 1 and (is_list_of_dicts or len(values) == 0) else list(values)
    if len(values) != number:
        raise ValueError(f"segments_info has {len(values)} entries for {number} pictures.")
    return values


def _one_each(values: Any, pictures: list, name: str) -> list:
    if not isinstance(values, (list, tuple)):
        is_batch = getattr(values, "ndim", 0) == (4 if name == "masks" else 3) and name == "masks"
        values = list(values) if is_batch else [values]
    if len(values) != len(pictures):
        raise ValueError(f"{name} has {len(values)} entries for {len(pictures)} pictures: give one for each.")
    return list(values)


def _prepare_masks(
    masks: list, original_sizes: list[tuple[int, int]], new_sizes: list[tuple[int, int]], padded: tuple[int, ...]
) -> dict[str, np.ndarray]:
    arrays = []
    for index, (of_image, (height, width)) in enumerate(zip(masks, original_sizes, strict=True)):
        array = of_image.detach().cpu().numpy() if isinstance(of_image, torch.Tensor) else np.asarray(of_image)
        if array.size == 0:
            array = np.zeros((0, height, width), dtype=bool)
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.shape[1:] != (height, width):
            raise ValueError(
                f"The masks of picture {index} must have shape (num_masks, {height}, {width}), the picture's size as a "
                f"viewer shows it, got {array.shape}."
            )
        if array.size and (not np.isfinite(array).all() or array.min() < 0 or array.max() > 1):
            raise ValueError(
                f"The masks of picture {index} must be booleans, 0 and 1, or floats in [0, 1], got values from "
                f"{array.min()} to {array.max()}."
            )
        arrays.append(array)
    result = np.zeros((len(arrays), max(len(array) for array in arrays), *padded), dtype=np.float32)
    for index, (array, (height, width)) in enumerate(zip(arrays, new_sizes, strict=True)):
        soft = np.issubdtype(array.dtype, np.floating)
        resample = PILImageResampling.BILINEAR if soft else PILImageResampling.NEAREST
        for number, mask in enumerate(array):
            resized = Image.fromarray(mask.astype(np.float32)).resize((width, height), resample=resample)
            result[index, number, :height, :width] = np.asarray(resized)
    return {"masks": result, "num_masks": np.array([len(array) for array in arrays])}


def _read_map(label_map: Any, size: tuple[int, int], index: int, is_panoptic: bool) -> np.ndarray:
    """Class or segment ids of a picture, `(height, width)` int64."""
    if isinstance(label_map, torch.Tensor):
        label_map = label_map.detach().cpu().numpy()
    if isinstance(label_map, Image.Image):
        label_map = ImageOps.exif_transpose(label_map)
    values = np.asarray(label_map)
    if values.ndim == 3 and values.shape[-1] >= 3 and is_panoptic:
        red, green, blue = (values[..., channel].astype(np.int64) for channel in range(3))
        values = red + 256 * green + 256**2 * blue
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        kind = "segment ids, or COCO's RGB picture of them" if is_panoptic else "class ids"
        raise ValueError(
            f"The segmentation map of picture {index} must hold {kind}, integers of shape (height, width), got "
            f"{values.dtype} of shape {values.shape}."
        )
    if values.shape != size:
        raise ValueError(
            f"The segmentation map of picture {index} is {values.shape[0]}x{values.shape[1]}, but the picture "
            f"{size[0]}x{size[1]}: they must be of one size."
        )
    return values.astype(np.int64)


def _resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest resize of ids of any size, at pixel centres as PIL does."""
    if values.shape == size:
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns[None]]


def _targets(
    values: np.ndarray, info: Sequence[dict] | None, ignored: set[int], padded: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Masks `(num_masks, *padded)` and class ids `(num_masks,)`; padding lies in no mask."""
    if info is None:
        ids = [value for value in np.unique(values).tolist() if value not in ignored]
        labels = ids
    else:
        present = set(np.unique(values).tolist())
        segments = [one for one in info if not one.get("iscrowd") and one["id"] in present]
        ids, labels = [one["id"] for one in segments], [one["category_id"] for one in segments]
    masks = np.zeros((len(ids), *padded), dtype=np.float32)
    for number, value in enumerate(ids):
        masks[number, : values.shape[0], : values.shape[1]] = values == value
    return masks, np.array(labels, dtype=np.int64)


#: The name under which Transformers stores and looks up the image processor whatever its backend.
MaskAdapterImageProcessor = MaskAdapterImageProcessorPil

AutoImageProcessor.register(
    MaskAdapterConfig, image_processor_classes={"pil": MaskAdapterImageProcessorPil}, exist_ok=True
)


__all__ = ["MaskAdapterImageProcessor", "MaskAdapterImageProcessorPil", "as_viewer_shows", "resized_size"]
