"""What reading results gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary

PictureResult, ResultSegment = Segments, Segment
"""Names of version 0.1."""


class StoredResults(NamedTuple):
    """Results that were read from files."""

    vocabulary: Vocabulary
    """The classes that `class_id` counts."""
    results: Iterator[Segments]
    """The pictures one by one; masks are decoded when a picture is reached."""


__all__ = ["PictureResult", "ResultSegment", "StoredResults"]
