"""What COCO's instance and panoptic files have in common: categories, pictures and their numbers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..files import read_json
from ..model.vocabulary import Vocabulary, VocabularyClass
from .errors import ExchangeError
from .formats import Records
from .reading import read_name, read_size

logger = logging.getLogger(__name__)


class CocoImage(NamedTuple):
    """A picture that a COCO file lists."""

    file_name: str
    size: tuple[int, int]
    """Height and width."""


def category_ids(vocabulary: Vocabulary) -> list[int]:
    """The number of each class: the data set's own if every class has one, else its place from 1."""
    ids = [entry.dataset_id for entry in vocabulary]
    known = [number for number in ids if number is not None]
    return known if len(set(known)) == len(ids) else list(range(1, len(ids) + 1))


def to_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """COCO's `categories`; a class that the vocabulary does not call stuff counts as a thing.

    The data set's own number 0 is kept, since its evaluation needs it, and named in a warning, since some tools take 0
    for "no category".
    """
    categories = [
        {"id": number, "name": entry.name, "supercategory": "", "isthing": int(entry.is_thing is not False)}
        for number, entry in zip(category_ids(vocabulary), vocabulary, strict=True)
    ]
    for category in categories:
        if category["id"] == 0:
            logger.warning(
                "The category %r keeps its number 0, by which datumaro takes it for no category: for such tools give "
                "the classes of the vocabulary numbers from 1 on, or none.",
                category["name"],
            )
    return categories


def read_coco_file(path: Path, kind: str) -> dict[str, Any]:
    """The content of a COCO file.

    Args:
        path: the file.
        kind: what it should be, for messages.

    Raises:
        ExchangeError: if it is no such file.
    """
    content = read_json(path, ExchangeError)
    if isinstance(content, list):
        raise ExchangeError(
            f"{path} is a list, as COCO's results are, which names neither pictures nor classes: read the annotation "
            "file that belongs to it."
        )
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        raise ExchangeError(f"{path} is no {kind} file: it needs images, annotations and categories.")
    for key in keys:
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise ExchangeError(f"{path} is no {kind} file: {key} must be a list of objects.")
    return content


def read_categories(
    categories: list[dict[str, Any]], used: Collection[Any], path: Path
) -> tuple[Vocabulary, dict[int, int]]:
    """The vocabulary, and the class index of each category id.

    Categories of the same name, capitals aside, are one class, as where a root category is called like the only class
    below it; its number is that of the first one that annotations use.

    Args:
        categories: COCO's `categories`.
        used: the category ids that occur in annotations.
        path: the file, for messages.

    Raises:
        ExchangeError: if they are none, an id occurs twice, or two of the same name are used of which only one is a
            thing.
    """
    entries: dict[int, VocabularyClass] = {}
    named: dict[str, list[int]] = defaultdict(list)
    for number, category in enumerate(categories):
        where = f"{path}, category {number}"
        category_id, name = category.get("id"), category.get("name")
        if type(category_id) is not int:
            raise ExchangeError(f"{where}: its id must be a whole number, got {category_id!r}.")
        if category_id in entries:
            raise ExchangeError(f"{where}: the id {category_id} is also that of {entries[category_id].name!r}.")
        if not isinstance(name, str) or not name.strip():
            raise ExchangeError(f"{where} (id {category_id}): its name must be a text, got {name!r}.")
        is_thing = None if category.get("isthing") is None else bool(category["isthing"])
        entries[category_id] = VocabularyClass(name, is_thing=is_thing, dataset_id=category_id)
        named[entries[category_id].name.lower()].append(category_id)
    classes: list[VocabularyClass] = []
    indices: dict[int, int] = {}
    for ids in named.values():
        chosen = [number for number in ids if number in used] or ids
        if len({entries[number].is_thing for number in chosen}) > 1:
            raise ExchangeError(
                f"{path}: the categories {chosen} are all called {entries[ids[0]].name!r}, but only some are things: "
                "give them different names."
            )
        indices.update(dict.fromkeys(ids, len(classes)))
        classes.append(entries[chosen[0]])
    try:
        return Vocabulary(tuple(classes)), indices
    except ValueError as error:
        raise ExchangeError(f"{path}: the categories make no vocabulary: {error}") from error


def read_images(images: list[dict[str, Any]], path: Path) -> dict[Any, CocoImage]:
    """The pictures by their ids.

    Raises:
        ExchangeError: if an id is missing or occurs twice, or a name or size cannot be.
    """
    read: dict[Any, CocoImage] = {}
    for number, image in enumerate(images):
        where = f"{path}, image {number}"
        image_id = image.get("id")
        if type(image_id) not in (int, str):
            raise ExchangeError(f"{where}: its id must be a whole number or a text, got {image_id!r}.")
        if image_id in read:
            raise ExchangeError(f"{where}: the id {image_id!r} is also that of {read[image_id].file_name!r}.")
        name = read_name(image.get("file_name"), where)
        size = read_size(image.get("height"), image.get("width"), f"{path}, picture {name!r}")
        read[image_id] = CocoImage(name, size)
    return read


def read_reference(value: Any, known: Mapping[Any, Any], name: str, where: str) -> Any:
    """The id of a picture or category that an annotation refers to.

    Args:
        value: the id.
        known: what it may refer to, by id.
        name: the key, for messages.
        where: file and annotation, for messages.

    Raises:
        ExchangeError: if it is missing, of another type than the ids that are known, or none of them.
    """
    if value is None:
        raise ExchangeError(f"{where}: {name} is missing.")
    if type(value) in (int, str) and value in known:
        return value
    alike = next((key for key in known if str(key) == str(value) or key == value), None)
    if alike is not None:
        raise ExchangeError(
            f"{where}: {name} is {value!r}, but the file lists {alike!r} as an id of another type: write both alike."
        )
    raise ExchangeError(f"{where}: {name} is {value!r}, which the file does not list.")


def read_crowd_flag(value: Any, where: str) -> bool:
    """COCO's `iscrowd`, which may be missing.

    Raises:
        ExchangeError: if it is neither 0 nor 1.
    """
    if value not in (None, 0, 1):
        raise ExchangeError(f"{where}: iscrowd must be 0 or 1, got {value!r}.")
    return bool(value)


def numbered(records: Records) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records with COCO's image ids: file names that are numbers (000000000139.jpg) keep theirs, if all are."""
    stems = [PurePosixPath(record["file_name"]).stem for record in records()]
    are_numbers = all(stem.isascii() and stem.isdigit() for stem in stems)
    numbers = [int(stem) for stem in stems] if are_numbers else []
    if len(set(numbers)) != len(stems):
        numbers = list(range(1, len(stems) + 1))
    return zip(numbers, records(), strict=True)


__all__ = [
    "CocoImage",
    "category_ids",
    "numbered",
    "read_categories",
    "read_coco_file",
    "read_crowd_flag",
    "read_images",
    "read_reference",
    "to_categories",
]
