"""The field's benchmarks as they are downloaded: where their files lie, and how their annotations are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import read_json
from ..model.label_maps import checked_ids, segment_ids
from ..model.masks import decode_run_lengths
from ..model.vocabulary import Vocabulary, load_label_set
from .folders import index_coco_panoptic, index_coco_stuff, pair_files
from .samples import IGNORE_INDEX, DataError, dataset_id_mapping

_CITYSCAPES_INSTANCE = 1000
_CITYSCAPES_LABEL_IDS = (*range(34), 255)  # all of Cityscapes' labelIds, most of which are not evaluated; -1 as 255
_SHORT_SPLITS = {"train": "train", "validation": "val"}


@dataclass(frozen=True)
class PanopticAnnotation:
    """Truth of one picture: segment numbers (height, width), 0 where there is none, and the segments.

    `segments` have `id`, `category_id` (class index) and `iscrowd`.
    """

    ids: np.ndarray
    segments: list[dict[str, Any]]


@dataclass(frozen=True)
class RawRecord:
    """One sample of a raw download.

    Args:
        id: the sample's name.
        image: file of the picture.
        read: reads the annotation: class index of each pixel, (height, width) integers with -1 where ignored, or a
            [`PanopticAnnotation`].
    """

    id: str
    image: Path
    read: Callable[[], np.ndarray | PanopticAnnotation]


@dataclass(frozen=True)
class RawLayout:
    """How a benchmark is laid out on disk as downloaded.

    Args:
        label_set: the built-in label set that names its classes.
        panoptic: whether annotations are panoptic maps or label maps.
        files: what to download and where it lies under the source folder.
        records: lists the samples of a split ("train" or "validation").
    """

    label_set: str
    panoptic: bool
    files: str
    records: Callable[[Path, str], list[RawRecord]]

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""
        return Vocabulary.from_label_set(self.label_set)


@lru_cache(maxsize=8)
def _lookup(label_set: str, offset: int = 0) -> np.ndarray:
    """Class index of each number that a benchmark's files use; -1 for all others."""
    mapping = dataset_id_mapping(Vocabulary.from_label_set(label_set), offset)
    return _table(mapping, 1 << 16)


def _table(mapping: Mapping[int, int], size: int) -> np.ndarray:
    table = np.full(size, IGNORE_INDEX, dtype=np.int32)
    table[list(mapping)] = list(mapping.values())
    return table


def _open(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image)
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error


def _read_labels(path: Path, label_set: str, ignored: Sequence[int], offset: int = 0) -> np.ndarray:
    labels = _open(path)
    if labels.ndim != 2:
        raise DataError(f"{path}: a label map must have one channel, this picture has shape {labels.shape}.")
    return _classes(labels, path, label_set, ignored, offset)


def _classes(labels: np.ndarray, path: Path, label_set: str, ignored: Sequence[int], offset: int) -> np.ndarray:
    classes = _lookup(label_set, offset)[labels]
    unlisted = labels[(classes == IGNORE_INDEX) & ~np.isin(labels, ignored)]
    if unlisted.size:
        raise DataError(
            f"{path}: the value {unlisted[0]} is neither a class of {label_set} nor ignored there; is this the "
            "annotation of another data set?"
        )
    return classes


def _label_records(
    columns: Mapping[str, list[Any]], label_set: str, ignored: Sequence[int], offset: int
) -> list[RawRecord]:
    return [
        RawRecord(name, Path(image), partial(_read_labels, Path(labels), label_set, ignored, offset))
        for name, image, labels in zip(columns["id"], columns["image"], columns["label_map"], strict=True)
    ]


def _first_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise DataError(f"{root}: the folder with {what} is not there; looked for {', '.join(candidates)}.")


# --- COCO -------------------------------------------------------------------------------------------------------------


def _coco_panoptic_133(root: Path, split: str) -> list[RawRecord]:
    index = index_coco_panoptic(root, split)
    columns = index.columns
    return [
        RawRecord(name, Path(image), partial(_read_coco_panoptic, Path(ids), segments))
        for name, image, ids, segments in zip(
            columns["id"], columns["image"], columns["panoptic_map"], columns["segments_info"], strict=True
        )
    ]


def _read_segment_ids(path: Path, listed: list[int]) -> np.ndarray:
    try:
        checked_ids(listed, lowest=1)
        with Image.open(path) as image:
            return segment_ids(image, listed).astype(np.int32)
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the panoptic map {error}") from error


