"""The faster attentions give what Transformers' and PyTorch's modules give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskPredictor,
    multi_scale_deformable_attention,
)

from hf_maskadapter.model import modeling_mask2former_attention as attention
from hf_maskadapter.model.modeling_mask2former_attention import (
    DeformableAttention,
    MaskedCrossAttention,
    MaskEmbedder,
    sample_and_sum,
)
from support import tiny_models


def draw(seed, batch_size, num_queries, num_heads, shapes, num_points, spread, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    num_cells = sum(height * width for height, width in shapes)
    values = torch.randn(batch_size, num_cells, num_heads, 4, generator=generator).to(dtype)
    samples = (batch_size, num_queries, num_heads, len(shapes), num_points)
    locations = 0.5 + spread * torch.randn(*samples, 2, generator=generator).to(dtype)
    return values, shapes, locations, torch.rand(samples, generator=generator).to(dtype)


@settings(max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    batch_size=st.integers(1, 3),
    num_queries=st.integers(1, 9),
    num_heads=st.integers(1, 3),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    num_points=st.integers(1, 4),
    spread=st.sampled_from([0.0, 0.2, 3.0]),
)
def test_samples_are_those_of_grid_sample(seed, batch_size, num_queries, num_heads, shapes, num_points, spread):
    arguments = draw(seed, batch_size, num_queries, num_heads, shapes, num_points, spread, torch.float64)
    torch.testing.assert_close(sample_and_sum(*arguments), multi_scale_deformable_attention(*arguments))


def test_chunks_of_queries_do_not_change_results(monkeypatch):
    arguments = draw(0, 2, 11, 2, [(4, 3), (2, 5)], 4, 0.3)
    whole = sample_and_sum(*arguments)
    monkeypatch.setattr(attention, "_QUERIES_AT_A_TIME", 4)
    assert torch.equal(sample_and_sum(*arguments), whole)


def test_inference_equals_the_path_with_gradients(monkeypatch):
    model = tiny_models.generator()
    feature_maps = tuple(
        torch.randn(2, channels, 32 // 2**stage, 24 // 2**stage)
        for stage, channels in enumerate(tiny_models.HIDDEN_SIZES)
    )
    with_gradients = model(feature_maps).masks_queries_logits
    assert with_gradients.requires_grad
    used = []
    monkeypatch.setattr(attention, "sample_and_sum", lambda *inputs: used.append(True) or sample_and_sum(*inputs))
    with torch.no_grad():
        without = model(feature_maps).masks_queries_logits
    assert len(used) == model.config.encoder_layers
    torch.testing.assert_close(without, with_gradients.detach(), rtol=1e-4, atol=1e-4)


def test_padding_is_left_out():
    module = DeformableAttention(8, 2, 1, 2).eval()
    states = torch.randn(1, 6, 8)
    padding = torch.tensor([[False, False, True, False, False, True]])
    options = {"reference_points": torch.rand(1, 6, 1, 2), "spatial_shapes_list": [(2, 3)]}
    with torch.no_grad():
        masked, _ = module(states, padding, states, **options)
        changed = torch.where(padding[..., None], 9.0, states)
        again, _ = module(states, padding, changed, **options)
    torch.testing.assert_close(masked, again)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_cross_attention_is_that_of_pytorch(batch_size):
    module = MaskedCrossAttention(8, 2)
    torch.nn.init.normal_(module.in_proj_bias)
    queries, keys, values = (torch.randn(length, batch_size, 8) for length in (3, 5, 5))
    mask = torch.rand(batch_size, 3, 5) > 0.7
    mask[..., 0] = False
    output, weights = module(query=queries, key=keys, value=values, attn_mask=mask)
    of_heads = mask.repeat_interleave(module.num_heads, dim=0)
    expected, _ = torch.nn.MultiheadAttention.forward(module, queries, keys, values, attn_mask=of_heads)
    torch.testing.assert_close(output, expected)
    assert weights is None


@pytest.mark.parametrize("target_size", [(2, 3), (6, 8), (12, 16)])
def test_masks_and_attention_masks_are_those_of_mask2former(target_size):
    published = Mask2FormerMaskPredictor(8, 2, 5)
    ours = MaskEmbedder(8, 2, 5)
    ours.load_state_dict(published.state_dict())
    queries, features = torch.randn(7, 3, 8), torch.randn(3, 5, 12, 16)
    expected_masks, expected_attention = published(queries, features, target_size)
    embeddings, attention = ours(queries, features, target_size)
    torch.testing.assert_close(torch.einsum("bqc,bchw->bqhw", embeddings, features), expected_masks)
    assert torch.equal(attention.repeat_interleave(2, dim=0), expected_attention)
    assert not attention.requires_grad
    assert embeddings.requires_grad
