"""CLIP with OpenAI's modified ResNet and attention pooling (arXiv 2103.00020, section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_clips import ResNetClipConfig
from .modeling_clip import ConvolutionalClipModel

EXPANSION = 4


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class ResNetClipBottleneck(GradientCheckpointingLayer):
    """Bottleneck block; where it has a stride, an average pooling takes the place of strided convolutions."""

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        out_channels = EXPANSION * width
        self.convs = nn.ModuleList(
            [
                _convolution(in_channels, width, 1),
                _convolution(width, width, 3),
                _convolution(width, out_channels, 1),
            ]
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in self.convs)
        self.pooling = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        has_shortcut = stride > 1 or in_channels != out_channels
        self.shortcut_conv = _convolution(in_channels, out_channels, 1) if has_shortcut else nn.Identity()
        self.shortcut_norm = nn.BatchNorm2d(out_channels) if has_shortcut else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norms[0](self.convs[0](features)).relu()
        hidden = self.pooling(self.norms[1](self.convs[1](hidden)).relu())
        hidden = self.norms[2](self.convs[2](hidden))
        return (hidden + self.shortcut_norm(self.shortcut_conv(self.pooling(features)))).relu()


class ResNetClipTrunk(nn.Module):
    """A stem of three convolutions and an average pooling, then stages of bottlenecks."""

    def __init__(self, config: ResNetClipConfig):
        super().__init__()
        width = config.width
        self.stem_convs = nn.ModuleList(
            [
                _convolution(config.num_channels, width // 2, 3, stride=2),
                _convolution(width // 2, width // 2, 3),
                _convolution(width // 2, width, 3),
            ]
        )
        self.stem_norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in self.stem_convs)
        self.stem_pooling = nn.AvgPool2d(2)
        self.stages = nn.ModuleList()
        in_channels = width
        for stage, depth in enumerate(config.depths):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResNetClipBottleneck(in_channels, width * 2**stage, stride))
                in_channels = EXPANSION * width * 2**stage
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        features = pixel_values
        for conv, norm in zip(self.stem_convs, self.stem_norms, strict=True):
            features = norm(conv(features)).relu()
        features = self.stem_pooling(features)
        feature_maps = []
        for stage in self.stages:
            features = stage(features)
            feature_maps.append(features)
        return tuple(feature_maps)


class AttentionPooling(nn.Module):
    """One attention step whose query is the mean of all positions; its value path projects single positions."""

    def __init__(self, config: ResNetClipConfig):
        super().__init__()
        width = config.feature_dim
        self.num_heads = config.num_attention_heads
        self.grid_size = config.image_size // config.size_divisor
        self.position_embedding = nn.Parameter(torch.empty(self.grid_size**2 + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, config.projection_dim)

    def _positions(self, height: int, width: int) -> Tensor:
        """The mean's position embedding, then those of a grid, interpolated as FC-CLIP does."""
        if (height, width) == (self.grid_size, self.grid_size):
            return self.position_embedding
        grid = self.position_embedding[1:].T.unflatten(1, (self.grid_size, self.grid_size))[None]
        resized = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
        return torch.cat([self.position_embedding[:1], resized[0].flatten(1).T])

    def forward(self, dense_features: Tensor) -> Tensor:
        """`(batch_size, feature_dim, height, width)` to `(batch_size, projection_dim)`."""
        tokens = dense_features.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        tokens = tokens + self._positions(*dense_features.shape[-2:])
        query, key, value = (
            projection(part).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, part in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        pooled = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(pooled.transpose(1, 2).flatten(1))

    def project(self, features: Tensor) -> Tensor:
        """What attention to a single position gives, `(..., feature_dim)` to `(..., projection_dim)`."""
        return self.out_proj(self.v_proj(features))


class ResNetClipModel(ConvolutionalClipModel):
    """CLIP with OpenAI's modified ResNet (`RN50`, `RN101`, `RN50x4`, ...); its interface is [`DenseClipModel`]'s.

    Feature maps are the raw outputs of the four stages, as FC-CLIP reads them (arXiv 2308.02487). Whole pictures are
    embedded by attention pooling, with position embeddings interpolated to the picture's size. Dense features are
    projected by that attention's value and output projections, without position embeddings, as MaskCLIP does (arXiv
    2112.01071): attention is linear in its values, so a mask's pooled features are what it would give with the mask's
    weights. FC-CLIP itself lets the mean of the whole picture attend to the positions inside a mask; here the weights
    are the mask's or the adapter's.
    """

    config: ResNetClipConfig
    config_class = ResNetClipConfig
    _no_split_modules = ["ResNetClipBottleneck", "CLIPTextEmbeddings", "CLIPEncoderLayer"]  # noqa: RUF012

    def __init__(self, config: ResNetClipConfig):
        super().__init__(config)
        self.vision_model = ResNetClipTrunk(config)
        self.visual_projection = AttentionPooling(config)
        self.add_text_tower()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionPooling):
            init.normal_(module.position_embedding, std=self.config.feature_dim**-0.5)

    @property
    def projection_weight(self) -> Tensor:
        """Weight of the projection's last layer, by which a CLIP is recognised."""
        return self.visual_projection.out_proj.weight

    def project(self, features: Tensor) -> Tensor:
        """Dense features, `(..., feature_dim)`, to the space shared with texts, `(..., projection_dim)`."""
        return self.visual_projection.project(features)

    def pool(self, dense_features: Tensor) -> Tensor:
        """Embedding of whole pictures, `(batch_size, projection_dim)`, by attention pooling."""
        return self.visual_projection(dense_features)


AutoModel.register(ResNetClipConfig, ResNetClipModel, exist_ok=True)


__all__ = ["ResNetClipModel"]
