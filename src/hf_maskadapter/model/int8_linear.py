"""Linear layers as products of 8-bit integers on the CPU, quantised as they come: nothing is calibrated.

A row of the weight has a scale, which gives its largest value the integer 127. Tokens have one scale and one zero point
for all that are given at once, which spread their least and largest value over 0 to 255. Sums are of 32 bits. oneDNN's
operation for this is not public in PyTorch: it is used with the versions that it was tested with, after a trial; else
the same integers are multiplied in fp32, which is right but not fast.
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TESTED_VERSIONS = ((2, 6), (2, 13))
_VALUES_LOOKED_AT = 1024

OPERATION_ERRORS = (RuntimeError, NotImplementedError, AttributeError, TypeError)
"""What a private operation raises where PyTorch lacks it, or has it with other arguments or not for this processor."""


def has_tested_onednn() -> bool:
    """Whether PyTorch's private operations of oneDNN may be tried: this version's are known."""
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return _TESTED_VERSIONS[0] <= (major, minor) <= _TESTED_VERSIONS[1] and torch.backends.mkldnn.is_available()


@dataclass(frozen=True)
class Int8Weight:
    """A layer's weight as integers, one scale for each of its rows.

    Args:
        packed: for oneDNN, or `None` where its operation cannot be used.
        integers: `(out_features, in_features)` as fp32, where it cannot.
        scales: `(out_features,)`; the weight is integers times scales.
        zero_points: zeros, `(out_features,)`.
    """

    packed: Tensor | None
    integers: Tensor | None
    scales: Tensor
    zero_points: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """Quantise a weight `(out_features, in_features)`."""
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        integers = (weight / scales[:, None]).round_().clamp_(-127, 127)
        zero_points = torch.zeros(len(weight), dtype=torch.int32)
        if not has_int8_products():
            return cls(None, integers, scales, zero_points)
        return cls(torch.ops.onednn.qlinear_prepack(integers.to(torch.int8), None), None, scales, zero_points)


_weights: weakref.WeakKeyDictionary[nn.Linear, tuple[Any, Int8Weight]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def int8_weight(layer: nn.Linear) -> Int8Weight:
    """The layer's weight as integers, made once, and again when the weight has changed.

    Changes show in the tensor's version and place, and those behind PyTorch's back (`weight.data.mul_(2)`) in some of
    its values.
    """
    weight = layer.weight
    version = None if weight.is_inference() else weight._version
    some = weight.detach().flatten()[:: max(weight.numel() // _VALUES_LOOKED_AT, 1)].double().sum().item()
    state = (weight.data_ptr(), version, weight.dtype, tuple(weight.shape), some)
    with _lock:
        found = _weights.get(layer)
    if found is not None and found[0] == state:
        return found[1]
    with torch.inference_mode(False), torch.no_grad():
        made = Int8Weight.of(weight)
    with _lock:
        _weights[layer] = (state, made)
    return made


def int8_linear(tokens: Tensor, weight: Int8Weight, bias: Tensor, gelu: str | None) -> Tensor:
    """`tokens · weight + bias` in fp32 from integers, with the GELU if one is named."""
    lowest, highest = (float(value) for value in torch.aminmax(tokens))
    if not math.isfinite(highest - lowest):
        return tokens.new_full((len(tokens), len(weight.scales)), math.nan)
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)  # so that zero is an integer
    scale = max((highest - lowest) / 255, 1e-12)
    zero_point = min(max(round(-lowest / scale), 0), 255)
    if weight.packed is None:
        integers = (tokens / scale).round_().add_(zero_point).clamp_(0, 255).sub_(zero_point)
        product = F.linear(integers, weight.integers) * (scale * weight.scales) + bias
        return product if gelu is None else F.gelu(product, approximate=gelu)
    integers = torch.quantize_per_tensor(tokens.contiguous(), scale, zero_point, torch.quint8).int_repr()
    return torch.ops.onednn.qlinear_pointwise(
        integers,
        scale,
        zero_point,
        weight.packed,
        weight.scales,
        weight.zero_points,
        bias,
        1.0,
        0,
        torch.float32,
        "none" if gelu is None else "gelu",
        [],
        "" if gelu is None else gelu,
    )


@functools.cache
def has_int8_products() -> bool:
    """Whether oneDNN's products of integers are there and right, tried once a process."""
    if not has_tested_onednn():
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch tells once that its quantised tensors will go
        tokens = torch.randn(32, 64, generator=generator)
        integers = torch.randint(-127, 128, (48, 64), generator=generator).float()
        scales, zeros = torch.rand(48, generator=generator) / 127, torch.zeros(48, dtype=torch.int32)
        bias = torch.randn(48, generator=generator)
        try:
            packed = torch.ops.onednn.qlinear_prepack(integers.to(torch.int8), None)
            found = int8_linear(tokens, Int8Weight(packed, None, scales, zeros), bias, "none")
        except OPERATION_ERRORS:
            return False
        expected = int8_linear(tokens, Int8Weight(None, integers, scales, zeros), bias, "none")
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


__all__ = ["OPERATION_ERRORS", "Int8Weight", "has_int8_products", "has_tested_onednn", "int8_linear", "int8_weight"]