def _read_coco_panoptic(path: Path, segments: list[dict[str, Any]]) -> PanopticAnnotation:
    lookup = _lookup("coco_panoptic_133")
    classes = [int(lookup[segment["category_id"]]) for segment in segments]
    unknown = [s["category_id"] for s, index in zip(segments, classes, strict=True) if index == IGNORE_INDEX]
    if unknown:
        raise DataError(f"{path}: category_id {unknown[0]} is not one of COCO's panoptic categories.")
    return PanopticAnnotation(
        _read_segment_ids(path, [segment["id"] for segment in segments]),
        [{**segment, "category_id": index} for segment, index in zip(segments, classes, strict=True)],
    )


def _coco_stuff_171(root: Path, split: str) -> list[RawRecord]:
    return _label_records(index_coco_stuff(root, split).columns, "coco_stuff_171", (255,), -1)


# --- ADE20K -----------------------------------------------------------------------------------------------------------

_ADE20K_SPLITS = {"train": "training", "validation": "validation"}


def _ade20k_150(root: Path, split: str) -> list[RawRecord]:
    name = _ADE20K_SPLITS[split]
    return _label_records(pair_files(root / "images" / name, root / "annotations" / name), "ade20k_150", (0,), 1)


def _ade20k_150_panoptic(root: Path, split: str) -> list[RawRecord]:
    name = _ADE20K_SPLITS[split]
    columns = pair_files(root / "images" / name, root / "annotations" / name)
    instances = pair_files(root / "images" / name, root / "annotations_instance" / name)["label_map"]
    return [
        RawRecord(stem, Path(image), partial(_read_ade20k_panoptic, Path(labels), Path(instance_map)))
        for stem, image, labels, instance_map in zip(
            columns["id"], columns["image"], columns["label_map"], instances, strict=True
        )
    ]


@lru_cache(maxsize=1)
def _ade20k_instance_classes() -> np.ndarray:
    """Class index of each id in the red channel of ADE20K's instance maps."""
    rows = load_label_set("ade20k_150")["instance_ids"]
    return _table({instance_id: pixel_value - 1 for instance_id, pixel_value, _ in rows}, 256)


def _read_ade20k_panoptic(label_path: Path, instance_path: Path) -> PanopticAnnotation:
    """Stuff from the label map, then things from the instance map over it.

    The instance map's red channel is the class (in a numbering of its own), its green one the number in the
    picture. Pixels labelled as a thing that belong to no instance stay without a segment, as in the panoptic benchmark.
    """
    labels = _read_labels(label_path, "ade20k_150", (0,), 1)
    instances = _open(instance_path)
    if instances.ndim != 3 or instances.shape[:2] != labels.shape:
        raise DataError(f"{instance_path} does not fit {label_path}: shapes {instances.shape} and {labels.shape}.")
    things = Vocabulary.from_label_set("ade20k_150").thing_ids
    ids = np.zeros(labels.shape, dtype=np.int32)
    classes: list[int] = []

    for index in np.unique(labels[labels != IGNORE_INDEX]):
        if index not in things:
            classes.append(int(index))
            ids[labels == index] = len(classes)
    for number in np.unique(instances[..., 1]):
        if number == 0:
            continue
        region = instances[..., 1] == number
        found = np.unique(_ade20k_instance_classes()[instances[..., 0][region]])
        if len(found) != 1 or found[0] == IGNORE_INDEX:
            raise DataError(f"{instance_path}: instance {number} has no class, or several.")
        classes.append(int(found[0]))
        ids[region] = len(classes)
    present = set(np.unique(ids).tolist())
    segments = [
        {"id": number, "category_id": index, "iscrowd": False}
        for number, index in enumerate(classes, start=1)
        if number in present
    ]
    return PanopticAnnotation(ids, segments)


def _ade20k_847(root: Path, split: str) -> list[RawRecord]:
    name = _ADE20K_SPLITS[split]
    folder = _first_folder(root, [f"images/ADE/{name}", f"images/{name}"], "pictures")
    images = sorted(path for path in folder.rglob("*.jpg") if path.is_file())
    if not images:
        raise DataError(f"{folder} holds no pictures (*.jpg).")
    records = []
    for image in images:
        labels = image.with_name(f"{image.stem}_seg.png")
        if not labels.is_file():
            raise DataError(f"{image} has no annotation {labels.name} beside it.")
        records.append(RawRecord(image.stem, image, partial(_read_ade20k_full, labels)))
    return records


def _read_ade20k_full(path: Path) -> np.ndarray:
    colors = _open(path)
    if colors.ndim != 3:
        raise DataError(f"{path}: an annotation of the full ADE20K has three channels, this one shape {colors.shape}.")
    numbers = colors[..., 0].astype(np.int32) // 10 * 256 + colors[..., 1]
    return _lookup("ade20k_847")[numbers]


