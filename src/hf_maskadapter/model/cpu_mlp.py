"""Two linear layers with an activation between, for inference on a CPU: packed weights, bfloat16, 8-bit integers.

They are almost all of the work of a ConvNeXt, and so of the image tower and of the adapter. Three things are done to
them, none of which touches parameters, so that saving, copying and training see the same modules as ever:

- *chunks*: some hundred tokens at a time, whose hidden values, four times as many, stay in the processor's cache;
- *packing*: oneDNN and MKL multiply by weights in an order of their own, which each product otherwise makes anew, and
  oneDNN computes the GELU on the way. PyTorch does this for compiled models only, through operations that are not
  public, so that they are used where three things hold: a version of PyTorch that they were tested with, right results
  in a trial, and less time in the same trial, once a process and data type. Weights are packed anew for every picture,
  in some hundredths of the time of the product: no second copy is kept, and none can be out of date;
- *8-bit integers*, where [`use_int8`] asks for them: weights scaled by row, tokens by chunk.

Elsewhere (gradients, training, GPUs, autocast, compiled, traced and exported models, layers with hooks or of other
classes) the modules compute as they stand.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .int8_linear import OPERATION_ERRORS, has_tested_onednn, int8_linear, int8_weight

Mlp = Callable[[Tensor], Tensor]
"""Tokens `(number, channels)` to tokens `(number, channels)` of the same type."""

TOKENS_AT_A_TIME = 512

SWITCH = "MASKADAPTER_PACKED_WEIGHTS"
"""Environment variable: `0` never packs weights; `1`, `onednn` and `mkl` pack them in the fastest or in this way where
results are right, whatever the time."""

_LEAST_WEIGHTS = 2**17  # of a layer; packing smaller ones is not worth the trial
_TRIAL_SIZE = (256, 768)
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


def prepare_mlp(first: nn.Module, activation: nn.Module, second: nn.Module, rows: int, int8: bool = False) -> Mlp:
    """The two layers as a function, for as long as their weights stay what they are.

    The caller makes sure of [`infers_on_cpu`].

    Args:
        first: from `channels` to `hidden` values.
        activation: acts on each value.
        second: from `hidden` to `channels` values.
        rows: how many tokens it will mostly be given at a time.
        int8: compute products of 8-bit integers, see [`use_int8`].

    Returns:
        Acts on tokens of any floating-point type, and returns the same type; products are of the weights' type.
    """
    if not (_is_plain(first) and _is_plain(second)):
        return _by_modules(first, activation, second)
    layers = _Layers(first, activation, second)
    if int8:
        return _Int8Mlp(layers)
    way = _way_to_pack(layers)
    if way is not None:
        return _WAYS[way](layers, rows)
    return _by_modules(first, activation, second)


def rows_at_a_time(number: int) -> int:
    """Size of chunks of so many tokens: about the same for all, so that none is too small to be fast."""
    chunks = max(-(-number // TOKENS_AT_A_TIME), 1)
    return max(-(-number // chunks), 1)


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


class _OneDnnMlp:
    """The layers with weights in oneDNN's own order, and the GELU computed on the way."""

    def __init__(self, layers: _Layers, rows: int):
        self.layers = layers
        pack = torch.ops.mkldnn._reorder_linear_weight
        self.weights = [pack(layer.weight.detach(), rows) for layer in (layers.first, layers.second)]

    def __call__(self, tokens: Tensor) -> Tensor:
        multiply = torch.ops.mkldnn._linear_pointwise
        layers, (first, second) = self.layers, self.weights
        inputs = tokens.to(layers.dtype).contiguous()
        if layers.gelu is None:
            hidden = layers.activation(multiply(inputs, first, layers.first.bias, "none", [], ""))
        else:
            hidden = multiply(inputs, first, layers.first.bias, "gelu", [], layers.gelu)
        return multiply(hidden, second, layers.second.bias, "none", [], "").to(tokens.dtype)


class _MklMlp:
    """The layers with weights in MKL's own order, which is for a certain number of tokens; others go by the modules."""

    def __init__(self, layers: _Layers, rows: int):
        self.layers, self.rows = layers, rows
        pack = torch.ops.mkl._mkl_reorder_linear_weight
        self.weights = [pack(layer.weight.detach(), rows) for layer in (layers.first, layers.second)]

    def __call__(self, tokens: Tensor) -> Tensor:
        layers = self.layers
        if len(tokens) != self.rows:
            return _by_modules(layers.first, layers.activation, layers.second)(tokens)
        multiply = torch.ops.mkl._mkl_linear
        first, second = (
            (weight, layer.weight, layer.bias, self.rows)
            for weight, layer in zip(self.weights, (layers.first, layers.second), strict=True)
        )
        inputs = tokens.to(layers.dtype).contiguous()
        return multiply(layers.activation(multiply(inputs, *first)), *second).to(tokens.dtype)


