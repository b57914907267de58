"""Models, adapters, data sets and results go to a Hub and come back, through `huggingface_hub`'s own client."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.data import prepare_dataset
from hf_maskadapter.hub.adapter_weights import save_adapter_weights
from hf_maskadapter.hub.cards import ModelCardFacts, render_card
from support import data_samples, tiny_models

SCRIPT = Path(__file__).parents[2] / "scripts" / "push_to_hub.py"
LABELS = ["cat, kitten", "dog", "sky"]

RUN_SCRIPT = """
import runpy, sys
sys.argv = arguments
runpy.run_path(sys.argv[0], run_name="__main__")
"""

LOAD = """
from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation
repository, options = arguments
try:
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(repository, **options)
    result = float(model.void_embedding.sum())
except OSError as error:
    result = str(error)
"""

LOAD_WITH_ADAPTER = """
from hf_maskadapter import load_with_adapter
repository, options = arguments
model = load_with_adapter(repository, **options)
result = sum(float(value.double().sum()) for value in model.state_dict().values())
"""


@pytest.fixture
def push(client, hub, owner):
    """Run `scripts/push_to_hub.py` in a fresh process; what it prints, or the error if one is expected."""

    def push(folder, *options, repository="me/model", fails=False, **process):
        finished = client.run(RUN_SCRIPT, SCRIPT, folder, repository, *options, **(owner | process))
        assert finished.status == (2 if fails else 0), f"{finished.stdout}\n{finished.stderr}"
        return finished.stderr.splitlines()[-1] if fails else finished.stdout

    return push


@pytest.fixture
def fresh(client, tmp_path_factory):
    """Run code in a fresh process with an empty cache, or that of an earlier call; what it leaves in `result`."""

    def fresh(code, *arguments, home=None, **options):
        home = home or tmp_path_factory.mktemp("home")
        return client.run(code, *arguments, home=home, **options).expect_success()

    return fresh


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A saved model that a test may change."""
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def void_sum(tiny_model_dir):
    return float(load_file(tiny_model_dir / "model.safetensors")["void_embedding"].sum())


@pytest.fixture
def adapter_folder(tiny_model_dir, tmp_path):
    """Adapter weights that differ from those of the base model."""
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(0.1)
    save_adapter_weights(model, tmp_path / "adapter", "me/model")
    return tmp_path / "adapter", sum(float(value.double().sum()) for value in model.state_dict().values())


