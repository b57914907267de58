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

from ..files import read_json, write_atomically, write_json
from ..model.class_colors import class_colors
from ..model.label_maps import label_values
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError
from .formats import Records, ResultFormat, main_file, picture_name, warn_of_hidden
from .reading import LeftOut, StoredResults, check_memory

FILE = "vocabulary.json"
FOLDER = "annotations"


class LabelMaps(ResultFormat):
    """PNGs in `annotations/`, and `vocabulary.json`, which names the values.

    Up to 255 classes make PNGs of 8 bits with a palette, in which 255 is "no class"; more make PNGs of 16 bits, which
    cannot have one, with 65535 for it. Where segments overlap, the later one counts; crowds are like other regions.
    """

    name = "label-map"
    tasks = ("semantic",)

    def picture_file(self, file_name: str) -> Path:
        """The PNG."""
        return self.folder / FOLDER / picture_name(file_name, ".png")

    def record(self, result: Segments) -> dict[str, Any]:
        """Write the PNG."""
        path = self.picture_file(str(result.picture))
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.array([ignore_value(self.vocabulary), *self.class_ids(result)])
        places = result.segment_map()
        warn_of_hidden(result, places)
        image = label_map_image(values[places], self.vocabulary)
        write_atomically(path, partial(image.save, format="PNG"))
        return {"file_name": result.picture}

    def earlier_files(self) -> list[Path]:
        """The label maps, and the classes: every label map beside them would be read as a result."""
        return [*_label_maps(self.folder / FOLDER), *self.folder.glob(FILE)]

    def assemble(self, records: Records) -> list[Path]:  # noqa: ARG002
        """The classes."""
        path = self.folder / FILE
        write_json(path, self.vocabulary.to_dict(), indent=1)
        return [path, self.folder / FOLDER]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read a folder of this form. Pictures are called by the names of their label maps."""
        folder = source if source.is_dir() else source.parent
        path = main_file(source, FILE)
        try:
            vocabulary = Vocabulary.from_file(path)
        except (ValueError, OSError) as error:
            raise ExchangeError(f"{path} does not name the classes: {error}") from error
        content = read_json(path, ExchangeError)
        if isinstance(content, dict) and "classes" not in content and set(vocabulary.dataset_ids) != {None}:
            raise ExchangeError(
                f"{path} gives its classes ids, but the values of these label maps are places in its list, counted "
                'from 0: write {"classes": [...]} in that order.'
            )
        left_out = LeftOut(str(folder))
        return StoredResults(vocabulary, _results(folder / FOLDER, vocabulary, left_out), left_out)


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


def _label_maps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png")


def _results(folder: Path, vocabulary: Vocabulary, left_out: LeftOut) -> Iterator[Segments]:
    paths = _label_maps(folder)
    if not paths:
        raise ExchangeError(f"There are no label maps (*.png) in {folder}.")
    ignored = ignore_value(vocabulary)
    pictures = Image.registered_extensions()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in pictures and path.suffix.lower() != ".png":
            left_out.add("pictures that are no PNGs", str(path))
    for path in paths:
        try:
            with Image.open(path) as file:
                labels = label_values(file).astype(np.int64)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ExchangeError(f"{path} cannot be read: {error}.") from error
        except (ValueError, TypeError) as error:
            raise ExchangeError(f"The label map {path} {error}") from error
        present = [int(label) for label in np.unique(labels) if label != ignored]
        strange = [label for label in present if not 0 <= label < len(vocabulary)]
        if strange:
            raise ExchangeError(
                f"{path} holds the values {strange[:5]}, but {FILE} names {len(vocabulary)} classes, counted from 0; "
                f"{ignored} is no class."
            )
        check_memory(len(present), labels.shape, str(path))
        segments = [Segment.of_class(vocabulary, label, labels == label) for label in present]
        yield Segments(segments, labels.shape, vocabulary, "semantic", path.relative_to(folder).as_posix())


__all__ = ["LabelMaps", "ignore_value", "label_map_image"]
