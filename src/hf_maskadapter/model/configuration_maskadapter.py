"""Configuration of the Mask-Adapter, and of the segmenter around it."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_clips import CLIP_CONFIGS, WRAPPERS, DenseClipConfig, require, wrap_clip_config
from .configuration_mask_generators import FCCLIP_NUM_LEVELS, FcClipMaskGeneratorConfig

MaskEmbedding = Literal["adapter", "pooling", "crop"]
MaskPooling = Literal["hard", "area", "any"]
AdapterImplementation = Literal["auto", "dense", "sparse"]


@strict
class MaskAdapterConfig(PreTrainedConfig):
    r"""Configuration of [`MaskAdapterModel`] and [`MaskAdapterForOpenVocabularySegmentation`].

    The defaults are those of Mask-Adapter on FC-CLIP-L (CVPR 2025, arXiv 2412.04533).

    Args:
        clip_config (`DenseClipConfig` or `dict`, *optional*):
            The CLIP, chosen by its `model_type`: `ConvNextClipConfig`, `ResNetClipConfig`, `VitClipConfig` or
            `SiglipClipConfig`; those of Transformers' own CLIPs are wrapped. `None` only for the adapter alone.
        mask_generator_config (`PreTrainedConfig` or `dict`, *optional*):
            The mask generator, chosen by its `model_type`. `None` if masks always come from the caller.
        embed_dim (`int`, *optional*):
            Channels of the projected dense features that the adapter reads; by default `clip_config.projection_dim`, or
            768 without one.
        use_adapter (`bool`, defaults to `True`):
            `False` for a plain mask-pooling model such as FC-CLIP, which has no adapter weights.
        mask_channels (`int`, defaults to 16):
            Channels of the mask encoder's code; a multiple of 4.
        hidden_size (`int`, defaults to 768):
            Channels of the ConvNeXt blocks.
        num_blocks (`int`, defaults to 3):
            Number of ConvNeXt blocks.
        num_output_maps (`int`, defaults to 16):
            Semantic activation maps for each mask, the paper's K.
        layer_scale_init_value (`float`, defaults to 1e-6):
            Initial layer scale of the blocks. Short trainings do better with 0.1.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the initial weights.
        mask_embedding (`"adapter"`, `"pooling"` or `"crop"`):
            How a mask becomes an embedding: by semantic activation maps, by pooling CLIP features inside the mask
            (FC-CLIP), or by putting masked crops of the picture through CLIP. By default `"adapter"` if there is one,
            else `"pooling"`.
        mask_pooling (`"hard"`, `"area"` or `"any"`, defaults to `"hard"`):
            Form of `"pooling"`: mask resized bilinearly, then binarised (the reference's); weighted by the covered area
            of each cell; every cell that the mask touches.
        mask_threshold (`float`, defaults to 0.5):
            Probability strictly above which a pixel belongs to the mask that the adapter sees.
        crop_margin (`float`, defaults to 0.1):
            Margin around a mask's box for `"crop"`, as a fraction of the box's height and width on each side.
        training_vocabulary (`list[list[str]]`, *optional*):
            Synonyms of each class seen in training. A class is *seen* if one of its names equals one of these.
        ensemble_alpha, ensemble_beta (`float`, default to 0.7 and 0.9):
            Weight of the out-of-vocabulary (CLIP) branch in the geometric ensemble, for seen and for unseen classes.
        ensemble_on_valid_masks (`bool`, defaults to `False`):
            Use the ensemble only for masks that cover at least one cell of the CLIP features (FC-CLIP's option).
        background_threshold (`float`, defaults to 0.0):
            Class probability below which a generated mask is background (void), if the generator itself does not tell:
            such a mask has no say in semantic results, and is no panoptic or instance segment. The probability is the
            highest of the softmax over the vocabulary, so it depends on the vocabulary's size and is 1 with one class.
            It applies neither to the caller's masks nor to generators with class logits or void scores of their own.
        text_transfer (`bool`, defaults to `False`):
            Adapt the text embeddings to each picture before they meet the mask embeddings (MAFT+'s content-dependent
            transfer, arXiv 2408.00744).
        text_transfer_heads (`int`, defaults to 8):
            Its attention heads.
        text_transfer_panoptic (`bool`, defaults to `False`):
            Its formula for panoptic models: text + norm(linear(attention)) instead of norm(text + linear(attention)).
        mix_projected_positions (`bool`, defaults to `False`):
            Project dense features as MAFT+ does, where a reshape without a permutation mixes positions and channels of
            what the adapter and the text transfer see. A slip, but released MAFT+ adapters were trained on it.
        adapter_implementation (`"auto"`, `"dense"` or `"sparse"`, defaults to `"auto"`):
            How activation maps are computed; results differ by rounding only. `"dense"`: every position of every mask.
            `"sparse"`: only where a mask reaches, several times faster in a fraction of the memory. `"auto"`: sparse,
            and dense for very few masks, where masks need gradients, where weights are sharded or offloaded, and when
            compiled or exported.
        warmup_scoring (`bool`, defaults to `False`):
            Score the caller's masks as the published warm-up model does: `class_queries_logits` then holds
            *probabilities* over classes and void. Only needed to reproduce that model's numbers.
        object_threshold, overlap_threshold (`float`, default to 0.0 and 0.8), instance_top_k (`int`, defaults to 100):
            Published settings of panoptic and instance post-processing, its functions' defaults for this model.
    """

    model_type = "maskadapter"
    sub_configs_defaults = {  # noqa: RUF012
        "clip_config": SubConfigSpec(config_class=AutoConfig, model_type="convnext_clip", optional=True),
        "mask_generator_config": SubConfigSpec(
            config_class=AutoConfig, model_type="fcclip_mask_generator", optional=True
        ),
    }

    clip_config: dict | PreTrainedConfig | None = None
    mask_generator_config: dict | PreTrainedConfig | None = None
    embed_dim: int | None = None
    use_adapter: bool = True
    mask_channels: int = 16
    hidden_size: int = 768
    num_blocks: int = 3
    num_output_maps: int = 16
    layer_scale_init_value: float = 1e-6
    initializer_range: float = 0.02
    mask_embedding: MaskEmbedding | None = None
    mask_pooling: MaskPooling = "hard"
    mask_threshold: float = 0.5
    crop_margin: float = 0.1
    training_vocabulary: list[list[str]] | None = None
    ensemble_alpha: float = 0.7
    ensemble_beta: float = 0.9
    ensemble_on_valid_masks: bool = False
    background_threshold: float = 0.0
    text_transfer: bool = False
    text_transfer_heads: int = 8
    text_transfer_panoptic: bool = False
    mix_projected_positions: bool = False
    adapter_implementation: AdapterImplementation = "auto"
    warmup_scoring: bool = False
    object_threshold: float = 0.0
    overlap_threshold: float = 0.8
    instance_top_k: int = 100

    def __post_init__(self, **kwargs):
        if not __name__.startswith("transformers_modules."):
            # An installed package serves a repository that brings its code along, too, without being told to trust it;
            # and a model that is saved again does not name code that is not saved.
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
        super().__post_init__(**kwargs)
        if self.clip_config is not None:
            self.clip_config = wrap_clip_config(self.clip_config)
            known = [config.__name__ for config in CLIP_CONFIGS]
            known += [f"Transformers' {name}" for config in WRAPPERS for name in config.wrapped_model_types]
            require(
                isinstance(self.clip_config, DenseClipConfig),
                f"clip_config must be of a CLIP with dense features, got {type(self.clip_config).__name__}: choose "
                f"one of {', '.join(known)}.",
            )
        if self.embed_dim is None:
            self.embed_dim = self.clip_config.projection_dim if self.clip_config is not None else 768
        if self.mask_embedding is None:
            self.mask_embedding = "adapter" if self.use_adapter else "pooling"

    def validate_architecture(self) -> None:
        """Check that the fields and the parts' configurations fit together.

        Raises:
            ValueError: if they do not, with the fields' names and values.
        """
        require(self.mask_channels % 4 == 0, f"mask_channels must be a multiple of 4, got {self.mask_channels}.")
        require(
            self.use_adapter or self.mask_embedding != "adapter",
            "mask_embedding='adapter' needs use_adapter=True.",
        )
        require(
            not self.text_transfer or (self.embed_dim or 0) % self.text_transfer_heads == 0,
            f"embed_dim ({self.embed_dim}) must be a multiple of text_transfer_heads ({self.text_transfer_heads}).",
        )
        require(
            0 <= self.background_threshold <= 1,
            f"background_threshold is a probability, between 0 and 1, got {self.background_threshold}.",
        )
        clip, generator = self.clip_config, self.mask_generator_config
        if clip is not None:
            require(
                self.embed_dim == clip.projection_dim,
                f"embed_dim ({self.embed_dim}) must equal clip_config.projection_dim ({clip.projection_dim}).",
            )
        if isinstance(generator, FcClipMaskGeneratorConfig) and clip is not None:
            require(
                len(clip.feature_strides) >= FCCLIP_NUM_LEVELS,
                f"FcClipMaskGenerator reads at least {FCCLIP_NUM_LEVELS} feature maps of the CLIP, but "
                f"{clip.model_type} gives {len(clip.feature_strides)} (stride {clip.feature_strides}): choose a mask "
                "generator that has a backbone of its own, or none (mask_generator_config=None) and give masks.",
            )
            for field in ("feature_channels", "feature_strides"):
                of_generator, of_clip = list(getattr(generator, field)), list(getattr(clip, field))
                require(
                    of_generator == of_clip,
                    f"mask_generator_config.{field} ({of_generator}) must equal the CLIP's ({of_clip}).",
                )
            require(
                generator.text_embed_dim == clip.projection_dim,
                f"mask_generator_config.text_embed_dim ({generator.text_embed_dim}) must equal "
                f"clip_config.projection_dim ({clip.projection_dim}).",
            )


AutoConfig.register(MaskAdapterConfig.model_type, MaskAdapterConfig, exist_ok=True)


__all__ = ["MaskAdapterConfig"]
