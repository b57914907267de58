"""Open a source: as a Hugging Face data set, whose columns are found, or for its pictures alone.

Hugging Face Datasets is imported where it is needed: a folder of pictures is opened without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..model.vocabulary import Vocabulary
from .folders import (
    IMAGE_SUFFIXES,
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
from .options import DatasetOptions, Layout, SourceOptions, with_named
from .samples import DataError, file_name_of, open_image
from .scenes import SceneDataset

if TYPE_CHECKING:
    import datasets

SCENES = "scenes"
IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
ID_COLUMNS = ("sample_id", "id", "image_id", "file_name")
_DATA_SUFFIXES = (".arrow", ".csv", ".jsonl", ".parquet", ".tar")
_FILE_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".tar": "webdataset"}


def open_source(
    source: Any, split: str | None, options: DatasetOptions
) -> tuple[datasets.Dataset | datasets.IterableDataset, ClassFacts, str]:
    """The data set, what it tells about its classes, and a name for messages.

    Args:
        source: as [`hf_maskadapter.data.load_segmentation_dataset`] takes it.
        split: the split to open.
        options: how it is read.

    Raises:
        DataError: if it cannot be found or opened.
    """
    import datasets

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
            _load_from_hub(str(source), split, options),
            _hub_facts(str(source), options.revision),
            name,
        )
    layout = _guess_layout(path) if options.layout == "auto" else options.layout
    if layout == "dataset":
        return _load_local(path, split, options), read_class_facts([path]), name
    if layout == "coco_panoptic":
        given = (options.image_folder, options.panoptic_folder)
        folders = (Path(folder) if folder is not None else None for folder in given)
        index = index_coco_panoptic(path, split, *folders)
    elif layout == "coco_stuff":
        index = index_coco_stuff(path, split)
    elif layout == "folder":
        index = index_folder(path, split)
    else:
        raise ValueError(f"layout={layout!r} is unknown.")
    dataset = index_to_dataset(index)
    return (dataset.to_iterable_dataset() if options.streaming else dataset), index.classes, name


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
    import datasets

    image = datasets.Image(decode=False)
    features = {"id": datasets.Value("string"), "image": image, "label_map": image, "panoptic_map": image}
    features["segments_info"] = datasets.List(
        {"id": datasets.Value("int64"), "category_id": datasets.Value("int64"), "iscrowd": datasets.Value("bool")}
    )
    present = datasets.Features({name: features[name] for name in index.columns})
    return datasets.Dataset.from_dict(index.columns, features=present)


def _load_local(path: Path, split: str | None, options: DatasetOptions) -> Any:
    import datasets

    if (path / "dataset_dict.json").is_file():
        dataset = _choose_split(datasets.load_from_disk(str(path)), split, str(path))
    elif (path / "state.json").is_file():
        dataset = datasets.load_from_disk(str(path))
    elif path.is_file():
        builder = _FILE_BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise DataError(f"{path} is not a data set file: expected {', '.join(_FILE_BUILDERS)}, or COCO's .json.")
        return _load_from_hub(builder, split, _unversioned(options), data_files=str(path))
    else:
        files = _prepared_files(path)
        if files and options.config_name is None:
            # Files that a card names are not part of the cache's key in `datasets`: two folders of one name, or one
            # that was prepared again, would give the data of the first.
            return _load_from_hub("parquet", split, _unversioned(options), data_files=files, name=str(path))
        return _load_from_hub(str(path), split, replace(options, revision=None))
    return dataset.to_iterable_dataset() if options.streaming else dataset


def _unversioned(options: DatasetOptions) -> DatasetOptions:
    return replace(options, config_name=None, revision=None)


def _prepared_files(path: Path) -> dict[str, list[str]]:
    """The Parquet files of a folder that `prepare_dataset` wrote, by split."""
    files: dict[str, list[str]] = {}
    if (path / "vocabulary.json").is_file():
        for file in sorted((path / "data").glob("*-*-of-*.parquet")):
            files.setdefault(file.name.rsplit("-", 3)[0], []).append(str(file))
    return files


def _load_from_hub(
    source: str, split: str | None, options: DatasetOptions, name: str | None = None, **keywords: Any
) -> Any:
    import datasets

    name = name or source
    try:
        loaded = datasets.load_dataset(
            source,
            options.config_name,
            split=split,
            revision=options.revision,
            streaming=options.streaming,
            cache_dir=options.cache_dir,
            **keywords,
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
    import datasets

    if isinstance(feature, (datasets.Value, datasets.ClassLabel)):
        return feature.dtype == "binary"
    return True


def identifying_column(dataset: Any, features: Mapping[str, Any], given: str | None, name: str) -> str | None:
    """The column whose values tell the samples apart, if there is one.

    Raises:
        DataError: if the user names one that is not there or has a value twice.
    """
    import datasets

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
    import datasets

    if dataset.features is None:
        return dataset
    dataset = dataset.with_format(None).select_columns(list(columns))
    for column in columns:
        if isinstance(dataset.features[column], datasets.Image) and dataset.features[column].decode:
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


@dataclass(frozen=True)
class NamedPicture:
    """A picture that has not been read yet.

    Args:
        file_name: its name in the data set, with a picture's suffix; folders are separated by `/`.
        read: reads it; raises `DataError` if it is damaged.
        place: its number in the source, counted from 0.
        encoded: what `read` decodes, a path, bytes, or a dict of both, where it is not drawn or decoded already.
    """

    file_name: str
    read: Callable[[], Image.Image]
    place: int = 0
    encoded: Any = None


@dataclass(frozen=True)
class PictureSource:
    """The pictures of a data set, in the same order with the same names in every run.

    Args:
        name: the data set's name, for messages.
        size: how many there are; `None` if that is known only at the end.
        iterate: begins anew with the first one at every call.
    """

    name: str
    size: int | None
    iterate: Callable[[], Iterator[NamedPicture]]

    def __iter__(self) -> Iterator[NamedPicture]:
        return self.iterate()


def open_pictures(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.IterableDataset,
    options: SourceOptions | None = None,
    *,
    split: str | None = None,
    num_scenes: int = 300,
    **named: Any,
) -> PictureSource:
    """Open a data set for its pictures; annotations are not read and need not be there.

    Args:
        source: a folder of pictures (subfolders included), or whatever
            [`hf_maskadapter.data.load_segmentation_dataset`] opens, or `"scenes"`: drawn scenes of the miniature world.
        options: where in it the pictures are.
        split: the split to open; may be left out if there is only one.
        num_scenes: how many scenes to draw.
        **named: fields of `options` by their names.

    Raises:
        DataError: if it cannot be found, is empty, or has no column with pictures.
    """
    options = with_named(SourceOptions, options, named)
    if source == SCENES:
        return _scenes(SceneDataset(split or "test", num_scenes))
    if isinstance(source, (str, os.PathLike)) and _holds_pictures_alone(Path(source)):
        return _folder(Path(source))
    dataset, _, name = open_source(source, split, DatasetOptions(**vars(options)))
    features = features_of(dataset, name)
    image = find_column(
        features, name, options.image_column, IMAGE_COLUMNS, "the pictures (image_column)", is_picture=True
    )
    identity = identifying_column(dataset, features, options.id_column, name)
    assert image is not None
    rows = undecoded(dataset, [image] if identity is None else [image, identity])
    size = len(dataset) if hasattr(dataset, "__len__") else None

    def iterate() -> Iterator[NamedPicture]:
        seen: set[str] = set()
        for number, row in enumerate(rows):
            value = row[image]
            key = Path(file_name_of(value)).name if identity is None else str(row[identity])
            file_name = _as_file_name(key or f"{number:06d}")
            if identity is None and file_name in seen:
                file_name = f"{number:06d}-{file_name}"
            seen.add(file_name)
            yield NamedPicture(file_name, _reader(value, f"{name}, picture {file_name!r}"), number, value)

    return PictureSource(name, size, iterate)


def _reader(value: Any, where: str) -> Callable[[], Image.Image]:
    return lambda: open_image(value, where, "picture")


def _as_file_name(key: str) -> str:
    """A sample's name as a relative path with a picture's suffix."""
    parts = [part for part in key.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    name = "/".join(parts) or "picture"
    return name if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES else f"{name}.png"


def _scenes(scenes: SceneDataset) -> PictureSource:
    def reader(index: int) -> Callable[[], Image.Image]:
        return lambda: scenes[index]["image"]

    def iterate() -> Iterator[NamedPicture]:
        for index in range(len(scenes)):
            yield NamedPicture(f"{scenes.split}-{scenes.seed}-{index}.png", reader(index), index)

    return PictureSource(SCENES, len(scenes), iterate)


def _holds_pictures_alone(root: Path) -> bool:
    """Whether it is a folder of pictures, with neither annotations nor a data set's files."""
    if not root.is_dir() or is_picture_folder(root) or is_coco_panoptic(root) or is_coco_stuff(root):
        return False
    suffixes = {Path(name).suffix.lower() for _, _, names in os.walk(root) for name in names}
    return bool(suffixes & set(IMAGE_SUFFIXES)) and not suffixes & set(_DATA_SUFFIXES)


