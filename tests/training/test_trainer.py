"""The loop: steps, reports, validation, checkpoints, and going on exactly."""

import json
import logging
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_maskadapter.data import DataError
from hf_maskadapter.training.checkpoints import CheckpointError
from hf_maskadapter.training.log import StepLog
from hf_maskadapter.training.trainer import MATCHLESS_STEPS, MODEL_WEIGHTS
from support import toy

STAGES = ["warmup", "mixed", "generator"]


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.stage.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def log_of(trainer):
    """The step log without times, which differ between runs."""
    records = StepLog(trainer.step_log.path).read()
    return [{name: value for name, value in record.items() if "seconds" not in name} for record in records]


class Validation:
    """Gives the values of a list one after the other, and remembers the weights it saw."""

    def __init__(self, values, stage):
        self.values, self.stage, self.seen = list(values), stage, []

    def __call__(self):
        self.seen.append((self.stage.training, self.stage.void_embedding.detach().clone()))
        return {"mean_iou": self.values.pop(0), "mean_accuracy": 0.5}


class TestSteps:
    @pytest.mark.parametrize("name", STAGES)
    def test_only_the_stage_changes(self, name, tmp_path):
        trainer = toy.trainer(tmp_path, name, steps=2)
        before = {name: value.clone() for name, value in trainer.stage.segmenter.state_dict().items()}
        trainer.train()
        updated = {name for name, _ in trainer.stage.named_parameters()}
        for name, value in trainer.stage.segmenter.state_dict().items():
            assert torch.equal(value, before[name]) == (name not in updated), name

    @pytest.mark.parametrize("name", STAGES)
    def test_accumulated_batches_are_one_large_batch(self, name, tmp_path):
        options = {"steps": 3, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.1}
        whole = toy.trainer(tmp_path / "whole", name, **options)
        whole.train()
        toy.reset_accelerate()
        parts = toy.trainer(tmp_path / "parts", name, accumulation=4, **options)
        parts.train()
        for parameter, value in weights(whole).items():
            torch.testing.assert_close(weights(parts)[parameter], value, rtol=1e-3, atol=2e-5)
        for expected, found in zip(log_of(whole), log_of(parts), strict=True):
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)

    def test_workers_change_nothing(self, tmp_path):
        alone, helped = (toy.trainer(tmp_path / str(count), "mixed", steps=3, num_workers=count) for count in (0, 2))
        alone.train()
        helped.train()
        assert_same(weights(helped), weights(alone))

    def test_bf16_trains(self, tmp_path):
        trainer = toy.trainer(tmp_path, "mixed", steps=2, mixed_precision="bf16")
        before = weights(trainer)
        trainer.train()
        assert all(value.isfinite().all() and value.dtype == torch.float32 for value in weights(trainer).values())
        assert not torch.equal(weights(trainer)["adapter.final.weight"], before["adapter.final.weight"])

    def test_gradients_are_clipped(self, tmp_path):
        trainer = toy.trainer(tmp_path, steps=1, max_grad_norm=1e-3)
        norms = []
        trainer.optimizer.optimizer.register_step_pre_hook(
            lambda *_: norms.append(torch.stack([p.grad.norm() for p in trainer.stage.parameters()]).norm().item())
        )
        trainer.train()
        assert norms == [pytest.approx(1e-3, rel=1e-2)]

    def test_a_loss_that_is_not_finite_is_an_error(self, tmp_path):
        trainer = toy.trainer(tmp_path, steps=2)
        trainer.stage.void_embedding.data.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="step 1 is nan"):
            trainer.train()
        assert trainer.checkpoints.steps() == []

    @pytest.mark.parametrize("max_grad_norm", [1.0, None])
    def test_a_gradient_that_is_not_finite_is_an_error_before_it_reaches_a_checkpoint(self, max_grad_norm, tmp_path):
        trainer = toy.trainer(tmp_path, steps=3, save_steps=1, max_grad_norm=max_grad_norm)
        steps = iter([1.0, float("nan"), 1.0])
        trainer.stage.void_embedding.register_hook(lambda gradient: gradient * next(steps))
        with pytest.raises(FloatingPointError, match="gradient of step 2 is not finite"):
            trainer.train()
        assert trainer.checkpoints.steps() == [1]
        assert [record["step"] for record in log_of(trainer)] == [1]


