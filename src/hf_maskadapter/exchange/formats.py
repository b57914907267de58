"""What a format of results must be able to do."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError
from .reading import StoredResults

logger = logging.getLogger(__name__)

Records = Callable[[], Iterator[dict[str, Any]]]
"""Begins anew with the first picture's record at every call, so that none need be kept in memory."""


class ResultFormat(abc.ABC):
    """Results of many pictures in one format: a part that is written with each picture, one that needs them all.

    Args:
        folder: where to write.
        vocabulary: the classes.
        model: what made the results, for formats that tell.
        image_prefix: what stands before a picture's file name in formats that refer to pictures; `None`: the format's
            usual one.
    """

    name: ClassVar[str]
    """What the command line calls the format."""
    tasks: ClassVar[tuple[str, ...]] = ("semantic", "panoptic", "instance")
    """The results that it can hold, the usual one first."""

    def __init__(self, folder: Path, vocabulary: Vocabulary, model: str = "", image_prefix: str | None = None) -> None:
        self.folder, self.vocabulary, self.model, self.image_prefix = folder, vocabulary, model, image_prefix
        self._class_ids = {name: index for index, name in enumerate(vocabulary.names)}

    def picture_file(self, file_name: str) -> Path | None:  # noqa: ARG002
        """The file that belongs to one picture alone, if the format has one."""
        return None

    def earlier_files(self) -> list[Path]:
        """Files in the folder that would be taken for results of this run if they stayed there."""
        return []

    @abc.abstractmethod
    def record(self, result: Segments) -> dict[str, Any]:
        """Write what belongs to this picture alone; return the rest, which JSON can hold.

        Raises:
            ExchangeError: if the format cannot hold it.
            OSError: if a file cannot be written.
        """

    @abc.abstractmethod
    def assemble(self, records: Records) -> list[Path]:
        """Write what needs every picture; return the files.

        Raises:
            OSError: if a file cannot be written.
        """

    def next_steps(self) -> list[str]:
        """What the user does with the files in the tool, a line each."""
        return []

    @staticmethod
    @abc.abstractmethod
    def read(source: Path) -> StoredResults:
        """Read results of this format.

        Args:
            source: the folder that was written, or its main file.

        Raises:
            ExchangeError: if something is missing or damaged.
        """

    def class_ids(self, result: Segments) -> list[int]:
        """The class of each segment, as an index into the vocabulary that is written.

        Raises:
            ExchangeError: if a class is none of the vocabulary's, or a score does not lie between 0 and 1.
        """
        for number, segment in enumerate(result):
            if segment.label not in self._class_ids:
                raise ExchangeError(
                    f"{result.picture}, segment {number}: the class {segment.label!r} is none of those to be written: "
                    f"{', '.join(self.vocabulary.names)}."
                )
            if segment.score is not None and not 0 <= segment.score <= 1:  # true for NaN
                raise ExchangeError(
                    f"{result.picture}, segment {number} ({segment.label}): the score {segment.score} does not lie "
                    "between 0 and 1; give None where there is none."
                )
        return [self._class_ids[segment.label] for segment in result]


def file_name_of(result: Segments) -> str:
    """The file name of a result's picture.

    Raises:
        ExchangeError: if the result does not tell it.
    """
    if not isinstance(result.picture, str) or not result.picture:
        raise ExchangeError("A result to be written must name its picture: Segments(..., picture=file_name).")
    return result.picture


def picture_name(file_name: str, suffix: str) -> str:
    """The name of a file that belongs to a picture: the picture's with another suffix, in the same subfolder.

    Raises:
        ExchangeError: if the picture's name leads out of the folder, or no file can have it.
    """
    path = PurePosixPath(file_name)
    if "\0" in file_name:
        raise ExchangeError(f"The picture's name {file_name!r} holds a zero character, which no file's name can hold.")
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ExchangeError(f"The picture's name {file_name!r} must be a file inside a folder, without '..' or a root.")
    return str(path.with_name(path.stem + suffix))


def warn_of_hidden(result: Segments, places: np.ndarray) -> None:
    """Log a warning where segments lie wholly under later ones, so that a map cannot hold them.

    Args:
        result: the picture's result.
        places: `(height, width)` numbers of the uppermost segments, from 1.
    """
    seen = np.bincount(places.ravel(), minlength=len(result) + 1)[1:]
    hidden = [f"{number} ({segment.label})" for number, segment in enumerate(result) if not seen[number]]
    if hidden:
        logger.warning(
            "%s: %d segments lie wholly under later ones, and a map cannot hold them: %s.",
            result.picture,
            len(hidden),
            ", ".join(hidden[:8]) + (", ..." if len(hidden) > 8 else ""),
        )


def main_file(source: Path, name: str) -> Path:
    """The file itself, or the one of that name in a folder."""
    return source / name if source.is_dir() else source


__all__ = ["Records", "ResultFormat", "file_name_of", "main_file", "picture_name", "warn_of_hidden"]
