"""Open a source as a Hugging Face data set, and find its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets

from ..model.vocabulary import Vocabulary
from .folders import (
    ClassFacts,
    FileIndex,
    index_coco_panoptic,
    index_coco_stuff,
    index_folder,
    is_coco_panoptic,
    is_coco_stuff,
    is_picture_folder,
    read_class_facts,
)
from .samples import DataError

Layout = Literal["auto", "dataset", "folder", "coco_panoptic", "coco_stuff"]

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
ID_COLUMNS = ("sample_id", "id", "image_id", "file_name")
_FILE_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".tar": "webdataset"}


def open_source(
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
    """The data set, what it tells about its classes, and a name for messages.

    Arguments are those of [`hf_maskadapter.data.load_segmentation_dataset`].

    Raises:
        DataError: if it cannot be found or opened.
    """
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
    except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
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


def find_column(
    features: Mapping[str, Any],
    name: str,
    given: str | None,
    usual: Sequence[str],
    what: str,
    *,
    needed: bool = True,
    is_picture: bool = False,
) -> str | None:
    """The column that the user names, or the first of the usual ones that is there.

    Args:
        features: the columns.
        name: the data set's name, for messages.
        given: the user's choice.
        usual: names to try without one.
        what: what the column holds, for messages.
        needed: whether it is an error if there is none.
        is_picture: whether columns that cannot hold pictures are passed over.

    Raises:
        DataError: if the user's choice is not there, or a needed column is not found.
    """
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


def features_of(dataset: datasets.Dataset | datasets.IterableDataset, name: str) -> Mapping[str, Any]:
    """The columns of a data set; those of its first row where it does not tell.

    Raises:
        DataError: if it is empty.
    """
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


def identifying_column(dataset: Any, features: Mapping[str, Any], given: str | None, name: str) -> str | None:
    """The column whose values tell the samples apart, if there is one.

    Raises:
        DataError: if the user names one that is not there or has a value twice.
    """
    found = find_column(features, name, given, ID_COLUMNS, "the samples' names (id_column)", needed=False)
    if found is None or not isinstance(dataset, datasets.Dataset):
        return found
    values = dataset.with_format(None)[found][:]
    if len(set(map(str, values))) == len(values):
        return found
    if given is not None:
        raise DataError(f"{name}: the column {given!r} does not identify the samples: some values occur twice.")
    return None


def undecoded(dataset: Any, columns: Sequence[str]) -> Any:
    """Some columns only, with pictures as files or bytes: damaged ones are then reported by sample."""
    if dataset.features is None:
        return dataset
    dataset = dataset.with_format(None).select_columns(list(columns))
    for column in columns:
        if isinstance(dataset.features[column], datasets.Image) and dataset.features[column].decode:
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


__all__ = [
    "ID_COLUMNS",
    "IMAGE_COLUMNS",
    "Layout",
    "features_of",
    "find_column",
    "identifying_column",
    "index_to_dataset",
    "open_source",
    "undecoded",
]
