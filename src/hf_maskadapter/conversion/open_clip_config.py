"""OpenCLIP's `open_clip_config.json` → settings; what this package cannot do as it says is refused, not passed over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from .errors import ConversionError

#: Epsilon of the norms in timm's ConvNeXts, where it is not 1e-6.
TIMM_NORM_EPS = {"convnext_xxlarge": 1e-5}

_Check = tuple[Callable[[Any], bool], str]


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ("", {}, [])


def _one_of(*accepted: Any) -> Callable[[Any], bool]:
    return lambda value: value in accepted


_OFF: _Check = (_is_off, "can only be off here")
_NO_OTHER_TOKENIZER: _Check = (_is_off, "asks for another tokenizer than CLIP's")
#: Says nothing about results: sizes, which the weights tell, and what matters in training only.
_ANY: _Check = (lambda _: True, "")
_UNKNOWN: _Check = (_is_off, "is not known here")

#: Fields of the text tower: the values with which it is the one that Transformers' CLIP has, and what else would mean.
_TEXT_FIELDS: dict[str, _Check] = {
    **dict.fromkeys(("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"), _ANY),
    **dict.fromkeys(
        ("pad_id", "bos_id", "output_tokens", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"), _ANY
    ),
    "no_causal_mask": (_is_off, "lets tokens see later ones, which the text tower here never does"),
    "act_kwargs": (_one_of(None, {}, {"approximate": "none"}), "changes the text tower's activation"),
    "norm_kwargs": (_one_of(None, {}, {"eps": 1e-5}), "changes the text tower's norms, whose epsilon is 1e-5 here"),
    "proj_type": (_one_of("linear"), 'must be "linear"'),
    "text_arch": (_one_of("clip"), 'must be "clip"'),
    "hf_model_name": (_is_off, "asks for a text tower from the Hub instead of CLIP's own"),
    "hf_tokenizer_name": _NO_OTHER_TOKENIZER,
    "tokenizer_mode": _NO_OTHER_TOKENIZER,
    "tokenizer_kwargs": (_is_off, "changes how texts are tokenised"),
    **dict.fromkeys(("embed_cls", "ls_init_value", "proj_bias", "final_ln_after_pool", "variable_text"), _OFF),
}
#: Fields of an image tower from timm.
_TIMM_FIELDS: dict[str, _Check] = {
    **dict.fromkeys(("timm_model_name", "image_size", "timm_model_pretrained", "timm_drop", "timm_drop_path"), _ANY),
    "timm_pool": (_one_of("", "avg", None), "must be the average, which a ConvNeXt here always takes"),
    "timm_proj": (_one_of("linear", "mlp"), 'must be "linear" or "mlp"'),
    "timm_proj_bias": _OFF,
    "timm_model_kwargs": (_is_off, "changes timm's model in ways that the weights do not tell"),
}
#: Fields of a ResNet of OpenAI's kind.
_RESNET_FIELDS: dict[str, _Check] = {
    **dict.fromkeys(("layers", "width", "image_size", "patch_size", "mlp_ratio"), _ANY),
    "head_width": (_one_of(64), "must be 64"),
}
#: Fields that OpenCLIP reads for its vision transformers only, and for neither of the two above.
_TRANSFORMER_ONLY = frozenset(
    {
        *("width", "layers", "head_width", "mlp_ratio", "patch_size", "ls_init_value", "patch_dropout"),
        *("attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre", "pos_embed_type"),
        *("final_ln_after_pool", "pool_type", "output_tokens", "act_kwargs", "norm_kwargs", "image_seq_len"),
        *("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
        *(name for name in _TIMM_FIELDS if name.startswith("timm_")),
    }
)
_MODEL_FIELDS: dict[str, _Check] = {
    **dict.fromkeys(("embed_dim", "vision_cfg", "text_cfg", "init_logit_scale", "cast_dtype", "output_dict"), _ANY),
    "quick_gelu": (lambda value: isinstance(value, bool), "must be true or false"),
    "custom_text": _ANY,  # how weights are named, by which they are recognised
    "nonscalar_logit_scale": _OFF,
    "init_logit_bias": (_is_off, "adds a bias to logits, which this CLIP does not have"),
}


def settings_of_open_clip(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings in an `open_clip_config.json`, whose pixel statistics are on the 0–1 scale.

    How OpenCLIP resizes and crops pictures to classify them whole plays no part: pictures are segmented at their own
    aspect ratio.

    Args:
        config: the file's content.
        where: what to call it in messages.

    Returns:
        Name → value, as of [`ConversionSettings`].

    Raises:
        ConversionError: if something is missing, or a field asks for what changes results and is not possible here.
    """
    try:
        model, preprocessing = config["model_cfg"], config.get("preprocess_cfg") or {}
        vision, text = model["vision_cfg"], model["text_cfg"]
        settings = {"text_heads": text["heads"]}
        is_timm = bool(vision.get("timm_model_name"))
        if not is_timm and not isinstance(vision.get("layers"), list | tuple):
            raise ConversionError(
                f"{where} is of a CLIP with a vision transformer: only ConvNeXts and OpenAI's ResNets are converted. "
                "Load it as one of Transformers' own models."
            )
        if is_timm:
            settings |= _timm_settings(vision, model, where)
        else:
            settings["quick_gelu"] = model.get("quick_gelu", False)
        for name in ("mean", "std"):
            if name in preprocessing:
                settings[f"image_{name}"] = [255 * value for value in preprocessing[name]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{where} looks like an open_clip_config.json, but lacks {error}.") from error
    _check(model, _MODEL_FIELDS, "model_cfg", where)
    _check(vision, _TIMM_FIELDS if is_timm else _RESNET_FIELDS, "vision_cfg", where, ignored=_TRANSFORMER_ONLY)
    _check(text, _TEXT_FIELDS | {"pool_type": _ANY, "eos_id": _ANY}, "text_cfg", where)
    _check_pooling(text, where)
    _check(preprocessing, {"mode": (_one_of("RGB"), 'must be "RGB"')}, "preprocess_cfg", where, ignored=preprocessing)
    return settings


def _timm_settings(vision: Mapping[str, Any], model: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, side = vision["timm_model_name"], vision["image_size"]
    if not str(name).startswith("convnext"):
        raise ConversionError(f"{where}: of timm's image towers only ConvNeXts are converted, not {name}.")
    if isinstance(side, list | tuple):
        if len(set(side)) != 1:
            raise ConversionError(f"{where}: vision_cfg.image_size must be square, got {list(side)}.")
        side = side[0]
    if model.get("quick_gelu"):
        raise ConversionError(
            f"{where}: quick_gelu with an image tower of timm's means QuickGELU in the text tower to OpenCLIP from "
            "version 2.20 on, and GELU to earlier ones. Here such a text tower has GELU: take the field out if yours "
            "was trained so."
        )
    return {"image_size": side, "norm_eps": TIMM_NORM_EPS.get(name, 1e-6)}


def _check_pooling(text: Mapping[str, Any], where: str) -> None:
    """The text's embedding must be read at the end token, which has the highest number."""
    pooling, end = text.get("pool_type", "argmax"), text.get("eos_id")
    last = text.get("vocab_size", 49408) - 1
    if pooling != "argmax" and not (pooling == "eos" and end == last):
        raise ConversionError(
            f'{where}: text_cfg.pool_type {pooling!r} is not possible here; it must be "argmax", or "eos" with the '
            "highest token as eos_id: texts are read at their end token."
        )


def _check(
    fields: Mapping[str, Any],
    known: Mapping[str, _Check],
    part: str,
    where: str,
    ignored: Collection[str] = frozenset(),
) -> None:
    """Refuse fields with values that are not possible here; those that are `ignored` may have any."""
    for name, value in fields.items():
        is_possible, reason = known.get(name, _ANY if name in ignored else _UNKNOWN)
        if not is_possible(value):
            raise ConversionError(
                f"{where}: {part}.{name} ({value!r}) {reason}. It could change results without notice, so take the "
                "field out only if you know that it does not matter for this checkpoint."
            )


__all__ = ["TIMM_NORM_EPS", "settings_of_open_clip"]
