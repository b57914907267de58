"""Two linear layers with an activation between, for inference on a CPU: packed weights, bfloat16, 8-bit integers.

They are almost all of the work of a ConvNeXt, and so of the image tower and of the adapter. Three things are done to
them, none of which touches parameters, so that saving, copying and training see the same modules as ever:

- *chunks*: some hundred tokens at a time, whose hidden values, four times as many, stay in the processor's cache;
- *packing*: oneDNN multiplies by weights in an order of its own, and computes the GELU on the way. PyTorch does this
  for compiled models only, through operations that are not public, so that they are used where three things hold: a
  version of PyTorch that they were tested with, right results in a trial, and less time in the same trial, once a
  process and data type. Weights are packed anew for every picture, in some hundredths of the time of the product: no
  second copy is kept, and none can be out of date;
- *8-bit integers*, where [`use_int8`] asks for them: weights scaled by row, tokens by chunk.

Elsewhere (gradients, training, GPUs, autocast, compiled, traced and exported models, layers with hooks or of other
classes) the modules compute as they stand.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Mlp = Callable[[Tensor], Tensor]
"""Tokens `(number, channels)` to tokens `(number, channels)` of the same type."""

TOKENS_AT_A_TIME = 512

SWITCH = "MASKADAPTER_PACKED_WEIGHTS"
"""Environment variable: `0` never packs weights, `1` packs them wherever the results are right, whatever the time."""

_TESTED_VERSIONS = ((2, 6), (2, 13))
_LEAST_WEIGHTS = 2**18  # of a layer; packing smaller ones is not worth the trial
_TRIAL_SIZE = (256, 512)
_TRIAL_ROUNDS = 3
_WORTHWHILE = 0.95
_LARGEST_ERROR = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class _Layers:
    """Two linear layers and what lies between them."""

    first: nn.Linear
    activation: nn.Module
    second: nn.Linear

    @property
    def dtype(self) -> torch.dtype:
        return self.first.weight.dtype

    @property
    def gelu(self) -> str | None:
        """Which GELU the activation is, in PyTorch's words; `None` if it is another function."""
        if isinstance(self.activation, nn.GELU):
            return self.activation.approximate
        # Transformers' own class for "gelu"; other classes of it compute other functions.
        return "none" if type(self.activation).__name__ == "GELUActivation" else None


def infers_on_cpu(features: Tensor, training: bool) -> bool:
    """Whether a module may compute in the ways of this file: on a CPU, without gradients, not compiled or traced.

    Args:
        features: its input.
        training: its mode.
    """
    return (
        features.device.type == "cpu"
        and not training
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
    )


def prepare_mlp(first: nn.Module, activation: nn.Module, second: nn.Module, int8: bool = False) -> Mlp:
    """The two layers as a function, for as long as their weights stay what they are.

    The caller makes sure of [`infers_on_cpu`].

    Args:
        first: from `channels` to `hidden` values.
        activation: acts on each value.
        second: from `hidden` to `channels` values.
        int8: compute products of 8-bit integers, see [`use_int8`].

    Returns:
        Acts on tokens of any floating-point type, and returns the same type; products are of the weights' type.
    """
    if not (_is_plain(first) and _is_plain(second)):
        return _by_modules(first, activation, second)
    layers = _Layers(first, activation, second)
    if int8:
        return _Int8Mlp(layers)
    if _packs(layers):
        return _PackedMlp(layers)
    return _by_modules(first, activation, second)


