"""Write results picture by picture, so that it can be stopped at any moment and goes on where it was.

A journal in the output folder has a line for each finished picture, after a first line that says what made them. A
picture is finished when its line is complete; what needs every picture is assembled from the lines at the end.
"""

from __future__ import annotations

import json
import os
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
from .label_map import LabelMaps
from .label_studio import LabelStudioTasks
from .reading import StoredResults, checked_results

FORMATS: Mapping[str, type[ResultFormat]] = {
    kind.name: kind for kind in (CocoInstances, CocoPanoptic, LabelMaps, LabelStudioTasks, CvatImages)
}
"""The formats by name."""

JOURNAL = "progress.jsonl"
RECORD_FORM = 2
"""Number of the form that records have; one of another form is not gone on with."""


class ResultWriter:
    """Results of many pictures, written as they come. Use it in a `with` block, and `finish` at its end.

    Args:
        result_format: the format, which knows the folder. The folder is made when the first picture comes.
        fingerprint: what must be equal for a later run to go on: model, vocabulary, options. JSON must hold it.
        overwrite: begin anew in a folder with results of something else.

    Raises:
        ExchangeError: if the folder holds results of something else, or a damaged journal.
    """

    def __init__(
        self, result_format: ResultFormat, fingerprint: Mapping[str, Any] | None = None, *, overwrite: bool = False
    ) -> None:
        self.format = result_format
        self.path = result_format.folder / JOURNAL
        head = {
            "format": result_format.name,
            "form": RECORD_FORM,
            "labels": list(result_format.vocabulary.names),
            **(fingerprint or {}),
        }
        self._head = json.loads(json.dumps(head))
        self._owners: dict[Path, str] = {}
        self._file: IO[bytes] | None = None
        self.done: set[str] = set() if overwrite else self._load()
        """File names of the finished pictures."""
        if not overwrite and not self.path.exists() and (found := self.format.earlier_files()):
            raise ExchangeError(
                f"{self.format.folder} holds {found[0].relative_to(self.format.folder)} already, which this has not "
                "made and would be taken for a result of it: choose another folder, or begin anew (overwrite), which "
                "removes such files."
            )

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
        if file_name in self.done:
            raise ExchangeError(f"There are two pictures of the name {file_name!r}: each needs its own.")
        self._claim(file_name)
        journal = self._opened()
        _append(journal, self.format.record(result))
        self.done.add(file_name)

    def finish(self) -> list[Path]:
        """Write what needs every finished picture; return the files and folders that were written.

        Raises:
            OSError: if a file cannot be written.
        """
        self._opened()
        return self.format.assemble(self._records)

    def _opened(self) -> IO[bytes]:
        """The journal, begun anew if no picture is finished."""
        if self._file is None:
            self.format.folder.mkdir(parents=True, exist_ok=True)
            if not self.done:
                for path in self.format.earlier_files():
                    path.unlink()
            self._file = self.path.open("ab" if self.done else "wb")
            if not self.done:
                _append(self._file, {"made_by": self._head})
        return self._file

    def _load(self) -> set[str]:
        if not self.path.exists():
            return set()
        self._cut_unfinished_line()
        if not self.path.stat().st_size:
            return set()
        try:
            with self.path.open("rb") as file:
                head = json.loads(file.readline())["made_by"]
            names = [record["file_name"] for record in self._records()]
        except (ValueError, KeyError, TypeError) as error:
            raise ExchangeError(
                f"The journal {self.path} is damaged ({type(error).__name__}: {error}). Choose another folder, or "
                "begin anew (overwrite)."
            ) from error
        different = [key for key in {**self._head, **head} if self._head.get(key) != head.get(key)]
        if different:
            raise ExchangeError(
                f"{self.format.folder} holds results that were made otherwise; what differs: {', '.join(different)}. "
                "Choose another folder, or begin anew (overwrite)."
            )
        for name in names:
            self._claim(name)
        return set(names)

    def _cut_unfinished_line(self) -> None:
        """Remove what follows the last complete line: a run was stopped while it wrote."""
        content_end = 0
        with self.path.open("rb+") as file:
            for line in file:
                if line.endswith(b"\n"):
                    content_end += len(line)
            file.truncate(content_end)

    def _claim(self, file_name: str) -> None:
        path = self.format.picture_file(file_name)
        if path is not None and self._owners.setdefault(path, file_name) != file_name:
            raise ExchangeError(f"The results of {self._owners[path]} and {file_name} would both be written to {path}.")

    def _records(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield json.loads(line)


def _append(journal: IO[bytes], content: dict[str, Any]) -> None:
    journal.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    journal.flush()
    os.fsync(journal.fileno())


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
