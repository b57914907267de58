"""Open a data set: from the Hub, from local files or folders, as a whole or as a stream."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import torch.utils.data

from ..vocabulary import Vocabulary
from .folders import (
    ClassFacts,
    FileIndex,
    as_values,
    index_coco_panoptic,
    index_coco_stuff,
    index_folder,
    is_coco_panoptic,
    is_coco_stuff,
    is_picture_folder,
    read_class_facts,
)
from .samples import DataError, SampleReader, SegmentationSample

Layout = Literal["auto", "dataset", "folder", "coco_panoptic", "coco_stuff"]

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label_map", "annotation", "semantic_map", "segmentation_mask", "mask", "label", "labels")
PANOPTIC_COLUMNS = ("panoptic_map", "panoptic", "panoptic_seg")
SEGMENTS_COLUMNS = ("segments_info",)
ID_COLUMNS = ("sample_id", "id", "image_id", "file_name")
_FILE_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".tar": "webdataset"}


class SegmentationDataset(torch.utils.data.Dataset):
    """A data set with a length: `dataset[i]` decodes one sample, not augmented, in the same order in every run.

    Args:
        dataset: a Hugging Face data set. Pictures are decoded when a sample is read; nothing is mapped or copied.
        reader: decodes its rows.
        indices: the rows to use; `None`: all. A sample keeps its id in every selection.

    Raises:
        DataError: if there is no sample.
    """

    def __init__(self, dataset: datasets.Dataset, reader: SampleReader, indices: Sequence[int] | None = None) -> None:
        self.dataset = _undecoded(dataset, reader)
        self.reader = reader
        self.indices = range(len(dataset)) if indices is None else list(indices)
        if not len(self.indices):
            raise DataError(f"{self.name}: the data set is empty.")

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


class SegmentationStream:
    """A data set without a length, read while it arrives. Iterating decodes the samples, not augmented, in its order.

    Args:
        dataset: a Hugging Face iterable data set.
        reader: decodes its rows.
    """

    def __init__(self, dataset: datasets.IterableDataset, reader: SampleReader) -> None:
        self.dataset = _undecoded(dataset, reader)
        self.reader = reader

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
    *,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    layout: Layout = "auto",
    image_folder: str | os.PathLike[str] | None = None,
    panoptic_folder: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    panoptic_column: str | None = None,
    segments_column: str | None = None,
    id_column: str | None = None,
    label_mapping: Mapping[int, int] | None = None,
    reduce_labels: bool = False,
    ignore_index: int | Sequence[int] | None = None,
    ignore_unlisted: bool = False,
) -> SegmentationDataset | SegmentationStream:
    """Open a data set for training or evaluation.

    Args:
        source: one of

            - a data set of the Hub (`"owner/name"`), or whatever else `datasets.load_dataset` opens;
            - a folder that `Dataset.save_to_disk` or `scripts/prepare_dataset.py` wrote, or a single `.parquet`,
              `.arrow`, `.jsonl` or WebDataset `.tar` file;
            - a folder with pictures and label maps: `images/` beside `labels/` (or `annotations/`, ...), with or
              without folders for splits;
            - COCO's root folder as downloaded, for its panoptic or its COCO-Stuff annotations, or a JSON file in COCO's
              panoptic form;
            - a `datasets.Dataset` or `datasets.IterableDataset`.
        vocabulary: anything that `Vocabulary.parse` takes; its order is that of the class indices. `None`: what the
            data set brings along (`vocabulary.json`, `classes.json`, COCO's categories).
        split: the split to open; may be left out if there is only one.
        config_name: configuration of a Hub data set.
        revision: version of a Hub data set.
        streaming: read the data set while it arrives instead of downloading it.
        cache_dir: where `datasets` keeps what it downloads.
        layout: how to read a local folder; `"auto"`: by what it holds.
        image_folder: folder of the pictures, where a COCO-style annotation file does not tell.
        panoptic_folder: folder of the panoptic PNGs, where it is not beside the annotation file.
        image_column, label_column, panoptic_column, segments_column, id_column: names of the columns, if they are not
            the usual ones (the first of them: `image`, `label_map`, `panoptic_map`, `segments_info`, `id`).
        label_mapping: class index of each value of the label maps or each category id. Default: the data set's own
            (COCO's category ids, the ids in `classes.json`), or the values are class indices.
        reduce_labels: label maps hold class index + 1, and 0 where there is no label (as ADE20K's).
        ignore_index: value or values of the label maps that mean "ignored". Default: what the data set says, or else
            255 and 65535 (65535 alone if there are more than 255 classes).
        ignore_unlisted: treat all labels outside the vocabulary as ignored instead of as an error.

    Returns:
        A [`SegmentationDataset`], or a [`SegmentationStream`] for a streaming data set.

    Raises:
        DataError: if the data set cannot be found or is empty, a column is missing, or the classes are not known or do
            not fit the vocabulary.
        ValueError: if arguments contradict each other.
    """
    if reduce_labels and label_mapping is not None:
        raise ValueError("Give either reduce_labels or label_mapping, not both.")
    dataset, facts, name = _open(
        source, split, config_name, revision, streaming, cache_dir, layout, image_folder, panoptic_folder
    )
    columns = _find_columns(dataset, name, image_column, label_column, panoptic_column, segments_column, id_column)
    classes = _reconcile(facts, vocabulary, label_mapping, name)
    mapping: Mapping[int, int] | None = label_mapping if label_mapping is not None else facts.label_mapping
    ignored = _ignored_values(facts, ignore_index, len(classes))
    if reduce_labels:
        mapping = {index + 1: index for index in range(len(classes))}
        ignored = (0, *ignored)
    reader = SampleReader(
        classes,
        **columns,
        label_mapping=mapping,
        ignore_values=ignored,
        ignore_unlisted=ignore_unlisted,
        name=name,
    )
    if isinstance(dataset, datasets.IterableDataset):
        return SegmentationStream(dataset, reader)
    return SegmentationDataset(dataset, reader)


def _open(
    source: Any,
    split: str | None,
    config_name: str | None,
    revision: str | None,
    streaming: bool,
    cache_dir: Any,
    layout: Layout,
    image_folder: Any,
    panoptic_folder: Any,
) -> tuple[datasets.Dataset | datasets.IterableDataset, ClassFacts, str]:
    """The data set, what it tells about its classes, and a name for messages."""
    if isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        return _choose_split(source, split, "The data set"), ClassFacts(), "data set"
    if isinstance(source, (datasets.Dataset, datasets.IterableDataset)):
        return source, ClassFacts(), "data set"
    path = Path(source)
    name = f"{source}, split {split!r}" if split else str(source)
    if not path.exists():
        if path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") > 1:
            raise DataError(f"There is no folder or file {source}.")
        return (
            _load_from_hub(str(source), split, config_name, revision, streaming, cache_dir),
            _hub_facts(str(source), revision),
            name,
        )
    if layout == "auto":
        layout = _guess_layout(path)
    if layout == "dataset":
        return _load_local(path, split, config_name, streaming, cache_dir), read_class_facts([path]), name
    if layout == "coco_panoptic":
        folders = (Path(folder) if folder is not None else None for folder in (image_folder, panoptic_folder))
        index = index_coco_panoptic(path, split, *folders)
    elif layout == "coco_stuff":
        index = index_coco_stuff(path, split)
    elif layout == "folder":
        index = index_folder(path, split)
    else:
        raise ValueError(f"layout={layout!r} is unknown.")
    dataset = index_to_dataset(index)
    return (dataset.to_iterable_dataset() if streaming else dataset), index.classes, name


def _guess_layout(path: Path) -> Layout:
    if path.is_file():
        return "coco_panoptic" if path.suffix.lower() == ".json" else "dataset"
    if is_coco_panoptic(path) and is_coco_stuff(path):
        raise DataError(
            f"{path} holds COCO's panoptic annotations and those of COCO-Stuff: choose with layout='coco_panoptic' or "
            "layout='coco_stuff'."
        )
    if is_coco_panoptic(path):
        return "coco_panoptic"
    if is_coco_stuff(path):
        return "coco_stuff"
    return "folder" if is_picture_folder(path) else "dataset"


def index_to_dataset(index: FileIndex) -> datasets.Dataset:
    """A Hugging Face data set of paths; the files are read when a sample is."""
    image = datasets.Image(decode=False)
    features = {"id": datasets.Value("string"), "image": image, "label_map": image, "panoptic_map": image}
    features["segments_info"] = datasets.List(
        {"id": datasets.Value("int64"), "category_id": datasets.Value("int64"), "iscrowd": datasets.Value("bool")}
    )
    present = datasets.Features({name: features[name] for name in index.columns})
    return datasets.Dataset.from_dict(index.columns, features=present)


def _load_local(path: Path, split: str | None, config_name: str | None, streaming: bool, cache_dir: Any) -> Any:
    if (path / "dataset_dict.json").is_file():
        dataset = _choose_split(datasets.load_from_disk(str(path)), split, str(path))
    elif (path / "state.json").is_file():
        dataset = datasets.load_from_disk(str(path))
    elif path.is_file():
        builder = _FILE_BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise DataError(f"{path} is not a data set file: expected {', '.join(_FILE_BUILDERS)}, or COCO's .json.")
        return _load_from_hub(builder, split, None, None, streaming, cache_dir, data_files=str(path))
    else:
        files = _prepared_files(path)
        if files and config_name is None:
            # Files that a card names are not part of the cache's key in `datasets`: two folders of one name, or one
            # that was prepared again, would give the data of the first.
            return _load_from_hub("parquet", split, None, None, streaming, cache_dir, data_files=files, name=str(path))
        return _load_from_hub(str(path), split, config_name, None, streaming, cache_dir)
    return dataset.to_iterable_dataset() if streaming else dataset


def _prepared_files(path: Path) -> dict[str, list[str]]:
    """The Parquet files of a folder that `prepare_dataset` wrote, by split."""
    files: dict[str, list[str]] = {}
    if (path / "vocabulary.json").is_file():
        for file in sorted((path / "data").glob("*-*-of-*.parquet")):
            files.setdefault(file.name.rsplit("-", 3)[0], []).append(str(file))
    return files


def _load_from_hub(
    source: str,
    split: str | None,
    config_name: str | None,
    revision: str | None,
    streaming: bool,
    cache_dir: Any,
    name: str | None = None,
    **options: Any,
) -> Any:
    name = name or source
    try:
        loaded = datasets.load_dataset(
            source, config_name, split=split, revision=revision, streaming=streaming, cache_dir=cache_dir, **options
        )
    except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError, OSError) as error:
        raise DataError(f"The data set {name!r} cannot be opened: {type(error).__name__}: {error}") from error
    return loaded if split is not None else _choose_split(loaded, None, name)


def _hub_facts(source: str, revision: str | None) -> ClassFacts:
    """The classes that a prepared data set on the Hub brings along."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(source, "vocabulary.json", repo_type="dataset", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError):
        return ClassFacts()
    return ClassFacts(Vocabulary.from_file(path))


def _choose_split(loaded: Mapping[str, Any], split: str | None, name: str) -> Any:
    if split is not None and split in loaded:
        return loaded[split]
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    problem = f"there is no split {split!r}" if split is not None else "choose a split (split=...)"
    raise DataError(f"{name}: {problem}; it has: {', '.join(map(str, loaded))}.")


def _find_columns(
    dataset: datasets.Dataset | datasets.IterableDataset,
    name: str,
    image: str | None,
    label: str | None,
    panoptic: str | None,
    segments: str | None,
    identity: str | None,
) -> dict[str, Any]:
    """Names of the columns as arguments of [`SampleReader`]."""
    features = _features(dataset, name)

    def find(given: str | None, usual: Sequence[str], what: str, needed: bool, is_picture: bool = False) -> str | None:
        if given is not None:
            if given not in features:
                raise DataError(f"{name}: there is no column {given!r} for {what}; its columns: {', '.join(features)}.")
            return given
        for candidate in usual:
            if candidate in features and (not is_picture or _may_be_picture(features[candidate])):
                return candidate
        if needed:
            raise DataError(
                f"{name}: found no column with {what} under a usual name ({', '.join(usual)}); its columns: "
                f"{', '.join(features)}. Name the column."
            )
        return None

    if label is not None and panoptic is not None:
        raise ValueError("Give either label_column or panoptic_column, not both.")
    image = find(image, IMAGE_COLUMNS, "the pictures (image_column)", True, True)
    if label is None:
        panoptic = find(panoptic, PANOPTIC_COLUMNS, "the panoptic maps (panoptic_column)", False, True)
    if panoptic is not None:
        segments = find(segments, SEGMENTS_COLUMNS, "what the segments are (segments_column)", True)
    else:
        segments = None
        usual = [column for column in LABEL_COLUMNS if column != image]
        label = find(label, usual, "the label maps (label_column or panoptic_column)", True, True)
    identity = _identity(dataset, find(identity, ID_COLUMNS, "the samples' names (id_column)", False), identity, name)
    return {
        "image_column": image,
        "label_column": label,
        "panoptic_column": panoptic,
        "segments_column": segments,
        "id_column": identity,
    }


def _features(dataset: datasets.Dataset | datasets.IterableDataset, name: str) -> Mapping[str, Any]:
    if dataset.features is not None:
        return dataset.features
    first = next(iter(dataset), None)
    if first is None:
        raise DataError(f"{name}: the data set is empty.")
    return dict.fromkeys(first)


def _may_be_picture(feature: Any) -> bool:
    """Whether a column may hold pictures; not so a class label or a caption of the same name."""
    if isinstance(feature, (datasets.Value, datasets.ClassLabel)):
        return feature.dtype == "binary"
    return True


def _identity(dataset: Any, found: str | None, given: str | None, name: str) -> str | None:
    if found is None or not isinstance(dataset, datasets.Dataset):
        return found
    values = dataset.with_format(None)[found][:]
    if len(set(map(str, values))) == len(values):
        return found
    if given is not None:
        raise DataError(f"{name}: the column {given!r} does not identify the samples: some values occur twice.")
    return None


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
    if given.names != facts.vocabulary.names and set(given.names) == set(facts.vocabulary.names):
        number = next(i for i in range(len(given)) if given.names[i] != facts.vocabulary.names[i])
        raise DataError(
            f"{name}: the vocabulary has the data set's classes in another order: class {number} is "
            f"{given.names[number]!r}, but {facts.vocabulary.names[number]!r} in the data set. Reorder it, or say "
            "which class each label becomes (label_mapping)."
        )
    return given


def _ignored_values(facts: ClassFacts, ignore_index: int | Sequence[int] | None, num_classes: int) -> tuple[int, ...]:
    if ignore_index is not None:
        return as_values(ignore_index)
    if facts.ignore_values is not None:
        return facts.ignore_values
    return (255, 65535) if num_classes <= 255 else (65535,)


def _undecoded(dataset: Any, reader: SampleReader) -> Any:
    """Only the columns that are read, with pictures as files or bytes: damaged ones are then reported by sample."""
    if dataset.features is None:
        return dataset
    dataset = dataset.with_format(None).select_columns(reader.columns)
    for column in reader.columns:
        if isinstance(dataset.features[column], datasets.Image) and dataset.features[column].decode:
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


__all__ = ["SegmentationDataset", "SegmentationStream", "load_segmentation_dataset"]
