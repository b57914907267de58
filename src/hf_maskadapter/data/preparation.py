"""Raw downloads of the field's benchmarks, turned into Hugging Face data sets.

[`prepare_dataset`] writes Parquet files in the sample format of [`hf_maskadapter.data.samples`], with class indices
instead of each benchmark's own numbers, plus `vocabulary.json` and a data set card. The result can be opened with
[`load_segmentation_dataset`] or `datasets.load_dataset`, streamed, and pushed to the Hub as it is.
"""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from ..files import replacing_folder, write_json, write_text
from ..model.masks import ids_to_colors
from ..model.vocabulary import Vocabulary, load_label_set
from .folders import split_aliases
from .raw_layouts import RAW_LAYOUTS, PanopticAnnotation, RawLayout, RawRecord
from .samples import IGNORE_INDEX, DataError, SampleReader

_SHARD_BYTES = 256 << 20  # of pictures in one Parquet file, uncompressed
_ROW_GROUP = 100  # rows: what a reader must load at once
SPLITS = ("train", "validation")


def prepare_dataset(
    layout: str,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    max_samples: int | None = None,
    num_proc: int = 1,
    progress: bool = True,
) -> dict[str, int]:
    """Turn a raw download into a Hugging Face data set on disk.

    Pictures are taken over as they are; annotations are rewritten as class indices (label maps of 8 bits with 255
    ignored, of 16 bits with 65535 ignored above 255 classes) or panoptic maps with `segments_info`. Each sample is read
    back through [`SampleReader`], so that damaged files and wrong labels show now and not in the middle of a training.
    The folder appears complete or not at all.

    Args:
        layout: one of [`RAW_LAYOUTS`], whose `files` say what to download.
        source: the folder with the download.
        output: the folder to write; it must not exist yet, or be empty.
        splits: "train", "validation" or both; `None`: those that are there.
        max_samples: take so many samples of each split at most, the first by name.
        num_proc: processes to work with.
        progress: whether to show a progress bar.

    Returns:
        Number of samples in each split.

    Raises:
        DataError: if files are missing, damaged or do not fit together.
        ValueError: if the layout or a split is unknown, or `max_samples` less than one.
        FileExistsError: if `output` holds something already.
        FolderInUseError: if another run prepares the same folder.
    """
    if layout not in RAW_LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; the known ones are {', '.join(RAW_LAYOUTS)}.")
    raw, source, output = RAW_LAYOUTS[layout], Path(source), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists already: remove it, or choose another place to write to.")
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, got {max_samples}.")
    records = _list_records(raw, source, splits)
    records = {split: entries[:max_samples] for split, entries in records.items()}

    with replacing_folder(output) as folder:
        (folder / "data").mkdir()
        _write_shards(raw, records, folder / "data", num_proc, progress)
        write_json(folder / "vocabulary.json", raw.vocabulary.to_dict(), indent=1)
        write_text(folder / "README.md", _card(layout, raw, records))
    return {split: len(entries) for split, entries in records.items()}


def _list_records(raw: RawLayout, source: Path, splits: Sequence[str] | None) -> dict[str, list[RawRecord]]:
    if not source.is_dir():
        raise DataError(f"There is no folder {source}.")
    records: dict[str, list[RawRecord]] = {}
    problems = []
    for split in SPLITS if splits is None else splits:
        name = next((alias for alias in split_aliases(split) if alias in SPLITS), None)
        if name is None:
            raise ValueError(f"There is no split {split!r}; choose from {', '.join(SPLITS)}.")
        try:
            records[name] = sorted(raw.records(source, name), key=lambda record: record.id)
        except DataError as error:
            problems.append(str(error))
            continue
        if not records[name]:
            problems.append(f"{source}: the split {name!r} is empty.")
            del records[name]
    if not records or (splits is not None and problems):
        raise DataError(f"{' '.join(problems)} Expected in {source}: {raw.files}.")
    return records


def _features(panoptic: bool) -> datasets.Features:
    annotation: dict[str, Any] = {"label_map": datasets.Image()}
    if panoptic:
        segment = {
            "id": datasets.Value("int32"),
            "category_id": datasets.Value("int32"),
            "isthing": datasets.Value("bool"),
            "iscrowd": datasets.Value("bool"),
        }
        annotation = {"panoptic_map": datasets.Image(), "segments_info": datasets.List(segment)}
    return datasets.Features({"id": datasets.Value("string"), "image": datasets.Image(), **annotation})


