"""Parameter groups, learning-rate schedules as functions of the optimiser step, and weight averaging."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .stage import TrainingStage

ScheduleKind = Literal["constant", "multistep", "polynomial", "cosine", "cosine_after_warmup"]


def parameter_groups(stage: TrainingStage, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of a stage: decayed parameters and those of `stage.no_weight_decay()`.

    Each has an `lr_scale`, the factor on its learning rate, which the training loop puts into effect.

    Raises:
        ValueError: if the stage has nothing to train.
    """
    spared = stage.no_weight_decay()
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((stage.learning_rate_scale(name), name in spared), []).append(parameter)
    if not groups:
        raise ValueError(f"The stage {stage.name!r} has no parameters to train.")
    return [
        {"params": parameters, "weight_decay": 0.0 if is_spared else weight_decay, "lr_scale": scale}
        for (scale, is_spared), parameters in sorted(groups.items(), key=lambda group: (-group[0][0], group[0][1]))
    ]


@dataclass(frozen=True)
class LearningRateSchedule:
    """Factor of the learning rate at each optimiser step.

    It depends on the step alone, hence not on the number of processes or accumulated batches.

    Args:
        kind: `"constant"`, `"multistep"` (times `gamma` at each milestone), `"polynomial"` (to 0, with `power`),
            `"cosine"` (to 0, its course beginning at step 0) or `"cosine_after_warmup"` (to 0, from 1 after the
            warm-up).
        max_steps: length of the run in optimiser steps.
        warmup_steps: linear increase over so many steps first.
        milestones: for `"multistep"`, in optimiser steps.
        gamma: for `"multistep"`.
        power: for `"polynomial"`.

    Raises:
        ValueError: if a value is out of range.
    """

    kind: ScheduleKind
    max_steps: int
    warmup_steps: int = 0
    milestones: Sequence[int] = field(default=())
    gamma: float = 0.1
    power: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(f"Unknown learning-rate schedule {self.kind!r}.")
        if self.max_steps < 1 or not 0 <= self.warmup_steps <= self.max_steps:
            raise ValueError(
                f"max_steps must be at least 1 and warmup_steps lie in 0..max_steps, got {self.max_steps} and "
                f"{self.warmup_steps}."
            )
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}.")

    def __call__(self, step: int) -> float:
        """The factor at optimiser step `step`, counted from 0."""
        factor = 1.0 if step >= self.warmup_steps else (step + 1) / self.warmup_steps
        progress = min(step / self.max_steps, 1.0)
        if self.kind == "multistep":
            factor *= self.gamma ** sum(step >= milestone for milestone in self.milestones)
        elif self.kind == "polynomial":
            factor *= (1 - progress) ** self.power
        elif self.kind == "cosine":
            factor *= (1 + math.cos(math.pi * progress)) / 2
        elif self.kind == "cosine_after_warmup" and step >= self.warmup_steps:
            progress = (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
            factor = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return factor


class ExponentialMovingAverage:
    """Exponential moving average of a module's trained parameters, in fp32.

    The decay rises to its value as (1 + step) / (10 + step), so that the average forgets the start of a short run.

    Args:
        module: the module, not wrapped.
        decay: for example 0.999.

    Raises:
        ValueError: if the decay does not lie in 0..1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"The decay of the moving average must lie between 0 and 1, got {decay}.")
        self.decay = decay
        self._parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._averages = {name: value.detach().float().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take up the parameters after optimiser step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self._averages.values())
        torch._foreach_lerp_(averages, [value.float() for value in self._parameters.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the module has the averaged parameters."""
        trained = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._assign(self._averages)
        try:
            yield
        finally:
            self._assign(trained)

    @torch.no_grad()
    def _assign(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name, in the form in which files hold them."""
        return {name: average.contiguous() for name, average in self._averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from saved averages."""
        for name, average in self._averages.items():
            average.copy_(state[name])


Schedule = Callable[[int], float]
"""Factor of the learning rate as a function of the optimiser step."""

__all__ = ["ExponentialMovingAverage", "LearningRateSchedule", "Schedule", "ScheduleKind", "parameter_groups"]
