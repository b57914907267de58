"""Signals during training: a checkpoint, one line, the exit status; the same step on all processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from hf_maskadapter.training import interruption
from hf_maskadapter.training.interruption import StopSignals, TrainingInterrupted, ValidationInterrupted
from hf_maskadapter.training.trainer import MODEL_WEIGHTS
from support import toy

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


class TestStopSignals:
    def test_the_first_one_is_noted_and_the_handlers_before_come_back(self):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with StopSignals() as signals:
            assert signals.received is None
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    def test_what_a_launcher_passes_on_at_once_is_the_same_signal(self):
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGINT

    def test_the_second_one_ends_at_once(self, monkeypatch):
        monkeypatch.setattr(interruption, "ECHO_SECONDS", -1.0)
        with StopSignals():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_in_another_thread_nothing_changes(self):
        before, found = signal.getsignal(signal.SIGINT), []

        def enter():
            with StopSignals():
                found.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert found == [before]


class Interrupting(toy.Rectangles):
    """Sends a signal to the process while a sample is read, once."""

    def __init__(self, number, after):
        super().__init__()
        self.number, self.left = number, after

    def read(self, item):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return super().read(item)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_interrupted_has_saved_the_step_and_goes_on_bit_for_bit(number, tmp_path):
    whole = toy.trainer(tmp_path / "whole", steps=4, batch_size=2)
    whole.train()
    first = toy.trainer(tmp_path / "parts", steps=4, batch_size=2, source=Interrupting(number, 3))
    with pytest.raises(TrainingInterrupted, match=rf"{number.name} after step 2, saved in .*step-00000002") as caught:
        first.train()
    assert (caught.value.signal_number, caught.value.step) == (number, 2)
    assert first.checkpoints.steps() == [2]
    second = toy.trainer(tmp_path / "parts", steps=4, batch_size=2)
    second.train("latest")
    for name, value in whole.stage.state_dict().items():
        assert torch.equal(second.stage.state_dict()[name], value), name
    assert [record["step"] for record in second.step_log.read()] == [1, 2, 3, 4]


def test_a_signal_in_the_last_step_lets_the_run_end_as_ever(tmp_path):
    of_run = toy.trainer(tmp_path, steps=2, batch_size=2, source=Interrupting(signal.SIGINT, 4))
    assert of_run.train().step == 2
    assert of_run.checkpoints.steps() == [2]


class SignalledValidation:
    """Validates in three batches; gets a signal in one of them, once, and draws random numbers."""

    def __init__(self, of_run, number=None):
        self.of_run, self.number, self.batches = of_run, number, []

    def __call__(self):
        step = self.of_run._progress.step
        torch.rand(1)
        for batch in range(3):
            if self.of_run.signals.is_received():
                raise ValidationInterrupted
            self.batches.append((step, batch))
            if self.number is not None and batch == 1:
                signal.raise_signal(self.number)
        return {"mean_iou": float(self.of_run.stage.void_embedding.sum())}


class TestASignalDuringValidation:
    def begin(self, folder, number=None, **options):
        options = {"steps": 4, "batch_size": 2, "eval_steps": 2, "validate": dict} | options
        of_run = toy.trainer(folder, **options)
        of_run.validate = SignalledValidation(of_run, number)
        return of_run

    @pytest.mark.parametrize("steps", [2, 4], ids=["the last validation", "one before"])
    def test_ends_it_at_the_next_batch_and_the_run_goes_on_bit_for_bit(self, steps, tmp_path):
        whole = self.begin(tmp_path / "whole", steps=steps, ema_decay=0.9)
        expected = whole.train()
        first = self.begin(tmp_path / "parts", signal.SIGTERM, steps=steps, ema_decay=0.9)
        with pytest.raises(TrainingInterrupted, match="SIGTERM after step 2, saved in"):
            first.train()
        assert first.validate.batches == [(2, 0), (2, 1)]
        assert first.checkpoints.steps() == [2]
        assert [record["step"] for record in first.step_log.read()] == [1, 2]
        assert first.stage.training
        second = self.begin(tmp_path / "parts", steps=steps, ema_decay=0.9)
        result = second.train("latest")
        assert second.validate.batches[:3] == [(2, 0), (2, 1), (2, 2)]
        assert (result.metrics, result.best_step) == (expected.metrics, expected.best_step)
        for name, value in whole.stage.state_dict().items():
            assert torch.equal(second.stage.state_dict()[name], value), name
        values = [
            [
                (record["step"], record["eval_mean_iou"])
                for record in of_run.step_log.read()
                if "eval_mean_iou" in record
            ]
            for of_run in (whole, second)
        ]
        assert values[0] == values[1]

    def test_without_validation_the_run_goes_on_all_the_same(self, tmp_path):
        with pytest.raises(TrainingInterrupted):
            self.begin(tmp_path, signal.SIGINT).train()
        assert toy.trainer(tmp_path, steps=4, batch_size=2).train("latest").step == 4

    def test_without_a_signal_a_validation_that_gives_up_is_an_error(self, tmp_path):
        of_run = self.begin(tmp_path)

        def give_up():
            raise ValidationInterrupted("no signal came")

        of_run.validate = give_up
        with pytest.raises(ValidationInterrupted, match="no signal came"):
            of_run.train()

    def test_validating_changes_no_random_numbers(self, tmp_path):
        states = []
        for validate in (None, lambda: {"mean_iou": torch.rand(1).item()}):
            of_run = toy.trainer(tmp_path / str(validate is None), steps=1, batch_size=2, validate=validate)
            torch.manual_seed(0)
            of_run.train()
            states.append(torch.rand(1))
        assert torch.equal(*states)


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False], ids=["to all processes", "to one"])
def test_two_processes_save_the_same_step(to_all, tmp_path):
    runs = [{"name": "warmup", "output_dir": str(tmp_path), "steps": 1000, "batch_size": 4, "delay": 0.05}]
    program = [str(toy.__file__), json.dumps(runs)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with subprocess.Popen(
        [sys.executable, *launcher, *program],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        log = tmp_path / "log.jsonl"
        while process.poll() is None and not log.exists():
            time.sleep(0.05)
        if to_all:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the launcher passes it on besides
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[1]), signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    saved = sorted((tmp_path / "checkpoints").iterdir())
    assert len(saved) == 1, errors[-3000:]
    assert (saved[0] / MODEL_WEIGHTS).is_file()
    step = int(saved[0].name.removeprefix("step-"))
    assert step < 1000
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, step + 1))
