"""Segments as a client gets them: JSON with run lengths, a picture of ids, or the picture painted."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..model.masks import encode_compressed_run_lengths
from ..model.segments import Segment, Segments
from ..visualization import overlay
from .service import Answer

SEGMENTS_KEYWORD = "maskadapter:segments"
"""Name of the text in a PNG of ids that tells what they are, as JSON."""

_COMPRESSION = 1
"""Of PNG, 0 to 9: more makes maps hardly smaller, and takes several times as long."""


def as_json(answer: Answer, model: str) -> bytes:
    """The answer as JSON, see [`SegmentationAnswer`]."""
    segments = answer.segments
    content = {
        "model": model,
        "task": segments.task,
        "width": segments.width,
        "height": segments.height,
        "labels": list(segments.vocabulary.names),
        "segments": [
            record | {"segmentation": encode_compressed_run_lengths(segment.mask)}
            for record, segment in zip(_records(segments), _in_order(segments), strict=True)
        ],
        "warnings": list(answer.warnings),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def as_id_map(answer: Answer) -> bytes:
    """A PNG whose pixels are the ids of the segments, 0 for nothing; its text tells what these are.

    Where instances overlap, the one with the highest score is seen.
    """
    segments = answer.segments
    records = _records(segments)
    highest = max((record["id"] for record in records), default=0)
    ids = np.zeros(segments.size, dtype=np.uint8 if highest < 256 else np.uint16)
    for record, segment in reversed(list(zip(records, _in_order(segments), strict=True))):
        ids[segment.mask] = record["id"]
    information = PngInfo()
    information.add_text(SEGMENTS_KEYWORD, json.dumps(records))
    return _as_png(Image.fromarray(ids), pnginfo=information)


def as_painted(answer: Answer) -> bytes:
    """A PNG of the picture with its segments painted over it, and a legend."""
    return _as_png(overlay(answer.picture, answer.segments))


def _as_png(image: Image.Image, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_COMPRESSION, **keywords)
    return buffer.getvalue()


def _in_order(segments: Segments) -> list[Segment]:
    """The segments as they are told and numbered: instances with the best one first."""
    return segments.best_first() if segments.task == "instance" else list(segments)


def _records(segments: Segments) -> list[dict[str, Any]]:
    """The segments for JSON. The id of a semantic segment is its label's place in the vocabulary, from 1."""
    return [
        {
            "id": segment.class_id + 1 if segments.task == "semantic" else number,
            "label": segment.label,
            "label_id": segment.class_id,
            "score": segment.score,
            "area": segment.area,
            "box": list(segment.box),
        }
        for number, segment in enumerate(_in_order(segments), start=1)
    ]


__all__ = ["SEGMENTS_KEYWORD", "as_id_map", "as_json", "as_painted"]
