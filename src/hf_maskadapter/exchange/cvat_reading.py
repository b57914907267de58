"""CVAT's exports read: "CVAT for images 1.1" and "CVAT for video 1.1".

Format: https://docs.cvat.ai/docs/other/xml_format. Masks, polygons, boxes and ellipses become segments, turned as they
are; what is no region, such as a polyline or a skeleton, is named as left out. A `z_order` says what lies on top, among
equal ones the place in the file. Shapes of one group and one label are one object, as in CVAT's own COCO export.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..model.masks import from_run_lengths, polygon_mask
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError
from .reading import LeftOut, StoredResults, check_memory, read_name, read_number, read_size, read_whole_number
from .shapes import Point, ellipse_mask, rectangle_mask

CROWD = "is_crowd"
"""The attribute that says that a shape covers a group of objects."""
_REGIONS = ("box", "ellipse", "mask", "polygon")
_OTHERS = {"cuboid": "cuboids", "points": "points", "polyline": "polylines", "skeleton": "skeletons", "tag": "tags"}
_FRAME_NAME = "frame_{:06d}.png"
_MOST_FRAMES = 10_000_000  # of a video: five days of it
_TRUE = ("1", "true")


@dataclass
class _Shape:
    """A shape as the file has it, and where it is."""

    element: ElementTree.Element
    label: str | None
    group: int
    z_order: int
    where: str


@dataclass
class _Head:
    """What must be known before the pictures are read."""

    names: list[str] = field(default_factory=list)
    frame_size: tuple[int, int] | None = None
    frames: range = range(0)
    is_video: bool = False
    num_images: int = 0
    tracks: list[ElementTree.Element] = field(default_factory=list)


class _Classes(NamedTuple):
    """The classes, and the index of each label as the file spells it."""

    vocabulary: Vocabulary
    index_of: dict[str, int]


def read_cvat(path: Path) -> StoredResults:
    """Read an annotation file of CVAT.

    The frames of a video, which have no names there, are called `frame_000000.png` and so on.

    Args:
        path: the XML file.

    Raises:
        ExchangeError: if it is not there or no such file.
    """
    try:
        head = _read_head(path)
    except (OSError, ElementTree.ParseError, UnicodeError, LookupError) as error:
        raise ExchangeError(f"{path} is no annotation file of CVAT: {error}.") from error
    try:
        vocabulary = Vocabulary.from_list([[name] for name in head.names])
    except ValueError as error:
        raise ExchangeError(f"{path} is no annotation file of CVAT that names its labels: {error}") from error
    left_out = LeftOut(str(path))
    classes = {name: index for index, name in enumerate(head.names)}
    return StoredResults(vocabulary, _results(path, head, _Classes(vocabulary, classes), left_out), left_out)


def _read_head(path: Path) -> _Head:
    head = _Head()
    ancestors: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        if event == "start":
            ancestors.append(element)
            continue
        ancestors.pop()
        if len(ancestors) != 1:  # not right below the root
            continue
        if element.tag == "meta":
            _read_meta(element, head, path)
        elif element.tag == "track":
            head.tracks.append(element)
        elif element.tag == "image":
            head.num_images += 1
        if element.tag != "track":
            element.clear()
            ancestors[0].remove(element)
    return head


def _read_meta(meta: ElementTree.Element, head: _Head, path: Path) -> None:
    names = []
    for label in meta.iterfind(".//labels/label"):
        if label.find("parent") is not None:  # a point of a skeleton
            continue
        name = label.findtext("name")
        if not name or not name.strip():
            raise ExchangeError(f"{path}: a label has no name.")
        names.append(name)
    head.names = list(dict.fromkeys(names))
    head.is_video = meta.findtext(".//mode") == "interpolation"
    size = meta.find(".//original_size")
    if size is not None:
        head.frame_size = read_size(size.findtext("height"), size.findtext("width"), f"{path}, original_size")
    first, last = meta.findtext(".//start_frame"), meta.findtext(".//stop_frame")
    if first is not None and last is not None:
        step = (meta.findtext(".//frame_filter") or "").strip().removeprefix("step=") or "1"
        where = f"{path}, its head"
        start = read_whole_number(first, "start_frame", where)
        stop = read_whole_number(last, "stop_frame", where)
        if not 0 <= start <= stop + 1 <= _MOST_FRAMES:
            raise ExchangeError(
                f"{where}: a video from frame {start} to frame {stop} cannot be; its frames are counted from 0 on, to "
                f"at most {_MOST_FRAMES}."
            )
        head.frames = range(start, stop + 1, max(1, read_whole_number(step, "frame_filter", where)))


def _results(path: Path, head: _Head, classes: _Classes, left_out: LeftOut) -> Iterator[Segments]:
    of_frame = _track_shapes(path, head, left_out)
    if head.num_images:
        yield from _images(path, classes, of_frame, left_out)
    elif head.tracks or head.is_video:
        if head.frame_size is None:
            raise ExchangeError(f"{path}: the frames' size is missing; CVAT writes it as original_size into the head.")
        for frame in heapq.merge(head.frames, sorted(set(of_frame).difference(head.frames))):
            yield _picture(_FRAME_NAME.format(frame), head.frame_size, of_frame.pop(frame, []), classes, left_out)
    for shapes in of_frame.values():
        left_out.add("shapes of tracks on frames that the file does not list", shapes[0].where, len(shapes))


def _images(path: Path, classes: _Classes, of_frame: dict[int, list[_Shape]], left_out: LeftOut) -> Iterator[Segments]:
    ancestors: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        if event == "start":
            ancestors.append(element)
            continue
        ancestors.pop()
        if len(ancestors) != 1:
            continue
        if element.tag == "image":
            name = read_name(element.get("name"), f"{path}, image {element.get('id')}")
            where = f"{path}, picture {name!r}"
            size = read_size(element.get("height"), element.get("width"), where)
            shapes = [
                _shape(child, child.get("label"), child.get("group_id"), f"{where}, {child.tag} {number}")
                for number, child in enumerate(element)
                if not _is_outside(child)
            ]
            if of_frame:
                shapes += of_frame.pop(read_whole_number(element.get("id"), "id", where), [])
            yield _picture(name, size, shapes, classes, left_out)
        element.clear()
        ancestors[0].remove(element)


def _track_shapes(path: Path, head: _Head, left_out: LeftOut) -> dict[int, list[_Shape]]:
    """The shapes of all tracks, by frame; those that lie outside, which means that nothing is seen, are none."""
    tasks = {track.get("task_id") for track in head.tracks}
    if len(tasks) > 1:
        raise ExchangeError(f"{path} holds tracks of several tasks, whose frames have the same numbers: export each.")
    of_frame: dict[int, list[_Shape]] = defaultdict(list)
    for track in head.tracks:
        where = f"{path}, track {track.get('id')}"
        previous: tuple[int, bool] | None = None  # frame, whether something was seen there
        for element in track:
            frame = read_whole_number(element.get("frame"), "frame", where)
            of_shape = f"{where}, frame {frame}"
            if frame < 0:
                raise ExchangeError(f"{of_shape}: frames are counted from 0 on.")
            is_seen = not _is_outside(element)
            if previous is not None and previous[1]:
                _count_missing(previous[0], frame, head.frames.step, "between key frames", of_shape, left_out)
            previous = frame, is_seen
            if is_seen:
                of_frame[frame].append(_shape(element, track.get("label"), track.get("group_id"), of_shape))
        if previous is not None and previous[1]:
            of_shape = f"{where}, frame {previous[0]}"
            _count_missing(
                previous[0], head.frames.stop, head.frames.step, "after the last that is told", of_shape, left_out
            )
    return of_frame


def _count_missing(seen: int, until: int, step: int, which: str, where: str, left_out: LeftOut) -> None:
    """Count the frames after one on which something was seen, up to the next that the file has."""
    missing = (until - seen - 1) // step
    if missing > 0:
        left_out.add(f"shapes of tracks {which}, which CVAT's own export holds", where, missing)


def _is_outside(element: ElementTree.Element) -> bool:
    return element.get("outside", "").lower() in _TRUE


def _shape(element: ElementTree.Element, label: str | None, group: str | None, where: str) -> _Shape:
    z_order = read_whole_number(element.get("z_order", "0"), "z_order", where)
    return _Shape(element, label, read_whole_number(group or "0", "group_id", where), z_order, where)


def _picture(name: str, size: tuple[int, int], shapes: list[_Shape], classes: _Classes, left_out: LeftOut) -> Segments:
    vocabulary = classes.vocabulary
    check_memory(len(shapes), size, f"{left_out.source}, picture {name!r}")
    segments: list[Segment] = []
    of_group: dict[tuple[int, str, bool], int] = {}
    for shape in sorted(shapes, key=lambda shape: shape.z_order):
        kind = shape.element.tag
        if kind not in _REGIONS:
            left_out.add(_OTHERS.get(kind, f"elements {kind!r}"), shape.where)
            continue
        if shape.label not in classes.index_of:
            raise ExchangeError(f"{shape.where}: the file's head does not list its label {shape.label!r}.")
        try:
            mask = _mask(shape.element, size, shape.where)
        except ExchangeError:
            raise
        except ValueError as error:
            raise ExchangeError(f"{shape.where}: it cannot be read: {error}") from error
        if not mask.any():
            left_out.add("shapes without a pixel", shape.where)
            continue
        is_crowd = _is_crowd(shape.element, shape.where)
        segment = Segment.of_class(vocabulary, classes.index_of[shape.label], mask, is_crowd=is_crowd)
        key = (shape.group, shape.label, is_crowd)
        if shape.group and key in of_group:
            place = of_group[key]
            if any((between.mask & mask).any() for between in segments[place + 1 :]):
                left_out.add("layers of objects of which parts lie below and parts above another object", shape.where)
            segments[place] = Segment.of_class(
                vocabulary, segment.class_id, segments[place].mask | mask, is_crowd=is_crowd
            )
            continue
        of_group[key] = len(segments)
        segments.append(segment)
    return Segments(segments, size, vocabulary, picture=name)


def _is_crowd(element: ElementTree.Element, where: str) -> bool:
    """CVAT's attribute: a checkbox, or a number 0 or 1."""
    value = next((child.text or "" for child in element.iterfind("attribute") if child.get("name") == CROWD), "false")
    value = value.strip().lower()
    if value not in ("true", "false", "1", "0"):
        raise ExchangeError(f"{where}: the attribute {CROWD} must be true or false, got {value!r}.")
    return value in _TRUE


