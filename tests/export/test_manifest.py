import json

import pytest

from hf_maskadapter.export.manifest import ExportedModelError, Manifest, Settings, describe_files, read_manifest

SETTINGS = Settings(
    image_processor={"size": {"shortest_edge": 8}},
    prompt_templates=["{}"],
    lower_case=False,
    context_length=77,
    pads_text=False,
    padding_id=1,
    vocab_size=2,
    embed_dim=1,
    num_feature_maps=1,
    void_embedding=[1.0],
    logit_scale=1.0,
    generator_logit_scale=None,
    training_vocabulary=None,
    ensemble_alpha=0.5,
    ensemble_beta=0.5,
    ensemble_on_valid_masks=False,
    mask_embedding="pooling",
    mask_pooling="hard",
    mask_threshold=0.5,
    warmup_scoring=False,
    object_threshold=0.0,
    overlap_threshold=0.8,
    instance_threshold=0.1,
    instance_top_k=100,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "picture.onnx").write_bytes(b"graph")
    manifest = Manifest(
        format="onnx",
        dtype="float32",
        graphs={"picture": "picture.onnx"},
        files=describe_files(tmp_path),
        settings=SETTINGS,
        model={"name": "none", "hash": ""},
        versions={},
    )
    (tmp_path / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(folder):
    manifest = read_manifest(folder, verify=True)
    assert manifest.settings == SETTINGS
    # SHA-256 of "graph", by sha256sum.
    sha256 = "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"  # by sha256sum
    assert manifest.files == {"picture.onnx": {"bytes": 5, "sha256": sha256}}


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        read_manifest(tmp_path / "none")


def test_a_folder_without_an_exported_model(tmp_path):
    with pytest.raises(ExportedModelError, match="holds no exported model: make one by maskadapter export"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": 1}'])
def test_a_manifest_that_is_none(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ExportedModelError, match="is no manifest"):
        read_manifest(folder)


def change(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_manifest_of_another_form(folder):
    change(folder, form=99)
    with pytest.raises(ExportedModelError, match="exported in form 99, and this version reads form 1"):
        read_manifest(folder)


def test_a_manifest_that_lacks_a_setting(folder):
    change(folder, settings={"lower_case": True})
    with pytest.raises(ExportedModelError, match="is damaged"):
        read_manifest(folder)


def test_a_missing_file(folder):
    (folder / "picture.onnx").unlink()
    with pytest.raises(ExportedModelError, match=r"lacks its file picture\.onnx"):
        read_manifest(folder)


def test_a_file_of_another_size(folder):
    (folder / "picture.onnx").write_bytes(b"graphs")
    with pytest.raises(ExportedModelError, match="is not the file that was exported"):
        read_manifest(folder)


def test_a_file_of_the_same_size_is_told_by_its_hash_on_request(folder):
    (folder / "picture.onnx").write_bytes(b"grapf")
    read_manifest(folder)
    with pytest.raises(ExportedModelError, match="is not the file that was exported"):
        read_manifest(folder, verify=True)
