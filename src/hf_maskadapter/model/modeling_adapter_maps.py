"""The adapter's activation maps, computed densely, or only where a mask can change them: the same values.

Both ways see the adapter as [`ActivationMapLayers`], and hand on maps in groups of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cpu_mlp import Mlp, infers_on_cpu
from .modeling_clip_convnext import ConvNextBlock, convolve

MapReduction = Callable[[Tensor, slice], Tensor]
"""Activation maps `(pictures, num_masks, num_output_maps, height, width)` of a slice of the batch's pictures to
`(pictures, num_masks, ...)`."""

_Memories = tuple[Tensor | None, Tensor | None]

_DENSE_MASKS_AT_A_TIME = 64
_POSITIONS_AT_A_TIME_ON_CPU = 2**13
_POSITIONS_AT_A_TIME_ELSEWHERE = 2**17
_TOKENS_AT_A_TIME_ON_CPU = 2**8
_TOKENS_AT_A_TIME_WITH_GRADIENTS = 2**11  # the backward pass keeps them all anyway, and adds up gradients for each
_TOKENS_AT_A_TIME_ELSEWHERE = 2**14
_MASKS_HASHED_AT_A_TIME = 16


class MaskEncoderLayers(Protocol):
    """What the computations of activation maps use of a mask encoder."""

    convs: Sequence[nn.Conv2d]
    projection: nn.Conv2d

    def encode(self, masks: Tensor) -> Tensor:
        """`(num_masks, 1, 4 * height, 4 * width)` to `(num_masks, mask_channels, height, width)`."""

    def __call__(self, masks: Tensor) -> Tensor:
        """The projected code, `(num_masks, embed_dim, height, width)`."""


class ActivationMapLayers(Protocol):
    """What the computations of activation maps use of an adapter, such as [`MaskAdapterModel`]."""

    training: bool
    mask_encoder: MaskEncoderLayers
    fuse: nn.Conv2d
    blocks: Sequence[ConvNextBlock]
    norm: nn.Module
    final: nn.Conv2d


@dataclass(frozen=True)
class _Reach:
    """The inputs that an output of a convolution, or of several, depends on: a square window."""

    kernel_size: int
    stride: int
    padding: int

    @classmethod
    def of(cls, convs: Sequence[nn.Conv2d]) -> _Reach:
        kernel_size, stride, padding = 1, 1, 0
        for conv in convs:
            kernel_size += (conv.kernel_size[0] - 1) * stride
            padding += int(conv.padding[0]) * stride
            stride *= conv.stride[0]
        return cls(kernel_size, stride, padding)

    def grow(self, touched: Tensor) -> Tensor:
        """Outputs that depend on a touched input, bool: `(num_masks, height, width)` to the output's size."""
        pooled = F.max_pool2d(touched.float()[:, None], self.kernel_size, self.stride, self.padding)
        return pooled[:, 0] > 0


