"""The trainings of the miniature: batches of drawn scenes as functions of the step, for the package's training loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from hf_maskadapter.data.scenes import CLASS_NAMES, draw_scene, split_combinations, split_seed, training_class_names
from hf_maskadapter.training.checkpoints import CheckpointStore
from hf_maskadapter.training.optimization import LearningRateSchedule, ScheduleKind, parameter_groups
from hf_maskadapter.training.stage import TrainingStage
from hf_maskadapter.training.trainer import MODEL_WEIGHTS, Trainer, TrainerSettings
from lab.miniature.measuring import scene_masks
from lab.miniature.pretraining import normalize_pictures


class SceneBatches:
    """Training batches of freshly drawn scenes, a function of the step.

    Args:
        batch_size: scenes a batch.
        seed: batches of different seeds show different scenes.
        withheld: see [`hf_maskadapter.data.scenes.base_combinations`].
    """

    def __init__(self, batch_size: int, seed: int = 0, withheld: str | None = None):
        self.batch_size, self.seed, self.withheld = batch_size, seed, withheld
        self.label_of = {name: label for label, name in enumerate(training_class_names(withheld))}
        self.combinations = split_combinations("train", withheld)

    def __call__(self, step: int) -> dict[str, Any]:
        """The batch of a step, as [`hf_maskadapter.training.stage.SegmenterStage`] takes it."""
        indices = [step * self.batch_size + index for index in range(self.batch_size)]
        scenes = [draw_scene((*split_seed("train"), self.seed, index), None, self.combinations) for index in indices]
        flips = np.random.default_rng((self.seed, step)).random(self.batch_size) < 0.5
        pictures, masks, labels = [], [], []
        for scene, flip in zip(scenes, flips, strict=True):
            of_scene, classes = scene_masks(scene)
            pictures.append(np.ascontiguousarray(scene.picture[:, ::-1]) if flip else scene.picture)
            masks.append(of_scene.flip(-1) if flip else of_scene)
            labels.append(torch.tensor([self.label_of[CLASS_NAMES[category]] for category in classes]))
        return {
            "pixel_values": normalize_pictures(pictures),
            "mask_labels": masks,
            "class_labels": labels,
            "sample_id": [str(index) for index in indices],
            "epoch": torch.zeros(self.batch_size, dtype=torch.long),
        }


class StepBatches:
    """Batches as a function of the step, as [`hf_maskadapter.training.trainer.TrainingLoader`] gives them.

    Args:
        batch_of_step: makes a step's batch; called when the step begins.
    """

    global_batch_size = 1
    """A batch counts as one sample, so that what was consumed is the number of steps."""

    def __init__(self, batch_of_step: Callable[[int], Mapping[str, Any]]) -> None:
        self.batch_of_step = batch_of_step
        self._first = 0

    @property
    def batch_sampler(self) -> StepBatches:
        """Itself: what tells where to go on."""
        return self

    def state_dict(self, consumed: int) -> dict[str, Any]:
        """State after so many steps."""
        return {"consumed": consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the steps that were done when the state was made."""
        self._first = state["consumed"]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return map(self.batch_of_step, itertools.count(self._first))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage is trained by AdamW, with weight decay 0.05 and gradients clipped at 1.

    Args:
        max_steps: optimiser steps.
        learning_rate: its peak.
        warmup_steps: steps of linear warm-up.
        kind: its course, see [`hf_maskadapter.training.optimization.LearningRateSchedule`].
        betas: AdamW's.
    """

    max_steps: int
    learning_rate: float
    warmup_steps: int = 50
    kind: ScheduleKind = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)


def train_stage(
    stage: TrainingStage, batch_of_step: Callable[[int], Mapping[str, Any]], schedule: Schedule, output_dir: Path
) -> int:
    """Train a stage on one CPU process in bf16, from the last checkpoint in its folder on.

    Args:
        stage: what is trained.
        batch_of_step: makes a step's batch.
        schedule: how.
        output_dir: folder for checkpoints and log.

    Returns:
        How many steps were left to do.

    Raises:
        hf_maskadapter.training.checkpoints.CheckpointError: if a checkpoint cannot be written or used.
    """
    done = finished_steps(output_dir)
    trainer = Trainer(
        stage,
        StepBatches(batch_of_step),
        torch.optim.AdamW(parameter_groups(stage, 0.05), lr=schedule.learning_rate, betas=schedule.betas, fused=True),
        LearningRateSchedule(schedule.kind, schedule.max_steps, min(schedule.warmup_steps, schedule.max_steps)),
        Accelerator(cpu=True, mixed_precision="bf16"),
        TrainerSettings(
            output_dir, max_steps=schedule.max_steps, logging_steps=50, save_steps=100, checkpoints_limit=1
        ),
    )
    trainer.train("latest" if done else None)
    stage.eval()
    return schedule.max_steps - done


def finished_steps(output_dir: Path) -> int:
    """Steps that a stage was trained for, of which there is a checkpoint in its folder."""
    return max(CheckpointStore(output_dir / "checkpoints").steps(), default=0)


def trained_weights(output_dir: Path) -> dict[str, Tensor]:
    """What a stage has trained, under its names: the weights of the last checkpoint in its folder."""
    store = CheckpointStore(output_dir / "checkpoints")
    path = store.path(finished_steps(output_dir))
    store.verify(path)
    return load_file(path / MODEL_WEIGHTS)


__all__ = ["SceneBatches", "Schedule", "StepBatches", "finished_steps", "train_stage", "trained_weights"]
