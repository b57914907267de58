"""What all readers share: what they hand out, what they name as left out, and which values they believe."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError

logger = logging.getLogger(__name__)

IMAGES = "images"
"""The folder in which CVAT, datumaro and this package put pictures beside their annotations."""
MOST_PIXELS = 178_956_970
"""Of a picture, as much as Pillow opens without calling it a decompression bomb."""
MOST_MASK_BYTES = 1 << 34
"""Of a picture's masks, which are read together, a byte a pixel."""
_EXIF_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


@dataclass
class LeftOut:
    """What a reader could not take over: counted by kind, told once.

    Args:
        source: the file that is read.
    """

    source: str
    counts: dict[str, int] = field(default_factory=dict)
    """How many of each kind there were; complete when the last picture was read."""
    first: dict[str, str] = field(default_factory=dict)
    """Where the first of each kind was."""

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Count something.

        Args:
            kind: what it is, in the plural.
            where: picture and region.
            count: how many there are.
        """
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.first.setdefault(kind, where)

    def __str__(self) -> str:
        kinds = (f"{count} {kind} (first: {self.first[kind]})" for kind, count in self.counts.items())
        return f"{self.source}: left out {'; '.join(kinds)}." if self.counts else f"{self.source}: nothing left out."

    def report(self) -> None:
        """Log what was left out as one warning, if anything was."""
        if self.counts:
            logger.warning("%s", self)


@dataclass(frozen=True)
class StoredResults:
    """Results that were read from files."""

    vocabulary: Vocabulary
    """The classes of all pictures."""
    results: Iterator[Segments]
    """The pictures one by one; masks are decoded when a picture is reached."""
    left_out: LeftOut
    """What was not taken over; complete when the last picture was read, and then logged as a warning."""


def checked_results(stored: StoredResults, folder: Path) -> StoredResults:
    """The same results, refused where they contradict each other or the pictures beside them.

    Args:
        stored: what a format's reader returned.
        folder: where the files lie. Where a picture of the right name lies in its `images/`, the result must be of its
            size.
    """
    return StoredResults(stored.vocabulary, _checked(stored, folder), stored.left_out)


def _checked(stored: StoredResults, folder: Path) -> Iterator[Segments]:
    source = stored.left_out.source
    seen: set[str | None] = set()
    for result in stored.results:
        if result.picture in seen:
            raise ExchangeError(
                f"{source} holds two results for the picture {result.picture!r}: leave one out, or let the names tell "
                "the pictures apart."
            )
        seen.add(result.picture)
        _check_size(result, folder / IMAGES, source)
        yield result
    stored.left_out.report()


def _check_size(result: Segments, images: Path, source: str) -> None:
    name = PurePosixPath(result.picture or "")
    path = images / name
    if name.is_absolute() or ".." in name.parts or not _is_file(path):
        return
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _TURNED:
                width, height = height, width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return  # no picture after all, one too large or a damaged one: whoever needs it will say so
    if (height, width) != result.size:
        raise ExchangeError(
            f"{source}, picture {result.picture!r}: its size is told as {result.width}×{result.height}, but {path} is "
            f"{width}×{height} as a viewer shows it: put the right picture there, or mend the annotations."
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no file can have such a name
        return False


def check_memory(num_regions: int, size: tuple[int, int], where: str) -> None:
    """Refuse a picture whose regions' masks would fill the memory before they are made: a file can claim any size.

    Args:
        num_regions: how many masks there may be.
        size: height and width of the picture.
        where: file and picture, for messages.

    Raises:
        ExchangeError: if the masks are more than [`MOST_MASK_BYTES`].
    """
    height, width = size
    if num_regions * height * width > MOST_MASK_BYTES:
        raise ExchangeError(
            f"{where}: {num_regions} masks of {width}×{height} pixels do not fit into {MOST_MASK_BYTES >> 30} GiB: is "
            "the picture's size right? If so, cut the picture into tiles and annotate those."
        )


def read_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """The size of a picture as a file tells it.

    Args:
        height: a number, or a text of one.
        width: likewise.
        where: file and picture, for messages.

    Returns:
        Height and width.

    Raises:
        ExchangeError: if they are no positive whole numbers, or more pixels than Pillow opens.
    """
    size = read_whole_number(height, "height", where), read_whole_number(width, "width", where)
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise ExchangeError(
            f"{where}: a picture {width} pixels wide and {height} high cannot be; sizes are at least 1 and together at "
            f"most {MOST_PIXELS} pixels."
        )
    return size


def read_whole_number(value: Any, name: str, where: str) -> int:
    """A whole number as a file tells it: one of JSON, or a text.

    Raises:
        ExchangeError: if it is none.
    """
    number = read_number(value, name, where)
    if number != int(number):
        raise ExchangeError(f"{where}: {name} must be a whole number, got {value!r}.")
    return int(number)


def read_number(value: Any, name: str, where: str) -> float:
    """A finite number as a file tells it: one of JSON, or a text.

    Args:
        value: the number; `None` if the file has none.
        name: what it is called there.
        where: file, picture and region, for messages.

    Raises:
        ExchangeError: if it is none.
    """
    if value is None:
        raise ExchangeError(f"{where}: {name} is missing.")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ExchangeError(f"{where}: {name} must be a finite number, got {value!r}.")
    return number


def read_score(value: Any, where: str) -> float | None:
    """The score of a region, `None` where it has none.

    Raises:
        ExchangeError: if it is no number between 0 and 1.
    """
    if value is None:
        return None
    if isinstance(value, str):
        raise ExchangeError(f"{where}: the score must be a number, got the text {value!r}.")
    score = read_number(value, "the score", where)
    if not 0 <= score <= 1:
        raise ExchangeError(f"{where}: the score must lie between 0 and 1, got {value!r}; divide per cents by 100.")
    return score


def read_name(value: Any, where: str) -> str:
    """A picture's file name.

    Raises:
        ExchangeError: if it is no text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise ExchangeError(f"{where}: the picture's file name must be a text, got {value!r}.")
    return value


__all__ = [
    "IMAGES",
    "LeftOut",
    "StoredResults",
    "check_memory",
    "checked_results",
    "read_name",
    "read_number",
    "read_score",
    "read_size",
    "read_whole_number",
]
