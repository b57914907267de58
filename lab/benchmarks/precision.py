"""What bfloat16 and int8 cost in accuracy: the same pictures in every precision, picture by picture.

Differences are paired: each picture is seen in fp32 and in the other precision, and an interval is over pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hf_maskadapter.data.loading import load_segmentation_dataset
from hf_maskadapter.data.options import option
from hf_maskadapter.evaluation.benchmarks import SceneSamples
from hf_maskadapter.evaluation.counts import MethodCounts, count_sample
from hf_maskadapter.evaluation.functional.mean_iou import confusion_matrix
from hf_maskadapter.evaluation.loading import load_predictor
from hf_maskadapter.evaluation.predictors import NO_CLASS, EvaluationItem, Prediction
from hf_maskadapter.hub.markdown import markdown_table
from hf_maskadapter.loading import MINIATURE, find_model
from lab.miniature.measuring import Estimate

PRECISIONS = ("float32", "bfloat16", "int8")
SCENES = "scenes"

_HALF = 2.0**-53  # of an intersection over union, in which matches are counted


@dataclass(frozen=True)
class Options:
    """What is measured.

    Args:
        model: a segmenter.
        datasets: `scenes`, or data sets that `load_segmentation_dataset` opens.
        split: of those.
        pictures: how many of each, the first.
    """

    model: str = option("name of a model, folder, or name on the Hub", MINIATURE, metavar="DIR_OR_ID")
    datasets: tuple[str, ...] = option("scenes of the drawn world, and folders", (SCENES,), metavar="DIR")
    split: str = option("the split of folders", "val", metavar="NAME")
    pictures: int = option("pictures of each data set, the first", 200)


@dataclass
class Counts:
    """What one precision made of the pictures.

    Attributes:
        right, masks: of annotated masks, `(pictures,)`.
        intersections, unions: of pixels with classes, `(pictures, classes)`.
        matched: sums of the matches' IoU, `(pictures, classes)`.
        segments: true positives and half the errors, `(pictures, classes)`.
        labels: the class of each annotated mask, all pictures one behind the other.
        pixels: label maps, as they come.
    """

    right: list[int] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    intersections: list[np.ndarray] = field(default_factory=list)
    unions: list[np.ndarray] = field(default_factory=list)
    matched: list[np.ndarray] = field(default_factory=list)
    segments: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    pixels: list[np.ndarray] = field(default_factory=list)

    def add(self, annotated: MethodCounts, generated: MethodCounts, num_classes: int) -> None:
        """Add a picture."""
        assert annotated.segments is not None
        assert generated.semantic is not None
        assert generated.panoptic is not None
        self.right.append(int(annotated.segments.correct.sum()))
        self.masks.append(int(annotated.segments.total.sum()))
        matrix = confusion_matrix(generated.semantic, num_classes, NO_CLASS)
        diagonal = matrix.diagonal()[:-1]
        self.intersections.append(diagonal)
        self.unions.append(matrix[:-1].sum(axis=1) + matrix[:, :-1].sum(axis=0) - diagonal)
        matched, segments = np.zeros(num_classes), np.zeros(num_classes)
        for category, of_category in generated.panoptic.categories.items():
            matched[category] = of_category.iou_units * _HALF
            errors = of_category.false_positives + of_category.false_negatives
            segments[category] = of_category.true_positives + 0.5 * errors
        self.matched.append(matched)
        self.segments.append(segments)

    def estimates(self) -> dict[str, Estimate]:
        """Masks right, mean IoU and panoptic quality, in per cent."""
        ratios = {
            "masks right": (self.right, self.masks),
            "mIoU": (self.intersections, self.unions),
            "PQ": (self.matched, self.segments),
        }
        return {name: Estimate.of_ratios(*(np.array(part, float) for part in parts)) for name, parts in ratios.items()}


def run(options: Options, log: Callable[[str], None] = print) -> str:
    """Measure, and return a table in Markdown.

    Args:
        options: what.
        log: told what was measured.
    """
    rows = []
    for name in options.datasets:
        counts = count_all(options, name)
        for precision in PRECISIONS:
            rows.append([name.rpartition("/")[2], str(len(counts[precision].right)), *_row(counts, precision)])
            log(" ".join(rows[-1]))
    header = ["data", "pictures", "precision", "masks right", "mIoU", "PQ", "masks of another class", "pixels"]
    return markdown_table(header, rows)


def count_all(options: Options, name: str) -> dict[str, Counts]:
    """Each precision's counts on a data set."""
    dataset: Any = (
        SceneSamples(num_scenes=options.pictures)
        if name == SCENES
        else load_segmentation_dataset(name, split=options.split)
    )
    vocabulary, model = dataset.vocabulary, find_model(options.model)
    counts = {}
    for precision in PRECISIONS:
        annotated, generated = (
            load_predictor(model, vocabulary, tasks=tasks, masks=masks, dtype=precision)
            for tasks, masks in ((("semantic",), "annotation"), (("semantic", "panoptic"), "generator"))
        )
        counts[precision] = Counts()
        for index in range(min(options.pictures, len(dataset))):
            sample = dataset[index]
            named, segmented = (_predict(predictor, index, sample) for predictor in (annotated, generated))
            counts[precision].add(
                count_sample(named, sample, index, vocabulary, ()),
                count_sample(segmented, sample, index, vocabulary, ("semantic", "panoptic")),
                len(vocabulary),
            )
            counts[precision].labels += named.segment_labels or []
            counts[precision].pixels.append(np.asarray(segmented.semantic))
    return counts


@torch.inference_mode()
def _predict(predictor: Any, index: int, sample: Any) -> Prediction:
    inputs, group = predictor.prepare(sample)
    (predictions,) = predictor.predict([EvaluationItem(index, sample, inputs, group)]).values()
    return predictions[0]


def _row(counts: dict[str, Counts], precision: str) -> Sequence[str]:
    found, exact = counts[precision], counts[PRECISIONS[0]]
    if found is exact:
        return [precision, *(_interval(estimate) for estimate in exact.estimates().values()), "–", "–"]
    differences = [
        _interval(found.estimates()[name] - estimate, signed=True) for name, estimate in exact.estimates().items()
    ]
    other_masks = np.mean(np.array(found.labels) != np.array(exact.labels))
    pairs = zip(found.pixels, exact.pixels, strict=True)
    other_pixels = np.mean([np.mean(pixels != right) for pixels, right in pairs])
    return [precision, *differences, f"{other_masks:.2%}", f"{other_pixels:.2%}"]


def _interval(estimate: Estimate, signed: bool = False) -> str:
    of = estimate.with_interval()
    form = "{:+.2f}" if signed else "{:.2f}"
    return f"{form} [{form}, {form}]".format(of["value"], of["low"], of["high"])


__all__ = ["PRECISIONS", "Counts", "Options", "count_all", "run"]