class TestSharding:
    def test_what_it_cannot_do_is_an_error(self, tmp_path):
        with pytest.raises(ValueError, match=r"cannot shard mask_generator\.class_head\.logit_scale"):
            toy.trainer(tmp_path, "generator", fsdp=True)
        toy.reset_accelerate()
        with pytest.raises(ValueError, match="leave both out"):
            toy.trainer(tmp_path, fsdp=True, ema_decay=0.9)


class TestReports:
    def test_every_step_is_logged(self, tmp_path):
        trainer = toy.trainer(tmp_path, "mixed", steps=5)
        trainer.train()
        records = StepLog(tmp_path / "log.jsonl").read()
        assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
        for record in records:
            assert record["loss"] == pytest.approx(record["loss_class"] + record["loss_consistency"])
            assert {"masks", "mask_accuracy", "matches", "learning_rate", "grad_norm", "eta_seconds"} <= record.keys()
        assert records[0]["learning_rate"] == pytest.approx(0.5e-2)
        assert sum(record["matches"] for record in records) > 0

    def test_no_match_for_long_is_a_warning(self, tmp_path, caplog):
        stage = toy.stage("mixed", iou_threshold=0.99)
        trainer = toy.trainer(tmp_path, of_stage=stage, steps=3)
        trainer._progress.matchless_steps = MATCHLESS_STEPS - 2
        with caplog.at_level(logging.WARNING):
            trainer.train()
        assert caplog.text.count("No predicted mask matched") == 1

    def test_trackers_get_the_numbers(self, tmp_path, monkeypatch):
        trainer = toy.trainer(tmp_path, steps=4)
        logged = {}
        monkeypatch.setattr(trainer.accelerator, "log", lambda values, step: logged.update({step: values}))
        trainer.train()
        assert sorted(logged) == [2, 4]
        assert "train/loss" in logged[2]


class TestValidation:
    def test_the_best_checkpoint_is_kept_beyond_the_limit(self, tmp_path):
        stage = toy.stage("warmup")
        validate = Validation([0.1, 0.5, 0.5, 0.3], stage)
        trainer = toy.trainer(
            tmp_path, of_stage=stage, steps=8, eval_steps=2, save_steps=1, checkpoints_limit=2, validate=validate
        )
        result = trainer.train()
        assert (result.best_step, result.best_value) == (4, 0.5)
        assert trainer.checkpoints.steps() == [4, 7, 8]
        assert result.metrics == {"mean_iou": 0.3, "mean_accuracy": 0.5}
        assert [training for training, _ in validate.seen] == [False] * 4
        assert stage.training
        evaluations = [record for record in log_of(trainer) if "eval_mean_iou" in record]
        assert [record["step"] for record in evaluations] == [2, 4, 6, 8]

    def test_less_is_better_where_said(self, tmp_path):
        stage = toy.stage("warmup")
        trainer = toy.trainer(
            tmp_path,
            of_stage=stage,
            steps=3,
            eval_steps=1,
            greater_is_better=False,
            validate=Validation([3, 1, 2], stage),
        )
        assert trainer.train().best_step == 2

    def test_sees_the_moving_average(self, tmp_path):
        stage = toy.stage("warmup")
        validate = Validation([0.1], stage)
        trainer = toy.trainer(tmp_path, of_stage=stage, steps=3, ema_decay=0.99, validate=validate)
        trainer.train()
        assert torch.equal(validate.seen[0][1], trainer.ema.state_dict()["void_embedding"])
        assert not torch.equal(stage.void_embedding, validate.seen[0][1])

    def test_mistakes_are_errors(self, tmp_path):
        with pytest.raises(ValueError, match="give validate"):
            toy.trainer(tmp_path, eval_steps=2)
        trainer = toy.trainer(tmp_path, steps=1, best_metric="panoptic_quality", validate=lambda: {"mean_iou": 1.0})
        with pytest.raises(ValueError, match="no 'panoptic_quality'"):
            trainer.train()


