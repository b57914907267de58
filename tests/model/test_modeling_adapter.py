"""The mathematics of the Mask-Adapter and of the alternatives it is compared with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_maskadapter.model.modeling_maskadapter import crop_with_mask, geometric_ensemble, pooling_weights
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


def test_seen_classes_use_alpha_and_unseen_ones_beta():
    model = tiny_models.segmenter(ensemble_alpha=0.0, ensemble_beta=1.0)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    inside, outside = torch.tensor([[[1.0, 2.0, 0.5]]]), torch.tensor([[[3.0, 0.5, 0.0]]])
    scores = model.ensemble(inside, outside, vocabulary)[..., :-1]
    log_in, log_out = inside[..., :-1].log_softmax(-1), outside[..., :-1].log_softmax(-1)
    expected = torch.stack([log_in[..., 0], log_out[..., 1]], dim=-1).log_softmax(-1)
    torch.testing.assert_close(scores.log_softmax(-1), expected, atol=1e-5, rtol=1e-5)


def test_without_in_vocabulary_branch_alpha_and_beta_of_one_are_the_adapter_alone():
    model = tiny_models.segmenter(ensemble_alpha=1.0, ensemble_beta=1.0)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    outside = torch.randn(1, 4, 3)
    certain = torch.tensor([0.0, 0.0, -1e4]).expand(1, 4, 3)
    torch.testing.assert_close(
        model.ensemble(None, outside, vocabulary), model.ensemble(certain, outside, vocabulary), atol=1e-5, rtol=1e-5
    )


def test_ensemble_on_valid_masks_leaves_masks_without_a_cell_to_the_generator():
    model = tiny_models.segmenter(ensemble_alpha=1.0, ensemble_beta=1.0, ensemble_on_valid_masks=True)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    inside, outside = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    scores = model.ensemble(inside, outside, vocabulary, valid_masks=torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(scores[0, 0, :-1].softmax(-1), outside[0, 0, :-1].softmax(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0, 1].exp(), inside[0, 1].softmax(-1), atol=1e-5, rtol=1e-4)


def test_warmup_scoring_returns_probabilities_with_void():
    model = tiny_models.segmenter(mask_generator_config=None, warmup_scoring=True)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64), vocabulary, masks=torch.ones(1, 2, 64, 64))
    torch.testing.assert_close(output.class_queries_logits, output.out_vocabulary_logits.softmax(-1))


@pytest.mark.parametrize("panoptic", [False, True])
def test_text_transfer_adapts_the_texts_of_each_picture_and_void_with_them(panoptic):
    changes = {"text_transfer": True, "text_transfer_heads": 2, "text_transfer_panoptic": panoptic}
    model = tiny_models.segmenter(**changes)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    features = torch.randn(2, tiny_models.EMBED_DIM, 2, 3)
    with torch.no_grad():
        adapted, void = model.adapt_texts(vocabulary, model.get_void_embeds(), features)
        alone, void_alone = model.adapt_texts(vocabulary, model.get_void_embeds(), features[1:])
        output = model(torch.randn(2, 3, 64, 96), vocabulary)
    assert adapted.text_embeds.shape == (2, 2, tiny_models.EMBED_DIM)
    assert void.shape == (2, 1, tiny_models.EMBED_DIM)
    assert not torch.allclose(adapted.text_embeds[0], adapted.text_embeds[1])
    torch.testing.assert_close(adapted.text_embeds[1:], alone.text_embeds)
    torch.testing.assert_close(void[1:], void_alone)
    assert output.class_queries_logits.shape == (2, 6, 3)


def test_mixed_projection_is_the_published_reshape_and_not_a_projection_of_each_position():
    model, plain = tiny_models.segmenter(mix_projected_positions=True), tiny_models.segmenter()
    dense = torch.randn(2, tiny_models.HIDDEN_SIZES[-1], 2, 3)
    with torch.no_grad():
        mixed = model.project_features(dense)
        rows = model.clip.project(dense.reshape(2 * 2 * 3, -1))
        assert torch.equal(mixed, rows.reshape(2, 2, 3, -1).permute(0, 3, 1, 2))
        assert not torch.allclose(mixed, plain.project_features(dense))