@dataclass(frozen=True)
class _FoldedEncoder:
    """The mask encoder's last convolution and the fusion in one linear layer.

    fuse(features + projection(code)) = fuse(features) + (fuse.weight · projection.weight) · code + fuse.weight ·
    projection.bias, folded in double precision; on the CPU, since not every accelerator has it (Apple's).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, adapter: ActivationMapLayers, dtype: torch.dtype) -> _FoldedEncoder:
        projection = adapter.mask_encoder.projection
        fuse, weight, bias = (
            parameter.cpu().double() for parameter in (adapter.fuse.weight, projection.weight, projection.bias)
        )
        fuse = fuse.flatten(1)
        folded = (fuse @ weight.flatten(1), fuse @ bias)
        return cls(*(values.to(dtype).to(adapter.fuse.weight.device) for values in folded))


@dataclass(frozen=True)
class _Tokens:
    """The values of some masks at all positions, of which those that no mask touches are held once.

    Args:
        table: the touched positions' values in the order of masks, height, width, and behind them those of an empty
            mask, `(num_touched + height * width, channels)`.
        touched: where they are, `(num_masks, height, width)` bool.
    """

    table: Tensor
    touched: Tensor

    @classmethod
    def collect(
        cls, pieces: Iterable[Tensor], touched: Tensor, reference: Tensor, memory: Tensor | None = None
    ) -> _Tokens:
        """Put tokens together from their pieces.

        Args:
            pieces: the touched rows in order, each `(num_rows, channels)`.
            touched: as of the class.
            reference: values for an empty mask, `(height * width, channels)`.
            memory: see [`_concatenate`].
        """
        return cls(_concatenate(chain(pieces, [reference]), memory), touched)

    @property
    def rows(self) -> Tensor:
        """The touched rows, `(num_touched, channels)`."""
        return self.table[: len(self.table) - self.touched[0].numel()]

    def places(self) -> Tensor:
        """The row of each position of each mask, `(num_masks, height, width)`."""
        is_touched = self.touched.flatten()
        num_masks, num_positions = len(self.touched), self.touched[0].numel()
        untouched = torch.arange(num_positions, device=is_touched.device).repeat(num_masks) + len(self.rows)
        return torch.where(is_touched, is_touched.cumsum(dim=0) - 1, untouched).view_as(self.touched)


def _concatenate(pieces: Iterable[Tensor], memory: Tensor | None) -> Tensor:
    """Pieces of rows one behind the other, each written before the next one is computed.

    Args:
        pieces: each `(num_rows, channels)`.
        memory: where to, `(at_least_as_many_rows, channels)`; `None` takes new memory, as gradients need it. A piece
            may be computed from what stands in its own place.
    """
    if memory is None:
        return torch.cat(list(pieces))
    end = 0
    for piece in pieces:
        start, end = end, end + len(piece)
        memory[start:end] = piece
    return memory[:end]


@dataclass(frozen=True)
class _EmptyMask:
    """What the adapter computes for an empty mask.

    Args:
        fused_features: `fuse(features)` with the folded bias, `(height · width, channels)`.
        hidden: values before each block and after the last, each `(height · width, channels)`.
        maps: activation maps, `(num_output_maps, height, width)`.
    """

    fused_features: Tensor
    hidden: list[Tensor]
    maps: Tensor

    @classmethod
    def of(
        cls, adapter: ActivationMapLayers, fused_features: Tensor, mask: Tensor, folded: _FoldedEncoder
    ) -> _EmptyMask:
        """Run the adapter on an empty mask.

        Args:
            adapter: the adapter.
            fused_features: `(channels, height, width)`.
            mask: an empty one at the mask encoder's resolution, `(height, width)`.
            folded: the adapter's folded mask encoder.
        """
        code = adapter.mask_encoder.encode(mask[None, None]).to(folded.weight.dtype)
        tokens = fused_features.permute(1, 2, 0).to(folded.bias.dtype) + folded.bias
        hidden = (tokens + F.linear(code[0].permute(1, 2, 0), folded.weight)).permute(2, 0, 1)[None]
        before = [hidden]
        for block in adapter.blocks:
            before.append(block(before[-1]))
        maps = convolve(adapter.final, adapter.norm(before[-1]))[0]
        return cls(tokens.flatten(0, 1), [values[0].permute(1, 2, 0).flatten(0, 1) for values in before], maps)


def is_here(parameter: Tensor) -> bool:
    """Whether a parameter's values are in this process's memory, and not fetched when its module's forward begins.

    They are not while FSDP or DeepSpeed hold a part of them, or Accelerate has them on disk or in the CPU's memory.
    """
    return not (hasattr(parameter, "full_tensor") or parameter.is_meta or parameter.numel() == 0)


def dense_activation_maps(
    adapter: ActivationMapLayers, projected_features: Tensor, masks: Tensor, reduce: MapReduction
) -> Tensor:
    """Activation maps computed at every position of every mask.

    `fuse` is linear, so the features, the same for every mask, are fused once: fuse(features + code) =
    fuse(features) + weight · code.

    Args:
        adapter: the adapter.
        projected_features: projected dense CLIP features, `(batch_size, embed_dim, height, width)`.
        masks: masks at the mask encoder's resolution, `(batch_size, num_masks, 4 * height, 4 * width)`.
        reduce: what becomes of the maps of each group of masks.

    Returns:
        What `reduce` returns, of all masks: `(batch_size, num_masks, ...)`.
    """
    of_weights = adapter.fuse.weight.dtype
    fused_features = adapter.fuse(projected_features.to(of_weights))
    if _type_of_sums(adapter, fused_features) != of_weights:
        fused_features = fused_features.float()
    pictures = slice(None)
    if masks.shape[1] == 0:
        size = fused_features.shape[-2:]
        return reduce(fused_features.new_zeros(len(masks), 0, adapter.final.out_channels, *size), pictures)
    chunks = []
    for chunk in masks.to(of_weights).split(_dense_masks_at_a_time(adapter, masks), dim=1):
        code = adapter.mask_encoder(chunk.flatten(0, 1)[:, None])
        if is_here(adapter.fuse.weight):
            code = F.conv2d(code, adapter.fuse.weight)
            hidden = (fused_features[:, None] + code.unflatten(0, chunk.shape[:2])).flatten(0, 1)
        else:
            features = projected_features.to(of_weights)[:, None] + code.unflatten(0, chunk.shape[:2])
            hidden = adapter.fuse(features.flatten(0, 1))
        for block in adapter.blocks:
            hidden = block(hidden)
        maps = convolve(adapter.final, adapter.norm(hidden)).unflatten(0, chunk.shape[:2])
        chunks.append(reduce(maps, pictures))
    return torch.cat(chunks, dim=1)


def _type_of_sums(adapter: ActivationMapLayers, features: Tensor) -> torch.dtype:
    """Type of the values between the blocks: more bits than weights in bfloat16 have, for inference on a CPU."""
    dtype = adapter.fuse.weight.dtype
    return torch.float32 if dtype == torch.bfloat16 and infers_on_cpu(features, adapter.training) else dtype


def _dense_masks_at_a_time(adapter: ActivationMapLayers, masks: Tensor) -> int:
    """Masks of each picture in a group: all where the backward pass keeps every group's activations anyway."""
    recomputes = adapter.training and any(block.gradient_checkpointing for block in adapter.blocks)
    if torch.is_grad_enabled() and not recomputes:
        return masks.shape[1]
    return max(_DENSE_MASKS_AT_A_TIME // len(masks), 1) if recomputes else _DENSE_MASKS_AT_A_TIME


def sparse_activation_maps(
    adapter: ActivationMapLayers, projected_features: Tensor, masks: Tensor, reduce: MapReduction
) -> Tensor:
    """Activation maps computed only where a mask can change them: the same values from far fewer tokens.

    Behind the mask encoder's 1×1 convolution the adapter (arXiv 2412.04533) has depthwise convolutions of a small
    radius, and layers that act on each position alone. A position that a mask does not reach therefore has the value
    that it has for an *empty* mask, which all masks of a picture share:

    - the features are fused once a picture, and the mask encoder's last convolution is folded into the fusion;
    - equal masks are computed once, and all empty ones are the shared reference;
    - each block grows the reached region by its radius, and runs its norm and its pointwise layers, almost all of the
      work, on the tokens inside; what lies outside comes from the reference.

    Nothing is approximated: results differ from the dense computation by rounding only. Borders need no care, since the
    reference is computed with the same padding.

    Gradients flow to the adapter and the features as from the dense computation, not to the masks.

    Args:
        adapter: the adapter.
        projected_features: projected dense CLIP features, `(batch_size, embed_dim, height, width)`.
        masks: masks at the mask encoder's resolution, `(batch_size, num_masks, 4 * height, 4 * width)` fp32.
        reduce: what becomes of the maps of each group of masks.

    Returns:
        What `reduce` returns, of all masks: `(batch_size, num_masks, ...)`.
    """
    of_weights = adapter.fuse.weight.dtype
    fused_features = adapter.fuse(projected_features.to(of_weights))
    dtype = _type_of_sums(adapter, fused_features)
    fused_features = fused_features.to(dtype)
    folded = _FoldedEncoder.of(adapter, dtype)
    mlps = [block.prepare(fused_features, _TOKENS_AT_A_TIME_ON_CPU) for block in adapter.blocks]
    positions = fused_features[0, 0].numel()
    on_cpu = masks.device.type == "cpu"
    group_size = max((_POSITIONS_AT_A_TIME_ON_CPU if on_cpu else _POSITIONS_AT_A_TIME_ELSEWHERE) // positions, 1)
    empty_mask = masks.new_zeros(masks.shape[2:], dtype=of_weights)
    memories: _Memories = (None, None)
    if not torch.is_grad_enabled():
        rows = (min(group_size, masks.shape[1]) + 1) * positions
        memories = tuple(fused_features.new_empty(rows, fused_features.shape[1], dtype=dtype) for _ in memories)
    results = []
    for picture, of_picture in enumerate(masks):
        distinct, number = _distinct(of_picture)
        is_empty = ~of_picture.flatten(1).any(dim=1)[distinct]
        reference = _EmptyMask.of(adapter, fused_features[picture], empty_mask, folded)
        own = slice(picture, picture + 1)
        groups = [
            reduce(
                _maps_of_group(adapter, mlps, of_picture[group].to(of_weights), reference, folded, memories)[None], own
            )[0]
            for group in distinct[~is_empty].split(group_size)
            if len(group)
        ]
        groups.append(reduce(reference.maps[None, None], own)[0])
        place = torch.where(is_empty, len(distinct) - is_empty.sum(), (~is_empty).cumsum(dim=0) - 1)
        results.append(torch.cat(groups)[place[number]])
    return torch.stack(results)


def _maps_of_group(
    adapter: ActivationMapLayers,
    mlps: Sequence[Mlp],
    masks: Tensor,
    reference: _EmptyMask,
    folded: _FoldedEncoder,
    memories: _Memories,
) -> Tensor:
    """Activation maps `(num_masks, num_output_maps, height, width)` of masks `(num_masks, 4 * height, 4 * width)`.

    Every layer writes into the memory that the layer before it did not: tensors of ever other sizes, new for every
    group, would leave holes between them that add up to several times as much.
    """
    memory, other_memory = memories
    dtype = folded.weight.dtype  # under autocast, too: many masks' gradients add up in what they share
    touched = _Reach.of(list(adapter.mask_encoder.convs)).grow(masks != 0)
    code = adapter.mask_encoder.encode(masks[:, None]).permute(0, 2, 3, 1)[touched].to(folded.weight.dtype)
    positions = touched.flatten().nonzero()[:, 0] % len(reference.fused_features)
    rows = reference.fused_features[positions] + F.linear(code, folded.weight)
    tokens = _Tokens.collect([rows], touched, reference.hidden[0], memory)
    for block, mlp, empty in zip(adapter.blocks, mlps, reference.hidden[1:], strict=True):
        memory, other_memory = other_memory, memory
        tokens = _run_block(block, mlp, tokens, empty, memory)
    final = adapter.final
    weight, bias = (parameter.to(dtype) for parameter in (final.weight.flatten(1), final.bias))
    maps = (
        F.linear(adapter.norm.normalize_tokens(rows), weight, bias).to(dtype) for rows in _token_chunks(tokens.rows)
    )
    of_maps = _Tokens.collect(maps, tokens.touched, reference.maps.flatten(1).T.to(dtype))
    return F.embedding(of_maps.places(), of_maps.table).permute(0, 3, 1, 2)


def _run_block(block: ConvNextBlock, mlp: Mlp, tokens: _Tokens, reference: Tensor, memory: Tensor | None) -> _Tokens:
    """The block's outputs.

    Args:
        block: the block.
        mlp: its pointwise layers, see [`~ConvNextBlock.prepare`].
        tokens: its inputs.
        reference: its outputs for an empty mask, `(height * width, channels)`.
        memory: for its outputs, see [`_concatenate`].
    """
    reach = _Reach.of([block.depthwise_conv])
    touched = reach.grow(tokens.touched)

    def run(table: Tensor, reference: Tensor) -> Tensor:
        places = tokens.places()
        mixed = _concatenate(_depthwise(block.depthwise_conv, table, places, touched, reach.padding), memory)
        sources = _token_chunks(places[touched])
        outputs = (
            F.embedding(source, table) + mlp(block.norm.normalize_tokens(rows))
            for source, rows in zip(sources, _token_chunks(mixed), strict=True)
        )
        return _Tokens.collect(outputs, touched, reference, memory).table

    if block.gradient_checkpointing and block.training:
        return _Tokens(block._gradient_checkpointing_func(run, tokens.table, reference), touched)
    return _Tokens(run(tokens.table, reference), touched)


def _depthwise(conv: nn.Conv2d, table: Tensor, places: Tensor, touched: Tensor, radius: int) -> Iterator[Tensor]:
    """The depthwise convolution at the touched positions, in pieces `(num_rows, channels)`."""
    height, width = touched.shape[1:]
    boxes = list(_windows(touched))
    windows = [
        places[
            masks,
            max(top - radius, 0) : min(bottom + radius, height),
            max(left - radius, 0) : min(right + radius, width),
        ]
        for masks, (top, bottom), (left, right) in boxes
    ]
    for (masks, (top, bottom), (left, right)), features in zip(boxes, _look_up(windows, table), strict=True):
        above, before = max(top - radius, 0), max(left - radius, 0)
        mixed = _convolve(conv, features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        inside = mixed[:, top - above : bottom - above, left - before : right - before]
        yield inside[touched[masks, top:bottom, left:right]]


def _look_up(places: Sequence[Tensor], table: Tensor) -> Iterator[Tensor]:
    """Rows of a table, for each tensor of places one with the channels as last dimension.

    Where gradients are wanted all at once: each look-up's backward pass makes a gradient of the whole table.
    """
    if not torch.is_grad_enabled():
        yield from (F.embedding(some, table) for some in places)
        return
    rows = F.embedding(torch.cat([some.flatten() for some in places]), table)
    for some, of_some in zip(places, rows.split([some.numel() for some in places]), strict=True):
        yield of_some.unflatten(0, some.shape)


def _convolve(conv: nn.Conv2d, features: Tensor) -> Tensor:
    is_plain = type(conv) is nn.Conv2d and not conv._forward_pre_hooks and not conv._forward_hooks
    if torch.is_grad_enabled() and features.device.type == "cpu" and is_plain:
        return _DepthwiseConv.apply(features, conv.weight, conv.bias, int(conv.padding[0]))
    return convolve(conv, features)


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose backward pass, unlike PyTorch's on a CPU, is about as fast as it.

    The gradient of the features is a convolution with the kernel turned round.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        features = features.to(dtype)
        ctx.save_for_backward(features, weight)
        ctx.padding, ctx.has_bias = padding, bias is not None
        with torch.autocast(device, enabled=False):
            bias = None if bias is None else bias.to(dtype)
            return F.conv2d(features, weight.to(dtype), bias, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_features, of_weight, of_bias = None, None, None
        side, padding = weight.shape[-1], ctx.padding
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                turned = weight.to(gradient.dtype).flip(2, 3)
                of_features = F.conv2d(gradient, turned, padding=side - 1 - padding, groups=len(weight))
            if ctx.needs_input_grad[1]:
                of_weight = _gradient_of_kernel(features, gradient, padding).to(weight.dtype)
            if ctx.has_bias and ctx.needs_input_grad[2]:
                of_bias = gradient.sum(dim=(0, 2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32))
                of_bias = of_bias.to(weight.dtype)
        return of_features, of_weight, of_bias, None


def _gradient_of_kernel(features: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """The gradient of a depthwise kernel, `(channels, 1, side, side)`: features convolved with the output's gradient.

    Args:
        features: `(batch_size, channels, height, width)`.
        gradient: of the convolution's output, `(batch_size, channels, height, width)`.
        padding: of the convolution.
    """
    exact = torch.promote_types(features.dtype, torch.float32)
    planes = features.to(exact).flatten(0, 1)[None]
    kernels = gradient.to(exact).flatten(0, 1)[:, None]
    kernel = F.conv2d(planes, kernels, padding=padding, groups=len(kernels))[0]
    return kernel.unflatten(0, features.shape[:2]).sum(dim=0)[:, None]


def _windows(touched: Tensor) -> Iterator[tuple[slice, tuple[int, int], tuple[int, int]]]:
    """Masks, rows and columns that together hold every touched position, in the masks' order.

    On a CPU each mask's own box. Elsewhere all masks at once, which keeps a GPU busy and does not wait for it.
    """
    height, width = touched.shape[1:]
    if touched.device.type != "cpu":
        yield slice(None), (0, height), (0, width)
        return
    sides = []
    for axis, length in ((2, height), (1, width)):
        is_touched = touched.any(dim=axis).byte()
        sides += [is_touched.argmax(dim=1).tolist(), (length - is_touched.flip(1).argmax(dim=1)).tolist()]
    for number, (top, bottom, left, right) in enumerate(zip(*sides, strict=True)):
        yield slice(number, number + 1), (top, bottom), (left, right)


def _token_chunks(rows: Tensor) -> tuple[Tensor, ...]:
    if rows.device.type != "cpu":
        return rows.split(_TOKENS_AT_A_TIME_ELSEWHERE)
    return rows.split(_TOKENS_AT_A_TIME_WITH_GRADIENTS if torch.is_grad_enabled() else _TOKENS_AT_A_TIME_ON_CPU)


def _distinct(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each kind of equal masks, and for each mask the number of its kind.

    Equals are found by sums of the values' bits times random numbers, modulo 2**64, and then compared.

    Args:
        masks: `(num_masks, height, width)` fp32.

    Returns:
        `(num_kinds,)` indices of masks and `(num_masks,)` indices of these.
    """
    if len(masks) == 0:
        none = torch.zeros(0, dtype=torch.long, device=masks.device)
        return none, none
    rows = masks.flatten(1)
    limits = torch.iinfo(torch.int64)
    random = torch.Generator().manual_seed(0)
    factors = torch.randint(limits.min, limits.max, rows.shape[1:], generator=random).to(rows.device)
    keys = [
        (chunk.contiguous().view(torch.int32).long() * factors).sum(dim=1)
        for chunk in rows.split(_MASKS_HASHED_AT_A_TIME)
    ]
    number = torch.cat(keys).unique(return_inverse=True)[1]
    first = _first_of_each(number)
    equals = zip(rows.split(_MASKS_HASHED_AT_A_TIME), first[number].split(_MASKS_HASHED_AT_A_TIME), strict=True)
    if not all(torch.equal(chunk, rows[of_chunk]) for chunk, of_chunk in equals):
        number = rows.unique(dim=0, return_inverse=True)[1]
        first = _first_of_each(number)
    return first, number


def _first_of_each(numbers: Tensor) -> Tensor:
    """For each number from 0 to the largest, all of which occur, where it does first."""
    order = torch.arange(len(numbers), device=numbers.device)
    return order.new_zeros(int(numbers.max()) + 1).scatter_reduce(0, numbers, order, "amin", include_self=False)


__all__ = [
    "ActivationMapLayers",
    "MapReduction",
    "MaskEncoderLayers",
    "dense_activation_maps",
    "is_here",
    "sparse_activation_maps",
]
