"""Configurations of the CLIPs: those of this package, and Transformers' own, which are wrapped."""

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


def require(condition: bool, message: str) -> None:
    """Refuse a configuration.

    Raises:
        ValueError: with this message, if the condition does not hold.
    """
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
        require(
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
        require(
            len(self.depths) == len(self.hidden_sizes) == len(self.stage_kernel_sizes),
            f"depths ({len(self.depths)}), hidden_sizes ({len(self.hidden_sizes)}) and kernel_sizes "
            f"({len(self.stage_kernel_sizes)}) need one entry for each stage.",
        )
        require(
            all(size % 2 == 1 for size in self.stage_kernel_sizes),
            f"kernel_sizes must be odd, got {self.stage_kernel_sizes}.",
        )
        require(
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
        require(self.width % 2 == 0, f"width must be even, as the stem begins with half of it, got {self.width}.")
        require(
            self.feature_dim % self.num_attention_heads == 0,
            f"The last stage's channels ({self.feature_dim}) must be a multiple of num_attention_heads "
            f"({self.num_attention_heads}).",
        )
        require(
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
        require(
            self.wrapped_config.model_type in self.wrapped_model_types,
            f"{type(self).__name__} wraps {' and '.join(self.wrapped_model_types)}, not "
            f"{self.wrapped_config.model_type}; wrap_clip_config chooses the right class.",
        )
        vision = self.wrapped_config.vision_config
        require(
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
        require(
            self.wrapped_config.vision_config.vision_use_head,
            "vision_config.vision_use_head must be true: the pooling head projects into the space shared with texts.",
        )
        require(
            self.feature_dim == self.projection_dim,
            f"vision_config.hidden_size ({self.feature_dim}) must equal text_config.projection_size "
            f"({self.projection_dim}): images and texts are compared in one space.",
        )


def wrap_clip_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """A configuration of Transformers' own CLIPs as this package's, around a copy; any other as it is.

    Args:
        config: such as a `CLIPConfig` or a `SiglipConfig`.
    """
    for wrapper in WRAPPERS:
        if config.model_type in wrapper.wrapped_model_types:
            return wrapper(wrapped_config=copy.deepcopy(config))
    return config


WRAPPERS = (VitClipConfig, SiglipClipConfig)
CLIP_CONFIGS = (ConvNextClipConfig, ResNetClipConfig, *WRAPPERS)


for _config_class in CLIP_CONFIGS:
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)


__all__ = [
    "ConvNextClipConfig",
    "DenseClipConfig",
    "ResNetClipConfig",
    "SiglipClipConfig",
    "VitClipConfig",
    "wrap_clip_config",
]
