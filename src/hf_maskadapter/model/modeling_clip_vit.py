"""Transformers' own CLIPs with a vision transformer, wrapped to give dense features in the space of texts.

They have one feature map, their patches, of stride 14 to 32. Position embeddings are interpolated to pictures of any
size, bicubically (bilinearly for NaFlex), as Transformers does.
"""

from __future__ import annotations

import copy
import os
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoModel, CLIPTextModel, PreTrainedModel

from .configuration_clips import SiglipClipConfig, VitClipConfig, wrap_clip_config
from .modeling_clip import DenseClipModel, clamped_logit_scale
from .prompt_trees import PromptTreeEncoder


class _WrappedClipModel(DenseClipModel):
    """A CLIP of Transformers under this package's interface; `model` is the wrapped one."""

    def __init__(self, config: VitClipConfig | SiglipClipConfig):
        super().__init__(config)
        self.model = AutoModel.from_config(config.wrapped_config)
        self.post_init()

    @classmethod
    def wrap(cls, model: PreTrainedModel, **fields: Any) -> Self:
        """Wrap a model, such as a `CLIPModel`; it is not copied.

        Args:
            model: the model.
            **fields: further fields of the configuration.

        Raises:
            ValueError: if this class does not wrap such models.
        """
        config = cls.config_class(wrapped_config=copy.deepcopy(model.config), **fields)  # a new one resets its parts
        with torch.device("meta"):
            wrapper = cls(config)
        wrapper.model, config.wrapped_config = model, model.config
        return wrapper.train(model.training)

    @classmethod
    def from_clip_pretrained(cls, name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Load a published CLIP, as it is on the Hub, and wrap it.

        Args:
            name_or_path: folder or Hub repository of the model.
            **kwargs: arguments of its `from_pretrained`.

        Raises:
            ValueError: if this class does not wrap such models.
        """
        return cls.wrap(AutoModel.from_pretrained(name_or_path, **kwargs))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embedding of texts, `(num_texts, projection_dim)`, not normalised.

        Args:
            input_ids: token ids from [`tokenize_prompts`], `(num_texts, length)`.
            attention_mask: accepted for Transformers' calling convention. CLIP's causal mask makes it needless, and
                SigLIP was trained without.
        """
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    def text_weights(self) -> dict[str, Tensor]:
        """See [`DenseClipModel.text_weights`]."""
        return {name: tensor for name, tensor in self.model.state_dict().items() if name.startswith("text_")}

    def _as_map(self, tokens: Tensor, pixel_values: Tensor) -> Tensor:
        """`(batch_size, num_patches, channels)` to `(batch_size, channels, height, width)`."""
        stride = self.config.feature_strides[-1]
        height, width = (side // stride for side in pixel_values.shape[-2:])
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class VitClipModel(_WrappedClipModel):
    """Transformers' `CLIPModel` or `MetaClip2Model`; its interface is [`DenseClipModel`]'s.

    Dense features are the patches of the last layer, in which with `config.value_features` each patch attends to itself
    alone: its value goes through the output projection, residual and MLP (MaskCLIP, arXiv 2112.01071, in the form of
    its published code). They are projected by the norm and projection of the class token, which embeds whole pictures.

    ```python
    clip = VitClipModel.from_clip_pretrained("openai/clip-vit-base-patch16")
    ```
    """

    config: VitClipConfig
    config_class = VitClipConfig

    @property
    def projection_weight(self) -> Tensor:
        """Weight of the projection's last layer, by which a CLIP is recognised."""
        return self.model.visual_projection.weight

    def get_logit_scale(self) -> Tensor:
        """Factor between cosines and logits: exp of the learned parameter, at most 100."""
        return clamped_logit_scale(self.model.logit_scale)

    @property
    def tree_encoder(self) -> PromptTreeEncoder | None:
        """See [`DenseClipModel.tree_encoder`]; MetaCLIP 2's is left out."""
        text_model = self.model.text_model
        if not isinstance(text_model, CLIPTextModel):
            return None
        return PromptTreeEncoder(text_model, self.model.text_projection)

    def project(self, features: Tensor) -> Tensor:
        """Dense features, `(..., feature_dim)`, to the space shared with texts, `(..., projection_dim)`."""
        return self.model.visual_projection(self.model.vision_model.post_layernorm(features))

    def get_feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The patches, one map; see [`DenseClipModel.get_feature_maps`]."""
        hidden = self._before_last_layer(pixel_values)
        last_layer = self.model.vision_model.encoder.layers[-1]
        tokens = self._own_values(hidden) if self.config.value_features else last_layer(hidden, None)
        return (self._as_map(tokens[:, 1:], pixel_values),)

    def encode_images(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """See [`DenseClipModel.encode_images`]."""
        hidden = self._before_last_layer(pixel_values)
        output = self.model.vision_model.encoder.layers[-1](hidden, None)
        tokens = self._own_values(hidden) if self.config.value_features else output
        return (self._as_map(tokens[:, 1:], pixel_values),), self.project(output[:, 0])

    def _before_last_layer(self, pixel_values: Tensor) -> Tensor:
        self.require_whole_patches(pixel_values)
        vision = self.model.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(pixel_values, interpolate_pos_encoding=True))
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        return hidden

    def _own_values(self, hidden: Tensor) -> Tensor:
        """The last layer with every token attending to itself alone."""
        layer = self.model.vision_model.encoder.layers[-1]
        attention = layer.self_attn
        hidden = hidden + attention.out_proj(attention.v_proj(layer.layer_norm1(hidden)))
        return hidden + layer.mlp(layer.layer_norm2(hidden))


class SiglipClipModel(_WrappedClipModel):
    """Transformers' `SiglipModel` or `Siglip2Model` (NaFlex); its interface is [`DenseClipModel`]'s.

    SigLIP (arXiv 2303.15343) embeds a picture by a pooling head in which a learned probe attends to all patches. Dense
    features are those patches, behind the last norm. They are projected by the head with attention to one position
    alone: its value and output projections, then the head's norm and MLP with its residual. That is MaskCLIP's
    construction (arXiv 2112.01071) for SigLIP's head. As attention is linear in its values, a mask's pooled features
    give exactly what the head would give if all its attention heads had the mask's weights.

    SigLIP compares by sigmoids, with a bias beside the scale. The bias is the same for every text and so has no part in
    a softmax over classes: logits are cosines × scale. The scale is not clamped.

    ```python
    clip = SiglipClipModel.from_clip_pretrained("google/siglip2-base-patch16-512")
    ```
    """

    config: SiglipClipConfig
    config_class = SiglipClipConfig

    @property
    def projection_weight(self) -> Tensor:
        """Weight of the projection's last layer, by which a CLIP is recognised."""
        return self.model.vision_model.head.mlp.fc2.weight

    def get_logit_scale(self) -> Tensor:
        """Factor between cosines and logits: exp of the learned parameter."""
        return self.model.logit_scale.exp().squeeze()

    def project(self, features: Tensor) -> Tensor:
        """Dense features, `(..., feature_dim)`, to the space shared with texts, `(..., projection_dim)`."""
        head = self.model.vision_model.head
        attention, width = head.attention, self.config.feature_dim
        values = torch.nn.functional.linear(
            features, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        )
        hidden = attention.out_proj(values)
        return hidden + head.mlp(head.layernorm(hidden))

    def get_feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The patches, one map; see [`DenseClipModel.get_feature_maps`]."""
        return self.encode_images(pixel_values)[0]

    def encode_images(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """See [`DenseClipModel.encode_images`]."""
        self.require_whole_patches(pixel_values)
        if self.config.wrapped_config.model_type == "siglip2":
            output = self.model.vision_model(*self._patches(pixel_values))
        else:
            output = self.model.vision_model(pixel_values, interpolate_pos_encoding=True)
        return (self._as_map(output.last_hidden_state, pixel_values),), output.pooler_output

    def _patches(self, pixel_values: Tensor) -> tuple[Tensor, None, Tensor]:
        """NaFlex's inputs: pixels of each patch (row, column, channel), no mask, rows and columns of patches."""
        side = self.config.feature_strides[-1]
        grids = pixel_values.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        patches = grids.permute(0, 2, 4, 3, 5, 1)
        grid_size = torch.tensor(patches.shape[1:3], device=pixel_values.device)
        return patches.flatten(3).flatten(1, 2), None, grid_size.expand(len(patches), 2)


def load_clip(name_or_path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """Load a CLIP from a folder or the Hub: one of this package's, or one of Transformers' own, which is wrapped.

    Args:
        name_or_path: folder or Hub repository of the model.
        **kwargs: arguments of `from_pretrained`.
    """
    return as_dense_clip(AutoModel.from_pretrained(name_or_path, **kwargs))


def as_dense_clip(model: PreTrainedModel) -> PreTrainedModel:
    """A CLIP under this package's interface: as it is if it has it, else wrapped.

    Args:
        model: a [`DenseClipModel`], or one of Transformers' models that [`VitClipModel`] and [`SiglipClipModel`] wrap.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(model, DenseClipModel):
        return model
    config = wrap_clip_config(model.config)
    for wrapper in (VitClipModel, SiglipClipModel):
        if isinstance(config, wrapper.config_class):
            return wrapper.wrap(model)
    raise TypeError(
        f"{type(model).__name__} cannot be a segmenter's CLIP: give a DenseClipModel, or one of Transformers' "
        f"{', '.join(VitClipConfig.wrapped_model_types + SiglipClipConfig.wrapped_model_types)} models."
    )


AutoModel.register(VitClipConfig, VitClipModel, exist_ok=True)
AutoModel.register(SiglipClipConfig, SiglipClipModel, exist_ok=True)


__all__ = ["SiglipClipModel", "VitClipModel", "as_dense_clip", "load_clip"]
