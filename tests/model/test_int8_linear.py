"""Linear layers of 8-bit integers: the integers' own arithmetic, computed here by NumPy, and no stale weights."""

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from hf_maskadapter import ConvNextClipModel, use_int8
from hf_maskadapter.model import int8_linear as module
from hf_maskadapter.model.cpu_mlp import computes_in_int8
from hf_maskadapter.model.int8_linear import Int8Weight, has_int8_products, int8_linear, int8_weight
from hf_maskadapter.model.modeling_clip_convnext import ConvNextBlock
from support import tiny_models


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_integers(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Quantise, multiply exact integers, scale back; in double precision but for the roundings that are meant."""
    values, rows = tokens.numpy().astype(np.float64), weight.numpy().astype(np.float64)
    row_scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    integers = np.rint(rows / row_scales).astype(np.int64)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    codes = np.clip(np.rint(values / scale) + zero, 0, 255).astype(np.int64)
    return (codes - zero) @ integers.T * scale * row_scales.T + bias.numpy()


@pytest.fixture(params=["onednn", "public"])
def products(request, monkeypatch):
    """oneDNN's operation, and what computes where it cannot be used."""
    if request.param == "public":
        monkeypatch.setattr(module, "has_int8_products", lambda: False)
    return request.param


def test_onednn_is_tried_on_this_machine():
    assert has_int8_products(), "PyTorch's private operation is not what it was"


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_results_are_those_of_the_integers(products, shift):
    tokens, weight, bias = random(37, 48) + shift, random(24, 48, seed=1) * random(24, 1, seed=2), random(24, seed=3)
    found = int8_linear(tokens, Int8Weight.of(weight), bias, None)
    expected = by_integers(tokens, weight, bias)
    # A value halfway between two integers may go either way: at most a step, times the largest weight.
    step = (tokens.max() - tokens.min()).item() / 255 * weight.abs().max().item()
    assert np.abs(found.numpy() - expected).max() <= 1.01 * step
    assert np.median(np.abs(found.numpy() - expected)) <= 1e-5 * np.abs(expected).max()


def test_both_ways_agree(monkeypatch):
    tokens, weight, bias = random(64, 96), random(40, 96, seed=1), random(40, seed=3)
    fast = int8_linear(tokens, Int8Weight.of(weight), bias, "none")
    monkeypatch.setattr(module, "has_int8_products", lambda: False)
    slow = int8_linear(tokens, Int8Weight.of(weight), bias, "none")
    assert (fast - slow).abs().max() <= 0.01 * slow.abs().max()


def test_values_that_are_no_numbers_stay_visible(products):
    tokens = random(4, 8)
    tokens[1, 2] = float("nan")
    assert int8_linear(tokens, Int8Weight.of(random(3, 8)), torch.zeros(3), None).isnan().all()


def test_zeros_are_exact(products):
    weight, bias = torch.zeros(3, 8), random(3)
    assert torch.equal(int8_linear(random(5, 8), Int8Weight.of(weight), bias, None), bias.expand(5, 3))
    assert torch.equal(int8_linear(torch.zeros(5, 8), Int8Weight.of(random(3, 8)), bias, None), bias.expand(5, 3))


CHANGES = {
    "in place": lambda layer, weight: layer.weight.copy_(weight),
    "state_dict": lambda layer, weight: layer.load_state_dict({"weight": weight, "bias": layer.bias}),
    "data": lambda layer, weight: setattr(layer.weight, "data", weight.clone()),
    "behind the version": lambda layer, weight: layer.weight.data.copy_(weight),
    "another parameter": lambda layer, weight: setattr(layer, "weight", nn.Parameter(weight.clone())),
}


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_integers_follow_the_weights(change):
    layer, weight = nn.Linear(48, 24), random(24, 48, seed=1)
    before = int8_weight(layer)
    assert int8_weight(layer) is before, "made once"
    CHANGES[change](layer, weight)
    expected = weight.abs().amax(dim=1) / 127
    torch.testing.assert_close(int8_weight(layer).scales, expected)


def test_integers_go_with_the_layer():
    layer = nn.Linear(48, 24)
    int8_weight(layer)
    number = len(module._weights)
    del layer
    gc.collect()
    assert len(module._weights) == number - 1


class TestBlocks:
    def block(self) -> ConvNextBlock:
        torch.manual_seed(0)
        return ConvNextBlock(16, layer_scale_init_value=0.5).eval()

    def test_results_are_near_those_of_fp32_and_not_the_same(self, products):
        made, features = self.block(), random(1, 16, 12, 9)
        with torch.no_grad():
            expected = made(features)
            assert use_int8(made) == 1
            found = made(features)
            assert use_int8(made, enabled=False) == 1
            assert torch.equal(made(features), expected)
        error = (found - expected).abs().max() / (expected - features).abs().max()
        assert 1e-6 < error < 0.05

    def test_copies_compute_the_same(self):
        made, features = self.block(), random(1, 16, 12, 9)
        use_int8(made)
        with torch.no_grad():
            expected = made(features)
            for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
                assert computes_in_int8(copied)
                assert torch.equal(copied(features), expected)

    def test_training_computes_in_fp32(self):
        made, features = self.block(), random(1, 16, 12, 9)
        expected = made.train()(features)
        use_int8(made)
        assert torch.equal(made(features), expected)

    @torch.no_grad()
    def test_image_tower_and_adapter_are_meant(self):
        model = tiny_models.segmenter()
        depths = model.config.clip_config.depths
        assert use_int8(model) == sum(depths) + model.config.num_blocks
        clip = ConvNextClipModel(tiny_models.clip_config())
        pixels = random(1, 3, 64, 96)
        before = clip.eval().get_feature_maps(pixels)[-1]
        use_int8(clip)
        after = clip.get_feature_maps(pixels)[-1]
        assert not torch.equal(before, after)
        assert (before - after).abs().max() < 0.1 * before.abs().max()

    def test_models_without_such_blocks_are_refused(self):
        with pytest.raises(ValueError, match=r"Linear has no ConvNeXt blocks.*use bfloat16 instead"):
            use_int8(nn.Linear(2, 2))

    def test_accelerators_are_refused(self, monkeypatch):
        made = self.block()
        monkeypatch.setattr(
            type(made), "parameters", lambda self: iter([type("P", (), {"device": torch.device("cuda:0")})()])
        )
        with pytest.raises(ValueError, match=r"int8 is for CPUs, and the model lies on cuda"):
            use_int8(made)
