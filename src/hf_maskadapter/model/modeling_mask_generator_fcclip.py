"""FC-CLIP's mask generator: class-agnostic proposals on CLIP's feature maps, with in-vocabulary class logits.

FC-CLIP's generator (arXiv 2308.02487) is Mask2Former's pixel decoder and masked-attention decoder, which Transformers
provides, and a class branch that compares queries with text embeddings. Transformers does not document these modules
as public; `tests/model/test_modeling_mask_generator_fcclip.py` holds the contract that this file relies on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMLPPredictionHead,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerSinePositionEmbedding,
    Mask2FormerTransformerModule,
)
from transformers.utils.generic import can_return_tuple

from .configuration_mask_generators import FcClipMaskGeneratorConfig
from .mask_embedding import pool_inside_masks
from .modeling_clip import clamped_logit_scale
from .modeling_mask2former_attention import use_fast_attention
from .modeling_mask_generator import MaskGeneratorOutput
from .modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits


class Float32SinePositionEmbedding(Mask2FormerSinePositionEmbedding):
    """Sine positions computed in fp32 whatever the dtype of the features: in bf16 they are off by up to 0.05."""

    def forward(
        self, shape: torch.Size, device: torch.device | str, dtype: torch.dtype, mask: Tensor | None = None
    ) -> Tensor:
        return super().forward(shape, device, torch.float32, mask).to(dtype)


class FcClipClassHead(nn.Module):
    """FC-CLIP's in-vocabulary class branch (arXiv 2308.02487).

    Mask features of the pixel decoder are pooled where the mask logit is positive, projected, added to the query, and
    mapped to the space of the text embeddings.
    """

    def __init__(self, config: FcClipMaskGeneratorConfig):
        super().__init__()
        self.pooling_norm = nn.LayerNorm(config.hidden_dim)
        self.pooling_projection = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.class_embedder = Mask2FormerMLPPredictionHead(config.hidden_dim, config.hidden_dim, config.text_embed_dim)
        self.logit_scale_init_value = config.logit_scale_init_value
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))

    def embed(self, queries: Tensor, masks_logits: Tensor, mask_features: Tensor) -> Tensor:
        """What is compared with texts.

        Args:
            queries: `(batch_size, num_queries, hidden_dim)`.
            masks_logits: `(batch_size, num_queries, height, width)`.
            mask_features: `(batch_size, hidden_dim, height, width)`.

        Returns:
            `(batch_size, num_queries, text_embed_dim)`, not normalised.
        """
        pooled = pool_inside_masks(mask_features, masks_logits.detach() > 0)
        return self.class_embedder(self.pooling_projection(self.pooling_norm(pooled)) + queries)

    def get_logit_scale(self) -> Tensor:
        """Factor between cosines and logits, a scalar."""
        return clamped_logit_scale(self.logit_scale)

    def forward(
        self,
        queries: Tensor,
        masks_logits: Tensor,
        mask_features: Tensor,
        vocabulary: EncodedVocabulary,
        void_embeds: Tensor,
    ) -> Tensor:
        class_embeds = self.embed(queries, masks_logits, mask_features)
        return open_vocabulary_logits(class_embeds, vocabulary, void_embeds, self.get_logit_scale())


class FcClipMaskGenerator(Mask2FormerPreTrainedModel):
    """FC-CLIP's mask generator: Mask2Former on the feature maps of a CLIP, with an open-vocabulary class branch.

    It computes in fp32 under autocast, and keeps fp32 weights when it is loaded in half precision: deformable
    attention's sampling positions and the thresholded attention masks need it.
    """

    config: FcClipMaskGeneratorConfig
    config_class = FcClipMaskGeneratorConfig
    base_model_prefix = "mask_generator"
    main_input_name = "feature_maps"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["Mask2FormerPixelDecoderEncoderLayer", "Mask2FormerMaskedAttentionDecoderLayer"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = {"pixel_decoder", "transformer_module", "class_head"}  # noqa: RUF012

    def __init__(self, config: FcClipMaskGeneratorConfig):
        super().__init__(config)
        self.first_level = list(config.feature_strides).index(config.common_stride)
        self.pixel_decoder = Mask2FormerPixelDecoder(config, list(config.feature_channels)[self.first_level :])
        self.transformer_module = Mask2FormerTransformerModule(config.feature_size, config)
        use_fast_attention(self.pixel_decoder, self.transformer_module)
        self.class_head = FcClipClassHead(config)
        self.pixel_decoder.position_embedding = Float32SinePositionEmbedding(config.feature_size // 2, normalize=True)
        self.transformer_module.position_embedder = Float32SinePositionEmbedding(config.hidden_dim // 2, normalize=True)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FcClipClassHead):
            init.constant_(module.logit_scale, module.logit_scale_init_value)

    def decode(self, feature_maps: Sequence[Tensor]) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Decode masks; a mask's logits are the products of its embedding with the mask features.

        Args:
            feature_maps: as of [`~FcClipMaskGenerator.forward`].

        Returns:
            Of each layer, the last one last, queries `(batch_size, num_queries, hidden_dim)` and mask embeddings
            `(batch_size, num_queries, mask_feature_size)`; and mask features
            `(batch_size, mask_feature_size, height, width)`.
        """
        dtype = self.class_head.pooling_projection.weight.dtype
        features = [feature_map.to(dtype) for feature_map in feature_maps[self.first_level :]]
        pixel_output = self.pixel_decoder(features)
        decoder_output = self.transformer_module(
            multi_scale_features=pixel_output.multi_scale_features, mask_features=pixel_output.mask_features
        )
        queries = (states.transpose(0, 1) for states in decoder_output.intermediate_hidden_states)
        # Of the masks, `MaskEmbedder` gives their embeddings.
        return list(zip(queries, decoder_output.masks_queries_logits, strict=True)), pixel_output.mask_features

    @can_return_tuple
    def forward(
        self,
        feature_maps: tuple[Tensor, ...],
        vocabulary: EncodedVocabulary | None = None,
        void_embeds: Tensor | None = None,
        output_auxiliary: bool = False,
    ) -> MaskGeneratorOutput:
        """Propose masks, and score their classes where there is a vocabulary.

        Args:
            feature_maps: the CLIP's feature maps, fine to coarse, each `(batch_size, channels, height, width)`.
            vocabulary: the encoded vocabulary; `None` skips the class branch.
            void_embeds: normalised embedding of void, `(1, text_embed_dim)`, needed with a vocabulary.
            output_auxiliary: whether to return the earlier predictions too.
        """
        with torch.autocast(feature_maps[0].device.type, enabled=False):
            predictions, mask_features = self.decode(feature_maps)
            outputs = []
            for queries, mask_embeddings in predictions if output_auxiliary else predictions[-1:]:
                masks_logits = torch.einsum("bqc,bchw->bqhw", mask_embeddings, mask_features)
                class_logits = None
                if vocabulary is not None:
                    class_logits = self.class_head(queries, masks_logits, mask_features, vocabulary, void_embeds)
                outputs.append(
                    MaskGeneratorOutput(masks_queries_logits=masks_logits, in_vocabulary_logits=class_logits)
                )
        output = outputs[-1]
        if output_auxiliary:
            output.auxiliary_outputs = tuple(outputs[:-1])
        return output


AutoModel.register(FcClipMaskGeneratorConfig, FcClipMaskGenerator, exist_ok=True)


__all__ = ["FcClipMaskGenerator"]
