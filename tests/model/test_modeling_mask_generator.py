"""Pictures back out of a CLIP's input, and masks aligned with it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hf_maskadapter import MaskAdapterImageProcessorPil
from hf_maskadapter.model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from hf_maskadapter.model.modeling_mask_generator import (
    OUTSIDE_LOGIT,
    place_masks,
    resize_picture,
    restore_pictures,
    stack_masks,
)


def pixels_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def blob(height, width, center, radius):
    """Logits of a disc, in pixels of a picture."""
    rows = torch.arange(height)[:, None] + 0.5
    columns = torch.arange(width) + 0.5
    return radius - ((rows - center[0]) ** 2 + (columns - center[1]) ** 2).sqrt()


def test_restored_pictures_are_exactly_those_that_were_normalized(picture):
    other = picture.resize((50, 64))
    inputs = MaskAdapterImageProcessorPil(do_resize=False)(images=[picture, other], return_tensors="pt")
    restored = restore_pictures(inputs["pixel_values"], inputs["original_sizes"], PIXEL_MEAN, PIXEL_STD)
    for found, expected in zip(restored, (picture, other), strict=True):
        assert torch.equal(found, pixels_of(expected))


def test_restored_pictures_are_within_one_level_in_half_precision(picture):
    inputs = MaskAdapterImageProcessorPil(do_resize=False)(images=[picture], return_tensors="pt")
    values, sizes = inputs["pixel_values"], inputs["original_sizes"]
    (exact,) = restore_pictures(values, sizes, PIXEL_MEAN, PIXEL_STD)
    (rough,) = restore_pictures(values.bfloat16(), sizes, PIXEL_MEAN, PIXEL_STD)
    assert (rough - exact).abs().max() <= 1


def test_resizing_is_that_of_pil_to_within_one_level(picture):
    expected = pixels_of(picture.resize((48, 32), resample=Image.Resampling.BILINEAR))
    assert (resize_picture(pixels_of(picture), (32, 48)) - expected).abs().max() <= 1


def test_placing_without_padding_is_a_bilinear_resize():
    masks = torch.randn(3, 20, 28)
    placed = place_masks(masks, (1.0, 1.0), (64, 96), (64, 96), 4)
    torch.testing.assert_close(placed, F.interpolate(masks[None], size=(16, 24), mode="bilinear")[0])


@pytest.mark.parametrize("used", [(1.0, 1.0), (0.75, 0.5)])
def test_masks_come_back_where_they_were_seen(used):
    """A disc in a picture of 50×61 pixels, drawn as a model of another resolution and padding would predict it."""
    size, padded = (50, 61), (64, 96)
    height, width = 120, 160  # of the model's mask map; the picture takes up a part of it
    scale = (used[0] * height / size[0], used[1] * width / size[1])
    rows = (torch.arange(height)[:, None] + 0.5) / scale[0]
    columns = (torch.arange(width) + 0.5) / scale[1]
    seen = 12 - ((rows - 20) ** 2 + (columns - 40) ** 2).sqrt()
    placed = place_masks(seen[None], used, size, padded, 4)
    assert placed.shape == (1, 16, 24)
    resized = F.interpolate(placed[None], size=padded, mode="bilinear")[0, 0, :50, :61]
    wanted = blob(*size, (20, 40), 12)
    both, either = ((resized > 0) & (wanted > 0)).sum(), ((resized > 0) | (wanted > 0)).sum()
    assert both / either > 0.97


def test_nothing_lies_far_outside_the_picture_and_its_edge_stays():
    placed = place_masks(torch.full((1, 8, 8), 5.0), (1.0, 1.0), (50, 61), (96, 96), 4)
    assert (placed[:, 14:] == OUTSIDE_LOGIT).all()
    assert (placed[:, :, 17:] == OUTSIDE_LOGIT).all()
    resized = F.interpolate(placed[None], size=(96, 96), mode="bilinear")[0, 0]
    torch.testing.assert_close(resized[:50, :61], torch.full((50, 61), 5.0))


def test_masks_of_a_crop_stay_inside_it():
    placed = place_masks(torch.full((1, 8, 8), 5.0), (1.0, 1.0), (64, 64), (64, 64), 4, box=(16, 0, 48, 32))
    torch.testing.assert_close(placed[0, :8, 4:12], torch.full((8, 8), 5.0))
    assert (placed > 0).sum() == 8 * 8


def test_stacking_fills_up_and_tells_which_masks_there_are():
    masks, valid = stack_masks([torch.ones(2, 3, 4), torch.ones(0, 3, 4)])
    assert valid.tolist() == [[True, True], [False, False]]
    assert (masks[1] == OUTSIDE_LOGIT).all()
    masks, valid = stack_masks([torch.ones(0, 3, 4)])
    assert masks.shape == (1, 1, 3, 4)
    assert not valid.any()
