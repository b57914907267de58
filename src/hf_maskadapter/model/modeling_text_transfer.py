"""MAFT+'s content-dependent transfer (arXiv 2408.00744): text embeddings that look at the picture first."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .configuration_maskadapter import MaskAdapterConfig
from .modeling_mask_generator_fcclip import Float32SinePositionEmbedding

NORM_EPS = 1e-5


class TextTransfer(nn.Module):
    """MAFT+'s content-dependent transfer: text embeddings attend to a picture's features (arXiv 2408.00744)."""

    def __init__(self, config: MaskAdapterConfig):
        super().__init__()
        self.config = config
        embed_dim: Any = config.embed_dim  # the configuration has filled it in
        self.position_embedding = Float32SinePositionEmbedding(embed_dim // 2, normalize=True)
        self.attention = nn.MultiheadAttention(embed_dim, config.text_transfer_heads, batch_first=True)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.projection = nn.Linear(embed_dim, embed_dim)

    def forward(self, text_embeds: Tensor, projected_features: Tensor) -> Tensor:
        """Adapt text embeddings to pictures.

        Args:
            text_embeds: normalised text embeddings, void among them, `(num_texts, embed_dim)`.
            projected_features: projected dense CLIP features, `(batch_size, embed_dim, height, width)`.

        Returns:
            Text embeddings for each picture, not normalised, `(batch_size, num_texts, embed_dim)`.
        """
        positions = self.position_embedding(
            projected_features.shape, projected_features.device, projected_features.dtype
        )
        keys, values = (
            features.flatten(2).transpose(1, 2) for features in (projected_features + positions, projected_features)
        )
        text_embeds = text_embeds.to(values.dtype).expand(len(values), -1, -1)
        change = self.projection(self.attention(text_embeds, keys, values, need_weights=False)[0])
        if self.config.text_transfer_panoptic:
            return text_embeds + self.norm(change)
        return self.norm(text_embeds + change)


__all__ = ["TextTransfer"]