class TestGoingOn:
    @pytest.mark.parametrize("name", STAGES)
    def test_is_exact(self, name, tmp_path):
        options = {"steps": 6, "save_steps": 2, "ema_decay": 0.9}
        whole = toy.trainer(tmp_path / "whole", name, **options)
        whole.train()
        first = toy.trainer(tmp_path / "parts", name, **options)
        first.settings = type(first.settings)(**vars(first.settings) | {"max_steps": 3})  # stopped after step 3
        first.train()
        shutil.rmtree(first.checkpoints.path(3))
        second = toy.trainer(tmp_path / "parts", name, **options)
        second.train("latest")
        assert_same(weights(second), weights(whole))
        assert_same(second.ema.state_dict(), whole.ema.state_dict())
        assert_same(second.optimizer.state_dict()["state"][0], whole.optimizer.state_dict()["state"][0])
        assert log_of(second) == log_of(whole)

    @pytest.mark.parametrize("accumulation", [2, 4])
    def test_is_the_same_with_another_division_of_the_batches(self, accumulation, tmp_path):
        options = {"steps": 6, "save_steps": 3, "optimizer": "sgd", "learning_rate": 0.1}
        whole = toy.trainer(tmp_path / "whole", **options)
        whole.train()
        toy.reset_accelerate()
        first = toy.trainer(tmp_path / "parts", **options)
        first.settings = type(first.settings)(**vars(first.settings) | {"max_steps": 3})  # an odd number of batches
        first.train()
        toy.reset_accelerate()
        second = toy.trainer(tmp_path / "parts", accumulation=accumulation, **options)
        second.train("latest")
        for name, value in weights(whole).items():
            torch.testing.assert_close(weights(second)[name], value, rtol=0, atol=1e-6)

    def test_restores_random_numbers(self, tmp_path):
        trainer = toy.trainer(tmp_path, steps=2)
        torch.manual_seed(5)
        trainer.train()
        expected = torch.rand(3)
        torch.manual_seed(6)
        toy.trainer(tmp_path, steps=2).train("latest")
        assert torch.equal(torch.rand(3), expected)

    def test_knows_the_best_so_far(self, tmp_path):
        stage = toy.stage("warmup")
        options = {"steps": 4, "eval_steps": 2, "save_steps": 2}
        first = toy.trainer(tmp_path, of_stage=stage, validate=Validation([0.9, 0.1], stage), **options)
        first.train()
        shutil.rmtree(first.checkpoints.path(4))
        second = toy.trainer(tmp_path, validate=Validation([0.5], stage), **options)
        assert second.train("latest").best_step == 2

    def test_with_no_checkpoint_starts(self, tmp_path, caplog):
        trainer = toy.trainer(tmp_path, steps=1)
        with caplog.at_level(logging.WARNING):
            assert trainer.train("latest").step == 1
        assert "no checkpoint to go on from" in caplog.text

    def test_skips_a_damaged_checkpoint(self, tmp_path, caplog):
        whole = toy.trainer(tmp_path, steps=4, save_steps=2)
        whole.train()
        (whole.checkpoints.path(4) / MODEL_WEIGHTS).write_bytes(b"")
        again = toy.trainer(tmp_path, steps=4, save_steps=2)
        with caplog.at_level(logging.WARNING):
            again.train("latest")
        assert "step-00000004 is damaged" in caplog.text
        assert_same(weights(again), weights(whole))
        again.checkpoints.verify(again.checkpoints.path(4))

    def test_from_a_chosen_checkpoint(self, tmp_path):
        whole = toy.trainer(tmp_path / "a", steps=4, save_steps=2)
        whole.train()
        again = toy.trainer(tmp_path / "b", steps=4)
        again.train(whole.checkpoints.path(2))
        assert_same(weights(again), weights(whole))

    def test_warns_of_other_settings(self, tmp_path, caplog):
        toy.trainer(tmp_path, steps=1, fingerprint={"seed": 0, "stage": "warmup"}).train()
        with caplog.at_level(logging.WARNING):
            toy.trainer(tmp_path, steps=1, fingerprint={"seed": 1, "stage": "warmup"}).train("latest")
        assert "seed (0, now 1)" in caplog.text
        assert "stage" not in caplog.text.split("other settings")[1]

    def test_a_run_that_began_with_the_dense_adapter_goes_on_without_a_word(self, tmp_path, caplog):
        toy.trainer(tmp_path, steps=1, fingerprint={"seed": 0, "adapter_implementation": "dense"}).train()
        with caplog.at_level(logging.WARNING):
            result = toy.trainer(tmp_path, steps=2, fingerprint={"seed": 0}).train("latest")
        assert result.step == 2
        assert "other settings" not in caplog.text

    def test_mistakes_are_errors(self, tmp_path):
        whole = toy.trainer(tmp_path / "a", steps=2, save_steps=1)
        whole.train()
        with pytest.raises(CheckpointError, match="holds checkpoints of another run"):
            toy.trainer(tmp_path / "a").train()
        with pytest.raises(CheckpointError, match="move step-00000002 away"):
            toy.trainer(tmp_path / "a").train(whole.checkpoints.path(1))
        with pytest.raises(CheckpointError, match="of stage 'warmup', not 'generator'"):
            toy.trainer(tmp_path / "b", "generator").train(whole.checkpoints.path(2))
        wider = toy.stage("warmup", toy.segmenter(hidden_size=32))
        with pytest.raises(CheckpointError, match="does not fit this run"):
            toy.trainer(tmp_path / "b", of_stage=wider).train(whole.checkpoints.path(2))
        with pytest.raises(CheckpointError, match="cannot be read"):
            toy.trainer(tmp_path / "b").train(tmp_path / "nowhere")


