"""What weights cannot tell: one table with the facts of each released model, and the same as explicit settings.

Sources: the papers' configurations (Mask-Adapter, arXiv 2412.04533; FC-CLIP, arXiv 2308.02487; MAFT+, arXiv 2408.00744)
and OpenCLIP's model configurations.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from ..model.vocabulary import Vocabulary, check_templates
from .errors import ConversionError
from .layouts import (
    FCCLIP,
    FCCLIP_ADAPTER,
    MAFT_PLUS,
    MAFT_PLUS_ADAPTER,
    MAFT_PLUS_WARMUP,
    OPENCLIP,
    OPENCLIP_RESNET,
    WARMUP,
    Layout,
)
from .open_clip_config import TIMM_NORM_EPS, settings_of_open_clip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_triple(value: Any) -> bool:
    return _is_list(value) and len(value) == 3 and all(_is_number(entry) and entry > 0 for entry in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


#: What a setting must be: in words, as a test, and the settings in question.
_KINDS: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "a positive whole number",
        _is_count,
        (
            "text_heads",
            "image_size",
            "decoder_heads",
            "text_transfer_heads",
            "instance_top_k",
            "shortest_edge",
            "longest_edge",
        ),
    ),
    ("a positive number", lambda value: _is_number(value) and value > 0, ("norm_eps",)),
    (
        "a number from 0 to 1",
        lambda value: _is_number(value) and 0 <= value <= 1,
        ("ensemble_alpha", "ensemble_beta", "mask_threshold", "object_threshold", "overlap_threshold"),
    ),
    (
        "true or false",
        lambda value: isinstance(value, bool),
        (
            "quick_gelu",
            "ensemble_on_valid_masks",
            "warmup_scoring",
            "text_transfer_panoptic",
            "mix_projected_positions",
        ),
    ),
    ("three positive numbers", _is_triple, ("image_mean", "image_std")),
    ("a list of texts with one {} each", _is_list, ("prompt_templates",)),
)


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """What weights cannot tell. `None`: not given.

    Args:
        text_heads: attention heads of the CLIP's text tower.
        quick_gelu: whether the text tower of a ResNet CLIP uses x · sigmoid(1.702 x), as OpenAI's do, instead of GELU.
        norm_eps: epsilon of the norms in the CLIP's trunk and in front of its projection.
        image_size: side in pixels of the pictures that the CLIP was trained on.
        decoder_heads: attention heads of the mask generator; checked against the weights, which happen to tell.
        ensemble_alpha, ensemble_beta: weight of the mask embeddings in the geometric ensemble, for seen and for unseen
            classes.
        ensemble_on_valid_masks: whether the ensemble is used only for masks that cover at least one feature cell.
        mask_threshold: probability above which a pixel belongs to the mask that the adapter sees.
        object_threshold, overlap_threshold, instance_top_k: of panoptic and instance post-processing.
        warmup_scoring: score the caller's masks as the published warm-up model does.
        text_transfer_heads: attention heads of MAFT+'s text transfer.
        text_transfer_panoptic: whether that transfer computes text + norm(linear(attention)), the formula of models
            trained for panoptic segmentation, instead of norm(text + linear(attention)).
        mix_projected_positions: whether adapter and text transfer see positions and channels mixed, as MAFT+'s do. On
            wherever there is a text transfer, unless given.
        training_vocabulary: the classes seen in training, in any form that [`Vocabulary.parse`] reads.
        prompt_templates: texts with one `{}` each.
        shortest_edge, longest_edge: pictures are resized so that the shorter side has `shortest_edge` pixels, but the
            longer one at most `longest_edge`.
        image_mean, image_std: of the pixels, red, green and blue, on the 0–255 scale.

    Raises:
        ConversionError: if a value has the wrong type or range.
    """

    text_heads: int | None = None
    quick_gelu: bool | None = None
    norm_eps: float | None = None
    image_size: int | None = None
    decoder_heads: int | None = None
    ensemble_alpha: float | None = None
    ensemble_beta: float | None = None
    ensemble_on_valid_masks: bool | None = None
    mask_threshold: float | None = None
    object_threshold: float | None = None
    overlap_threshold: float | None = None
    instance_top_k: int | None = None
    warmup_scoring: bool | None = None
    text_transfer_heads: int | None = None
    text_transfer_panoptic: bool | None = None
    mix_projected_positions: bool | None = None
    training_vocabulary: Any = None
    prompt_templates: Sequence[str] | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    image_mean: Sequence[float] | None = None
    image_std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for kind, is_valid, names in _KINDS:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_valid(value):
                    raise ConversionError(f"The setting {name} must be {kind}, got {value!r}.")
        if self.prompt_templates is not None:
            try:
                check_templates(self.prompt_templates)
            except ValueError as error:
                raise ConversionError(f"The setting prompt_templates is not usable: {error}") from error

    def given(self) -> dict[str, Any]:
        """The settings that are given."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def updated(self, others: ConversionSettings) -> ConversionSettings:
        """These settings, replaced by others where those are given."""
        return dataclasses.replace(self, **others.given())

    def read_training_vocabulary(self) -> list[list[str]] | None:
        """Synonyms of each class seen in training.

        Raises:
            ConversionError: if the setting cannot be read.
        """
        if self.training_vocabulary is None:
            return None
        try:
            vocabulary = Vocabulary.parse(self.training_vocabulary)
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise ConversionError(f"The setting training_vocabulary cannot be read: {error}") from error
        return [list(synonyms) for synonyms in vocabulary.synonyms]