_WAYS: dict[str, Callable[[_Layers, int], Mlp]] = {"onednn": _OneDnnMlp, "mkl": _MklMlp}
_WAYS_OF_TYPE = {torch.float32: ("onednn", "mkl"), torch.bfloat16: ("onednn",)}


def _way_to_pack(layers: _Layers) -> str | None:
    """How weights are packed, if they are."""
    wish = os.environ.get(SWITCH, "")
    if wish == "0" or layers.dtype not in _WAYS_OF_TYPE:
        return None
    if not wish and layers.first.weight.numel() < _LEAST_WEIGHTS:
        return None
    trials = packing_trials(layers.dtype)
    able = [way for way, trial in trials.items() if trial.is_right and wish in ("", "1", way)]
    best = min(able, key=lambda way: trials[way].seconds, default=None)
    return best if best is None or wish or trials[best].is_worthwhile else None


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


def packing_trials(dtype: torch.dtype) -> dict[str, Trial]:
    """Each way to pack weights against weights as they are, once a process; it takes one or two tenths of a second.

    Where PyTorch was told to compute fp32's products in bfloat16 (`set_float32_matmul_precision`), exact ones are not
    what was asked for: a trial with that setting finds none to be right.
    """
    return _packing_trials(dtype, torch.get_float32_matmul_precision())


@functools.cache
def _packing_trials(dtype: torch.dtype, precision: str) -> dict[str, Trial]:  # noqa: ARG001 -- tried for each
    if not has_tested_onednn():
        return {}
    trials = {}
    with torch.inference_mode(False), torch.no_grad():
        layers = _trial_layers(dtype)
        usual = _by_modules(layers.first, layers.activation, layers.second)
        for way in _WAYS_OF_TYPE[dtype]:
            try:
                trials[way] = _compare(_WAYS[way](layers, _TRIAL_SIZE[0]), usual, dtype, _LARGEST_ERROR[dtype])
            except OPERATION_ERRORS:
                trials[way] = _NOT_USABLE
    return trials


@functools.cache
def reduced_precision_trial(int8: bool = False) -> Trial:
    """Products in bfloat16, or of 8-bit integers, against fp32, once a process."""
    with torch.inference_mode(False), torch.no_grad():
        exact = _trial_layers(torch.float32)
        usual = prepare_mlp(exact.first, exact.activation, exact.second, _TRIAL_SIZE[0])
        if int8:
            other: Mlp = _Int8Mlp(exact)
        else:
            half = _trial_layers(torch.bfloat16)
            other = prepare_mlp(half.first, half.activation, half.second, _TRIAL_SIZE[0])
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


class _Int8Mlp:
    """The layers as products of 8-bit integers: weights scaled by row, tokens by chunk, sums in 32 bits."""

    def __init__(self, layers: _Layers):
        self.layers = layers
        self.weights = [int8_weight(layer) for layer in (layers.first, layers.second)]

    def __call__(self, tokens: Tensor) -> Tensor:
        layers = self.layers
        if len(tokens) == 0:
            return tokens.clone()
        hidden = int8_linear(tokens.float(), self.weights[0], layers.first.bias.float(), layers.gelu)
        if layers.gelu is None:
            hidden = layers.activation(hidden)
        return int8_linear(hidden, self.weights[1], layers.second.bias.float(), None).to(tokens.dtype)


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of a model that can compute in 8-bit integers."""
    return (module for module in model.modules() if hasattr(type(module), "computes_in_int8"))


def computes_in_int8(model: nn.Module) -> bool:
    """Whether [`use_int8`] was asked for."""
    return any(block.computes_in_int8 for block in blocks_of(model))


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


def why_slow(model: nn.Module) -> str | None:
    """What to tell where a model computes in bfloat16 or in 8-bit integers on a CPU that gains nothing by it."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu":
        return None
    int8 = computes_in_int8(model)
    if not int8 and parameter.dtype != torch.bfloat16:
        return None
    name, trial = "int8" if int8 else "bfloat16", reduced_precision_trial(int8)
    if trial.is_worthwhile:
        return None
    if not trial.is_right:
        return f"{name} gives wrong results on this CPU with PyTorch {torch.__version__}: use float32."
    return (
        f"This CPU gains nothing by {name}: in a trial, it took {trial.seconds / trial.usual_seconds:.1f} times as "
        "long as float32, which is more accurate. Use float32."
    )


__all__ = [
    "SWITCH",
    "TOKENS_AT_A_TIME",
    "Mlp",
    "Trial",
    "computes_in_int8",
    "infers_on_cpu",
    "is_watched",
    "packing_trials",
    "prepare_mlp",
    "reduced_precision_trial",
    "rows_at_a_time",
    "use_int8",
    "why_slow",
]
