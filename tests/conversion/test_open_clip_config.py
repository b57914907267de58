"""OpenCLIP's own configuration: what changes results is honoured or refused."""

import json

import pytest

from hf_maskadapter.conversion.errors import ConversionError
from hf_maskadapter.conversion.presets import read_settings

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 640, "heads": 10, "layers": 12}
CONVNEXT = {"timm_model_name": "convnext_base", "image_size": 256}
RESNET = {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None}


def config(vision=CONVNEXT, text=(), model=(), preprocessing=()):
    return {
        "model_cfg": {"embed_dim": 640, "vision_cfg": dict(vision), "text_cfg": TEXT | dict(text)} | dict(model),
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]} | dict(preprocessing),
    }


def test_settings_come_from_openclips_own_configuration():
    settings = read_settings(config())
    assert (settings.text_heads, settings.image_size, settings.norm_eps) == (10, 256, 1e-6)
    assert settings.image_mean == pytest.approx([127.5, 102, 76.5])


def test_the_largest_convnext_has_another_epsilon():
    assert read_settings(config(CONVNEXT | {"timm_model_name": "convnext_xxlarge"})).norm_eps == 1e-5


def test_an_incomplete_openclip_configuration_is_refused():
    with pytest.raises(ConversionError, match=r"open_clip_config\.json, but lacks 'vision_cfg'"):
        read_settings({"model_cfg": {"text_cfg": {"heads": 1}}})


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_a_resnet_has_the_activation_that_its_configuration_says(quick_gelu):
    assert read_settings(config(RESNET, model={"quick_gelu": quick_gelu})).quick_gelu is quick_gelu
    assert read_settings(config(RESNET)).quick_gelu is False


@pytest.mark.parametrize(
    "changes",
    [
        # What OpenCLIP writes for the CLIPs that FC-CLIP and MAFT+ use.
        {
            "vision": CONVNEXT
            | {
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "mlp",
                "timm_drop": 0.0,
                "timm_drop_path": 0.1,
            }
        },
        {"vision": CONVNEXT | {"timm_pool": "avg", "timm_proj": "linear", "image_size": [256, 256]}},
        {"vision": CONVNEXT | {"pool_type": "avg", "norm_kwargs": {"eps": 1e-3}}},  # read for vision transformers only
        {"vision": RESNET | {"head_width": 64}},
        {
            "text": {
                "no_causal_mask": False,
                "pool_type": "argmax",
                "norm_kwargs": None,
                "act_kwargs": {},
                "mlp_ratio": 4.0,
            }
        },
        {"text": {"norm_kwargs": {"eps": 1e-5}, "pool_type": "eos", "eos_id": 49407}},
        {"model": {"quick_gelu": False, "custom_text": False, "init_logit_bias": None}},
        {"preprocessing": {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest", "size": [256, 256]}},
    ],
)
def test_fields_that_ask_for_what_is_done_anyway_are_accepted(changes):
    assert read_settings(config(**changes)).text_heads == 10


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text": {"no_causal_mask": True}}, "text_cfg.no_causal_mask"),
        ({"text": {"pool_type": "last"}}, "text_cfg.pool_type"),
        ({"text": {"pool_type": "eos", "eos_id": 2}}, "text_cfg.pool_type"),
        ({"text": {"norm_kwargs": {"eps": 1e-6}}}, "text_cfg.norm_kwargs"),
        ({"text": {"act_kwargs": {"approximate": "tanh"}}}, "text_cfg.act_kwargs"),
        ({"text": {"hf_model_name": "xlm-roberta-base"}}, "text_cfg.hf_model_name"),
        ({"text": {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}}, "text_cfg.hf_tokenizer_name"),
        ({"text": {"tokenizer_kwargs": {"clean": "canonicalize"}}}, "text_cfg.tokenizer_kwargs"),
        ({"text": {"embed_cls": True}}, "text_cfg.embed_cls"),
        ({"text": {"proj_bias": True}}, "text_cfg.proj_bias"),
        ({"text": {"proj_type": "none"}}, "text_cfg.proj_type"),
        ({"text": {"qk_norm": True}}, "text_cfg.qk_norm"),
        ({"text": {"invented": 3}}, "text_cfg.invented"),
        ({"vision": CONVNEXT | {"timm_pool": "map"}}, "vision_cfg.timm_pool"),
        ({"vision": CONVNEXT | {"timm_proj": None}}, "vision_cfg.timm_proj"),
        ({"vision": CONVNEXT | {"timm_proj_bias": True}}, "vision_cfg.timm_proj_bias"),
        ({"vision": CONVNEXT | {"timm_model_kwargs": {"conv_mlp": True}}}, "vision_cfg.timm_model_kwargs"),
        ({"vision": CONVNEXT | {"image_size": [256, 128]}}, "vision_cfg.image_size"),
        ({"vision": CONVNEXT | {"timm_model_name": "vit_base_patch16_224"}}, "vit_base_patch16_224"),
        ({"vision": RESNET | {"head_width": 32}}, "vision_cfg.head_width"),
        ({"vision": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}}, "vision transformer"),
        ({"model": {"quick_gelu": True}}, "quick_gelu"),
        ({"model": {"init_logit_bias": -10}}, "model_cfg.init_logit_bias"),
        ({"model": {"multimodal_cfg": {"layers": 12}}}, "model_cfg.multimodal_cfg"),
        ({"preprocessing": {"mode": "L"}}, "preprocess_cfg.mode"),
    ],
)
def test_fields_that_would_change_results_are_refused(changes, field, tmp_path):
    file = tmp_path / "open_clip_config.json"
    file.write_text(json.dumps(config(**changes)))
    with pytest.raises(ConversionError) as caught:
        read_settings(file)
    assert str(file) in str(caught.value)
    assert field in str(caught.value)
