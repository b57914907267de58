"""How thoroughly the paper's claims are tested in the miniature world."""

from __future__ import annotations

from dataclasses import dataclass

from hf_maskadapter.cli.options import positive
from hf_maskadapter.data.options import option

PARTS = ("main", "stages", "maps", "sources", "withheld")
"""What is measured: adapters of several seeds, ablation of the stages, numbers of maps, masks of other sources, a
withheld attribute value."""


@dataclass(frozen=True)
class Settings:
    """How much is trained and measured.

    Args:
        scenes: test scenes.
        training_scenes: scenes that the adapters are trained on; their frozen features are computed once.
        seeds: adapters of each kind.
        steps: steps of stage 1, `batch_size` scenes each.
        mixed_steps: steps of stage 2.
        ablation_steps: steps of the adapters with other numbers of maps (stage 1), and of the one with stage 2 only.
        batch_size: scenes a step.
        learning_rate: peak of stage 1; stage 2 takes half.
    """

    scenes: int = option("test scenes", 300, parse=positive)
    training_scenes: int = option("scenes to train adapters on", 8000, parse=positive)
    seeds: int = option("adapters of each kind", 3, parse=positive)
    steps: int = option("steps of stage 1", 2000, parse=positive)
    mixed_steps: int = option("steps of stage 2", 100, parse=positive)
    ablation_steps: int = option(
        "steps of adapters with other numbers of maps, and with stage 2 only", 300, parse=positive
    )
    batch_size: int = option("scenes a step", 8, parse=positive)
    learning_rate: float = option("peak of stage 1; stage 2 takes half", 2e-3)
