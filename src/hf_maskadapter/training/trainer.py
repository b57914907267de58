"""The training loop: any stage, any number of processes, any accumulation, exactly resumable.

One optimiser step takes `gradient_accumulation_steps` batches of every process. Their counts are summed over batches
and processes before the losses are computed, so that a step's gradient is that of one large batch.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object, send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..files import write_json
from .checkpoints import CheckpointError, CheckpointStore, describe_write_error
from .interruption import STOP_SIGNALS, StopSignals, TrainingInterrupted, ValidationInterrupted
from .log import StepLog
from .optimization import ExponentialMovingAverage, Schedule
from .stage import PreparedBatch, TrainingStage

CHECKPOINTS_FOLDER = "checkpoints"
TRAINER_STATE = "trainer_state.json"
EMA_WEIGHTS = "ema.safetensors"
MODEL_WEIGHTS = "model.safetensors"
STEP_LOG = "log.jsonl"
MATCHLESS_STEPS = 100
"""After so many steps in a row without any match the user is warned."""

logger = logging.getLogger(__name__)

_SHARDING = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class ResumableBatchSampler(Protocol):
    """What the loop needs of a data loader's batch sampler; `hf_maskadapter.data` has two such."""

    @property
    def global_batch_size(self) -> int:
        """Samples in a batch of all processes together."""

    def state_dict(self, consumed: int) -> dict[str, Any]:
        """State after so many consumed samples of all processes."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class TrainingLoader(Protocol):
    """What the loop needs of a data loader: a `DataLoader`, or anything else that yields batches without end."""

    @property
    def batch_sampler(self) -> Any:
        """A [`ResumableBatchSampler`]."""

    def __iter__(self) -> Iterator[Any]:
        """Batches of this process, from where the sampler was told to go on."""


@dataclass(frozen=True)
class TrainerSettings:
    """How a run proceeds.

    Args:
        output_dir: where checkpoints and logs go.
        max_steps: length of the run in optimiser steps.
        gradient_accumulation_steps: batches of each process in an optimiser step.
        max_grad_norm: norm that gradients are clipped at, all parameters together; `None`: no clipping.
        ema_decay: decay of an exponential moving average of the weights; `None`: none.
        logging_steps: report so often, in optimiser steps. The step log holds every step in any case.
        eval_steps: validate so often; `None`: at the end only.
        save_steps: write a checkpoint so often; `None`: at the end only, and when a validation is the best so far.
        checkpoints_limit: keep so many of the latest checkpoints, and the best; `None`: all.
        best_metric: result of the validation that says which checkpoint is the best.
        greater_is_better: whether greater values of it are better.
        fingerprint: facts that decide the result of the run, stored in checkpoints; a run that goes on with other facts
            warns of it.

    Raises:
        ValueError: if a number is out of range.
    """

    output_dir: Path
    max_steps: int
    gradient_accumulation_steps: int = 1
    max_grad_norm: float | None = 1.0
    ema_decay: float | None = None
    logging_steps: int = 10
    eval_steps: int | None = None
    save_steps: int | None = None
    checkpoints_limit: int | None = 3
    best_metric: str = "mean_iou"
    greater_is_better: bool = True
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_steps", "gradient_accumulation_steps", "logging_steps", "eval_steps", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind.

    Args:
        step: optimiser steps done.
        loss: that of the last step.
        metrics: results of the last validation.
        best_step, best_value: the best validation, if there was one; its checkpoint is kept.
        seconds: time spent in optimiser steps, all parts of an interrupted run together.
    """

    step: int
    loss: float
    metrics: dict[str, float]
    best_step: int | None
    best_value: float | None
    seconds: float


@dataclass
class _Progress:
    """What changes from step to step, beside weights and optimiser state."""

    step: int = 0
    consumed: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    matchless_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    awaits_validation: bool = False


