"""Conversion of released checkpoints: names, values, files, settings, fusing, saving and every error."""

import dataclasses
import json
import os
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors as hub_errors
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForUniversalSegmentation, AutoProcessor, CLIPTokenizer

from hf_maskadapter import (
    ConvNextClipModel,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterImageProcessorPil,
    MaskAdapterProcessor,
    ResNetClipModel,
)
from hf_maskadapter.conversion import ConversionError, ConversionSettings, Preset, convert, convert_checkpoint, reading
from hf_maskadapter.conversion.key_tables import KeyTable, Split, Transposed, split_attention
from hf_maskadapter.conversion.layouts import FCCLIP_ADAPTER, MAFT_PLUS_ADAPTER
from hf_maskadapter.conversion.presets import PRESETS
from support import released_checkpoints as released

STATES = {
    "openclip": released.openclip,
    "openclip_resnet": released.openai_resnet,
    "fcclip": released.fcclip,
    "fcclip_adapter": released.fcclip_adapter,
    "warmup": released.warmup,
    "maft_plus": released.maft_plus,
    "maft_plus_adapter": released.maft_plus_adapter,
    "maft_plus_warmup": released.maft_plus_warmup,
}
SETTINGS = {
    "openclip": released.CLIP_SETTINGS,
    "openclip_resnet": {"text_heads": 2, "quick_gelu": True},
    "fcclip": released.CLIP_SETTINGS | released.GENERATOR_SETTINGS,
    "fcclip_adapter": released.SETTINGS,
    "warmup": released.CLIP_SETTINGS | released.ADAPTER_SETTINGS,
    "maft_plus": released.CLIP_SETTINGS | released.GENERATOR_SETTINGS | released.TRANSFER_SETTINGS,
    "maft_plus_adapter": released.SETTINGS | released.TRANSFER_SETTINGS,
    "maft_plus_warmup": released.CLIP_SETTINGS | released.ADAPTER_SETTINGS | released.TRANSFER_SETTINGS,
}
IGNORED = {
    "fcclip": {"criterion.empty_weight": "class weights of the training loss"},
    "fcclip_adapter": {"criterion.empty_weight": "class weights of the training loss"},
    "maft_plus": {"backbone_t.clip_model.logit_scale": "the original CLIP, which held MAFT+'s own to it in training"},
    "maft_plus_adapter": {"criterion.empty_weight": "class weights of the training loss"},
}


@pytest.fixture(autouse=True)
def _without_network(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(convert, "get_hf_file_metadata", fail)
    monkeypatch.setattr(convert, "try_to_load_from_cache", lambda repository, file: None)


@pytest.fixture
def write(tmp_path):
    """Write a checkpoint file."""

    def write_file(content, name="checkpoint.pth") -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return path

    return write_file


@pytest.fixture
def tokenizer():
    """As many tokens as the tiny text tower has."""
    tokens = [*"abcde", *(f"{letter}</w>" for letter in "abcde"), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def convert_kind(write, kind, state=None, **options):
    return convert_checkpoint(write({"model": state or STATES[kind]()}), **SETTINGS[kind] | options)


def assert_refused(message, *args, **options) -> ConversionError:
    with pytest.raises(ConversionError, match=message) as caught:
        convert_checkpoint(*args, **options)
    return caught.value


# --- names, sizes and values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATES)
def test_every_key_is_used_or_named_with_a_reason(write, kind):
    state = STATES[kind]()
    report = convert_kind(write, kind).report
    assert report.used.keys() | report.ignored.keys() == state.keys()
    assert report.used.keys().isdisjoint(report.ignored)
    assert report.ignored == IGNORED.get(kind, {})


@pytest.mark.parametrize("kind", STATES)
def test_every_number_of_the_checkpoint_is_in_the_model(write, kind):
    state = STATES[kind]()
    model, _, _, report = convert_kind(write, kind)
    weights = model.state_dict()
    assert {name for names in report.used.values() for name in names} == weights.keys()
    for key, names in report.used.items():
        ours = torch.cat([weights[name].flatten() for name in names])
        theirs = state[key].T if key.endswith("text_projection") else state[key]
        torch.testing.assert_close(ours, theirs.flatten(), rtol=0, atol=0)


def test_the_kind_of_model_follows_from_the_keys(write):
    models = {kind: convert_kind(write, kind).model for kind in STATES}
    assert isinstance(models["openclip"], ConvNextClipModel)
    assert isinstance(models["openclip_resnet"], ResNetClipModel)
    segmenters = [model for kind, model in models.items() if not kind.startswith("openclip")]
    assert all(isinstance(model, MaskAdapterForOpenVocabularySegmentation) for model in segmenters)
    assert [model.mask_generator is not None for model in segmenters] == [True, True, False] * 2
    assert [model.adapter is not None for model in segmenters] == [False, True, True] * 2
    assert [model.text_transfer is not None for model in segmenters] == [False] * 3 + [True] * 3
    assert [model.config.mask_embedding for model in segmenters] == ["pooling", "adapter", "adapter"] * 2


def test_sizes_are_read_from_the_weights(write):
    config = convert_kind(write, "fcclip_adapter").model.config
    clip, generator = config.clip_config, config.mask_generator_config
    assert (clip.hidden_sizes, clip.depths, clip.kernel_sizes) == (released.HIDDEN_SIZES, released.DEPTHS, 7)
    assert (clip.patch_size, clip.projection_dim, clip.projection_hidden_dim) == (4, released.EMBED_DIM, 28)
    text = clip.text_config
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (8, 32, released.TEXT_LAYERS)
    assert (text.vocab_size, text.eos_token_id, text.max_position_embeddings) == (12, 11, 77)
    assert (text.hidden_act, text.layer_norm_eps) == ("gelu", 1e-5)
    assert (generator.num_queries, generator.hidden_dim, generator.num_attention_heads) == (6, 32, released.HEADS)
    assert (generator.encoder_layers, generator.decoder_layers) == (1, released.DECODER_LAYERS + 1)
    assert (generator.encoder_feedforward_dim, generator.dim_feedforward, generator.common_stride) == (40, 24, 4)
    assert (config.mask_channels, config.hidden_size, config.num_blocks, config.num_output_maps) == (8, 20, 3, 4)


def test_a_linear_head_is_told_from_an_mlp(write):
    model = convert_kind(write, "openclip", state=released.openclip(mlp_head=False)).model
    assert model.config.projection_hidden_dim is None
    assert model.visual_projection.fc1 is None


def test_adapter_blocks_are_counted_from_zero(write):
    state = released.warmup()
    model = convert_kind(write, "warmup", state=state).model
    torch.testing.assert_close(model.adapter.blocks[2].layer_scale.data, state["mask_adapter.cnext3.gamma"])


def test_the_text_towers_fused_attention_equals_pytorchs(write):
    state = released.openclip()
    attention = convert_kind(write, "openclip", state=state).model.text_model.text_model.encoder.layers[1].self_attn
    reference = torch.nn.MultiheadAttention(released.TEXT_WIDTH, 2, batch_first=True)
    prefix = "transformer.resblocks.1.attn."
    reference.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})
    hidden = torch.randn(1, 5, released.TEXT_WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(attention(hidden)[0], reference(hidden, hidden, hidden)[0])


def test_the_decoders_fused_self_attention_equals_pytorchs(write):
    state = released.fcclip()
    model = convert_kind(write, "fcclip", state=state).model
    attention = model.mask_generator.transformer_module.decoder.layers[2].self_attn
    reference = torch.nn.MultiheadAttention(released.HIDDEN_DIM, released.HEADS)
    prefix = "sem_seg_head.predictor.transformer_self_attention_layers.2.self_attn."
    reference.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})
    hidden = torch.randn(6, 1, released.HIDDEN_DIM)
    with torch.no_grad():
        ours = attention(hidden, position_embeddings=torch.zeros_like(hidden))[0]
        torch.testing.assert_close(ours, reference(hidden, hidden, hidden)[0])