class TestCheckpoints:
    def test_hold_only_what_is_updated(self, tmp_path):
        trainer = toy.trainer(tmp_path, steps=1)
        trainer.train()
        saved = load_file(trainer.checkpoints.path(1) / MODEL_WEIGHTS)
        assert_same(saved, weights(trainer))
        assert {name.split(".")[0] for name in saved} == {"adapter", "void_embedding"}

    @pytest.fixture
    def full_disk(self):
        """No file can grow beyond some bytes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_a_full_disk_is_a_clear_error_and_leaves_earlier_checkpoints(self, tmp_path, request):
        trainer = toy.trainer(tmp_path, steps=4, save_steps=2)
        train_step = trainer._train_step

        def fill_the_disk_at_step_3(batches):
            if trainer._progress.step == 2:
                request.getfixturevalue("full_disk")
            train_step(batches)

        trainer._train_step = fill_the_disk_at_step_3
        with pytest.raises(CheckpointError, match=r"step 4 could not be written .* Free space .* latest"):
            trainer.train()
        assert [entry.name for entry in trainer.checkpoints.directory.iterdir()] == ["step-00000002"]
        trainer.checkpoints.verify(trainer.checkpoints.path(2))

    def test_an_unreadable_picture_in_the_middle_leaves_earlier_checkpoints(self, tmp_path):
        class Damaged(toy.Rectangles):
            def read(self, item):
                if item == 5:
                    raise DataError("rectangles, sample '5': the picture cannot be read")
                return super().read(item)

        trainer = toy.trainer(tmp_path, source=Damaged(), steps=8, batch_size=1, save_steps=1)
        with pytest.raises(DataError, match="sample '5'"):
            trainer.train()
        assert trainer.checkpoints.latest() is not None

    def test_a_record_cut_off_by_a_kill_is_dropped_from_the_log(self, tmp_path):
        log = StepLog(tmp_path / "log.jsonl")
        for step in (1, 2, 3):
            log.append({"step": step})
        with log.path.open("a") as file:
            file.write('{"step": 4, "lo')
        log.cut_after(2)
        assert [json.loads(line) for line in log.path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]
