"""Label Studio's exports read (JSON, not JSON-MIN), and tasks with predictions.

Of an exported task the newest annotation counts, by the date at which it was last changed, skipped ones aside; a task
that nobody has finished is left out, as is one that was skipped. A task that was not exported, but made for the import,
has predictions, of which the newest counts. Brush masks, bit masks, polygons, rectangles and ellipses become segments,
later ones on top; everything else is named as left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from PIL import Image

from ..files import read_json
from ..model.segments import Segment, Segments
from ..model.vocabulary import Vocabulary
from .errors import ExchangeError
from .label_studio_interface import CONFIG_FILE, LabelingInterface, read_interface
from .label_studio_regions import Region, region_mask, regions_of
from .reading import LeftOut, StoredResults, check_memory, read_name, read_score, read_size

CROWD_NOTE = "crowd"
"""The note of a region (`meta.text`) that covers a group of objects."""
_FILE_NAME = "file_name"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class _Classes(NamedTuple):
    """The classes, and their names as the files spell them."""

    vocabulary: Vocabulary
    names: list[str]


@dataclass(frozen=True)
class _Task:
    """A task, and which results of it count."""

    number: int
    data: dict[str, Any]
    regions: list[Region]
    size_tellers: list[dict[str, Any]]
    """Results that tell a picture's size although they do not count."""


@dataclass(frozen=True)
class _Picture:
    """A picture of a task, of which most have one."""

    key: str | None
    """Where in the task's data its address is; `None` if that is to be guessed."""
    regions: list[Region]
    size_tellers: list[dict[str, Any]]
    has_siblings: bool = False
    """Whether the task shows other pictures, too, so that what its data say of "the" picture is not of this one."""


def read_tasks(path: Path) -> StoredResults:
    """Read tasks, or what Label Studio exports as JSON.

    Classes are those of `label_config.xml` beside the file, whose aliases are known, else those that occur.

    Args:
        path: the JSON file.

    Raises:
        ExchangeError: if it is not there or no such file.
    """
    content = read_json(path, ExchangeError)
    if not isinstance(content, list):
        raise ExchangeError(f"{path} holds no list of tasks; export as JSON (not JSON-MIN).")
    left_out = LeftOut(str(path))
    tasks = list(_tasks(content, path, left_out))
    config = path.with_name(CONFIG_FILE)
    interface = read_interface(config) if config.is_file() else LabelingInterface()
    names = interface.names or list(dict.fromkeys(r.labels[0] for task in tasks for r in task.regions if r.labels))
    try:
        vocabulary = Vocabulary.from_list([[name] for name in names])
    except ValueError as error:
        raise ExchangeError(
            f"The classes of {path} cannot be told: {error} Put the project's labeling interface beside it as "
            f"{CONFIG_FILE}.{f' {left_out}' if left_out.counts else ''}"
        ) from error
    return StoredResults(vocabulary, _results(tasks, _Classes(vocabulary, names), interface, path, left_out), left_out)


def _tasks(content: list[Any], path: Path, left_out: LeftOut) -> Iterator[_Task]:
    for number, task in enumerate(content, start=1):
        where = f"{path}, task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise ExchangeError(f"{where}: a task must be an object with data; export as JSON (not JSON-MIN).")
        chosen = _chosen(task, where, left_out)
        if chosen is not None:
            regions = regions_of(chosen.get("result"), where, left_out)
            yield _Task(number, task["data"], regions, list(_size_tellers(task)))