class TestModel:
    def test_is_one_commit_of_weights_processor_code_and_card(self, push, hub, tiny_model_dir):
        printed = push(tiny_model_dir)
        assert hub.titles("me/model") == ["Upload model", "initial commit"]
        files = hub.files("me/model")
        assert {"config.json", "processor_config.json", "tokenizer.json", "modeling_maskadapter.py"} <= set(files)
        assert {"handler.py", "requirements.txt"} <= set(files)
        assert files["model.safetensors"] == (tiny_model_dir / "model.safetensors").read_bytes()
        card = files["README.md"].decode()
        assert 'model="me/model"' in card
        assert "owner/name" not in card
        assert printed.count("\n") == len(files) + 2
        assert "/me/model/commit/" in printed

    def test_a_dry_run_lists_the_files_and_asks_nobody(self, push, hub, tiny_model_dir):
        printed = push(tiny_model_dir, "--dry_run", token=None, offline=True)
        assert "Would publish to me/model (model)" in printed
        assert "modeling_maskadapter.py" in printed
        assert not hub.requests
        assert not hub.repositories

    def test_needs_none_of_the_extras(self, client, owner, tiny_model_dir):
        missing = "import sys\nsys.modules |= dict.fromkeys(('accelerate', 'datasets', 'evaluate', 'scipy'))\n"
        client.run(missing + RUN_SCRIPT, SCRIPT, tiny_model_dir, "me/model", "--dry_run").expect_success()

    def test_goes_to_a_branch_with_a_message_into_a_private_repository(self, push, hub, tiny_model_dir):
        push(tiny_model_dir, "--revision", "trial", "--commit_message", "First trial", "--private")
        assert hub.repositories["model", "me/model"].private
        assert hub.titles("me/model", "trial")[0] == "First trial"
        assert hub.titles("me/model") == ["initial commit"]

    def test_replaces_an_earlier_version_and_keeps_what_is_not_its_own(self, push, hub, client, folder, owner):
        push(folder)
        old = """
from huggingface_hub import HfApi
for name in ("model-00001-of-00002.safetensors", "modeling_old.py", "notes.txt"):
    HfApi().upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id="me/model")
"""
        client.run(old, **owner).expect_success()
        printed = push(folder)
        assert "removed  model-00001-of-00002.safetensors" in printed
        files = hub.files("me/model")
        assert "notes.txt" in files
        assert not {"modeling_old.py", "model-00001-of-00002.safetensors"} & set(files)

    def test_brings_the_users_card_and_figures_and_leaves_the_rest_out(self, push, hub, folder):
        (folder / "README.md").write_text('---\nlicense: mit\n---\n# Mine\n\n`load("owner/name")`\n')
        (folder / "figures").mkdir()
        (folder / "figures" / "example.png").write_bytes(b"figure")
        (folder / "checkpoints").mkdir()
        for name in ("optimizer.pt", ".secret", "checkpoints/state.json"):
            (folder / name).write_bytes(b"x")
        printed = push(folder)
        files = hub.files("me/model")
        assert files["README.md"] == b'---\nlicense: mit\n---\n# Mine\n\n`load("me/model")`\n'
        assert files["figures/example.png"] == b"figure"
        assert not {"optimizer.pt", ".secret", "checkpoints/state.json"} & set(files)
        assert "left out  optimizer.pt" in printed

    def test_in_a_subfolder_has_its_code_at_the_root(self, push, hub, fresh, tiny_model_dir, void_sum):
        push(tiny_model_dir, "--subfolder", "small")
        files = hub.files("me/model")
        assert "small/config.json" in files
        assert "modeling_maskadapter.py" in files
        assert fresh(LOAD, "me/model", {"subfolder": "small"}) == void_sum
        remote = """
from transformers import AutoModelForUniversalSegmentation
model = AutoModelForUniversalSegmentation.from_pretrained("me/model", subfolder="small", trust_remote_code=True)
result = float(model.void_embedding.sum())
"""
        assert fresh(remote, package=False) == void_sum

    @pytest.mark.parametrize("size", ["whole", "sharded"])
    def test_without_all_its_weights_is_refused(self, push, hub, folder, size):
        (folder / "model.safetensors").unlink()
        if size == "sharded":
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
        message = push(folder, fails=True)
        assert ("model-1.safetensors" if size == "sharded" else "no model.safetensors") in message
        assert not hub.requests

    def test_transformers_own_push_to_hub_and_processor_work_too(
        self, client, hub, owner, fresh, tiny_model_dir, void_sum
    ):
        code = """
from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
MaskAdapterForOpenVocabularySegmentation.from_pretrained(arguments[0]).push_to_hub("me/plain")
MaskAdapterProcessor.from_pretrained(arguments[0]).push_to_hub("me/plain")
"""
        client.run(code, tiny_model_dir, **owner).expect_success()
        assert {"config.json", "model.safetensors", "processor_config.json"} <= set(hub.files("me/plain"))
        assert fresh(LOAD, "me/plain", {}) == void_sum


