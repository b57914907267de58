"""Choose the miniature's thresholds of panoptic results on validation scenes.

    python -m lab.miniature.thresholds --output model_cards/results/thresholds.md

Each scene is segmented with three vocabularies, since thresholds that are right for one need not be for another: all
classes; what the scene shows and every background; and half of the things that it shows with its own backgrounds, as
people name only what they look for. A predicted segment on a thing that is not named is wrong. The pair is chosen whose
panoptic quality, the mean of things' and stuff's, is the highest on average over the vocabularies.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_maskadapter.data.scenes import CLASS_NAMES, STUFF, Scene
from hf_maskadapter.evaluation.functional.panoptic_quality import CategoryMatches, PanopticCounts, match_panoptic
from hf_maskadapter.files import write_text
from hf_maskadapter.miniature import load_miniature
from hf_maskadapter.model.post_processing_maskadapter import segment
from hf_maskadapter.model.segments import Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from lab.miniature.measuring import evaluation_scenes

OBJECT_THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
OVERLAP_THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
VOCABULARIES = ("all classes", "what is shown, and every background", "half of the things that are shown")

UNNAMED = len(CLASS_NAMES)
"""Category of the things that a vocabulary leaves out: no segment can be one."""

Thresholds = tuple[float, float]


def vocabularies_of(scene: Scene) -> tuple[Vocabulary, ...]:
    """The vocabularies that a scene is segmented with, in the order of `VOCABULARIES`."""
    shown = list(dict.fromkeys(thing.name for thing in scene.things))
    lists = (list(CLASS_NAMES), [*shown, *STUFF], [*shown[::2], *dict.fromkeys(scene.stuff)])
    return tuple(
        Vocabulary.from_list([[name] for name in names], things=[name not in STUFF for name in names])
        for names in lists
    )


def reference_of(scene: Scene, vocabulary: Vocabulary) -> dict[str, Any]:
    """The scene's truth; things that the vocabulary leaves out are `UNNAMED`."""
    named = {CLASS_NAMES.index(name) for name in vocabulary.names}
    infos = [
        {**info, "category_id": info["category_id"] if info["category_id"] in named else UNNAMED}
        for info in scene.segments_info
    ]
    return {"segmentation": scene.panoptic_map, "segments_info": infos}


def prediction_of(segments: Segments) -> dict[str, Any]:
    """A result with the numbers of `CLASS_NAMES` as categories."""
    panoptic = segments.panoptic_map()
    names = segments.vocabulary.names
    infos = [
        {"id": info["id"], "category_id": CLASS_NAMES.index(names[info["label_id"]])}
        for info in panoptic["segments_info"]
    ]
    return {"segmentation": panoptic["segmentation"], "segments_info": infos}


def quality(counts: PanopticCounts) -> tuple[float, float]:
    """Panoptic quality of things and of stuff in per cent, each as one category: most classes are too rare alone."""
    values = []
    for is_stuff in (False, True):
        pooled = CategoryMatches()
        for category, matches in counts.categories.items():
            if category != UNNAMED and (CLASS_NAMES[category] in STUFF) == is_stuff:
                pooled.iou_units += matches.iou_units
                pooled.true_positives += matches.true_positives
                pooled.false_positives += matches.false_positives
                pooled.false_negatives += matches.false_negatives
        values.append(100 * pooled.panoptic_quality)
    return values[0], values[1]


@dataclass
class Measured:
    """Panoptic quality of things and stuff for each vocabulary and each pair of thresholds."""

    scenes: int
    values: list[dict[Thresholds, tuple[float, float]]]

    def mean(self, thresholds: Thresholds) -> float:
        """Over things and stuff and the vocabularies."""
        return float(np.mean([of_vocabulary[thresholds] for of_vocabulary in self.values]))

    def best(self) -> Thresholds:
        """The pair with the highest mean; of equal ones that with the lower thresholds."""
        return max(sorted(self.values[0]), key=self.mean)


