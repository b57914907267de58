"""The parts of a segmenter that become graphs, each a module with tensors in and tensors out.

They are cut where something changes from call to call: the vocabulary (texts, classes), the masks (adapter, pooling),
and what the caller's own masks do without (proposals).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from ..model.mask_embedding import pool_inside_masks
from ..model.modeling_adapter import MASK_ENCODER_STRIDE
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits


class _GraphModule(PreTrainedModel):
    """What Transformers' exporters take: a model with a configuration, whose forward returns a dict of tensors."""

    config_class = PreTrainedConfig

    def __init__(self, segmenter: MaskAdapterForOpenVocabularySegmentation):
        super().__init__(PreTrainedConfig())
        self.segmenter = segmenter


class TextGraph(_GraphModule):
    """Token ids to text embeddings."""

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """`(num_prompts, length)` to normalised embeddings `(num_prompts, embed_dim)`."""
        return {"text_embeds": F.normalize(self.segmenter.clip.get_text_features(input_ids).float(), dim=-1)}


class PictureGraph(_GraphModule):
    """Pixels to the CLIP's feature maps, and to what the adapter sees of them."""

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """`(batch_size, 3, height, width)` to maps of each stride; the last one holds the dense features."""
        feature_maps = self.segmenter.clip.get_feature_maps(pixel_values)
        maps = {f"feature_map_{number}": features for number, features in enumerate(feature_maps)}
        return maps | {"projected_features": self.segmenter.project_features(feature_maps[-1])}


class ProposalGraph(_GraphModule):
    """Feature maps to mask proposals, and to the embeddings that the generator's class branch compares with texts."""

    def forward(self, **feature_maps: Tensor) -> dict[str, Tensor]:
        """Mask logits `(batch_size, num_masks, height, width)`, embeddings `(batch_size, num_masks, embed_dim)`."""
        generator = self.segmenter.mask_generator
        predictions, mask_features = generator.decode([feature_maps[name] for name in sorted(feature_maps)])
        queries, mask_embeddings = predictions[-1]
        masks = (mask_embeddings @ mask_features.flatten(2)).unflatten(2, mask_features.shape[2:])
        return {"masks": masks, "class_embeddings": generator.class_head.embed(queries, masks, mask_features)}