class TestStranger:
    """Somebody without the package."""

    CODE = """
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor, pipeline

picture, labels = arguments
trusting = {"trust_remote_code": True}
assert type(AutoConfig.from_pretrained("me/model", **trusting)).__module__.startswith("transformers_modules.")
AutoImageProcessor.from_pretrained("me/model", **trusting)
processor = AutoProcessor.from_pretrained("me/model", **trusting)
model, report = AutoModelForUniversalSegmentation.from_pretrained("me/model", output_loading_info=True, **trusting)
assert not any(report.values()), report
image = Image.open(picture)
inputs = processor(images=image, return_tensors="pt")
with torch.no_grad():
    outputs = model.eval()(**inputs, vocabulary=model.encode_vocabulary(labels, processor))
label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
segments = pipeline("zero-shot-image-segmentation", model="me/model", **trusting)(image, candidate_labels=labels)
areas = {segment["label"]: segment["mask"].histogram()[255] for segment in segments}
result = {"label_map": label_map.tolist(), "areas": areas}
"""

    def test_loads_all_of_it_with_equal_results_and_again_offline(
        self, push, hub, fresh, client, tiny_model_dir, picture, tmp_path
    ):
        push(tiny_model_dir)
        picture.save(tmp_path / "picture.png")
        home = tmp_path / "home"
        found = fresh(self.CODE, tmp_path / "picture.png", LABELS, home=home, package=False)

        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir).eval()
        processor = MaskAdapterProcessor.from_pretrained(tiny_model_dir)
        inputs = processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs, vocabulary=model.encode_vocabulary(LABELS, processor))
        size = (picture.height, picture.width)
        (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])
        assert found["label_map"] == label_map.tolist()
        names = [label.split(",")[0] for label in LABELS]
        expected = {name: int((label_map == index).sum()) for index, name in enumerate(names)}
        assert found["areas"] == {name: area for name, area in expected.items() if area}

        asked = len(hub.requests)
        again = fresh(self.CODE, tmp_path / "picture.png", LABELS, home=home, package=False, offline=True)
        assert again == found
        assert len(hub.requests) == asked

    def test_loads_a_segmenter_with_another_clip(self, push, fresh, tmp_path):
        config = tiny_models.segmenter_config(clip_config=tiny_models.vit_clip_config(), mask_generator_config=None)
        model = tiny_models.build(MaskAdapterForOpenVocabularySegmentation, config)
        model.save_pretrained(tmp_path / "vit")
        assert "no processor in the folder" in push(tmp_path / "vit")
        code = """
from transformers import AutoModelForUniversalSegmentation
model, report = AutoModelForUniversalSegmentation.from_pretrained(
    "me/model", trust_remote_code=True, output_loading_info=True
)
result = [type(model.clip).__name__, any(report.values()), float(model.void_embedding.sum())]
"""
        assert fresh(code, package=False) == ["VitClipModel", False, model.void_embedding.sum().item()]

    def test_with_the_package_needs_to_trust_nothing(self, push, fresh, tiny_model_dir, picture, tmp_path):
        push(tiny_model_dir)
        picture.save(tmp_path / "picture.png")
        code = """
import hf_maskadapter
from transformers import pipeline
segmenter = pipeline("zero-shot-image-segmentation", model="me/model")
segmenter(arguments[0], candidate_labels=["cat", "sky"])
segmenter.model.save_pretrained("saved")
import json
config = json.load(open("saved/config.json"))
result = [type(segmenter).__module__, type(segmenter.model).__module__, "auto_map" in config]
"""
        pipeline_module, model_module, names_code = fresh(code, tmp_path / "picture.png")
        assert pipeline_module == "hf_maskadapter.model.pipeline_zero_shot_image_segmentation"
        assert model_module == "hf_maskadapter.model.modeling_maskadapter"
        assert not names_code


class TestDownload:
    def test_takes_a_branch_or_a_commit(self, push, hub, fresh, folder, void_sum):
        push(folder)
        commit = hub.repositories["model", "me/model"].branches["main"][0].sha
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(folder)
        with torch.no_grad():
            model.void_embedding.add_(1.0)
        model.save_pretrained(folder)
        push(folder, "--revision", "next")
        assert fresh(LOAD, "me/model", {"revision": commit}) == void_sum
        assert fresh(LOAD, "me/model", {"revision": "next"}) == pytest.approx(void_sum + 16, abs=1e-3)

    def test_of_a_private_repository_needs_its_owners_token(self, push, hub, fresh, tiny_model_dir, void_sum):
        push(tiny_model_dir, "--private")
        assert fresh(LOAD, "me/model", {}, token="hf_owner") == void_sum
        assert fresh(LOAD, "me/model", {"token": "hf_owner"}) == void_sum
        assert "hf auth login" in fresh(LOAD, "me/model", {})
        assert "hf auth login" in fresh(LOAD, "me/model", {}, token="hf_other")
        assert not any("Authorization" in headers for _, path, headers in hub.requests if path.startswith("/lfs/"))

    def test_that_breaks_off_goes_on_where_it_stopped(self, push, hub, fresh, tiny_model_dir, void_sum):
        push(tiny_model_dir)
        hub.fail("GET", "^/lfs/", keep=100_000)
        small_pieces = "from huggingface_hub import constants\nconstants.DOWNLOAD_CHUNK_SIZE = 2**16\n"
        assert fresh(small_pieces + LOAD, "me/model", {}) == void_sum
        ranges = [headers.get("Range") for method, path, headers in hub.requests if path.startswith("/lfs/")]
        assert f"bytes={2**16}-" in ranges