# --- Pascal -----------------------------------------------------------------------------------------------------------


def _pascal_voc(label_set: str, root: Path, split: str) -> list[RawRecord]:
    folder = _first_folder(root, ["VOCdevkit/VOC2012", "VOC2012", "."], "VOC 2012")
    return [
        RawRecord(
            name,
            _existing(folder / "JPEGImages" / f"{name}.jpg"),
            partial(_read_labels, _existing(folder / "SegmentationClass" / f"{name}.png"), label_set, (0, 255)),
        )
        for name in _names_in(folder / "ImageSets" / "Segmentation" / f"{_SHORT_SPLITS[split]}.txt")
    ]


def _pascal_context_59(root: Path, split: str) -> list[RawRecord]:
    folder = _first_folder(root, ["VOCdevkit/VOC2010", "VOC2010", "."], "VOC 2010")
    path = folder / "trainval_merged.json"
    content = read_json(path, DataError)
    regions: dict[Any, list[tuple[int, Any]]] = {}
    for annotation in _entries(content, "annos_segmentation", ("image_id", "category_id", "segmentation"), path):
        regions.setdefault(annotation["image_id"], []).append((annotation["category_id"], annotation["segmentation"]))
    return [
        RawRecord(
            Path(image["file_name"]).stem,
            _existing(folder / "JPEGImages" / image["file_name"]),
            partial(_paint_context, (image["height"], image["width"]), regions.get(image["image_id"], []), path),
        )
        for image in _entries(content, "images", ("image_id", "file_name", "phase", "height", "width"), path)
        if image["phase"] == _SHORT_SPLITS[split]
    ]


def _entries(content: Any, key: str, fields: Sequence[str], path: Path) -> list[Mapping[str, Any]]:
    """A list of the Detail API's JSON file, checked."""
    entries = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(set(fields) <= set(entry) for entry in entries):
        raise DataError(f"{path} is not the Detail API's annotation file: it needs {key!r}, with {', '.join(fields)}.")
    return entries


def _paint_context(size: tuple[int, int], regions: list[tuple[int, Any]], path: Path) -> np.ndarray:
    """Label map of a picture's regions; where they overlap, the later one counts."""
    class_of = {number: index for index, number in enumerate(load_label_set("pascal_context_59")["raw_ids"])}
    labels = np.full(size, IGNORE_INDEX, dtype=np.int32)
    for category, segmentation in regions:
        if category not in class_of:
            raise DataError(f"{path}: category {category} is not one of the 59 classes.")
        labels[decode_run_lengths(segmentation)] = class_of[category]
    return labels


def _pascal_context_459(root: Path, split: str) -> list[RawRecord]:
    folder = _first_folder(root, ["VOCdevkit/VOC2010", "VOC2010", "."], "VOC 2010")
    merged = folder / "trainval_merged.json"
    if merged.is_file():  # the benchmark's split, which lacks a few pictures of VOC's
        names = [
            Path(image["file_name"]).stem
            for image in _entries(read_json(merged, DataError), "images", ("file_name", "phase"), merged)
            if image["phase"] == _SHORT_SPLITS[split]
        ]
    else:
        names = _names_in(folder / "ImageSets" / "Main" / f"{_SHORT_SPLITS[split]}.txt")
    return [
        RawRecord(
            name,
            _existing(folder / "JPEGImages" / f"{name}.jpg"),
            partial(_read_context_mat, _existing(folder / "trainval" / f"{name}.mat")),
        )
        for name in names
    ]


def _read_context_mat(path: Path) -> np.ndarray:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("Reading Pascal Context's .mat files needs SciPy: pip install scipy.") from error
    try:
        labels = loadmat(path)["LabelMap"]
    except Exception as error:  # SciPy raises many kinds for damaged files
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error
    return _classes(labels.astype(np.int64), path, "pascal_context_459", (0,), 1)


