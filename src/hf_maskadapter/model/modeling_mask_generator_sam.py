"""Segment Anything (SAM, SAM 2, SAM 3's tracker) as a mask generator: everything it finds from a grid of points.

The procedure is that of its automatic mask generation (arXiv 2304.02643, appendix B) without torchvision, and with
bounded memory: of each batch of points only the masks that pass the filters are kept, in half precision.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .configuration_mask_generators import SamMaskGeneratorConfig
from .modeling_mask_generator import (
    Box,
    MaskGeneratorOutput,
    PictureMaskGenerator,
    place_masks,
    resize_picture,
    stack_masks,
    wrap,
)

#: Whether each kind of model keeps a picture's aspect ratio, and its pixel statistics where they are not ImageNet's.
_KINDS: dict[str, dict[str, Any]] = {
    "sam": {"keep_aspect_ratio": True},
    "sam2": {"keep_aspect_ratio": False},
    "edgetam": {"keep_aspect_ratio": False},
    "sam3_tracker": {"keep_aspect_ratio": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
}
_MASKS_AT_A_TIME = 16


def non_maximum_suppression(overlaps: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy, exact non-maximum suppression: the best is kept, what overlaps it too much goes, and so on.

    Args:
        overlaps: IoU of each pair, `(number, number)`.
        scores: `(number,)`; of equal ones the first counts as better.
        threshold: IoU above which the one with the lower score goes.

    Returns:
        Indices that are kept, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    too_much = (overlaps > threshold)[order][:, order].cpu()
    is_suppressed = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for index in range(len(order)):
        if not is_suppressed[index]:
            kept.append(index)
            is_suppressed |= too_much[index]
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]


def box_ious(boxes: Tensor) -> Tensor:
    """IoU of each pair of boxes `(number, 4)`: left, top, right, bottom, the last two exclusive."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    corners = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    common = (corners[1] - corners[0]).clamp(min=0).prod(dim=-1)
    return common / (areas[:, None] + areas - common).clamp(min=1e-6)