class TestUpload:
    def test_that_was_killed_leaves_nothing_and_is_repeated_without_sending_twice(
        self, push, hub, client, owner, tiny_model_dir, folder
    ):
        (folder / "figure.png").write_bytes(b"another large file")
        stalled = hub.fail("PUT", "^/lfs/", stall=True)
        process = client.start(RUN_SCRIPT, SCRIPT, folder, "me/model", **owner)
        assert stalled.reached.wait(60)
        while hub.count("PUT", "^/lfs/") < 2 or not hub.objects:  # the other file arrives
            pass
        os.kill(process, signal.SIGKILL)
        assert client.wait().status == -signal.SIGKILL
        stalled.released.set()
        assert hub.titles("me/model") == ["initial commit"]
        assert len(hub.objects) == 1
        sent = hub.count("PUT", "^/lfs/")
        push(folder)
        assert hub.count("PUT", "^/lfs/") == sent + 1
        assert {"figure.png", "model.safetensors"} <= set(hub.files("me/model"))

    def test_that_breaks_off_once_is_repeated_by_itself(self, push, hub, tiny_model_dir):
        hub.fail("PUT", "^/lfs/")
        push(tiny_model_dir)
        assert hub.count("PUT", "^/lfs/") == 2
        assert "model.safetensors" in hub.files("me/model")

    def test_of_the_same_again_makes_no_commit(self, push, hub, tiny_model_dir):
        push(tiny_model_dir)
        push(tiny_model_dir)
        assert hub.titles("me/model") == ["Upload model", "initial commit"]

    @pytest.mark.parametrize(
        ("process", "repository", "expected"),
        [
            ({"token": "hf_wrong"}, "me/model", "refused the access token.*hf auth login"),
            ({"token": None}, "me/model", "who you are.*hf auth login"),
            ({"token": "hf_other"}, "me/model", "may not do that there.*write permission"),
            ({"offline": True}, "me/model", "cannot be reached.*HF_HUB_OFFLINE"),
            ({}, "model", "no name of a repository: expected owner/name"),
            ({}, "me/a b", "no name of a repository"),
        ],
    )
    def test_that_is_refused_says_what_to_do_in_one_line(
        self, push, hub, tiny_model_dir, process, repository, expected
    ):
        message = push(tiny_model_dir, repository=repository, fails=True, **process)
        assert message.startswith("maskadapter publish: error: ")
        assert re.search(expected, message), message
        assert not hub.repositories

    def test_that_the_hub_cannot_take_now_says_so(self, push, hub, tiny_model_dir):
        hub.fail("POST", "/commit/", status=507)
        message = push(tiny_model_dir, fails=True)
        assert "Cannot publish to me/model: the Hub cannot answer now (status 507" in message
        assert "files are as they were" in message

    def test_of_a_folder_with_nothing_to_publish_says_what_is_expected(self, push, tmp_path, tiny_model_dir):
        assert "expected a saved model (config.json)" in push(tmp_path, fails=True)
        (tmp_path / "model").mkdir()
        assert f"Did you mean {tmp_path / 'model'}?" in push(tmp_path, fails=True)
        assert "There is no folder" in push(tmp_path / "typo", fails=True)

    def test_of_a_card_with_broken_metadata_is_refused(self, push, hub, folder):
        (folder / "README.md").write_text("---\nlicense: [mit\n---\n# Mine\n")
        assert "Invalid metadata in README.md" in push(folder, fails=True)
        assert hub.titles("me/model") == ["initial commit"]


