"""The presets' facts, checked against the published configurations, written down here a second time."""

import dataclasses

import pytest

from hf_maskadapter.conversion import PRESETS, ConversionError, ConversionSettings
from hf_maskadapter.conversion.layouts import OPENCLIP_RESNET
from hf_maskadapter.conversion.layouts import WARMUP as WARMUP_LAYOUT
from hf_maskadapter.conversion.presets import (
    choose_preset,
    find_preset,
    has_effect,
    make_settings,
    read_settings,
    require_settings,
)

PLAIN, ADAPTER = "fcclip-convnext-large", "mask-adapter-fcclip-convnext-large"
WARMUP = "mask-adapter-warmup-fcclip-convnext-large"
PLAIN_MAFT, ADAPTER_MAFT = "maft-plus-convnext-{}", "mask-adapter-maft-plus-convnext-{}"
WARMUP_MAFT = "mask-adapter-warmup-maft-plus-convnext-{}"
MAFT_B, MAFT_L, MAFT_PANOPTIC = (PLAIN_MAFT.format(size) for size in ("base", "large", "large-panoptic"))
MAFT_B_ADAPTER, MAFT_L_ADAPTER, MAFT_L_OTHERS = (
    ADAPTER_MAFT.format(size) for size in ("base", "large", "large-semantic")
)
MAFT_B_WARMUP, MAFT_L_WARMUP = (WARMUP_MAFT.format(size) for size in ("base", "large"))
LARGE_CLIP, BASE_CLIP = "openclip-convnext-large-d-320", "openclip-convnext-base-w-320"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ADAPTER, {"ensemble_alpha": 0.7, "ensemble_beta": 0.9, "mask_threshold": 0.5, "overlap_threshold": 0.8}),
        (PLAIN, {"ensemble_alpha": 0.4, "ensemble_beta": 0.8, "mask_threshold": None, "overlap_threshold": 0.8}),
        (WARMUP, {"ensemble_alpha": None, "ensemble_beta": None, "mask_threshold": 0.45}),
        (MAFT_B, {"ensemble_alpha": 1.0, "ensemble_beta": 1.0, "mask_threshold": None, "overlap_threshold": 0.7}),
        (MAFT_L, {"ensemble_alpha": 1.0, "ensemble_beta": 1.0, "mask_threshold": None, "overlap_threshold": 0.7}),
        (
            MAFT_B_ADAPTER,
            {"ensemble_alpha": 0.7, "ensemble_beta": 1.0, "mask_threshold": 0.45, "overlap_threshold": 0.7},
        ),
        (
            MAFT_L_ADAPTER,
            {"ensemble_alpha": 0.8, "ensemble_beta": 1.0, "mask_threshold": 0.40, "overlap_threshold": 0.7},
        ),
        (
            MAFT_L_OTHERS,
            {"ensemble_alpha": 0.8, "ensemble_beta": 1.0, "mask_threshold": 0.40, "overlap_threshold": 0.7},
        ),
        (MAFT_B_WARMUP, {"ensemble_alpha": None, "mask_threshold": 0.45, "overlap_threshold": 0.8}),
        (MAFT_L_WARMUP, {"ensemble_alpha": None, "mask_threshold": 0.45, "overlap_threshold": 0.8}),
    ],
)
def test_ensemble_weights_and_thresholds_are_the_published_ones(name, expected):
    settings = PRESETS[name].settings
    assert {field: getattr(settings, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        (LARGE_CLIP, 12),
        (BASE_CLIP, 10),
        (ADAPTER, 12),
        (PLAIN, 12),
        (WARMUP, 12),
        (MAFT_B, 10),
        (MAFT_L, 12),
        (MAFT_PANOPTIC, 12),
        (MAFT_B_ADAPTER, 10),
        (MAFT_L_ADAPTER, 12),
        (MAFT_L_OTHERS, 12),
        (MAFT_B_WARMUP, 10),
        (MAFT_L_WARMUP, 12),
    ],
)
def test_text_heads_are_openclips(name, heads):
    assert PRESETS[name].settings.text_heads == heads


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (ADAPTER, (896, 896)),
        (PLAIN, (800, 1333)),
        (WARMUP, (800, 1333)),
        (MAFT_B, (800, 1333)),
        (MAFT_L, (800, 1333)),
        (MAFT_B_ADAPTER, (896, 896)),
        (MAFT_L_ADAPTER, (896, 896)),
        (MAFT_L_WARMUP, (800, 1333)),
    ],
)
def test_picture_sizes_are_those_of_the_published_evaluation(name, size):
    settings = PRESETS[name].settings
    assert (settings.shortest_edge, settings.longest_edge) == size


