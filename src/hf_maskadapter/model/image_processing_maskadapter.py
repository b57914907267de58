"""Pictures, masks and label maps to a model's inputs, with PIL and numpy alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

from .configuration_clips import PIXEL_MEAN, PIXEL_STD
from .configuration_maskadapter import MaskAdapterConfig
from .label_maps import checked_ids, label_values, segment_ids
from .masks import as_array
from .picture_preparation import Preparation, read_mask_array, resize_nearest, resized_size
from .pictures import naming, read_picture
from .post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
)


class MaskAdapterImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    r"""Options of [`MaskAdapterImageProcessorPil`] beside those that every image processor has.

    Args:
        size_divisor (`int`, *optional*, defaults to 32):
            Heights and widths are padded to a multiple of this.
        ignore_index (`int`, *optional*, defaults to 255):
            Value of label maps, as they come, that is no class. Negative values never are.
        do_reduce_labels (`bool`, *optional*, defaults to `False`):
            Whether label maps count from 1 and 0 is no class either (ADE20K).
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
            As above, each of the two also alone; or `{"height": ..., "width": ...}` for one fixed size. Published
            evaluations with the adapter use 896 and 896, without it 800 and 1333, on Cityscapes 1024 and 2560.
        do_resize, do_normalize, do_pad (`bool`, default to `True`):
            Steps to take.
        do_rescale (`bool`, defaults to `False`), rescale_factor (`float`, defaults to 1 / 255):
            Whether to multiply pixels before they are normalised; mean and standard deviation must fit.
        pad_size (`dict`, *optional*):
            Least height and width to pad to, `{"height": ..., "width": ...}`, for batches of one shape.
        image_mean, image_std (`list[float]`):
            Pixel statistics on the 0–255 scale.
        size_divisor, ignore_index, do_reduce_labels (default to 32, 255 and `False`):
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
        """Prepare a picture or a list of pictures.

        Args:
            images: pictures, paths or addresses, see [`read_picture`].
            segmentation_maps: for each picture a label map (class ids) or, with `segments_info`, a panoptic map:
                segment ids, or COCO's RGB picture of them. Integer arrays, PIL pictures or their paths, of the
                pictures' sizes.
            segments_info: for each picture a list of dicts with `id`, `category_id` (taken for the class id) and
                optionally `iscrowd`; segments that are not listed and crowds are left out.
            masks: for each picture masks of its size, `(num_masks, height, width)`: booleans, integers 0 and 1 or 0 and
                255, or floats in [0, 1].
            **kwargs: settings of the processor to replace in this call, as in [`MaskAdapterImageProcessorKwargs`].

        Returns:
            `pixel_values` `(batch_size, 3, height, width)`; `pixel_mask` `(batch_size, height, width)`, 1 for pixels of
            the picture; `original_sizes` `(batch_size, 2)`, height and width as a viewer shows the picture. With
            segmentation maps `mask_labels` and `class_labels`, for each picture `(num_masks, height, width)` floats and
            `(num_masks,)` class ids; with masks `masks` `(batch_size, max_num_masks, height, width)`, those of pictures
            with fewer masks filled up with empty ones, and `num_masks` `(batch_size,)`. Label maps and hard masks are
            resized to the nearest pixel, soft masks as the pictures are. Sizes, maps and masks are those of the picture
            as a viewer shows it, after EXIF's rotation.

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
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        do_pad: bool,
        pad_size: SizeDict | None,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        size_divisor: int,
        ignore_index: int | None,
        do_reduce_labels: bool,
        resample: PILImageResampling,
        input_data_format: str | ChannelDimension | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        _refuse_unsupported(kwargs)
        pictures = [_numbered(index, image, input_data_format) for index, image in enumerate(_as_list(images))]
        if not pictures:
            raise ValueError("There is no picture to process.")
        preparation = Preparation(
            size=dict(size),
            do_resize=do_resize,
            do_rescale=do_rescale,
            do_normalize=do_normalize,
            do_pad=do_pad,
            rescale_factor=rescale_factor,
            image_mean=image_mean,
            image_std=image_std,
            pad_size=None if pad_size is None else dict(pad_size),
            size_divisor=size_divisor,
            resample=int(resample),
        )
        original_sizes = [(picture.height, picture.width) for picture in pictures]
        new_sizes = [preparation.new_size(original) for original in original_sizes]
        padded = preparation.padded_size(new_sizes)

        pixel_values = np.zeros((len(pictures), 3, *padded), dtype=np.float32)
        pixel_mask = np.zeros((len(pictures), *padded), dtype=np.int64)
        for index, (picture, (height, width)) in enumerate(zip(pictures, new_sizes, strict=True)):
            pixel_values[index, :, :height, :width] = preparation.pixels(picture, (height, width))
            pixel_mask[index, :height, :width] = 1
        features = {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "original_sizes": np.array(original_sizes)}

        if masks is not None:
            arrays = [
                read_mask_array(of_picture, original, index)
                for index, (of_picture, original) in enumerate(
                    zip(_masks_of_each(masks, len(pictures)), original_sizes, strict=True)
                )
            ]
            most = max(len(array) for array in arrays)
            mask_values = np.zeros((len(arrays), most, *padded), dtype=np.float32)
            for index, (array, new_size) in enumerate(zip(arrays, new_sizes, strict=True)):
                mask_values[index, : len(array)] = preparation.masks(array, new_size, padded)
            features |= {"masks": mask_values, "num_masks": np.array([len(array) for array in arrays])}
        batch = BatchFeature(features, tensor_type=return_tensors)
        if segmentation_maps is not None:
            maps = _maps_of_each(segmentation_maps, len(pictures), are_panoptic=segments_info is not None)
            infos = [None] * len(pictures) if segments_info is None else _infos_of_each(segments_info, len(pictures))
            as_output = torch.from_numpy if return_tensors == "pt" else np.asarray
            batch["mask_labels"], batch["class_labels"] = [], []
            for index, (label_map, info) in enumerate(zip(maps, infos, strict=True)):
                _check_segments(info or (), index)
                values = _read_map(label_map, original_sizes[index], index, info)
                if info is None:
                    values = _class_ids(values, ignore_index, do_reduce_labels)
                segments = None if info is None else _segments(info, values, index)
                mask_labels, class_labels = _targets(resize_nearest(values, new_sizes[index]), segments, padded)
                batch["mask_labels"].append(as_output(mask_labels))
                batch["class_labels"].append(as_output(class_labels))
        elif segments_info is not None:
            raise ValueError("segments_info needs the segmentation_maps that hold its segments.")
        return batch


def _refuse_unsupported(arguments: dict[str, Any]) -> None:
    """One error for arguments of Transformers' image processors that would silently do nothing here."""
    if arguments.get("do_center_crop"):
        raise ValueError("do_center_crop is not supported: pictures are segmented as a whole.")
    if arguments.get("do_convert_rgb") is False:
        raise ValueError("do_convert_rgb=False is not supported: the model sees RGB.")
    data_format = arguments.get("data_format")
    if data_format is not None and ChannelDimension(data_format) != ChannelDimension.FIRST:
        raise ValueError("data_format must be channels_first, as the model expects.")