def mask_ious(masks: Tensor) -> Tensor:
    """IoU of each pair of boolean masks `(number, height, width)`."""
    flat = masks.flatten(1).float()
    common, areas = flat @ flat.T, flat.sum(dim=1)
    return common / (areas[:, None] + areas - common).clamp(min=1)


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Tightest box of each boolean mask `(number, height, width)`: left, top, right, bottom, the last two exclusive.

    An empty mask has an empty box.
    """
    sides = []
    for axis in (1, 2):  # columns, then rows
        covered = masks.any(dim=axis)
        places = torch.arange(covered.shape[1], device=masks.device).expand_as(covered)
        last = torch.where(covered, places + 1, 0).amax(dim=1)
        first = torch.where(covered, places, covered.shape[1]).amin(dim=1)
        sides.append((torch.minimum(first, last), last))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def component_areas(masks: Tensor) -> Tensor:
    """For each pixel inside a boolean mask, how many pixels are connected with it, corners counting as touching.

    Labels spread to neighbours and jump to the label of the pixel that they name, so that the number of rounds grows
    with the logarithm of a component's extent.

    Args:
        masks: `(number, height, width)`.

    Returns:
        Integers of the same shape, 0 outside the masks.
    """
    number, height, width = masks.shape
    names = torch.arange(1, height * width + 1, device=masks.device, dtype=torch.float32)  # exact up to 4096 × 4096
    labels = torch.where(masks, names.view(height, width), 0)
    while True:
        spread = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0].masked_fill(~masks, 0).flatten(1)
        named = spread.gather(1, (spread.long() - 1).clamp(min=0))
        jumped = torch.where(spread > 0, torch.maximum(named, spread), 0).view_as(labels)
        if torch.equal(jumped, labels):
            break
        labels = jumped
    flat = labels.long().flatten(1)
    sizes = torch.zeros(number, height * width + 1, dtype=torch.long, device=masks.device)
    sizes.scatter_add_(1, flat, torch.ones_like(flat))
    return sizes.gather(1, flat).view_as(masks).masked_fill(~masks, 0)


def remove_fragments(logits: Tensor, min_area: float) -> Tensor:
    """Mask logits without islands and holes of fewer cells than `min_area`: theirs change their sign.

    Args:
        logits: `(num_masks, height, width)`.
        min_area: least number of cells.
    """
    chunks = []
    for chunk in logits.split(_MASKS_AT_A_TIME):
        for inside in (chunk > 0, chunk <= 0):  # islands first: they may lie in holes
            areas = component_areas(inside)
            chunk = torch.where((areas > 0) & (areas < min_area), -chunk, chunk)
        chunks.append(chunk)
    return torch.cat(chunks) if chunks else logits


def stability_scores(logits: Tensor, offset: float) -> Tensor:
    """IoU of each mask at a high and at a low cut, logits of plus and minus the offset; 0 for empty masks.

    Args:
        logits: `(num_masks, height, width)`.
        offset: see above.
    """
    high, low = ((logits > cut).flatten(1).sum(dim=1) for cut in (offset, -offset))
    return high / low.clamp(min=1)


def crop_boxes(size: tuple[int, int], layers: int, overlap: float) -> list[tuple[int, Box]]:
    """The picture and its crops: layer, and left, top, right and bottom in pixels.

    Args:
        size: height and width of the picture.
        layers: number of layers of crops beside the picture itself, the n-th of 2ⁿ × 2ⁿ crops.
        overlap: of the first layer's crops, as a fraction of the shorter side; it halves with each layer.
    """
    boxes: list[tuple[int, Box]] = [(0, (0, 0, size[1], size[0]))]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        shared = int(overlap * min(size) * 2 / per_side)
        height, width = (math.ceil((shared * (per_side - 1) + side) / per_side) for side in size)
        for column, row in product(range(per_side), repeat=2):
            left, top = (width - shared) * column, (height - shared) * row
            boxes.append((layer, (left, top, min(left + width, size[1]), min(top + height, size[0]))))
    return boxes


class SamMaskGenerator(PictureMaskGenerator):
    """Segment Anything as a class-agnostic mask generator.

    ```python
    generator = SamMaskGenerator.from_sam(SamModel.from_pretrained("facebook/sam-vit-base"))
    model = MaskAdapterForOpenVocabularySegmentation.from_parts(clip=clip, mask_generator=generator, adapter=adapter)
    ```

    Masks vary in number and overlap: wholes and their parts. SAM tells neither classes nor what is background, so the
    adapter alone classifies, and `background_threshold` of the model's configuration says which masks show nothing.

    Memory: a batch of points needs `points_per_batch` × 3 mask maps of SAM's resolution, and a picture or crop, until
    its duplicates are gone, at most `points_per_side`² × 3 maps of the CLIP's input divided by `mask_stride`, in half
    precision. Stability is measured at SAM's resolution, boxes at that of these maps.
    """

    config: SamMaskGeneratorConfig
    config_class = SamMaskGeneratorConfig

    def __init__(self, config: SamMaskGeneratorConfig):
        super().__init__(config)
        kind = _kind(config.sam_config)
        try:
            self.sam = AutoModel.from_config(config.sam_config)
        except ImportError as error:
            raise ImportError(
                f"The mask generator's model of type {kind!r} needs a library that is not installed: {error}"
            ) from error
        self.post_init()

    @classmethod
    def from_sam(cls, sam: PreTrainedModel, **settings: Any) -> SamMaskGenerator:
        """Wrap a model; its weights are neither copied nor changed.

        Args:
            sam: a `SamModel`, `Sam2Model`, `Sam3TrackerModel` or `EdgeTamModel`.
            **settings: fields of [`SamMaskGeneratorConfig`].

        Raises:
            ValueError: if it is another model.
            StrictDataclassClassValidationError: if a setting makes no sense.
        """
        config = cls.config_class(sam_config=sam.config, **_KINDS[_kind(sam.config)] | settings)
        return wrap(lambda: cls(config), "sam", sam)

    def find_masks(self, pictures: list[Tensor], padded_size: tuple[int, int]) -> MaskGeneratorOutput:
        """The masks of each picture, best first; pictures are looked at one after the other."""
        masks, valid = stack_masks([self._masks_of_picture(picture, padded_size) for picture in pictures])
        return MaskGeneratorOutput(masks_queries_logits=masks, valid_masks=valid)

    def _masks_of_picture(self, picture: Tensor, padded_size: tuple[int, int]) -> Tensor:
        """Mask logits of a picture that cover the padded input, `(num_masks, height, width)`."""
        config = self.config
        masks, scores, layers = [], [], []
        size = (picture.shape[-2], picture.shape[-1])
        for layer, box in crop_boxes(size, config.crop_layers, config.crop_overlap):
            of_crop, of_crop_scores = self._masks_of_crop(picture, box, layer, padded_size)
            masks.append(of_crop)
            scores.append(of_crop_scores)
            layers.append(torch.full_like(of_crop_scores, layer))
        found, found_scores = torch.cat(masks), torch.cat(scores)
        if config.crop_layers:
            ious = box_ious(boxes_of_masks(found > 0))
            kept = non_maximum_suppression(ious, torch.cat(layers), config.box_nms_threshold)
            found, found_scores = found[kept], found_scores[kept]
        found = found[found_scores.argsort(descending=True, stable=True)]
        cells = size[0] * size[1] / config.mask_stride**2
        found = remove_fragments(found.float(), config.min_fragment_area * cells)
        found = found[(found > 0).flatten(1).any(dim=1)]
        ranks = -torch.arange(len(found), device=found.device)
        kept = non_maximum_suppression(mask_ious(found > 0), ranks, config.mask_nms_threshold)
        return found[kept[: config.max_masks]]

    def _masks_of_crop(
        self, picture: Tensor, box: Box, layer: int, padded_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Masks found in a part of a picture, duplicates left out, and SAM's estimates of their IoU."""
        config = self.config
        left, top, right, bottom = box
        pixels, scaled = self.prepare(picture[:, top:bottom, left:right])
        embeddings = self.sam.get_image_embeddings(pixels[None])
        side = pixels.shape[-1]
        used = (scaled[0] / side, scaled[1] / side)
        size = (picture.shape[-2], picture.shape[-1])
        kept_masks, kept_scores = [], []
        for points in self._points(layer, scaled).split(config.points_per_batch):
            output = self.sam(
                image_embeddings=embeddings,
                input_points=points[None, :, None].to(pixels),
                input_labels=torch.ones(1, len(points), 1, dtype=torch.long, device=pixels.device),
                multimask_output=True,
            )
            logits, scores = output.pred_masks.flatten(0, 2).float(), output.iou_scores.flatten().float()
            good = scores > config.pred_iou_threshold
            logits, scores = logits[good], scores[good]
            rows, columns = (
                max(round(share * length), 1) for share, length in zip(used, logits.shape[-2:], strict=True)
            )
            good = stability_scores(logits[:, :rows, :columns], config.stability_offset) > config.stability_threshold
            placed = place_masks(logits[good], used, size, padded_size, config.mask_stride, box).half()
            kept_masks.append(placed)
            kept_scores.append(scores[good])
        masks, scores = torch.cat(kept_masks), torch.cat(kept_scores)
        boxes = boxes_of_masks(masks > 0)
        good = (boxes[:, 2] > boxes[:, 0]) & ~self._touches_cut(boxes, box, size)
        masks, scores, boxes = masks[good], scores[good], boxes[good]
        kept = non_maximum_suppression(box_ious(boxes), scores, config.box_nms_threshold)
        return masks[kept], scores[kept]

    def prepare(self, picture: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What SAM sees of a picture or a crop.

        Args:
            picture: `(3, height, width)` floats in [0, 255].

        Returns:
            Normalised pixels `(3, side, side)`, and the height and width that the picture has in them.
        """
        config = self.config
        side = config.sam_config.prompt_encoder_config.image_size
        scaled = (side, side)
        if config.keep_aspect_ratio:
            scale = side / max(picture.shape[-2:])
            scaled = (int(picture.shape[-2] * scale + 0.5), int(picture.shape[-1] * scale + 0.5))
        mean, std = (picture.new_tensor(values)[:, None, None] for values in (config.image_mean, config.image_std))
        pixels = (resize_picture(picture, scaled) - mean) / std
        return F.pad(pixels, (0, side - scaled[1], 0, side - scaled[0])), scaled

    def _points(self, layer: int, scaled: tuple[int, int]) -> Tensor:
        """The grid of points of a layer's crops, x and y in SAM's input, `(number, 2)`."""
        number = max(self.config.points_per_side // self.config.crop_points_downscale**layer, 1)
        places = (torch.arange(number, device=self.device) + 0.5) / number
        y, x = torch.meshgrid(places * scaled[0], places * scaled[1], indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1)

    def _touches_cut(self, boxes: Tensor, crop: Box, size: tuple[int, int]) -> Tensor:
        """Masks that end where a crop was cut out of the picture: parts of things that another crop shows whole."""
        stride = self.config.mask_stride
        is_cut = boxes.new_tensor([crop[0] > 0, crop[1] > 0, crop[2] < size[1], crop[3] < size[0]], dtype=torch.bool)
        near = (boxes * stride - boxes.new_tensor(crop)).abs() <= 2 * stride
        return (near & is_cut).any(dim=1)


def _kind(config: PreTrainedConfig) -> str:
    """The class's type of model: SAM 2 checkpoints for pictures and videos call themselves by the latter."""
    kind = type(config).model_type
    if kind not in _KINDS:
        raise ValueError(
            f"A model of type {kind!r} cannot make masks from a grid of points here; these can: {', '.join(_KINDS)}. "
            "Of SAM 3, load the tracker: Sam3TrackerModel.from_pretrained(...)."
        )
    return kind


AutoModel.register(SamMaskGeneratorConfig, SamMaskGenerator, exist_ok=True)


__all__ = [
    "SamMaskGenerator",
    "box_ious",
    "boxes_of_masks",
    "component_areas",
    "crop_boxes",
    "mask_ious",
    "non_maximum_suppression",
    "remove_fragments",
    "stability_scores",
]
