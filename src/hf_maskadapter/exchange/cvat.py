"""CVAT: the XML that it imports as "CVAT for images 1.1", and the labels that a task for it needs.

Format: https://docs.cvat.ai/docs/other/xml_format. A mask is cut out at its box, read row by row, and written as
lengths of runs, background first. CVAT matches pictures by their names. [`cvat_reading`] reads what it exports.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ..files import write_atomically, write_json
from ..model.class_colors import class_colors
from ..model.masks import run_lengths
from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .cvat_reading import CROWD, read_cvat
from .formats import Records, ResultFormat, main_file
from .reading import StoredResults
from .xml_text import check_xml_text

FILE = "annotations.xml"
LABELS_FILE = "labels.json"


class CvatImages(ResultFormat):
    """`annotations.xml` to upload to a task, and `labels.json` for the task's label constructor ("Raw").

    A mask that lies over another one gets a `z_order` above it. Where there is a crowd, each mask has the attribute
    `is_crowd`, as CVAT itself calls it in its COCO export.
    """

    name = "cvat"

    def record(self, result: Segments) -> dict[str, Any]:
        """Size and masks."""
        check_xml_text(str(result.picture), "The picture's name")
        masks = []
        for segment, class_id, z_order in zip(result, self.class_ids(result), _z_orders(result), strict=True):
            left, top, width, height = segment.box
            inside = segment.mask[top : top + height, left : left + width]
            rle = ", ".join(map(str, run_lengths(inside.ravel()).tolist()))
            masks.append(
                {
                    "label": self.vocabulary.names[class_id],
                    "rle": rle,
                    "left": left,
                    "top": top,
                    "width": width,
                    "height": height,
                    "z_order": z_order,
                    "is_crowd": segment.is_crowd,
                }
            )
        return {"file_name": result.picture, "height": result.height, "width": result.width, "masks": masks}

    def assemble(self, records: Records) -> list[Path]:
        """The XML file and the labels."""
        for name in self.vocabulary.names:
            check_xml_text(name, "The class name")
        path, labels_path = self.folder / FILE, self.folder / LABELS_FILE
        has_crowds = any(mask["is_crowd"] for record in records() for mask in record["masks"])
        labels = _labels(self.vocabulary, has_crowds)
        write_json(labels_path, labels, indent=1)
        write_atomically(path, partial(_write_xml, labels=labels, records=records))
        return [path, labels_path]

    def next_steps(self) -> list[str]:
        """Make the task, upload the annotations."""
        labels, annotations = self.folder / LABELS_FILE, self.folder / FILE
        return [
            f"In CVAT: make a task of these pictures with the labels (Raw) of {labels}; then upload {annotations} "
            "as its annotations, CVAT 1.1."
        ]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a file, or what CVAT exports in its own format; see [`read_cvat`]."""
        return read_cvat(main_file(source, FILE))


def _z_orders(result: Segments) -> list[int]:
    """The layer of each segment: the lowest one above all earlier segments that it overlaps, counted from 0."""
    layers = np.zeros(result.size, dtype=np.int64)  # of the uppermost segment, counted from 1
    z_orders = []
    for segment in result:
        z_orders.append(int(layers[segment.mask].max()))
        layers[segment.mask] = z_orders[-1] + 1
    return z_orders


def _labels(vocabulary: Vocabulary, has_crowds: bool) -> list[dict[str, Any]]:
    attribute = {
        "name": CROWD,
        "mutable": False,
        "input_type": "checkbox",
        "default_value": "false",
        "values": ["false"],
    }
    return [
        {
            "name": name,
            "color": f"#{red:02x}{green:02x}{blue:02x}",
            "type": "any",
            "attributes": [attribute] if has_crowds else [],
        }
        for name, (red, green, blue) in zip(vocabulary.names, class_colors(vocabulary.names), strict=True)
    ]


def _write_xml(file: IO[bytes], labels: list[dict[str, Any]], records: Records) -> None:
    def write(text: str) -> None:
        file.write(text.encode())

    size = sum(1 for _ in records())
    has_crowds = any(label["attributes"] for label in labels)
    declared = (
        f"<attribute><name>{CROWD}</name><mutable>False</mutable><input_type>checkbox</input_type>"
        "<default_value>false</default_value><values>false</values></attribute>"
        if has_crowds
        else ""
    )
    write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n')
    write(f"      <size>{size}</size>\n      <mode>annotation</mode>\n      <labels>\n")
    for label in labels:
        write(
            f"        <label><name>{escape(label['name'])}</name><color>{label['color']}</color><type>any</type>"
            f"<attributes>{declared}</attributes></label>\n"
        )
    write("      </labels>\n    </task>\n  </meta>\n")
    for number, record in enumerate(records()):
        name = quoteattr(record["file_name"])
        write(f'  <image id="{number}" name={name} width="{record["width"]}" height="{record["height"]}">\n')
        for mask in record["masks"]:
            place = " ".join(f'{key}="{mask[key]}"' for key in ("left", "top", "width", "height", "z_order"))
            is_crowd = f'<attribute name="{CROWD}">{str(mask["is_crowd"]).lower()}</attribute>' if has_crowds else ""
            write(
                f'    <mask label={quoteattr(mask["label"])} source="auto" occluded="0" rle="{mask["rle"]}" {place}>'
                f"{is_crowd}</mask>\n"
            )
        write("  </image>\n")
    write("</annotations>\n")


__all__ = ["CvatImages"]