def _as_list(images: Any) -> list:
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    return list(images) if isinstance(images, (list, tuple)) else [images]


def _numbered(index: int, image: Any, input_data_format: str | ChannelDimension | None) -> Image.Image:
    """Read a picture; errors tell which one it is."""
    try:
        return read_picture(image, input_data_format)
    except (OSError, TypeError) as error:
        raise type(error)(f"Picture {index}: {error}") from error
    except (ValueError, SyntaxError) as error:  # SyntaxError: PIL's, for broken PNG files
        raise ValueError(f"Picture {index}: {error}") from error


def _masks_of_each(masks: Any, number: int) -> list:
    """A picture's masks each; a single picture's may come as one array, or one for each mask, without a list around."""
    if getattr(masks, "ndim", 0) == 4:
        masks = list(masks)
    elif not isinstance(masks, (list, tuple)):
        masks = [masks]
    elif number == 1:
        arrays = [as_array(mask) for mask in masks]
        if all(array.ndim == 2 for array in arrays):  # also of an empty list
            masks = [arrays]
    return _one_each(masks, number, "masks")


def _maps_of_each(maps: Any, number: int, are_panoptic: bool) -> list:
    """A picture's map each; they may come as one array, and a single picture's without a list around."""
    if not isinstance(maps, (list, tuple)):
        is_rgb = are_panoptic and np.shape(maps)[-1:] in ((3,), (4,))
        is_batch = getattr(maps, "ndim", 0) == 3 + is_rgb and len(maps) == number
        maps = list(maps) if is_batch else [maps]
    return _one_each(maps, number, "segmentation_maps")


