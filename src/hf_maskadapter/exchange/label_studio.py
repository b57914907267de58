"""Label Studio: tasks with predictions as brush masks, to be corrected there, and its exports back.

Tasks: https://labelstud.io/guide/predictions. A brush mask is the picture's RGBA bytes in the run-length encoding of
thi.ng's rle-pack, which Label Studio uses: a stream of bits, most significant first, that holds the number of values
(32 bits), the bits of a value less 1 (5 bits) and four field sizes less 1 (4 bits each); then chunks. A chunk begins
with a flag (1 bit), the number of its field size (2 bits) and in such a field the count less 1. If the flag is set, one
value follows, which is repeated so often, else so many values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from ..files import write_atomically, write_text
from ..model.masks import polygon_mask, run_lengths
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from ..visualization import class_colors
from .formats import ExchangeError, Records, ResultFormat, file_name_of, main_file, read_json_file, write_json_list
from .results import StoredResults

FILE = "tasks.json"
CONFIG_FILE = "label_config.xml"
LOCAL_FILES = "/data/local-files/?d="
"""Address of pictures that Label Studio serves from its local storage."""

_VALUE_BITS = 8
_FIELD_BITS = (3, 4, 8, 16)
_CONTROL, _IMAGE = "label", "image"
_REGION_TYPES = ("brushlabels", "polygonlabels")


class LabelStudioTasks(ResultFormat):
    """`tasks.json` to import, and `label_config.xml`, the labeling interface that it needs.

    A picture is addressed as `image_prefix` and its file name; by default it is looked for in the root of Label
    Studio's local storage.
    """

    name = "label-studio"

    def record(self, result: Segments) -> dict[str, Any]:
        """The task."""
        prefix = LOCAL_FILES if self.image_prefix is None else self.image_prefix
        regions = [
            {
                "id": f"segment-{number}",
                "type": "brushlabels",
                "from_name": _CONTROL,
                "to_name": _IMAGE,
                "original_width": result.width,
                "original_height": result.height,
                "image_rotation": 0,
                **({} if segment.score is None else {"score": segment.score}),
                "value": {
                    "format": "rle",
                    "rle": encode_brush(segment.mask),
                    "brushlabels": [segment.label],
                },
            }
            for number, segment in enumerate(result.segments, start=1)
        ]
        scores = [segment.score for segment in result.segments if segment.score is not None]
        prediction: dict[str, Any] = {"model_version": self.model, "result": regions}
        if scores:
            prediction["score"] = sum(scores) / len(scores)
        return {
            "file_name": file_name_of(result),
            "task": {
                "data": {
                    _IMAGE: prefix + quote(file_name_of(result)),
                    "file_name": file_name_of(result),
                    "width": result.width,
                    "height": result.height,
                },
                "predictions": [prediction],
            },
        }

    def assemble(self, records: Records) -> list[Path]:
        """The tasks and the labeling interface."""
        path, config = self.folder / FILE, self.folder / CONFIG_FILE
        write_text(config, label_config(self.vocabulary))
        write_atomically(path, partial(write_json_list, entries=(record["task"] for record in records())))
        return [path, config]

    def next_steps(self) -> list[str]:
        """Set up the project, import the tasks."""
        config, tasks = self.folder / CONFIG_FILE, self.folder / FILE
        steps = [f"In Label Studio: Settings, Labeling Interface, Code: paste {config}; then import {tasks}."]
        if self.image_prefix is None:
            steps.append(
                "Its local storage must serve the pictures' folder; otherwise give their address: --image-prefix."
            )
        return steps

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read tasks, or what Label Studio exports as JSON: of each task the latest annotation, else the prediction.

        Classes are those of `label_config.xml` beside the file, else those that occur.
        """
        path = main_file(source, FILE)
        tasks = read_json_file(path)
        if not isinstance(tasks, list):
            raise ExchangeError(f"{path} holds no list of tasks; export as JSON (not JSON-MIN).")
        config = path.with_name(CONFIG_FILE)
        try:
            names = _configured_names(config) if config.is_file() else _used_names(tasks)
            vocabulary = Vocabulary.from_list([[name] for name in names])
        except (ElementTree.ParseError, KeyError, TypeError, ValueError) as error:
            raise ExchangeError(f"The classes of {path} cannot be told: {error}") from error
        return StoredResults(vocabulary, _results(tasks, vocabulary, path))


