"""Mask2Former's two expensive attentions, with the results and weights of Transformers' modules in less time.

Deformable attention is 3–4 times as fast on CPU as with `grid_sample`. Masked cross-attention need not return its
weights nor hold its mask once for every head, and that mask needs no product at the masks' full size. All three are
replaced in place by [`use_fast_attention`].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskPredictor,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerTransformerModule,
    multi_scale_deformable_attention,
)

_QUERIES_AT_A_TIME = 1024  # 50 MB of positions and weights with 8 heads, 3 levels and 4 points


def sample_and_sum(
    values: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159, equation 3) as one weighted sum of rows for each query.

    A bilinear sample is a weighted sum of four cells, so that levels, points and cells together are one
    `embedding_bag` over values that stay where they are.

    Args:
        values: projected features of all levels, `(batch_size, num_cells, num_heads, head_dim)`.
        spatial_shapes: height and width of each level.
        sampling_locations: x and y as fractions of the picture, outside of which values are zero,
            `(batch_size, num_queries, num_heads, num_levels, num_points, 2)`.
        attention_weights: `(batch_size, num_queries, num_heads, num_levels, num_points)`.

    Returns:
        `(batch_size, num_queries, num_heads * head_dim)`.
    """
    batch_size, num_cells, num_heads, head_dim = values.shape
    device = values.device
    sizes = torch.tensor([(width, height) for height, width in spatial_shapes], dtype=torch.int32, device=device)
    starts = F.pad(sizes.prod(dim=1).cumsum(dim=0), (1, 0))[:-1, None].int()
    heads = torch.arange(num_heads, dtype=torch.int32, device=device)[:, None, None]
    outputs = []
    for of_picture, locations, weights in zip(values, sampling_locations, attention_weights, strict=True):
        table = of_picture.reshape(num_cells * num_heads, head_dim)
        chunks = zip(locations.split(_QUERIES_AT_A_TIME), weights.split(_QUERIES_AT_A_TIME), strict=True)
        for chunk, weights_of_chunk in chunks:
            positions = chunk * sizes[:, None] - 0.5
            lowest = positions.floor()
            (share_x, share_y), (left, top) = (positions - lowest).unbind(dim=-1), lowest.int().unbind(dim=-1)
            rows, row_weights = [], []
            for y, share_of_row in ((top, 1 - share_y), (top + 1, share_y)):
                of_row, row = _inside(y, sizes[:, 1:])
                of_row = of_row * share_of_row * weights_of_chunk
                for x, share_of_column in ((left, 1 - share_x), (left + 1, share_x)):
                    of_column, column = _inside(x, sizes[:, :1])
                    rows.append((starts + row * sizes[:, :1] + column) * num_heads + heads)
                    row_weights.append(of_row * of_column * share_of_column)
            bags, bag_weights = (torch.stack(one, dim=-1).flatten(2).flatten(0, 1) for one in (rows, row_weights))
            summed = F.embedding_bag(bags, table, mode="sum", per_sample_weights=bag_weights)
            outputs.append(summed.view(-1, num_heads * head_dim))
    return torch.cat(outputs).view(batch_size, -1, num_heads * head_dim)


