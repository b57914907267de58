"""Class names, their synonyms, thing or stuff, prompt templates and the built-in label sets."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

#: The 14 templates of ViLD as OpenSeg, ODISE and FC-CLIP use them, irregular full stops included: released models were
#: evaluated with exactly these.
PROMPT_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)

_LABEL_SETS = (
    "ade20k_150",
    "ade20k_847",
    "cityscapes_19",
    "coco_panoptic_133",
    "coco_stuff_171",
    "pascal_context_459",
    "pascal_context_59",
    "pascal_voc_20",
    "pascal_voc_21",
)
_INVALID_CLASS = "invalid_class_id"  # placeholder rows of the OpenSeg and FC-CLIP lists
_ID_ROW = re.compile(r"\s*(\d+)\s*:(.*)")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_RECORD_KEYS = {"name", "synonyms", "thing", "dataset_id"}
_COCO_KEYS = {"id", "isthing", "supercategory", "color"}


def label_sets() -> tuple[str, ...]:
    """Names of the built-in label sets, for [`Vocabulary.from_label_set`]."""
    return _LABEL_SETS


def load_label_set(name: str) -> dict[str, Any]:
    """Everything that is stored about a built-in label set.

    Returns:
        `name`, `title`, `note` (how the data set's own files relate to `dataset_id`) and `classes`, a list of records
        with `name`, `synonyms` (if not just the name), `thing` (if the data set tells) and `dataset_id`; for some data
        sets further tables that `note` explains.

    Raises:
        ValueError: if there is no label set of that name.
        ImportError: if the package's data are not installed (remote code carries the code alone).
    """
    if name not in _LABEL_SETS:
        close = difflib.get_close_matches(str(name).lower().replace("-", "_"), _LABEL_SETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no label set {name!r}.{hint} The built-in ones are: {', '.join(_LABEL_SETS)}.")
    try:
        package = __name__.rpartition(".model.")[0] or "hf_maskadapter"  # remote code is in another one
        text = resources.files(package).joinpath("label_sets", f"{name}.json").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ImportError(
            f"The label set {name!r} is data of the package hf_maskadapter, which is not installed here: install it, "
            "or give the class names as a list or file."
        ) from error
    return json.loads(text)


@dataclass(frozen=True)
class VocabularyClass:
    """One class of a [`Vocabulary`].

    Args:
        name: what results and legends call the class; unique in a vocabulary.
        synonyms: the texts that stand for the class in prompts; by default the name alone. A class's score is the best
            of its synonyms'. Usually the name is the first of them, but it need not be among them: an official name
            such as "wall-other-merged" makes a poor prompt.
        is_thing: countable objects (`True`), amorphous regions, "stuff" (`False`), or not known (`None`).
        dataset_id: the number that a data set's own files give the class, if any.

    Raises:
        ValueError: if the name or a synonym is empty, or no text that can be encoded.
        TypeError: if `synonyms` is a string instead of a sequence of strings.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    is_thing: bool | None = None
    dataset_id: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.synonyms, str):
            raise TypeError(f"synonyms must be a sequence of strings, got the string {self.synonyms!r}.")
        name = _clean(self.name, "The class name")
        synonyms = tuple(_clean(synonym, f"A synonym of class {name!r}") for synonym in self.synonyms)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "synonyms", synonyms or (name,))


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """The classes to look for: explicit, immutable data that a model encodes once and reuses for every picture.

    Build one with [`Vocabulary.parse`] or one of the `from_*` methods. A synonym may occur twice in one class and in
    several classes, as it does in official lists. A class is *given twice*, an error, if another has the same name or
    the same set of synonyms; capitals make no difference, as CLIP reads lower case.

    Args:
        classes: the classes, whose order is that of the model's class logits.

    Raises:
        ValueError: if there is no class, or one is given twice.
    """

    classes: tuple[VocabularyClass, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes:
            raise ValueError("The vocabulary is empty: give at least one class name.")
        _check_distinct(self.classes, [f"class {number}" for number in range(1, len(self.classes) + 1)])

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[VocabularyClass]:
        return iter(self.classes)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:5]) + (", ..." if len(self) > 5 else "")
        return f"{type(self).__name__}({len(self)} classes: {shown})"

    @property
    def num_classes(self) -> int:
        """Number of classes, without void."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(entry.name for entry in self.classes)

    @property
    def synonyms(self) -> tuple[tuple[str, ...], ...]:
        """Synonyms of each class."""
        return tuple(entry.synonyms for entry in self.classes)

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Indices of the classes that are not known to be stuff: their segments stay apart in panoptic results."""
        return tuple(index for index, entry in enumerate(self.classes) if entry.is_thing is not False)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """Indices of the classes known to be stuff: panoptic results merge all segments of such a class."""
        return tuple(index for index, entry in enumerate(self.classes) if entry.is_thing is False)

    @property
    def dataset_ids(self) -> tuple[int | None, ...]:
        """The data set's own number of each class, `None` where there is none."""
        return tuple(entry.dataset_id for entry in self.classes)

    def with_things(self, things: Collection[str] | Sequence[bool]) -> Vocabulary:
        """The same classes with other thing flags.

        Args:
            things: one flag for each class; or names (or synonyms) of the thing classes, which makes all others stuff.

        Raises:
            ValueError: if the number of flags is not that of the classes, or no class has a name given.
        """
        if isinstance(things, str):
            raise TypeError(f"things must be a collection of names or one flag for each class, got {things!r}.")
        if things and all(isinstance(thing, bool) for thing in things):
            flags: Collection[Any] = things
        else:
            wanted = {_clean(thing, "A name in things") for thing in things}
            unknown = wanted.difference(self.names, *self.synonyms)
            if unknown:
                raise ValueError(f"things names classes that the vocabulary does not have: {sorted(unknown)}.")
            flags = [not wanted.isdisjoint((entry.name, *entry.synonyms)) for entry in self.classes]
        if len(flags) != len(self):
            raise ValueError(f"things has {len(flags)} flags, but the vocabulary has {len(self)} classes.")
        return Vocabulary(tuple(replace(entry, is_thing=flag) for entry, flag in zip(self.classes, flags, strict=True)))

    def seen(self, training_vocabulary: Vocabulary | Iterable[str | Sequence[str]] | None) -> list[bool]:
        """Which classes share a name with a training vocabulary: the *seen* ones of the geometric ensemble (FC-CLIP).

        Args:
            training_vocabulary: synonyms of each training class, as lists or as strings with commas. `None` or an
                empty list makes every class unseen.

        Returns:
            For each class whether one of its synonyms equals a training synonym exactly, capitals included.
        """
        lists = training_vocabulary.synonyms if isinstance(training_vocabulary, Vocabulary) else training_vocabulary
        known = {synonym for entry in lists or () for synonym in _as_synonyms(entry, "A training class")}
        return [not known.isdisjoint(entry.synonyms) for entry in self.classes]

    def prompts(self, templates: Sequence[str] = PROMPT_TEMPLATES) -> tuple[list[str], list[int]]:
        """Every synonym in every template.

        Args:
            templates: texts with one `{}` each, where the synonym goes.

        Returns:
            The prompts, `num_synonyms * len(templates)` of them in the order class, synonym, template; and the class
            index of each synonym, `num_synonyms`.

        Raises:
            ValueError: if there is no template, or one has not exactly one `{}`.
        """
        check_templates(templates)
        prompts = [
            template.replace("{}", synonym)
            for entry in self.classes
            for synonym in entry.synonyms
            for template in templates
        ]
        return prompts, [index for index, entry in enumerate(self.classes) for _ in entry.synonyms]

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """A form for JSON, which [`Vocabulary.from_dict`] reads back to an equal vocabulary."""
        records = []
        for entry in self.classes:
            record: dict[str, Any] = {"name": entry.name, "synonyms": list(entry.synonyms)}
            if entry.is_thing is not None:
                record["thing"] = entry.is_thing
            if entry.dataset_id is not None:
                record["dataset_id"] = entry.dataset_id
            records.append(record)
        return {"classes": records}

    @classmethod
    def parse(cls, value: Any) -> Vocabulary:
        """Read any form of a vocabulary.

        Args:
            value: a `Vocabulary`; the name of a built-in label set; a file ([`Vocabulary.from_file`]), as a `Path` or a
                string with a folder or one of the suffixes .txt, .csv and .json; a string of class names separated by
                commas; a dict ([`Vocabulary.from_dict`]) or a list ([`Vocabulary.from_list`]). Note that in a string
                alone commas separate *classes*, in a string that is one of a list *synonyms*.

        Raises:
            ValueError, TypeError, OSError: as the method for the form in question.
        """
        if isinstance(value, cls):
            return value
        if type(value).__name__ == cls.__name__:  # Transformers may import a folder's remote code more than once
            return cls.from_dict(value.to_dict())
        if isinstance(value, os.PathLike):
            return cls.from_file(value)
        if isinstance(value, str):
            return cls._from_string(value)
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        return cls.from_list(value)

    @classmethod
    def _from_string(cls, value: str) -> Vocabulary:
        if value in _LABEL_SETS:
            return cls.from_label_set(value)
        looks_like_path = Path(value).suffix.lower() in (".txt", ".json", ".csv") or "/" in value or os.sep in value
        if looks_like_path and "," not in value:
            return cls.from_file(value)
        return cls.from_list([[name] for name in _split_synonyms(value)] if value.strip() else [])

    @classmethod
    def from_list(
        cls,
        classes: Iterable[str | Sequence[str] | Mapping[str, Any] | VocabularyClass],
        things: Collection[str] | Sequence[bool] | None = None,
    ) -> Vocabulary:
        """Build from a list with one entry for each class.

        Args:
            classes: an entry is a string (synonyms separated by commas), a list of synonyms, a [`VocabularyClass`], or
                a record: a dict with `name` and optionally `synonyms`, `thing`, `dataset_id`, or the same as a COCO
                category (`name`, `id`, `isthing`). Where several classes share their first synonym, another synonym in
                brackets tells their names apart.
            things: thing flags, as for [`Vocabulary.with_things`].

        Raises:
            ValueError: if the list or a name is empty, a class is given twice, or a record has unknown keys.
            TypeError: if `classes` is a string or a set, or an entry none of the above.
        """
        if isinstance(classes, (str, bytes, Mapping, set, frozenset)) or not isinstance(classes, Iterable):
            raise TypeError(f"Class names must come in a list, got {type(classes).__name__}: {classes!r}.")
        entries = [_entry(value, f"class {number}") for number, value in enumerate(classes, start=1)]
        vocabulary = _assemble(entries)
        return vocabulary if things is None else vocabulary.with_things(things)

    @classmethod
    def from_dict(cls, classes: Mapping[Any, Any]) -> Vocabulary:
        """Build from a dict.

        Args:
            classes: one of

                - `{name: synonyms}`, where the synonyms are a list, a string with commas or `None`, or a dict with
                  `synonyms`, `thing` and `dataset_id`, all optional; the name is the first synonym unless it is listed;
                - `{"classes": [entry, ...]}`, with entries as in [`Vocabulary.from_list`] (the form of
                  [`Vocabulary.to_dict`] and of the label sets); other keys beside `"classes"` are ignored;
                - `{id: name}` or `{"id2label": {id: name}}`, Transformers' form; the id becomes `dataset_id`.

        Raises:
            ValueError, TypeError: as [`Vocabulary.from_list`].
        """
        if not isinstance(classes, Mapping):
            raise TypeError(f"Expected a dict of classes, got {type(classes).__name__}.")
        if isinstance(classes.get("classes"), list):
            return cls.from_list(classes["classes"])
        if isinstance(classes.get("id2label"), Mapping):
            classes = classes["id2label"]
        if _is_id_to_label(classes):
            labels = sorted((int(key), label) for key, label in classes.items())
            return _assemble(
                [
                    _Entry(f"id {number}", _as_synonyms(label, f"id {number}"), dataset_id=number)
                    for number, label in labels
                ]
            )
        return _assemble([_named_entry(name, value) for name, value in classes.items()])

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], things: Collection[str] | Sequence[bool] | None = None
    ) -> Vocabulary:
        """Read a file: one class a line with its synonyms separated by commas, or JSON.

        The lines may have the form `id:name,name` of the OpenSeg and FC-CLIP lists: the id becomes `dataset_id`, and
        rows named `invalid_class_id` are skipped, as are blank lines. A file named `*.json` holds what
        [`Vocabulary.from_list`] or [`Vocabulary.from_dict`] takes.

        Args:
            path: the file, in UTF-8.
            things: thing flags, as for [`Vocabulary.with_things`].

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not UTF-8 or not JSON, an id or class is given twice, a row is malformed or a name
                empty; the message names file and line.
        """
        path = Path(path)
        text = _read_text(path)
        vocabulary = _parse_json(text, path) if path.suffix.lower() == ".json" else _assemble(_rows(text, path), path)
        return vocabulary if things is None else vocabulary.with_things(things)

    @classmethod
    def from_label_set(cls, name: str, synonyms_file: str | os.PathLike[str] | None = None) -> Vocabulary:
        """A built-in label set, on request with the synonyms of a file.

        Args:
            name: one of [`label_sets`].
            synonyms_file: a list of synonyms for each class in the label set's order, for example FC-CLIP's
                `*_with_prompt_eng.txt` of the same data set. Names, thing flags and dataset ids stay the label set's;
                the texts put into prompts are the file's.

        Raises:
            ValueError: if there is no such label set, or the file is not for it.
            ImportError: as [`load_label_set`].
        """
        record = load_label_set(name)
        vocabulary = cls.from_dict(record)
        if synonyms_file is None:
            return vocabulary
        rows = cls.from_file(synonyms_file).classes
        omitted = {int(index): label for index, label in record.get("omitted_classes", {}).items()}
        if len(rows) == len(vocabulary) + len(omitted) and all(
            label in rows[index].synonyms for index, label in omitted.items()
        ):
            rows = tuple(row for index, row in enumerate(rows) if index not in omitted)
        if len(rows) != len(vocabulary):
            raise ValueError(
                f"{synonyms_file} lists {len(rows)} classes, but the label set {name!r} has {len(vocabulary)}: give "
                "the list that was written for this label set, in its order."
            )
        paired = zip(vocabulary.classes, rows, strict=True)
        return cls(tuple(replace(entry, synonyms=row.synonyms) for entry, row in paired))


