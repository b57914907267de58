"""Runs in processes of their own: two of them equal one, and a killed one goes on exactly."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_maskadapter.data import create_training_loader
from hf_maskadapter.training.checkpoints import CheckpointStore
from hf_maskadapter.training.log import StepLog
from hf_maskadapter.training.trainer import MODEL_WEIGHTS
from support import toy

TESTS = Path(__file__).parents[1]
STAGES = ["warmup", "mixed", "generator"]
STEPS = 4
KILLED_STEPS = 12


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in the other processes: results can depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(runs, num_processes=1):
    program = [str(toy.__file__), json.dumps(runs)]
    if num_processes == 1:
        return [sys.executable, *program]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={num_processes}",
        *program,
    ]


def environment():
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def train_here(resume=None, **options):
    toy.reset_accelerate()
    toy.trainer(**options).train(resume)
    toy.reset_accelerate()


def start_in_processes(runs):
    """Train on two processes; their messages are shown if they fail."""
    done = subprocess.run(command(runs, 2), env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def checkpoints(output_dir):
    return CheckpointStore(Path(output_dir) / "checkpoints")


def final_weights(output_dir, step):
    return load_file(checkpoints(output_dir).path(step) / MODEL_WEIGHTS)


class TestTwoProcesses:
    @pytest.fixture(scope="class", name="results")
    @classmethod
    def train_on_one_and_two(cls, tmp_path_factory):
        """Every stage on one process, on two with half the batch each, and begun on one and ended on two."""
        folder = tmp_path_factory.mktemp("processes")
        options = {"steps": STEPS, "batch_size": 4, "save_steps": 2, "learning_rate": 0.1, "optimizer": "sgd"}
        for name in STAGES:
            train_here(name=name, output_dir=folder / f"{name}_one", **options)
        runs = [{"name": name, "output_dir": str(folder / f"{name}_two"), **options} for name in STAGES]
        begun = str(checkpoints(folder / "warmup_one").path(2))
        runs.append({"name": "warmup", "output_dir": str(folder / "one_then_two"), "resume": begun, **options})
        start_in_processes(runs)
        return folder

    def test_hold_different_numbers_of_masks(self):
        num_masks = []
        for process in range(2):
            loader = create_training_loader(
                toy.Rectangles(), toy.transform(), 2, num_processes=2, process_index=process, num_batches=STEPS
            )
            num_masks.append([sum(map(len, batch["class_labels"])) for batch in loader])
        assert num_masks[0] != num_masks[1]

    @pytest.mark.parametrize("name", STAGES)
    def test_with_half_the_batch_each_equal_one(self, name, results):
        one, two = (final_weights(results / f"{name}_{kind}", STEPS) for kind in ("one", "two"))
        before = final_weights(results / f"{name}_one", 2)
        assert one.keys() == two.keys()
        for parameter, value in one.items():
            torch.testing.assert_close(two[parameter], value, rtol=1e-3, atol=2e-5)
        assert any((value - before[parameter]).abs().max() > 1e-3 for parameter, value in one.items())

    @pytest.mark.parametrize("name", STAGES)
    def test_report_the_same_numbers(self, name, results):
        one, two = (StepLog(results / f"{name}_{kind}" / "log.jsonl").read() for kind in ("one", "two"))
        assert len(one) == len(two) == STEPS
        for expected, found in zip(one, two, strict=True):
            for of_time in ("seconds", "eta_seconds"):
                del expected[of_time], found[of_time]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert name != "mixed" or all(record["matches"] > 0 for record in one)

    def test_go_on_where_one_stopped(self, results):
        expected = final_weights(results / "warmup_one", STEPS)
        for parameter, value in final_weights(results / "one_then_two", STEPS).items():
            torch.testing.assert_close(value, expected[parameter], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["warmup", "mixed"])
def test_sharded_runs_equal_others_and_go_on(name, tmp_path):
    options = {"name": name, "steps": STEPS, "batch_size": 4, "learning_rate": 0.1, "optimizer": "sgd", "save_steps": 2}
    whole = {"output_dir": str(tmp_path / "whole"), "weights_file": str(tmp_path / "whole.safetensors")}
    begun = str(checkpoints(tmp_path / "whole").path(2))
    again = {
        "output_dir": str(tmp_path / "again"),
        "weights_file": str(tmp_path / "again.safetensors"),
        "resume": begun,
    }
    start_in_processes([options | whole | {"fsdp": True}, options | again | {"fsdp": True}])
    train_here(output_dir=tmp_path / "one", **options)
    expected = final_weights(tmp_path / "one", STEPS)
    for weights_file in (whole["weights_file"], again["weights_file"]):
        found = load_file(weights_file)
        assert found.keys() == expected.keys()
        for parameter, value in expected.items():
            torch.testing.assert_close(found[parameter], value, rtol=1e-3, atol=2e-5)


class TestKilledRuns:
    @staticmethod
    def options(output_dir, delay=0.0):
        """A run that writes a checkpoint at each step. With a delay of each sample, kills hit every part of it."""
        return {
            "name": "mixed",
            "output_dir": str(output_dir),
            "steps": KILLED_STEPS,
            "batch_size": 2,
            "save_steps": 1,
            "checkpoints_limit": 2,
            "ema_decay": 0.9,
            "delay": delay,
        }

    def kill(self, output_dir, after_steps, seconds):
        """Start a run and kill it after some steps and seconds; says whether it was still running."""
        with subprocess.Popen(
            command([self.options(output_dir, delay=0.02)]),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while process.poll() is None and max(checkpoints(output_dir).steps(), default=0) < after_steps:
                time.sleep(0.005)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                return True
        return False

    def go_on(self, output_dir):
        train_here(resume="latest", **self.options(output_dir))

    @staticmethod
    def assert_equal_runs(output_dir, expected_dir):
        expected = final_weights(expected_dir, KILLED_STEPS)
        for parameter, value in final_weights(output_dir, KILLED_STEPS).items():
            assert torch.equal(value, expected[parameter]), parameter
        logs = (StepLog(Path(folder) / "log.jsonl").read() for folder in (output_dir, expected_dir))
        found, expected = ([(record["step"], record["loss"], record["matches"]) for record in log] for log in logs)
        assert found == expected

    @pytest.fixture(scope="class")
    @classmethod
    def uninterrupted(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("uninterrupted")
        train_here(**cls.options(folder))
        return folder

    def test_a_killed_run_goes_on_bit_for_bit(self, uninterrupted, tmp_path):
        assert self.kill(tmp_path, after_steps=4, seconds=0.03)
        self.go_on(tmp_path)
        self.assert_equal_runs(tmp_path, uninterrupted)

    @pytest.mark.slow
    def test_runs_killed_at_twenty_random_moments_go_on_bit_for_bit(self, uninterrupted, tmp_path):
        rng = random.Random(0)
        kills = 0
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            kills += self.kill(folder, after_steps=rng.randrange(KILLED_STEPS - 2), seconds=rng.uniform(0, 0.2))
            self.go_on(folder)
            self.assert_equal_runs(folder, uninterrupted)
        assert kills >= 18
