"""What a segmenter asks of any CLIP: feature maps, dense features in the space of texts, texts, whole pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_clips import DenseClipConfig
from .prompt_trees import PromptTreeEncoder

MAX_LOGIT_SCALE = 100.0


def clamped_logit_scale(logit_scale: Tensor) -> Tensor:
    """exp(`logit_scale`), at most 100, as CLIP and FC-CLIP use it."""
    return logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)


@dataclass
class DenseClipOutput(ModelOutput):
    """Output of a [`DenseClipModel`]. What was not asked for is `None`.

    Args:
        feature_maps (`tuple` of `torch.FloatTensor` of shape `(batch_size, channels, height, width)`):
            Feature maps, fine to coarse; no extra norm.
        dense_features (`torch.FloatTensor` of shape `(batch_size, feature_dim, height, width)`):
            The last feature map.
        image_embeds (`torch.FloatTensor` of shape `(batch_size, projection_dim)`):
            Embeddings of the whole pictures, not normalised.
        text_embeds (`torch.FloatTensor` of shape `(num_texts, projection_dim)`):
            Text embeddings, not normalised.
    """

    feature_maps: tuple[torch.FloatTensor, ...] | None = None
    dense_features: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None


class DenseClipModel(PreTrainedModel, ABC):
    """Any CLIP as mask-based segmentation uses it.

    Dense features are the last feature map. They may be averaged over positions, with any weights, before
    [`~DenseClipModel.project`] takes them to the space shared with texts.
    """

    config: DenseClipConfig
    base_model_prefix = "clip"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @abstractmethod
    def get_feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, fine to coarse; the last one holds the dense features.

        Args:
            pixel_values: normalised picture, `(batch_size, num_channels, height, width)`.

        Returns:
            One `(batch_size, channels, height / stride, width / stride)` tensor for each of `config.feature_strides`.

        Raises:
            ValueError: if height or width is not a multiple of `config.size_divisor`.
        """

    @abstractmethod
    def encode_images(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Feature maps as of [`~DenseClipModel.get_feature_maps`], and embeddings of the whole pictures.

        Args:
            pixel_values: normalised picture, `(batch_size, num_channels, height, width)`.

        Returns:
            The feature maps; and `(batch_size, projection_dim)`, not normalised.

        Raises:
            ValueError: if height or width is not a multiple of `config.size_divisor`.
        """

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Dense features, `(..., feature_dim)`, to the space shared with texts, `(..., projection_dim)`."""

    @abstractmethod
    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embedding of texts, `(num_texts, projection_dim)`, not normalised.

        Args:
            input_ids: token ids from [`tokenize_prompts`], `(num_texts, length)`.
            attention_mask: accepted for Transformers' calling convention.
        """

    @property
    def tree_encoder(self) -> PromptTreeEncoder | None:
        """Encodes many prompts that begin alike with less work; `None` for a text tower that is not causal."""
        return None

    @abstractmethod
    def text_weights(self) -> dict[str, Tensor]:
        """All weights that [`~DenseClipModel.get_text_features`] depends on, by name."""

    @abstractmethod
    def get_logit_scale(self) -> Tensor:
        """Factor between cosines and logits, a scalar."""

    @property
    @abstractmethod
    def projection_weight(self) -> Tensor:
        """Weight of the projection's last layer, by which a CLIP is recognised."""

    def project_dense(self, dense_features: Tensor) -> Tensor:
        """Project every position: `(batch_size, feature_dim, height, width)` to `(batch_size, projection_dim, ...)`."""
        return self.project(dense_features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Embedding of whole pictures, `(batch_size, projection_dim)`, not normalised."""
        return self.encode_images(pixel_values)[1]

    def require_whole_patches(self, pixel_values: Tensor) -> None:
        """Check that the picture's sides are multiples of `config.size_divisor`.

        Raises:
            ValueError: if not, with the size to pad it to.
        """
        height, width = pixel_values.shape[-2:]
        divisor = self.config.size_divisor
        if height % divisor or width % divisor:
            padded = tuple(-(-side // divisor) * divisor for side in (height, width))
            raise ValueError(
                f"Picture height and width must be multiples of {divisor}, got {height}x{width}: pad it to "
                f"{padded[0]}x{padded[1]} at the bottom and right (MaskAdapterImageProcessor does)."
            )

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> DenseClipOutput:
        """Embeddings and feature maps of pictures, embeddings of texts, or both.

        Args:
            pixel_values: normalised pictures, `(batch_size, num_channels, height, width)`.
            input_ids: token ids, `(num_texts, length)`.
            attention_mask: see [`~DenseClipModel.get_text_features`].

        Raises:
            ValueError: if neither pictures nor texts are given.
        """
        if pixel_values is None and input_ids is None:
            raise ValueError("Give pixel_values, input_ids, or both.")
        output = DenseClipOutput()
        if pixel_values is not None:
            output.feature_maps, output.image_embeds = self.encode_images(pixel_values)
            output.dense_features = output.feature_maps[-1]
        if input_ids is not None:
            output.text_embeds = self.get_text_features(input_ids, attention_mask)
        return output


class ConvolutionalClipModel(DenseClipModel):
    """A CLIP whose image tower is this package's and gives one feature map a stage; the text tower is Transformers'.

    A subclass builds its image tower, then calls [`~ConvolutionalClipModel.add_text_tower`].
    """

    def add_text_tower(self) -> None:
        """Build the text tower and the logit scale of the configuration."""
        self.text_model = CLIPTextModelWithProjection._from_config(self.config.text_config)
        self.logit_scale = nn.Parameter(torch.tensor(self.config.logit_scale_init_value))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConvolutionalClipModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)

    @abstractmethod
    def pool(self, dense_features: Tensor) -> Tensor:
        """Embedding of whole pictures, `(batch_size, projection_dim)`, from their dense features."""

    def get_feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Raw output of each stage; see [`DenseClipModel.get_feature_maps`]."""
        self.require_whole_patches(pixel_values)
        return self.vision_model(pixel_values.to(self.projection_weight.dtype))

    def encode_images(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """See [`DenseClipModel.encode_images`]."""
        feature_maps = self.get_feature_maps(pixel_values)
        return feature_maps, self.pool(feature_maps[-1])

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embedding of texts, `(num_texts, projection_dim)`, not normalised.

        Args:
            input_ids: token ids, `(num_texts, length)`; what follows the end token is not read.
            attention_mask: accepted for Transformers' calling convention; not needed under the causal mask.
        """
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).text_embeds

    @property
    def tree_encoder(self) -> PromptTreeEncoder:
        """See [`DenseClipModel.tree_encoder`]."""
        return PromptTreeEncoder(self.text_model.text_model, self.text_model.text_projection)

    def text_weights(self) -> dict[str, Tensor]:
        """See [`DenseClipModel.text_weights`]."""
        return self.text_model.state_dict()

    def get_logit_scale(self) -> Tensor:
        """Factor between cosines and logits: exp of the learned parameter, at most 100."""
        return clamped_logit_scale(self.logit_scale)


__all__ = ["ConvolutionalClipModel", "DenseClipModel", "DenseClipOutput", "clamped_logit_scale"]
