"""CLIP with a ConvNeXt image tower: feature maps at several strides, dense features, one space for images and texts.

The image tower is ConvNeXt (arXiv 2201.03545) as OpenCLIP trains it. It is written here rather than taken from
Transformers because the norms' epsilon (ConvNeXt-XXL), the stem, the kernel sizes and the kind of norm are choices of
this package's configuration; the text tower is Transformers' own.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_clips import ConvNextClipConfig
from .cpu_mlp import Mlp, infers_on_cpu, is_watched, prepare_mlp, rows_at_a_time
from .modeling_clip import ConvolutionalClipModel


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a `(batch_size, channels, height, width)` tensor."""

    def normalize_tokens(self, tokens: Tensor) -> Tensor:
        """The same norm on `(..., channels)`, computed in the type of these values."""
        if tokens.dtype == self.weight.dtype:
            return super().forward(tokens)
        weight, bias = self.weight.to(tokens.dtype), self.bias.to(tokens.dtype)
        return F.layer_norm(tokens, self.normalized_shape, weight, bias, self.eps)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise the channels of each position of `(batch_size, channels, height, width)`."""
        return self.normalize_tokens(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build_norm(kind: str, channels: int, eps: float) -> nn.Module:
    """The norm of a trunk, on `(batch_size, channels, height, width)` tensors: `"layer"` or `"batch"`."""
    return ChannelLayerNorm(channels, eps=eps) if kind == "layer" else nn.BatchNorm2d(channels, eps=eps)


def convolve(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """A convolution in the type of its input, whatever that of its weights."""
    if features.dtype == conv.weight.dtype or torch.is_autocast_enabled(features.device.type):
        return conv(features)
    weight, bias = conv.weight.to(features.dtype), None if conv.bias is None else conv.bias.to(features.dtype)
    return F.conv2d(features, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNextBlock(GradientCheckpointingLayer):
    """Depthwise convolution, norm, two pointwise layers, layer scale, residual (arXiv 2201.03545).

    For inference on a CPU, features may be of more bits than the weights. All but the pointwise layers then computes in
    the features' type: the sum over the blocks is where the bits of bfloat16 get lost.
    """

    computes_in_int8: bool = False
    """Set by [`use_int8`]."""

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        norm: str = "layer",
        norm_eps: float = 1e-6,
        layer_scale_init_value: float = 1e-6,
        hidden_act: str = "gelu",
    ):
        super().__init__()
        self.layer_scale_init_value = layer_scale_init_value
        self.depthwise_conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = build_norm(norm, channels, norm_eps)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.activation = ACT2FN[hidden_act]
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.layer_scale = (
            nn.Parameter(torch.full((channels,), layer_scale_init_value)) if layer_scale_init_value > 0 else None
        )

    def channel_mlp(self, tokens: Tensor) -> Tensor:
        """The pointwise layers and the layer scale, on `(..., channels)`."""
        hidden = self.pointwise_conv2(self.activation(self.pointwise_conv1(tokens)))
        return hidden if self.layer_scale is None else self.layer_scale * hidden

    def prepare(self, features: Tensor, rows: int) -> Mlp:
        """[`~ConvNextBlock.channel_mlp`] as a function of `(number, channels)`, for as long as no weight changes.

        Args:
            features: what it will be applied to values like.
            rows: how many it will mostly be given at a time.
        """
        if not infers_on_cpu(features, self.training):
            return self.channel_mlp
        mlp = prepare_mlp(self.pointwise_conv1, self.activation, self.pointwise_conv2, rows, self.computes_in_int8)
        if self.layer_scale is None:
            return mlp
        scale = self.layer_scale.to(features.dtype)
        return lambda tokens: mlp(tokens).mul_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch_size, channels, height, width)` to the same shape."""
        is_plain = isinstance(self.norm, ChannelLayerNorm) and not any(map(is_watched, self.children()))
        if is_plain and infers_on_cpu(features, self.training):
            return self._infer(features)
        is_cast = torch.is_autocast_enabled(features.device.type)
        inputs = features if is_cast else features.to(self.depthwise_conv.weight.dtype)
        hidden = self.norm(self.depthwise_conv(inputs)).permute(0, 2, 3, 1)
        return features + self.channel_mlp(hidden).permute(0, 3, 1, 2)

    def _infer(self, features: Tensor) -> Tensor:
        """The same, a few tokens at a time, channels last."""
        features = features.contiguous(memory_format=torch.channels_last)
        inputs = features.permute(0, 2, 3, 1).flatten(0, 2)
        mixed = convolve(self.depthwise_conv, features).permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        rows = rows_at_a_time(len(mixed))
        mlp = self.prepare(features, rows)
        for chunk, of_input in zip(mixed.split(rows), inputs.split(rows), strict=True):
            torch.add(of_input, mlp(self.norm.normalize_tokens(chunk)), out=chunk)
        batch_size, channels, height, width = features.shape
        return mixed.view(batch_size, height, width, channels).permute(0, 3, 1, 2)