def read_settings(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> ConversionSettings:
    """Settings from a dict or JSON file: the fields of [`ConversionSettings`], or an `open_clip_config.json`.

    Raises:
        ConversionError: if the file cannot be read, a setting is unknown or has a wrong value, or OpenCLIP's file asks
            for what is not possible here.
    """
    if config is None:
        return ConversionSettings()
    where = "The configuration"
    if not isinstance(config, Mapping):
        path = Path(config)
        where = f"The configuration file {path}"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConversionError(f"{where} cannot be read: {error.strerror or error}.") from error
        except ValueError as error:  # JSON or encoding
            raise ConversionError(f"{where} is not valid JSON: {error}.") from error
        if not isinstance(config, dict):
            raise ConversionError(f"{where} must hold one JSON object with settings by name.")
    if "model_cfg" in config:
        config = settings_of_open_clip(config, where)
    return make_settings(config, where)


def make_settings(values: Mapping[str, Any], where: str) -> ConversionSettings:
    """Settings by name.

    Args:
        values: name → value.
        where: what to call their origin in messages.

    Raises:
        ConversionError: if a setting is unknown or has a wrong value.
    """
    known = [setting.name for setting in fields(ConversionSettings)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConversionError(f"{where} has an unknown setting {name!r}.{hint} Known are: {', '.join(known)}.")
    return ConversionSettings(**values)


@dataclass(frozen=True)
class Preset:
    """A released model.

    Args:
        name: what users choose it by.
        title: what messages call it.
        layout: how its checkpoint is laid out.
        sizes: fields of the configuration that tell it from others, read from the weights; nested ones by dots.
        settings: what its weights cannot tell.
        reduced_layout: how its checkpoint is laid out where a part was left out.
    """

    name: str
    title: str
    layout: Layout
    sizes: Mapping[str, Any]
    settings: ConversionSettings
    reduced_layout: Layout | None = None

    def is_for(self, layout: Layout) -> bool:
        """Whether the model's checkpoints can have a layout."""
        return layout in (self.layout, self.reduced_layout)

    def settings_for(self, layout: Layout) -> ConversionSettings:
        """The settings, without those that have no effect on a checkpoint of this layout."""
        return ConversionSettings(
            **{name: value for name, value in self.settings.given().items() if has_effect(name, layout)}
        )

    def contradictions(self, sizes: Mapping[str, Any]) -> list[str]:
        """How sizes read from weights differ from the preset's, one text for each."""
        found = []
        for name, expected in self.sizes.items():
            value: Any = sizes
            for step in name.split("."):
                value = value.get(step) if isinstance(value, Mapping) else None
            if value != expected:
                found.append(f"{name} is {value}, the preset's is {expected}")
        return found


def _nested(prefix: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in sizes.items()}


_CONVNEXT_LARGE_D_320 = {
    "hidden_sizes": [192, 384, 768, 1536],
    "depths": [3, 3, 27, 3],
    "projection_dim": 768,
    "projection_hidden_dim": 1536,
    "text_config.hidden_size": 768,
    "text_config.num_hidden_layers": 16,
}
_CONVNEXT_BASE_W_320 = {
    "hidden_sizes": [128, 256, 512, 1024],
    "depths": [3, 3, 27, 3],
    "projection_dim": 640,
    "projection_hidden_dim": None,
    "text_config.hidden_size": 640,
    "text_config.num_hidden_layers": 12,
}
_CONVNEXT_XXLARGE = {
    "hidden_sizes": [384, 768, 1536, 3072],
    "depths": [3, 4, 30, 3],
    "projection_dim": 1024,
    "projection_hidden_dim": None,
    "text_config.hidden_size": 1024,
    "text_config.num_hidden_layers": 24,
}
#: Name, width, depths, projection_dim, image_size and width of the text tower, whose heads are 64 wide.
_OPENAI_RESNETS = (
    ("RN50", 64, [3, 4, 6, 3], 1024, 224, 512),
    ("RN101", 64, [3, 4, 23, 3], 512, 224, 512),
    ("RN50x4", 80, [4, 6, 10, 6], 640, 288, 640),
    ("RN50x16", 96, [6, 8, 18, 8], 768, 384, 768),
    ("RN50x64", 128, [3, 15, 36, 10], 1024, 448, 1024),
)
_FCCLIP_GENERATOR = {
    "num_queries": 250,
    "hidden_dim": 256,
    "encoder_layers": 6,
    "decoder_layers": 10,
    "dim_feedforward": 2048,
}
_MAFT_PLUS_GENERATOR = _FCCLIP_GENERATOR | {"num_queries": 100}
_ADAPTER = {"mask_channels": 16, "hidden_size": 768, "num_blocks": 3, "num_output_maps": 16}

_CLIP_SETTINGS = ConversionSettings(
    norm_eps=1e-6, image_size=320, shortest_edge=800, longest_edge=1333, image_mean=PIXEL_MEAN, image_std=PIXEL_STD
)
_LARGE = dataclasses.replace(_CLIP_SETTINGS, text_heads=12)
_BASE = dataclasses.replace(_CLIP_SETTINGS, text_heads=10)
_XXLARGE = dataclasses.replace(
    _CLIP_SETTINGS, text_heads=16, norm_eps=TIMM_NORM_EPS["convnext_xxlarge"], image_size=256
)
_FCCLIP_SETTINGS = dataclasses.replace(
    _LARGE,
    decoder_heads=8,
    ensemble_alpha=0.4,
    ensemble_beta=0.8,
    ensemble_on_valid_masks=False,
    object_threshold=0.0,
    overlap_threshold=0.8,
    instance_top_k=100,
    training_vocabulary="coco_panoptic_133",
)
_WARMUP_SETTINGS = ConversionSettings(
    mask_threshold=0.45, object_threshold=0.0, overlap_threshold=0.8, instance_top_k=100
)
_MAFT_PLUS_TRANSFER = ConversionSettings(
    text_transfer_heads=8,
    text_transfer_panoptic=False,
    mix_projected_positions=True,
    training_vocabulary="coco_stuff_171",
)
_MAFT_PLUS_SETTINGS = dataclasses.replace(
    _MAFT_PLUS_TRANSFER,
    decoder_heads=8,
    ensemble_alpha=1.0,
    ensemble_beta=1.0,
    ensemble_on_valid_masks=False,
    object_threshold=0.2,
    overlap_threshold=0.7,
    instance_top_k=100,
)
_MAFT_PLUS_ADAPTER_SETTINGS = dataclasses.replace(
    _MAFT_PLUS_SETTINGS, object_threshold=0.0, shortest_edge=896, longest_edge=896
)


def _maft_plus(clip: Mapping[str, Any]) -> dict[str, Any]:
    return _nested("clip_config.", clip) | _nested("mask_generator_config.", _MAFT_PLUS_GENERATOR)


def _openai_resnets() -> Iterator[Preset]:
    for name, width, depths, projection_dim, image_size, text_width in _OPENAI_RESNETS:
        sizes = {
            "width": width,
            "depths": depths,
            "projection_dim": projection_dim,
            "image_size": image_size,
            "text_config.hidden_size": text_width,
            "text_config.num_hidden_layers": 12,
        }
        settings = dataclasses.replace(
            _CLIP_SETTINGS, norm_eps=None, image_size=None, text_heads=text_width // 64, quick_gelu=True
        )
        yield Preset(f"openai-{name.lower()}", f"OpenAI {name}", OPENCLIP_RESNET, sizes, settings)


#: The released models. Of those that weights cannot tell apart, the first is the one that is recognised.
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "openclip-convnext-large-d-320", "OpenCLIP convnext_large_d_320", OPENCLIP, _CONVNEXT_LARGE_D_320, _LARGE
        ),
        Preset("openclip-convnext-base-w-320", "OpenCLIP convnext_base_w_320", OPENCLIP, _CONVNEXT_BASE_W_320, _BASE),
        Preset("openclip-convnext-xxlarge", "OpenCLIP convnext_xxlarge", OPENCLIP, _CONVNEXT_XXLARGE, _XXLARGE),
        *_openai_resnets(),
        Preset(
            "fcclip-convnext-large",
            "FC-CLIP-L without adapter",
            FCCLIP,
            _nested("clip_config.", _CONVNEXT_LARGE_D_320) | _nested("mask_generator_config.", _FCCLIP_GENERATOR),
            _FCCLIP_SETTINGS,
        ),
        Preset(
            "mask-adapter-fcclip-convnext-large",
            "Mask-Adapter on FC-CLIP-L",
            FCCLIP_ADAPTER,
            _nested("clip_config.", _CONVNEXT_LARGE_D_320)
            | _nested("mask_generator_config.", _FCCLIP_GENERATOR)
            | _ADAPTER,
            dataclasses.replace(
                _FCCLIP_SETTINGS,
                ensemble_alpha=0.7,
                ensemble_beta=0.9,
                mask_threshold=0.5,
                shortest_edge=896,
                longest_edge=896,
            ),
        ),
        Preset(
            "mask-adapter-warmup-fcclip-convnext-large",
            "Mask-Adapter's warm-up on FC-CLIP-L's CLIP",
            WARMUP,
            _nested("clip_config.", _CONVNEXT_LARGE_D_320) | _ADAPTER,
            dataclasses.replace(_LARGE.updated(_WARMUP_SETTINGS), training_vocabulary="coco_panoptic_133"),
        ),
        Preset(
            "maft-plus-convnext-base",
            "MAFT+-B without adapter",
            MAFT_PLUS,
            _maft_plus(_CONVNEXT_BASE_W_320),
            _BASE.updated(_MAFT_PLUS_SETTINGS),
        ),
        Preset(
            "maft-plus-convnext-large",
            "MAFT+-L without adapter",
            MAFT_PLUS,
            _maft_plus(_CONVNEXT_LARGE_D_320),
            _LARGE.updated(_MAFT_PLUS_SETTINGS),
        ),
        Preset(
            "maft-plus-convnext-large-panoptic",
            "MAFT+-L without adapter, trained on COCO panoptic",
            MAFT_PLUS,
            _maft_plus(_CONVNEXT_LARGE_D_320),
            dataclasses.replace(
                _LARGE.updated(_MAFT_PLUS_SETTINGS),
                text_transfer_panoptic=True,
                training_vocabulary="coco_panoptic_133",
            ),
        ),
        Preset(
            "mask-adapter-maft-plus-convnext-base",
            "Mask-Adapter on MAFT+-B",
            MAFT_PLUS_ADAPTER,
            _maft_plus(_CONVNEXT_BASE_W_320) | _ADAPTER,
            dataclasses.replace(_BASE.updated(_MAFT_PLUS_ADAPTER_SETTINGS), ensemble_alpha=0.7, mask_threshold=0.45),
        ),
        Preset(
            "mask-adapter-maft-plus-convnext-large",
            "Mask-Adapter on MAFT+-L as it was trained, and measured on A-150",
            MAFT_PLUS_ADAPTER,
            _maft_plus(_CONVNEXT_LARGE_D_320) | _ADAPTER,
            dataclasses.replace(
                _LARGE.updated(_MAFT_PLUS_ADAPTER_SETTINGS),
                ensemble_alpha=0.8,
                mask_threshold=0.40,
                text_transfer_panoptic=True,
            ),
        ),
        Preset(
            "mask-adapter-maft-plus-convnext-large-semantic",
            "Mask-Adapter on MAFT+-L as it was measured on the benchmarks other than A-150",
            MAFT_PLUS_ADAPTER,
            _maft_plus(_CONVNEXT_LARGE_D_320) | _ADAPTER,
            dataclasses.replace(_LARGE.updated(_MAFT_PLUS_ADAPTER_SETTINGS), ensemble_alpha=0.8, mask_threshold=0.40),
        ),
        Preset(
            "mask-adapter-warmup-maft-plus-convnext-base",
            "Mask-Adapter's warm-up on MAFT+-B's CLIP",
            MAFT_PLUS_WARMUP,
            _nested("clip_config.", _CONVNEXT_BASE_W_320) | _ADAPTER,
            dataclasses.replace(
                _BASE.updated(_WARMUP_SETTINGS).updated(_MAFT_PLUS_TRANSFER), text_transfer_panoptic=True
            ),
            reduced_layout=WARMUP,
        ),
        Preset(
            "mask-adapter-warmup-maft-plus-convnext-large",
            "Mask-Adapter's warm-up on MAFT+-L's CLIP",
            MAFT_PLUS_WARMUP,
            _nested("clip_config.", _CONVNEXT_LARGE_D_320) | _ADAPTER,
            dataclasses.replace(
                _LARGE.updated(_WARMUP_SETTINGS).updated(_MAFT_PLUS_TRANSFER), text_transfer_panoptic=True
            ),
            reduced_layout=WARMUP,
        ),
    )
}

