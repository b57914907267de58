"""Data sets that are files in folders: pictures with label maps, COCO panoptic and COCO-Stuff as downloaded.

Each `index_*` function only lists files; nothing is decoded until a sample is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json
from ..model.vocabulary import Vocabulary
from .samples import DataError, dataset_id_mapping

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
IMAGE_FOLDERS = ("images", "image", "imgs", "pictures")
LABEL_FOLDERS = ("labels", "label_maps", "annotations", "masks")
CLASS_FILES = ("vocabulary.json", "classes.json", "classes.txt")
_SPLIT_NAMES = (("train", "training"), ("validation", "val", "valid"), ("test", "testing"))


@dataclass(frozen=True)
class FileIndex:
    """The files of a data set, as columns, and what is known of its classes.

    Args:
        columns: `id`, `image` (path) and `label_map` (path), or `panoptic_map` (path) and `segments_info`, all of one
            length.
        classes: what is known of the classes.
    """

    columns: dict[str, list[Any]]
    classes: ClassFacts


@dataclass(frozen=True)
class ClassFacts:
    """What files tell about the classes of a data set.

    Args:
        vocabulary: the classes, if they are known.
        label_mapping: class index of each value in the files; `None`: the values are class indices.
        ignore_values: values that mean "ignored"; `None`: not told.
    """

    vocabulary: Vocabulary | None = None
    label_mapping: dict[int, int] | None = None
    ignore_values: tuple[int, ...] | None = None


def split_aliases(split: str) -> tuple[str, ...]:
    """The names that a split may go by in folders: the one given first, then its usual other ones."""
    group = next((names for names in _SPLIT_NAMES if split in names), (split,))
    return (split, *(name for name in group if name != split))


def read_class_facts(folders: Iterable[Path]) -> ClassFacts:
    """Look for a file that tells the classes, in the first of some folders that has one.

    `vocabulary.json` (written by `prepare_dataset`): class index = position. `classes.json`: what
    `Vocabulary.from_dict` takes, for example `{"id2label": {"0": "sky", ...}, "ignore_index": 255}`; ids are the values
    in the label maps. `classes.txt`: a class a line, class index = position.

    Raises:
        DataError: if a file cannot be read, or a `vocabulary.json` gives ids that look like the values of the maps.
    """
    for folder in folders:
        for name in CLASS_FILES:
            path = folder / name
            if not path.is_file():
                continue
            vocabulary = Vocabulary.from_file(path)
            if name == "classes.txt":
                return ClassFacts(vocabulary)
            content = read_json(path, DataError)
            if name == "vocabulary.json":
                if isinstance(content, dict) and "classes" not in content and set(vocabulary.dataset_ids) != {None}:
                    raise DataError(
                        f"{path} gives its classes ids, but the values of label maps beside a {name} are places in its "
                        "list, counted from 0. If the ids are the values, name the file classes.json."
                    )
                return ClassFacts(vocabulary)
            ignored = content.get("ignore_index") if isinstance(content, dict) else None
            try:
                ignore_values = None if ignored is None else as_values(ignored)
            except (TypeError, ValueError):
                raise DataError(
                    f"{path}: ignore_index must be a whole number or a list of them, got {ignored!r}."
                ) from None
            known_ids = None not in vocabulary.dataset_ids
            return ClassFacts(vocabulary, dataset_id_mapping(vocabulary) if known_ids else None, ignore_values)
    return ClassFacts()


def as_values(value: int | str | Sequence[int]) -> tuple[int, ...]:
    """One or several label values as a tuple."""
    return (int(value),) if isinstance(value, int | str) else tuple(int(entry) for entry in value)


def index_folder(root: Path, split: str | None = None) -> FileIndex:
    """Pictures and label maps in folders that match by name.

    Understood are `ROOT/images` + `ROOT/labels` (or `label_maps`, `annotations`, `masks`), the same inside a folder for
    each split (`ROOT/train/images`), and split folders inside (`ROOT/images/train`); subfolders are searched. Classes
    may be told by a file (see [`read_class_facts`]) in `ROOT` or in the split's folder.

    Raises:
        DataError: if the folders are not there or empty, a split must be chosen, or a picture lacks its label map or
            the other way round.
    """
    layouts = {name: folders for name, folders in _folder_layouts(root).items() if folders}
    if not layouts:
        raise DataError(
            f"{root}: found neither {_names(IMAGE_FOLDERS)} beside {_names(LABEL_FOLDERS)}, nor the same in folders "
            "for each split."
        )
    chosen = _choose_split(root, layouts, split)
    image_folder, label_folder = layouts[chosen]
    return FileIndex(pair_files(image_folder, label_folder), read_class_facts((root, image_folder.parent)))


def index_coco_panoptic(
    source: Path, split: str | None = None, image_folder: Path | None = None, panoptic_folder: Path | None = None
) -> FileIndex:
    """COCO panoptic as downloaded, or any data set in its form.

    Args:
        source: COCO's root folder (`annotations/panoptic_train2017.json`, the PNGs in `annotations/panoptic_train2017/`
            or `panoptic_train2017/`, pictures in `train2017/`), or such a JSON file.
        split: "train2017" or short "train", for a root folder.
        image_folder: where the pictures are, if not there.
        panoptic_folder: where the panoptic PNGs are, if not there; for a JSON file the default is the folder beside it
            with its name.

    Raises:
        DataError: if a file or folder is not there, or the JSON file is not a panoptic one.
    """
    if source.is_file():
        annotation_file, name = source, None
        image_candidates: list[Path] = []
        panoptic_candidates = [source.with_suffix("")]
    else:
        annotation_file, name = _coco_annotation_file(source, split)
        image_candidates = [source / name, source / "images" / name]
        panoptic_candidates = [annotation_file.with_suffix(""), source / f"panoptic_{name}"]
    images = _existing_folder(image_folder, image_candidates, "pictures", "image_folder", annotation_file)
    maps = _existing_folder(panoptic_folder, panoptic_candidates, "panoptic PNGs", "panoptic_folder", annotation_file)

    content = read_json(annotation_file, DataError)
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = content["annotations"]
        categories = content["categories"]
        columns: dict[str, list[Any]] = {
            "id": [str(annotation["image_id"]) for annotation in annotations],
            "image": [str(images / names[annotation["image_id"]]) for annotation in annotations],
            "panoptic_map": [str(maps / annotation["file_name"]) for annotation in annotations],
            "segments_info": [
                [
                    {
                        "id": segment["id"],
                        "category_id": segment["category_id"],
                        "iscrowd": bool(segment.get("iscrowd", False)),
                    }
                    for segment in annotation["segments_info"]
                ]
                for annotation in annotations
            ],
        }
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{annotation_file} is not a panoptic annotation file of COCO's form ({type(error).__name__}: {error}). It "
            "needs images (id, file_name), annotations (image_id, file_name, segments_info) and categories."
        ) from None
    vocabulary = Vocabulary.from_list(categories)
    return FileIndex(columns, ClassFacts(vocabulary, dataset_id_mapping(vocabulary), ()))


def index_coco_stuff(root: Path, split: str | None = None) -> FileIndex:
    """COCO-Stuff 164k as downloaded: pictures in `train2017/`, label maps in `stuffthingmaps/train2017/`.

    Label maps hold dataset id - 1, and 255 where ignored.

    Raises:
        DataError: if the folders are not there, or a picture lacks its label map.
    """
    maps = root / "stuffthingmaps"
    present = sorted(path.name for path in maps.iterdir() if path.is_dir()) if maps.is_dir() else []
    name = _choose_coco_split(present, split)
    if name is None:
        raise DataError(
            f"{root}: no label maps of the split {split!r} in stuffthingmaps/ (found: {_names(present) or 'nothing'})."
        )
    image_folder = _existing_folder(None, [root / name, root / "images" / name], "pictures", "", maps / name)
    vocabulary = Vocabulary.from_label_set("coco_stuff_171")
    return FileIndex(
        pair_files(image_folder, maps / name), ClassFacts(vocabulary, dataset_id_mapping(vocabulary, offset=-1), (255,))
    )


def pair_files(
    image_folder: Path,
    label_folder: Path,
    image_suffix: str = "",
    label_suffix: str = "",
) -> dict[str, list[Any]]:
    """Columns `id`, `image` and `label_map` of the files in two folders (subfolders included) that match by name.

    Args:
        image_folder: the pictures.
        label_folder: the label maps.
        image_suffix: ending of the pictures' names before the file type; other pictures are passed over.
        label_suffix: the same of the label maps.

    Raises:
        DataError: if a folder is not there or holds no such file, or a file has no partner.
    """
    images = _files_by_stem(image_folder, IMAGE_SUFFIXES, image_suffix, "pictures")
    labels = _files_by_stem(label_folder, LABEL_SUFFIXES, label_suffix, "label maps")
    _check_pairs(images, labels, image_folder, label_folder)
    stems = sorted(images)
    return {
        "id": stems,
        "image": [str(images[stem]) for stem in stems],
        "label_map": [str(labels[stem]) for stem in stems],
    }


def is_coco_panoptic(root: Path) -> bool:
    """Whether a folder looks like COCO's root with panoptic annotations."""
    return any((root / "annotations").glob("panoptic_*.json"))