def test_the_text_transfers_fused_attention_equals_pytorchs(write):
    state = released.maft_plus()
    attention = convert_kind(write, "maft_plus", state=state).model.text_transfer.attention
    reference = torch.nn.MultiheadAttention(released.EMBED_DIM, released.TRANSFER_SETTINGS["text_transfer_heads"])
    prefix = "cdt.cross_atten.multihead_attn."
    reference.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})
    texts, features = torch.randn(3, 1, released.EMBED_DIM), torch.randn(7, 1, released.EMBED_DIM)
    with torch.no_grad():
        ours = attention(texts.transpose(0, 1), features.transpose(0, 1), features.transpose(0, 1))[0]
        torch.testing.assert_close(ours.transpose(0, 1), reference(texts, features, features)[0])


def test_half_precision_weights_become_fp32_without_loss(write):
    state = {key: tensor.half() for key, tensor in released.openclip().items()}
    model = convert_kind(write, "openclip", state=state).model
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(model.logit_scale.data, state["logit_scale"].float())


def test_key_tables_split_transpose_and_count_down():
    table = KeyTable({"a{n}.{p}": "b.{n_minus_1}.{p}", "qkv": Split(("q", "k", "v")), "t": Transposed("t")})
    matrix = torch.arange(6.0).reshape(3, 2)
    renamed = table.rename(
        {"x.a3.bias": matrix, "x.qkv": matrix, "x.t": matrix, "x.other": matrix, "y": matrix}, "x.", "z."
    )
    assert renamed.unmatched == ["x.other"]
    assert renamed.state.keys() == {"z.b.2.bias", "z.q", "z.k", "z.v", "z.t"}
    torch.testing.assert_close(renamed.state["z.k"], matrix[1:2])
    torch.testing.assert_close(renamed.state["z.t"], matrix.T)
    assert split_attention("a", "bias").targets == ("a.q_proj.bias", "a.k_proj.bias", "a.v_proj.bias")


def test_two_keys_for_one_weight_are_refused(write):
    state = released.openclip() | {"visual.head.proj.weight": torch.zeros(16, 32)}
    assert_refused("both stand for visual_projection.fc2.weight", write(state), **released.CLIP_SETTINGS)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("name", ["checkpoint.pth", "open_clip_pytorch_model.bin"])
def test_flat_and_nested_state_dicts_are_read(write, wrap, name):
    converted = convert_checkpoint(write(wrap(released.openclip()), name), **released.CLIP_SETTINGS)
    assert len(converted.report.used) == len(released.openclip())


