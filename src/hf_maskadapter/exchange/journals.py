"""Journals of finished pictures, one for each process that writes to a folder, and how they become one.

A journal's first line says what made its results; each further line is a finished picture's record with its place in
the source. A line counts when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..files import write_atomically
from .errors import ExchangeError

JOURNAL = "progress.jsonl"
PARTS = "parts"
"""Folder in the output folder with a folder for each process's journal."""
PLACE = "place"
"""Key of a record: the picture's number in its source."""


def journals_in(folder: Path) -> list[Path]:
    """The journal of the folder, if it is there, and those of its parts."""
    whole = folder / JOURNAL
    return [*([whole] if whole.exists() else []), *sorted((folder / PARTS).glob(f"*/{JOURNAL}"))]


def append(journal: IO[bytes], content: Mapping[str, Any]) -> None:
    """Write a line, which is on the disk when this returns."""
    journal.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    journal.flush()
    os.fsync(journal.fileno())


def cut_unfinished_line(path: Path) -> None:
    """Remove what follows the last complete line: a run was stopped while it wrote."""
    content_end = 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                content_end += len(line)
        file.truncate(content_end)


def read_head(path: Path) -> dict[str, Any] | None:
    """What made the results of a journal; `None` if not even its first line is complete.

    Raises:
        ExchangeError: if it is damaged.
    """
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)["made_by"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Where each complete record of a journal begins, and the record.

    Raises:
        ExchangeError: if it is damaged.
    """
    with path.open("rb") as file:
        begin = len(file.readline())
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                record["file_name"]
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(path, error) from error
            yield begin, record
            begin += len(line)


def damaged(path: Path, error: Exception) -> ExchangeError:
    """What is told of a damaged journal."""
    return ExchangeError(
        f"The journal {path} is damaged ({type(error).__name__}: {error}). Choose another folder, or begin anew "
        "(overwrite)."
    )


def merge_journals(folder: Path, head: Mapping[str, Any]) -> None:
    """Make one journal of all in a folder, in the order of the source, each picture once.

    It takes the place of the folder's own as a whole before the parts go. A picture costs about 200 bytes of memory,
    whatever its record holds. Where the journal is in order and alone, nothing is written.

    Args:
        folder: the output folder; no other process may be writing to it.
        head: what made the results.
    """
    paths = journals_in(folder)
    found: dict[str, tuple[int, str, int, int]] = {}
    for number, path in enumerate(paths):
        for count, (begin, record) in enumerate(read_records(path)):
            name = record["file_name"]
            found.setdefault(name, (record.get(PLACE, count), name, number, begin))
    in_order = sorted(found.values())
    if paths != [folder / JOURNAL] or in_order != list(found.values()):

        def write(file: IO[bytes]) -> None:
            append(file, {"made_by": head})
            sources = [path.open("rb") for path in paths]
            try:
                for _, _, number, begin in in_order:
                    sources[number].seek(begin)
                    file.write(sources[number].readline())
            finally:
                for source in sources:
                    source.close()

        write_atomically(folder / JOURNAL, write, sync=True)
    shutil.rmtree(folder / PARTS, ignore_errors=True)


__all__ = [
    "JOURNAL",
    "PARTS",
    "PLACE",
    "append",
    "cut_unfinished_line",
    "damaged",
    "journals_in",
    "merge_journals",
    "read_head",
    "read_records",
]
