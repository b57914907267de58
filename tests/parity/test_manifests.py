"""Every key of each full-size released checkpoint, on the meta device: names, shapes and types without weights."""

import json

import pytest
import torch

from hf_maskadapter import ConvNextClipModel, MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.conversion import ConversionError
from hf_maskadapter.conversion.configs import build_config, read_sizes
from hf_maskadapter.conversion.convert import check_weights
from hf_maskadapter.conversion.layouts import LAYOUTS, OPENCLIP, PARTS, convert_state_dict, fuse, recognise
from hf_maskadapter.conversion.presets import choose_preset
from parity.golden import FIXTURES

MANIFESTS = {path.stem: json.loads(path.read_text()) for path in sorted((FIXTURES / "manifests").glob("*.json"))}
MAFT_PLUS = [name for name, manifest in MANIFESTS.items() if any(key.startswith("cdt.") for key in manifest)]
KNOWN = [name for name in MANIFESTS if name not in MAFT_PLUS]

pytestmark = pytest.mark.skipif(not MANIFESTS, reason="no manifests: set MASKADAPTER_FIXTURES to the full set")
known = pytest.mark.parametrize("name", KNOWN)
maft_plus = pytest.mark.parametrize("name", MAFT_PLUS)


def meta_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict that a manifest describes."""
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in MANIFESTS[name].items()
    }


@known
def test_every_key_is_used_or_ignored_with_a_reason(name):
    state = meta_state(name)
    weights = convert_state_dict(state, recognise(state, name))
    assert weights.targets.keys() | weights.ignored.keys() == state.keys()
    assert weights.targets.keys().isdisjoint(weights.ignored)
    assert all(weights.ignored.values())


@known
def test_no_number_is_lost_or_made_up(name):
    state = meta_state(name)
    weights = convert_state_dict(state, recognise(state, name))
    assert sum(state[key].numel() for key in weights.targets) == sum(map(torch.numel, weights.state.values()))


@known
def test_shapes_are_those_of_the_model_that_the_preset_configures(name):
    state = meta_state(name)
    layout = recognise(state, name)
    weights = convert_state_dict(state, layout)
    sizes = read_sizes(weights.state, layout)
    preset = choose_preset(None, layout, sizes)
    assert preset is not None, "no preset, or more than one, for this released model"
    model_class = ConvNextClipModel if layout == OPENCLIP else MaskAdapterForOpenVocabularySegmentation
    check_weights(model_class, build_config(sizes, layout, preset.settings), weights.state, name)


@maft_plus
def test_maft_plus_checkpoints_are_recognised_and_refused(name):
    with pytest.raises(ConversionError, match=r"MAFT\+ checkpoint"):
        recognise(meta_state(name), name)


@maft_plus
def test_every_part_of_a_maft_plus_checkpoint_but_the_text_transfer_has_known_keys(name):
    state = meta_state(name)
    renamed = [part.keys.rename(state, part.source_prefix, part.target_prefix) for part in PARTS.values()]
    assert not [key for part in renamed for key in part.unmatched]
    left = state.keys() - {key for part in renamed for key in part.targets}
    assert {key.split(".")[0] for key in left} <= {"cdt", "criterion"}


def test_the_manifests_cover_every_layout():
    found = {recognise(meta_state(name), name).name for name in KNOWN}
    assert found == {layout.name for layout in LAYOUTS}


def test_warmup_and_fcclip_fuse_to_the_released_model_with_both():
    states = {recognise(state, name).name: state for name, state in ((name, meta_state(name)) for name in KNOWN)}
    if not {"warmup", "fcclip", "fcclip_adapter"} <= states.keys():
        pytest.skip("needs the manifests of a warm-up, an FC-CLIP and a complete checkpoint")
    fused, _ = fuse(states["warmup"], states["fcclip"], "warm-up", "FC-CLIP")
    complete = states["fcclip_adapter"]
    ours = {key: tuple(tensor.shape) for key, tensor in fused.items()}
    assert ours == {key: tuple(tensor.shape) for key, tensor in complete.items() if key in ours}
    assert {key for key in complete if key not in ours} <= {"criterion.empty_weight"}