def test_safetensors_files_are_read(tmp_path):
    path = tmp_path / "open_clip_model.safetensors"
    save_file(released.openclip(), path)
    assert len(convert_checkpoint(path, **released.CLIP_SETTINGS).report.used) == len(released.openclip())


def test_the_prefix_of_data_parallel_training_is_dropped(write):
    state = {f"module.{key}": tensor for key, tensor in released.openclip().items()}
    assert convert_kind(write, "openclip", state=state).report.used.keys() == released.openclip().keys()


def test_training_state_beside_the_weights_is_reported_as_ignored(write):
    content = {"model": released.warmup(), "iteration": 9, "optimizer": {"state": {}}, "scheduler": {}, "extra": 1}
    report = convert_checkpoint(write(content), **SETTINGS["warmup"]).report
    assert report.ignored.keys() == {"iteration", "optimizer", "scheduler", "extra"}
    assert "optimizer" in report.ignored["optimizer"]


def test_a_causal_mask_of_an_older_file_is_reported_as_ignored(write):
    state = released.fcclip() | {"backbone.clip_model.attn_mask": torch.zeros(77, 77)}
    assert "causal mask" in convert_kind(write, "fcclip", state=state).report.ignored["backbone.clip_model.attn_mask"]


class _Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path, write, form):
    marker = tmp_path / "executed"
    content = {"model": released.openclip(), "hook": _Code(marker)}
    path = write(content if form == "zip" else pickle.dumps({"hook": _Code(marker)}, protocol=2))
    error = assert_refused(r"refused: .*mkdir.*Nothing was executed", path, tmp_path / "out", **released.CLIP_SETTINGS)
    assert "\n" not in str(error)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_weights_are_mapped_from_disk_not_read(write):
    path = write({"model": released.openclip()})
    state = reading.read_checkpoint(path).state
    mapped = Path("/proc/self/maps")
    if not mapped.exists():
        pytest.skip("only Linux tells what is mapped")
    assert str(path) in mapped.read_text()
    assert torch.equal(state["logit_scale"], released.openclip()["logit_scale"])


def test_a_large_model_is_written_in_shards_and_checked_without_a_second_one(write, tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(convert, "_SHARD_SIZE", "20KB")
    loaded = []
    original = ConvNextClipModel.from_pretrained.__func__
    monkeypatch.setattr(
        ConvNextClipModel,
        "from_pretrained",
        classmethod(lambda cls, name, *args, **options: loaded.append(name) or original(cls, name, *args, **options)),
    )
    convert_checkpoint(write(released.openclip()), tmp_path / "out", tokenizer=tokenizer, **released.CLIP_SETTINGS)
    assert loaded == [None]  # the converted weights, once; nothing from the folder
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    again = convert_checkpoint(write(released.openclip()), **released.CLIP_SETTINGS).model.state_dict()
    saved = original(ConvNextClipModel, tmp_path / "out").state_dict()
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in again)