def _mask(element: ElementTree.Element, size: tuple[int, int], where: str) -> np.ndarray:
    def number(key: str, default: str | None = None) -> float:
        return read_number(element.get(key, default), key, where)

    if element.tag == "polygon":
        return polygon_mask(_points(element.get("points", ""), where), size)
    if element.tag == "box":
        corners = (number("xtl"), number("ytl")), (number("xbr"), number("ybr"))
        return rectangle_mask(*corners, size, number("rotation", "0"))
    if element.tag == "ellipse":
        center, radii = (number("cx"), number("cy")), (number("rx"), number("ry"))
        return ellipse_mask(center, radii, size, number("rotation", "0"))
    left, top, width, height = (
        read_whole_number(element.get(key), key, where) for key in ("left", "top", "width", "height")
    )
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > size[1] or top + height > size[0]:
        raise ExchangeError(f"{where}: its box lies outside of the picture.")
    counts = [read_whole_number(count, "rle", where) for count in element.get("rle", "").split(",")]
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = from_run_lengths(counts, width * height).reshape(height, width)
    return mask


def _points(text: str, where: str) -> list[Point]:
    pairs = [pair.split(",") for pair in text.split(";") if pair]
    if any(len(pair) != 2 for pair in pairs):
        raise ExchangeError(f"{where}: points must be pairs, x,y;x,y;..., got {text[:40]!r}.")
    return [(read_number(x, "points", where), read_number(y, "points", where)) for x, y in pairs]


__all__ = ["CROWD", "read_cvat"]
