"""Configurations of the CLIP backbones, the mask generator and the Mask-Adapter segmenter."""

import copy
import math
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPTextConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

#: Pixel statistics of OpenAI's and most other CLIPs on the 0–255 scale, as FC-CLIP and Mask-Adapter use them.
PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.32316305)
#: Those of SigLIP, which scales pixels to [-1, 1].
SIGLIP_PIXEL_MEAN = SIGLIP_PIXEL_STD = (127.5, 127.5, 127.5)
#: Pixel statistics of most other vision models on the same scale: ImageNet's.
IMAGENET_PIXEL_MEAN = (123.675, 116.28, 103.53)
IMAGENET_PIXEL_STD = (58.395, 57.12, 57.375)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class DenseClipConfig(PreTrainedConfig):
    """What the configuration of every CLIP tells the rest of a segmenter; see [`DenseClipModel`].

    A subclass has `text_config`, `projection_dim` and `image_size` as fields or properties, and the properties
    `feature_channels` and `feature_strides`.
    """

    base_config_key = "clip_config"

    @property
    def feature_dim(self) -> int:
        """Channels of the dense features, that is of the last feature map."""
        return self.feature_channels[-1]

    @property
    def size_divisor(self) -> int:
        """Image heights and widths are padded to a multiple of this."""
        return self.feature_strides[-1]

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """Mean of red, green and blue on the 0–255 scale that pictures are normalised with."""
        return PIXEL_MEAN

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """Their standard deviation."""
        return PIXEL_STD

    @property
    def pads_text(self) -> bool:
        """Whether texts are padded to the full length: the text tower reads the padding, too (SigLIP)."""
        return False

    @property
    def lowers_text(self) -> bool:
        """Whether the text tower knows lower-case letters only (SigLIP)."""
        return False

    def _require_one_space(self) -> None:
        _require(
            self.text_config.projection_dim == self.projection_dim,
            f"text_config.projection_dim ({self.text_config.projection_dim}) must equal projection_dim "
            f"({self.projection_dim}): images and texts are compared in one space.",
        )