def test_a_model_that_was_not_written_as_converted_is_refused(write, tmp_path, monkeypatch, tokenizer):
    original = ConvNextClipModel.save_pretrained

    def save_wrongly(model, *args, **options):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        state["logit_scale"] += 1
        original(model, *args, state_dict=state, **options)

    monkeypatch.setattr(ConvNextClipModel, "save_pretrained", save_wrongly)
    path, output = write(released.openclip()), tmp_path / "out"
    options = {"tokenizer": tokenizer, **released.CLIP_SETTINGS}
    assert_refused("saved model is not the converted one: logit_scale", path, output, **options)
    assert not output.exists()


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, kept, form):
    path = tmp_path / "checkpoint"
    if form == "safetensors":
        save_file(released.openclip(), path)
    else:
        torch.save(released.openclip(), path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert_refused("checkpoint is truncated", path, tmp_path / "out", **released.CLIP_SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_file_damaged_inside_is_refused(write):
    path = write(released.openclip())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("checkpoint/data.pkl").header_offset + 100
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    assert_refused("truncated|damaged", path, **released.CLIP_SETTINGS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"hello, this is a text", "not a checkpoint that PyTorch or safetensors wrote"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(write, content, message):
    assert_refused(message, write(content), text_heads=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no state dict but list"),
        ({"a": 1, "b": {"c": 2}}, "no state dict, neither flat nor under 'model'.*'a', 'b'"),
        ({"layer.weight": torch.zeros(2)}, "no checkpoint that is known here; its keys are layer.weight"),
    ],
)
def test_an_unknown_checkpoint_is_refused(write, content, message):
    assert_refused(message, write(content), text_heads=2)


def test_values_that_are_not_finite_are_refused(write):
    state = released.openclip()
    state["ln_final.bias"][3] = float("nan")
    assert_refused("ln_final.bias hold values that are not finite", write(state), **released.CLIP_SETTINGS)


def test_entries_that_are_not_tensors_are_reported_as_ignored(write):
    report = convert_kind(write, "openclip", state=released.openclip() | {"version": 2}).report
    assert report.ignored == {"version": "not a tensor but int"}


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(r"There is no file .*nowhere\.pth.*owner/name:path", tmp_path / "nowhere.pth")


def test_a_folder_is_refused_and_its_checkpoints_are_named(write):
    path = write({"a": 1})
    assert_refused(r"is a folder.*checkpoint\.pth", path.parent)


# --- files on the Hub -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "revision"),
    [
        ("owner/name:folder/checkpoint.pth", None),
        ("hf://owner/name/folder/checkpoint.pth", None),
        ("hf://owner/name@v1/folder/checkpoint.pth", "v1"),
    ],
)
def test_a_file_on_the_hub_is_fetched(write, monkeypatch, source, revision):
    path, calls = write(released.openclip()), []

    def download(repo, file, revision, token):
        calls.append((repo, file, revision, token))
        return str(path)

    monkeypatch.setattr(reading, "hf_hub_download", download)
    report = convert_checkpoint(source, token="secret", **released.CLIP_SETTINGS).report
    assert calls == [("owner/name", "folder/checkpoint.pth", revision, "secret")]
    assert list(report.sources) == ["owner/name:folder/checkpoint.pth"]
    assert "secret" not in str(report.to_dict())


def _response(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_errors.LocalEntryNotFoundError("x"), "cannot be reached.*download the file elsewhere"),
        (hub_errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE"),
        (hub_errors.GatedRepoError("x", response=_response(403)), "access to it must be requested.*hf auth login"),
        (hub_errors.RepositoryNotFoundError("x", response=_response(404)), "no such repository, or it is private"),
        (hub_errors.RevisionNotFoundError("x", response=_response(404)), "no such revision"),
        (
            hub_errors.RemoteEntryNotFoundError("x", response=_response(404)),
            "has no file checkpoint.pth; it has other.pth",
        ),
        (hub_errors.HfHubHTTPError("server error\nmore", response=_response(500)), "Cannot fetch .*: server error"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_a_failed_download_says_what_to_do(monkeypatch, error, message):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(reading, "hf_hub_download", download)
    monkeypatch.setattr(reading, "list_repo_files", lambda *args, **kwargs: ["README.md", "other.pth"])
    assert_refused(message, "owner/name:checkpoint.pth")


def test_a_repository_without_a_file_is_refused():
    assert_refused("name the file in it: owner/name:path", "owner/name")


# --- weights that do not fit ------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused(write):
    state = released.fcclip() | {"sem_seg_head.predictor.surprise.weight": torch.zeros(2)}
    assert_refused("1 weights that such a model does not have: .*surprise", write(state), **SETTINGS["fcclip"])


@pytest.mark.parametrize(
    "key",
    [
        "mask_adapter.cnext2.norm.weight",
        "backbone.clip_model.transformer.resblocks.0.ln_1.bias",
        "sem_seg_head.predictor.query_embed.weight",
        "sem_seg_head.predictor.query_feat.weight",
        "void_embedding.weight",
        "backbone.clip_model.visual.trunk.stages.2.blocks.0.conv_dw.weight",
    ],
)
def test_a_missing_key_is_refused(write, key):
    state = released.fcclip_adapter()
    del state[key]
    assert_refused("incomplete", write(state), **released.SETTINGS)


def test_a_weight_of_another_size_is_refused(write):
    state = released.fcclip_adapter() | {"mask_adapter.norm.bias": torch.zeros(3)}
    assert_refused(r"adapter\.norm\.bias is \(3,\) instead of \(20,\)", write(state), **released.SETTINGS)


def test_parts_of_different_models_are_refused(write):
    state = released.fcclip() | {"sem_seg_head.predictor.class_embed.layers.2.weight": torch.zeros(9, 32)}
    assert_refused("parts do not fit together: .*text_embed_dim", write(state), **SETTINGS["fcclip"])


def test_a_clip_with_another_image_tower_is_refused(write):
    state = {"visual.conv1.weight": torch.zeros(2), "transformer.resblocks.0.ln_1.bias": torch.zeros(2)}
    assert_refused("no ConvNeXt image tower.*Transformers' own CLIPs need no conversion", write(state))


def test_a_generator_without_its_clip_is_refused(write):
    state = {key: tensor for key, tensor in released.fcclip().items() if key.startswith("sem_seg_head")}
    assert_refused(r"no CLIP \(backbone\.clip_model", write(state))


def test_a_text_transfer_with_a_missing_weight_is_refused(write):
    state = released.maft_plus_adapter()
    del state["cdt.cross_atten.MLP.weight"]
    options = SETTINGS["maft_plus_adapter"]
    assert_refused(r"incomplete: 1 .* text_transfer\.projection\.weight", write(state), **options)


def test_a_text_transfer_alone_beside_a_clip_is_refused(write):
    state = released.openclip(prefix="backbone.clip_model.") | released.transfer()
    assert_refused("no checkpoint that is known here", write(state), **SETTINGS["maft_plus"])


def test_a_teacher_outside_maft_plus_is_refused(write):
    state = released.fcclip() | {"backbone_t.clip_model.logit_scale": torch.zeros(())}
    assert_refused("weights that such a model does not have: backbone_t", write(state), **SETTINGS["fcclip"])


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_reach_the_configurations_and_the_image_processor(write):
    converted = convert_kind(
        write,
        "fcclip_adapter",
        image_size=64,
        ensemble_on_valid_masks=True,
        object_threshold=0.1,
        instance_top_k=7,
        decoder_heads=released.HEADS,
        shortest_edge=96,
        longest_edge=128,
        image_mean=[1.0, 2.0, 3.0],
        image_std=[4.0, 5.0, 6.0],
    )
    config = converted.model.config
    assert (config.ensemble_alpha, config.ensemble_beta, config.mask_threshold) == (0.3, 0.6, 0.45)
    assert (config.overlap_threshold, config.object_threshold, config.instance_top_k) == (0.7, 0.1, 7)
    assert config.training_vocabulary == [["cat", "kitten"], ["sky"]]
    assert config.ensemble_on_valid_masks is True
    assert (config.clip_config.text_config.num_attention_heads, config.clip_config.image_size) == (2, 64)
    image_processor = converted.image_processor
    assert dict(image_processor.size) == {"shortest_edge": 96, "longest_edge": 128}
    assert list(image_processor.image_mean) == [1.0, 2.0, 3.0]
    assert list(image_processor.image_std) == [4.0, 5.0, 6.0]


@pytest.fixture
def tiny_preset(monkeypatch):
    preset = Preset(
        "tiny",
        "a tiny model",
        FCCLIP_ADAPTER,
        {"mask_generator_config.num_queries": 6},
        ConversionSettings(**released.SETTINGS),
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    return preset


def test_settings_of_the_call_go_before_the_files_before_the_presets(write, tmp_path, tiny_preset):
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"ensemble_alpha": 0.11, "ensemble_beta": 0.22}))
    model = convert_checkpoint(
        write(released.fcclip_adapter()), preset="tiny", config=config, ensemble_alpha=0.99
    ).model
    assert (model.config.ensemble_alpha, model.config.ensemble_beta, model.config.mask_threshold) == (0.99, 0.22, 0.45)


def test_a_released_model_needs_no_preset_by_name_and_the_report_says_so(write, tiny_preset):
    report = convert_checkpoint(write(released.fcclip_adapter())).report
    assert report.preset == "tiny"
    assert any("a tiny model" in note for note in report.notes)


def test_the_report_names_the_other_models_that_the_weights_can_be(write, monkeypatch, tiny_preset):
    assert not any("cannot tell" in note for note in convert_checkpoint(write(released.fcclip_adapter())).report.notes)
    other = dataclasses.replace(tiny_preset, name="other", title="another model")
    reduced = dataclasses.replace(other, name="reduced", layout=MAFT_PLUS_ADAPTER, reduced_layout=FCCLIP_ADAPTER)
    monkeypatch.setitem(PRESETS, "other", other)
    monkeypatch.setitem(PRESETS, "reduced", reduced)
    report = convert_checkpoint(write(released.fcclip_adapter())).report
    assert report.preset == "tiny"
    (note,) = [note for note in report.notes if "cannot tell" in note]
    assert "another model (preset other); another model, a part left out (preset reduced)" in note
    by_name = convert_checkpoint(write(released.fcclip_adapter()), preset="other").report
    assert by_name.preset == "other"
    assert not any("cannot tell" in note for note in by_name.notes)


def test_a_preset_that_contradicts_the_weights_is_refused(write, tmp_path):
    path = write(released.fcclip_adapter())
    assert_refused(
        "contradicts the weights: .*hidden_sizes", path, tmp_path / "out", "mask-adapter-fcclip-convnext-large"
    )
    assert not (tmp_path / "out").exists()


def test_missing_settings_are_named(write):
    assert_refused("cannot tell text_heads, norm_eps, .*mask_threshold", write(released.fcclip_adapter()))


def test_heads_that_do_not_divide_the_width_are_refused(write):
    path = write(released.openclip())
    assert_refused(
        "text_heads=3 does not divide the width of the checkpoint's text tower, 8", path, text_heads=3, norm_eps=1e-6
    )


def test_transfer_heads_that_do_not_divide_the_width_are_refused(write):
    options = SETTINGS["maft_plus"] | {"text_transfer_heads": 3}
    message = "text_transfer_heads=3 does not divide the width of the checkpoint's text transfer, 16"
    assert_refused(message, write(released.maft_plus()), **options)


def test_settings_reach_the_text_transfer(write):
    config = convert_kind(write, "maft_plus_adapter", text_transfer_panoptic=True).model.config
    assert (config.text_transfer, config.text_transfer_heads, config.text_transfer_panoptic) == (True, 4, True)


def test_missing_settings_of_a_text_transfer_are_named(write):
    assert_refused(
        "cannot tell text_transfer_heads, text_transfer_panoptic: ",
        write(released.maft_plus_adapter()),
        **released.SETTINGS,
    )


@pytest.mark.parametrize("kind", STATES)
def test_positions_are_mixed_where_there_is_a_text_transfer(write, kind):
    config = convert_kind(write, kind).model.config
    assert getattr(config, "mix_projected_positions", False) == ("maft_plus" in kind)


def test_positions_can_be_mixed_or_not_explicitly(write):
    assert convert_kind(write, "warmup", mix_projected_positions=True).model.config.mix_projected_positions
    assert not convert_kind(write, "maft_plus", mix_projected_positions=False).model.config.mix_projected_positions


def test_plain_maft_plus_has_no_ensemble_unless_one_is_asked_for(write):
    settings = SETTINGS["maft_plus"]
    path = write(released.maft_plus())  # flat, as its files are
    given = convert_checkpoint(path, **settings).model.config
    assert (given.ensemble_alpha, given.ensemble_beta) == (0.3, 0.6)
    without = {name: value for name, value in settings.items() if not name.startswith("ensemble_")}
    conversion = convert_checkpoint(path, **without)
    assert (conversion.model.config.ensemble_alpha, conversion.model.config.ensemble_beta) == (1.0, 1.0)
    assert conversion.report.settings["mix_projected_positions"] is True
    assert_refused("cannot tell ensemble_alpha, ensemble_beta:", write(released.fcclip()), **without)


def test_heads_that_contradict_the_generators_weights_are_refused(write):
    options = SETTINGS["fcclip"] | {"decoder_heads": 8}
    assert_refused("decoder_heads=8 contradicts the weights: .*2 heads", write(released.fcclip()), **options)


def test_an_unknown_setting_is_refused(write):
    assert_refused("unknown setting 'text_head'", write(released.openclip()), text_head=2)


def test_settings_without_effect_are_noted(write):
    notes = convert_kind(write, "openclip", ensemble_alpha=0.5, image_size=64).report.notes
    assert notes == ("settings without effect on such a model: ensemble_alpha.",)


def test_an_unknown_preset_is_refused_before_the_file_is_read(tmp_path):
    assert_refused("There is no preset 'fcclip'.*The presets are", tmp_path / "nowhere.pth", preset="fcclip")


def test_a_label_set_as_training_vocabulary_is_noted_with_its_limits(write, monkeypatch):
    settings = ConversionSettings(**released.SETTINGS | {"training_vocabulary": "cityscapes_19"})
    monkeypatch.setitem(PRESETS, "tiny", Preset("tiny", "a tiny model", FCCLIP_ADAPTER, {}, settings))
    path = write(released.fcclip_adapter())
    by_preset = convert_checkpoint(path, preset="tiny")
    assert len(by_preset.model.config.training_vocabulary) == 19
    assert any("longer lists of synonyms" in note for note in by_preset.report.notes)
    explicit = convert_checkpoint(path, preset="tiny", training_vocabulary=[["cat"]])
    assert not any("synonyms" in note for note in explicit.report.notes)


# --- weight fusing ----------------------------------------------------------------------------------------------------


def test_fusing_takes_generator_and_void_from_one_and_adapter_and_clip_from_the_other(write):
    warmup, fcclip = released.warmup(), released.fcclip()
    model, _, _, report = convert_checkpoint(
        write({"model": warmup}, "warmup.pth"),
        generator_from=write({"model": fcclip}, "fcclip.pth"),
        **released.SETTINGS,
    )
    torch.testing.assert_close(model.void_embedding.data, fcclip["void_embedding.weight"], rtol=0, atol=0)
    torch.testing.assert_close(model.adapter.final.bias.data, warmup["mask_adapter.final.bias"], rtol=0, atol=0)
    queries = model.mask_generator.transformer_module.queries_features.weight.data
    torch.testing.assert_close(queries, fcclip["sem_seg_head.predictor.query_feat.weight"], rtol=0, atol=0)
    assert list(report.sources) == ["warmup.pth", "fcclip.pth"]
    assert report.layout == "an FC-CLIP + Mask-Adapter checkpoint"


def test_fusing_reports_every_key_of_both_files(write):
    warmup, fcclip = released.warmup(), released.fcclip()
    report = convert_checkpoint(
        write(warmup, "warmup.pth"), generator_from=write(fcclip, "fcclip.pth"), **released.SETTINGS
    ).report
    assert warmup.keys() <= report.used.keys() | {"void_embedding.weight"}
    assert "replaced" in report.ignored["warmup.pth: void_embedding.weight"]
    assert all(key in report.used or f"fcclip.pth: {key}" in report.ignored for key in fcclip)


def test_fused_files_may_have_the_same_name(write, tmp_path):
    (tmp_path / "other").mkdir()
    warmup = write(released.warmup())
    fcclip = write(released.fcclip(), "other/checkpoint.pth")
    report = convert_checkpoint(warmup, generator_from=fcclip, **released.SETTINGS).report
    assert list(report.sources) == ["checkpoint.pth", "checkpoint.pth (generator_from)"]


def test_fusing_a_model_that_has_a_generator_is_refused(write, tmp_path):
    complete, fcclip = write(released.fcclip_adapter(), "complete.pth"), write(released.fcclip(), "fcclip.pth")
    message = r"complete\.pth already has a mask generator.*only once"
    assert_refused(message, complete, tmp_path / "out", generator_from=fcclip, **released.SETTINGS)
    assert not (tmp_path / "out").exists()


def test_taking_the_generator_from_a_fused_model_is_refused(write):
    complete, warmup = write(released.fcclip_adapter(), "complete.pth"), write(released.warmup(), "warmup.pth")
    assert_refused(r"complete\.pth already has an adapter", warmup, generator_from=complete, **released.SETTINGS)


def test_fusing_without_an_adapter_or_a_generator_is_refused(write):
    clip, warmup = write(released.openclip(), "clip.pth"), write(released.warmup(), "warmup.pth")
    assert_refused(r"clip\.pth has no adapter", clip, generator_from=warmup, **released.SETTINGS)
    assert_refused(r"clip\.pth has no mask generator to take", warmup, generator_from=clip, **released.SETTINGS)


def test_fusing_on_different_clips_is_refused(write):
    fcclip = released.fcclip()
    fcclip["backbone.clip_model.ln_final.bias"] += 1e-6
    path = write(released.warmup(), "warmup.pth")
    message = "different CLIPs .1 of .* differ: ln_final.bias"
    assert_refused(message, path, generator_from=write(fcclip, "fcclip.pth"), **released.SETTINGS)


@pytest.mark.parametrize("warmup_has_transfer", [True, False])
def test_fusing_on_maft_plus_keeps_or_takes_the_text_transfer(write, warmup_has_transfer):
    warmup = released.maft_plus_warmup() if warmup_has_transfer else released.warmup()
    plain = released.maft_plus()
    model, _, _, report = convert_checkpoint(
        write({"model": warmup}, "warmup.pth"),
        generator_from=write(plain, "maft.pth"),
        **SETTINGS["maft_plus_adapter"],
    )
    assert report.layout == "a MAFT+ + Mask-Adapter checkpoint"
    transferred = model.text_transfer.projection.weight.data
    torch.testing.assert_close(transferred, plain["cdt.cross_atten.MLP.weight"], rtol=0, atol=0)
    torch.testing.assert_close(model.void_embedding.data, plain["void_embedding.weight"], rtol=0, atol=0)
    assert model.config.mix_projected_positions
    assert all(key in report.used or f"maft.pth: {key}" in report.ignored for key in plain)


def test_fusing_with_another_text_transfer_is_refused(write):
    plain = released.maft_plus()
    plain["cdt.cross_atten.norm.bias"] += 1e-6
    message = "different text transfers .1 of 8 weights differ: cross_atten.norm.bias"
    warmup = write(released.maft_plus_warmup(), "warmup.pth")
    assert_refused(message, warmup, generator_from=write(plain, "maft.pth"), **SETTINGS["maft_plus_adapter"])


def test_fusing_a_warmup_on_maft_plus_with_fcclip_is_refused(write):
    warmup, fcclip = write(released.maft_plus_warmup(), "warmup.pth"), write(released.fcclip(), "fcclip.pth")
    message = r"warmup\.pth was trained on MAFT\+, but fcclip\.pth is an FC-CLIP checkpoint.*give the plain MAFT\+"
    assert_refused(message, warmup, generator_from=fcclip, **SETTINGS["maft_plus_adapter"])


def test_a_fused_maft_plus_checkpoint_is_not_fused_again(write):
    complete, plain = write(released.maft_plus_adapter(), "complete.pth"), write(released.maft_plus(), "maft.pth")
    options = SETTINGS["maft_plus_adapter"]
    assert_refused(r"complete\.pth already has a mask generator", complete, generator_from=plain, **options)
    warmup = write(released.maft_plus_warmup(), "warmup.pth")
    assert_refused(r"complete\.pth already has an adapter.*MAFT\+", warmup, generator_from=complete, **options)


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STATES)
def test_a_saved_model_loads_equal_by_its_auto_class(write, tmp_path, tokenizer, kind):
    out = tmp_path / "models" / "out"
    converted = convert_kind(write, kind, output_dir=out, tokenizer=tokenizer)
    auto_class = AutoModel if kind.startswith("openclip") else AutoModelForUniversalSegmentation
    loaded, loading = auto_class.from_pretrained(out, output_loading_info=True)
    assert type(loaded) is type(converted.model)
    assert not any(loading.values())
    expected = converted.model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.state_dict().items())


