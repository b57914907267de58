"""CVAT: the XML that it imports and exports as "CVAT for images 1.1", and the labels that a task for it needs.

Format: https://docs.cvat.ai/docs/other/xml_format. A mask is cut out at its box, read row by row, and written as
lengths of runs, background first. CVAT matches pictures by their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ..files import write_atomically, write_json
from ..model.masks import from_run_lengths, polygon_mask, run_lengths
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from ..visualization import class_colors
from .formats import ExchangeError, Records, ResultFormat, main_file
from .results import StoredResults

FILE = "annotations.xml"
LABELS_FILE = "labels.json"


class CvatImages(ResultFormat):
    """`annotations.xml` to upload to a task, and `labels.json` for the task's label constructor ("Raw")."""

    name = "cvat"

    def record(self, result: Segments) -> dict[str, Any]:
        """Size and masks."""
        masks = []
        for segment in result.segments:  # later ones lie on top
            left, top, width, height = segment.box
            inside = segment.mask[top : top + height, left : left + width]
            rle = ", ".join(map(str, run_lengths(inside.ravel()).tolist()))
            masks.append(
                {
                    "label": segment.label,
                    "rle": rle,
                    "left": left,
                    "top": top,
                    "width": width,
                    "height": height,
                }
            )
        return {"file_name": result.picture, "height": result.height, "width": result.width, "masks": masks}

    def assemble(self, records: Records) -> list[Path]:
        """The XML file and the labels."""
        path, labels = self.folder / FILE, self.folder / LABELS_FILE
        write_json(labels, _labels(self.vocabulary), indent=1)
        write_atomically(path, partial(_write_xml, labels=_labels(self.vocabulary), records=records))
        return [path, labels]

    def next_steps(self) -> list[str]:
        """Make the task, upload the annotations."""
        labels, annotations = self.folder / LABELS_FILE, self.folder / FILE
        return [
            f"In CVAT: make a task of these pictures with the labels (Raw) of {labels}; then upload {annotations} "
            "as its annotations, CVAT 1.1."
        ]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a file, with masks and polygons; classes are those that its head names."""
        path = main_file(source, FILE)
        try:
            names = [str(name.text) for name in ElementTree.parse(path).iterfind("meta//labels/label/name")]
            vocabulary = Vocabulary.from_list([[name] for name in names])
        except (OSError, ElementTree.ParseError, ValueError) as error:
            raise ExchangeError(f"{path} is no CVAT for images 1.1 file: {error}") from error
        return StoredResults(vocabulary, _results(path, vocabulary))


def _labels(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return [
        {"name": name, "color": f"#{red:02x}{green:02x}{blue:02x}", "type": "any", "attributes": []}
        for name, (red, green, blue) in zip(vocabulary.names, class_colors(vocabulary.names), strict=True)
    ]


def _write_xml(file: IO[bytes], labels: list[dict[str, Any]], records: Records) -> None:
    def write(text: str) -> None:
        file.write(text.encode())

    size = sum(1 for _ in records())
    write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n')
    write(f"      <size>{size}</size>\n      <mode>annotation</mode>\n      <labels>\n")
    for label in labels:
        write(
            f"        <label><name>{escape(label['name'])}</name><color>{label['color']}</color><type>any</type>"
            "<attributes></attributes></label>\n"
        )
    write("      </labels>\n    </task>\n  </meta>\n")
    for number, record in enumerate(records()):
        name = quoteattr(record["file_name"])
        write(f'  <image id="{number}" name={name} width="{record["width"]}" height="{record["height"]}">\n')
        for mask in record["masks"]:
            place = " ".join(f'{key}="{mask[key]}"' for key in ("left", "top", "width", "height"))
            write(
                f'    <mask label={quoteattr(mask["label"])} source="auto" occluded="0" rle="{mask["rle"]}" {place} '
                'z_order="0"></mask>\n'
            )
        write("  </image>\n")
    write("</annotations>\n")


def _results(path: Path, vocabulary: Vocabulary) -> Iterator[Segments]:
    for _, element in ElementTree.iterparse(path):
        if element.tag != "image":
            continue
        name = element.get("name", "")
        try:
            size = int(element.attrib["height"]), int(element.attrib["width"])
            segments = tuple(
                Segment.of_class(vocabulary, vocabulary.names.index(shape.attrib["label"]), _mask(shape, size))
                for shape in element
                if shape.tag in ("mask", "polygon")
            )
            yield Segments(segments, size, vocabulary, picture=name)
        except (KeyError, ValueError) as error:
            raise ExchangeError(
                f"{path}, picture {name!r}, cannot be read ({type(error).__name__}: {error})."
            ) from error
        element.clear()


def _mask(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    if shape.tag == "polygon":
        corners = (pair.split(",") for pair in shape.attrib["points"].split(";"))
        return polygon_mask([(float(x), float(y)) for x, y in corners], size)
    left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError("a mask lies outside of the picture")
    mask = np.zeros(size, dtype=bool)
    inside = from_run_lengths([int(count) for count in shape.attrib["rle"].split(",")], width * height)
    mask[top : top + height, left : left + width] = inside.reshape(height, width)
    return mask


__all__ = ["CvatImages"]
