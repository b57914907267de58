"""Training, evaluation and the command line against a Hub: what they upload, fetch and say."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "scripts"

RUN_SCRIPT = """
import runpy, sys
sys.argv = arguments
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""

RUN_CLI = """
import sys
from hf_maskadapter.cli import main
sys.exit(main(arguments))
"""

PUSH = """
from hf_maskadapter.hub import push_folder_to_hub
push_folder_to_hub(arguments[0], "me/model", private=True)
"""


@pytest.fixture
def run(client, hub, owner, tmp_path):
    """Run a script or `maskadapter` in a fresh process on the CPU."""

    def run(program, *arguments, **options):
        options.setdefault("home", tmp_path / "home")
        arguments = [argument if isinstance(argument, Path) else str(argument) for argument in arguments]
        environment = {"ACCELERATE_USE_CPU": "true"}
        if program == "maskadapter":
            return client.run(RUN_CLI, *arguments, environment=environment, **(owner | options))
        return client.run(RUN_SCRIPT, SCRIPTS / program, *arguments, environment=environment, **(owner | options))

    return run


@pytest.fixture
def training(tiny_model_dir, tmp_path):
    """Arguments of a short training on two pictures with cat, sky and road."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
    for index in range(2):
        label_map = np.kron(rng.integers(0, 3, (2, 3)), np.ones((24, 24))).astype(np.uint8)
        Image.fromarray(label_map).save(tmp_path / "data" / "train" / "labels" / f"{index}.png")
        Image.fromarray(np.stack([80 * label_map] * 3, -1)).save(
            tmp_path / "data" / "train" / "images" / f"{index}.png"
        )
    (tmp_path / "data" / "classes.json").write_text(json.dumps(["cat", "sky", "road"]))
    options = {
        "stage": "warmup",
        "model": tiny_model_dir,
        "dataset": tmp_path / "data",
        "output_dir": tmp_path / "out",
        "validation_split": "train",
        "max_validation_samples": 1,
        "crop_size": 64,
        "batch_size": 2,
        "max_steps": 1,
        "num_workers": 0,
        "mixed_precision": "no",
        "hub_model_id": "me/trained",
    }
    return [
        *(part for name, value in options.items() for part in (f"--{name}", value)),
        "--push_to_hub",
        "--hub_private",
    ]


class TestTraining:
    def test_uploads_the_trained_model_with_a_card(self, run, hub, training):
        finished = run("train.py", *training)
        assert finished.status == 0, finished.stderr
        assert hub.repositories["model", "me/trained"].private
        assert hub.titles("me/trained") == ["Upload trained model", "initial commit"]
        files = hub.files("me/trained")
        assert {"model.safetensors", "modeling_maskadapter.py", "training_arguments.json"} <= set(files)
        card = ModelCard(files["README.md"].decode())
        assert "1 optimiser steps on data (2 samples, 3 classes)" in card.text
        assert [result.metric_type for result in card.data.eval_results] == ["mean_iou"]
        assert "Measured with hf-maskadapter" in card.text

    def test_whose_upload_will_be_refused_does_not_begin(self, run, training, tmp_path):
        finished = run("train.py", *training, token="hf_wrong")
        assert finished.status == 2
        assert "refused the access token" in finished.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()

    def test_whose_upload_fails_keeps_the_model_and_says_how_to_go_on(self, run, hub, training, tmp_path):
        hub.fail("POST", "/commit/", status=507)
        finished = run("train.py", *training)
        model = tmp_path / "out" / "model"
        assert finished.status == 2
        assert f"maskadapter publish {model} me/trained" in finished.stderr.splitlines()[-1]
        assert (model / "model.safetensors").is_file()


class TestEvaluation:
    def test_of_a_model_on_the_hub_uploads_the_results_to_it(self, run, hub, client, owner, tiny_model_dir, tmp_path):
        client.run(PUSH, tiny_model_dir, **owner).expect_success()
        options = ["--dataset", "scenes", "--max_samples", 1, "--num_worst", 0, "--output_dir", tmp_path / "out"]
        finished = run("evaluate.py", "--model", "me/model", *options, "--push_to_hub")
        assert finished.status == 0, finished.stderr
        files = hub.files("me/model")
        assert {"evaluation/out-test/results.json", "evaluation/out-test/report.md"} <= set(files)
        (result,) = ModelCard(files["README.md"].decode()).data.eval_results
        assert result.metric_type == "mean_iou"
        assert result.dataset_split == "test"

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--push_to_hub"], "give output_dir, too"),
            (["--push_to_hub", "--output_dir", "out"], "name the model on the Hub that the results belong to"),
        ],
    )
    def test_says_what_an_upload_needs(self, run, tiny_model_dir, options, expected):
        finished = run("evaluate.py", "--model", tiny_model_dir, "--dataset", "scenes", *options)
        assert finished.status == 2
        assert expected in finished.stderr.splitlines()[-1]


class TestErrors:
    """Each command names the model and says in one line what to do."""

    @pytest.fixture(params=["maskadapter", "train.py", "evaluate.py"])
    def command(self, request, run, training, tmp_path):
        """Run a command on a model, by name and revision."""
        Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")

        def command(model, revision=None, **options):
            if request.param == "maskadapter":
                pictures = ["segment", tmp_path / "picture.png", "--labels", "cat", "--output", tmp_path / "out.png"]
                arguments = [*pictures, "--model", model, *(["--revision", revision] if revision else [])]
            elif request.param == "train.py":
                arguments = [*training[:-2], "--model", model, *(["--model_revision", revision] if revision else [])]
            else:
                arguments = ["--model", model, "--dataset", "scenes", "--max_samples", 1]
            finished = run(request.param, *arguments, **options)
            assert finished.status == 2
            return finished.stderr.splitlines()[-1]

        return command

    def test_of_a_model_that_is_not_there(self, command):
        message = command("user/missing")
        assert "user/missing" in message
        assert "no such repository, or it is private" in message
        assert "hf auth login" in message

    def test_of_a_wrong_token(self, command):
        assert "refused the access token, which is wrong or has expired" in command("me/model", token="hf_wrong")

    def test_of_a_model_that_is_not_in_the_cache(self, command):
        message = command("user/missing", offline=True)
        assert "the Hub cannot be reached, and the file is not in the local cache" in message

    @pytest.mark.parametrize("command", ["maskadapter", "train.py"], indirect=True)
    def test_of_a_wrong_revision(self, command, client, owner, tiny_model_dir):
        client.run(PUSH, tiny_model_dir, **owner).expect_success()
        assert "no such revision. Check the branch, tag or commit" in command("me/model", revision="typo")
