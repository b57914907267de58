"""Configurations of the mask generators: FC-CLIP's, and Transformers' segmenters and Segment Anything, wrapped."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_clips import require

#: Pixel statistics of most vision models but CLIPs on the 0–255 scale: ImageNet's.
IMAGENET_PIXEL_MEAN = (123.675, 116.28, 103.53)
IMAGENET_PIXEL_STD = (58.395, 57.12, 57.375)
#: Feature maps of the CLIP that FC-CLIP's pixel decoder attends over.
FCCLIP_NUM_LEVELS = 3


@strict
class FcClipMaskGeneratorConfig(PreTrainedConfig):
    r"""Configuration of [`FcClipMaskGenerator`]: Mask2Former on CLIP features with FC-CLIP's class branch.

    The fields that Transformers' Mask2Former modules read keep Mask2Former's names. The defaults are FC-CLIP-L's.

    Args:
        feature_channels (`list[int]`):
            Channels of the CLIP's feature maps, fine to coarse, at least three.
        feature_strides (`list[int]`):
            Their strides in pixels.
        text_embed_dim (`int`, defaults to 768):
            Dimension of the text embeddings that the class branch is compared with.
        feature_size, mask_feature_size, hidden_dim (`int`, default to 256):
            Widths of the pixel decoder, of the mask features and of the transformer decoder. The first must be a
            multiple of 32 (group norm with 32 groups); the class branch pools mask features and adds the result to
            the decoder's output.
        encoder_feedforward_dim (`int`, defaults to 1024), dim_feedforward (`int`, defaults to 2048):
            Widths of the feed-forward layers of the pixel decoder and of the transformer decoder.
        encoder_layers (`int`, defaults to 6):
            Deformable attention layers of the pixel decoder.
        decoder_layers (`int`, defaults to 10):
            Number of *predictions* of the transformer decoder: the initial one and one after each layer.
        num_attention_heads (`int`, defaults to 8):
            Attention heads in both.
        num_queries (`int`, defaults to 250):
            Number of masks.
        common_stride (`int`, defaults to 4):
            Stride in pixels of the mask logits.
        logit_scale_init_value (`float`, defaults to 2.6592):
            Initial value of the logarithm of the class branch's own logit scale.
    """

    model_type = "fcclip_mask_generator"
    base_config_key = "mask_generator_config"
    attribute_map = {"hidden_size": "hidden_dim", "num_hidden_layers": "decoder_layers"}  # noqa: RUF012

    feature_channels: list[int] | tuple[int, ...] = (192, 384, 768, 1536)
    feature_strides: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    text_embed_dim: int = 768
    feature_size: int = 256
    mask_feature_size: int = 256
    hidden_dim: int = 256
    encoder_feedforward_dim: int = 1024
    activation_function: str = "relu"
    encoder_layers: int = 6
    decoder_layers: int = 10
    num_attention_heads: int = 8
    dropout: float | int = 0.0
    dim_feedforward: int = 2048
    pre_norm: bool = False
    enforce_input_projection: bool = False
    common_stride: int = 4
    num_queries: int = 250
    init_std: float = 0.02
    init_xavier_std: float = 1.0
    logit_scale_init_value: float = 2.6592

    def validate_architecture(self) -> None:
        """Check that the fields fit together.

        Raises:
            ValueError: if they do not, with the fields' names and values.
        """
        require(
            len(self.feature_channels) == len(self.feature_strides),
            f"feature_channels ({len(self.feature_channels)}) and feature_strides ({len(self.feature_strides)}) need "
            "one entry for each feature map.",
        )
        require(
            self.common_stride in self.feature_strides[:-2],
            f"common_stride ({self.common_stride}) must be one of feature_strides ({list(self.feature_strides)}) with "
            "at least two coarser ones: the pixel decoder attends over the three coarsest feature maps.",
        )
        require(self.feature_size % 32 == 0, f"feature_size must be a multiple of 32, got {self.feature_size}.")
        require(
            self.feature_size % self.num_attention_heads == 0 and self.hidden_dim % self.num_attention_heads == 0,
            f"feature_size ({self.feature_size}) and hidden_dim ({self.hidden_dim}) must be multiples of "
            f"num_attention_heads ({self.num_attention_heads}).",
        )
        require(
            self.mask_feature_size == self.hidden_dim,
            f"mask_feature_size ({self.mask_feature_size}) must equal hidden_dim ({self.hidden_dim}): the class branch "
            "adds pooled mask features to the decoder's output.",
        )
        require(self.decoder_layers >= 2, f"decoder_layers counts the initial prediction, got {self.decoder_layers}.")


@strict
class UniversalMaskGeneratorConfig(PreTrainedConfig):
    r"""Configuration of [`UniversalMaskGenerator`]: any of Transformers' universal segmenters, without its labels.

    [`UniversalMaskGenerator.from_segmenter`] fills it in from a segmenter and its image processor.

    Args:
        segmenter_config (`PreTrainedConfig` or `dict`):
            The segmenter's configuration, chosen by its `model_type`; `"mask2former"` by default.
        size (`dict[str, int]`, *optional*):
            What pictures are resized to: `{"shortest_edge": ..., "longest_edge": ...}`, the latter optional, or
            `{"height": ..., "width": ...}`. `None` leaves them at the size that the CLIP sees.
        size_divisor (`int`, defaults to 1):
            Heights and widths are stretched to a multiple of this.
        pad_size (`dict[str, int]`, *optional*):
            Height and width that resized pictures are padded to at the bottom and right.
        pad_black (`bool`, defaults to `False`):
            Whether padding is black (EoMT), or the mean colour.
        image_mean, image_std (`list[float]`):
            Pixel statistics of the segmenter on the 0–255 scale, by default ImageNet's.
        task_input_ids (`list[int]`, *optional*):
            Tokens of the task's text (OneFormer).
        use_void_scores (`bool`, defaults to `True`):
            Whether the segmenter's own probability of "no object" is the probability of void. It was trained on the
            segmenter's labels: it may be high for things that these do not name. If `False`, the model's
            `background_threshold` counts.
        mask_stride (`int`, defaults to 4):
            Stride in pixels of the mask logits.
    """

    model_type = "universal_mask_generator"
    base_config_key = "mask_generator_config"
    sub_configs_defaults = {  # noqa: RUF012
        "segmenter_config": SubConfigSpec(config_class=AutoConfig, model_type="mask2former")
    }

    segmenter_config: dict | PreTrainedConfig | None = None
    size: dict[str, int] | None = None
    size_divisor: int = 1
    pad_size: dict[str, int] | None = None
    pad_black: bool = False
    image_mean: list[float] | tuple[float, ...] = IMAGENET_PIXEL_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_PIXEL_STD
    task_input_ids: list[int] | None = None
    use_void_scores: bool = True
    mask_stride: int = 4

    def validate_architecture(self) -> None:
        """Check that the fields make sense.

        Raises:
            ValueError: if one does not, with its name and value.
        """
        known = ({"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"height", "width"})
        require(
            self.size is None or set(self.size) in known,
            'size must hold "shortest_edge" and perhaps "longest_edge", or "height" and "width", or be None, got '
            f"{self.size}.",
        )
        require(
            self.pad_size is None or set(self.pad_size) == {"height", "width"},
            f'pad_size must hold "height" and "width", or be None, got {self.pad_size}.',
        )
        require(
            self.size_divisor >= 1 and self.mask_stride >= 1,
            f"size_divisor ({self.size_divisor}) and mask_stride ({self.mask_stride}) must be at least 1.",
        )
        require(
            self.task_input_ids is not None or self.segmenter_config.model_type != "oneformer",
            "OneFormer needs task_input_ids: make the generator by UniversalMaskGenerator.from_segmenter with "
            "OneFormer's processor.",
        )


@strict
class SamMaskGeneratorConfig(PreTrainedConfig):
    r"""Configuration of [`SamMaskGenerator`]: everything that Segment Anything finds from a grid of points.

    The settings are those of Segment Anything's automatic mask generation (arXiv 2304.02643, appendix B).

    Args:
        sam_config (`PreTrainedConfig` or `dict`):
            The model's configuration, chosen by its `model_type`; `"sam"` by default.
        image_mean, image_std (`list[float]`):
            Its pixel statistics on the 0–255 scale, by default ImageNet's.
        keep_aspect_ratio (`bool`, defaults to `True`):
            Whether pictures are scaled and padded to SAM's square (SAM), or stretched to it (SAM 2 and 3).
        points_per_side (`int`, defaults to 32):
            Points in each row and column of the grid.
        points_per_batch (`int`, defaults to 64):
            Points at a time. It bounds memory and does not change the result.
        crop_layers (`int`, defaults to 0):
            Further layers of crops, the n-th with 2ⁿ × 2ⁿ crops, which find small things.
        crop_overlap (`float`, defaults to 512 / 1500):
            Overlap of the first layer's crops as a fraction of the picture's shorter side.
        crop_points_downscale (`int`, defaults to 1):
            Factor by which each layer's crops have fewer points a side.
        pred_iou_threshold (`float`, defaults to 0.88):
            SAM's own estimate of a mask's IoU must exceed this.
        stability_threshold (`float`, defaults to 0.95), stability_offset (`float`, defaults to 1.0):
            So must the IoU of the masks at logits of plus and minus the offset.
        box_nms_threshold (`float`, defaults to 0.7):
            Box IoU above which the mask with the lower estimate goes; of different layers, the one of the larger crop.
        mask_nms_threshold (`float`, defaults to 0.9):
            Mask IoU above which the mask with the lower estimate goes: duplicates that fragments had kept apart.
        min_fragment_area (`float`, defaults to 0.0005):
            Islands and holes of masks that are smaller than this fraction of the picture go, and whole masks with them.
        max_masks (`int`, defaults to 256):
            So many masks at most, those with the best estimates.
        mask_stride (`int`, defaults to 4):
            Stride in pixels of the mask logits.
    """

    model_type = "sam_mask_generator"
    base_config_key = "mask_generator_config"
    sub_configs_defaults = {"sam_config": SubConfigSpec(config_class=AutoConfig, model_type="sam")}  # noqa: RUF012

    sam_config: dict | PreTrainedConfig | None = None
    image_mean: list[float] | tuple[float, ...] = IMAGENET_PIXEL_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_PIXEL_STD
    keep_aspect_ratio: bool = True
    points_per_side: int = 32
    points_per_batch: int = 64
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_downscale: int = 1
    pred_iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    box_nms_threshold: float = 0.7
    mask_nms_threshold: float = 0.9
    min_fragment_area: float = 0.0005
    max_masks: int = 256
    mask_stride: int = 4

    def validate_architecture(self) -> None:
        """Check that the settings make sense.

        Raises:
            ValueError: if one does not, with its name and value.
        """
        for name in ("points_per_side", "points_per_batch", "crop_points_downscale", "max_masks", "mask_stride"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}.")
        require(self.crop_layers >= 0, f"crop_layers must not be negative, got {self.crop_layers}.")
        require(0 <= self.crop_overlap < 1, f"crop_overlap must lie in [0, 1), got {self.crop_overlap}.")


for _config_class in (FcClipMaskGeneratorConfig, UniversalMaskGeneratorConfig, SamMaskGeneratorConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)


__all__ = ["FcClipMaskGeneratorConfig", "SamMaskGeneratorConfig", "UniversalMaskGeneratorConfig"]
