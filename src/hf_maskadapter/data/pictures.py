"""The pictures of any data set, whether annotated or not, each with a name of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from .folders import IMAGE_SUFFIXES, is_coco_panoptic, is_coco_stuff, is_picture_folder
from .samples import DataError, file_name_of, open_image
from .scenes import SceneDataset

if TYPE_CHECKING:
    import datasets

SCENES = "scenes"
_DATA_SUFFIXES = (".arrow", ".csv", ".jsonl", ".parquet", ".tar")


@dataclass(frozen=True)
class NamedPicture:
    """A picture that has not been read yet.

    Args:
        file_name: its name in the data set, with a picture's suffix; folders are separated by `/`.
        read: reads it; raises `DataError` if it is damaged.
    """

    file_name: str
    read: Callable[[], Image.Image]


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
    *,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    image_column: str | None = None,
    id_column: str | None = None,
    num_scenes: int = 300,
) -> PictureSource:
    """Open a data set for its pictures; annotations are not read and need not be there.

    Args:
        source: a folder of pictures (subfolders included), or whatever
            [`hf_maskadapter.data.load_segmentation_dataset`] opens, or `"scenes"`: drawn scenes of the miniature world.
        split, config_name, revision, streaming, image_column, id_column: as there.
        num_scenes: how many scenes to draw.

    Raises:
        DataError: if it cannot be found, is empty, or has no column with pictures.
    """
    if source == SCENES:
        return _scenes(SceneDataset(split or "test", num_scenes))
    if isinstance(source, (str, os.PathLike)) and _holds_pictures_alone(Path(source)):
        return _folder(Path(source))
    # Here, because a folder of pictures does not need Hugging Face Datasets.
    from .opening import IMAGE_COLUMNS, features_of, find_column, identifying_column, open_source, undecoded

    dataset, _, name = open_source(source, split, config_name, revision, streaming, None, "auto", None, None)
    features = features_of(dataset, name)
    image = find_column(features, name, image_column, IMAGE_COLUMNS, "the pictures (image_column)", is_picture=True)
    identity = identifying_column(dataset, features, id_column, name)
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
            yield NamedPicture(file_name, _reader(value, f"{name}, picture {file_name!r}"))

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
            yield NamedPicture(f"{scenes.split}-{scenes.seed}-{index}.png", reader(index))

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
    sources: list[NamedPicture] = []
    for path in paths:
        if path.is_dir():
            sources += _folder(path)
        elif path.exists():
            sources.append(NamedPicture(path.name, _reader(path, str(path))))
        else:
            raise DataError(f"There is no file {path}.")
    return PictureSource("pictures", len(sources), lambda: iter(sources))


def _folder(root: Path) -> PictureSource:
    paths = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )
    if not paths:
        raise DataError(f"There are no pictures in the folder {root}.")
    pictures = [NamedPicture(path.relative_to(root).as_posix(), _reader(path, str(path))) for path in paths]
    return PictureSource(str(root), len(pictures), lambda: iter(pictures))


__all__ = ["SCENES", "NamedPicture", "PictureSource", "open_pictures", "pictures_of_paths"]