def test_processor_and_tokenizer_are_saved_with_the_model(write, tmp_path, tokenizer):
    convert_kind(
        write,
        "fcclip_adapter",
        output_dir=tmp_path / "out",
        tokenizer=tokenizer,
        prompt_templates=["a {}"],
        shortest_edge=64,
        longest_edge=96,
    )
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert isinstance(processor, MaskAdapterProcessor)
    assert processor.prompt_templates == ["a {}"]
    assert dict(processor.image_processor.size) == {"shortest_edge": 64, "longest_edge": 96}
    assert processor.tokenizer("abc").input_ids == tokenizer("abc").input_ids


def test_the_report_is_saved_with_checksums_and_without_places(write, tmp_path, tokenizer):
    convert_kind(write, "fcclip_adapter", output_dir=tmp_path / "out", tokenizer=tokenizer)
    text = (tmp_path / "out" / "conversion.json").read_text()
    record = json.loads(text)
    assert record["ignored"] == {"criterion.empty_weight": "class weights of the training loss"}
    assert record["settings"]["ensemble_alpha"] == 0.3
    assert len(record["sources"]["checkpoint.pth"]) == 64
    assert str(tmp_path) not in text


def test_without_a_tokenizer_the_model_is_saved_and_the_report_says_how_to_add_one(write, tmp_path):
    converted = convert_kind(write, "fcclip_adapter", output_dir=tmp_path / "out")
    assert converted.processor is None
    assert not converted.report.has_tokenizer
    assert "--tokenizer" in str(converted.report)
    assert isinstance(MaskAdapterImageProcessorPil.from_pretrained(tmp_path / "out"), MaskAdapterImageProcessorPil)