def _infos_of_each(segments_info: Sequence, number: int) -> list:
    """A picture's segments each; a single picture's may come without a list around."""
    is_of_one = not len(segments_info) or isinstance(segments_info[0], dict)
    return _one_each([segments_info] if number == 1 and is_of_one else segments_info, number, "segments_info")


def _one_each(values: Sequence, number: int, name: str) -> list:
    if len(values) != number:
        raise ValueError(f"{name} has {len(values)} entries for {number} pictures: give one for each.")
    return list(values)


def _read_map(
    label_map: Any, size: tuple[int, int], index: int, segments: Sequence[Mapping[str, Any]] | None
) -> np.ndarray:
    """Class or, if there are `segments`, segment ids of a picture, `(height, width)` int64."""
    if isinstance(label_map, (str, os.PathLike)):
        with naming(f"The segmentation map of picture {index}, {os.fspath(label_map)},"), Image.open(label_map) as file:
            file.load()
            label_map = file
    elif not isinstance(label_map, Image.Image):
        label_map = as_array(label_map)
    try:
        if segments is not None:
            values = segment_ids(label_map, [segment["id"] for segment in segments], unlisted="drop")
        elif not isinstance(label_map, Image.Image) and label_map.ndim != 2:
            raise ValueError("is none")
        else:
            values = label_values(label_map)
    except (TypeError, ValueError) as error:
        kind = "class ids" if segments is None else "segment ids, or COCO's RGB picture of them"
        array = as_array(label_map)
        if array.dtype.kind in "iub" and (array.ndim == 2 or segments is not None):
            raise ValueError(f"The segmentation map of picture {index} {error}") from None
        hint = " A panoptic map needs its segments_info." if array.ndim == 3 and segments is None else ""
        raise ValueError(
            f"The segmentation map of picture {index} must hold {kind}, integers of shape (height, width), got "
            f"{array.dtype} of shape {array.shape}.{hint}"
        ) from None
    if values.shape != size:
        raise ValueError(
            f"The segmentation map of picture {index} is {values.shape[0]}x{values.shape[1]}, but the picture "
            f"{size[0]}x{size[1]} as a viewer shows it: they must be of one size."
        )
    return values.astype(np.int64)


def _class_ids(values: np.ndarray, ignore_index: int | None, do_reduce_labels: bool) -> np.ndarray:
    """Class ids of a label map's values, negative where there is none."""
    is_ignored = values == ignore_index
    return np.where(is_ignored, -1, values - 1 if do_reduce_labels else values)


def _check_segments(info: Sequence[Mapping[str, Any]], index: int) -> None:
    for segment in info:
        if "id" not in segment or "category_id" not in segment:
            raise ValueError(f'The segments of picture {index} need an "id" and a "category_id", got {segment}.')
    try:
        checked_ids(segment["id"] for segment in info)
    except ValueError as error:
        raise ValueError(f"Picture {index}: {error}") from None


def _segments(info: Sequence[Mapping[str, Any]], values: np.ndarray, index: int) -> dict[int, int]:
    """Class ids of the segments of a panoptic map, crowds left out."""
    if info and not np.isin([segment["id"] for segment in info], values).any():
        raise ValueError(
            f"No segment that is listed for picture {index} is in its map: do they belong to one another, and are the "
            "colours in the order red, green, blue?"
        )
    return {segment["id"]: segment["category_id"] for segment in info if not segment.get("iscrowd")}


def _targets(
    values: np.ndarray, segments: dict[int, int] | None, padded: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Masks `(num_masks, *padded)` and class ids `(num_masks,)`, in the order of ids; padding lies in no mask.

    Args:
        values: class ids, negative ones for none; or segment ids.
        segments: class ids of segments; `None` for class ids.
        padded: height and width of the masks.
    """
    present = np.unique(values).tolist()
    ids = [value for value in present if (value >= 0 if segments is None else value in segments)]
    labels = ids if segments is None else [segments[value] for value in ids]
    masks = np.zeros((len(ids), *padded), dtype=np.float32)
    for number, value in enumerate(ids):
        masks[number, : values.shape[0], : values.shape[1]] = values == value
    return masks, np.array(labels, dtype=np.int64)


#: The name under which Transformers stores and looks up the image processor whatever its backend.
MaskAdapterImageProcessor = MaskAdapterImageProcessorPil

AutoImageProcessor.register(
    MaskAdapterConfig, image_processor_classes={"pil": MaskAdapterImageProcessorPil}, exist_ok=True
)


__all__ = [
    "MaskAdapterImageProcessor",
    "MaskAdapterImageProcessorPil",
    "resized_size",
]