def _write_shards(
    raw: RawLayout, records: dict[str, list[RawRecord]], folder: Path, num_proc: int, progress: bool
) -> None:
    jobs = []
    for split, entries in records.items():
        shards = list(_shards(entries))
        for number, shard in enumerate(shards):
            name = f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            jobs.append((raw.label_set, raw.panoptic, shard, folder / name))
    with tqdm(total=sum(map(len, records.values())), unit="samples", disable=not progress) as bar:
        if num_proc <= 1:
            for job in jobs:
                for _ in _write_shard(*job):
                    bar.update()
            return
        context = multiprocessing.get_context("spawn")  # forking after threads have started may hang
        with ProcessPoolExecutor(num_proc, mp_context=context) as pool:
            for count in pool.map(_count_shard, jobs):
                bar.update(count)


def _shards(records: Sequence[RawRecord]) -> Iterator[list[RawRecord]]:
    shard: list[RawRecord] = []
    size = 0
    for record in records:
        shard.append(record)
        size += record.image.stat().st_size if record.image.is_file() else 0
        if size >= _SHARD_BYTES:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _count_shard(job: tuple[str, bool, list[RawRecord], Path]) -> int:
    return sum(1 for _ in _write_shard(*job))


def _write_shard(label_set: str, panoptic: bool, records: list[RawRecord], path: Path) -> Iterator[None]:
    """Write one Parquet file, and yield after each of its samples."""
    schema = _features(panoptic).arrow_schema
    vocabulary = Vocabulary.from_label_set(label_set)
    reader = SampleReader(
        vocabulary,
        label_column=None if panoptic else "label_map",
        panoptic_column="panoptic_map" if panoptic else None,
        segments_column="segments_info" if panoptic else None,
        id_column="id",
        ignore_values=() if panoptic else (_ignore_value(vocabulary),),
        name=str(path.stem),
    )
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(records), _ROW_GROUP):
            rows = []
            for record in records[first : first + _ROW_GROUP]:
                row = _row(record, vocabulary)
                reader(row)
                rows.append(row)
                yield
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _ignore_value(vocabulary: Vocabulary) -> int:
    return 255 if len(vocabulary) <= 255 else 65535


def _row(record: RawRecord, vocabulary: Vocabulary) -> dict[str, Any]:
    try:
        picture = record.image.read_bytes()
    except OSError as error:
        raise DataError(f"{record.image} cannot be read ({error.strerror}).") from error
    annotation = record.read()
    row: dict[str, Any] = {"id": record.id, "image": {"bytes": picture, "path": f"{record.id}{record.image.suffix}"}}
    if isinstance(annotation, PanopticAnnotation):
        row["panoptic_map"] = _png(ids_to_colors(annotation.ids))
        row["segments_info"] = [
            {
                "id": segment["id"],
                "category_id": segment["category_id"],
                "isthing": vocabulary.classes[segment["category_id"]].is_thing is not False,
                "iscrowd": segment["iscrowd"],
            }
            for segment in annotation.segments
        ]
    else:
        ignored = _ignore_value(vocabulary)
        labels = np.where(annotation == IGNORE_INDEX, ignored, annotation)
        row["label_map"] = _png(labels.astype(np.uint8 if ignored == 255 else np.uint16))
    return row


def _png(pixels: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _card(layout: str, raw: RawLayout, records: Mapping[str, Sequence[RawRecord]]) -> str:
    """The data set card."""
    facts = load_label_set(raw.label_set)
    vocabulary = raw.vocabulary
    files = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in records)
    counts = ", ".join(f"{len(entries)} {split}" for split, entries in records.items())
    if raw.panoptic:
        columns = (
            "- `panoptic_map`: RGB picture; a segment's number is R + 256 G + 65536 B, 0 where there is none.\n"
            "- `segments_info`: for each segment `id` (its number), `category_id` (class index), `isthing`, `iscrowd`."
        )
    else:
        columns = f"- `label_map`: class index of each pixel, {_ignore_value(vocabulary)} where ignored."
    return f"""---
task_categories:
- image-segmentation
configs:
- config_name: default
  data_files:
{files}
---
# {facts["title"]}{" panoptic" if raw.panoptic and "panoptic" not in facts["title"] else ""}

{counts} samples, prepared by `maskadapter prepare {layout}` of hf_maskadapter from the original download:
{raw.files}. Pictures are unchanged. The terms of the original data set apply.

- `id`: name of the sample.
- `image`: the picture.
{columns}

The {len(vocabulary)} classes, in the order of their indices, are in `vocabulary.json`.

```python
from hf_maskadapter.data import load_segmentation_dataset

dataset = load_segmentation_dataset("path/to/this/folder", split="{next(iter(records))}")
```
"""


__all__ = ["SPLITS", "prepare_dataset"]
