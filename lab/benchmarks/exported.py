"""What exporting costs in quality: masks right, mIoU and PQ of exported models on drawn scenes, beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hf_maskadapter import load_segmenter
from hf_maskadapter.cli.segment import find_pictures
from hf_maskadapter.data.scenes import Scene, scene_masks, scene_vocabulary
from hf_maskadapter.evaluation.functional.mean_iou import count_confusions, mean_iou, merge_confusions
from hf_maskadapter.evaluation.functional.panoptic_quality import match_panoptic, merge_panoptic, panoptic_quality
from hf_maskadapter.export import ExportedSegmenter
from lab.miniature.measuring import evaluation_scenes

_NO_CLASS = 65535

Segmenter = Callable[..., Any]


class Quality(NamedTuple):
    """How good a model is on scenes; shares in percent."""

    masks_right: float
    mean_iou: float
    panoptic_quality: float


def measure(folders: list[Path], num_scenes: int, pictures: Path | None, num_pictures: int) -> str:
    """A table of the embedded model in PyTorch and as exported to some folders.

    Args:
        folders: of exported models.
        num_scenes: of the test split, the first ones.
        pictures: folder of photographs, in which label maps are compared with PyTorch's.
        num_pictures: how many of them.

    Returns:
        Markdown.
    """
    reference = load_segmenter("miniature", device="cpu")
    photographs = [] if pictures is None else [path for path, _ in find_pictures([pictures])][:num_pictures]
    maps = [_label_map(reference, path) for path in photographs]
    rows: list[tuple[str, Quality, float | None]] = [("PyTorch, float32", _quality(reference, num_scenes), None)]
    for folder in folders:
        exported = ExportedSegmenter.from_pretrained(folder, threads=1)
        quality = _quality(exported, num_scenes)
        same = [(_label_map(exported, path) == of_path).mean() for path, of_path in zip(photographs, maps, strict=True)]
        name = f"{exported.engine.name}, {exported.manifest.dtype} (ran in {exported.precision})"
        rows.append((name, quality, 100 * float(np.mean(same)) if same else None))
    lines = ["| model | masks right, % | mIoU | PQ | photographs: equal pixels, % |", "|---|---|---|---|---|"]
    for name, quality, equal in rows:
        cells = [f"{value:.2f}" for value in quality] + ["–" if equal is None else f"{equal:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _label_map(segmenter: Segmenter, picture: Path) -> np.ndarray:
    (segments,) = segmenter([picture], candidate_labels=scene_vocabulary(), return_segments=True)
    return segments.label_map(_NO_CLASS)


def _scenes(number: int) -> Iterator[tuple[Scene, Image.Image]]:
    for scene in evaluation_scenes("test", number):
        yield scene, Image.fromarray(scene.picture)


def _quality(segmenter: Segmenter, num_scenes: int) -> Quality:
    vocabulary = scene_vocabulary()
    right: list[bool] = []
    confusions, matches = [], []
    for number, (scene, picture) in enumerate(_scenes(num_scenes)):
        masks, class_ids = scene_masks(scene)
        named = segmenter({"image": picture, "masks": masks}, candidate_labels=vocabulary, return_segments=True)
        right += [segment.class_id == label for segment, label in zip(named, class_ids, strict=True)]
        semantic = segmenter(picture, candidate_labels=vocabulary, return_segments=True).label_map(_NO_CLASS)
        truth = np.where(scene.semantic_map < 0, _NO_CLASS, scene.semantic_map)
        confusions.append(count_confusions(semantic, truth, number))
        panoptic = segmenter(picture, candidate_labels=vocabulary, subtask="panoptic", return_segments=True)
        reference = {"segmentation": scene.panoptic_map, "segments_info": scene.segments_info}
        matches.append(match_panoptic(panoptic.panoptic_map(), reference, number))
    iou = mean_iou(merge_confusions(confusions), num_labels=len(vocabulary), ignore_index=_NO_CLASS)
    categories = {number: entry.is_thing for number, entry in enumerate(vocabulary)}
    quality = panoptic_quality(merge_panoptic(matches), categories)
    return Quality(100 * float(np.mean(right)), 100 * iou["mean_iou"], 100 * quality["pq"])


__all__ = ["Quality", "measure"]