@pytest.mark.parametrize("name", PRESETS)
def test_pixels_are_normalized_with_clips_statistics(name):
    settings = PRESETS[name].settings
    assert settings.image_mean == pytest.approx([255 * x for x in (0.48145466, 0.4578275, 0.40821073)])
    assert settings.image_std == pytest.approx([255 * x for x in (0.26862954, 0.26130258, 0.27577711)])
    expected = (None, None) if PRESETS[name].layout == OPENCLIP_RESNET else (1e-6, 320)
    if name == "openclip-convnext-xxlarge":
        expected = (1e-5, 256)
    assert (settings.norm_eps, settings.image_size) == expected


@pytest.mark.parametrize(
    ("name", "object_threshold"),
    [
        (ADAPTER, 0.0),
        (PLAIN, 0.0),
        (MAFT_B, 0.2),
        (MAFT_L, 0.2),
        (MAFT_PANOPTIC, 0.2),
        (MAFT_B_ADAPTER, 0.0),
        (MAFT_L_ADAPTER, 0.0),
        (MAFT_L_OTHERS, 0.0),
    ],
)
def test_post_processing_is_the_published_one(name, object_threshold):
    settings = PRESETS[name].settings
    assert (settings.object_threshold, settings.instance_top_k) == (object_threshold, 100)
    assert settings.ensemble_on_valid_masks is False


@pytest.mark.parametrize(
    ("name", "panoptic"),
    [
        (MAFT_B, False),
        (MAFT_L, False),
        (MAFT_PANOPTIC, True),
        (MAFT_B_ADAPTER, False),
        (MAFT_L_ADAPTER, True),
        (MAFT_L_OTHERS, False),
        (MAFT_B_WARMUP, True),
        (MAFT_L_WARMUP, True),
    ],
)
def test_the_text_transfer_is_as_published(name, panoptic):
    settings = PRESETS[name].settings
    assert (settings.text_transfer_heads, settings.text_transfer_panoptic) == (8, panoptic)
    assert settings.mix_projected_positions is True


@pytest.mark.parametrize("name", [MAFT_B, MAFT_L, MAFT_B_ADAPTER, MAFT_L_ADAPTER, MAFT_L_OTHERS, MAFT_L_WARMUP])
def test_maft_plus_models_saw_coco_stuff_in_training(name):
    assert PRESETS[name].settings.training_vocabulary == "coco_stuff_171"
    assert len(PRESETS[name].settings.read_training_vocabulary()) == 171


@pytest.mark.parametrize("name", [MAFT_B, MAFT_L, MAFT_B_ADAPTER, MAFT_L_ADAPTER])
def test_maft_plus_has_100_queries(name):
    assert PRESETS[name].sizes["mask_generator_config.num_queries"] == 100


@pytest.mark.parametrize("name", [ADAPTER, PLAIN, WARMUP])
def test_fcclip_models_saw_coco_panoptic_in_training(name):
    assert PRESETS[name].settings.training_vocabulary == "coco_panoptic_133"
    assert len(PRESETS[name].settings.read_training_vocabulary()) == 133


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_everything_that_its_model_needs(name):
    require_settings(PRESETS[name].settings, PRESETS[name].layout)


def test_the_large_adapter_has_the_published_sizes():
    sizes = PRESETS[ADAPTER].sizes
    assert sizes["mask_generator_config.num_queries"] == 250
    assert (sizes["mask_channels"], sizes["hidden_size"], sizes["num_blocks"], sizes["num_output_maps"]) == (
        16,
        768,
        3,
        16,
    )


def nested(sizes):
    """The dotted sizes of a preset in the form in which they are read from weights."""
    result = {}
    for name, value in sizes.items():
        *path, last = name.split(".")
        target = result
        for step in path:
            target = target.setdefault(step, {})
        target[last] = value
    return result


#: Settings that the weights cannot tell apart, and the ones that are recognised.
SAME_WEIGHTS = {MAFT_PANOPTIC: MAFT_L, MAFT_L_OTHERS: MAFT_L_ADAPTER}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_recognized_by_layout_and_sizes_alone(name):
    preset, recognized = PRESETS[name], PRESETS[SAME_WEIGHTS.get(name, name)]
    assert choose_preset(None, preset.layout, nested(preset.sizes)) is recognized
    assert choose_preset(preset, preset.layout, nested(preset.sizes)) is preset


def test_a_warmup_without_its_text_transfer_is_recognized_by_name_or_if_it_can_be_no_other():
    large, base = PRESETS[MAFT_L_WARMUP], PRESETS[MAFT_B_WARMUP]
    assert choose_preset(None, WARMUP_LAYOUT, nested(large.sizes)) is PRESETS[WARMUP]
    assert choose_preset(large, WARMUP_LAYOUT, nested(large.sizes)) is large
    assert choose_preset(None, WARMUP_LAYOUT, nested(base.sizes)) is base
    settings = base.settings_for(WARMUP_LAYOUT)
    assert settings.text_transfer_heads is None
    assert settings.text_transfer_panoptic is None
    assert settings.mix_projected_positions is True


