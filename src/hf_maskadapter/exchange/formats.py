"""What a format of results must be able to do."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .results import StoredResults

Records = Callable[[], Iterator[dict[str, Any]]]
"""Begins anew with the first picture's record at every call, so that none need be kept in memory."""


class ExchangeError(ValueError):
    """Results cannot be written or read; the message says which, why, and how to mend it."""


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

    def picture_file(self, file_name: str) -> Path | None:
        """The file that belongs to one picture alone, if the format has one."""
        return None

    @abc.abstractmethod
    def record(self, result: Segments) -> dict[str, Any]:
        """Write what belongs to this picture alone; return the rest, which JSON can hold.

        Raises:
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


def file_name_of(result: Segments) -> str:
    """The file name of a result's picture.

    Raises:
        ExchangeError: if the result does not tell it.
    """
    if result.picture is None:
        raise ExchangeError("A result to be written must name its picture: Segments(..., picture=file_name).")
    return result.picture


def picture_name(file_name: str, suffix: str) -> str:
    """The name of a file that belongs to a picture: the picture's with another suffix, in the same subfolder.

    Raises:
        ExchangeError: if the picture's name leads out of the folder.
    """
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ExchangeError(f"The picture's name {file_name!r} must be a file inside a folder, without '..' or a root.")
    return str(path.with_name(path.stem + suffix))


def write_json_lists(file: IO[bytes], head: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """Write a JSON object whose lists are made while they are written, one entry a line.

    Args:
        file: the open file.
        head: keys and values that come first.
        lists: keys and entries of the lists.
    """
    text = json.dumps(head, ensure_ascii=False)[1:-1]
    file.write(("{" + text).encode())
    separator = ", " if text else ""
    for key, entries in lists.items():
        file.write(f"{separator}{json.dumps(key)}: ".encode())
        write_json_list(file, entries)
        separator = ", "
    file.write(b"}\n")


def write_json_list(file: IO[bytes], entries: Iterable[Any]) -> None:
    """Write a JSON list whose entries are made while they are written, one a line."""
    file.write(b"[")
    separator = "\n"
    for entry in entries:
        file.write((separator + json.dumps(entry, ensure_ascii=False, separators=(",", ":"))).encode())
        separator = ",\n"
    file.write(b"\n]")


def read_json_file(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ExchangeError: if it is not there or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{path} cannot be read as JSON: {error}.") from error


def main_file(source: Path, name: str) -> Path:
    """The file itself, or the one of that name in a folder."""
    return source / name if source.is_dir() else source


__all__ = [
    "ExchangeError",
    "Records",
    "ResultFormat",
    "file_name_of",
    "main_file",
    "picture_name",
    "read_json_file",
    "write_json_list",
    "write_json_lists",
]
