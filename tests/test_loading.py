"""Models by name: fetched from a Hub on loopback, verified, converted once, and found again without network."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer, pipeline

from hf_maskadapter import loading
from hf_maskadapter.hub.released_models import RELEASED, REPOSITORY
from hf_maskadapter.loading import ModelNameError, find_model, list_models, load_model, load_segmenter
from hf_maskadapter.model.cpu_mlp import computes_in_int8
from support import released_checkpoints as released
from support.hub_fixtures import client, hub, server  # noqa: F401 -- fixtures
from support.hub_server import Blob, Fault

TOKENIZER = "openai/clip-vit-base-patch32"
FILE = RELEASED["fcclip-large"].file

PREPARE = """
import dataclasses, hashlib, shutil, sys
from pathlib import Path
import hf_maskadapter.loading as loading
from hf_maskadapter.conversion import ConversionSettings, Preset, presets
from hf_maskadapter.conversion.layouts import FCCLIP_ADAPTER
from support import released_checkpoints as released

# The released layout at a small size: sizes that this file has, settings that it needs.
small = Preset("small", "a small model", FCCLIP_ADAPTER, {"mask_generator_config.num_queries": released.NUM_QUERIES},
               ConversionSettings(**released.SETTINGS))
presets.PRESETS["small"] = small
loading.RELEASED["fcclip-large"] = dataclasses.replace(loading.RELEASED["fcclip-large"], preset="small")

lines = []

def weights(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).glob("*.safetensors")}

def find(**options):
    try:
        return loading.find_model("fcclip-large", report=lines.append, **options)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
"""


def checkpoint_bytes() -> bytes:
    stream = io.BytesIO()
    torch.save({"model": released.fcclip_adapter(), "iteration": 3}, stream)
    return stream.getvalue()


def tokenizer_files() -> dict[str, Blob]:
    tokens = [*"abcde", *(f"{letter}</w>" for letter in "abcde"), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77
    )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: Blob(path.read_bytes(), False) for path in Path(folder).iterdir()}


@pytest.fixture
def released_hub(hub):  # noqa: F811
    """A Hub with the released repository, whose checkpoint is small, and CLIP's tokenizer."""
    hub.publish(REPOSITORY, {FILE: Blob(checkpoint_bytes(), True), "README.md": Blob(b"weights", False)})
    hub.publish(TOKENIZER, tokenizer_files())
    return hub


@pytest.fixture
def run(client, tmp_path):  # noqa: F811
    """Run code after `PREPARE` in a fresh process whose cache is this test's own."""

    def run_code(code, *arguments, **options):
        return client.run(PREPARE + code, *arguments, home=tmp_path / "home", **options).expect_success()

    return run_code


def downloads(hub) -> list[str]:  # noqa: F811
    """Requests for the checkpoint's bytes, with the range that was asked for."""
    fetched = (headers for method, path, headers in hub.requests if method == "GET" and "/lfs/" in path)
    return [next((value for name, value in headers.items() if name.lower() == "range"), "") for headers in fetched]


def test_the_first_use_fetches_and_converts_and_the_second_needs_no_network(released_hub, run, tmp_path):
    first = run("place = find(); result = [place, lines, weights(place)]")
    place, lines, weights = first
    assert Path(place) == tmp_path / "home" / "maskadapter" / "fcclip-large-1"
    assert "Apache-2.0" in lines[0]
    assert "1.67 GB" in lines[0]
    assert place in lines[0]
    assert [line.split()[0] for line in lines] == ["Mask-Adapter", "Converting", "Ready:"]
    assert not list(Path(place).parent.glob(".*.download"))
    released_hub.requests.clear()
    again = run("place = find(); result = [place, lines, weights(place)]", offline=True)
    assert again == [place, [], weights]
    assert released_hub.requests == []


