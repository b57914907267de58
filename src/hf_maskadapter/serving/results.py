"""Segments as a client gets them: JSON with run lengths, a picture of ids, or the picture painted."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..exchange.plain import describe, id_map, in_order, segment_records
from ..model.masks import encode_compressed_run_lengths
from ..visualization import overlay
from .service import Answer

SEGMENTS_KEYWORD = "maskadapter:segments"
"""Name of the text in a PNG of ids that tells what they are, as JSON."""

_COMPRESSION = 1
"""Of PNG, 0 to 9: more makes maps hardly smaller, and takes several times as long."""


def as_json(answer: Answer, model: str) -> bytes:
    """The answer as JSON, see [`SegmentationAnswer`]."""
    content = describe(answer.segments, model)
    del content["picture"]
    for record, segment in zip(content["segments"], in_order(answer.segments), strict=True):
        record["segmentation"] = encode_compressed_run_lengths(segment.mask)
    content["warnings"] = list(answer.warnings)
    return json.dumps(content, separators=(",", ":")).encode()


def as_id_map(answer: Answer) -> bytes:
    """A PNG whose pixels are the ids of the segments, 0 for nothing; its text tells what these are.

    Where instances overlap, the one with the highest score is seen.
    """
    segments, records = answer.segments, segment_records(answer.segments)
    if segments.task == "instance":  # of map and list, what comes later lies on top
        lowest_first = replace(segments, segments=in_order(segments)[::-1])
        picture = id_map(lowest_first, records[::-1])
    else:
        picture = id_map(segments, records)
    information = PngInfo()
    information.add_text(SEGMENTS_KEYWORD, json.dumps(records))
    return _as_png(picture, pnginfo=information)


def as_painted(answer: Answer) -> bytes:
    """A PNG of the picture with its segments painted over it, and a legend."""
    return _as_png(overlay(answer.picture, answer.segments))


def _as_png(image: Image.Image, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_COMPRESSION, **keywords)
    return buffer.getvalue()


__all__ = ["SEGMENTS_KEYWORD", "as_id_map", "as_json", "as_painted"]
