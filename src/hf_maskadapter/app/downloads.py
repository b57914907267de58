"""A result's files, made in memory: masks, JSON, COCO, the painted picture."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from ..exchange import write_results
from ..exchange.plain import describe, id_map, in_order, mask_picture
from ..model.segments import Segments
from ..visualization import overlay
from .viewing import shown_segments


@dataclass(frozen=True)
class Download:
    """A file to download.

    Args:
        title: what the link says.
        name: the file's.
        kind: its media type.
        content: its bytes.
    """

    title: str
    name: str
    kind: str
    content: bytes


def downloads(picture: Image.Image, segments: Segments, model: str) -> list[Download]:
    """The files of a result.

    Args:
        picture: the picture, at the size that the page shows.
        segments: its segments, which name the picture.
        model: what the files call the model.

    Returns:
        The masks: a PNG whose pixels are the ids in the JSON, for instances, which may overlap, a ZIP with one PNG
        each; the JSON, as `maskadapter segment --json` writes it; COCO's annotations with run-length encoded masks; all
        these at the picture's own size. And the painted picture at the size that the page shows: a photograph's would
        be several megabytes, and take longer than its segments.
    """
    stem = PurePath(segments.picture or "picture").stem
    if segments.task == "instance":
        masks = Download("Masks (ZIP)", f"{stem}_masks.zip", "application/zip", _zip_of_masks(segments))
    else:
        masks = Download("Masks (PNG)", f"{stem}_masks.png", "image/png", _png(id_map(segments)))
    text = json.dumps(describe(segments, model), indent=1, ensure_ascii=False) + "\n"
    painted = _png(overlay(picture, shown_segments(segments)))
    return [
        masks,
        Download("JSON", f"{stem}.json", "application/json", text.encode()),
        Download("COCO", f"{stem}_coco.json", "application/json", _coco(segments, model)),
        Download("Painted picture", f"{stem}_segments.png", "image/png", painted),
    ]


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _zip_of_masks(segments: Segments) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in _masks(segments):
            archive.writestr(name, content)
    return buffer.getvalue()


def _masks(segments: Segments) -> Iterator[tuple[str, bytes]]:
    for number, segment in enumerate(in_order(segments), start=1):
        yield f"{number:04d}.png", _png(mask_picture(segment))


def _coco(segments: Segments, model: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="maskadapter-") as folder:
        file, *_ = write_results(folder, "coco-instance", [segments], segments.vocabulary, model=model)
        return Path(file).read_bytes()


__all__ = ["Download", "downloads"]