def test_the_loaded_model_is_the_converted_checkpoint(released_hub, run):
    code = """
from hf_maskadapter.conversion import convert_checkpoint
import torch
Path("checkpoint.pth").write_bytes(bytes.fromhex(arguments[0]))
model, processor = loading.load_model("fcclip-large", report=lines.append)
expected = convert_checkpoint("checkpoint.pth", **released.SETTINGS).model.state_dict()
found = model.state_dict()
result = [found.keys() == expected.keys(), all(torch.equal(found[name], expected[name]) for name in expected),
          model.training, len(processor.tokenizer)]
"""
    assert run(code, checkpoint_bytes().hex()) == [True, True, False, 12]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(released_hub, run, tmp_path):
    released_hub.faults += [Fault("GET", "/lfs/", keep=20_000), Fault("GET", "/lfs/", status=503, times=100)]
    broken = run("from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 4096; result = find()")
    assert "broke off: the Hub cannot answer now (status 503" in broken
    assert "goes on where it stopped" in broken
    (partial,) = (tmp_path / "home" / "maskadapter").rglob("*.partial")
    arrived = partial.stat().st_size
    assert arrived == 4096 * (20_000 // 4096)
    released_hub.faults.clear()
    released_hub.requests.clear()
    place = run("result = find()")
    assert Path(place, "conversion.json").is_file()
    assert starts(downloads(released_hub)) == [arrived]


def starts(ranges: list[str]) -> list[int]:
    return [int(text.removeprefix("bytes=").split("-")[0] or 0) if text else 0 for text in ranges]


def test_a_file_that_is_not_what_the_hub_names_is_deleted(released_hub, run, tmp_path):
    blob = Blob(checkpoint_bytes(), True)
    released_hub.objects[blob.sha256] = bytes(reversed(blob.content))
    assert "is damaged: its checksum is" in run("result = find()")
    assert not list((tmp_path / "home" / "maskadapter").rglob("*.pth"))
    released_hub.objects[blob.sha256] = blob.content
    assert Path(run("result = find()"), "config.json").is_file()


def test_a_full_disk_and_little_memory_are_told_before_the_download(released_hub, run):
    code = """
usage = shutil.disk_usage
shutil.disk_usage = lambda folder: usage(folder)._replace(free=10**6)
full = find()
shutil.disk_usage = usage
loading.available_memory = lambda: 1000
result = [full, find()]
"""
    full, little = run(code)
    assert "needs 1.76 GB in" in full
    assert "there are 1.00 MB free. Make room, or name another folder in MASKADAPTER_CACHE" in full
    assert "of memory, and 0.00 MB are free" in little
    assert downloads(released_hub) == []


def test_without_network_the_error_says_what_cannot_be_reached(released_hub, run):
    error = run("result = find()", offline=True)
    assert error.startswith("ModelPreparationError: The model fcclip-large could not be prepared: Cannot list")
    assert "the Hub cannot be reached" in error


def test_without_a_tokenizer_nothing_large_is_fetched_and_file_and_option_are_named(released_hub, run):
    del released_hub.repositories["model", TOKENIZER]
    error = run("result = find()")
    assert "bpe_simple_vocab_16e6.txt.gz" in error
    assert "--fetch fcclip-large --tokenizer" in error
    assert downloads(released_hub) == []


def test_a_renamed_file_is_found_by_its_layout_without_fetching_the_others(released_hub, run):
    other = io.BytesIO()
    torch.save({"model": released.fcclip()}, other)
    files = {
        "v2/maskadapter.pth": Blob(checkpoint_bytes(), True),
        "fcclip.pth": Blob(other.getvalue(), True),
        "notes.bin": Blob(b"no checkpoint", True),
    }
    released_hub.publish(REPOSITORY, files)
    place, lines = run("result = [find(), lines]")
    assert Path(place, "config.json").is_file()
    assert "v2/maskadapter.pth" in lines[1]


def test_without_a_file_of_its_layout_the_error_lists_what_is_there(released_hub, run):
    other = io.BytesIO()
    torch.save({"model": released.fcclip()}, other)
    released_hub.publish(REPOSITORY, {"fcclip.pth": Blob(other.getvalue(), True), "README.md": Blob(b"", False)})
    error = run("result = find()")
    assert f"it has no {FILE}, nor another file of its layout and sizes; it has fcclip.pth" in error
    assert "--preset small" in error


def test_two_processes_that_ask_at_once_convert_once(released_hub, run):
    code = """
import json, os
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        place = find()
        Path(f"child{number}.json").write_text(json.dumps([place, lines]))
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
result = [json.loads(Path(f"child{number}.json").read_text()) for number in range(2)]
"""
    results = run(code)
    assert results[0][0] == results[1][0]
    assert Path(results[0][0], "conversion.json").is_file()
    converted = [sum(line.startswith("Converting") for line in lines) for _, lines in results]
    assert sorted(converted) == [0, 1]
    assert sum(start == 0 for start in starts(downloads(released_hub))) == 1


def test_removing_a_model_frees_its_bytes(released_hub, run, tmp_path):
    code = """
place = find()
size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
result = [loading.is_prepared("fcclip-large"), loading.remove_model("fcclip-large") == size,
          loading.is_prepared("fcclip-large"), Path(place).exists(), loading.remove_model("fcclip-large")]
"""
    assert run(code) == [True, True, False, False, 0]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fcclip_large", "fcclip-large"),
        ("miniture", "miniature"),
        ("maft-plus-large", "maft-large"),
        ("MAFT-base", "maft-base"),
    ],
)
def test_a_wrong_name_gets_the_nearest_ones(name, nearest):
    with pytest.raises(ModelNameError, match=rf"There is no model '{name}'.*Did you mean {nearest}"):
        find_model(name)


