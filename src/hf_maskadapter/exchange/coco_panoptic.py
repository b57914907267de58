"""COCO's panoptic form: a PNG for each picture, whose colours number its segments, and a JSON file on all of them.

Format: https://cocodataset.org/#format-data. A segment's number is R + 256 G + 65536 B of its colour, 0 is no segment.
Numbers are chosen so that a segment has its class's colour or one close to it: the PNGs can be looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_atomically
from ..model.masks import colors_to_ids, ids_to_colors
from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from ..visualization import Color, class_colors
from .coco_categories import category_ids, from_categories, numbered, to_categories
from .formats import (
    ExchangeError,
    Records,
    ResultFormat,
    file_name_of,
    main_file,
    picture_name,
    read_json_file,
    write_json_lists,
)
from .results import StoredResults

FILE = "panoptic.json"
FOLDER = "panoptic"
_STEP = 16  # between the colours of two segments of a class: less cannot be told apart, more leaves the class's colour


class CocoPanoptic(ResultFormat):
    """`panoptic.json` and the PNGs in `panoptic/`."""

    name = "coco-panoptic"
    tasks = ("panoptic", "semantic")

    def picture_file(self, file_name: str) -> Path:
        """The PNG."""
        return self.folder / FOLDER / picture_name(file_name, ".png")

    def record(self, result: Segments) -> dict[str, Any]:
        """Write the PNG. What overlaps is given to the upper segment; a segment of which nothing is left goes."""
        places = result.segment_map()
        areas = np.bincount(places.ravel(), minlength=len(result.segments) + 1)
        numbers = segment_numbers([segment.class_id for segment in result.segments], self._colors())
        path = self.picture_file(file_name_of(result))
        path.parent.mkdir(parents=True, exist_ok=True)
        painted = Image.fromarray(ids_to_colors(np.array([0, *numbers])[places]))
        write_atomically(path, partial(painted.save, format="PNG"))
        ids = category_ids(self.vocabulary)
        segments = []
        for place, (number, segment) in enumerate(zip(numbers, result.segments, strict=True), start=1):
            if areas[place]:
                visible = replace(segment, mask=places == place)
                segments.append(
                    {
                        "id": number,
                        "category_id": ids[segment.class_id],
                        "area": visible.area,
                        "bbox": list(visible.box),
                        "iscrowd": 0,
                        **({} if segment.score is None else {"score": segment.score}),
                    }
                )
        return {
            "file_name": file_name_of(result),
            "height": result.height,
            "width": result.width,
            "segments_info": segments,
        }

    def assemble(self, records: Records) -> list[Path]:
        """The JSON file."""
        path = self.folder / FILE
        categories = [
            {**category, "color": list(color)}
            for category, color in zip(to_categories(self.vocabulary), self._colors(), strict=True)
        ]
        images = (
            {"id": number, **{key: record[key] for key in ("file_name", "height", "width")}}
            for number, record in numbered(records)
        )
        annotations = (
            {
                "image_id": number,
                "file_name": picture_name(record["file_name"], ".png"),
                "segments_info": record["segments_info"],
            }
            for number, record in numbered(records)
        )
        head = {"info": {"description": self.model}, "categories": categories}
        lists = {"images": images, "annotations": annotations}
        write_atomically(path, partial(write_json_lists, head=head, lists=lists))
        return [path, self.folder / FOLDER]

    def _colors(self) -> list[Color]:
        return class_colors(self.vocabulary.names)

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a JSON file with the PNGs in the folder beside it that has its name."""
        path = main_file(source, FILE)
        content = read_json_file(path)
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            raise ExchangeError(f"{path} is no panoptic file: it needs images, annotations and categories.")
        vocabulary, indices = from_categories(content["categories"], str(path))
        return StoredResults(vocabulary, _results(content, vocabulary, indices, path))


def segment_numbers(label_ids: list[int], colors: list[Color]) -> list[int]:
    """A number for each segment of a picture, all different: its class's colour, or the nearest that is left.

    Args:
        label_ids: class index of each segment.
        colors: the colour of each class; none may be black, which means no segment.
    """
    taken: set[int] = set()
    numbers = []
    for label_id in label_ids:
        number = next(number for number in _numbers_near(colors[label_id]) if number not in taken)
        taken.add(number)
        numbers.append(number)
    return numbers


def _numbers_near(color: Color) -> Iterator[int]:
    """Numbers of the colours around one, from near to far, then all others."""
    base = np.array(color)
    for reach in range(4):
        for offset in itertools.product(range(-reach, reach + 1), repeat=3):
            near = base + np.array(offset) * _STEP
            if max(map(abs, offset)) == reach and near.min() >= 0 and near.max() <= 255 and near.any():
                yield int(colors_to_ids(near))
    yield from range(1, 1 << 24)


def _results(
    content: dict[str, Any], vocabulary: Vocabulary, indices: dict[int, int], path: Path
) -> Iterator[Segments]:
    try:
        images = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            with Image.open(path.with_suffix("") / annotation["file_name"]) as file:
                ids = colors_to_ids(np.asarray(file.convert("RGB")))
            info = [
                {"id": entry["id"], "label_id": indices[entry["category_id"]], "score": entry.get("score")}
                for entry in annotation["segments_info"]
            ]
            yield Segments.from_segmentation(ids, info, vocabulary, "panoptic", image["file_name"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ExchangeError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error


__all__ = ["CocoPanoptic", "segment_numbers"]