def _inside(positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Whether positions lie inside, and the nearest that do."""
    return (positions >= 0) & (positions < lengths), positions.clamp(min=0).minimum(lengths - 1)


class DeformableAttention(Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention):
    """Multi-scale deformable attention that uses [`sample_and_sum`] for inference on CPU.

    On a GPU and where gradients are wanted it computes what Transformers' module does.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,  # noqa: ARG002
        position_embeddings: Tensor | None = None,
        reference_points: Any = None,
        spatial_shapes_list: Sequence[tuple[int, int]] = (),
        level_start_index: Tensor | None = None,  # noqa: ARG002
        output_attentions: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Arguments and results as of Transformers' module; `attention_mask` is true for padding."""
        values = self.value_proj(encoder_hidden_states)
        if attention_mask is not None:
            values = values.masked_fill(attention_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.n_heads, -1))
        queries = self.with_pos_embed(hidden_states, position_embeddings)
        offsets = self.sampling_offsets(queries).unflatten(-1, (self.n_heads, self.n_levels, self.n_points, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.n_heads, -1)).softmax(dim=-1)
        weights = weights.unflatten(-1, (self.n_levels, self.n_points))
        widths_and_heights = torch.tensor([shape[::-1] for shape in spatial_shapes_list], device=offsets.device)
        locations = reference_points[:, :, None, :, None] + offsets / widths_and_heights[:, None]
        # An exported graph samples, since picture sizes are free in it: `sample_and_sum` counts pictures and queries.
        is_fast = values.device.type == "cpu" and not torch.is_grad_enabled() and not torch.jit.is_tracing()
        attend = sample_and_sum if is_fast else multi_scale_deformable_attention
        return self.output_proj(attend(values, spatial_shapes_list, locations, weights)), weights


class MaskedCrossAttention(nn.MultiheadAttention):
    """Multi-head attention that returns no attention weights, which lets PyTorch fuse it.

    It is made for what Mask2Former's decoder gives: sequence first, with a mask for all heads alike.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor,
        key_padding_mask: None = None,  # noqa: ARG002
    ) -> tuple[Tensor, None]:
        """Attend to the keys that the mask leaves.

        Args:
            query: `(length, batch_size, embed_dim)`.
            key: of the same form.
            value: likewise.
            attn_mask: true where a query does not look, `(batch_size, num_queries, num_keys)` bool.
            key_padding_mask: always `None`.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        queries, keys, values = (
            F.linear(states, weight, bias).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3)
            for states, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=~attn_mask[:, None], dropout_p=dropout
        )
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None


class MaskEmbedder(Mask2FormerMaskPredictor):
    """Mask2Former's mask predictor, without the masks: it returns their embeddings, and where attention does not look.

    A resize acts on every channel alike, so that resized masks are products of the embeddings with resized features.
    Of all layers' masks at full size, inference needs the last layer's only.
    """

    def forward(
        self, outputs: Tensor, pixel_embeddings: Tensor, attention_mask_target_size: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Embed masks, and say where the next layer's attention does not look.

        Args:
            outputs: queries, `(num_queries, batch_size, hidden_dim)`.
            pixel_embeddings: mask features, `(batch_size, mask_feature_size, height, width)`.
            attention_mask_target_size: height and width of the features that the next layer attends to.

        Returns:
            Mask embeddings `(batch_size, num_queries, mask_feature_size)`, whose products with mask features are the
            mask logits, and the next layer's attention mask, `(batch_size, num_queries, num_keys)` bool.
        """
        embeddings = self.mask_embedder(outputs.transpose(0, 1))
        with torch.no_grad():
            features = F.interpolate(
                pixel_embeddings, size=attention_mask_target_size, mode="bilinear", align_corners=False
            )
            is_outside = (embeddings @ features.flatten(2)).sigmoid() < 0.5
        return embeddings, is_outside


def use_fast_attention(pixel_decoder: Mask2FormerPixelDecoder, decoder: Mask2FormerTransformerModule) -> None:
    """Replace the attentions of new modules by those of this file; names and shapes of weights stay."""
    for layer in pixel_decoder.encoder.layers:
        old = layer.self_attn
        layer.self_attn = DeformableAttention(old.d_model, old.n_heads, old.n_levels, old.n_points)
    for layer in decoder.decoder.layers:
        old = layer.cross_attn
        layer.cross_attn = MaskedCrossAttention(old.embed_dim, old.num_heads, old.dropout)
    old = decoder.decoder.mask_predictor
    decoder.decoder.mask_predictor = MaskEmbedder(old.hidden_size, old.num_heads, decoder.decoder.mask_feature_size)


__all__ = ["DeformableAttention", "MaskEmbedder", "MaskedCrossAttention", "sample_and_sum", "use_fast_attention"]