def is_coco_stuff(root: Path) -> bool:
    """Whether a folder looks like COCO's root with COCO-Stuff's label maps."""
    return (root / "stuffthingmaps").is_dir()


def is_picture_folder(root: Path) -> bool:
    """Whether a folder holds pictures beside label maps, for [`index_folder`]."""
    return any(_folder_layouts(root).values())


def _folder_layouts(root: Path) -> dict[str | None, tuple[Path, Path] | None]:
    """Image and label folder of each split; `None`: no splits."""
    layouts: dict[str | None, tuple[Path, Path] | None] = {}
    for folder in _subfolders(root):
        if folder.name not in IMAGE_FOLDERS + LABEL_FOLDERS:
            layouts[folder.name] = _pair(folder)
    whole = _pair(root)
    if whole is not None:
        in_both = {f.name for f in _subfolders(whole[0])} & {f.name for f in _subfolders(whole[1])}
        splits = in_both & {name for group in _SPLIT_NAMES for name in group}
        for name in sorted(splits):
            layouts[name] = (whole[0] / name, whole[1] / name)
        if not splits:
            layouts[None] = whole
    return layouts


def _pair(folder: Path) -> tuple[Path, Path] | None:
    image_folder = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    label_folder = next((folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()), None)
    return (image_folder, label_folder) if image_folder and label_folder else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _choose_split(root: Path, layouts: dict[str | None, Any], split: str | None) -> str | None:
    if split is None:
        if len(layouts) == 1:
            return next(iter(layouts))
        raise DataError(f"{root} has the splits {_names(filter(None, layouts))}: choose one (split=...).")
    for name in split_aliases(split):
        if name in layouts:
            return name
    if split == "train" and set(layouts) == {None}:  # what `datasets` calls all there is, where there are no splits
        return None
    found = _names(filter(None, layouts)) or "no splits, only pictures and label maps (leave split out)"
    raise DataError(f"{root}: there is no split {split!r}; found: {found}.")


