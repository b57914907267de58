"""Every key of each full-size released checkpoint, on the meta device: names, shapes and types without weights."""

import json

import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.conversion.configs import build_config, read_sizes
from hf_maskadapter.conversion.convert import check_weights, model_class_of
from hf_maskadapter.conversion.layouts import (
    LAYOUTS,
    MAFT_PLUS,
    OPENCLIP_RESNET,
    PARTS,
    convert_state_dict,
    fuse,
    recognize,
)
from hf_maskadapter.conversion.presets import choose_preset
from support.golden import FIXTURES

MANIFESTS = {path.stem: json.loads(path.read_text()) for path in sorted((FIXTURES / "manifests").glob("*.json"))}

pytestmark = pytest.mark.skipif(not MANIFESTS, reason="no manifests: set MASKADAPTER_FIXTURES to the full set")
every_manifest = pytest.mark.parametrize("name", MANIFESTS)


def meta_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict that a manifest describes."""
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in MANIFESTS[name].items()
    }


@every_manifest
def test_every_key_is_used_or_ignored_with_a_reason(name):
    state = meta_state(name)
    weights = convert_state_dict(state, recognize(state, name))
    assert weights.targets.keys() | weights.ignored.keys() == state.keys()
    assert weights.targets.keys().isdisjoint(weights.ignored)
    assert all(weights.ignored.values())


@every_manifest
def test_no_number_is_lost_or_made_up(name):
    state = meta_state(name)
    weights = convert_state_dict(state, recognize(state, name))
    assert sum(state[key].numel() for key in weights.targets) == sum(map(torch.numel, weights.state.values()))


@every_manifest
def test_shapes_are_those_of_the_model_that_the_preset_configures(name):
    state = meta_state(name)
    layout = recognize(state, name)
    weights = convert_state_dict(state, layout)
    sizes = read_sizes(weights.state, layout)
    preset = choose_preset(None, layout, sizes)
    assert preset is not None, "no preset for this released model"
    check_weights(model_class_of(layout), build_config(sizes, layout, preset.settings), weights.state, name)


def test_the_manifests_cover_every_layout_but_those_of_plain_maft_plus_and_resnets():
    found = {recognize(meta_state(name), name).name for name in MANIFESTS}
    assert found == {layout.name for layout in LAYOUTS} - {MAFT_PLUS.name, OPENCLIP_RESNET.name}


def without(state, *parts):
    """A state dict without some parts."""
    return {
        key: tensor for key, tensor in state.items() if not key.startswith(tuple(PARTS[p].source_prefix for p in parts))
    }


@pytest.mark.parametrize("clip", ["base", "large"])
def test_a_maft_plus_checkpoint_without_its_adapter_is_a_plain_one(clip):
    name = f"maftp_mask_adapter_convnext_{clip}"
    if name not in MANIFESTS:
        pytest.skip(f"needs the manifest {name}")
    state = without(meta_state(name), "adapter")
    layout = recognize(state, name)
    assert layout == MAFT_PLUS
    weights = convert_state_dict(state, layout)
    sizes = read_sizes(weights.state, layout)
    config = build_config(sizes, layout, choose_preset(None, layout, sizes).settings)
    check_weights(MaskAdapterForOpenVocabularySegmentation, config, weights.state, name)


FUSED = [
    ("warmup_fcclip_convnext_large", "fcclip_pooling_convnext_large", "fcclip_mask_adapter_convnext_large"),
    ("warmup_maft_convnext_base", None, "maftp_mask_adapter_convnext_base"),
    ("warmup_maft_convnext_large", None, "maftp_mask_adapter_convnext_large"),
]


@pytest.mark.parametrize(("warmup", "plain", "complete"), FUSED, ids=[row[2] for row in FUSED])
@pytest.mark.parametrize("warmup_has_transfer", [True, False])
def test_a_warmup_and_a_plain_checkpoint_fuse_to_the_released_model_with_both(
    warmup, plain, complete, warmup_has_transfer
):
    if not {warmup, plain or complete, complete} <= MANIFESTS.keys():
        pytest.skip("needs the manifests of all three")
    expected = meta_state(complete)
    first = meta_state(warmup) if warmup_has_transfer else without(meta_state(warmup), "transfer")
    second = meta_state(plain) if plain else without(expected, "adapter")
    fused, _ = fuse(first, second, "warm-up", "plain")
    ours = {key: tuple(tensor.shape) for key, tensor in fused.items()}
    assert ours == {key: tuple(tensor.shape) for key, tensor in expected.items() if key in ours}
    assert {key for key in expected if key not in ours} <= {"criterion.empty_weight"}