@torch.no_grad()
def measure(
    count: int,
    object_thresholds: Sequence[float] = OBJECT_THRESHOLDS,
    overlap_thresholds: Sequence[float] = OVERLAP_THRESHOLDS,
    scenes: Iterable[Scene] | None = None,
) -> Measured:
    """Segment validation scenes once and post-process the outputs with every pair of thresholds.

    Args:
        count: number of scenes.
        object_thresholds: least class probabilities of a segment.
        overlap_thresholds: least visible shares of a segment.
        scenes: instead of the validation scenes.
    """
    segmenter, processor = load_miniature()
    pairs = list(itertools.product(object_thresholds, overlap_thresholds))
    counts = [{pair: PanopticCounts() for pair in pairs} for _ in VOCABULARIES]
    all_classes: Any = None
    chosen: Iterator[Scene] = iter(evaluation_scenes("validation", count) if scenes is None else scenes)
    for number, scene in enumerate(chosen):
        inputs = processor(images=[Image.fromarray(scene.picture)], return_tensors="pt")
        feature_maps = segmenter.clip.get_feature_maps(inputs["pixel_values"])
        for of_vocabulary, vocabulary in zip(counts, vocabularies_of(scene), strict=True):
            if vocabulary.num_classes == len(CLASS_NAMES):
                all_classes = all_classes or segmenter.encode_vocabulary(vocabulary, processor)
                encoded = all_classes
            else:
                encoded = segmenter.encode_vocabulary(vocabulary, processor)
            outputs = segmenter(
                inputs["pixel_values"],
                encoded,
                pixel_mask=inputs["pixel_mask"],
                feature_maps=feature_maps,
                skip_void_masks=True,
                return_dict=True,
            )
            reference = reference_of(scene, vocabulary)
            for threshold, overlap in pairs:
                (segments,) = segment(
                    outputs,
                    "panoptic",
                    vocabulary,
                    inputs["original_sizes"],
                    threshold=threshold,
                    overlap_mask_area_threshold=overlap,
                )
                matches = match_panoptic(prediction_of(segments), reference, number)
                of_vocabulary[threshold, overlap].add(matches)
    values = [{pair: quality(counted) for pair, counted in of_vocabulary.items()} for of_vocabulary in counts]
    return Measured(counts[0][pairs[0]].num_samples, values)


def report(measured: Measured, current: Thresholds) -> str:
    """The measurements as Markdown: a table of all pairs, and the best and the present one in detail."""
    objects, overlaps = (sorted({pair[part] for pair in measured.values[0]}) for part in (0, 1))
    best = measured.best()
    lines = [
        f"{measured.scenes} validation scenes, each with three vocabularies; panoptic quality (PQ) in per cent. Things "
        "are one category and stuff is another. Made by `python -m lab.miniature.thresholds`.",
        "",
        "Mean over things and stuff and the vocabularies, for each `object_threshold` (rows) and `overlap_threshold` "
        "(columns):",
        "",
        "| | " + " | ".join(f"{overlap:g}" for overlap in overlaps) + " |",
        "|---" * (len(overlaps) + 1) + "|",
    ]
    for threshold in objects:
        cells = [
            f"**{measured.mean((threshold, overlap)):.1f}**"
            if (threshold, overlap) == best
            else f"{measured.mean((threshold, overlap)):.1f}"
            for overlap in overlaps
        ]
        lines.append(f"| {threshold:g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| vocabulary | " + " | ".join(f"{title}: things | stuff" for title in ("before", "chosen")) + " |",
        "|---" * 5 + "|",
    ]
    for name, of_vocabulary in zip(VOCABULARIES, measured.values, strict=True):
        cells = [f"{value:.1f}" for pair in (current, best) for value in of_vocabulary[pair]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Before: `object_threshold` {current[0]:g}, `overlap_threshold` {current[1]:g}. Chosen: {best[0]:g} and "
        f"{best[1]:g}.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument(
        "--before",
        type=float,
        nargs=2,
        default=(0.0, 0.5),
        metavar=("OBJECT", "OVERLAP"),
        help="the pair that the report compares with (default: 0 0.5)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="Markdown to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    before = tuple(options.before)
    measured = measure(
        options.scenes,
        sorted({*OBJECT_THRESHOLDS, before[0]}),
        sorted({*OVERLAP_THRESHOLDS, before[1]}),
    )
    write_text(options.output, report(measured, (before[0], before[1])))
    print(f"{options.output}: {measured.best()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
