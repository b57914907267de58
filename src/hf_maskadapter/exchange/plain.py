"""A picture's segments as plain JSON and PNGs: what `maskadapter segment`, the app and the service give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..model.class_colors import class_colors
from ..model.segments import Segment, Segments


def in_order(segments: Segments) -> list[Segment]:
    """The segments as they are told and numbered: instances with the best one first."""
    return segments.best_first() if segments.task == "instance" else list(segments)


def segment_records(segments: Segments) -> list[dict[str, Any]]:
    """The segments for JSON, [`in_order`].

    Returns:
        For each a dict with `id`, `label`, `label_id`, `score` (`None` if semantic), `area` in pixels and `box`, `left,
        top, width, height` in pixels. The id of a semantic segment is its label's place in the vocabulary, from 1;
        others are numbered from 1.
    """
    return [
        {
            "id": segment.class_id + 1 if segments.task == "semantic" else number,
            "label": segment.label,
            "label_id": segment.class_id,
            "score": segment.score,
            "area": segment.area,
            "box": list(segment.box),
        }
        for number, segment in enumerate(in_order(segments), start=1)
    ]


def describe(segments: Segments, model: str, picture: str | None = None) -> dict[str, Any]:
    """All that is told of a picture's result, for JSON.

    Args:
        segments: the result.
        model: what to call the model.
        picture: what to call the picture; by default as the segments do.

    Returns:
        `picture`, `width`, `height`, `task`, `model`, `labels` and `segments`, see [`segment_records`].
    """
    return {
        "picture": segments.picture if picture is None else picture,
        "width": segments.width,
        "height": segments.height,
        "task": segments.task,
        "model": model,
        "labels": list(segments.vocabulary.names),
        "segments": segment_records(segments),
    }


def id_map(segments: Segments, records: Sequence[dict[str, Any]] | None = None) -> Image.Image:
    """A picture whose values are the ids of [`segment_records`], 0 where there is nothing.

    Args:
        segments: semantic or panoptic; of overlapping segments it shows the uppermost.
        records: of the segments, if they are there already; in the segments' own order.

    Returns:
        Of mode "P", with each class's colour in its palette; of 16 bits if there are ids above 255.
    """
    records = segment_records(segments) if records is None else records
    ids = np.array([0, *(record["id"] for record in records)], dtype=np.uint16)[segments.segment_map()]
    if max((record["id"] for record in records), default=0) > 255:
        return Image.fromarray(ids)
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    colors = class_colors(segments.vocabulary.names)
    palette = [0] * 768
    for record in records:
        palette[3 * record["id"] : 3 * record["id"] + 3] = colors[record["label_id"]]
    image.putpalette(palette)
    return image


def mask_picture(segment: Segment) -> Image.Image:
    """A segment's whole mask as a picture of mode "L": 255 inside, 0 outside."""
    return Image.fromarray(segment.mask.astype(np.uint8) * 255)


__all__ = ["describe", "id_map", "in_order", "mask_picture", "segment_records"]
