"""Label maps: a PNG for each picture whose pixel values are class indices, with a palette of the classes' colours.

With pictures in `images/` beside them, the folder is a data set that this package trains and evaluates on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_atomically, write_json
from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from ..visualization import class_colors
from .formats import ExchangeError, Records, ResultFormat, file_name_of, picture_name
from .results import StoredResults

FILE = "vocabulary.json"
FOLDER = "annotations"


class LabelMaps(ResultFormat):
    """PNGs in `annotations/`, and `vocabulary.json`, which names the values.

    Up to 255 classes make PNGs of 8 bits with a palette, in which 255 is "no class"; more make PNGs of 16 bits, which
    cannot have one, with 65535 for it.
    """

    name = "label-map"
    tasks = ("semantic",)

    def picture_file(self, file_name: str) -> Path:
        """The PNG."""
        return self.folder / FOLDER / picture_name(file_name, ".png")

    def record(self, result: Segments) -> dict[str, Any]:
        """Write the PNG."""
        path = self.picture_file(file_name_of(result))
        path.parent.mkdir(parents=True, exist_ok=True)
        image = label_map_image(result.label_map(ignore_value(self.vocabulary)), self.vocabulary)
        write_atomically(path, partial(image.save, format="PNG"))
        return {"file_name": file_name_of(result)}

    def assemble(self, records: Records) -> list[Path]:
        """The classes."""
        path = self.folder / FILE
        write_json(path, self.vocabulary.to_dict(), indent=1)
        return [path, self.folder / FOLDER]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read a folder of this form. Pictures are called by the names of their label maps."""
        path = source / FILE
        try:
            vocabulary = Vocabulary.from_file(path)
        except (ValueError, OSError) as error:
            raise ExchangeError(f"{path} does not name the classes: {error}") from error
        return StoredResults(vocabulary, _results(source / FOLDER, vocabulary))


def ignore_value(vocabulary: Vocabulary) -> int:
    """The value of pixels without a class."""
    return 255 if len(vocabulary) <= 255 else 65535


def label_map_image(label_map: np.ndarray, vocabulary: Vocabulary) -> Image.Image:
    """A label map as a picture.

    Args:
        label_map: `(height, width)` class indices, or [`ignore_value`].
        vocabulary: the classes.

    Returns:
        Of mode "P" with the classes' colours, black for no class; of mode "I;16" if there are more than 255 classes.
    """
    if len(vocabulary) > 255:
        return Image.fromarray(label_map.astype(np.uint16))
    image = Image.fromarray(label_map.astype(np.uint8), mode="P")
    palette = [channel for color in class_colors(vocabulary.names) for channel in color]
    image.putpalette(palette + [0] * (768 - len(palette)))
    return image


def _results(folder: Path, vocabulary: Vocabulary) -> Iterator[Segments]:
    paths = sorted(folder.rglob("*.png"))
    if not paths:
        raise ExchangeError(f"There are no label maps (*.png) in {folder}.")
    ignored = ignore_value(vocabulary)
    for path in paths:
        try:
            with Image.open(path) as file:
                labels = np.asarray(file).astype(np.int64)
        except OSError as error:
            raise ExchangeError(f"{path} cannot be read: {error}.") from error
        present = [int(label) for label in np.unique(labels) if label != ignored]
        if labels.ndim != 2 or (present and present[-1] >= len(vocabulary)):
            raise ExchangeError(f"{path} is no label map of the {len(vocabulary)} classes that {FILE} names.")
        yield Segments.from_label_map(labels, vocabulary, ignored, path.relative_to(folder).as_posix())


__all__ = ["LabelMaps", "ignore_value", "label_map_image"]