def _size_tellers(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything in a task's annotations and predictions that tells a size; what is malformed does not."""
    for made in (entry for key in ("annotations", "predictions") for entry in _dicts(task.get(key))):
        yield from (entry for entry in _dicts(made.get("result")) if "original_height" in entry)


def _dicts(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _chosen(task: dict[str, Any], where: str, left_out: LeftOut) -> dict[str, Any] | None:
    """The annotation or prediction that counts; `None`, and counted, if there is none."""
    exported = next((key for key in ("annotations", "completions") if key in task), None)
    made = task.get(exported or "predictions") or []
    if not isinstance(made, list) or not all(isinstance(entry, dict) for entry in made):
        raise ExchangeError(f"{where}: {exported or 'predictions'} must be a list of objects; export as JSON.")
    if not made:
        left_out.add("tasks that nobody has finished" if exported else "tasks without a prediction", where)
        return None
    finished = [entry for entry in made if not (entry.get("was_cancelled") or entry.get("skipped"))]
    if not finished:
        left_out.add("tasks that were skipped", where)
        return None
    places = range(len(finished))
    return finished[max(places, key=lambda place: (_date(finished[place], where), place))]


def _date(made: dict[str, Any], where: str) -> datetime:
    """When something was last changed; long ago if that is not told."""
    value = made.get("updated_at") or made.get("created_at")
    if value is None:
        return _LONG_AGO
    try:
        date = datetime.fromtimestamp(value, UTC) if isinstance(value, (int, float)) else datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        raise ExchangeError(f"{where}: {value!r} is no date, as 2026-01-31T12:00:00Z is.") from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _results(
    tasks: list[_Task], classes: _Classes, interface: LabelingInterface, path: Path, left_out: LeftOut
) -> Iterator[Segments]:
    for task in tasks:
        of_task = f"{path}, task {task.number}"
        for picture in _pictures(task, interface, of_task, left_out):
            file_name = _file_name(task.data, picture, of_task)
            where = f"{of_task} ({file_name})"
            size = _picture_size(task.data, picture, where)
            if size is None:
                left_out.add("finished tasks without a region, whose picture's size is not told", where)
                continue
            segments = []
            check_memory(len(picture.regions), size, where)
            for region in picture.regions:
                segment = _segment(region, size, classes, interface, where, left_out)
                if segment is not None:
                    segments.append(segment)
            yield Segments(segments, size, classes.vocabulary, picture=file_name)


def _pictures(task: _Task, interface: LabelingInterface, where: str, left_out: LeftOut) -> Iterator[_Picture]:
    """The pictures of a task: those of the labeling interface, or the one on which the first region was drawn."""
    keys = interface.data_keys
    names = list(dict.fromkeys(region.entry.get("to_name") for region in task.regions))
    several = [name for name, key in keys.items() if key in task.data] if len(keys) > 1 else []
    chosen: list[str | None] = [*(several or names[:1] or [None])]
    for name in chosen:
        key = keys[name] if name in keys else next(iter(keys.values()), None)
        regions = [region for region in task.regions if region.entry.get("to_name") == name]
        tellers = [entry for entry in task.size_tellers if entry.get("to_name") == name or not several]
        yield _Picture(key if key in task.data else None, regions, tellers, has_siblings=len(chosen) > 1)
    for region in task.regions:
        if region.entry.get("to_name") not in chosen:
            left_out.add(
                f"regions on further pictures of a task, whose addresses a {CONFIG_FILE} beside the file would tell",
                f"{where}, region {region.name}",
            )


def _picture_size(data: dict[str, Any], picture: _Picture, where: str) -> tuple[int, int] | None:
    """Height and width, in which all regions must agree; `None` if nothing tells them."""
    sizes = {}
    for region in picture.regions:
        of_region = f"{where}, region {region.name}"
        sizes[read_size(region.entry.get("original_height"), region.entry.get("original_width"), of_region)] = of_region
    if len(sizes) > 1:
        (first, _), (second, of_region) = list(sizes.items())[:2]
        raise ExchangeError(
            f"{of_region}: it was drawn on a picture of {second[1]}×{second[0]}, the ones before on {first[1]}×"
            f"{first[0]}: a picture has one size."
        )
    if sizes:
        return next(iter(sizes))
    if picture.size_tellers:
        teller = picture.size_tellers[0]
        return read_size(teller["original_height"], teller.get("original_width"), where)
    if "height" in data and "width" in data and not picture.has_siblings:
        return read_size(data["height"], data["width"], where)
    return None


def _segment(
    region: Region,
    size: tuple[int, int],
    classes: _Classes,
    interface: LabelingInterface,
    where: str,
    left_out: LeftOut,
) -> Segment | None:
    where = f"{where}, region {region.name}"
    if not region.labels:
        left_out.add("regions without a label", where)
        return None
    if region.num_further_labels:
        left_out.add("labels of regions that have another before", where, region.num_further_labels)
    name = interface.class_of(region.control, region.labels[0]) if interface.labels else region.labels[0]
    if name is None:
        raise ExchangeError(
            f"{where}: the labeling interface beside it has no label {region.labels[0]!r}: put the one there with "
            f"which the task was labeled, as {CONFIG_FILE}, or none."
        )
    mask = region_mask(region, size, where)
    if not mask.any():
        left_out.add("regions without a pixel", where)
        return None
    return Segment.of_class(
        classes.vocabulary,
        classes.names.index(name),
        mask,
        score=read_score(region.entry.get("score"), where),
        is_crowd=_is_crowd(region.entry),
    )


def _is_crowd(entry: dict[str, Any]) -> bool:
    meta = entry.get("meta")
    notes = meta.get("text") if isinstance(meta, dict) else None
    return CROWD_NOTE in [str(note).strip().lower() for note in (notes if isinstance(notes, list) else [notes])]


def _file_name(data: dict[str, Any], picture: _Picture, where: str) -> str:
    """The picture's file name, which tasks of this package carry along; else what its address ends with."""
    if _FILE_NAME in data and not picture.has_siblings:
        return read_name(data[_FILE_NAME], where)
    key = picture.key or _guessed_key(data, where)
    address = read_name(data[key], f"{where}, data {key!r}")
    parts = urlsplit(address)
    local = re.search(r"(?:^|&)d=([^&]*)", parts.query)
    name = unquote(local[1] if local else parts.path.rsplit("/", 1)[-1])
    if not name or parts.scheme == "data":
        raise ExchangeError(f"{where}: the address {address[:60]!r} ends in no file name; add {_FILE_NAME!r} to data.")
    return name


def _guessed_key(data: dict[str, Any], where: str) -> str:
    """The key of the picture's address where no labeling interface tells it."""
    suffixes = Image.registered_extensions()
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    pictures = [key for key, value in texts.items() if PurePosixPath(urlsplit(value).path).suffix.lower() in suffixes]
    local = [key for key, value in texts.items() if PurePosixPath(value).suffix.lower() in suffixes]
    found = list(dict.fromkeys([*(["image"] if "image" in texts else []), *pictures, *local]))
    if found[:1] == ["image"] or len(found) == 1:
        return found[0]
    raise ExchangeError(
        f"{where}: it cannot be told which of its data {', '.join(map(repr, data)) or '(there are none)'} is the "
        f"picture: put the project's labeling interface beside the file as {CONFIG_FILE}, or add {_FILE_NAME!r} to "
        "data."
    )


__all__ = ["CROWD_NOTE", "read_tasks"]
