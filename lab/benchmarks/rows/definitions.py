"""What a case and a row are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.benchmarks.model_sizes import ModelSize
from lab.benchmarks.speed_cases import Setting


@dataclass(frozen=True)
class Scale:
    """How large inputs are.

    Args:
        model_size: of CLIP and generator.
        size: longer side of the picture in pixels; the shorter one is three quarters of it.
        num_masks: masks, of which 30 % are empty.
        num_training_masks: masks of a training step.
        num_classes: classes.
        num_encoded_classes: classes of a vocabulary that is encoded; the more, the more their prompts share.
        num_pictures: pictures of a folder or of an evaluation.
    """

    model_size: ModelSize = "large"
    size: int = 896
    num_masks: int = 250
    num_training_masks: int = 16
    num_classes: int = 150
    num_pictures: int = 50
    num_encoded_classes: int = 60

    @property
    def setting(self) -> Setting:
        """Picture, masks and classes."""
        return Setting(self.size, self.num_masks, self.num_classes)


TINY = Scale("tiny", 96, 12, 4, 7, 2)
"""For a trial."""


@dataclass(frozen=True)
class Row:
    """A line of the table: this build with some options.

    Args:
        what: is measured, in words.
        options: for the case's function, in this build.
        aim: how many times faster than the other build it should be.
        tolerance: largest difference to the case's right result.
    """

    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    aim: float | None = None
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Case:
    """Rows that compute the same from the same inputs, and what they are compared with.

    Args:
        draw: makes the inputs; anything that `torch.load` reads without running code.
        compute: `"file:function"` below `lab.benchmarks.rows`, of what the rows measure, and the other build.
        rows: by their names.
        difference: how far a result is from the right one.
        opponent: `"file:function"` of the published way, in this build.
        beside: others in this build that are reported beneath the table, by their names.
        has_baseline: whether the other build can compute it.
        right: the contender whose result is right, `"opponent"` or `"baseline"`; by default the first there is.
        clock: `"cpu"` for seconds of all threads and of processes that ended, or `"wall"`.
        threads: of PyTorch; 0 leaves them to it.
    """

    draw: Callable[[Scale], Any]
    compute: str
    rows: Mapping[str, Row]
    difference: Callable[[Any, Any], float]
    opponent: str | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    has_baseline: bool = True
    right: Literal["opponent", "baseline"] | None = None
    clock: Literal["cpu", "wall"] = "cpu"
    threads: int = 1


__all__ = ["TINY", "Case", "Row", "Scale"]