#: Settings without which a model would silently be another one, for each part of a checkpoint.
NEEDED: dict[str, tuple[str, ...]] = {
    "clip": ("text_heads", "norm_eps"),
    "resnet_clip": ("text_heads", "quick_gelu"),
    "generator": ("ensemble_alpha", "ensemble_beta", "overlap_threshold", "training_vocabulary"),
    "transfer": ("text_transfer_heads", "text_transfer_panoptic"),
    "adapter": ("mask_threshold",),
}

_SETTINGS_OF_PARTS: dict[str, tuple[str, ...]] = {
    "clip": ("norm_eps", "image_size"),
    "resnet_clip": ("quick_gelu",),
    "generator": ("decoder_heads", "ensemble_alpha", "ensemble_beta", "ensemble_on_valid_masks"),
    "transfer": ("text_transfer_heads", "text_transfer_panoptic"),
    "adapter": ("mask_threshold",),
}
_SETTINGS_OF_SEGMENTERS = (
    "object_threshold",
    "overlap_threshold",
    "instance_top_k",
    "warmup_scoring",
    "training_vocabulary",
)


def has_effect(setting: str, layout: Layout) -> bool:
    """Whether a setting can change a model of this layout."""
    if setting in _SETTINGS_OF_SEGMENTERS:
        return not layout.is_clip_alone
    if setting == "mix_projected_positions":
        return layout.has("transfer") or layout.has("adapter")
    return all(layout.has(part) for part, settings in _SETTINGS_OF_PARTS.items() if setting in settings)


