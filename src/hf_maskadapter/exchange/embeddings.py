"""The embedding of every segment beside the results in any format, to find regions by."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..model.segments import Segments
from .errors import ExchangeError
from .formats import Records, ResultFormat
from .parquet import write_table
from .reading import StoredResults

FILE = "embeddings.parquet"
_KEY = "embeddings"


class WithEmbeddings(ResultFormat):
    """A format, and `embeddings.parquet` beside it: a row for each segment.

    Its columns are `file_name`, `segment` (its number in the picture, from 0), `label`, `score`, `box` (left, top,
    width, height in pixels), and `embedding`, the normalised mask embedding in CLIP's space: an inner product is a
    cosine, with texts, too.

    Args:
        inner: the format of the results.
    """

    def __init__(self, inner: ResultFormat) -> None:
        super().__init__(inner.folder, inner.vocabulary, inner.model, inner.image_prefix)
        self.inner = inner
        self.name, self.tasks = inner.name, inner.tasks  # type: ignore[misc]

    def picture_file(self, file_name: str) -> Path | None:
        """That of the format."""
        return self.inner.picture_file(file_name)

    def earlier_files(self) -> list[Path]:
        """Those of the format."""
        return self.inner.earlier_files()

    def next_steps(self) -> list[str]:
        """Those of the format."""
        return self.inner.next_steps()

    def record(self, result: Segments) -> dict[str, Any]:
        """The format's record and the embeddings.

        Raises:
            ExchangeError: if a segment has none.
        """
        entries = []
        for number, segment in enumerate(result):
            if segment.embedding is None:
                raise ExchangeError(
                    f"{result.picture}, segment {number} ({segment.label}) has no embedding: embeddings belong to "
                    "masks of panoptic and instance results."
                )
            values = np.asarray(segment.embedding, dtype="<f4")
            entries.append(
                {
                    "label": segment.label,
                    "score": segment.score,
                    "box": list(segment.box),
                    "values": base64.b64encode(values.tobytes()).decode("ascii"),
                }
            )
        return {**self.inner.record(result), _KEY: entries}

    def assemble(self, records: Records) -> list[Path]:
        """The format's files and the table."""
        import pyarrow

        def without() -> Iterator[dict[str, Any]]:
            for record in records():
                del record[_KEY]
                yield record

        first = next((entry for record in records() for entry in record[_KEY]), None)
        width = 0 if first is None else len(_values(first))
        schema = pyarrow.schema(
            [
                ("file_name", pyarrow.string()),
                ("segment", pyarrow.int32()),
                ("label", pyarrow.string()),
                ("score", pyarrow.float64()),
                ("box", pyarrow.list_(pyarrow.int32(), 4)),
                ("embedding", pyarrow.list_(pyarrow.float32(), width)),
            ]
        )
        path = self.folder / FILE
        write_table(path, schema, _rows(records))
        return [*self.inner.assemble(without), path]

    @staticmethod
    def read(source: Path) -> StoredResults:
        """Embeddings are read with any reader of Parquet; the results with the format's own."""
        raise ExchangeError(f"{source}: read the results with their format; embeddings are a Parquet file.")


def _values(entry: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(entry["values"]), dtype="<f4")


def _rows(records: Records) -> Iterator[dict[str, Any]]:
    for record in records():
        for number, entry in enumerate(record[_KEY]):
            kept = {name: entry[name] for name in ("label", "score", "box")}
            yield {"file_name": record["file_name"], "segment": number, **kept, "embedding": _values(entry)}


__all__ = ["FILE", "WithEmbeddings"]
