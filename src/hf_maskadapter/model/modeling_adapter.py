"""The Mask-Adapter alone (CVPR 2025, arXiv 2412.04533): CLIP features and masks in, mask embeddings out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_maskadapter import AdapterImplementation, MaskAdapterConfig
from .mask_embedding import pool_with_maps, resize_masks
from .modeling_adapter_maps import MapReduction, dense_activation_maps, is_here, sparse_activation_maps
from .modeling_clip_convnext import ChannelLayerNorm, ConvNextBlock

ADAPTER_NORM_EPS = 1e-6
FINAL_NORM_EPS = 1e-5
MASK_ENCODER_STRIDE = 4
MASKS_RESIZED_AT_A_TIME = 16
SPARSE_FROM_MASKS = 4


@dataclass
class MaskAdapterOutput(ModelOutput):
    """Output of [`MaskAdapterModel`].

    Args:
        semantic_activation_maps (`torch.FloatTensor`, *optional*):
            Unless left out on request: activation maps on the grid of the CLIP features, before the sigmoid, of shape
            `(batch_size, num_masks, num_output_maps, height, width)`.
        pooled_features (`torch.FloatTensor`, *optional*):
            Dense features pooled with each map, if dense features were given and maps were not left out, of shape
            `(batch_size, num_masks, num_output_maps, feature_dim)`.
        mask_embeddings (`torch.FloatTensor` of shape `(batch_size, num_masks, projection_dim)`, *optional*):
            Mean of the projected pooled features, if a projection was given too.
    """

    semantic_activation_maps: torch.FloatTensor | None = None
    pooled_features: torch.FloatTensor | None = None
    mask_embeddings: torch.FloatTensor | None = None


def _resize_binary_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """`resize_masks` of masks of any type, some at a time, in fp32."""
    resized = torch.empty(*masks.shape[:2], *size, device=masks.device)
    for start in range(0, masks.shape[1], MASKS_RESIZED_AT_A_TIME):
        chunk = slice(start, start + MASKS_RESIZED_AT_A_TIME)
        resized[:, chunk] = resize_masks(masks[:, chunk].float(), size)
    return resized


class MaskEncoder(nn.Module):
    """Binary masks at four times the feature grid's resolution to codes of the CLIP embedding's dimension."""

    def __init__(self, config: MaskAdapterConfig):
        super().__init__()
        widths = [1, config.mask_channels // 4, config.mask_channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1) for fan_in, fan_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(ChannelLayerNorm(width, eps=ADAPTER_NORM_EPS) for width in widths[1:])
        self.activation = nn.GELU()
        self.projection = nn.Conv2d(config.mask_channels, config.embed_dim, 1)

    def encode(self, masks: Tensor) -> Tensor:
        """`(num_masks, 1, 4 * height, 4 * width)` to `(num_masks, mask_channels, height, width)`."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            masks = self.activation(norm(conv(masks)))
        return masks

    def forward(self, masks: Tensor) -> Tensor:
        """`(num_masks, 1, 4 * height, 4 * width)` to `(num_masks, embed_dim, height, width)`."""
        return self.projection(self.encode(masks))


class MaskAdapterPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading common to the adapter and the complete segmenter."""

    config: MaskAdapterConfig
    config_class = MaskAdapterConfig
    base_model_prefix = "adapter"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ConvNextBlock", "MaskEncoder"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConvNextBlock) and module.layer_scale is not None:
            init.constant_(module.layer_scale, module.layer_scale_init_value)


class MaskAdapterModel(MaskAdapterPreTrainedModel):
    """The Mask-Adapter alone (arXiv 2412.04533): in front of anybody's CLIP features and masks.

    Loads from an adapter's own checkpoint and from a complete segmenter's.
    """

    main_input_name = "projected_features"
    _keys_to_ignore_on_load_unexpected = [r"^clip\.", r"^mask_generator\.", r"^text_transfer\.", r"^void_embedding$"]  # noqa: RUF012

    def __init__(self, config: MaskAdapterConfig):
        super().__init__(config)
        self.mask_encoder = MaskEncoder(config)
        self.fuse = nn.Conv2d(config.embed_dim, config.hidden_size, 1)
        self.blocks = nn.ModuleList(
            ConvNextBlock(
                config.hidden_size,
                norm_eps=ADAPTER_NORM_EPS,
                layer_scale_init_value=config.layer_scale_init_value,
            )
            for _ in range(config.num_blocks)
        )
        self.norm = ChannelLayerNorm(config.hidden_size, eps=FINAL_NORM_EPS)
        self.final = nn.Conv2d(config.hidden_size, config.num_output_maps, 1)
        self.post_init()

    def get_activation_maps(
        self, projected_features: Tensor, masks: Tensor, adapter_implementation: AdapterImplementation | None = None
    ) -> Tensor:
        """Semantic activation maps of masks.

        Args:
            projected_features: projected dense CLIP features, `(batch_size, embed_dim, height, width)`.
            masks: binary masks of any resolution, `(batch_size, num_masks, mask_height, mask_width)`.
            adapter_implementation: `"auto"`, `"dense"` or `"sparse"` instead of the configuration's.

        Returns:
            `(batch_size, num_masks, num_output_maps, height, width)`.

        Raises:
            ValueError: for an unknown implementation.
        """
        return self._reduce_activation_maps(projected_features, masks, lambda maps, _: maps, adapter_implementation)

    def _reduce_activation_maps(
        self,
        projected_features: Tensor,
        masks: Tensor,
        reduce: MapReduction,
        adapter_implementation: AdapterImplementation | None,
    ) -> Tensor:
        """What `reduce` makes of the activation maps of some masks at a time, of all masks."""
        implementation = adapter_implementation or self.config.adapter_implementation
        if implementation not in ("auto", "dense", "sparse"):
            raise ValueError(f'adapter_implementation must be "auto", "dense" or "sparse", got {implementation!r}.')
        size = tuple(MASK_ENCODER_STRIDE * side for side in projected_features.shape[-2:])
        masks = _resize_binary_masks(masks, size)
        if implementation == "auto":
            implementation = "sparse" if self._is_better_sparse(masks) else "dense"
        if implementation == "sparse":
            return sparse_activation_maps(self, projected_features, masks, reduce)
        return dense_activation_maps(self, projected_features, masks, reduce)

    def _is_better_sparse(self, masks: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or masks.shape[1] < SPARSE_FROM_MASKS:
            return False
        if torch.is_grad_enabled() and masks.requires_grad:
            return False
        return all(is_here(parameter) for parameter in self.parameters())

    @can_return_tuple
    def forward(
        self,
        projected_features: Tensor,
        masks: Tensor,
        dense_features: Tensor | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
        output_semantic_activation_maps: bool = True,
        adapter_implementation: AdapterImplementation | None = None,
    ) -> MaskAdapterOutput:
        """Activation maps of masks, and mask embeddings where dense features and a projection are given.

        Args:
            projected_features: CLIP's dense features in the space shared with texts,
                `(batch_size, embed_dim, height, width)`.
            masks: binary masks of any resolution that cover the same picture,
                `(batch_size, num_masks, mask_height, mask_width)`.
            dense_features: CLIP's dense features before the projection, `(batch_size, feature_dim, height, width)`,
                which are pooled with the activation maps.
            project: CLIP's projection, `(..., feature_dim)` to `(..., projection_dim)`.
            output_semantic_activation_maps: `False` returns mask embeddings alone, in memory that does not grow with
                the number of masks times the size of the grid. It needs `dense_features` and `project`.
            adapter_implementation: `"auto"`, `"dense"` or `"sparse"` instead of the configuration's.

        Raises:
            ValueError: if the shapes do not fit together, or what the result needs is missing.
        """
        if projected_features.ndim != 4 or projected_features.shape[1] != self.config.embed_dim:
            raise ValueError(
                f"projected_features must have shape (batch_size, {self.config.embed_dim}, height, width), got "
                f"{tuple(projected_features.shape)}."
            )
        if masks.ndim != 4 or masks.shape[0] != projected_features.shape[0]:
            raise ValueError(
                "masks must have shape (batch_size, num_masks, height, width) with the features' batch size "
                f"({projected_features.shape[0]}), got {tuple(masks.shape)}."
            )
        if not output_semantic_activation_maps:
            if dense_features is None or project is None:
                raise ValueError("Mask embeddings without activation maps need dense_features and project.")
            embeddings = self._reduce_activation_maps(
                projected_features,
                masks,
                lambda maps, pictures: project(pool_with_maps(dense_features[pictures], maps)).mean(dim=2),
                adapter_implementation,
            )
            return MaskAdapterOutput(mask_embeddings=embeddings)
        maps = self.get_activation_maps(projected_features, masks, adapter_implementation)
        output = MaskAdapterOutput(semantic_activation_maps=maps)
        if dense_features is not None:
            output.pooled_features = pool_with_maps(dense_features, maps)
            if project is not None:
                output.mask_embeddings = project(output.pooled_features).mean(dim=2)
        return output


AutoModel.register(MaskAdapterConfig, MaskAdapterModel, exist_ok=True)


__all__ = ["MaskAdapterModel", "MaskAdapterOutput"]
