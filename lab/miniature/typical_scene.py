"""The scene that the demo's picture shows: typical by a measurement, not picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_maskadapter.data.scenes import CLASS_NAMES, scene_vocabulary
from hf_maskadapter.miniature.demonstration import compare_methods, demonstration_scene
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.processing_maskadapter import MaskAdapterProcessor

SAME = 1.0
"""Points of mIoU: where the methods differ by less, one sees no difference in the picture."""


@dataclass(frozen=True)
class SceneScores:
    """What two methods reach in one scene: mean IoU in per cent, over the classes that the scene shows.

    Args:
        seed: of the scene, as `maskadapter demo --seed` takes it.
        pooling: of mask pooling.
        adapter: of the Mask-Adapter.
    """

    seed: int
    pooling: float
    adapter: float

    @property
    def gain(self) -> float:
        """The adapter's less pooling's, in points."""
        return self.adapter - self.pooling


def measure_scenes(
    segmenter: MaskAdapterForOpenVocabularySegmentation, processor: MaskAdapterProcessor, count: int
) -> list[SceneScores]:
    """Scores of the demo's first scenes, with all classes of the drawn world to choose from.

    Args:
        segmenter: the embedded model.
        processor: its processor.
        count: how many scenes: those of the seeds 0 to `count - 1`.
    """
    vocabulary = segmenter.encode_vocabulary(scene_vocabulary(), processor)
    scores = []
    for seed in range(count):
        comparison = compare_methods(segmenter, processor, demonstration_scene(seed), CLASS_NAMES, vocabulary)
        scores.append(SceneScores(seed, comparison.mean_iou("pooling"), comparison.mean_iou("adapter")))
    return scores


def typical_scene(scores: Sequence[SceneScores]) -> SceneScores:
    """The scene of median gain among those in which the methods differ; of two in the middle the lower one.

    Raises:
        ValueError: if they differ in no scene.
    """
    different = sorted((scene for scene in scores if abs(scene.gain) >= SAME), key=lambda scene: scene.gain)
    if not different:
        raise ValueError(f"the methods differ by {SAME:g} point in none of {len(scores)} scenes: measure more")
    return different[(len(different) - 1) // 2]


def report(scores: Sequence[SceneScores]) -> str:
    """Which scene was chosen and among what, as Markdown."""
    chosen = typical_scene(scores)
    gains = np.array([scene.gain for scene in scores])
    quantiles = " | ".join(f"{value:+.1f}" for value in np.quantile(gains, (0.1, 0.25, 0.5, 0.75, 0.9)))
    better, worse = int((gains >= SAME).sum()), int((gains <= -SAME).sum())
    pooling, adapter = (np.mean([getattr(scene, name) for scene in scores]) for name in ("pooling", "adapter"))
    lines = [
        f"The first {len(scores)} scenes of the demo (seeds 0 to {len(scores) - 1}, test split), each segmented with "
        f"all {len(CLASS_NAMES)} class names of the drawn world; mIoU of each scene over the classes that it shows, "
        "in per cent. Made by `python -m lab typical-scene`.",
        "",
        "| | mask pooling | Mask-Adapter | gain |",
        "|---|---|---|---|",
        f"| mean | {pooling:.1f} | {adapter:.1f} | {gains.mean():+.1f} |",
        f"| **scene {chosen.seed}, which the picture shows** | {chosen.pooling:.1f} | {chosen.adapter:.1f} "
        f"| {chosen.gain:+.1f} |",
        "",
        f"In {better} scenes the adapter is better by {SAME:g} point or more, in {worse} worse, and in "
        f"{len(scores) - better - worse} the two differ by less (median gain of all: {np.median(gains):+.1f}). The "
        f"picture shows the scene of median gain among the {better + worse} that differ.",
        "",
        "| gain of | 10 % of the scenes | 25 % | 50 % | 75 % | 90 % |",
        "|---|---|---|---|---|---|",
        f"| at most | {quantiles} |",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["SAME", "SceneScores", "measure_scenes", "report", "typical_scene"]
