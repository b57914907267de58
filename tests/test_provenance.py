"""What made a result: hashes that stay with what they are of, versions, preprocessing."""

import hashlib
import importlib.metadata
import json
import platform

import pytest
import torch
import transformers

import hf_maskadapter
from hf_maskadapter import MaskAdapterImageProcessorPil, MaskAdapterModel
from hf_maskadapter.provenance import content_hash, describe_model, file_hash, model_hash, versions, versions_text
from support import tiny_models


def test_the_hash_of_a_model_is_that_of_its_weights_wherever_they_are(tmp_path):
    model = tiny_models.adapter()
    before = model_hash(model)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert model_hash(MaskAdapterModel.from_pretrained(tmp_path)) == before
    with torch.no_grad():
        model.final.bias[0] += 1
    assert model_hash(model) != before
    assert model_hash(model.to(torch.bfloat16)) != model_hash(model.to(torch.float32))


def test_the_hash_of_a_model_is_of_names_types_shapes_and_bytes():
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    content = b"weight torch.float32 (1, 2)\n" + bytes.fromhex("0000803f000000c0")
    assert model_hash(model) == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_content_hashes_do_not_depend_on_the_order_of_keys():
    assert content_hash({"a": 1, "b": ["ä"]}) == content_hash({"b": ["ä"], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert content_hash([1]) == hashlib.blake2b(b"[1]", digest_size=16).hexdigest()


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_hash(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "nothing")


def test_versions_are_those_that_run():
    found = versions()
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["transformers"] == transformers.__version__
    assert found["python"] == platform.python_version()
    assert versions_text(found).startswith(f"hf-maskadapter {found['hf-maskadapter']}, torch {found['torch']}, ")
    assert versions_text({"numpy": "2"}) == "numpy 2"


def test_without_an_installation_the_version_is_the_codes_own(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert versions()["hf-maskadapter"] == hf_maskadapter.__version__
    assert "torch" not in versions()


def test_a_described_model_tells_its_configuration_and_preprocessing():
    described = describe_model(tiny_models.adapter(), MaskAdapterImageProcessorPil(size={"shortest_edge": 40}))
    assert described["class"] == "MaskAdapterModel"
    assert described["config"]["num_output_maps"] == tiny_models.adapter().config.num_output_maps
    assert described["image_processor"]["size"]["shortest_edge"] == 40
    assert json.loads(json.dumps(described)) == described
