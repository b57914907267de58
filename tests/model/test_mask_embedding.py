"""Pooling, crops and the ensemble: functions of tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskadapter.model.mask_embedding import (
    crop_with_mask,
    geometric_ensemble,
    pool_inside_masks,
    pooling_weights,
)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_pooling_is_the_mean_inside_each_mask_and_zero_for_an_empty_one(dtype):
    features = torch.randn(2, 5, 6, 7)
    masks = torch.zeros(2, 3, 6, 7, dtype=dtype)
    masks[:, 0, 2:4, 1:5] = 1
    masks[:, 1] = 1
    pooled = pool_inside_masks(features, masks)
    torch.testing.assert_close(pooled[:, 0], features[:, :, 2:4, 1:5].mean(dim=(-2, -1)))
    torch.testing.assert_close(pooled[:, 1], features.mean(dim=(-2, -1)))
    assert not pooled[:, 2].any()


def test_forms_of_mask_pooling():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3, :5] = 1
    area = pooling_weights(mask, (2, 2), "area")[0, 0]
    torch.testing.assert_close(area, torch.tensor([[12 / 16, 3 / 16], [0.0, 0.0]]))
    assert pooling_weights(mask, (2, 2), "any")[0, 0].tolist() == [[1, 1], [0, 0]]
    assert pooling_weights(mask, (2, 2), "hard")[0, 0].tolist() == [[1, 0], [0, 0]]


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16))
def test_any_overlap_covers_area_and_area_keeps_the_mass(height, width, rows, columns, seed):
    masks = (torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) > 0.6).float()
    area, touched = (pooling_weights(masks, (rows, columns), form) for form in ("area", "any"))
    assert ((area > 0) == (touched > 0)).all()
    if height % rows == 0 and width % columns == 0:
        torch.testing.assert_close(area.mean(dim=(-2, -1)), masks.mean(dim=(-2, -1)))


def test_crop_holds_the_mask_and_blanks_the_rest():
    picture = torch.ones(3, 40, 60)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:20, 30:50] = True
    crop = crop_with_mask(picture, mask, 24, margin=0.0)
    torch.testing.assert_close(crop, torch.ones(3, 24, 24))
    with_margin = crop_with_mask(picture, mask, 24, margin=0.5)
    assert with_margin[:, 12, 12].eq(1).all()
    assert not with_margin[:, 0, 0].any()
    assert not crop_with_mask(picture, torch.zeros_like(mask), 24, 0.1).any()


@settings(max_examples=50)
@given(st.floats(0, 1), st.integers(2, 6), st.integers(0, 2**16))
def test_ensemble_weights_the_branches_geometrically(weight, num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    inside, outside = (torch.randn(1, 3, num_classes + 1, generator=generator) * 5 for _ in range(2))
    scores = geometric_ensemble(inside, outside, torch.tensor(weight))
    p_in, p_out = inside[..., :-1].softmax(-1), outside[..., :-1].softmax(-1)
    product = p_in ** (1 - weight) * p_out**weight
    void = inside.softmax(-1)[..., -1:]
    expected = torch.cat([product / product.sum(-1, keepdim=True) * (1 - void), void], dim=-1)
    torch.testing.assert_close(scores.exp(), expected, atol=1e-5, rtol=1e-4)


def test_ensemble_survives_logits_that_underflow():
    inside = torch.tensor([[[0.0, -500.0, -500.0]]])
    outside = torch.tensor([[[-500.0, 0.0, -500.0]]])
    assert torch.isfinite(geometric_ensemble(inside, outside, torch.tensor(0.5))).all()