def _names_in(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(f"{path}: the list of the split's pictures cannot be read ({error.strerror}).") from error
    return names


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    return path


# --- Cityscapes -------------------------------------------------------------------------------------------------------


def _cityscapes_files(root: Path, split: str, ending: str) -> dict[str, list[Any]]:
    name = _SHORT_SPLITS[split]
    return pair_files(root / "leftImg8bit" / name, root / "gtFine" / name, "_leftImg8bit", f"_gtFine_{ending}")


def _cityscapes_19(root: Path, split: str) -> list[RawRecord]:
    return _label_records(_cityscapes_files(root, split, "labelIds"), "cityscapes_19", _CITYSCAPES_LABEL_IDS, 0)


def _cityscapes_19_panoptic(root: Path, split: str) -> list[RawRecord]:
    columns = _cityscapes_files(root, split, "instanceIds")
    return [
        RawRecord(name, Path(image), partial(_read_cityscapes_instances, Path(instances)))
        for name, image, instances in zip(columns["id"], columns["image"], columns["label_map"], strict=True)
    ]


def _read_cityscapes_instances(path: Path) -> PanopticAnnotation:
    """Numbers are labelId * 1000 + instance, or the labelId alone for stuff and for groups of things (crowd)."""
    ids = _open(path).astype(np.int32)
    vocabulary = Vocabulary.from_label_set("cityscapes_19")
    lookup = _lookup("cityscapes_19")
    segments = []
    for number in np.unique(ids).tolist():
        is_instance = number >= _CITYSCAPES_INSTANCE
        index = int(lookup[number // _CITYSCAPES_INSTANCE if is_instance else number])
        if index == IGNORE_INDEX:
            ids[ids == number] = 0
            continue
        crowd = not is_instance and vocabulary.classes[index].is_thing is True
        segments.append({"id": number, "category_id": index, "iscrowd": crowd})
    return PanopticAnnotation(ids, segments)


# --- All of them ------------------------------------------------------------------------------------------------------

RAW_LAYOUTS: dict[str, RawLayout] = {
    "coco_panoptic_133": RawLayout(
        "coco_panoptic_133",
        True,
        "train2017.zip, val2017.zip and panoptic_annotations_trainval2017.zip (and the two archives inside it): "
        "{train,val}2017/*.jpg, annotations/panoptic_{train,val}2017.json, annotations/panoptic_{train,val}2017/*.png",
        _coco_panoptic_133,
    ),
    "coco_stuff_171": RawLayout(
        "coco_stuff_171",
        False,
        "train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip: {train,val}2017/*.jpg, "
        "stuffthingmaps/{train,val}2017/*.png",
        _coco_stuff_171,
    ),
    "ade20k_150": RawLayout(
        "ade20k_150",
        False,
        "ADEChallengeData2016.zip: images/{training,validation}/*.jpg, annotations/{training,validation}/*.png",
        _ade20k_150,
    ),
    "ade20k_150_panoptic": RawLayout(
        "ade20k_150",
        True,
        "ADEChallengeData2016.zip and annotations_instance.tar: images/, annotations/ and annotations_instance/, each "
        "with training/ and validation/",
        _ade20k_150_panoptic,
    ),
    "ade20k_847": RawLayout(
        "ade20k_847",
        False,
        "the full ADE20K (ADE20K_2021_17_01): images/ADE/{training,validation}/**/*.jpg with *_seg.png beside them",
        _ade20k_847,
    ),
    "pascal_voc_20": RawLayout(
        "pascal_voc_20",
        False,
        "VOCtrainval_11-May-2012.tar: VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}",
        partial(_pascal_voc, "pascal_voc_20"),
    ),
    "pascal_voc_21": RawLayout(
        "pascal_voc_21",
        False,
        "VOCtrainval_11-May-2012.tar: VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}",
        partial(_pascal_voc, "pascal_voc_21"),
    ),
    "pascal_context_59": RawLayout(
        "pascal_context_59",
        False,
        "VOCtrainval_03-May-2010.tar and trainval_merged.json: VOCdevkit/VOC2010/{JPEGImages,trainval_merged.json}",
        _pascal_context_59,
    ),
    "pascal_context_459": RawLayout(
        "pascal_context_459",
        False,
        "VOCtrainval_03-May-2010.tar and Pascal Context's trainval.tar.gz: VOCdevkit/VOC2010/JPEGImages, "
        "VOCdevkit/VOC2010/trainval/*.mat, with trainval_merged.json for the benchmark's split (else ImageSets/Main)",
        _pascal_context_459,
    ),
    "cityscapes_19": RawLayout(
        "cityscapes_19",
        False,
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip: leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, "
        "gtFine/{train,val}/CITY/*_gtFine_labelIds.png",
        _cityscapes_19,
    ),
    "cityscapes_19_panoptic": RawLayout(
        "cityscapes_19",
        True,
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip: leftImg8bit/{train,val}/CITY/*_leftImg8bit.png, "
        "gtFine/{train,val}/CITY/*_gtFine_instanceIds.png",
        _cityscapes_19_panoptic,
    ),
}
"""The raw downloads that [`hf_maskadapter.data.prepare_dataset`] reads, by name."""

__all__ = ["RAW_LAYOUTS", "PanopticAnnotation", "RawLayout", "RawRecord"]
