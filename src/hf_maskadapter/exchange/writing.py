"""Write results picture by picture, so that it can be stopped at any moment and goes on where it was.

A picture is finished when its line in the journal is complete; what needs every picture is assembled from the lines at
the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..model.segments import Segments
from ..model.vocabulary import Vocabulary
from .coco_instance import CocoInstances
from .coco_panoptic import CocoPanoptic
from .cvat import CvatImages
from .errors import ExchangeError
from .formats import ResultFormat, file_name_of
from .journals import (
    JOURNAL,
    PARTS,
    PLACE,
    append,
    cut_unfinished_line,
    journals_in,
    merge_journals,
    read_head,
    read_records,
)
from .label_map import LabelMaps
from .label_studio import LabelStudioTasks
from .parquet import ParquetResults
from .reading import StoredResults, checked_results

FORMATS: Mapping[str, type[ResultFormat]] = {
    kind.name: kind for kind in (CocoInstances, CocoPanoptic, LabelMaps, LabelStudioTasks, CvatImages, ParquetResults)
}
"""The formats by name."""

RECORD_FORM = 2
"""Number of the form that records have; one of another form is not gone on with."""


class ResultWriter:
    """Results of many pictures, written as they come. Use it in a `with` block, and `finish` at its end.

    Several processes write to one folder, if each names a part of its own: each has a journal, all go by what any has
    finished, and a writer without a part makes one of them when all have ended.

    Args:
        result_format: the format, which knows the folder. The folder is made when the first picture comes.
        fingerprint: what must be equal for a later run to go on: model, vocabulary, options. JSON must hold it.
        overwrite: begin anew in a folder with results of something else.
        part: name of this process's part, where others write to the folder at the same time.

    Raises:
        ExchangeError: if the folder holds results of something else, or a damaged journal.
    """

    def __init__(
        self,
        result_format: ResultFormat,
        fingerprint: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
        part: str | None = None,
    ) -> None:
        if overwrite and part is not None:
            raise ValueError("A part cannot begin a folder anew, in which others write: only a whole run can.")
        self.format, self._part = result_format, part
        folder = result_format.folder
        self.path = folder / JOURNAL if part is None else folder / PARTS / part / JOURNAL
        head = {
            "format": result_format.name,
            "form": RECORD_FORM,
            "labels": list(result_format.vocabulary.names),
            **(fingerprint or {}),
        }
        self._head = json.loads(json.dumps(head))
        self._owners: dict[Path, str] = {}
        self._begun: set[str] = set()
        self._file: IO[bytes] | None = None
        # Files before journals: another process's journal is there before its first file.
        found = [] if overwrite else self.format.earlier_files()
        if found and not journals_in(folder):
            raise ExchangeError(
                f"{folder} holds {found[0].relative_to(folder)} already, which this has not "
                "made and would be taken for a result of it: choose another folder, or begin anew (overwrite), which "
                "removes such files."
            )
        self.done: set[str] = set() if overwrite else self._load()
        """File names of the finished pictures."""

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, result: Segments) -> None:
        """Write a picture's result, which is then finished.

        Raises:
            ExchangeError: if it names no picture, is finished already, or its file would replace another picture's.
            OSError: if a file cannot be written; the picture is then not finished.
        """
        file_name = file_name_of(result)
        self.claim(file_name)
        try:
            record = self.format.record(result)
        finally:
            self._begun.discard(file_name)
        self.note(record)

    def begin(self) -> None:
        """Make the folder ready for results, before others write to it.

        Raises:
            OSError: if the folder cannot be written to.
        """
        self._opened()

    def claim(self, file_name: str) -> None:
        """Make sure that a picture is new, and that its file would replace no other picture's, before one is written.

        Raises:
            ExchangeError: if not.
            OSError: if the folder cannot be written to.
        """
        if file_name in self.done or file_name in self._begun:
            raise ExchangeError(f"There are two pictures of the name {file_name!r}: each needs its own.")
        self._claim(file_name)
        self._opened()
        self._begun.add(file_name)

    def note(self, record: dict[str, Any], place: int | None = None) -> None:
        """Take what the format's `record` returned for a picture that was claimed, which is then finished.

        Args:
            record: what it returned.
            place: the picture's number in its source; by default it follows those that are finished.

        Raises:
            OSError: if it cannot be written.
        """
        append(self._opened(), {**record, PLACE: len(self.done) if place is None else place})
        self.done.add(record["file_name"])
        self._begun.discard(record["file_name"])

    def finish(self) -> list[Path]:
        """Write what needs every finished picture; return the files and folders that were written.

        Raises:
            OSError: if a file cannot be written.
            ValueError: of a part, which does not know whether all others have ended.
        """
        if self._part is not None:
            raise ValueError("A part cannot finish the folder: a writer without a part does when all have ended.")
        self._opened().close()
        self._file = None
        merge_journals(self.format.folder, self._head)
        return self.format.assemble(self._records)

    def _opened(self) -> IO[bytes]:
        """The journal, begun anew if no picture is finished."""
        if self._file is None:
            folder = self.format.folder
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.done and self._part is None:
                for path in self.format.earlier_files():
                    path.unlink()
                shutil.rmtree(folder / PARTS, ignore_errors=True)
                self.path.unlink(missing_ok=True)
            self._file = self.path.open("ab")
            if not self._file.tell():
                append(self._file, {"made_by": self._head})
        return self._file

    def _load(self) -> set[str]:
        if self.path.exists():
            cut_unfinished_line(self.path)
        done: set[str] = set()
        for path in journals_in(self.format.folder):
            head = read_head(path)
            if head is None:
                continue
            different = [key for key in {**self._head, **head} if self._head.get(key) != head.get(key)]
            if different:
                raise ExchangeError(
                    f"{self.format.folder} holds results that were made otherwise; what differs: "
                    f"{', '.join(different)}. Choose another folder, or begin anew (overwrite)."
                )
            done.update(record["file_name"] for _, record in read_records(path))
        for name in done:
            self._claim(name)
        return done

    def _claim(self, file_name: str) -> None:
        path = self.format.picture_file(file_name)
        if path is not None and self._owners.setdefault(path, file_name) != file_name:
            raise ExchangeError(f"The results of {self._owners[path]} and {file_name} would both be written to {path}.")

    def _records(self) -> Iterator[dict[str, Any]]:
        for _, record in read_records(self.path):
            record.pop(PLACE, None)
            yield record


def write_results(
    folder: str | os.PathLike[str],
    format_name: str,
    results: Iterable[Segments],
    vocabulary: Vocabulary,
    *,
    model: str = "",
    image_prefix: str | None = None,
) -> list[Path]:
    """Write results of pictures in another tool's format.

    Args:
        folder: where to; made if need be. Earlier results in it are replaced.
        format_name: one of `FORMATS`.
        results: the pictures' results, read one by one.
        vocabulary: the classes that their `label_id` counts.
        model: see [`ResultFormat`].
        image_prefix: likewise.

    Returns:
        The files and folders that were written.

    Raises:
        ExchangeError: if there is no such format, or two pictures have one name.
        OSError: if a file cannot be written.
    """
    result_format = _format(format_name)(Path(folder), vocabulary, model, image_prefix)
    writer = ResultWriter(result_format, overwrite=True)
    try:
        with writer:
            for result in results:
                writer.add(result)
            return writer.finish()
    finally:  # nothing goes on from here, also after an error
        writer.path.unlink(missing_ok=True)


def read_results(source: str | os.PathLike[str], format_name: str) -> StoredResults:
    """Read results that [`write_results`] wrote, or what another tool exported in its format.

    Args:
        source: the folder, or its main file.
        format_name: one of `FORMATS`.

    Raises:
        ExchangeError: if there is no such format, or something is missing or damaged.
    """
    path = Path(source)
    return checked_results(_format(format_name).read(path), path if path.is_dir() else path.parent)


def _format(name: str) -> type[ResultFormat]:
    if name not in FORMATS:
        raise ExchangeError(f"There is no format {name!r}; expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


__all__ = ["FORMATS", "JOURNAL", "ResultWriter", "read_results", "write_results"]