def test_no_preset_is_recognized_for_other_sizes():
    preset = PRESETS[ADAPTER]
    sizes = nested(preset.sizes | {"mask_generator_config.num_queries": 100})
    assert choose_preset(None, preset.layout, sizes) is None


def test_a_preset_that_contradicts_the_weights_is_refused_with_both_values():
    preset = PRESETS[ADAPTER]
    sizes = nested(preset.sizes | {"mask_generator_config.num_queries": 100})
    with pytest.raises(ConversionError, match=r"mask_generator_config\.num_queries is 100, the preset's is 250"):
        choose_preset(preset, preset.layout, sizes)


def test_a_preset_for_another_layout_is_refused_and_fitting_ones_are_named():
    with pytest.raises(ConversionError, match=f"without adapter.*Presets for .*: {PLAIN}"):
        choose_preset(PRESETS[ADAPTER], PRESETS[PLAIN].layout, nested(PRESETS[PLAIN].sizes))


def test_an_unknown_preset_gets_a_suggestion():
    with pytest.raises(ConversionError, match=f"Did you mean '{PLAIN}'"):
        find_preset("fcclip-convnet-large")


def test_all_missing_settings_are_named_at_once():
    with pytest.raises(ConversionError) as caught:
        require_settings(ConversionSettings(text_heads=2), PRESETS[ADAPTER].layout)
    message = str(caught.value)
    for name in ("norm_eps", "ensemble_alpha", "ensemble_beta", "training_vocabulary", "mask_threshold", ADAPTER):
        assert name in message
    assert "text_heads" not in message


def test_an_unknown_setting_gets_a_suggestion():
    with pytest.raises(ConversionError, match=r"unknown setting 'ensemble_alfa'.*Did you mean 'ensemble_alpha'"):
        make_settings({"ensemble_alfa": 0.5}, "The call")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text_heads", 0),
        ("text_heads", True),
        ("text_heads", 2.0),
        ("ensemble_alpha", 1.2),
        ("ensemble_alpha", "0.7"),
        ("mask_threshold", -0.1),
        ("norm_eps", 0),
        ("warmup_scoring", 1),
        ("text_transfer_heads", 0),
        ("text_transfer_panoptic", "on"),
        ("mix_projected_positions", 1),
        ("image_mean", [1, 2]),
        ("image_std", [1, 2, 0]),
        ("prompt_templates", "a photo of a {}"),
        ("prompt_templates", ["a photo"]),
    ],
)
def test_a_setting_of_the_wrong_type_or_range_is_refused_by_name(name, value):
    with pytest.raises(ConversionError, match=f"setting {name} "):
        ConversionSettings(**{name: value})


def test_an_unreadable_training_vocabulary_is_refused():
    with pytest.raises(ConversionError, match=r"training_vocabulary cannot be read.*nowhere\.txt"):
        ConversionSettings(training_vocabulary="nowhere.txt").read_training_vocabulary()


def test_training_synonyms_can_come_from_a_file(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("0:invalid_class_id\n1:person,child\n2:cat\n")
    assert ConversionSettings(training_vocabulary=file).read_training_vocabulary() == [["person", "child"], ["cat"]]


def test_settings_come_from_a_json_file(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"text_heads": 4, "ensemble_alpha": 0.5}')
    assert read_settings(file) == ConversionSettings(text_heads=4, ensemble_alpha=0.5)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[1]", "one JSON object"), ('{"x": 1}', "unknown")]
)
def test_a_useless_json_file_is_refused(tmp_path, text, message):
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(ConversionError, match=rf"settings\.json.*{message}"):
        read_settings(file)


def test_a_missing_json_file_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="cannot be read: No such file"):
        read_settings(tmp_path / "settings.json")


def test_given_settings_replace_others():
    first, second = ConversionSettings(text_heads=4, norm_eps=1e-6), ConversionSettings(text_heads=8)
    assert first.updated(second) == ConversionSettings(text_heads=8, norm_eps=1e-6)


def test_every_setting_is_documented():
    text = ConversionSettings.__doc__
    assert all(setting.name in text for setting in dataclasses.fields(ConversionSettings))


def test_settings_of_absent_parts_have_no_effect():
    assert not has_effect("ensemble_alpha", PRESETS[WARMUP].layout)
    assert not has_effect("mask_threshold", PRESETS[PLAIN].layout)
    assert not has_effect("overlap_threshold", PRESETS[LARGE_CLIP].layout)
    assert not has_effect("text_transfer_panoptic", PRESETS[ADAPTER].layout)
    assert not has_effect("mix_projected_positions", PRESETS[PLAIN].layout)
    layout = PRESETS[MAFT_L_ADAPTER].layout
    without = {
        setting.name for setting in dataclasses.fields(ConversionSettings) if not has_effect(setting.name, layout)
    }
    assert without == {"quick_gelu"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_has_an_effect(name):
    preset = PRESETS[name]
    assert all(has_effect(setting, preset.layout) for setting in preset.settings.given())