def pictures_of_paths(paths: Sequence[Path]) -> PictureSource:
    """Picture files, called by their names, and the pictures of folders, called by their paths in there.

    Raises:
        DataError: if a path is not there, or a folder has no pictures.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            named += _pictures_in(path)
        elif path.exists():
            named.append((path.name, path))
        else:
            raise DataError(f"There is no file {path}.")
    return _files("pictures", named)


def _folder(root: Path) -> PictureSource:
    return _files(str(root), _pictures_in(root))


def _files(name: str, named: list[tuple[str, Path]]) -> PictureSource:
    def iterate() -> Iterator[NamedPicture]:
        for place, (file_name, path) in enumerate(named):
            yield NamedPicture(file_name, _reader(path, str(path)), place, str(path))

    return PictureSource(name, len(named), iterate)


def _pictures_in(root: Path) -> list[tuple[str, Path]]:
    paths = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )
    if not paths:
        raise DataError(f"There are no pictures in the folder {root}.")
    return [(path.relative_to(root).as_posix(), path) for path in paths]


__all__ = [
    "ID_COLUMNS",
    "IMAGE_COLUMNS",
    "SCENES",
    "Layout",
    "NamedPicture",
    "PictureSource",
    "features_of",
    "find_column",
    "identifying_column",
    "index_to_dataset",
    "open_pictures",
    "open_source",
    "pictures_of_paths",
    "undecoded",
]