def test_a_tokenizer_of_another_size_is_refused(write, tmp_path):
    tokenizer = CLIPTokenizer(vocab={"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}, merges=[])
    message = "3 tokens, but the checkpoint's text tower 12"
    assert_refused(message, write(released.openclip()), tmp_path / "out", tokenizer=tokenizer, **released.CLIP_SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_broken_tokenizer_file_is_refused(write, tmp_path):
    (tmp_path / "bpe.txt").write_text("nonsense")
    message = r"The tokenizer .*bpe\.txt cannot be read"
    assert_refused(message, write(released.openclip()), tokenizer=tmp_path / "bpe.txt", **released.CLIP_SETTINGS)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_saving_fails_half_way(write, tmp_path, monkeypatch, error):
    path = write(released.openclip())

    def save_half(self, folder, **kwargs):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(ConvNextClipModel, "save_pretrained", save_half)
    message = r"Cannot write .*out: No space left" if isinstance(error, OSError) else None
    with pytest.raises(type(error), match=message):
        convert_checkpoint(path, tmp_path / "new" / "out", **released.CLIP_SETTINGS)
    assert entries(tmp_path) == {path.name}


def test_nothing_is_left_when_the_saved_file_does_not_read_back_equal(write, tmp_path, monkeypatch):
    path, save = write(released.openclip()), ConvNextClipModel.save_pretrained

    def save_altered(self, folder, **kwargs):
        self.logit_scale.data = self.logit_scale.data + 1
        save(self, folder, **kwargs)

    monkeypatch.setattr(ConvNextClipModel, "save_pretrained", save_altered)
    assert_refused(
        "saved model is not the converted one: logit_scale", path, tmp_path / "out", **released.CLIP_SETTINGS
    )
    assert entries(tmp_path) == {path.name}


def test_a_folder_with_something_in_it_is_not_touched(write, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert_refused("is not empty: name another one", write(released.openclip()), out, **released.CLIP_SETTINGS)
    assert_refused("holds no model", write(released.openclip()), out, overwrite=True, **released.CLIP_SETTINGS)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(write, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_refused("is a file: name a folder", write(released.openclip()), tmp_path / "out", **released.CLIP_SETTINGS)


def test_an_empty_folder_is_used(write, tmp_path):
    (tmp_path / "out").mkdir()
    convert_kind(write, "openclip", output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_converting_twice_needs_permission_and_then_replaces_the_model(write, tmp_path):
    out = tmp_path / "out"
    convert_kind(write, "openclip", output_dir=out)
    (out / "old.txt").write_text("old")
    assert_refused("is not empty", write(released.openclip()), out, **released.CLIP_SETTINGS)
    convert_kind(write, "openclip", output_dir=out, overwrite=True)
    assert not (out / "old.txt").exists()
    assert (out / "config.json").is_file()
    assert entries(tmp_path) == {"out", "checkpoint.pth"}


def test_the_old_model_survives_a_failed_replacement(write, tmp_path, monkeypatch):
    out = tmp_path / "out"
    convert_kind(write, "openclip", output_dir=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(self, folder, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ConvNextClipModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="No space left"):
        convert_kind(write, "openclip", output_dir=out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert entries(tmp_path) == {"out", "checkpoint.pth"}


# --- the tokenizer from the Hub ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_reachable", "is_cached"), [(True, False), (False, True), (False, False)])
def test_clips_tokenizer_comes_from_the_hub_or_the_cache(
    write, tmp_path, monkeypatch, tokenizer, is_reachable, is_cached
):
    asked = []

    def from_pretrained(name, local_files_only, **kwargs):
        asked.append((name, local_files_only))
        return tokenizer

    if is_reachable:
        monkeypatch.setattr(convert, "get_hf_file_metadata", lambda url, timeout: None)
    if is_cached:
        monkeypatch.setattr(convert, "try_to_load_from_cache", lambda repository, file: "cached")
    monkeypatch.setattr(convert.CLIPTokenizer, "from_pretrained", from_pretrained)
    converted = convert_kind(write, "openclip", output_dir=tmp_path / "out")
    within_reach = is_reachable or is_cached
    assert asked == [(convert.TOKENIZER_REPOSITORY, not is_reachable)] * within_reach
    assert converted.report.has_tokenizer == within_reach


def test_the_hub_is_not_asked_for_a_tokenizer_when_nothing_is_saved(write, monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("asked the Hub")

    monkeypatch.setattr(convert, "get_hf_file_metadata", fail)
    assert convert_kind(write, "openclip").processor is None


def test_the_tokenizer_is_built_from_clips_file(write, tmp_path):
    if "MASKADAPTER_SHARED" not in os.environ:
        pytest.skip("needs CLIP's BPE file: set MASKADAPTER_SHARED")
    state = released.openclip() | {"token_embedding.weight": torch.zeros(49408, released.TEXT_WIDTH)}
    bpe_file = Path(os.environ["MASKADAPTER_SHARED"]) / "data" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    processor = convert_kind(write, "openclip", state, output_dir=tmp_path / "out", tokenizer=bpe_file).processor
    assert processor.tokenize("a cat").tolist()[0][:4] == [49406, 320, 2368, 49407]


def test_each_stage_is_told_when_it_begins(tmp_path):
    checkpoint = tmp_path / "checkpoint.pth"
    torch.save({"model": released.fcclip_adapter()}, checkpoint)
    told = []
    convert_checkpoint(checkpoint, on_stage=told.append, **released.SETTINGS)
    assert told == ["reading", "renaming"]
    told.clear()

    def note(stage):
        there = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
        told.append((stage, there))

    convert_checkpoint(checkpoint, tmp_path / "model", on_stage=note, **released.SETTINGS)
    assert told == [("reading", []), ("renaming", []), ("writing", []), ("checking", ["model.safetensors"])]
