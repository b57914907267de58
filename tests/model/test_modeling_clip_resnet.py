"""OpenAI's ResNet CLIPs and OpenCLIP's largest ConvNeXt: conversion of the public layouts, and the results."""

import pytest
import torch
from torch.nn import functional as F

from hf_maskadapter.conversion import convert_checkpoint
from hf_maskadapter.conversion.configs import build_config, read_sizes
from hf_maskadapter.conversion.convert import check_weights, model_class_of
from hf_maskadapter.conversion.layouts import OPENCLIP, OPENCLIP_RESNET, convert_state_dict, recognize
from hf_maskadapter.conversion.presets import choose_preset, read_settings
from support import released_checkpoints as released

HEADS = 4  # 256 channels of the last stage, 64 each


@pytest.fixture(scope="module")
def state():
    return released.openai_resnet()


@pytest.fixture(scope="module")
def model(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "open_clip_pytorch_model.bin"
    torch.save(state, path)
    return convert_checkpoint(path, text_heads=2, quick_gelu=True).model.eval()


def reference_feature_maps(state, features):
    """The trunk, step by step from its published description and the names of its weights."""

    def conv_norm(features, conv, norm, **options):
        statistics = [state[f"visual.{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(F.conv2d(features, state[f"visual.{conv}.weight"], **options), *statistics)

    features = conv_norm(features, "conv1", "bn1", stride=2, padding=1).relu()
    features = conv_norm(features, "conv2", "bn2", padding=1).relu()
    features = F.avg_pool2d(conv_norm(features, "conv3", "bn3", padding=1).relu(), 2)
    maps = []
    for stage in (1, 2, 3, 4):
        block = 0
        while f"visual.layer{stage}.{block}.conv1.weight" in state:
            name = f"layer{stage}.{block}"
            hidden = conv_norm(features, f"{name}.conv1", f"{name}.bn1").relu()
            hidden = conv_norm(hidden, f"{name}.conv2", f"{name}.bn2", padding=1).relu()
            if stage > 1 and block == 0:
                hidden, features = F.avg_pool2d(hidden, 2), F.avg_pool2d(features, 2)
            hidden = conv_norm(hidden, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                features = conv_norm(features, f"{name}.downsample.0", f"{name}.downsample.1")
            features = (hidden + features).relu()
            block += 1
        maps.append(features)
    return maps


def reference_pooling(state, features):
    """OpenAI's attention pooling by PyTorch's own multi-head attention; positions are resized as FC-CLIP does."""
    pool = {key.removeprefix("visual.attnpool."): value for key, value in state.items() if "attnpool" in key}
    batch_size, channels, height, width = features.shape
    positions = pool["positional_embedding"]
    side = int((len(positions) - 1) ** 0.5)
    grid = F.interpolate(positions[1:].T.reshape(1, channels, side, side), size=(height, width), mode="bilinear")
    positions = torch.cat([positions[:1], grid.reshape(channels, -1).T])
    tokens = features.reshape(batch_size, channels, -1).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + positions[:, None]
    biases = torch.cat([pool[f"{part}_proj.bias"] for part in "qkv"])
    weights = {f"{part}_proj_weight": pool[f"{part}_proj.weight"] for part in "qkv"}
    pooled, _ = F.multi_head_attention_forward(
        tokens[:1], tokens, tokens, channels, HEADS, None, biases, None, None, False, 0.0,
        pool["c_proj.weight"], pool["c_proj.bias"], training=False, use_separate_proj_weight=True, **weights,
    )  # fmt: skip
    return pooled[0]


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_feature_maps_and_whole_pictures_equal_an_independent_computation(state, model, size):
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = reference_feature_maps(state, pixel_values)
    with torch.no_grad():
        output = model(pixel_values)
    for ours, theirs in zip(output.feature_maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.image_embeds, reference_pooling(state, expected[-1]), rtol=1e-4, atol=1e-4)


def test_the_projection_is_the_value_path_of_the_attention_pooling(state, model):
    features = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    pool = "visual.attnpool."
    values = F.linear(features, state[f"{pool}v_proj.weight"], state[f"{pool}v_proj.bias"])
    expected = F.linear(values, state[f"{pool}c_proj.weight"], state[f"{pool}c_proj.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model.project(features), expected, rtol=1e-4, atol=1e-4)


def test_sizes_and_settings_reach_the_configuration(model):
    config = model.config
    assert (config.width, config.depths, config.num_attention_heads) == (8, [2, 1, 1, 1], HEADS)
    assert (config.image_size, config.projection_dim) == (64, released.EMBED_DIM)
    assert (config.feature_channels, config.feature_strides) == ([32, 64, 128, 256], [4, 8, 16, 32])
    assert (config.text_config.hidden_act, config.text_config.num_attention_heads) == ("quick_gelu", 2)


def test_gelu_of_texts_is_a_setting(state, tmp_path):
    torch.save(state, tmp_path / "clip.bin")
    config = convert_checkpoint(tmp_path / "clip.bin", text_heads=2, quick_gelu=False).model.config
    assert config.text_config.hidden_act == "gelu"


def test_an_open_clip_config_of_a_resnet_is_read():
    model = {"vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64}, "text_cfg": {"heads": 8}}
    assert read_settings({"model_cfg": model}).given() == {"text_heads": 8, "quick_gelu": False}
    assert read_settings({"model_cfg": model | {"quick_gelu": True}}).quick_gelu is True


def configure(shapes):
    """Recognise a model of these shapes, convert it on the meta device, and check its weights."""
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    layout = recognize(state, "the model")
    weights = convert_state_dict(state, layout)
    assert weights.targets.keys() == state.keys()
    sizes = read_sizes(weights.state, layout)
    preset = choose_preset(None, layout, sizes)
    config = build_config(sizes, layout, preset.settings)
    check_weights(model_class_of(layout), config, weights.state, "the model")
    return layout, preset, config


def test_the_largest_openclip_convnext_is_recognized_with_its_own_epsilon():
    shapes = released.convnext_clip_shapes([384, 768, 1536, 3072], [3, 4, 30, 3], None, 1024, 1024, 24, 49408)
    layout, preset, config = configure(shapes)
    assert (layout, preset.name) == (OPENCLIP, "openclip-convnext-xxlarge")
    assert (config.norm_eps, config.image_size, config.text_config.num_attention_heads) == (1e-5, 256, 16)


@pytest.mark.parametrize(
    ("name", "arguments", "heads"),
    [
        ("openai-rn50", (64, [3, 4, 6, 3], 1024, 224, 512), 32),
        ("openai-rn101", (64, [3, 4, 23, 3], 512, 224, 512), 32),
        ("openai-rn50x4", (80, [4, 6, 10, 6], 640, 288, 640), 40),
        ("openai-rn50x16", (96, [6, 8, 18, 8], 768, 384, 768), 48),
        ("openai-rn50x64", (128, [3, 15, 36, 10], 1024, 448, 1024), 64),
    ],
)
def test_every_openai_resnet_is_recognized(name, arguments, heads):
    layout, preset, config = configure(released.resnet_clip_shapes(*arguments, 12, 49408))
    assert (layout, preset.name) == (OPENCLIP_RESNET, name)
    assert (config.num_attention_heads, config.image_size) == (heads, arguments[3])
    assert config.text_config.num_attention_heads == arguments[4] // 64
