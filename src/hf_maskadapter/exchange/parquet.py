"""Parquet: one file with a row for each picture and its segments as a list, as engines of data read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..model.masks import coco_mask, encode_compressed_run_lengths
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError
from .formats import Records, ResultFormat, main_file
from .reading import LeftOut, StoredResults, check_memory

FILE = "results.parquet"
_ROWS = 1000  # of a row group, which is all that is in memory at a time


class ParquetResults(ResultFormat):
    """`results.parquet`: file name, size and task of each picture, and a list of its segments.

    A segment has `label`, `class_id` (from 0), `score` (empty in semantic results), `box` (left, top, width, height),
    `area`, `is_crowd`, and `counts`, its mask as COCO's compressed run lengths of the picture's size. The classes lie
    in the file's metadata, as `vocabulary`.
    """

    name = "parquet"

    def record(self, result: Segments) -> dict[str, Any]:
        """The row."""
        segments = [
            {
                "label": self.vocabulary.names[class_id],
                "class_id": class_id,
                "score": segment.score,
                "box": list(segment.box),
                "area": segment.area,
                "is_crowd": segment.is_crowd,
                "counts": encode_compressed_run_lengths(segment.mask)["counts"],
            }
            for segment, class_id in zip(result, self.class_ids(result), strict=True)
        ]
        return {
            "file_name": result.picture,
            "height": result.height,
            "width": result.width,
            "task": result.task,
            "segments": segments,
        }

    def assemble(self, records: Records) -> list[Path]:
        """The file, a thousand rows at a time."""
        import pyarrow

        segment = pyarrow.struct(
            [
                ("label", pyarrow.string()),
                ("class_id", pyarrow.int32()),
                ("score", pyarrow.float64()),
                ("box", pyarrow.list_(pyarrow.int32(), 4)),
                ("area", pyarrow.int64()),
                ("is_crowd", pyarrow.bool_()),
                ("counts", pyarrow.string()),
            ]
        )
        metadata = {"vocabulary": json.dumps(self.vocabulary.to_dict(), ensure_ascii=False), "model": self.model}
        schema = pyarrow.schema(
            [
                ("file_name", pyarrow.string()),
                ("height", pyarrow.int32()),
                ("width", pyarrow.int32()),
                ("task", pyarrow.string()),
                ("segments", pyarrow.list_(segment)),
            ],
            metadata,
        )
        path = self.folder / FILE
        write_table(path, schema, records())
        return [path]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Read such a file."""
        import pyarrow
        import pyarrow.parquet

        path = main_file(source, FILE)
        try:
            file = pyarrow.parquet.ParquetFile(path)
            content = json.loads((file.schema_arrow.metadata or {})[b"vocabulary"])
            vocabulary = Vocabulary.from_dict(content)
        except (OSError, pyarrow.ArrowInvalid, KeyError, ValueError) as error:
            raise ExchangeError(f"{path} cannot be read as results in Parquet: {error}") from error
        return StoredResults(vocabulary, _results(file, vocabulary, path), LeftOut(str(path)))


def write_table(path: Path, schema: Any, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows to a Parquet file, complete or not at all, with a thousand in memory at a time."""
    import itertools

    import pyarrow
    import pyarrow.parquet

    def write(file: Any) -> None:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := list(itertools.islice(rows, _ROWS)):
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))

    write_atomically(path, write)


def _results(file: Any, vocabulary: Vocabulary, path: Path) -> Iterator[Segments]:
    for batch in file.iter_batches(batch_size=100):
        for row in batch.to_pylist():
            where = f"{path}, picture {row['file_name']!r}"
            size = row["height"], row["width"]
            check_memory(len(row["segments"]), size, where)
            try:
                segments = [
                    Segment.of_class(
                        vocabulary,
                        entry["class_id"],
                        coco_mask({"size": list(size), "counts": entry["counts"]}, size),
                        score=entry["score"],
                        is_crowd=entry["is_crowd"],
                    )
                    for entry in row["segments"]
                ]
                yield Segments(segments, size, vocabulary, row["task"], row["file_name"])
            except (ValueError, TypeError) as error:
                raise ExchangeError(f"{where}: {error}") from error


__all__ = ["FILE", "ParquetResults", "write_table"]
