"""Columns of pictures in, columns of results out: what engines of data call in each of their workers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline
    from ..model.segments import Segments

Output = Literal["rle", "label_map"]
IMAGE_COLUMNS = ("image", "picture", "bytes", "path", "img")


class BatchSegmenter:
    """Segments batches of pictures; made once, pickled to workers, each of which loads the model when first called.

    Its calls fit Ray Data's `map_batches`, `datasets.Dataset.map(batched=True)` (also `with_rank=True`), Daft's batch
    functions and, through [`BatchSegmenter.map_in_pandas`], Spark's `mapInPandas`.

    Args:
        model: a name, a folder or a Hub id, see [`hf_maskadapter.load_model`].
        vocabulary: the classes, in any form that [`Vocabulary.parse`] takes.
        task: `"semantic"`, `"panoptic"` or `"instance"`.
        output: the masks' form: `"rle"`, COCO's compressed run lengths of each segment; or `"label_map"`, one PNG of
            class indices for each picture, 255 (65535 with more than 255 classes) for none.
        column: of the pictures: bytes, paths, arrays, PIL pictures, or dicts of `bytes` and `path`; by default the
            first of image, picture, bytes, path and img that is there.
        batch_size: pictures in one pass of the model; only those of equal padded size go together.
        threshold: least score of panoptic and instance segments.
        overlap_threshold: least visible share of a panoptic segment.
        embeddings: whether results hold each segment's embedding.
        device: where the model goes; by default the first accelerator that the worker sees, or the one of its rank.
        dtype: of the weights, `"bfloat16"` or what else [`hf_maskadapter.load_model`] takes; by default that of the
            files.

    Raises:
        ValueError: if there are no classes, or an option is none of those above.
    """

    def __init__(
        self,
        model: str = "miniature",
        vocabulary: Any = None,
        *,
        task: Literal["semantic", "panoptic", "instance"] = "semantic",
        output: Output = "rle",
        column: str | None = None,
        batch_size: int = 1,
        threshold: float | None = None,
        overlap_threshold: float | None = None,
        embeddings: bool = False,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if vocabulary is None:
            raise ValueError('Say what to look for, for example vocabulary=["cat", "sofa", "wall"].')
        if task not in ("semantic", "panoptic", "instance"):
            raise ValueError(f"task must be semantic, panoptic or instance, got {task!r}.")
        if output not in ("rle", "label_map"):
            raise ValueError(f"output must be rle or label_map, got {output!r}.")
        if output == "label_map" and task != "semantic":
            raise ValueError(f"A label map holds semantic results, not {task} ones: choose output='rle'.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.model, self.task, self.output, self.column = model, task, output, column
        self.vocabulary = Vocabulary.parse(vocabulary)
        self.batch_size, self.embeddings = batch_size, embeddings
        self.device, self.dtype = device, dtype
        options: dict[str, Any] = {"threshold": threshold, "overlap_mask_area_threshold": overlap_threshold}
        self._options = {name: value for name, value in options.items() if value is not None}
        self._segmenter: ZeroShotImageSegmentationPipeline | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the model: each worker loads its own."""
        return {**self.__dict__, "_segmenter": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]], rank: int | None = None) -> dict[str, Any]:
        """Segment a batch.

        Args:
            batch: columns, one of which holds pictures.
            rank: the worker's number, as `datasets` gives it: the GPU that it takes.

        Returns:
            The columns but for the pictures, and these lists with an entry for each picture, each of which is a list
            with an entry for each of its segments: `labels`, `scores` (`None` in semantic results), `boxes` (left, top,
            width, height in pixels), `areas` (pixels), `masks` (run lengths as text; with `output="label_map"` instead
            `label_map`, one PNG's bytes for each picture), `embeddings` on request. `height` and `width` are the
            picture's, and `error` says why a damaged picture has none of this; it is `None` for all others.

        Raises:
            KeyError: if there is no column of pictures.
        """
        column = self._column_of(batch)
        pictures = list(batch[column])
        results = self.segment(pictures, rank)
        columns: dict[str, Any] = {name: list(values) for name, values in batch.items() if name != column}
        rows = [self._row(result) for result in results]
        return columns | {name: [row[name] for row in rows] for name in self.output_columns()}

    def output_columns(self) -> tuple[str, ...]:
        """Names of the columns that a call adds."""
        masks = ("masks",) if self.output == "rle" else ("label_map",)
        embeddings = ("embeddings",) if self.embeddings else ()
        return ("labels", "scores", "boxes", "areas", *masks, *embeddings, "height", "width", "error")

    def map_in_pandas(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Batches as pandas frames, as Spark's `mapInPandas` gives and takes them."""
        import pandas

        for frame in frames:
            yield pandas.DataFrame(self({name: frame[name].tolist() for name in frame.columns}))

    def segment(self, pictures: Sequence[Any], rank: int | None = None) -> list[Segments | ValueError]:
        """Each picture's segments, or the error that tells why it cannot be read."""
        from ..model.pictures import read_picture

        segmenter = self._load(rank)
        results: dict[int, Segments | ValueError] = {}
        readable: dict[int, Any] = {}
        for place, source in enumerate(pictures):
            try:
                readable[place] = read_picture(source)
            except (ValueError, OSError, TypeError) as error:
                results[place] = ValueError(str(error))
        if readable:
            found = segmenter.segment_pictures(
                list(readable.values()),
                self.vocabulary,
                batch_size=self.batch_size,
                subtask=self.task,
                **self._options,
            )
            results.update(zip(readable, found, strict=True))
        return [results[place] for place in range(len(pictures))]

    def _load(self, rank: int | None) -> ZeroShotImageSegmentationPipeline:
        if self._segmenter is None:
            import torch

            from ..loading import load_segmenter

            device = self.device
            if device is None and rank is not None and torch.cuda.is_available():
                device = f"cuda:{rank % torch.cuda.device_count()}"
            self._segmenter = load_segmenter(self.model, device=device, dtype=self.dtype)
            self._segmenter.encode_vocabulary(self.vocabulary)
        return self._segmenter

    def _column_of(self, batch: Mapping[str, Sequence[Any]]) -> str:
        names = IMAGE_COLUMNS if self.column is None else (self.column,)
        found = next((name for name in names if name in batch), None)
        if found is None:
            raise KeyError(
                f"There is no column {' or '.join(names)} with pictures; the batch has {', '.join(batch)}. Name it: "
                "BatchSegmenter(..., column=...)."
            )
        return found

    def _row(self, result: Segments | ValueError) -> dict[str, Any]:
        from ..model.masks import encode_compressed_run_lengths

        row: dict[str, Any] = dict.fromkeys(self.output_columns())
        if isinstance(result, ValueError):
            empty: dict[str, Any] = {name: [] for name in row if name not in ("height", "width", "label_map")}
            return row | empty | {"error": str(result)}
        row |= {
            "labels": result.labels,
            "scores": [segment.score for segment in result],
            "boxes": [list(segment.box) for segment in result],
            "areas": [segment.area for segment in result],
            "height": result.height,
            "width": result.width,
        }
        if self.output == "rle":
            row["masks"] = [json.dumps(encode_compressed_run_lengths(segment.mask)) for segment in result]
        else:
            row["label_map"] = self._label_map(result)
        if self.embeddings:
            row["embeddings"] = [np.asarray(segment.embedding, dtype=np.float32).tolist() for segment in result]
        return row

    def _label_map(self, result: Segments) -> bytes:
        from ..exchange.label_map import ignore_value, label_map_image

        values = np.array([ignore_value(self.vocabulary), *result.class_ids])
        file = io.BytesIO()
        label_map_image(values[result.segment_map()], self.vocabulary).save(file, format="PNG")
        return file.getvalue()


__all__ = ["IMAGE_COLUMNS", "BatchSegmenter", "Output"]
