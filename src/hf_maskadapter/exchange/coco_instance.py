"""COCO's instance annotations: one JSON file with run-length encoded masks, as `pycocotools.coco.COCO` loads it.

Format: https://cocodataset.org/#format-data. Each annotation has a `score`, too, so that `COCO.loadRes` takes the list
of annotations as results.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_atomically
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .coco_categories import category_ids, from_categories, numbered, to_categories
from .formats import ExchangeError, Records, ResultFormat, main_file, read_json_file, write_json_lists
from .results import StoredResults

FILE = "annotations.json"


class CocoInstances(ResultFormat):
    """`annotations.json` in COCO's form for instances."""

    name = "coco-instance"
    tasks = ("instance", "panoptic", "semantic")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _mask_api()

    def record(self, result: Segments) -> dict[str, Any]:
        """Size and encoded masks."""
        ids = category_ids(self.vocabulary)
        annotations = []
        for segment in result.segments:
            annotation = {
                "category_id": ids[segment.class_id],
                "segmentation": encode_mask(segment.mask),
                "area": segment.area,
                "bbox": list(segment.box),
                "iscrowd": 0,
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
        """The JSON file."""
        path = self.folder / FILE
        lists = {"images": _images(records), "annotations": _annotations(records)}
        head = {"info": {"description": self.model}, "categories": to_categories(self.vocabulary)}
        write_atomically(path, partial(write_json_lists, head=head, lists=lists))
        return [path]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a file, whether this package wrote it or another; polygons are drawn."""
        path = main_file(source, FILE)
        content = read_json_file(path)
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            raise ExchangeError(f"{path} is no COCO annotation file: it needs images, annotations and categories.")
        vocabulary, indices = from_categories(content["categories"], str(path))
        return StoredResults(vocabulary, _results(content, vocabulary, indices, path))


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a `(height, width)` bool mask, with `counts` as text for JSON."""
    encoded = _mask_api().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode("ascii")}


def decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A `(height, width)` bool mask of any of COCO's encodings: compressed, uncompressed, polygons.

    Raises:
        ValueError: if its size is another one.
    """
    api = _mask_api()
    if isinstance(segmentation, list):
        encoded = api.merge(api.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        encoded = api.frPyObjects(segmentation, *segmentation["size"])
    else:
        encoded = segmentation
    mask = api.decode(encoded).astype(bool)
    if mask.shape != size:
        raise ValueError(f"the mask is of size {mask.shape}, its picture {size}")
    return mask


def _images(records: Records) -> Iterator[dict[str, Any]]:
    for number, record in numbered(records):
        yield {"id": number, **{key: record[key] for key in ("file_name", "height", "width")}}


def _annotations(records: Records) -> Iterator[dict[str, Any]]:
    count = 0
    for number, record in numbered(records):
        for annotation in record["annotations"]:
            count += 1
            yield {"id": count, "image_id": number, **annotation}


def _results(
    content: dict[str, Any], vocabulary: Vocabulary, indices: dict[int, int], path: Path
) -> Iterator[Segments]:
    of_image = defaultdict(list)
    try:
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            size = int(image["height"]), int(image["width"])
            segments = tuple(
                Segment.of_class(
                    vocabulary,
                    indices[annotation["category_id"]],
                    decode_mask(annotation["segmentation"], size),
                    score=annotation.get("score"),
                )
                for annotation in of_image[image["id"]]
            )
            yield Segments(segments, size, vocabulary, "instance", image["file_name"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExchangeError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


def _mask_api() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ExchangeError(
            "COCO's mask encoding needs pycocotools: install it with pip install 'hf-maskadapter[exchange]'."
        ) from error
    return mask


__all__ = ["CocoInstances", "decode_mask", "encode_mask"]