@strict
class ConvNextClipConfig(DenseClipConfig):
    r"""Configuration of [`ConvNextClipModel`], a CLIP with a ConvNeXt image tower.

    The defaults are those of OpenCLIP's `convnext_large_d_320`, the backbone of FC-CLIP-L.

    Args:
        text_config (`CLIPTextConfig` or `dict`):
            The text tower. Its `projection_dim` must equal `projection_dim`.
        num_channels (`int`, defaults to 3):
            Channels of the input image.
        stem (`"patch"` or `"overlap"`, defaults to `"patch"`):
            `"patch"`: one convolution with kernel = stride = `patch_size`. `"overlap"`: 3×3 convolutions of stride 2,
            as many as it takes to reach a stride of `patch_size`.
        patch_size (`int`, defaults to 4):
            Stride in pixels of the first stage. Each further stage doubles it.
        hidden_sizes (`list[int]`):
            Channels of each stage.
        depths (`list[int]`):
            Number of blocks of each stage, as many entries as `hidden_sizes`.
        kernel_sizes (`int` or `list[int]`, defaults to 7):
            Odd size of the depthwise kernels, for all stages or for each.
        norm (`"layer"` or `"batch"`, defaults to `"layer"`):
            Normalisation inside the trunk. The norm in front of the projection is a layer norm in any case.
        norm_eps (`float`, defaults to 1e-6):
            Epsilon of the trunk's norms and of the norm in front of the projection (1e-5 for ConvNeXt-XXL).
        layer_scale_init_value (`float`, defaults to 1e-6):
            Initial value of the blocks' layer scale; 0 leaves it out.
        hidden_act (`str`, defaults to `"gelu"`):
            Activation of the blocks and of the projection head.
        projection_dim (`int`, defaults to 768):
            Dimension of the space that images and texts share.
        projection_hidden_dim (`int`, *optional*, defaults to 1536):
            Hidden width of the projection head's MLP; `None` for a linear head (`convnext_base_w_320`).
        image_size (`int`, defaults to 320):
            Side in pixels of the pictures that the CLIP was trained on; masked crops are resized to it.
        logit_scale_init_value (`float`, defaults to 2.6592):
            Initial value of the logarithm of the logit scale.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the initial weights of the image tower.
    """

    model_type = "convnext_clip"
    sub_configs_defaults = {  # noqa: RUF012
        "text_config": SubConfigSpec(
            config_class=CLIPTextConfig,
            init_kwargs={
                "hidden_size": 768,
                "intermediate_size": 3072,
                "projection_dim": 768,
                "num_hidden_layers": 16,
                "num_attention_heads": 12,
                "hidden_act": "gelu",
            },
        )
    }

    text_config: dict | PreTrainedConfig | None = None
    num_channels: int = 3
    stem: Literal["patch", "overlap"] = "patch"
    patch_size: int = 4
    hidden_sizes: list[int] | tuple[int, ...] = (192, 384, 768, 1536)
    depths: list[int] | tuple[int, ...] = (3, 3, 27, 3)
    kernel_sizes: int | list[int] | tuple[int, ...] = 7
    norm: Literal["layer", "batch"] = "layer"
    norm_eps: float = 1e-6
    layer_scale_init_value: float = 1e-6
    hidden_act: str = "gelu"
    projection_dim: int = 768
    projection_hidden_dim: int | None = 1536
    image_size: int = 320
    logit_scale_init_value: float = 2.6592
    initializer_range: float = 0.02

    @property
    def feature_channels(self) -> list[int]:
        """Channels of each feature map."""
        return list(self.hidden_sizes)

    @property
    def feature_strides(self) -> list[int]:
        """Stride in pixels of each feature map."""
        return [self.patch_size * 2**stage for stage in range(len(self.hidden_sizes))]

    @property
    def stage_kernel_sizes(self) -> list[int]:
        """Depthwise kernel size of each stage."""
        if isinstance(self.kernel_sizes, int):
            return [self.kernel_sizes] * len(self.depths)
        return list(self.kernel_sizes)

    def validate_architecture(self) -> None:
        """Check that the fields fit together.

        Raises:
            ValueError: if they do not, with the fields' names and values.
        """
        _require(
            len(self.depths) == len(self.hidden_sizes) == len(self.stage_kernel_sizes),
            f"depths ({len(self.depths)}), hidden_sizes ({len(self.hidden_sizes)}) and kernel_sizes "
            f"({len(self.stage_kernel_sizes)}) need one entry for each stage.",
        )
        _require(
            all(size % 2 == 1 for size in self.stage_kernel_sizes),
            f"kernel_sizes must be odd, got {self.stage_kernel_sizes}.",
        )
        _require(
            self.stem == "patch" or (self.patch_size >= 2 and self.patch_size & (self.patch_size - 1) == 0),
            f"stem='overlap' reaches powers of two only, got patch_size={self.patch_size}.",
        )
        self._require_one_space()


