"""Label Studio: tasks with predictions as brush masks, to be corrected there.

Tasks: https://labelstud.io/guide/predictions. [`label_studio_reading`] reads them and what Label Studio exports.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..files import write_atomically, write_json_list, write_text
from ..model.class_colors import class_colors
from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .formats import Records, ResultFormat, main_file
from .label_studio_brush import decode_brush, encode_brush
from .label_studio_interface import CONFIG_FILE
from .label_studio_predictions import brush_region, prediction
from .label_studio_reading import read_tasks
from .reading import StoredResults
from .xml_text import check_xml_text

FILE = "tasks.json"
LOCAL_FILES = "/data/local-files/?d="
"""Address of pictures that Label Studio serves from its local storage."""

_CONTROL, _IMAGE = "label", "image"


class LabelStudioTasks(ResultFormat):
    """`tasks.json` to import, and `label_config.xml`, the labeling interface that it needs.

    A picture is addressed as `image_prefix` and its file name; by default it is looked for in the root of Label
    Studio's local storage. A crowd carries the note "crowd", which the tool shows and keeps.
    """

    name = "label-studio"

    def record(self, result: Segments) -> dict[str, Any]:
        """The task."""
        prefix = LOCAL_FILES if self.image_prefix is None else self.image_prefix
        file_name = str(result.picture)
        regions = [
            brush_region(segment, number, self.vocabulary.names[class_id], _CONTROL, _IMAGE)
            for number, (segment, class_id) in enumerate(zip(result, self.class_ids(result), strict=True), start=1)
        ]
        return {
            "file_name": file_name,
            "task": {
                "data": {
                    _IMAGE: prefix + quote(file_name),
                    "file_name": file_name,
                    "width": result.width,
                    "height": result.height,
                },
                "predictions": [prediction(self.model, result, regions)],
            },
        }

    def assemble(self, records: Records) -> list[Path]:
        """The tasks and the labeling interface."""
        for name in self.vocabulary.names:
            check_xml_text(name, "The class name")
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
        """Read such tasks, or what Label Studio exports as JSON; see [`read_tasks`]."""
        return read_tasks(main_file(source, FILE))


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


__all__ = ["LOCAL_FILES", "LabelStudioTasks", "decode_brush", "encode_brush", "label_config"]
