"""What mask generators have in common: what they give, and how those with an image tower of their own see pictures.

The latter see the pictures that the CLIP sees, without its padding and normalisation, prepare them as they were
trained, and return masks that cover the CLIP's padded input.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

#: Logit of pixels that lie outside the picture, or outside the part of it that a mask was predicted in.
OUTSIDE_LOGIT = -100.0

Box = tuple[int, int, int, int]


@dataclass
class MaskGeneratorOutput(ModelOutput):
    """Output of a mask generator.

    Args:
        masks_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, height, width)`):
            Mask logits, covering the padded picture.
        in_vocabulary_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_classes + 1)`, *optional*):
            Class logits of the generator's own class branch, void last. `None` if no vocabulary was given, or the
            generator has no such branch.
        void_probabilities (`torch.FloatTensor` of shape `(batch_size, num_queries)`, *optional*):
            Probability that a mask shows nothing, of generators without a class branch that tell.
        valid_masks (`torch.BoolTensor` of shape `(batch_size, num_queries)`, *optional*):
            Which masks there are, of generators whose number of masks varies; the others fill up the batch.
        auxiliary_outputs (`tuple` of `MaskGeneratorOutput`, *optional*):
            The earlier predictions, first to last, on request (deep supervision).
    """

    masks_queries_logits: torch.FloatTensor | None = None
    in_vocabulary_logits: torch.FloatTensor | None = None
    void_probabilities: torch.FloatTensor | None = None
    valid_masks: torch.BoolTensor | None = None
    auxiliary_outputs: tuple[MaskGeneratorOutput, ...] | None = None


def restore_pictures(
    pixel_values: Tensor, image_sizes: Tensor, pixel_mean: Sequence[float], pixel_std: Sequence[float]
) -> list[Tensor]:
    """Take normalisation and padding off pictures.

    An image processor normalises pixels of 8 bits, so rounding gives them back exactly (in half precision to within one
    level).

    Args:
        pixel_values: normalised, padded pictures, `(batch_size, 3, height, width)`.
        image_sizes: height and width of each picture inside the padded input, `(batch_size, 2)`.
        pixel_mean: mean that they were normalised with, on the 0–255 scale.
        pixel_std: standard deviation likewise.

    Returns:
        For each picture `(3, height, width)` floats in [0, 255].
    """
    mean, std = (
        pixel_values.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (pixel_mean, pixel_std)
    )
    pictures = (pixel_values.float() * std + mean).round().clamp(0, 255)
    return [
        picture[:, :height, :width] for picture, (height, width) in zip(pictures, image_sizes.tolist(), strict=True)
    ]


def resize_picture(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a picture `(3, height, width)` of values in [0, 255] bilinearly with antialiasing, as PIL does."""
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    resized = F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].round().clamp(0, 255)


def place_masks(
    masks: Tensor,
    used: tuple[float, float],
    image_size: tuple[int, int],
    padded_size: tuple[int, int],
    stride: int,
    box: Box | None = None,
) -> Tensor:
    """Mask logits that a model predicted for its own input, on a grid that covers the CLIP's padded input.

    Each cell reads the masks bilinearly at the place of its centre. Cells just behind the picture's edge repeat it, so
    that a later resize does not darken the edge; those further out get `OUTSIDE_LOGIT`.

    Args:
        masks: logits that cover the model's input, `(num_masks, mask_height, mask_width)`.
        used: fraction of that input's height and width that the picture, or the part of it, takes up from the top left;
            the rest is padding.
        image_size: height and width in pixels of the picture inside the CLIP's input.
        padded_size: height and width in pixels of the CLIP's input.
        stride: pixels a cell.
        box: left, top, right and bottom of the part of the picture that the masks cover; by default the whole picture.

    Returns:
        `(num_masks, ceil(padded_height / stride), ceil(padded_width / stride))`.
    """
    left, top, right, bottom = box or (0, 0, image_size[1], image_size[0])
    places, outside = [], []
    for axis, (first, last) in enumerate(((top, bottom), (left, right))):
        cells = -(-padded_size[axis] // stride)
        centers = (torch.arange(cells, device=masks.device) + 0.5) * (padded_size[axis] / cells)
        places.append(2 * used[axis] * (centers - first) / (last - first) - 1)
        margin = stride if last == image_size[axis] else 0
        outside.append((centers < first) | (centers > last + margin))
    rows, columns = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).to(masks.dtype)
    placed = F.grid_sample(masks[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    return placed.masked_fill(outside[0][:, None] | outside[1], OUTSIDE_LOGIT)


def stack_masks(masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join pictures' masks `(num_masks, height, width)`, filled up with empty ones to one number, at least one.

    Returns:
        `(batch_size, max_num_masks, height, width)`, and which of them there are, `(batch_size, max_num_masks)`.
    """
    most = max(1, *(len(of_picture) for of_picture in masks))
    padded = [F.pad(of_picture, (0, 0, 0, 0, 0, most - len(of_picture)), value=OUTSIDE_LOGIT) for of_picture in masks]
    counts = torch.tensor([len(of_picture) for of_picture in masks], device=padded[0].device)
    return torch.stack(padded), torch.arange(most, device=counts.device) < counts[:, None]


class PictureMaskGenerator(PreTrainedModel, abc.ABC):
    """A mask generator that looks at pictures instead of the CLIP's feature maps. It knows no vocabulary.

    A subclass wraps one of Transformers' models, which is never trained here. Pictures are what [`restore_pictures`]
    gives.
    """

    base_model_prefix = "mask_generator"
    main_input_name = "pictures"
    input_modalities = ("image",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def forward(self, pictures: Sequence[Tensor], padded_size: tuple[int, int]) -> MaskGeneratorOutput:
        """Find masks in pictures.

        Args:
            pictures: for each picture `(3, height, width)` floats in [0, 255].
            padded_size: height and width in pixels of the CLIP's input, which masks are to cover.
        """
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.find_masks([picture.to(self.device, self.dtype) for picture in pictures], padded_size)

    @abc.abstractmethod
    def find_masks(self, pictures: list[Tensor], padded_size: tuple[int, int]) -> MaskGeneratorOutput:
        """The subclass's work: as `forward`, for pictures on its device, without gradients or autocast."""


def wrap(wrapper: Callable[[], PictureMaskGenerator], name: str, model: PreTrainedModel) -> PictureMaskGenerator:
    """A mask generator around a model that is there already; nothing is initialised or copied.

    Args:
        wrapper: builds the generator.
        name: its attribute that holds the model.
        model: the model.
    """
    with torch.device("meta"):
        generator = wrapper()
    setattr(generator, name, model)
    return generator.train(model.training)


__all__ = [
    "OUTSIDE_LOGIT",
    "MaskGeneratorOutput",
    "PictureMaskGenerator",
    "place_masks",
    "resize_picture",
    "restore_pictures",
    "stack_masks",
    "wrap",
]
