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
from .reading import LeftOut, StoredResults, read_name, read_score, read_size

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
    size_tellers: list[Any]
    """Results that tell the picture's size although they do not count."""


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
            f"{CONFIG_FILE}."
        ) from error
    return StoredResults(vocabulary, _results(tasks, _Classes(vocabulary, names), interface, path, left_out), left_out)


def _tasks(content: list[Any], path: Path, left_out: LeftOut) -> Iterator[_Task]:
    for number, task in enumerate(content, start=1):
        where = f"{path}, task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise ExchangeError(f"{where}: a task must be an object with data; export as JSON (not JSON-MIN).")
        chosen = _chosen(task, where, left_out)
        if chosen is not None:
            all_made = [made for key in ("annotations", "predictions") for made in task.get(key) or []]
            tellers = [entry for made in all_made if isinstance(made, dict) for entry in made.get("result") or []]
            regions = regions_of(chosen.get("result"), where, left_out)
            yield _Task(number, task["data"], regions, tellers)


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
        where = f"{path}, task {task.number}"
        file_name = _file_name(task, interface, where)
        where = f"{where} ({file_name})"
        size = _picture_size(task, where)
        if size is None:
            left_out.add("finished tasks without a region, whose picture's size is not told", where)
            continue
        segments = []
        for region in task.regions:
            segment = _segment(region, size, classes, interface, where, left_out)
            if segment is not None:
                segments.append(segment)
        yield Segments(segments, size, classes.vocabulary, picture=file_name)


def _picture_size(task: _Task, where: str) -> tuple[int, int] | None:
    """Height and width, in which all regions must agree; `None` if nothing tells them."""
    sizes = {}
    for region in task.regions:
        of_region = f"{where}, region {region.name}"
        sizes[read_size(region.entry.get("original_height"), region.entry.get("original_width"), of_region)] = of_region
    if len(sizes) > 1:
        (first, _), (second, of_region) = list(sizes.items())[:2]
        raise ExchangeError(
            f"{of_region}: it was drawn on a picture of {second[1]}×{second[0]}, the ones before on {first[1]}×"
            f"{first[0]}: a task has one picture of one size."
        )
    if sizes:
        return next(iter(sizes))
    tellers = [entry for entry in task.size_tellers if isinstance(entry, dict) and "original_height" in entry]
    if tellers:
        return read_size(tellers[0]["original_height"], tellers[0].get("original_width"), where)
    if "height" in task.data and "width" in task.data:
        return read_size(task.data["height"], task.data["width"], where)
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
    if len(region.labels) > 1:
        left_out.add("labels of regions that have another before", where, len(region.labels) - 1)
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
    return CROWD_NOTE in (notes if isinstance(notes, list) else [notes])


def _file_name(task: _Task, interface: LabelingInterface, where: str) -> str:
    """The picture's file name, which tasks of this package carry along; else what its address ends with."""
    data = task.data
    if _FILE_NAME in data:
        return read_name(data[_FILE_NAME], where)
    target = task.regions[0].entry.get("to_name") if task.regions else None
    keys = interface.data_keys
    key = keys.get(target) if target in keys else next(iter(keys.values()), None)
    if key not in data:
        key = _guessed_key(data, where)
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
