"""What two methods make of one drawn scene, and how good each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..data.scenes import STUFF
from ..model.configuration_maskadapter import MaskEmbedding


@dataclass(frozen=True)
class SceneComparison:
    """A scene, its truth, and what each method makes of it.

    Args:
        picture: the scene, `(size, size, 3)` uint8.
        masks: its visible segments, `(segments, size, size)` bool.
        true_names: their classes.
        names: the vocabulary's classes.
        label_maps: each method's class of every pixel, indices into `names`, `(size, size)`, with generated masks.
        called: what each method calls each of the true masks.
        proposals: the generated mask that fits each segment best, `(segments, size, size)` bool.
        activation_maps: the adapter's for these proposals, before the sigmoid, `(segments, maps, height, width)`.
    """

    picture: np.ndarray
    masks: np.ndarray
    true_names: list[str]
    names: list[str]
    label_maps: Mapping[MaskEmbedding, np.ndarray]
    called: Mapping[MaskEmbedding, list[str]]
    proposals: np.ndarray
    activation_maps: np.ndarray

    @property
    def has_truth(self) -> bool:
        """Whether every class that the scene shows is one of the vocabulary's, so that there is a right answer."""
        return set(self.true_names) <= set(self.names)

    @property
    def truth(self) -> np.ndarray:
        """(size, size) int, index of each pixel's class in `names`; -1 where the scene has no class, or not these."""
        truth = np.full(self.masks.shape[1:], -1)
        for mask, name in zip(self.masks, self.true_names, strict=True):
            if name in self.names:
                truth[mask] = self.names.index(name)
        return truth

    def mean_iou(self, method: MaskEmbedding) -> float:
        """Mean over the classes that the scene shows of intersection over union, in per cent.

        Pixels without a true class do not count. A class that only the prediction has takes pixels from the true ones
        and counts in this way alone.
        """
        truth, predicted = self.truth, self.label_maps[method]
        known = truth >= 0
        ratios = []
        for index in np.unique(truth[known]):
            true, found = known & (truth == index), known & (predicted == index)
            ratios.append(np.count_nonzero(true & found) / np.count_nonzero(true | found))
        return 100 * float(np.mean(ratios))

    def named(self, method: MaskEmbedding) -> list[str]:
        """What each segment is in a method's label map: the name that most of its pixels have."""
        label_map = self.label_maps[method]
        return [self.names[np.bincount(label_map[mask]).argmax()] for mask in self.masks]

    def segments_to_explain(self, count: int) -> list[int]:
        """Segments that show the difference: those whose names differ first, then large things, then backgrounds.

        Args:
            count: how many at most.
        """
        pooling, adapter = self.named("pooling"), self.named("adapter")
        order = sorted(
            range(len(self.masks)),
            key=lambda index: (
                pooling[index] == adapter[index],
                self.true_names[index] in STUFF,
                -np.count_nonzero(self.masks[index]),
            ),
        )
        return order[:count]


__all__ = ["SceneComparison"]
