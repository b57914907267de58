"""The adapter, forward and in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_maskadapter import MaskAdapterModel
from lab.benchmarks.model_sizes import build_config

Inputs = Mapping[str, Any]


def _projection(inputs: Inputs) -> nn.Sequential:
    """A stand-in for CLIP's projection, of the same form."""
    clip = build_config(inputs["model_size"]).clip_config
    torch.manual_seed(2)
    hidden = clip.projection_hidden_dim or clip.feature_dim
    layers = [nn.LayerNorm(clip.feature_dim), nn.Linear(clip.feature_dim, hidden), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(hidden, clip.projection_dim, bias=False)).requires_grad_(False)


def _model(inputs: Inputs) -> MaskAdapterModel:
    torch.manual_seed(0)
    return MaskAdapterModel(build_config(inputs["model_size"]))


def embeddings(inputs: Inputs, precision: str = "float32") -> Callable[[], Tensor]:
    """Binary masks to mask embeddings."""
    from lab.benchmarks.rows.pictures import set_precision

    adapter, projection = (set_precision(one, precision) for one in (_model(inputs).eval(), _projection(inputs)))
    dtype = next(projection.parameters()).dtype

    @torch.no_grad()
    def embed() -> Tensor:
        output = adapter(
            inputs["projected"],
            inputs["masks"],
            inputs["dense"],
            lambda features: projection(features.to(dtype)),
            output_semantic_activation_maps=False,
            return_dict=True,
        )
        return output.mask_embeddings.float()

    return embed


def dense_embeddings(inputs: Inputs) -> Callable[[], Tensor]:
    """The same in the published way."""
    from lab.benchmarks.dense_opponent import DenseAdapter

    adapter, projection = DenseAdapter(_model(inputs).eval()), _projection(inputs)
    arguments = inputs["projected"], inputs["masks"], inputs["dense"], projection
    return torch.no_grad()(lambda: adapter(*arguments).mask_embeddings)


def training(inputs: Inputs, autocast: bool = False) -> Callable[[], Tensor]:
    """A forward and a backward pass; gives the gradient of every weight, one behind the other."""
    adapter = _model(inputs).train()
    return _training_step(inputs, adapter, lambda *values: adapter(*values, return_dict=True), autocast)


def dense_training(inputs: Inputs) -> Callable[[], Tensor]:
    """The same in the published way."""
    from lab.benchmarks.dense_opponent import DenseAdapter

    adapter = _model(inputs).train()
    return _training_step(inputs, adapter, DenseAdapter(adapter), False)


def _training_step(
    inputs: Inputs, adapter: MaskAdapterModel, forward: Callable[..., Any], autocast: bool
) -> Callable[[], Tensor]:
    arguments = inputs["projected"], inputs["masks"], inputs["dense"], _projection(inputs)

    def step() -> Tensor:
        adapter.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = forward(*arguments).mask_embeddings.float().square().sum()
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()])

    return step