class AdapterGraph(_GraphModule):
    """Masks to mask embeddings by the adapter, whose pointwise layers run only where a mask reaches.

    The same computation as `sparse_activation_maps`, in the few operators that every engine has: all masks lie in one
    tensor, and an empty one behind them; tokens that a mask reaches are gathered, pass a block's norm and pointwise
    layers, and are scattered over the empty mask's values.
    """

    def __init__(self, segmenter: MaskAdapterForOpenVocabularySegmentation):
        super().__init__(segmenter)
        adapter: Any = segmenter.adapter
        projection, fuse = adapter.mask_encoder.projection, adapter.fuse.weight.double().flatten(1)
        folded = (fuse @ projection.weight.double().flatten(1), fuse @ projection.bias.double())
        for name, values in zip(("code_weight", "code_bias"), folded, strict=True):
            self.register_buffer(name, values.detach().to(adapter.fuse.weight.dtype))

    def forward(self, projected_features: Tensor, dense_features: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Embeddings of one picture's masks.

        Args:
            projected_features: `(1, embed_dim, height, width)`.
            dense_features: `(1, feature_dim, height, width)`.
            masks: binary masks of any resolution that cover the picture, `(num_masks, mask_height, mask_width)` fp32.

        Returns:
            `(num_masks, embed_dim)`, not normalised.
        """
        adapter: Any = self.segmenter.adapter
        height, width = projected_features.shape[-2:]
        size = (MASK_ENCODER_STRIDE * height, MASK_ENCODER_STRIDE * width)
        masks = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0, :, None]
        masks = torch.cat([masks, torch.zeros_like(masks[:1])])
        is_last = torch.cat([torch.zeros_like(masks[1:, 0, :1, :1]), torch.ones_like(masks[:1, 0, :1, :1])])
        code = adapter.mask_encoder.encode(masks).permute(0, 2, 3, 1)
        fused = adapter.fuse(projected_features).permute(0, 2, 3, 1) + self.code_bias
        tokens = fused + F.linear(code, self.code_weight)
        reached = _reach(masks != 0, adapter.mask_encoder.convs)
        for block in adapter.blocks:
            reached = _reach(reached > 0, [block.depthwise_conv])
            tokens = self._run_block(block, tokens, torch.maximum(reached[:, 0], is_last))
        maps = adapter.final(adapter.norm(tokens[:-1].permute(0, 3, 1, 2)))
        # As `pool_with_maps`, but for the logarithm of the sigmoid: ONNX Runtime's sigmoid is 0 below -18.
        logarithms = maps.clamp(max=0) - torch.log(1 + torch.exp(-maps.abs()))
        weights = logarithms.flatten(2).softmax(dim=-1)
        pooled = weights @ dense_features.flatten(2).transpose(1, 2)
        return {"mask_embeddings": self.segmenter.clip.project(pooled).mean(dim=1)}

    @staticmethod
    def _run_block(block: Any, tokens: Tensor, reached: Tensor) -> Tensor:
        """Tokens `(num_masks + 1, height, width, channels)` behind a block, given where a mask reaches."""
        shape = tokens.shape
        mixed = block.depthwise_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(0, 2)
        rows = tokens.flatten(0, 2)
        places = reached.flatten().nonzero()[:, 0]
        outputs = rows[places] + block.channel_mlp(block.norm.normalize_tokens(mixed[places]))
        of_empty = outputs[outputs.shape[0] - shape[1] * shape[2] :]
        everywhere = of_empty[None].expand(shape[0], -1, -1).reshape(-1, shape[3])
        return everywhere.index_put((places,), outputs).view(shape)


def _reach(touched: Tensor, convs: Sequence[nn.Conv2d]) -> Tensor:
    """Positive where convolutions, one behind the other, see a touched value: `(num_masks, 1, height, width)`."""
    touched = touched.float()
    for conv in convs:
        touched = F.max_pool2d(touched, conv.kernel_size[0], conv.stride[0], int(conv.padding[0]))
    return touched


class PoolingGraph(_GraphModule):
    """Weights of feature cells to mask embeddings."""

    def forward(self, dense_features: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """`(1, feature_dim, height, width)` and `(num_masks, height, width)` to `(num_masks, embed_dim)`."""
        pooled = pool_inside_masks(dense_features, weights[None])
        return {"mask_embeddings": self.segmenter.clip.project(pooled)[0]}


class TextTransferGraph(_GraphModule):
    """Text embeddings to those that have looked at the picture (MAFT+)."""

    def forward(self, text_embeds: Tensor, projected_features: Tensor) -> dict[str, Tensor]:
        """`(num_texts, embed_dim)` and `(1, embed_dim, height, width)` to `(num_texts, embed_dim)`."""
        transfer: Any = self.segmenter.text_transfer
        return {"adapted_text_embeds": transfer(text_embeds, projected_features)[0]}


class ClassGraph(_GraphModule):
    """Embeddings against a vocabulary: scaled cosines, the maximum over each class's synonyms, void last."""

    def forward(
        self,
        embeddings: Tensor,
        text_embeds: Tensor,
        class_ids: Tensor,
        seen_classes: Tensor,
        void_embeds: Tensor,
        scale: Tensor,
    ) -> dict[str, Tensor]:
        """Class logits, `(num_masks, num_classes + 1)`.

        Args:
            embeddings: `(num_masks, embed_dim)`, not normalised.
            text_embeds: `(num_synonyms, embed_dim)`.
            class_ids: class of each synonym, ascending, `(num_synonyms,)` int64.
            seen_classes: `(num_classes,)`; its length alone counts.
            void_embeds: `(1, embed_dim)`.
            scale: factor between cosines and logits, `(1,)`.
        """
        vocabulary = EncodedVocabulary(text_embeds=text_embeds, class_ids=class_ids, seen_classes=seen_classes)
        return {"class_logits": open_vocabulary_logits(embeddings, vocabulary, void_embeds, scale)}


@contextmanager
def sizes_left_free() -> Iterator[None]:
    """While a graph is traced: functions that turn a free size into a number, in forms that keep it free.

    With `torch.tensor`, `torch.as_tensor` and `torch.linspace`, and with a cache of sine positions, Transformers'
    Mask2Former lays out where it samples; `unflatten` fixes the dimensions that it leaves alone. Traced as they are,
    they hold the numbers of the traced picture: a graph that runs on pictures of another shape, and looks in the wrong
    places.
    """
    originals, unflatten = (torch.tensor, torch.as_tensor, torch.linspace), Tensor.unflatten
    cached = Mask2FormerSinePositionEmbedding.__dict__["build_sine_position_embedding"]

    def free_tensor(data: Any, **keywords: Any) -> Tensor:
        return _stacked(data).to(**keywords) if _holds_sizes(data) else originals[0](data, **keywords)

    def free_as_tensor(data: Any, **keywords: Any) -> Tensor:
        return _stacked(data).to(**keywords) if _holds_sizes(data) else originals[1](data, **keywords)

    def free_linspace(start: Any, end: Any, steps: Any, **keywords: Any) -> Tensor:
        if not isinstance(steps, Tensor):
            return originals[2](start, end, steps, **keywords)
        return start + torch.arange(steps, **keywords) * ((end - start) / (steps - 1).clamp(min=1))

    def free_unflatten(tensor: Tensor, dim: int, sizes: Sequence[Any]) -> Tensor:
        dim %= tensor.ndim
        return tensor.reshape(*tensor.shape[:dim], *sizes, *tensor.shape[dim + 1 :])

    torch.tensor, torch.as_tensor, torch.linspace = free_tensor, free_as_tensor, free_linspace  # type: ignore
    Tensor.unflatten = free_unflatten  # type: ignore[method-assign,assignment]
    uncached = staticmethod(inspect.unwrap(cached.__func__))
    Mask2FormerSinePositionEmbedding.build_sine_position_embedding = uncached  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.tensor, torch.as_tensor, torch.linspace = originals  # type: ignore[assignment]
        Tensor.unflatten = unflatten  # type: ignore[method-assign]
        Mask2FormerSinePositionEmbedding.build_sine_position_embedding = cached  # type: ignore[assignment]


def _holds_sizes(data: Any) -> bool:
    """Whether nested lists hold traced sizes, which are tensors."""
    return isinstance(data, (list, tuple)) and any(isinstance(one, Tensor) or _holds_sizes(one) for one in data)


def _stacked(data: Any) -> Tensor:
    return torch.stack([_stacked(one) for one in data]) if isinstance(data, (list, tuple)) else torch.as_tensor(data)
