"""A vocabulary as COCO's list of categories, and back; numbers for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ..model.vocabulary import Vocabulary, VocabularyClass
from .formats import ExchangeError, Records


def category_ids(vocabulary: Vocabulary) -> list[int]:
    """The number of each class: the data set's own if every class has one, else its place from 1."""
    ids = [entry.dataset_id for entry in vocabulary]
    known = [number for number in ids if number is not None]
    return known if len(set(known)) == len(ids) else list(range(1, len(ids) + 1))


def to_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """COCO's `categories`; a class that the vocabulary does not call stuff counts as a thing."""
    return [
        {"id": number, "name": entry.name, "isthing": int(entry.is_thing is not False)}
        for number, entry in zip(category_ids(vocabulary), vocabulary, strict=True)
    ]


def from_categories(categories: Any, where: str) -> tuple[Vocabulary, dict[int, int]]:
    """The vocabulary, and the class index of each category id.

    Args:
        categories: COCO's `categories`.
        where: the file, for messages.

    Raises:
        ExchangeError: if they are none, or an id occurs twice.
    """
    try:
        classes = [
            VocabularyClass(
                str(category["name"]),
                is_thing=None if "isthing" not in category else bool(category["isthing"]),
                dataset_id=int(category["id"]),
            )
            for category in categories
        ]
        vocabulary = Vocabulary(tuple(classes))
    except (KeyError, TypeError, ValueError) as error:
        raise ExchangeError(f"{where}: the categories cannot be read ({type(error).__name__}: {error}).") from error
    indices = {int(category["id"]): index for index, category in enumerate(categories)}
    if len(indices) != len(vocabulary):
        raise ExchangeError(f"{where}: two categories have the same id.")
    return vocabulary, indices


def numbered(records: Records) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records with COCO's image ids: file names that are numbers (000000000139.jpg) keep theirs, if all are."""
    stems = [PurePosixPath(record["file_name"]).stem for record in records()]
    are_numbers = all(stem.isascii() and stem.isdigit() for stem in stems)
    numbers = [int(stem) for stem in stems] if are_numbers else []
    if len(set(numbers)) != len(stems):
        numbers = list(range(1, len(stems) + 1))
    return zip(numbers, records(), strict=True)


__all__ = ["category_ids", "from_categories", "numbered", "to_categories"]
