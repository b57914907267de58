"""COCO's instance annotations: one JSON file with run-length encoded masks, as `pycocotools.coco.COCO` loads it.

Format: https://cocodataset.org/#format-data. What has a score is also written as a list of results, which
`COCO.loadRes` takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_atomically, write_json_list, write_json_lists
from ..model.masks import coco_mask, encode_compressed_run_lengths, is_number
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .coco_common import (
    CocoImage,
    category_ids,
    numbered,
    read_categories,
    read_coco_file,
    read_crowd_flag,
    read_images,
    read_reference,
    to_categories,
)
from .errors import ExchangeError
from .formats import Records, ResultFormat, main_file
from .reading import LeftOut, StoredResults, check_memory, read_score

FILE = "annotations.json"
RESULTS_FILE = "results.json"


class CocoInstances(ResultFormat):
    """`annotations.json` in COCO's form for instances, and `results.json` in that of its results.

    The results are for `COCO.loadRes`. They have no boxes, as it would take their areas for those of the objects where
    there are any, and the average precision by size would be that of boxes. Crowds are no results.
    """

    name = "coco-instance"
    tasks = ("instance", "panoptic", "semantic")

    def record(self, result: Segments) -> dict[str, Any]:
        """Size and encoded masks."""
        ids = category_ids(self.vocabulary)
        annotations = []
        for segment, class_id in zip(result, self.class_ids(result), strict=True):
            annotation = {
                "category_id": ids[class_id],
                "segmentation": encode_compressed_run_lengths(segment.mask),
                "area": segment.area,
                "bbox": list(segment.box),
                "iscrowd": int(segment.is_crowd),
            }
            if segment.score is not None:
                annotation["score"] = segment.score
            annotations.append(annotation)
        return {
            "file_name": result.picture,
            "height": result.height,
            "width": result.width,
            "annotations": annotations,
        }

    def assemble(self, records: Records) -> list[Path]:
        """The JSON files; that of results only if there is a score."""
        path, results = self.folder / FILE, self.folder / RESULTS_FILE
        lists = {"images": _images(records), "annotations": _annotations(records)}
        head = {"info": {"description": self.model}, "categories": to_categories(self.vocabulary)}
        write_atomically(path, partial(write_json_lists, head=head, lists=lists))
        if next(_scored(records), None) is None:
            results.unlink(missing_ok=True)
            return [path]
        write_atomically(results, partial(write_json_list, entries=_scored(records)))
        return [path, results]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a file, whether this package wrote it or another.

        Polygons are drawn by COCO's rule. Where masks overlap, those that come later in the file lie on top.
        """
        path = main_file(source, FILE)
        content = read_coco_file(path, "COCO annotation")
        used = _values(content["annotations"], "category_id")
        vocabulary, indices = read_categories(content["categories"], used, path)
        left_out = LeftOut(str(path))
        return StoredResults(vocabulary, _results(content, vocabulary, indices, path, left_out), left_out)


def _values(annotations: list[dict[str, Any]], key: str) -> set[Any]:
    return {value for value in (entry.get(key) for entry in annotations) if isinstance(value, (int, str))}


def _images(records: Records) -> Iterator[dict[str, Any]]:
    for number, record in numbered(records):
        yield {"id": number, **{key: record[key] for key in ("file_name", "height", "width")}}


def _annotations(records: Records) -> Iterator[dict[str, Any]]:
    count = 0  # the first one gets 1: pycocotools takes an annotation of id 0 for one that nothing matches
    for number, record in numbered(records):
        for annotation in record["annotations"]:
            count += 1
            yield {"id": count, "image_id": number, **annotation}


def _scored(records: Records) -> Iterator[dict[str, Any]]:
    for number, record in numbered(records):
        for annotation in record["annotations"]:
            if "score" in annotation and not annotation["iscrowd"]:
                kept = {key: annotation[key] for key in ("category_id", "segmentation", "score")}
                yield {"image_id": number, **kept}


def _results(
    content: dict[str, Any], vocabulary: Vocabulary, indices: dict[int, int], path: Path, left_out: LeftOut
) -> Iterator[Segments]:
    images = read_images(content["images"], path)
    of_image = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        name = f"annotation {annotation.get('id', f'number {number}')}"
        image_id = read_reference(annotation.get("image_id"), images, "image_id", f"{path}, {name}")
        of_image[image_id].append((name, annotation))
    for image_id, image in images.items():
        segments = []
        check_memory(len(of_image[image_id]), image.size, f"{path}, picture {image.file_name!r}")
        for name, annotation in of_image[image_id]:
            where = f"{path}, picture {image.file_name!r}, {name}"
            category_id = read_reference(annotation.get("category_id"), indices, "category_id", where)
            score = read_score(annotation.get("score"), where)
            is_crowd = read_crowd_flag(annotation.get("iscrowd"), where)
            mask = _mask(annotation, image, where, left_out)
            if mask is not None:
                segments.append(
                    Segment.of_class(vocabulary, indices[category_id], mask, score=score, is_crowd=is_crowd)
                )
        yield Segments(segments, image.size, vocabulary, picture=image.file_name)


def _mask(annotation: dict[str, Any], image: CocoImage, where: str, left_out: LeftOut) -> np.ndarray | None:
    """The mask; `None`, and counted, if there is none."""
    segmentation = annotation.get("segmentation")
    if segmentation is None or segmentation == []:
        left_out.add("annotations without a segmentation", where)
        return None
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        segmentation = [part for part in segmentation if not _is_too_short(part)]  # a dot or a line encloses nothing
    try:
        mask = coco_mask(segmentation, image.size)
    except (ValueError, TypeError) as error:
        raise ExchangeError(
            f"{where}: the segmentation cannot be read: {error} Mend it, or leave it out of the file."
        ) from error
    if not mask.any():
        left_out.add("annotations without a pixel", where)
        return None
    return mask


def _is_too_short(part: list[Any]) -> bool:
    return len(part) in (0, 2, 4) and all(is_number(value) for value in part)


__all__ = ["CocoInstances"]