def token_chunks(tokens: Tensor, at_a_time: int = TOKENS_AT_A_TIME) -> tuple[Tensor, ...]:
    """Tokens `(number, channels)` in chunks of about the same size, so that none is too small to be fast."""
    chunks = max(-(-len(tokens) // at_a_time), 1)
    return tokens.split(max(-(-len(tokens) // chunks), 1))


def is_watched(module: nn.Module) -> bool:
    """Whether somebody looks at a module's calls, or replaced its computation."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its weights say, and nobody looks."""
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and type(module.bias) is nn.Parameter
        and module.weight.dtype == module.bias.dtype
        and not is_watched(module)
    )


def _by_modules(first: nn.Module, activation: nn.Module, second: nn.Module) -> Mlp:
    """The layers as they stand: public operations only."""

    def compute(tokens: Tensor) -> Tensor:
        weight = getattr(first, "weight", None)
        dtype = weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else tokens.dtype
        return second(activation(first(tokens.to(dtype)))).to(tokens.dtype)

    return compute


class _PackedMlp:
    """The layers with weights in oneDNN's own order."""

    def __init__(self, layers: _Layers):
        self.layers = layers
        pack = torch.ops.mkldnn._reorder_linear_weight
        self.weights = [pack(layer.weight.detach(), TOKENS_AT_A_TIME) for layer in (layers.first, layers.second)]

    def __call__(self, tokens: Tensor) -> Tensor:
        multiply = torch.ops.mkldnn._linear_pointwise
        layers, (first, second) = self.layers, self.weights
        inputs = tokens.to(layers.dtype).contiguous()
        if layers.gelu is None:
            hidden = layers.activation(multiply(inputs, first, layers.first.bias, "none", [], ""))
        else:
            hidden = multiply(inputs, first, layers.first.bias, "gelu", [], layers.gelu)
        return multiply(hidden, second, layers.second.bias, "none", [], "").to(tokens.dtype)


def _packs(layers: _Layers) -> bool:
    """Whether weights are worth packing, and may be."""
    wish = os.environ.get(SWITCH, "")
    if wish == "0" or layers.dtype not in _LARGEST_ERROR:
        return False
    if wish == "1":
        return packing_trial(layers.dtype).is_right
    return layers.first.weight.numel() >= _LEAST_WEIGHTS and packing_trial(layers.dtype).is_worthwhile


@dataclass(frozen=True)
class Trial:
    """What a trial of a way of computing found.

    Attributes:
        is_right: whether it can be used at all.
        seconds: its time, the least of some; infinite if it cannot be used.
        usual_seconds: the time of the usual way, likewise.
    """

    is_right: bool
    seconds: float = float("inf")
    usual_seconds: float = 0.0

    @property
    def is_worthwhile(self) -> bool:
        """Whether it is right and takes noticeably less time."""
        return self.is_right and self.seconds < _WORTHWHILE * self.usual_seconds


_NOT_USABLE = Trial(False)


def _has_tested_version() -> bool:
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return _TESTED_VERSIONS[0] <= (major, minor) <= _TESTED_VERSIONS[1]


@functools.cache
def packing_trial(dtype: torch.dtype) -> Trial:
    """Packed weights against weights as they are, once a process; it takes some hundredths of a second."""
    if not _has_tested_version() or not torch.backends.mkldnn.is_available():
        return _NOT_USABLE
    with torch.inference_mode(False), torch.no_grad():
        layers = _trial_layers(dtype)
        usual = _by_modules(layers.first, layers.activation, layers.second)
        try:
            packed = _PackedMlp(layers)
            return _compare(packed, usual, dtype, _LARGEST_ERROR[dtype])
        except (RuntimeError, NotImplementedError, AttributeError, TypeError):
            return _NOT_USABLE  # an operation is missing, or takes other arguments


@functools.cache
def half_precision_trial(int8: bool = False) -> Trial:
    """Products in bfloat16, or of 8-bit integers, against fp32, once a process."""
    with torch.inference_mode(False), torch.no_grad():
        exact = _trial_layers(torch.float32)
        usual = prepare_mlp(exact.first, exact.activation, exact.second)
        if int8:
            other: Mlp = _Int8Mlp(exact)
        else:
            half = _trial_layers(torch.bfloat16)
            other = prepare_mlp(half.first, half.activation, half.second)
        return _compare(other, usual, torch.float32, 0.1)


def _trial_layers(dtype: torch.dtype) -> _Layers:
    generator = torch.Generator().manual_seed(0)
    _, channels = _TRIAL_SIZE
    first, second = (nn.Linear(*size) for size in ((channels, 4 * channels), (4 * channels, channels)))
    for layer in (first, second):
        layer.weight.normal_(std=layer.in_features**-0.5, generator=generator)
        layer.bias.normal_(generator=generator)
        layer.to(dtype).requires_grad_(False)
    return _Layers(first, nn.GELU(), second)


def _compare(way: Mlp, usual: Mlp, dtype: torch.dtype, largest_error: float) -> Trial:
    tokens = torch.randn(_TRIAL_SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = usual(tokens).float()
    error = (way(tokens).float() - expected).abs().max() / expected.abs().max()
    if not error <= largest_error:
        return _NOT_USABLE
    seconds: dict[Mlp, list[float]] = {way: [], usual: []}
    for _ in range(_TRIAL_ROUNDS):
        for function, times in seconds.items():
            start = time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
            function(tokens)
            end = time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
            times.append(end - start)
    return Trial(True, min(seconds[way]), min(seconds[usual]))


# 8-bit integers


@dataclass(frozen=True)
class _Int8Weight:
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
    def of(cls, weight: Tensor) -> _Int8Weight:
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        integers = (weight / scales[:, None]).round_().clamp_(-127, 127)
        zero_points = torch.zeros(len(weight), dtype=torch.int32)
        if not _has_int8_products():
            return cls(None, integers, scales, zero_points)
        return cls(torch.ops.onednn.qlinear_prepack(integers.to(torch.int8), None), None, scales, zero_points)


_int8_weights: weakref.WeakKeyDictionary[nn.Linear, tuple[Any, _Int8Weight]] = weakref.WeakKeyDictionary()
_int8_lock = threading.Lock()


def _int8_weight(layer: nn.Linear) -> _Int8Weight:
    """The layer's weight as integers, made once and again when the weight has changed."""
    weight = layer.weight
    version = None if weight.is_inference() else weight._version
    state = (weight.data_ptr(), version, weight.dtype, tuple(weight.shape))
    with _int8_lock:
        found = _int8_weights.get(layer)
    if found is not None and found[0] == state:
        return found[1]
    with torch.inference_mode(False), torch.no_grad():
        made = _Int8Weight.of(weight)
    with _int8_lock:
        _int8_weights[layer] = (state, made)
    return made


class _Int8Mlp:
    """The layers as products of 8-bit integers: weights scaled by row, tokens by chunk, sums in 32 bits."""

    def __init__(self, layers: _Layers):
        self.layers = layers
        self.weights = [_int8_weight(layer) for layer in (layers.first, layers.second)]

    def __call__(self, tokens: Tensor) -> Tensor:
        layers = self.layers
        if len(tokens) == 0:
            return tokens.clone()
        hidden = _int8_linear(tokens.float(), self.weights[0], layers.first.bias.float(), layers.gelu)
        if layers.gelu is None:
            hidden = layers.activation(hidden)
        return _int8_linear(hidden, self.weights[1], layers.second.bias.float(), None).to(tokens.dtype)


def _int8_linear(tokens: Tensor, weight: _Int8Weight, bias: Tensor, gelu: str | None) -> Tensor:
    """`tokens · weight + bias` in fp32 from integers, with the GELU if one is named."""
    lowest, highest = (float(value) for value in torch.aminmax(tokens))
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
def _has_int8_products() -> bool:
    """Whether oneDNN's products of integers are there and right, tried once a process."""
    if not _has_tested_version() or not torch.backends.mkldnn.is_available():
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
            found = _int8_linear(tokens, _Int8Weight(packed, None, scales, zeros), bias, "none")
        except (RuntimeError, NotImplementedError, AttributeError, TypeError):
            return False
        expected = _int8_linear(tokens, _Int8Weight(None, integers, scales, zeros), bias, "none")
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of a model that can compute in 8-bit integers."""
    return (module for module in model.modules() if hasattr(type(module), "computes_in_int8"))


def use_int8(model: nn.Module, enabled: bool = True) -> int:
    """Compute the MLPs of a model's ConvNeXt blocks in 8-bit integers, where it runs on a CPU without gradients.

    That is the image tower's and the adapter's: weights become integers with a scale for each row, tokens with a scale
    for some hundred of them, as they come (dynamic quantisation; nothing is calibrated). Depthwise convolutions, norms,
    residuals, projections, mask generator and class scores stay as they are. The parameters stay, too: what is saved
    are the weights as they were loaded, and the integers add a quarter of the MLPs' size to the memory.

    Args:
        model: a segmenter, a CLIP or an adapter.
        enabled: `False` goes back.

    Returns:
        How many blocks there are.

    Raises:
        ValueError: if there are none to speak of, or the model does not lie on a CPU.
    """
    blocks = list(blocks_of(model))
    if enabled and not blocks:
        raise ValueError(
            f"{type(model).__name__} has no ConvNeXt blocks, of which int8 computes the MLPs: use bfloat16 instead."
        )
    devices = {parameter.device.type for parameter in model.parameters()}
    if enabled and devices - {"cpu", "meta"}:
        raise ValueError(
            f"int8 is for CPUs, and the model lies on {', '.join(sorted(devices))}: use bfloat16 there, or move the "
            'model with .to("cpu") first.'
        )
    for block in blocks:
        block.computes_in_int8 = enabled
    return len(blocks)


def warn_if_slower(int8: bool = False) -> None:
    """Warn where this CPU computes in bfloat16, or in 8-bit integers, no faster than in fp32."""
    trial = half_precision_trial(int8)
    if not trial.is_worthwhile:
        name = "int8" if int8 else "bfloat16"
        ratio = trial.usual_seconds / trial.seconds if trial.is_right else 0.0
        warnings.warn(
            f"This CPU gains nothing from {name}: in a trial, products took "
            f"{1 / ratio:.1f} times as long as in float32. Use float32, which is more accurate."
            if ratio
            else f"{name} cannot be used on this CPU with PyTorch {torch.__version__}: use float32.",
            stacklevel=3,
        )


__all__ = [
    "SWITCH",
    "TOKENS_AT_A_TIME",
    "Mlp",
    "Trial",
    "half_precision_trial",
    "infers_on_cpu",
    "is_watched",
    "packing_trial",
    "prepare_mlp",
    "token_chunks",
    "use_int8",
    "warn_if_slower",
]
