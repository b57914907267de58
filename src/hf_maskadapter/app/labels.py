"""Labels as people type them into a page: to a vocabulary and back."""

from __future__ import annotations

from ..model.vocabulary import Vocabulary


def read_labels(text: str, label_set: str | None = None, things: str = "", max_names: int = 1000) -> Vocabulary:
    """The vocabulary of typed labels, or of a built-in label set.

    Lines are read as those of a vocabulary's file: a class each, its synonyms separated by commas. A single line is
    read as the command's `--labels`: commas separate classes.

    Args:
        text: what was typed; of no effect if there is a label set.
        label_set: one of [`hf_maskadapter.model.vocabulary.label_sets`].
        things: the countable classes, separated by commas or lines; all others become stuff. Empty: nothing is said
            about that, or what the label set says.
        max_names: names, synonyms included, that may be typed.

    Raises:
        ValueError: if there are no labels or too many, one is given twice, or the things are none of them.
    """
    vocabulary = Vocabulary.from_label_set(label_set) if label_set else Vocabulary.from_list(_classes(text, max_names))
    countable = [name.strip() for name in things.replace("\n", ",").split(",") if name.strip()]
    return vocabulary.with_things(countable) if countable else vocabulary


def _classes(text: str, max_names: int) -> list[list[str]]:
    lines = [[name.strip() for name in line.split(",") if name.strip()] for line in text.splitlines()]
    lines = [names for names in lines if names]
    if not lines:
        raise ValueError("Say what to look for: one label a line, or labels separated by commas in a single line.")
    number = sum(map(len, lines))
    if number > max_names:
        raise ValueError(f"There are {number} names, and at most {max_names} are taken; leave some out.")
    return lines if len(lines) > 1 else [[name] for name in lines[0]]


def describe_labels(vocabulary: Vocabulary, shown: int = 8) -> str:
    """How labels were understood, for people: "3 labels: cat (or kitten), sofa, wall"."""
    texts = []
    for entry in vocabulary.classes[:shown]:
        others = [synonym for synonym in entry.synonyms if synonym != entry.name]
        texts.append(f"{entry.name} (or {', '.join(others)})" if others else entry.name)
    more = f" and {len(vocabulary) - shown} more" if len(vocabulary) > shown else ""
    return f"{len(vocabulary)} {'label' if len(vocabulary) == 1 else 'labels'}: {', '.join(texts)}{more}"


def labels_text(vocabulary: Vocabulary) -> tuple[str, str]:
    """What [`read_labels`] reads to this vocabulary, if each class is called by its first synonym.

    Returns:
        The labels, a line each, and the countable ones.
    """
    lines = [", ".join(entry.synonyms) for entry in vocabulary]
    if len(lines) == 1 and len(vocabulary.classes[0].synonyms) > 1:
        raise ValueError("A single class with synonyms cannot be told from several classes in a line.")
    return "\n".join(lines), ", ".join(entry.name for entry in vocabulary if entry.is_thing)


__all__ = ["describe_labels", "labels_text", "read_labels"]