@pytest.mark.parametrize("name", ["./no_such_folder", "/no/such/folder", "~/no_such_folder"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ModelNameError, match=f"there is no model folder {name}"):
        find_model(name)


def test_a_name_that_is_like_no_other_gets_all_names():
    with pytest.raises(ModelNameError, match="The names are miniature, fcclip-large, maft-base, maft-large"):
        find_model("zzz")


def test_folders_and_hub_ids_stay_what_they_are(tmp_path):
    assert find_model(tmp_path) == str(tmp_path)
    assert find_model("jane/my-segmenter") == "jane/my-segmenter"


def test_a_name_wins_over_a_folder_of_the_same_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("miniature").mkdir()
    assert Path(find_model("miniature"), "model.safetensors").is_file()


def test_the_miniature_is_a_ready_pipeline(picture):
    segmenter = load_segmenter("miniature", device="cpu")
    found = segmenter(picture, candidate_labels=["grass", "water"])
    assert {segment["label"] for segment in found} <= {"grass", "water"}
    assert found[0]["mask"].size == picture.size


def test_facts_of_the_models_are_those_of_the_models():
    facts = {entry.name: entry for entry in list_models()}
    assert list(facts) == ["miniature", "fcclip-large", "maft-base", "maft-large"]
    model, _ = load_model("miniature")
    assert facts["miniature"].num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert facts["miniature"].memory_bytes == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert facts["miniature"].is_here
    assert loading.is_prepared("miniature")


def test_a_containers_limit_counts_as_memory_but_not_its_cached_files(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_CONTAINER", tmp_path)
    assert loading.available_memory() > 10_000_000  # no limit, but Linux tells
    (tmp_path / "memory.max").write_text("10000000\n")
    (tmp_path / "memory.current").write_text("9000000\n")
    (tmp_path / "memory.stat").write_text("anon 2000000\ninactive_file 6000000\nactive_file 1000000\n")
    assert loading.available_memory() == 7_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert loading.available_memory() > 10_000_000


class TestInt8:
    @pytest.mark.parametrize("dtype", ["int8", torch.int8])
    @pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
    def test_mlps_compute_in_it_and_weights_stay(self, dtype, device):
        model, _ = load_model(dtype=dtype, device=device)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert computes_in_int8(model)

    def test_the_pipeline_takes_it_by_both_ways(self):
        assert computes_in_int8(load_segmenter(dtype="int8").model)
        made = pipeline("zero-shot-image-segmentation", model=find_model(), device="cpu", int8=True)
        assert computes_in_int8(made.model)

    @pytest.mark.parametrize("load", [load_model, load_segmenter])
    @pytest.mark.parametrize("device", ["cuda", "mps", 0])
    def test_other_devices_are_refused_before_anything_is_loaded(self, load, device):
        with pytest.raises(ValueError, match=f"int8 is for CPUs, and the device is {device}"):
            load("no/such/model", dtype="int8", device=device)
