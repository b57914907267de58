"""A result as the page shows it: pictures of a bounded size, as text that needs no file."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..exchange.plain import in_order
from ..model.class_colors import class_color
from ..model.segments import Segments
from ..visualization import heat_map, overlay
from .segmenting import Comparison, Explanation, SegmentedPicture

_LONGEST, _SHORTEST = 1024, 768  # of the longer side: larger pictures are made smaller, tiny ones larger


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of what the page shows of a picture."""
    longer = max(width, height)
    wanted = min(max(longer, _SHORTEST), _LONGEST)
    return max(1, round(width * wanted / longer)), max(1, round(height * wanted / longer))


def shown_picture(picture: Image.Image) -> Image.Image:
    """A picture at the size that the page shows."""
    size = shown_size(*picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def shown_segments(segments: Segments) -> Segments:
    """Segments at the size that the page shows; those that have no pixel there are left out."""
    width, height = shown_size(segments.width, segments.height)
    if (width, height) == (segments.width, segments.height):
        return segments
    found = [replace(segment, mask=_resized(segment.mask, width, height)) for segment in segments]
    return replace(segments, segments=[segment for segment in found if segment.mask.any()], size=(height, width))


def _resized(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def data_address(picture: Image.Image, kind: str = "JPEG") -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"quality": 90} if kind == "JPEG" else {}))
    return as_data_address(buffer.getvalue(), f"image/{kind.lower()}")


def as_data_address(content: bytes, kind: str) -> str:
    """A file's content as a `data:` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def viewer_value(picture: Image.Image, result: SegmentedPicture) -> dict[str, Any]:
    """What the page's viewer shows.

    Args:
        picture: at the size that the page shows.
        result: of the picture.

    Returns:
        `width`, `height`, the `plain` and the `painted` picture, a description `alt`, `segments` in the order of
        [`in_order`] with `label`, `score` (`None` if semantic), `share` of the picture and `color`, and `runs`: the
        place of each pixel's uppermost segment, counted from 1, and 0 where there is none, row by row as value and
        length in turns.
    """
    segments = result.segments
    ordered = in_order(segments)
    width, height = shown_size(segments.width, segments.height)
    places = np.zeros((height, width), dtype=np.int64)
    number_of = {id(segment): number for number, segment in enumerate(ordered, start=1)}
    for segment in segments:  # later ones lie on top
        places[_resized(segment.mask, width, height)] = number_of[id(segment)]
    names = list(dict.fromkeys(segment.label for segment in ordered))
    return {
        "width": width,
        "height": height,
        "plain": data_address(picture),
        "painted": data_address(overlay(picture, shown_segments(segments), legend=False)),
        "alt": f"The picture with its segments painted over it: {', '.join(names)}." if names else "The picture.",
        "segments": [
            {
                "label": segment.label,
                "score": segment.score,
                "share": explanation.share,
                "color": "#{:02x}{:02x}{:02x}".format(*class_color(segment.label)),
            }
            for segment, explanation in zip(ordered, result.explanations, strict=True)
        ],
        "runs": _runs(places),
    }


def _runs(values: np.ndarray) -> list[int]:
    """Value and length of each run, row by row."""
    flat = values.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()


def explanation_picture(picture: Image.Image, explanation: Explanation) -> Image.Image:
    """Where a segment's label comes from, as heat over the picture.

    Args:
        picture: at the size that the page shows.
        explanation: of the segment.
    """
    return heat_map(picture, explanation.weights)


def comparison_pictures(picture: Image.Image, comparison: Comparison) -> dict[str, Image.Image]:
    """By their titles: pooling's result, the adapter's, and where they differ.

    Args:
        picture: at the size that the page shows.
        comparison: of the picture.
    """
    differs = _resized(comparison.differs, *picture.size)
    return {
        "Mask pooling": overlay(picture, shown_segments(comparison.pooling), legend=False),
        "Mask-Adapter": overlay(picture, shown_segments(comparison.adapter), legend=False),
        "Bright: where they differ": heat_map(picture, differs, maximum=1.0),
    }


__all__ = [
    "as_data_address",
    "comparison_pictures",
    "data_address",
    "explanation_picture",
    "shown_picture",
    "shown_segments",
    "shown_size",
    "viewer_value",
]
