"""The result of one picture, in the form that every format is written from and read to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..model.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class ResultSegment:
    """One segment.

    Args:
        label_id: its class, an index into the vocabulary.
        mask: `(height, width)` bool, at the picture's size.
        score: the model's confidence, 0 to 1, where it has one.
    """

    label_id: int
    mask: np.ndarray
    score: float | None = None

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the smallest box around the mask, in pixels; zeros for an empty one."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


@dataclass(frozen=True, eq=False)
class PictureResult:
    """The segments of one picture.

    Args:
        file_name: the picture's file, as other tools are to know it; folders are separated by `/`.
        height: of the picture as a viewer shows it, in pixels.
        width: likewise.
        segments: its segments; they may overlap. None may be empty.

    Raises:
        ValueError: if a mask is empty or not of the picture's size.
    """

    file_name: str
    height: int
    width: int
    segments: tuple[ResultSegment, ...]

    def __post_init__(self) -> None:
        for segment in self.segments:
            if segment.mask.shape != (self.height, self.width):
                raise ValueError(
                    f"{self.file_name}: a mask has shape {segment.mask.shape}, but the picture is {self.height} pixels "
                    f"high and {self.width} wide."
                )
            if not segment.mask.any():
                raise ValueError(f"{self.file_name}: a mask is empty; leave such segments out.")

    @classmethod
    def from_pipeline(
        cls, file_name: str, size: tuple[int, int], segments: Sequence[Mapping[str, Any]], vocabulary: Vocabulary
    ) -> PictureResult:
        """What the `zero-shot-image-segmentation` pipeline returns for a picture.

        Args:
            file_name: see above.
            size: width and height of the picture, as `image.size`.
            segments: dicts with `label`, `score` and `mask`. Empty masks are left out.
            vocabulary: the candidate labels.

        Raises:
            ValueError: if a label is not in the vocabulary, or a mask not of the picture's size.
        """
        masks = [np.asarray(segment["mask"]) > 0 for segment in segments]
        found = tuple(
            ResultSegment(vocabulary.names.index(segment["label"]), mask, segment["score"])
            for segment, mask in zip(segments, masks, strict=True)
            if mask.any()
        )
        return cls(file_name, size[1], size[0], found)

    @classmethod
    def from_segmentation(
        cls, file_name: str, segmentation: Any, segments_info: Sequence[Mapping[str, Any]]
    ) -> PictureResult:
        """What `post_process_panoptic_segmentation` returns for a picture.

        Args:
            file_name: see above.
            segmentation: `(height, width)` segment ids, an array or a tensor.
            segments_info: `id`, `label_id` and optionally `score` of each segment. Those without pixels are left out.
        """
        ids = np.asarray(segmentation)
        masks = [ids == info["id"] for info in segments_info]
        found = tuple(
            ResultSegment(info["label_id"], mask, info.get("score"))
            for info, mask in zip(segments_info, masks, strict=True)
            if mask.any()
        )
        height, width = ids.shape
        return cls(file_name, height, width, found)

    def segment_map(self) -> np.ndarray:
        """`(height, width)` int32: number of each pixel's segment in `segments` from 1, 0 for none.

        Where segments overlap, the smaller one lies on top.
        """
        ids = np.zeros((self.height, self.width), dtype=np.int32)
        for number in sorted(range(len(self.segments)), key=lambda number: -self.segments[number].area):
            ids[self.segments[number].mask] = number + 1
        return ids

    def label_map(self, ignore_index: int = 255) -> np.ndarray:
        """`(height, width)` int32: class of each pixel, `ignore_index` where there is no segment."""
        classes = np.array([ignore_index, *(segment.label_id for segment in self.segments)], dtype=np.int32)
        return classes[self.segment_map()]


class StoredResults(NamedTuple):
    """Results that were read from files."""

    vocabulary: Vocabulary
    """The classes that `label_id` counts."""
    results: Iterator[PictureResult]
    """The pictures one by one; masks are decoded when a picture is reached."""


__all__ = ["PictureResult", "ResultSegment", "StoredResults"]