class TestAdapter:
    def test_alone_loads_on_top_of_the_base_model_that_it_names(
        self, push, hub, fresh, tiny_model_dir, adapter_folder, tmp_path
    ):
        folder, expected = adapter_folder
        push(tiny_model_dir)
        push(folder, repository="me/adapter")
        files = hub.files("me/adapter")
        assert set(files) == {"README.md", "mask_adapter.safetensors", "mask_adapter_config.json"}
        card = ModelCard(files["README.md"].decode())
        assert card.data.base_model == ["me/model"]
        assert 'load_with_adapter("me/adapter")' in card.text
        home = tmp_path / "home"
        assert fresh(LOAD_WITH_ADAPTER, "me/adapter", {}, home=home) == expected
        assert fresh(LOAD_WITH_ADAPTER, "me/adapter", {}, home=home, offline=True) == expected

    def test_loads_from_a_subfolder_a_branch_and_a_private_repository(
        self, push, fresh, tiny_model_dir, adapter_folder
    ):
        folder, expected = adapter_folder
        push(tiny_model_dir, "--private")
        push(folder, "--private", "--subfolder", "weights", "--revision", "next", repository="me/adapter")
        options = {"subfolder": "weights", "revision": "next", "token": "hf_owner"}
        assert fresh(LOAD_WITH_ADAPTER, "me/adapter", options) == expected

    def test_on_a_folder_needs_the_name_of_the_base_model(self, push, hub, adapter_folder, tiny_model_dir):
        folder, _ = adapter_folder
        description = json.loads((folder / "mask_adapter_config.json").read_text())
        (folder / "mask_adapter_config.json").write_text(json.dumps(description | {"base_model": str(tiny_model_dir)}))
        assert "--base_model owner/name" in push(folder, repository="me/adapter", fails=True)
        facts = ModelCardFacts(title="T", summary="S", model_name="m", kind="adapter", attached_to=str(tiny_model_dir))
        (folder / "README.md").write_text(render_card(facts))
        push(folder, "--base_model", "me/base", repository="me/adapter")
        files = hub.files("me/adapter")
        assert json.loads(files["mask_adapter_config.json"])["base_model"] == "me/base"
        card = files["README.md"].decode()
        assert ModelCard(card).data.base_model == ["me/base"]
        assert "`me/base`" in card
        assert str(tiny_model_dir) not in card

    def test_from_memory(self, client, hub, owner, tiny_model_dir):
        code = """
from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.hub import push_adapter_to_hub, push_model_to_hub
model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(arguments[0])
processor = MaskAdapterProcessor.from_pretrained(arguments[0])
push_model_to_hub(model, processor, "me/model", private=True)
push_adapter_to_hub(model, "me/adapter", "me/model")
"""
        client.run(code, tiny_model_dir, **owner).expect_success()
        assert "modeling_maskadapter.py" in hub.files("me/model")
        assert hub.repositories["model", "me/model"].private
        assert json.loads(hub.files("me/adapter")["mask_adapter_config.json"])["base_model"] == "me/model"

    @pytest.mark.parametrize(
        ("options", "expected"),
        [({}, "no such repository, or it is private"), ({"revision": "typo"}, "no such revision")],
    )
    def test_that_is_missing_says_what_to_do(self, push, client, adapter_folder, options, expected):
        if options:
            push(adapter_folder[0], repository="me/adapter")
        finished = client.run(LOAD_WITH_ADAPTER, "me/adapter", options)
        assert finished.status == 1
        assert expected in finished.stderr.splitlines()[-1]
        assert "me/adapter" in finished.stderr.splitlines()[-1]


class TestDataSet:
    def test_comes_back_with_its_classes(self, push, hub, fresh, tmp_path):
        for index in range(2):
            data_samples.save(tmp_path / "ade" / "images" / "training" / f"{index}.jpg", data_samples.picture(index))
            data_samples.save(
                tmp_path / "ade" / "annotations" / "training" / f"{index}.png", data_samples.labels(index) + 1
            )
        prepare_dataset("ade20k_150", tmp_path / "ade", tmp_path / "prepared", progress=False)
        push(tmp_path / "prepared", repository="me/data")
        assert {"README.md", "vocabulary.json"} < set(hub.files("me/data", kind="dataset"))
        code = """
from hf_maskadapter.data import load_segmentation_dataset
dataset = load_segmentation_dataset("me/data", split="train")
result = [len(dataset), list(dataset.vocabulary.names)[:2], list(dataset[0].image.size)]
"""
        assert fresh(code) == [2, ["wall", "building"], [16, 12]]


class TestResults:
    @pytest.fixture
    def results(self, tmp_path):
        content = {
            "dataset": {"name": "scenes"},
            "benchmark": None,
            "split": "test",
            "results": {"adapter": {"metrics": {"mean_iou": 0.5, "pq": None}}},
        }
        (tmp_path / "evaluation").mkdir()
        (tmp_path / "evaluation" / "results.json").write_text(json.dumps(content))
        (tmp_path / "evaluation" / "report.md").write_text("# Report\n")
        return tmp_path / "evaluation"

    def test_go_beside_their_model_and_into_its_card(self, push, hub, tiny_model_dir, results):
        push(tiny_model_dir)
        before = ModelCard(hub.files("me/model")["README.md"].decode())
        push(results)
        files = hub.files("me/model")
        assert {"evaluation/evaluation-test/results.json", "evaluation/evaluation-test/report.md"} <= set(files)
        assert "model.safetensors" in files
        card = ModelCard(files["README.md"].decode())
        assert [(entry.metric_type, entry.metric_value) for entry in card.data.eval_results] == [("mean_iou", 50.0)]
        assert card.text == before.text
        assert hub.titles("me/model")[0] == "Upload results"

    def test_that_are_no_results_are_refused(self, push, results, hub):
        (results / "results.json").write_text("{}")
        assert "was not written by maskadapter evaluate" in push(results, fails=True)