@dataclass
class _StepRecord:
    """What one optimiser step gives to report; tensors of this process, not yet read."""

    step: int
    seconds: float = 0.0
    losses: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    grad_norm: Tensor | None = None

    def add(self, output: Mapping[str, Mapping[str, Tensor]]) -> None:
        for totals, parts in ((self.losses, output["losses"]), (self.sums, output["sums"])):
            for name, part in parts.items():
                totals[name] = totals[name] + part.detach() if name in totals else part.detach()

    def row(self) -> Tensor:
        """Losses, then sums, in the order of their names."""
        return torch.stack([totals[name].float() for totals in (self.losses, self.sums) for name in sorted(totals)])


class Trainer:
    """Trains a stage.

    Args:
        stage: what is trained; with its initial weights, on any device.
        loader: batches of this process: an endless `DataLoader` whose `batch_sampler` is a [`ResumableBatchSampler`],
            or another [`TrainingLoader`]. It shards by process itself and is not passed through `Accelerator.prepare`.
        optimizer: over the stage's parameters; its groups' learning rates are the ones that `schedule` multiplies.
        schedule: factor of the learning rates as a function of the optimiser step.
        accelerator: made with the settings' `gradient_accumulation_steps`.
        settings: see [`TrainerSettings`].
        validate: called without gradients on every process, before the checkpoint of a step; returns metrics, the same
            on all of them. Random numbers that it draws on the CPU do not change the training. Where it takes long, it
            asks `signals` after each batch and raises [`ValidationInterrupted`] on all processes.
        signals: notes Ctrl-C and SIGTERM while it trains.

    Raises:
        ValueError: if the parts do not fit together.
    """

    def __init__(
        self,
        stage: TrainingStage,
        loader: TrainingLoader,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        accelerator: Accelerator,
        settings: TrainerSettings,
        validate: Callable[[], dict[str, float]] | None = None,
        signals: StopSignals | None = None,
    ) -> None:
        self.stage = stage
        self.loader = loader
        self.schedule = schedule
        self.accelerator = accelerator
        self.settings = settings
        self.validate = validate
        self.checkpoints = CheckpointStore(settings.output_dir / CHECKPOINTS_FOLDER, settings.checkpoints_limit)
        self.step_log = StepLog(settings.output_dir / STEP_LOG)
        self._sampler: ResumableBatchSampler = loader.batch_sampler
        self._check()
        self._progress = _Progress()
        self.signals = StopSignals() if signals is None else signals
        self._stop: int | None = None
        self._unreported: list[_StepRecord] = []

        stage.to_device(accelerator.device)
        self.prepared_stage, self.optimizer = self._prepare_parts(stage, optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = ExponentialMovingAverage(stage, settings.ema_decay) if settings.ema_decay is not None else None

    def _check(self) -> None:
        accelerator, settings = self.accelerator, self.settings
        if accelerator.gradient_accumulation_steps != settings.gradient_accumulation_steps:
            raise ValueError(
                f"The accelerator accumulates {accelerator.gradient_accumulation_steps} batches, the settings say "
                f"{settings.gradient_accumulation_steps}: give both the same gradient_accumulation_steps."
            )
        if settings.gradient_accumulation_steps > 1 and not self.stage.accumulates:
            raise ValueError(
                f"The stage {self.stage.name!r} compares the pictures of a step with each other, so it cannot work on "
                "them in parts: leave gradient_accumulation_steps at 1."
            )
        if settings.eval_steps is not None and self.validate is None:
            raise ValueError("eval_steps needs something to validate on: give validate.")
        if accelerator.distributed_type in _SHARDING and (settings.ema_decay is not None or self.validate is not None):
            raise ValueError(
                "A moving average and validation during training need whole parameters, but FSDP and DeepSpeed shard "
                "them: leave both out, or train with plain data parallelism."
            )
        scalars = [name for name, parameter in self.stage.named_parameters() if parameter.ndim == 0]
        if accelerator.distributed_type == DistributedType.FSDP and scalars:
            raise ValueError(
                f"FSDP cannot shard {', '.join(scalars)} (a scalar): train {self.stage.name!r} with plain data "
                "parallelism; what it updates is small."
            )

    def _prepare_parts(
        self, stage: TrainingStage, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        accelerator = self.accelerator
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            size = self._sampler.global_batch_size // accelerator.num_processes
            accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = size
        prepared = accelerator.prepare(stage, optimizer)
        if accelerator.distributed_type not in _SHARDING:
            accelerator.register_save_state_pre_hook(self._save_weights)
            accelerator.register_load_state_pre_hook(self._load_weights)
        return prepared

    def _save_weights(self, _models: list[nn.Module], weights: list[dict[str, Tensor]], directory: str) -> None:
        """Save weights under their unwrapped names, so that a run can go on with another number of processes."""
        weights.clear()
        if self.accelerator.is_main_process:
            state = {name: tensor.contiguous() for name, tensor in self.stage.state_dict().items()}
            save_file(state, os.path.join(directory, MODEL_WEIGHTS))

    def _load_weights(self, models: list[nn.Module], directory: str) -> None:
        models.clear()
        self.stage.load_state_dict(load_file(os.path.join(directory, MODEL_WEIGHTS)))

    def train(self, resume_from_checkpoint: str | os.PathLike[str] | None = None) -> TrainingResult:
        """Train to the last step, and write a checkpoint there.

        Args:
            resume_from_checkpoint: `"latest"` goes on from the latest undamaged checkpoint in the output folder, or
                starts if there is none; a checkpoint's folder goes on from that one; `None` starts.

        Raises:
            CheckpointError: if a checkpoint cannot be read or written, or there are checkpoints already and the run
                shall start.
            FloatingPointError: if a loss is not finite.
            TrainingInterrupted: after Ctrl-C or SIGTERM. All processes have then done the same step, and a checkpoint
                of it is there. A validation is ended, too, and begins anew when the run goes on. A second signal ends
                the process at once.
        """
        path = self._find_checkpoint(resume_from_checkpoint)
        if path is not None:
            self._resume(path)
        progress, settings = self._progress, self.settings
        if self.accelerator.is_main_process:
            self.step_log.cut_after(progress.step)
        self.prepared_stage.train()
        with (
            self.signals,
            tqdm(
                total=settings.max_steps,
                initial=progress.step,
                desc=self.stage.name,
                unit="step",
                disable=not self.accelerator.is_main_process,
                dynamic_ncols=True,
            ) as bar,
        ):
            batches = iter(self.loader)  # here, since a signal while workers start leaves PyTorch's iterator half made
            if self._progress.awaits_validation:
                self._finish_step(bar)
            while progress.step < settings.max_steps:
                self._train_step(batches)
                bar.update()
                self._finish_step(bar)
        return TrainingResult(
            progress.step, progress.loss, progress.metrics, progress.best_step, progress.best_value, progress.seconds
        )

    def _finish_step(self, bar: tqdm) -> None:
        """Validate, report and save, as far as it is time for it; end after a signal."""
        settings, progress = self.settings, self._progress
        is_validated = progress.awaits_validation or self._is_due(settings.eval_steps)
        is_best = self._validate() if self.validate is not None and is_validated else False
        is_saved = is_best or self._is_due(settings.save_steps)
        is_finished = progress.step == settings.max_steps and not progress.awaits_validation
        stop = None if is_finished else self._stop_signal()
        if stop or is_saved or self._is_due(settings.logging_steps):
            self._report(bar)
        if stop or is_saved:
            self._save_checkpoint()
        if stop:
            raise TrainingInterrupted(stop, progress.step, self.checkpoints.path(progress.step))

    def _stop_signal(self) -> int | None:
        """The signal that asks for an end, if all processes know of it."""
        return self.signals.received if self.accelerator.num_processes == 1 else self._stop

    def _is_due(self, interval: int | None) -> bool:
        """Whether it is time for something that is done every so many steps, and at the end."""
        step = self._progress.step
        return step == self.settings.max_steps or (interval is not None and step % interval == 0)

    # ------------------------------------------------------------------ one step

    def _train_step(self, batches: Iterator[Any]) -> None:
        started = time.perf_counter()
        settings, progress, accelerator = self.settings, self._progress, self.accelerator
        prepared = [self._prepare_batch(next(batches)) for _ in range(settings.gradient_accumulation_steps)]
        denominators = self._denominators(prepared)
        record = _StepRecord(progress.step + 1)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * self.schedule(progress.step) * group.get("lr_scale", 1.0)
        while prepared:
            batch = prepared.pop(0)
            with accelerator.accumulate(self.prepared_stage):
                output = self.prepared_stage(batch.inputs, denominators)
                # Accelerate divides by the number of accumulated batches; the denominators have done so already.
                loss = sum(output["losses"].values()) * settings.gradient_accumulation_steps
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    limit = math.inf if settings.max_grad_norm is None else settings.max_grad_norm
                    record.grad_norm = accelerator.clip_grad_norm_(self.prepared_stage.parameters(), limit)
                self.optimizer.step()
                self.optimizer.zero_grad()
            record.add(output)
        if self.ema is not None:
            self.ema.update(progress.step)
        progress.step += 1
        progress.consumed += self._sampler.global_batch_size * settings.gradient_accumulation_steps
        record.seconds = time.perf_counter() - started
        progress.seconds += record.seconds
        self._unreported.append(record)

    def _prepare_batch(self, batch: Any) -> PreparedBatch:
        batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
        with torch.no_grad(), self.accelerator.autocast():
            return self.stage.prepare(batch)

    def _denominators(self, prepared: list[PreparedBatch]) -> dict[str, float]:
        """Each count over all batches and processes; per process, since gradients are averaged over processes.

        On the way the processes tell each other of signals, so that all of them stop after the same step.
        """
        names = sorted(prepared[0].counts)
        counts = [sum(batch.counts[name] for batch in prepared) for name in names]
        totals = self._sums_with_signals(counts)
        processes = self.accelerator.num_processes
        return {name: (total or 1.0) / processes for name, total in zip(names, totals, strict=True)}

    def _sums_with_signals(self, numbers: Sequence[float]) -> list[float]:
        """Sums of numbers over the processes, which on the way tell each other of signals."""
        signals = [float(self.signals.received == number) for number in STOP_SIGNALS]
        totals = torch.tensor([*numbers, *signals], device=self.accelerator.device)
        totals = self.accelerator.reduce(totals, reduction="sum").tolist()
        sent = [number for number, total in zip(STOP_SIGNALS, totals[len(numbers) :], strict=True) if total]
        self._stop = sent[0] if sent else None
        return totals[: len(numbers)]

    # ------------------------------------------------------------------ reports

    def _report(self, bar: tqdm) -> None:
        """Bring the steps since the last report together over the processes, and log them."""
        if not self._unreported:
            return
        table = torch.stack([record.row() for record in self._unreported])
        table = self.accelerator.reduce(table, reduction="sum").tolist()
        for record, row in zip(self._unreported, table, strict=True):
            loss_names, sum_names = sorted(record.losses), sorted(record.sums)
            processes = self.accelerator.num_processes
            losses = {name: value / processes for name, value in zip(loss_names, row, strict=False)}
            sums = dict(zip(sum_names, row[len(loss_names) :], strict=True))
            self._log_step(record, losses, sums, bar)
        self._unreported.clear()

    def _log_step(self, record: _StepRecord, losses: dict[str, float], sums: dict[str, float], bar: tqdm) -> None:
        settings, step = self.settings, record.step
        total = self._progress.loss = sum(losses.values())
        if not math.isfinite(total):
            raise FloatingPointError(
                f"The loss of step {step} is {total} ({losses}). Go on from the checkpoint before it with a lower "
                "learning rate, or with bf16 or fp32 in place of fp16."
            )
        line: dict[str, Any] = {"step": step, "loss": total} | losses | self.stage.report(sums)
        line["learning_rate"] = self._base_rates[0] * self.schedule(step - 1)
        line["grad_norm"] = self._checked_norm(record)
        line["seconds"] = round(record.seconds, 4)
        line["eta_seconds"] = round(self._progress.seconds / self._progress.step * (settings.max_steps - step))
        self._warn_without_matches(line)
        if self.accelerator.is_main_process:
            self.step_log.append(line)
            bar.set_postfix(loss=f"{total:.4f}", refresh=False)
        if step % settings.logging_steps == 0 or step == settings.max_steps:
            values = {f"train/{name}": value for name, value in line.items() if name != "step"}
            self.accelerator.log(values, step=step)

    def _checked_norm(self, record: _StepRecord) -> float | None:
        """The gradient's norm; `None` where fp16's scaling of the loss was too high, and the step was left out."""
        if record.grad_norm is None or math.isfinite(norm := float(record.grad_norm)):
            return None if record.grad_norm is None else norm
        if self.accelerator.scaler is None:
            raise FloatingPointError(
                f"The gradient of step {record.step} is not finite ({norm}), although the loss is. Go on from the "
                "checkpoint before it with a lower learning rate, or in fp32."
            )
        return None

    def _warn_without_matches(self, line: Mapping[str, Any]) -> None:
        if "matches" not in line:
            return
        progress = self._progress
        progress.matchless_steps = 0 if line["matches"] else progress.matchless_steps + 1
        if progress.matchless_steps == MATCHLESS_STEPS and self.accelerator.is_main_process:
            logger.warning(
                "No predicted mask matched a ground-truth mask in the last %d steps: the mask generator does not fit "
                "this data, or the IoU threshold is too high. Only ground-truth masks are being trained on.",
                MATCHLESS_STEPS,
            )

    # ------------------------------------------------------------------ validation

    def _validate(self) -> bool:
        """Validate, with the averaged weights if there are any; says whether the result is the best so far.

        After a signal there is no result: the next part of the run validates first.
        """
        settings, progress = self.settings, self._progress
        assert self.validate is not None
        progress.awaits_validation = True
        self.prepared_stage.eval()
        averaged = self.ema.applied() if self.ema is not None else nullcontext()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), averaged:
                progress.metrics = self.validate()
        except ValidationInterrupted:
            self._sums_with_signals([])
            if self._stop is None:
                raise
            return False
        finally:
            self.prepared_stage.train()
        progress.awaits_validation = False
        if settings.best_metric not in progress.metrics:
            raise ValueError(
                f"The validation gives no {settings.best_metric!r}, which is to say what the best checkpoint is; it "
                f"gives {', '.join(progress.metrics)}."
            )
        if self.accelerator.is_main_process:
            results = {f"eval_{name}": value for name, value in progress.metrics.items()}
            self.step_log.append({"step": progress.step} | results)
        self.accelerator.log({f"eval/{name}": value for name, value in progress.metrics.items()}, step=progress.step)
        value, best = progress.metrics[settings.best_metric], progress.best_value
        sign = 1 if settings.greater_is_better else -1
        if not math.isfinite(value) or (best is not None and sign * value <= sign * best):
            return False
        progress.best_step, progress.best_value = progress.step, value
        return True

    # ------------------------------------------------------------------ checkpoints

    def _save_checkpoint(self) -> None:
        """Write a checkpoint, all processes together; a failure of one of them is an error of all."""
        accelerator, step = self.accelerator, self._progress.step
        partial, keep = self.checkpoints.partial_path(step), {self._progress.best_step}
        failure = (
            self._attempt(lambda: self.checkpoints.begin(step), main_only=True)
            or self._attempt(lambda: accelerator.save_state(str(partial)))
            or self._attempt(lambda: self._write_trainer_state(partial), main_only=True)
            or self._attempt(lambda: self.checkpoints.commit(step, keep), main_only=True)
        )
        if failure is not None:
            if accelerator.is_main_process:
                self.checkpoints.abort(step)
            again = "go on with --resume-from-checkpoint latest"
            raise describe_write_error(step, self.checkpoints.directory, failure, again) from failure

    def _attempt(self, action: Callable[[], Any], main_only: bool = False) -> Exception | None:
        """Do something on all processes or on the main one; returns a failure of any of them to all."""
        failure: Exception | None = None
        if self.accelerator.is_main_process or not main_only:
            try:
                action()
            except Exception as error:  # a full disk is an OSError, a SafetensorError or a RuntimeError
                failure = error
        if self.accelerator.num_processes == 1:
            return failure
        reports = gather_object([None if failure is None else f"{type(failure).__name__}: {failure}"])
        elsewhere = next((report for report in reports if report is not None), None)
        return failure or (OSError(elsewhere) if elsewhere is not None else None)

    def _write_trainer_state(self, directory: Path) -> None:
        progress = self._progress
        if self.ema is not None:
            save_file(self.ema.state_dict(), directory / EMA_WEIGHTS)
        state = {
            "stage": self.stage.name,
            "progress": asdict(progress),
            "memory": self.stage.memory,
            "data": self._sampler.state_dict(progress.consumed),
            "fingerprint": dict(self.settings.fingerprint),
        }
        write_json(directory / TRAINER_STATE, state, indent=2, sync=True)

    def _find_checkpoint(self, wanted: str | os.PathLike[str] | None) -> Path | None:
        """Which checkpoint to go on from; decided by the main process."""
        found: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                found[0] = self.checkpoints.choose(wanted)
            except CheckpointError as error:
                found[1] = str(error)
        broadcast_object_list(found)
        if found[1] is not None:
            raise CheckpointError(found[1])
        return found[0]

    def _resume(self, path: Path) -> None:
        state = json.loads((path / TRAINER_STATE).read_text(encoding="utf-8"))
        if state["stage"] != self.stage.name:
            raise CheckpointError(
                f"The checkpoint {path} is of stage {state['stage']!r}, not {self.stage.name!r}: start the new stage "
                "from the model that the other one saved, in another output folder."
            )
        if self.accelerator.is_main_process:
            warn_of_changes(state["fingerprint"], json.loads(json.dumps(dict(self.settings.fingerprint))))
        try:
            self.accelerator.load_state(str(path))
            self.accelerator.step = 0  # of accumulated batches; another number of them may make a step than before
            if self.ema is not None:
                self.ema.load_state_dict(load_file(path / EMA_WEIGHTS))
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint {path} does not fit this run ({error}). Go on with the model and the options that it "
                "was written with."
            ) from error
        self._progress = _Progress(**state["progress"])
        self._progress.awaits_validation &= self.validate is not None
        self.stage.memory.update(state.get("memory", {}))  # checkpoints of versions before 0.2 have none
        self._sampler.load_state_dict(state["data"])
        logger.info("Going on from step %d (%s).", self._progress.step, path)


def warn_of_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Warn of options that are not those that an interrupted run began with.

    Args:
        stored: the options that it began with, as JSON gives them.
        current: those of now, as JSON would give them.
    """
    changed = [
        f"{name} ({stored.get(name)!r}, now {value!r})" for name, value in current.items() if stored.get(name) != value
    ]
    if changed:
        logger.warning("The run goes on with other settings than it began with: %s.", ", ".join(changed))


__all__ = ["ResumableBatchSampler", "Trainer", "TrainerSettings", "TrainingLoader", "TrainingResult"]
