"""The training command: from folders of pictures to a saved model, and the user's mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.cli import main, training
from hf_maskadapter.cli.train import training_options
from hf_maskadapter.data import DataError
from hf_maskadapter.hub.adapter_weights import load_with_adapter
from hf_maskadapter.training.log import StepLog
from support import toy
from support.project_scripts import SCRIPTS

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = pytest.mark.usefixtures("fresh_accelerate_state", "on_the_cpu")


@pytest.fixture
def options(tiny_model_dir, data_dir, tmp_path):
    return {
        "stage": "warmup",
        "model": str(tiny_model_dir),
        "dataset": str(data_dir),
        "output_dir": str(tmp_path / "out"),
        "crop_size": 64,
        "batch_size": 2,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "num_workers": 0,
        "num_points": 64,
        "iou_threshold": 0.01,
    }


def train(options, **changes):
    toy.reset_accelerate()
    return training.run_training(training_options(options | changes))


def predict(model, processor, picture):
    inputs = processor(images=picture, return_tensors="pt")
    vocabulary = model.encode_vocabulary(["cat", "sky"], processor)
    with torch.no_grad():
        return model(**inputs, vocabulary=vocabulary).class_queries_logits


class TestResult:
    def test_is_a_model_with_processor_and_its_adapter_alone(self, options, picture):
        train(options)
        out = Path(options["output_dir"])
        processor = MaskAdapterProcessor.from_pretrained(out / "model")
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(out / "model").eval()
        attached = load_with_adapter(out / "adapter")
        base = MaskAdapterForOpenVocabularySegmentation.from_pretrained(options["model"]).eval()
        assert torch.equal(predict(attached, processor, picture), predict(model, processor, picture))
        assert not torch.equal(predict(base, processor, picture), predict(model, processor, picture))
        for name, value in base.state_dict().items():
            is_trained = name.startswith("adapter.") or name == "void_embedding"
            assert is_trained or torch.equal(model.state_dict()[name], value)
        assert json.loads((out / "training_result.json").read_text())["step"] == 3
        assert json.loads((out / "training_arguments.json").read_text())["learning_rate"] == 1e-3
        for name in ("model", "adapter"):
            card = (out / name / "README.md").read_text()
            assert "3 optimiser steps on data (6 samples, 3 classes)" in card
            assert "| learning_rate | 0.001 |" in card

    def test_of_the_stages_follow_each_other(self, options, tmp_path):
        stages = ("generator", "warmup", "mixed")
        for number, stage in enumerate(stages):
            model = options["model"] if number == 0 else str(tmp_path / f"{number - 1}" / "model")
            train(options, stage=stage, model=model, output_dir=str(tmp_path / f"{number}"))
            assert (tmp_path / f"{number}" / "adapter").exists() == (stage != "generator")
        records = StepLog(tmp_path / "2" / "log.jsonl").read()
        assert sum(record["matches"] for record in records) > 0
        config = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path / "0" / "model").config
        assert config.training_vocabulary == [["cat"], ["sky"], ["road"]]

    def test_is_the_average_where_one_is_kept(self, options):
        train(options, ema_decay=0.99)
        out = Path(options["output_dir"])
        averages = load_file(out / "checkpoints" / "step-00000003" / "ema.safetensors")
        saved = load_file(out / "model" / "model.safetensors")
        assert all(torch.equal(saved[name], average) for name, average in averages.items())

    def test_is_the_best_on_request(self, options, monkeypatch):
        values = iter([0.3, 0.9, 0.1])
        monkeypatch.setattr(training, "build_validation", lambda *_: lambda: {"mean_iou": next(values)})
        result = train(options, validation_split="val", eval_steps=1, keep="best", checkpoints_limit=1)
        assert result.best_step == 2
        out = Path(options["output_dir"])
        best = load_file(out / "checkpoints" / "step-00000002" / "model.safetensors")
        saved = load_file(out / "model" / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in best.items())

    def test_is_validated(self, options):
        for masks in ("generator", "annotation"):
            output_dir = options["output_dir"] + masks
            result = train(options, validation_split="val", eval_steps=2, eval_masks=masks, output_dir=output_dir)
            assert 0 <= result.metrics["mean_iou"] <= 1
            steps = [
                record["step"] for record in StepLog(Path(output_dir) / "log.jsonl").read() if "eval_mean_iou" in record
            ]
            assert steps == [2, 3]

    def test_of_a_model_without_adapter_has_a_new_one(self, options, tiny_model_dir, tmp_path):
        base = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
        base.adapter, base.config.use_adapter, base.config.mask_embedding = None, False, "pooling"
        shutil.copytree(tiny_model_dir, tmp_path / "base")
        base.save_pretrained(tmp_path / "base")
        train(options, model=str(tmp_path / "base"), adapter_hidden_size=24, adapter_num_output_maps=2)
        trained = MaskAdapterForOpenVocabularySegmentation.from_pretrained(Path(options["output_dir"]) / "model")
        assert (trained.config.hidden_size, trained.config.num_output_maps) == (24, 2)
        assert trained.config.mask_embedding == "adapter"

    def test_goes_on_to_the_same_weights(self, options, tmp_path):
        train(options, save_steps=1)
        other = str(tmp_path / "other")
        train(options, output_dir=other, save_steps=1)
        for step in ("step-00000002", "step-00000003"):
            shutil.rmtree(Path(other) / "checkpoints" / step)
        shutil.rmtree(Path(other) / "model")
        train(options, output_dir=other, resume_from_checkpoint="latest")
        found, expected = (
            load_file(Path(out) / "model" / "model.safetensors") for out in (other, options["output_dir"])
        )
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    def test_reaches_tensorboard(self, options):
        pytest.importorskip("tensorboard")
        train(options, report_to=("tensorboard",))
        assert list(Path(options["output_dir"]).rglob("events.out.tfevents*"))

    def test_needs_the_texts_only_once(self, options, monkeypatch):
        encoded = []
        encode = MaskAdapterForOpenVocabularySegmentation.encode_vocabulary

        def count(model, vocabulary, *arguments, **kwargs):
            encoded.append(vocabulary.names)
            return encode(model, vocabulary, *arguments, **kwargs)

        monkeypatch.setattr(MaskAdapterForOpenVocabularySegmentation, "encode_vocabulary", count)
        train(options, stage="mixed")
        assert [list(names) for names in encoded] == [["cat", "sky", "road"]]

    def test_with_features_kept_is_the_same(self, options, tmp_path, monkeypatch):
        fixed = {"scale_range": (1.0, 1.0), "flip_probability": 0.0}
        without = train(options, output_dir=str(tmp_path / "without"), **fixed)
        kept = {"feature_cache": str(tmp_path / "features"), "feature_cache_gigabytes": 0.1}
        train(options, output_dir=str(tmp_path / "kept"), **fixed, **kept)
        weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("without", "kept")]
        assert without.step
        assert list((tmp_path / "features").glob("*/*.safetensors"))
        for name, values in weights[0].items():
            torch.testing.assert_close(weights[1][name], values, rtol=1e-3, atol=1e-4)

    def test_on_a_folder_without_splits(self, options, data_dir):
        (data_dir / "classes.json").rename(data_dir / "train" / "classes.json")
        assert train(options, dataset=str(data_dir / "train")).step == 3

    def test_of_epochs(self, options):
        assert train({name: value for name, value in options.items() if name != "max_steps"}, num_epochs=1.5).step == 5


class TestMistakes:
    def test_an_unreadable_picture_is_named_and_leaves_checkpoints(self, options, data_dir):
        (data_dir / "train" / "images" / "4.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"4\.png.*cannot be read"):
            train(options, batch_size=1, max_steps=6, save_steps=1)
        assert not (Path(options["output_dir"]) / "model").exists()
        checkpoints = sorted(path.name for path in (Path(options["output_dir"]) / "checkpoints").iterdir())
        assert all(name.startswith("step-") for name in checkpoints)
        (data_dir / "train" / "images" / "4.png").write_bytes((data_dir / "train" / "images" / "3.png").read_bytes())
        assert train(options, batch_size=1, max_steps=6, resume_from_checkpoint="latest").step == 6

    def test_in_a_worker_it_is_one_clear_message_too(self, options, data_dir):
        (data_dir / "train" / "images" / "4.png").write_bytes(b"no picture")
        with pytest.raises(DataError) as caught:
            train(options, batch_size=6, num_workers=1)
        assert "4.png" in str(caught.value)
        assert "Traceback" not in str(caught.value)

    def test_a_label_outside_the_vocabulary_is_named(self, options, data_dir):
        Image.fromarray(np.full((48, 72), 7, dtype=np.uint8)).save(data_dir / "train" / "labels" / "2.png")
        with pytest.raises(DataError, match=r"2\.png.*holds 7, outside the vocabulary"):
            train(options, batch_size=6)

    def test_a_label_map_of_another_size_is_named(self, options, data_dir):
        Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(data_dir / "train" / "labels" / "2.png")
        with pytest.raises(DataError, match=r"2\.png.*same size"):
            train(options, batch_size=6)

    def test_a_missing_column_is_named(self, options):
        with pytest.raises(DataError, match=r"no column 'annotation'.*columns: "):
            train(options, label_column="annotation")

    def test_an_empty_data_set_is_an_error(self, options, data_dir):
        for path in (data_dir / "train").rglob("*.png"):
            path.unlink()
        with pytest.raises(DataError):
            train(options)

    def test_a_crop_that_does_not_fit_the_model_is_an_error(self, options):
        with pytest.raises(ValueError, match="multiple of 32"):
            train(options, crop_size=50)

    def test_a_tracker_that_is_not_installed_is_an_error(self, options, monkeypatch):
        monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
        with pytest.raises(ImportError, match="tensorboard cannot be imported"):
            train(options, report_to=["tensorboard"])

    def test_a_full_output_folder_is_an_error(self, options):
        train(options)
        with pytest.raises(RuntimeError, match="checkpoints of another run"):
            train(options)

    def test_fp16_on_a_cpu_is_an_error(self, options):
        with pytest.raises(ValueError, match="fp16 is not for a CPU: choose bf16 or no"):
            train(options, mixed_precision="fp16")
        assert not Path(options["output_dir"]).exists()

    def test_the_script_prints_one_line(self, options, capsys):
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        assert main(["train", *words, "--crop_size", "50"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("maskadapter train: error: crop_size=50 must be a multiple of 32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (("accelerate.commands.launch", "--config_file", str(CONFIGS / "one_gpu.yaml"), "--cpu"), 1),
        (("torch.distributed.run", "--standalone", "--nproc_per_node", "2"), 2),
    ],
    ids=["accelerate launch", "torchrun"],
)
def test_the_script_is_launched(launcher, processes, options):
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, str(SCRIPTS / "train.py"), *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{processes} process(es)" in done.stderr
    assert "Trained 3 steps" in done.stdout
    assert (Path(options["output_dir"]) / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_with_one_line_and_its_status(number, status, tiny_model_dir, data_dir, tmp_path):
    out = tmp_path / "out"
    words = f"--stage warmup --model {tiny_model_dir} --dataset {data_dir} --output_dir {out} --crop_size 64"
    words += " --batch_size 2 --max_steps 100000 --num_workers 1 --logging_steps 1"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "hf_maskadapter.cli", "train", *words.split()]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not (out / "log.jsonl").exists():
            time.sleep(0.05)
        os.killpg(process.pid, number)  # the loader's worker, too
        _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors[-3000:]
    (checkpoint,) = (out / "checkpoints").iterdir()
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"maskadapter train: interrupted by {number.name} after step ")
    assert last.endswith(
        f"saved in {checkpoint}; to go on, give the command again with --resume-from-checkpoint latest"
    )
    assert "Traceback" not in errors


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_accelerate_reads_the_launch_examples(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes in (1, 8, 16)
    assert config.mixed_precision == "bf16"
