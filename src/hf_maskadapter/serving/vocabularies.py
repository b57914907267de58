"""Labels of requests to vocabularies, kept while they are in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..model.pipeline_zero_shot_image_segmentation import parse_candidate_labels
from ..model.vocabulary import Vocabulary, label_sets
from .errors import RequestError

_LONGEST_TEXT = 500
"""Characters of a name. A text tower reads 77 tokens; what has more characters than this is no name."""

Labels = str | Sequence[str | Sequence[str]]


class VocabularyStore:
    """Vocabularies by the labels that requests bring: the same labels give the same object.

    So a vocabulary is read once, and two requests that ask for it are seen to do so at once. Their embeddings are kept
    by the pipeline.

    Args:
        capacity: how many are kept, the last used ones.
        max_labels: most names, with synonyms, of one that is not a built-in label set.
    """

    def __init__(self, capacity: int, max_labels: int):
        self.capacity, self.max_labels = capacity, max_labels
        self._kept: OrderedDict[Any, Vocabulary] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, labels: Labels, things: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary of some labels.

        Args:
            labels: names separated by commas, the name of a built-in label set, or a list with an entry for each class:
                a name, synonyms separated by commas, or a list of synonyms.
            things: the countable classes; all others are then stuff.

        Raises:
            RequestError: if there are none, too many or too long ones, or one is given twice.
        """
        self._check(labels, things or ())
        key = (_frozen(labels), None if things is None else tuple(things))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            vocabulary = parse_candidate_labels(labels)
            if things is not None:
                vocabulary = vocabulary.with_things(list(things))
        except (ValueError, TypeError) as error:
            raise RequestError(422, f"labels: {error}") from error
        with self._lock:
            vocabulary = self._kept.setdefault(key, vocabulary)
            while len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        return vocabulary

    def _check(self, labels: Labels, things: Sequence[str]) -> None:
        if isinstance(labels, str) and labels in label_sets():
            texts: list[str] = []
        else:
            entries = [labels] if isinstance(labels, str) else labels
            parts = [part for entry in entries for part in ([entry] if isinstance(entry, str) else entry)]
            if sum(part.count(",") + 1 for part in parts) > self.max_labels:
                raise RequestError(
                    422, f"labels: more than {self.max_labels} names, with synonyms; ask for fewer of them at a time."
                )
            texts = [name for part in parts for name in part.split(",")]
        if len(things) > self.max_labels:
            raise RequestError(422, f"things: more than {self.max_labels} names.")
        if any(len(text) > _LONGEST_TEXT for text in (*texts, *things)):
            raise RequestError(422, f"labels: a name is longer than {_LONGEST_TEXT} characters; shorten it.")


def _frozen(labels: Labels) -> Any:
    if isinstance(labels, str):
        return labels
    return tuple(entry if isinstance(entry, str) else tuple(entry) for entry in labels)


__all__ = ["Labels", "VocabularyStore"]
