"""Open a data set: from the Hub, from local files or folders, as a whole or as a stream."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import torch.utils.data

from ..model.vocabulary import Vocabulary
from .folders import ClassFacts, as_values
from .opening import (
    IMAGE_COLUMNS,
    features_of,
    find_column,
    identifying_column,
    open_source,
    undecoded,
)
from .options import DatasetOptions, with_named
from .samples import DataError, SampleReader, SegmentationSample, given_ids, whole_mapping

LABEL_COLUMNS = ("label_map", "annotation", "semantic_map", "segmentation_mask", "mask", "label", "labels")
PANOPTIC_COLUMNS = ("panoptic_map", "panoptic", "panoptic_seg")
SEGMENTS_COLUMNS = ("segments_info",)


class _ReadByReader:
    """What a reader's data are called and mean."""

    reader: SampleReader

    @property
    def name(self) -> str:
        """The data set's name, for messages."""
        return self.reader.name

    @property
    def vocabulary(self) -> Vocabulary:
        """What the class indices mean."""
        return self.reader.vocabulary

    @property
    def has_instances(self) -> bool:
        """Whether it is panoptic (objects of one class are told apart) or has label maps."""
        return self.reader.panoptic_column is not None


class SegmentationDataset(_ReadByReader, torch.utils.data.Dataset):
    """A data set with a length: `dataset[i]` decodes one sample, not augmented, in the same order in every run.

    Args:
        dataset: a Hugging Face data set. Pictures are decoded when a sample is read; nothing is mapped or copied.
        reader: decodes its rows.
        indices: the rows to use; `None`: all. A sample keeps its id in every selection.

    Raises:
        DataError: if there is no sample.
    """

    def __init__(self, dataset: datasets.Dataset, reader: SampleReader, indices: Sequence[int] | None = None) -> None:
        self.dataset = undecoded(dataset, reader.columns)
        self.reader = reader
        self.indices = range(len(dataset)) if indices is None else list(indices)
        if not len(self.indices):
            raise DataError(f"{self.name}: the data set is empty.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> SegmentationSample:
        row = self.indices[index]
        return self.reader(self.dataset[row], row)

    def __iter__(self) -> Iterator[SegmentationSample]:
        return (self[index] for index in range(len(self)))

    def read(self, item: int) -> SegmentationSample:
        """The sample of a [`hf_maskadapter.data.SampleKey`]'s item."""
        return self[item]

    def select(self, indices: Sequence[int]) -> SegmentationDataset:
        """A part of the data set, for example the first few samples or one process's shard.

        Raises:
            IndexError: if an index is out of range.
            DataError: if `indices` is empty.
        """
        return SegmentationDataset(self.dataset, self.reader, [self.indices[index] for index in indices])


class SegmentationStream(_ReadByReader):
    """A data set without a length, read while it arrives. Iterating decodes the samples, not augmented, in its order.

    Args:
        dataset: a Hugging Face iterable data set.
        reader: decodes its rows.
    """

    def __init__(self, dataset: datasets.IterableDataset, reader: SampleReader) -> None:
        self.dataset = undecoded(dataset, reader.columns)
        self.reader = reader

    def rows(self, seed: int | None = None, shuffle_buffer: int = 1000) -> Iterator[Mapping[str, Any]]:
        """One pass over the undecoded rows; with a seed, shuffled by it through a buffer of `shuffle_buffer` rows."""
        dataset = self.dataset
        return iter(dataset if seed is None else dataset.shuffle(seed=seed, buffer_size=shuffle_buffer))

    def read(self, item: Mapping[str, Any]) -> SegmentationSample:
        """Decode a row."""
        return self.reader(item)

    def shard(self, num_processes: int, process_index: int) -> Iterator[SegmentationSample]:
        """The samples that a process evaluates: each on exactly one process, none repeated."""
        return map(self.read, itertools.islice(self.rows(), process_index, None, num_processes))

    def __iter__(self) -> Iterator[SegmentationSample]:
        return self.shard(1, 0)


def load_segmentation_dataset(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.IterableDataset,
    vocabulary: Any = None,
    options: DatasetOptions | None = None,
    *,
    split: str | None = None,
    label_mapping: Mapping[int, int] | None = None,
    **named: Any,
) -> SegmentationDataset | SegmentationStream:
    """Open a data set for training or evaluation.

    Args:
        source: one of

            - a data set of the Hub (`"owner/name"`), or whatever else `datasets.load_dataset` opens;
            - a folder that `Dataset.save_to_disk` or `maskadapter prepare` wrote, or a single `.parquet`,
              `.arrow`, `.jsonl` or WebDataset `.tar` file;
            - a folder with pictures and label maps: `images/` beside `labels/` (or `annotations/`, ...), with or
              without folders for splits;
            - COCO's root folder as downloaded, for its panoptic or its COCO-Stuff annotations, or a JSON file in COCO's
              panoptic form;
            - a `datasets.Dataset` or `datasets.IterableDataset`.
        vocabulary: anything that `Vocabulary.parse` takes; its order is that of the class indices. `None`: what the
            data set brings along (`vocabulary.json`, `classes.json`, COCO's categories).
        options: how it is read.
        split: the split to open; may be left out if there is only one.
        label_mapping: class index of each value of the label maps or each category id. Default: the ids that the
            vocabulary gives its classes (`{0: "background", 255: "lesion"}`; those of a built-in label set do not
            count), the data set's own (COCO's category ids, the ids in `classes.json`), or the values are class
            indices. A value that a mapping names is not ignored by default.
        **named: fields of `options` by their names, such as `streaming=True` or `label_column="truth"`.

    Returns:
        A [`SegmentationDataset`], or a [`SegmentationStream`] for a streaming data set.

    Raises:
        DataError: if the data set cannot be found or is empty, a column is missing, or the classes are not known or do
            not fit the vocabulary.
        ValueError: if arguments contradict each other.
        TypeError: if there is no option of a name.
    """
    options = with_named(DatasetOptions, options, named)
    if options.reduce_labels and label_mapping is not None:
        raise ValueError("Give either reduce_labels or label_mapping, not both.")
    label_mapping = None if label_mapping is None else whole_mapping(label_mapping)
    dataset, facts, name = open_source(source, split, options)
    columns = _find_columns(dataset, name, options)
    classes = _reconcile(facts, vocabulary, label_mapping, name)
    mapping, is_given = _mapping(facts, classes, vocabulary is not None, label_mapping, options.reduce_labels)
    ignored = _ignored_values(facts, options.ignore_index, len(classes), mapping, is_given)
    reader = SampleReader(
        classes,
        **columns,
        label_mapping=mapping,
        ignore_values=(0, *ignored) if options.reduce_labels else ignored,
        ignore_unlisted=options.ignore_unlisted,
        ignores_by_default=options.ignore_index is None and facts.ignore_values is None,
        name=name,
    )
    if isinstance(dataset, datasets.IterableDataset):
        return SegmentationStream(dataset, reader)
    return SegmentationDataset(dataset, reader)


def _find_columns(
    dataset: datasets.Dataset | datasets.IterableDataset,
    name: str,
    options: DatasetOptions,
) -> dict[str, Any]:
    """Names of the columns as arguments of [`SampleReader`]."""
    features = features_of(dataset, name)
    label, panoptic, segments = options.label_column, options.panoptic_column, options.segments_column
    if label is not None and panoptic is not None:
        raise ValueError("Give either label_column or panoptic_column, not both.")

    def find(given: str | None, usual: Sequence[str], what: str, **keywords: bool) -> str | None:
        return find_column(features, name, given, usual, what, **keywords)

    image = find(options.image_column, IMAGE_COLUMNS, "the pictures (image_column)", is_picture=True)
    if label is None:
        panoptic = find(
            panoptic, PANOPTIC_COLUMNS, "the panoptic maps (panoptic_column)", needed=False, is_picture=True
        )
    if panoptic is not None:
        segments = find(segments, SEGMENTS_COLUMNS, "what the segments are (segments_column)")
    else:
        segments = None
        usual = [column for column in LABEL_COLUMNS if column != image]
        label = find(label, usual, "the label maps (label_column or panoptic_column)", is_picture=True)
    return {
        "image_column": image,
        "label_column": label,
        "panoptic_column": panoptic,
        "segments_column": segments,
        "id_column": identifying_column(dataset, features, options.id_column, name),
    }


def _reconcile(facts: ClassFacts, vocabulary: Any, label_mapping: Mapping[int, int] | None, name: str) -> Vocabulary:
    """The classes to use: the user's if given, provided that they can be the data set's."""
    if vocabulary is None:
        if facts.vocabulary is None:
            raise DataError(
                f"{name} does not tell its classes: give the vocabulary that its class indices refer to (class names "
                "in order, a file, or a built-in label set)."
            )
        return facts.vocabulary
    given = Vocabulary.parse(vocabulary)
    if facts.vocabulary is None or label_mapping is not None:
        return given
    if len(given) != len(facts.vocabulary):
        raise DataError(
            f"{name} has {len(facts.vocabulary)} classes, but the vocabulary has {len(given)}. The vocabulary must "
            "name the data set's classes in its order; to use other classes, say which class each label becomes "
            "(label_mapping)."
        )
    ids, known_ids = given_ids(given), facts.label_mapping or {index: index for index in range(len(given))}
    if ids is not None and ids != known_ids and given.dataset_ids != facts.vocabulary.dataset_ids:
        number = next(value for value, index in ids.items() if known_ids.get(value) != index)
        raise DataError(
            f"{name}: the vocabulary gives class {given.names[ids[number]]!r} the id {number}, which the data set does "
            "not. Give the vocabulary without ids, or say which class each label becomes (label_mapping)."
        )
    if given.names != facts.vocabulary.names and set(given.names) == set(facts.vocabulary.names):
        number = next(i for i in range(len(given)) if given.names[i] != facts.vocabulary.names[i])
        raise DataError(
            f"{name}: the vocabulary has the data set's classes in another order: class {number} is "
            f"{given.names[number]!r}, but {facts.vocabulary.names[number]!r} in the data set. Reorder it, or say "
            "which class each label becomes (label_mapping)."
        )
    return given


def _mapping(
    facts: ClassFacts,
    classes: Vocabulary,
    is_given: bool,
    label_mapping: Mapping[int, int] | None,
    reduce_labels: bool,
) -> tuple[Mapping[int, int] | None, bool]:
    """Class index of each value, and whether it was given by the caller's mapping or vocabulary."""
    if label_mapping is not None:
        return label_mapping, True
    if reduce_labels:
        return {index + 1: index for index in range(len(classes))}, False
    if is_given and facts.vocabulary is None:
        ids = given_ids(classes)
        return ids, ids is not None
    return facts.label_mapping, False


def _ignored_values(
    facts: ClassFacts,
    ignore_index: int | Sequence[int] | None,
    num_classes: int,
    mapping: Mapping[int, int] | None,
    is_given: bool,
) -> tuple[int, ...]:
    """What means "ignored": what a mapping names is not, unless somebody said so, and the caller may say only one."""
    if ignore_index is not None:
        values = as_values(ignore_index)
        both = [value for value in values if is_given and value in (mapping or {})]
        if both:
            raise ValueError(
                f"ignore_index says that {both[0]} is ignored, but the mapping or the vocabulary's ids make it class "
                f"{(mapping or {})[both[0]]}: leave one of the two out."
            )
        return values
    if facts.ignore_values is not None:
        return tuple(value for value in facts.ignore_values if not is_given or value not in (mapping or {}))
    values = (255, 65535) if num_classes <= 255 else (65535,)
    return tuple(value for value in values if value not in (mapping or {}))


__all__ = ["SegmentationDataset", "SegmentationStream", "load_segmentation_dataset"]