def _files_by_stem(folder: Path, suffixes: tuple[str, ...], ending: str, what: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of {what}.")
    files: dict[str, Path] = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or name.startswith("."):
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
            if stem in files:
                raise DataError(f"{folder}: {files[stem].name} and {name} have the same name but for the suffix.")
            files[stem] = path
    if not files:
        raise DataError(f"{folder} holds no {what} ({_names(f'*{ending}{suffix}' for suffix in suffixes)}).")
    return files


def _check_pairs(images: dict[str, Path], labels: dict[str, Path], image_folder: Path, label_folder: Path) -> None:
    without_label = sorted(images.keys() - labels.keys())
    without_image = sorted(labels.keys() - images.keys())
    if without_label:
        raise DataError(
            f"{len(without_label)} of {len(images)} pictures in {image_folder} have no label map of the same name in "
            f"{label_folder}, for example {without_label[0]!r}."
        )
    if without_image:
        raise DataError(
            f"{len(without_image)} of {len(labels)} label maps in {label_folder} have no picture of the same name in "
            f"{image_folder}, for example {without_image[0]!r}."
        )


def _coco_annotation_file(root: Path, split: str | None) -> tuple[Path, str]:
    prefix = "panoptic_"
    files = {path.stem.removeprefix(prefix): path for path in sorted((root / "annotations").glob(f"{prefix}*.json"))}
    name = _choose_coco_split(list(files), split)
    if name is None:
        wanted = f"for the split {split!r}" if split else "for one split (choose it: split=...)"
        raise DataError(f"{root}/annotations has no panoptic_*.json {wanted}; found: {_names(files) or 'none'}.")
    return files[name], name


def _choose_coco_split(present: Sequence[str], split: str | None) -> str | None:
    if split is None:
        return present[0] if len(present) == 1 else None
    candidates = [candidate for name in split_aliases(split) for candidate in (name, f"{name}2017")]
    return next((candidate for candidate in candidates if candidate in present), None)


def _existing_folder(
    given: Path | None, candidates: Sequence[Path], what: str, argument: str, belongs_to: Path
) -> Path:
    tried = [given] if given is not None else list(candidates)
    for folder in tried:
        if folder.is_dir():
            return folder
    looked = f"looked for {_names(tried)}" if tried else "not told"
    hint = f" Say where they are ({argument}=...)." if argument and given is None else ""
    raise DataError(f"{belongs_to}: the folder with its {what} is not there ({looked}).{hint}")


def _names(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


__all__ = [
    "ClassFacts",
    "FileIndex",
    "index_coco_panoptic",
    "index_coco_stuff",
    "index_folder",
    "pair_files",
    "read_class_facts",
]