def check_templates(templates: Sequence[str]) -> None:
    """Check prompt templates.

    Raises:
        ValueError: if there is none, or one is not a string with exactly one `{}`.
    """
    if isinstance(templates, str) or not templates:
        raise ValueError(f"Prompt templates must be a list of at least one text, got {templates!r}.")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(f"A prompt template needs one '{{}}' where the class name goes, got {template!r}.")


class _Entry(NamedTuple):
    where: str  # for error messages: "class 3", "names.txt, line 7"
    synonyms: tuple[str, ...]
    name: str | None = None  # None: the first synonym
    is_thing: bool | None = None
    dataset_id: int | None = None


def _clean(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, got {type(text).__name__}: {text!r}.")
    cleaned = " ".join(text.split())
    if not cleaned:
        raise ValueError(f"{what} is empty.")
    try:
        cleaned.encode()
    except UnicodeEncodeError as error:  # no tokenizer reads it
        raise ValueError(f"{what} is no text, since it holds half a character or a stray byte: {cleaned!r}.") from error
    return cleaned


def _split_synonyms(text: str) -> list[str]:
    return [synonym.strip() for synonym in text.replace(", ", ",").split(",")]


def _as_synonyms(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        names = _split_synonyms(value)
        what = f"{where}: the class name" if len(names) == 1 else f"{where}: a name in {value!r}"
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        names, what = list(value), f"{where}: a name in {list(value)!r}"
    else:
        raise TypeError(f"{where} must be a class name or a list of synonyms, got {type(value).__name__}: {value!r}.")
    if not names:
        raise ValueError(f"{where}: the list of synonyms is empty.")
    return tuple(_clean(name, what) for name in names)


def _entry(value: Any, where: str) -> _Entry:
    if isinstance(value, VocabularyClass):
        return _Entry(where, value.synonyms, value.name, value.is_thing, value.dataset_id)
    if not isinstance(value, Mapping):
        return _Entry(where, _as_synonyms(value, where))
    unknown = set(value) - _RECORD_KEYS - _COCO_KEYS
    if unknown or "name" not in value:
        problem = f"unknown keys {sorted(map(str, unknown))}" if unknown else "no 'name'"
        raise ValueError(f"{where}: {problem} in {dict(value)!r}; a class has {sorted(_RECORD_KEYS)}.")
    name = _clean(value["name"], f"{where}: the class name")
    return _entry_with_facts(value, where, name, _as_synonyms(value.get("synonyms") or [name], where))


def _named_entry(name: Any, value: Any) -> _Entry:
    name = _clean(name, "The class name")
    where = f"class {name!r}"
    facts = value if isinstance(value, Mapping) else {"synonyms": value}
    unknown = set(facts) - (_RECORD_KEYS - {"name"})
    if unknown:
        raise ValueError(
            f"{where}: unknown keys {sorted(map(str, unknown))}; a class has {sorted(_RECORD_KEYS - {'name'})}."
        )
    synonyms = _as_synonyms(facts.get("synonyms") or [name], where)
    return _entry_with_facts(facts, where, name, synonyms if name in synonyms else (name, *synonyms))


def _entry_with_facts(facts: Mapping[str, Any], where: str, name: str, synonyms: tuple[str, ...]) -> _Entry:
    thing = facts.get("thing", facts.get("isthing"))
    if thing not in (None, False, True):  # 0 and 1 of COCO's files are equal to these
        raise ValueError(f"{where}: 'thing' must be true or false, got {thing!r}.")
    dataset_id = facts.get("dataset_id", facts.get("id"))
    if dataset_id is not None and (isinstance(dataset_id, bool) or not isinstance(dataset_id, int)):
        raise ValueError(f"{where}: 'dataset_id' must be a whole number, got {dataset_id!r}.")
    return _Entry(where, synonyms, name, None if thing is None else bool(thing), dataset_id)


def _is_id_to_label(classes: Mapping[Any, Any]) -> bool:
    def is_id(key: Any) -> bool:
        return (isinstance(key, int) and not isinstance(key, bool)) or (isinstance(key, str) and key.isdecimal())

    return bool(classes) and all(is_id(key) and isinstance(name, str) for key, name in classes.items())


def _assemble(entries: Sequence[_Entry], path: Path | None = None) -> Vocabulary:
    if not entries:
        where = f"{path}: the" if path is not None else "The"
        raise ValueError(f"{where} vocabulary is empty: give at least one class name.")
    derived = [index for index, entry in enumerate(entries) if entry.name is None]
    names = dict(zip(derived, _distinct_names([entries[index].synonyms for index in derived]), strict=True))
    classes = tuple(
        VocabularyClass(entry.name or names[index], entry.synonyms, entry.is_thing, entry.dataset_id)
        for index, entry in enumerate(entries)
    )
    _check_distinct(classes, [entry.where for entry in entries])
    return Vocabulary(classes)


def _check_distinct(classes: Sequence[VocabularyClass], wheres: Sequence[str]) -> None:
    first_with: dict[Any, str] = {}
    for entry, where in zip(classes, wheres, strict=True):
        by_synonyms = frozenset(synonym.casefold() for synonym in entry.synonyms)
        for key, shown in ((by_synonyms, ", ".join(entry.synonyms)), (entry.name.casefold(), entry.name)):
            if key in first_with:
                raise ValueError(
                    f"{where}: the class {shown!r} is given twice, first in {first_with[key]}; remove one of the two."
                )
            first_with[key] = where


def _distinct_names(synonym_lists: Sequence[tuple[str, ...]]) -> list[str]:
    """First synonym of each class; with another synonym in brackets where several classes share the first."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for synonyms in synonym_lists:
        groups.setdefault(synonyms[0].casefold(), []).append(synonyms)
    names = []
    for synonyms in synonym_lists:
        others = [other for other in groups[synonyms[0].casefold()] if other is not synonyms]
        rest = synonyms[1:] if others else ()
        taken = {synonym.casefold() for other in others for synonym in other}
        own = [synonym for synonym in rest if synonym.casefold() not in taken][:1] or rest
        names.append(f"{synonyms[0]} ({', '.join(own)})" if own else synonyms[0])
    return names


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file with class names.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no vocabulary file {path}.") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8.") from None


def _rows(text: str, path: Path) -> list[_Entry]:
    lines = [(number, line) for number, line in enumerate(_LINE_BREAK.split(text), start=1) if line.strip()]
    with_ids = bool(lines) and _ID_ROW.fullmatch(lines[0][1]) is not None
    line_of_id: dict[int, int] = {}
    entries = []
    for number, line in lines:
        where = f"{path}, line {number}"
        match = _ID_ROW.fullmatch(line)
        if (match is not None) != with_ids:
            form = "'id:name,name'" if with_ids else "names without an id"
            raise ValueError(f"{where}: expected {form} as in line {lines[0][0]}, got {line.strip()!r}.")
        if match is None:
            entries.append(_Entry(where, _as_synonyms(line, where)))
            continue
        dataset_id, names = int(match[1]), match[2]
        if dataset_id in line_of_id:
            raise ValueError(f"{where}: the id {dataset_id} is given twice, first in line {line_of_id[dataset_id]}.")
        line_of_id[dataset_id] = number
        if names.strip() != _INVALID_CLASS:
            entries.append(_Entry(where, _as_synonyms(names, where), dataset_id=dataset_id))
    return entries


def _parse_json(text: str, path: Path) -> Vocabulary:
    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if twice:
            raise ValueError(f"{', '.join(map(repr, sorted(twice)))} is given twice; remove one of the two.")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        if not isinstance(value, (list, dict)):
            raise TypeError(f"expected a list or a dict of classes, got {value!r}.")
        return Vocabulary.from_list(value) if isinstance(value, list) else Vocabulary.from_dict(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}.") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


__all__ = ["PROMPT_TEMPLATES", "Vocabulary", "VocabularyClass", "check_templates", "label_sets", "load_label_set"]
