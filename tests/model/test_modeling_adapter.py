"""The Mask-Adapter alone: its mathematics."""

import pytest
import torch
from torch.nn import functional as F

from support import tiny_models


def test_activation_maps_equal_the_published_computation_mask_by_mask():
    adapter = tiny_models.adapter()
    projected = torch.randn(2, tiny_models.EMBED_DIM, 3, 4)
    masks = (torch.randn(2, 5, 20, 30) > 0).float()
    with torch.no_grad():
        maps = adapter.get_activation_maps(projected, masks)
        for image in range(2):
            for number in range(5):
                resized = F.interpolate(masks[image, number][None, None], size=(12, 16), mode="bilinear")
                hidden = adapter.fuse(projected[image : image + 1] + adapter.mask_encoder(resized))
                for block in adapter.blocks:
                    hidden = block(hidden)
                expected = adapter.final(adapter.norm(hidden))[0]
                torch.testing.assert_close(maps[image, number], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_many_masks_in_chunks_equal_few(grad):
    adapter = tiny_models.adapter()
    projected = torch.randn(1, tiny_models.EMBED_DIM, 2, 3)
    masks = (torch.randn(1, 150, 8, 12) > 0).float()
    with torch.set_grad_enabled(grad):
        together = adapter.get_activation_maps(projected, masks)
        parts = [adapter.get_activation_maps(projected, part) for part in masks.split(10, dim=1)]
    torch.testing.assert_close(together, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-5)


def test_pooled_features_are_weighted_by_the_normalized_sigmoid_of_the_maps():
    adapter = tiny_models.adapter()
    projected, dense = torch.randn(1, tiny_models.EMBED_DIM, 2, 3), torch.randn(1, 32, 2, 3)
    with torch.no_grad():
        output = adapter(projected, torch.ones(1, 2, 8, 12), dense, project=lambda pooled: 2 * pooled)
    weights = output.semantic_activation_maps.sigmoid()
    weights = weights / weights.sum(dim=(-2, -1), keepdim=True)
    expected = torch.einsum("bnkhw,bchw->bnkc", weights, dense)
    torch.testing.assert_close(output.pooled_features, expected)
    torch.testing.assert_close(output.mask_embeddings, 2 * expected.mean(dim=2))


def test_very_negative_maps_still_pool_something_finite():
    adapter = tiny_models.adapter()
    with torch.no_grad():
        adapter.final.bias.fill_(-1e4)
        output = adapter(torch.randn(1, tiny_models.EMBED_DIM, 2, 3), torch.ones(1, 1, 8, 12), torch.ones(1, 32, 2, 3))
    torch.testing.assert_close(output.pooled_features, torch.ones_like(output.pooled_features))


def test_adapter_refuses_shapes_that_do_not_fit():
    adapter = tiny_models.adapter()
    with pytest.raises(ValueError, match="projected_features must have shape"):
        adapter(torch.randn(1, 3, 2, 3), torch.ones(1, 1, 8, 12))
    with pytest.raises(ValueError, match="masks must have shape"):
        adapter(torch.randn(1, tiny_models.EMBED_DIM, 2, 3), torch.ones(1, 8, 12))