@strict
class ResNetClipConfig(DenseClipConfig):
    r"""Configuration of [`ResNetClipModel`], a CLIP with OpenAI's modified ResNet and attention pooling.

    The defaults are those of OpenAI's `RN50`.

    Args:
        text_config (`CLIPTextConfig` or `dict`):
            The text tower. Its `projection_dim` must equal `projection_dim`.
        num_channels (`int`, defaults to 3):
            Channels of the input image.
        width (`int`, defaults to 64):
            Width of the bottlenecks of the first stage; it doubles with each further stage, and stages have four times
            as many channels.
        depths (`list[int]`):
            Number of blocks of each stage.
        num_attention_heads (`int`, defaults to 32):
            Heads of the attention pooling.
        projection_dim (`int`, defaults to 1024):
            Dimension of the space that images and texts share.
        image_size (`int`, defaults to 224):
            Side in pixels of the pictures that the CLIP was trained on, a multiple of the last stage's stride; it fixes
            the number of position embeddings. Masked crops are resized to it.
        logit_scale_init_value (`float`, defaults to 2.6592):
            Initial value of the logarithm of the logit scale.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the initial weights of the image tower.
    """

    model_type = "resnet_clip"
    sub_configs_defaults = {  # noqa: RUF012
        "text_config": SubConfigSpec(config_class=CLIPTextConfig, init_kwargs={"projection_dim": 1024})
    }

    text_config: dict | PreTrainedConfig | None = None
    num_channels: int = 3
    width: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    num_attention_heads: int = 32
    projection_dim: int = 1024
    image_size: int = 224
    logit_scale_init_value: float = 2.6592
    initializer_range: float = 0.02

    @property
    def feature_channels(self) -> list[int]:
        """Channels of each feature map."""
        return [4 * self.width * 2**stage for stage in range(len(self.depths))]

    @property
    def feature_strides(self) -> list[int]:
        """Stride in pixels of each feature map."""
        return [4 * 2**stage for stage in range(len(self.depths))]

    def validate_architecture(self) -> None:
        """Check that the fields fit together.

        Raises:
            ValueError: if they do not, with the fields' names and values.
        """
        _require(self.width % 2 == 0, f"width must be even, as the stem begins with half of it, got {self.width}.")
        _require(
            self.feature_dim % self.num_attention_heads == 0,
            f"The last stage's channels ({self.feature_dim}) must be a multiple of num_attention_heads "
            f"({self.num_attention_heads}).",
        )
        _require(
            self.image_size % self.size_divisor == 0,
            f"image_size ({self.image_size}) must be a multiple of the last stage's stride ({self.size_divisor}).",
        )
        self._require_one_space()


class _WrappedClipConfig(DenseClipConfig):
    """One of Transformers' own CLIPs with a vision transformer: one feature map, its patches."""

    wrapped_model_types: ClassVar[tuple[str, ...]] = ()

    @property
    def text_config(self) -> PreTrainedConfig:
        """The text tower's configuration."""
        return self.wrapped_config.text_config

    @property
    def feature_channels(self) -> list[int]:
        """Channels of the one feature map."""
        return [self.wrapped_config.vision_config.hidden_size]

    @property
    def feature_strides(self) -> list[int]:
        """Its stride in pixels, the side of a patch."""
        return [self.wrapped_config.vision_config.patch_size]

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the CLIP was trained on; masked crops are resized to it."""
        return self.wrapped_config.vision_config.image_size

    def _require_known_model(self) -> None:
        _require(
            self.wrapped_config.model_type in self.wrapped_model_types,
            f"{type(self).__name__} wraps {' and '.join(self.wrapped_model_types)}, not "
            f"{self.wrapped_config.model_type}; wrap_clip_config chooses the right class.",
        )
        vision = self.wrapped_config.vision_config
        _require(
            isinstance(vision.patch_size, int) and isinstance(self.image_size, int),
            f"Patches and pictures must be square, with one number for their side: patch_size is {vision.patch_size}, "
            f"image_size {self.image_size}.",
        )


@strict
class VitClipConfig(_WrappedClipConfig):
    r"""Configuration of [`VitClipModel`]: Transformers' CLIP or MetaCLIP 2 with a vision transformer.

    Args:
        wrapped_config (`CLIPConfig`, `MetaClip2Config` or `dict`):
            The wrapped model's configuration, chosen by its `model_type`; `"clip"` by default.
        value_features (`bool`, defaults to `True`):
            Whether the last layer's attention gives each position its own value, without mixing positions, when dense
            features are computed (MaskCLIP, arXiv 2112.01071). CLIP trains the class token alone, and so the last
            layer's attention gathers what belongs to the whole picture at any position.
    """

    model_type = "vit_clip"
    wrapped_model_types = ("clip", "metaclip_2")
    sub_configs_defaults = {  # noqa: RUF012
        "wrapped_config": SubConfigSpec(config_class=AutoConfig, model_type="clip")
    }

    wrapped_config: dict | PreTrainedConfig | None = None
    value_features: bool = True

    @property
    def projection_dim(self) -> int:
        """Dimension of the space that images and texts share."""
        return self.wrapped_config.projection_dim

    def validate_architecture(self) -> None:
        """Check the wrapped configuration.

        Raises:
            ValueError: if the model cannot be wrapped.
        """
        self._require_known_model()


@strict
class SiglipClipConfig(_WrappedClipConfig):
    r"""Configuration of [`SiglipClipModel`]: Transformers' SigLIP or SigLIP 2.

    SigLIP 2 checkpoints of one resolution are of type `"siglip"`, those of any (NaFlex) of type `"siglip2"`.

    Args:
        wrapped_config (`SiglipConfig`, `Siglip2Config` or `dict`):
            The wrapped model's configuration, chosen by its `model_type`; `"siglip"` by default.
    """

    model_type = "siglip_clip"
    wrapped_model_types = ("siglip", "siglip2")
    sub_configs_defaults = {  # noqa: RUF012
        "wrapped_config": SubConfigSpec(config_class=AutoConfig, model_type="siglip")
    }

    wrapped_config: dict | PreTrainedConfig | None = None

    @property
    def projection_dim(self) -> int:
        """Dimension of the space that images and texts share."""
        return self.text_config.projection_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the CLIP was trained on; of NaFlex, of its square of patches."""
        vision = self.wrapped_config.vision_config
        if self.wrapped_config.model_type == "siglip2":
            return math.isqrt(vision.num_patches) * vision.patch_size
        return vision.image_size

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """Mean of red, green and blue on the 0–255 scale that pictures are normalised with."""
        return SIGLIP_PIXEL_MEAN

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """Their standard deviation."""
        return SIGLIP_PIXEL_STD

    @property
    def pads_text(self) -> bool:
        """SigLIP's text tower has no mask and reads its embedding at the last position, which is padding."""
        return True

    @property
    def lowers_text(self) -> bool:
        """SigLIP was trained on lower-case texts, and not every tokenizer of a checkpoint makes them so."""
        return True

    def validate_architecture(self) -> None:
        """Check the wrapped configuration.

        Raises:
            ValueError: if the model cannot be wrapped.
        """
        self._require_known_model()
        _require(
            self.wrapped_config.vision_config.vision_use_head,
            "vision_config.vision_use_head must be true: the pooling head projects into the space shared with texts.",
        )
        _require(
            self.feature_dim == self.projection_dim,
            f"vision_config.hidden_size ({self.feature_dim}) must equal text_config.projection_size "
            f"({self.projection_dim}): images and texts are compared in one space.",
        )