def label_config(vocabulary: Vocabulary) -> str:
    """The labeling interface: a picture and a brush for each class, in the class's colour."""
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{red:02x}{green:02x}{blue:02x}"/>\n'
        for name, (red, green, blue) in zip(vocabulary.names, class_colors(vocabulary.names), strict=True)
    )
    return (
        f'<View>\n  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>\n'
        f'  <BrushLabels name="{_CONTROL}" toName="{_IMAGE}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def encode_brush(mask: np.ndarray) -> list[int]:
    """A `(height, width)` bool mask in Label Studio's encoding: RGBA bytes, 255 inside and 0 outside."""
    counts = 4 * run_lengths(mask.ravel())
    values = np.where(np.arange(len(counts)) % 2 == 1, 255, 0)
    counts, values = _split_runs(counts, values, 1 << _FIELD_BITS[-1])
    field = np.searchsorted([1 << bits for bits in _FIELD_BITS], counts)
    field_bits = np.array(_FIELD_BITS)[field]
    flag = 1
    chunks = (((flag << 2 | field) << field_bits | counts - 1) << _VALUE_BITS) | values
    header = [(4 * mask.size, 32), (_VALUE_BITS - 1, 5), *((bits - 1, 4) for bits in _FIELD_BITS)]
    numbers = np.concatenate([[number for number, _ in header], chunks]).astype(np.int64)
    widths = np.concatenate([[width for _, width in header], 3 + field_bits + _VALUE_BITS])
    return _pack_bits(numbers, widths).tolist()


def decode_brush(encoded: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The `(height, width)` bool mask of Label Studio's encoding: where the alpha channel is at least half opaque.

    Raises:
        ValueError: if the bytes end too early, or hold a picture of another size.
    """
    bits = "".join(f"{byte:08b}" for byte in encoded)
    position = 0

    def take(width: int) -> int:
        nonlocal position
        position += width
        if position > len(bits):
            raise ValueError("the brush mask ends too early")
        return int(bits[position - width : position], 2)

    total = take(32)
    if total != 4 * size[0] * size[1]:
        raise ValueError(
            f"the brush mask holds {total} values, a picture of {size[1]}×{size[0]} has {4 * size[0] * size[1]}"
        )
    value_bits = take(5) + 1
    field_bits = [take(4) + 1 for _ in range(4)]
    values = np.empty(total, dtype=np.uint32)
    done = 0
    while done < total:
        is_run = take(1)
        end = done + take(field_bits[take(2)]) + 1
        values[done:end] = take(value_bits) if is_run else [take(value_bits) for _ in range(done, min(end, total))]
        done = end
    alpha = values.reshape(*size, 4)[..., 3]
    return alpha >= 1 << (value_bits - 1)


def _split_runs(counts: np.ndarray, values: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of at most `longest`; empty ones go."""
    pieces = -(-counts // longest)
    last = np.cumsum(pieces)[pieces > 0] - 1
    split = np.full(int(pieces.sum()), longest, dtype=np.int64)
    split[last] = ((counts - 1) % longest + 1)[pieces > 0]
    return split, np.repeat(values, pieces)


def _pack_bits(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bytes of numbers of given widths in bits, one after the other; the last byte is filled up with zeros."""
    places = np.arange(int(widths.max()))[::-1]
    bits = numbers[:, None] >> places & 1
    return np.packbits(bits[places < widths[:, None]].astype(np.uint8))


def _configured_names(config: Path) -> list[str]:
    root = ElementTree.parse(config).getroot()
    return [label.attrib["value"] for label in root.iter("Label")]


def _regions(task: dict[str, Any]) -> list[dict[str, Any]]:
    made = task.get("annotations") or task.get("predictions") or []
    return [region for region in made[-1]["result"] if region["type"] in _REGION_TYPES] if made else []


def _used_names(tasks: list[dict[str, Any]]) -> list[str]:
    used = (region["value"][region["type"]][0] for task in tasks for region in _regions(task))
    return list(dict.fromkeys(used))


def _results(tasks: list[dict[str, Any]], vocabulary: Vocabulary, path: Path) -> Iterator[Segments]:
    for number, task in enumerate(tasks, start=1):
        try:
            regions = _regions(task)
            size = _picture_size(task, regions)
            segments = tuple(_segment(region, size, vocabulary) for region in regions)
            yield Segments(segments, size, vocabulary, picture=_file_name(task["data"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ExchangeError(f"{path}, task {number}, cannot be read ({type(error).__name__}: {error}).") from error


def _picture_size(task: dict[str, Any], regions: list[dict[str, Any]]) -> tuple[int, int]:
    if regions:
        return int(regions[0]["original_height"]), int(regions[0]["original_width"])
    return int(task["data"]["height"]), int(task["data"]["width"])


def _segment(region: dict[str, Any], size: tuple[int, int], vocabulary: Vocabulary) -> Segment:
    value = region["value"]
    if region["type"] == "brushlabels":
        mask = decode_brush(value["rle"], size)
    else:  # corners in per cent of the picture's size
        mask = polygon_mask([(x / 100 * size[1], y / 100 * size[0]) for x, y in value["points"]], size)
    class_id = vocabulary.names.index(value[region["type"]][0])
    return Segment.of_class(vocabulary, class_id, mask, score=region.get("score"))


def _file_name(data: dict[str, Any]) -> str:
    """The picture's file name, which tasks of this package carry along; else what its address ends with."""
    if "file_name" in data:
        return str(data["file_name"])
    address = urlsplit(data[_IMAGE])
    local = re.search(r"(?:^|&)d=([^&]*)", address.query)
    return unquote(local[1] if local else address.path.rsplit("/", 1)[-1])


__all__ = ["LOCAL_FILES", "LabelStudioTasks", "decode_brush", "encode_brush", "label_config"]