class ConvNextStem(nn.Module):
    """Pixels to the first stage's resolution: one patch convolution, or overlapping 3×3 convolutions of stride 2."""

    def __init__(self, config: ConvNextClipConfig):
        super().__init__()
        channels, stride = config.hidden_sizes[0], config.patch_size
        if config.stem == "patch":
            convs = [nn.Conv2d(config.num_channels, channels, stride, stride=stride)]
        else:
            halvings = stride.bit_length() - 1
            widths = [config.num_channels, *(channels // 2 ** (halvings - 1 - step) for step in range(halvings))]
            convs = [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1) for fan_in, fan_out in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(build_norm(config.norm, conv.out_channels, config.norm_eps) for conv in convs)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = pixel_values
        for step, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            features = norm(convolve(conv, features if step == 0 else self.activation(features)))
        return features


class ConvNextDownsample(nn.Module):
    """Norm, then a 2×2 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, norm_eps: float):
        super().__init__()
        self.norm = build_norm(norm, in_channels, norm_eps)
        self.conv = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(self.norm(features).to(self.conv.weight.dtype)).to(features.dtype)


class ConvNextStage(nn.Module):
    """A stage: downsampling (not in the first), then blocks."""

    def __init__(self, config: ConvNextClipConfig, stage: int):
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.downsample = (
            ConvNextDownsample(config.hidden_sizes[stage - 1], channels, config.norm, config.norm_eps)
            if stage > 0
            else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            ConvNextBlock(
                channels,
                config.stage_kernel_sizes[stage],
                config.norm,
                config.norm_eps,
                config.layer_scale_init_value,
                config.hidden_act,
            )
            for _ in range(config.depths[stage])
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.downsample(features)
        for block in self.blocks:
            features = block(features)
        return features


class ConvNextTrunk(nn.Module):
    """Stem and stages."""

    def __init__(self, config: ConvNextClipConfig):
        super().__init__()
        self.stem = ConvNextStem(config)
        self.stages = nn.ModuleList(ConvNextStage(config, stage) for stage in range(len(config.depths)))
        self.has_layer_norms = config.norm == "layer"

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        if self.has_layer_norms and infers_on_cpu(pixel_values, self.training):
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
            if pixel_values.dtype == torch.bfloat16:
                pixel_values = pixel_values.float()
        features = self.stem(pixel_values)
        feature_maps = []
        for stage in self.stages:
            features = stage(features)
            feature_maps.append(features)
        return tuple(feature_maps)


class ConvNextProjection(nn.Module):
    """Norm and linear or MLP head from the trunk's channels to the shared space; acts on the last dimension."""

    def __init__(self, config: ConvNextClipConfig):
        super().__init__()
        in_features, hidden = config.feature_dim, config.projection_hidden_dim
        self.norm = nn.LayerNorm(in_features, eps=config.norm_eps)
        self.fc1 = nn.Linear(in_features, hidden) if hidden is not None else None
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden if hidden is not None else in_features, config.projection_dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norm(features.to(self.fc2.weight.dtype))
        if self.fc1 is not None:
            hidden = self.activation(self.fc1(hidden))
        return self.fc2(hidden)


class ConvNextClipModel(ConvolutionalClipModel):
    """CLIP with a ConvNeXt image tower (OpenCLIP's `convnext_*` models); its interface is [`DenseClipModel`]'s."""

    config: ConvNextClipConfig
    config_class = ConvNextClipConfig
    _no_split_modules = ["ConvNextBlock", "CLIPTextEmbeddings", "CLIPEncoderLayer"]  # noqa: RUF012

    def __init__(self, config: ConvNextClipConfig):
        super().__init__(config)
        self.vision_model = ConvNextTrunk(config)
        self.visual_projection = ConvNextProjection(config)
        self.add_text_tower()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConvNextBlock) and module.layer_scale is not None:
            init.constant_(module.layer_scale, module.layer_scale_init_value)

    @property
    def projection_weight(self) -> Tensor:
        """Weight of the projection's last layer, by which a CLIP is recognised."""
        return self.visual_projection.fc2.weight

    def project(self, features: Tensor) -> Tensor:
        """Dense features, `(..., feature_dim)`, to the space shared with texts, `(..., projection_dim)`."""
        return self.visual_projection(features)

    def pool(self, dense_features: Tensor) -> Tensor:
        """Embedding of whole pictures, `(batch_size, projection_dim)`: the projected mean of their dense features."""
        return self.project(dense_features.mean(dim=(-2, -1)))


AutoModel.register(ConvNextClipConfig, ConvNextClipModel, exist_ok=True)


__all__ = ["ChannelLayerNorm", "ConvNextBlock", "ConvNextClipModel", "convolve"]