def settings_of_layout(layout: Layout) -> ConversionSettings:
    """What holds for every checkpoint of a layout, unless something else is given.

    MAFT+ mixes positions in what its text transfer, and an adapter trained on it, see of the picture. Without adapter,
    it classifies by its pooled features alone: its generator only tells void.
    """
    if not layout.has("transfer"):
        return ConversionSettings()
    mixed = ConversionSettings(mix_projected_positions=True)
    if layout.has("adapter"):
        return mixed
    return dataclasses.replace(mixed, ensemble_alpha=1.0, ensemble_beta=1.0)


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ConversionError: if there is none.
    """
    preset = PRESETS.get(name)
    if preset is None:
        close = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConversionError(f"There is no preset {name!r}.{hint} The presets are: {', '.join(PRESETS)}.")
    return preset


def choose_preset(wanted: Preset | None, layout: Layout, sizes: Mapping[str, Any]) -> Preset | None:
    """The wanted preset, checked against a checkpoint; without one, the first of [`fitting_presets`].

    Args:
        wanted: a preset, or `None`.
        layout: the checkpoint's layout.
        sizes: fields of the configuration, read from its weights.

    Raises:
        ConversionError: if the wanted preset is for another model.
    """
    if wanted is None:
        return next(iter(fitting_presets(layout, sizes)), None)
    if not wanted.is_for(layout):
        raise ConversionError(
            f"The preset {wanted.name!r} is for {wanted.layout.title}, but this is {layout.title}. "
            f"{_fitting_presets(layout)}"
        )
    contradictions = wanted.contradictions(sizes)
    if contradictions:
        raise ConversionError(
            f"The preset {wanted.name!r} ({wanted.title}) contradicts the weights: {'; '.join(contradictions)}. Choose "
            "the preset of this model, or none and give its settings explicitly (config)."
        )
    return wanted


def fitting_presets(layout: Layout, sizes: Mapping[str, Any]) -> list[Preset]:
    """Presets of the released models that a checkpoint can be; first those whose complete checkpoint it can be.

    Args:
        layout: the checkpoint's layout.
        sizes: fields of the configuration, read from its weights.
    """
    fitting = [preset for preset in PRESETS.values() if preset.is_for(layout) and not preset.contradictions(sizes)]
    return sorted(fitting, key=lambda preset: preset.layout != layout)


def require_settings(settings: ConversionSettings, layout: Layout) -> None:
    """Check that nothing needed is missing.

    Raises:
        ConversionError: naming everything that is.
    """
    missing = [name for part in NEEDED if layout.has(part) for name in NEEDED[part] if getattr(settings, name) is None]
    if missing:
        raise ConversionError(
            f"The weights cannot tell {', '.join(missing)}: give them as settings (keyword arguments, or config: a "
            f"JSON file), or choose a preset. {_fitting_presets(layout)}"
        )


def _fitting_presets(layout: Layout) -> str:
    names = [preset.name for preset in PRESETS.values() if preset.is_for(layout)]
    return f"Presets for {layout.title}: {', '.join(names) or 'none'}."


__all__ = [
    "PRESETS",
    "ConversionSettings",
    "Preset",
    "choose_preset",
    "find_preset",
    "fitting_presets",
    "has_effect",
    "make_settings",
    "read_settings",
    "require_settings",
    "settings_of_layout",
]