def wrap_clip_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """A configuration of Transformers' own CLIPs as this package's, around a copy; any other as it is.

    Args:
        config: such as a `CLIPConfig` or a `SiglipConfig`.
    """
    for wrapper in _WRAPPERS:
        if config.model_type in wrapper.wrapped_model_types:
            return wrapper(wrapped_config=copy.deepcopy(config))
    return config


_WRAPPERS = (VitClipConfig, SiglipClipConfig)
_CLIP_CONFIGS = (ConvNextClipConfig, ResNetClipConfig, *_WRAPPERS)


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
        _require(
            len(self.feature_channels) == len(self.feature_strides),
            f"feature_channels ({len(self.feature_channels)}) and feature_strides ({len(self.feature_strides)}) need "
            "one entry for each feature map.",
        )
        _require(
            self.common_stride in self.feature_strides[:-2],
            f"common_stride ({self.common_stride}) must be one of feature_strides ({list(self.feature_strides)}) with "
            "at least two coarser ones: the pixel decoder attends over the three coarsest feature maps.",
        )
        _require(self.feature_size % 32 == 0, f"feature_size must be a multiple of 32, got {self.feature_size}.")
        _require(
            self.feature_size % self.num_attention_heads == 0 and self.hidden_dim % self.num_attention_heads == 0,
            f"feature_size ({self.feature_size}) and hidden_dim ({self.hidden_dim}) must be multiples of "
            f"num_attention_heads ({self.num_attention_heads}).",
        )
        _require(
            self.mask_feature_size == self.hidden_dim,
            f"mask_feature_size ({self.mask_feature_size}) must equal hidden_dim ({self.hidden_dim}): the class branch "
            "adds pooled mask features to the decoder's output.",
        )
        _require(self.decoder_layers >= 2, f"decoder_layers counts the initial prediction, got {self.decoder_layers}.")


