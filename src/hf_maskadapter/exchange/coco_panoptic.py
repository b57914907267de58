"""COCO's panoptic form: a PNG for each picture, whose colours number its segments, and a JSON file on all of them.

Format: https://cocodataset.org/#format-data. A segment's number is R + 256 G + 65536 B of its colour, 0 is no segment.
Numbers are chosen so that a segment has its class's colour or one close to it: the PNGs can be looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_atomically, write_json_lists
from ..model.class_colors import Color, class_colors
from ..model.label_maps import segment_ids
from ..model.masks import colors_to_ids, ids_to_colors
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
from .formats import Records, ResultFormat, main_file, picture_name, warn_of_hidden
from .reading import LeftOut, StoredResults, check_memory, read_name, read_score

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
        """Write the PNG. What overlaps is given to the later segment; a segment of which nothing is left goes."""
        class_ids = self.class_ids(result)
        places = result.segment_map()
        warn_of_hidden(result, places)
        numbers = segment_numbers(class_ids, self._colors())
        path = self.picture_file(str(result.picture))
        path.parent.mkdir(parents=True, exist_ok=True)
        painted = Image.fromarray(ids_to_colors(np.array([0, *numbers])[places]))
        write_atomically(path, partial(painted.save, format="PNG"))
        ids = category_ids(self.vocabulary)
        segments = []
        for place, (segment, class_id, number) in enumerate(zip(result, class_ids, numbers, strict=True), start=1):
            visible = Segment(class_id, segment.label, places == place)
            if visible.area:
                segments.append(
                    {
                        "id": number,
                        "category_id": ids[class_id],
                        "area": visible.area,
                        "bbox": list(visible.box),
                        "iscrowd": int(segment.is_crowd),
                        **({} if segment.score is None else {"score": segment.score}),
                    }
                )
        return {
            "file_name": result.picture,
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
        content = read_coco_file(path, "panoptic")
        vocabulary, indices = read_categories(content["categories"], _used_categories(content), path)
        left_out = LeftOut(str(path))
        return StoredResults(vocabulary, _results(content, vocabulary, indices, path, left_out), left_out)


def segment_numbers(class_ids: list[int], colors: list[Color]) -> list[int]:
    """A number for each segment of a picture, all different: its class's colour, or the nearest that is left.

    Args:
        class_ids: class index of each segment.
        colors: the colour of each class; none may be black, which means no segment.
    """
    taken: set[int] = set()
    numbers = []
    for class_id in class_ids:
        number = next(number for number in _numbers_near(colors[class_id]) if number not in taken)
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


def _used_categories(content: dict[str, Any]) -> set[Any]:
    lists = (annotation.get("segments_info") for annotation in content["annotations"])
    entries = (entry for infos in lists if isinstance(infos, list) for entry in infos if isinstance(entry, dict))
    return {value for value in (entry.get("category_id") for entry in entries) if isinstance(value, int)}


def _results(
    content: dict[str, Any], vocabulary: Vocabulary, indices: dict[int, int], path: Path, left_out: LeftOut
) -> Iterator[Segments]:
    images = read_images(content["images"], path)
    seen = set()
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotation {number}"
        image_id = read_reference(annotation.get("image_id"), images, "image_id", where)
        if image_id in seen:
            raise ExchangeError(f"{where}: there is another one for the picture {images[image_id].file_name!r}.")
        seen.add(image_id)
        yield _result(annotation, images[image_id], vocabulary, indices, path, left_out)
    for image_id, image in images.items():
        if image_id not in seen:
            left_out.add("pictures without an annotation", image.file_name)


def _result(
    annotation: dict[str, Any],
    image: CocoImage,
    vocabulary: Vocabulary,
    indices: dict[int, int],
    path: Path,
    left_out: LeftOut,
) -> Segments:
    where = f"{path}, picture {image.file_name!r}"
    file = path.with_suffix("") / read_name(annotation.get("file_name"), f"{where}, its PNG")
    infos = _infos(annotation.get("segments_info"), where)
    check_memory(len(infos), image.size, where)
    ids = _segment_ids(file, image, infos.keys(), where)
    segments = []
    for number, info in infos.items():
        of_segment = f"{where}, segment {number}"
        category_id = read_reference(info.get("category_id"), indices, "category_id", of_segment)
        score = read_score(info.get("score"), of_segment)
        is_crowd = read_crowd_flag(info.get("iscrowd"), of_segment)
        mask = ids == number
        if mask.any():
            segments.append(Segment.of_class(vocabulary, indices[category_id], mask, score=score, is_crowd=is_crowd))
        else:
            left_out.add("segments without a pixel", of_segment)
    return Segments(segments, image.size, vocabulary, "panoptic", image.file_name)


def _infos(infos: Any, where: str) -> dict[int, dict[str, Any]]:
    """The entries of `segments_info` by their ids."""
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise ExchangeError(f"{where}: segments_info must be a list of objects.")
    read: dict[int, dict[str, Any]] = {}
    for info in infos:
        number = info.get("id")
        if type(number) is not int or number < 1:
            raise ExchangeError(
                f"{where}, segment {number}: its id must be a whole number of at least 1; 0 means no segment."
            )
        if number in read:
            raise ExchangeError(f"{where}, segment {number}: segments_info lists it twice.")
        read[number] = info
    return read


def _segment_ids(file: Path, image: CocoImage, listed: Collection[int], where: str) -> np.ndarray:
    """`(height, width)` segment numbers of a panoptic PNG."""
    try:
        with Image.open(file) as opened:
            return segment_ids(opened, listed, image.size)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ExchangeError(f"{where}: {file} cannot be read: {error}.") from error
    except (ValueError, TypeError) as error:
        raise ExchangeError(f"{where}: the panoptic map {file} {error}") from error


__all__ = ["CocoPanoptic", "segment_numbers"]