#: Feature maps of the CLIP that FC-CLIP's pixel decoder attends over.
FCCLIP_NUM_LEVELS = 3


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
        _require(
            self.size is None or set(self.size) in known,
            'size must hold "shortest_edge" and perhaps "longest_edge", or "height" and "width", or be None, got '
            f"{self.size}.",
        )
        _require(
            self.pad_size is None or set(self.pad_size) == {"height", "width"},
            f'pad_size must hold "height" and "width", or be None, got {self.pad_size}.',
        )
        _require(
            self.size_divisor >= 1 and self.mask_stride >= 1,
            f"size_divisor ({self.size_divisor}) and mask_stride ({self.mask_stride}) must be at least 1.",
        )
        _require(
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
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}.")
        _require(self.crop_layers >= 0, f"crop_layers must not be negative, got {self.crop_layers}.")
        _require(0 <= self.crop_overlap < 1, f"crop_overlap must lie in [0, 1), got {self.crop_overlap}.")


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
            `"sparse"`: only where a mask reaches, several times faster in a fraction of the memory. `"auto"`: sparse
            for inference, dense where gradients are wanted, for very few masks, and when compiled or exported.
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
            known = [config.__name__ for config in _CLIP_CONFIGS]
            known += [f"Transformers' {name}" for config in _WRAPPERS for name in config.wrapped_model_types]
            _require(
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
        _require(self.mask_channels % 4 == 0, f"mask_channels must be a multiple of 4, got {self.mask_channels}.")
        _require(
            self.use_adapter or self.mask_embedding != "adapter",
            "mask_embedding='adapter' needs use_adapter=True.",
        )
        _require(
            not self.text_transfer or self.embed_dim % self.text_transfer_heads == 0,
            f"embed_dim ({self.embed_dim}) must be a multiple of text_transfer_heads ({self.text_transfer_heads}).",
        )
        _require(
            0 <= self.background_threshold <= 1,
            f"background_threshold is a probability, between 0 and 1, got {self.background_threshold}.",
        )
        clip, generator = self.clip_config, self.mask_generator_config
        if clip is not None:
            _require(
                self.embed_dim == clip.projection_dim,
                f"embed_dim ({self.embed_dim}) must equal clip_config.projection_dim ({clip.projection_dim}).",
            )
        if isinstance(generator, FcClipMaskGeneratorConfig) and clip is not None:
            _require(
                len(clip.feature_strides) >= FCCLIP_NUM_LEVELS,
                f"FcClipMaskGenerator reads at least {FCCLIP_NUM_LEVELS} feature maps of the CLIP, but "
                f"{clip.model_type} gives {len(clip.feature_strides)} (stride {clip.feature_strides}): choose a mask "
                "generator that has a backbone of its own, or none (mask_generator_config=None) and give masks.",
            )
            for field in ("feature_channels", "feature_strides"):
                of_generator, of_clip = list(getattr(generator, field)), list(getattr(clip, field))
                _require(
                    of_generator == of_clip,
                    f"mask_generator_config.{field} ({of_generator}) must equal the CLIP's ({of_clip}).",
                )
            _require(
                generator.text_embed_dim == clip.projection_dim,
                f"mask_generator_config.text_embed_dim ({generator.text_embed_dim}) must equal "
                f"clip_config.projection_dim ({clip.projection_dim}).",
            )


for _config_class in (
    *_CLIP_CONFIGS,
    FcClipMaskGeneratorConfig,
    UniversalMaskGeneratorConfig,
    SamMaskGeneratorConfig,
    MaskAdapterConfig,
):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)


__all__ = [
    "ConvNextClipConfig",
    "DenseClipConfig",
    "FcClipMaskGeneratorConfig",
    "MaskAdapterConfig",
    "ResNetClipConfig",
    "SamMaskGeneratorConfig",
    "SiglipClipConfig",
    "UniversalMaskGeneratorConfig",
    "VitClipConfig",
    "wrap_clip_config",
]
