"""One sample format for every data set: a picture, a map of segments, and what the segments are.

A data set row, in whatever columns (see [`hf_maskadapter.data.load_segmentation_dataset`]), holds a picture and
*either*

- a **label map**: a picture of one channel (8, 16 or 32 bits) whose pixel values are class indices, or numbers that a
  mapping turns into class indices; one or more values mean "ignored"; *or*
- a **panoptic map** in COCO's form: a picture whose colour is the segment's number (R + 256 G + 65536 B), in whatever
  mode it was saved, or one channel with the number itself (see [`hf_maskadapter.model.label_maps.segment_ids`]), 0
  where there is no segment, together with `segments_info`, a list of `id` (the number in the map), `category_id` (class
  index, or a number that a mapping turns into one), and optionally `isthing` and `iscrowd`.

Pictures are seen as a viewer shows them, and as a model sees them when it is used.

[`SampleReader`] decodes both to a [`SegmentationSample`], checks them against the vocabulary, and names the sample in
every error.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..model.label_maps import checked_ids, label_values, listed_values, segment_ids
from ..model.masks import whole_number
from ..model.pictures import as_rgb, as_viewer_shows, open_picture
from ..model.vocabulary import Vocabulary, label_sets

IGNORE_INDEX = -1
"""Class index of pixels without a class in label maps that this package makes."""

_LOOKUP_SIZE = 1 << 16
_UNLISTED = -1  # in lookup tables that hold class index + 1, so that 0 is "ignored"
_EXIF_ORIENTATION = 0x0112


class DataError(ValueError):
    """Something is wrong with the user's data; the message names the sample or file and says how to mend it."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What one segment is.

    Args:
        id: its number in [`SegmentationSample.segmentation`], from 1.
        category_id: class index into the vocabulary.
        isthing: countable object (`True`) or stuff.
        iscrowd: a region of several objects that nobody told apart; left out of training and of panoptic quality.
    """

    id: int
    category_id: int
    isthing: bool
    iscrowd: bool = False


@dataclass(frozen=True)
class SegmentationSample:
    """A picture and its truth at the picture's own size, not augmented.

    Args:
        sample_id: names the sample in its data set, the same in every run.
        image: the picture, RGB, turned as a viewer shows it.
        segmentation: (height, width) int32, number of each pixel's segment, 0 where there is none (unlabelled,
            ignored).
        segments_info: the segments that occur in `segmentation`, numbered 1, 2, ... in a panoptic sample. In one
            with a label map each class that occurs is one segment, numbered class index + 1.
        has_instances: whether objects of one class are told apart (panoptic) or not (label map).
        file_name: where the picture comes from, for messages.
    """

    sample_id: str
    image: Image.Image
    segmentation: np.ndarray
    segments_info: tuple[SegmentInfo, ...]
    has_instances: bool
    file_name: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width

    def label_map(self, ignore_index: int = IGNORE_INDEX) -> np.ndarray:
        """Class index of each pixel, (height, width) int32; `ignore_index` where there is no segment.

        Crowd regions keep their class: that their members are not told apart does not matter here.
        """
        highest = max((segment.id for segment in self.segments_info), default=0)
        class_of_segment = np.full(highest + 1, ignore_index, dtype=np.int32)
        for segment in self.segments_info:
            class_of_segment[segment.id] = segment.category_id
        return class_of_segment[self.segmentation]


def whole_mapping(mapping: Mapping[Any, Any]) -> dict[int, int]:
    """A mapping of labels as numbers, which as keys of JSON are texts.

    Raises:
        ValueError: if one is no whole number.
    """
    try:
        return {whole_number(value): whole_number(index) for value, index in mapping.items()}
    except ValueError as error:
        raise ValueError(
            f"label_mapping must lead from the numbers of the label maps to class indices; a number {error}"
        ) from None


def dataset_id_mapping(vocabulary: Vocabulary, offset: int = 0) -> dict[int, int]:
    """Class index of each number that a data set's own files use.

    Args:
        vocabulary: a vocabulary with dataset ids, such as a built-in label set.
        offset: what the files add to the dataset id, e.g. 1 for the PNGs of ADE20K's scene parsing benchmark, -1 for
            COCO-Stuff's.

    Raises:
        ValueError: if a class has no dataset id, or the same as another.
    """
    missing = [entry.name for entry in vocabulary if entry.dataset_id is None]
    if missing:
        raise ValueError(
            f"These classes have no dataset_id: {', '.join(missing[:5])}; give a mapping of labels instead."
        )
    ids = vocabulary.dataset_ids
    if len(set(ids)) < len(ids):
        ((repeated, _),) = Counter(ids).most_common(1)
        names = ", ".join(entry.name for entry in vocabulary if entry.dataset_id == repeated)
        raise ValueError(f"These classes have the same dataset_id, {repeated}: {names}; give each its own.")
    return {dataset_id + offset: index for index, dataset_id in enumerate(ids)}  # type: ignore[operator]


def given_ids(vocabulary: Vocabulary) -> dict[int, int] | None:
    """Class index of each number that somebody's vocabulary gives its classes; `None` if it gives none.

    The numbers of built-in label sets do not count: they are those of the benchmarks' raw files, and other copies of
    these data sets hold class indices.
    """
    if None in vocabulary.dataset_ids or _is_label_set(vocabulary):
        return None
    return dataset_id_mapping(vocabulary)


@lru_cache(maxsize=16)
def _is_label_set(vocabulary: Vocabulary) -> bool:
    named = (Vocabulary.from_label_set(name) for name in label_sets())
    return any(
        (known.names, known.dataset_ids) == (vocabulary.names, vocabulary.dataset_ids)
        for known in named
        if len(known) == len(vocabulary)
    )


@dataclass(frozen=True)
class SampleReader:
    """Decodes a data set's row to a [`SegmentationSample`] and checks it.

    Args:
        vocabulary: gives the class indices their meaning.
        image_column: name of the column with the picture. Pictures may come as `{"bytes", "path"}` (an undecoded
            `datasets.Image`), as `PIL` images, bytes, paths or arrays.
        label_column: name of the column with the label map, or `None` for panoptic data.
        panoptic_column: name of the column with the panoptic map, or `None` for label maps.
        segments_column: name of the column with `segments_info`, for panoptic data.
        id_column: name of a column that identifies the sample, if there is one.
        label_mapping: class index of each value of the label map or each `category_id`; `None`: they are class indices.
        ignore_values: values of the label map that mean "ignored", whatever the mapping says of them.
        ignore_unlisted: treat values and category ids outside the vocabulary as ignored instead of as an error.
        ignores_by_default: whether nobody said that `ignore_values` mean "ignored", so that a warning is due where 255
            seems to be the second of two classes.
        name: the data set's name, for messages.

    Raises:
        ValueError: if neither or both of label and panoptic column are given, or a mapping leads outside the
            vocabulary.
    """

    vocabulary: Vocabulary
    image_column: str = "image"
    label_column: str | None = None
    panoptic_column: str | None = None
    segments_column: str | None = None
    id_column: str | None = None
    label_mapping: Mapping[int, int] | None = None
    ignore_values: tuple[int, ...] = ()
    ignore_unlisted: bool = False
    ignores_by_default: bool = False
    name: str = field(default="data set", compare=False)

    def __post_init__(self) -> None:
        if (self.label_column is None) == (self.panoptic_column is None):
            raise ValueError("Name either a label_column or a panoptic_column.")
        if self.panoptic_column is not None and self.segments_column is None:
            raise ValueError("A panoptic_column needs a segments_column, which says what the segments are.")
        if self.label_mapping is not None:
            object.__setattr__(self, "label_mapping", whole_mapping(self.label_mapping))
        targets = (self.label_mapping or {}).values()
        outside = sorted({target for target in targets if not 0 <= target < len(self.vocabulary)})
        if outside:
            raise ValueError(
                f"label_mapping leads to class {outside[0]}, but the vocabulary has {len(self.vocabulary)} classes, "
                f"0 to {len(self.vocabulary) - 1}."
            )

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        names = (self.image_column, self.label_column, self.panoptic_column, self.segments_column, self.id_column)
        return [name for name in names if name is not None]

    def __call__(self, row: Mapping[str, Any], index: int | None = None) -> SegmentationSample:
        """Decode a row.

        Args:
            row: the columns by name.
            index: the row's number, which identifies a sample without `id_column`; without both, the picture's content
                does.

        Raises:
            DataError: if the picture or its annotation cannot be read, they do not fit together, or a label lies
                outside the vocabulary.
        """
        image_value = row[self.image_column]
        if self.id_column is not None:
            sample_id = str(row[self.id_column])
        else:
            sample_id = str(index) if index is not None else _content_id(image_value)
        file_name = file_name_of(image_value)
        where = f"{self.name}, sample {sample_id!r}" + (f" ({file_name})" if file_name else "")

        image = open_image(image_value, where, "picture")
        annotation_value = row[self.label_column or self.panoptic_column]  # type: ignore[index]
        kind = "label map" if self.label_column else "panoptic map"
        annotation = _open_annotation(annotation_value, where, kind)
        if self.label_column is not None:
            try:
                labels = label_values(annotation)
            except (TypeError, ValueError) as error:
                raise DataError(f"{where}: the label map {error}") from None
            image = _fitting(image, labels.shape, where, kind)
            segmentation, segments = self._read_labels(labels, where)
        else:
            records = row[self.segments_column]  # type: ignore[index]
            segmentation, segments = self._read_panoptic(annotation, records, where)
            image = _fitting(image, segmentation.shape, where, kind)
        return SegmentationSample(
            sample_id=sample_id,
            image=image,
            segmentation=segmentation,
            segments_info=segments,
            has_instances=self.label_column is None,
            file_name=file_name or sample_id,
        )

    @cached_property
    def _label_lookup(self) -> np.ndarray:
        """Class index + 1 of each label value; 0: ignored, -1: not in the vocabulary."""
        lookup = np.full(_LOOKUP_SIZE, 0 if self.ignore_unlisted else _UNLISTED, dtype=np.int32)
        mapping = self.label_mapping if self.label_mapping is not None else {i: i for i in range(len(self.vocabulary))}
        for value, index in mapping.items():
            if 0 <= value < _LOOKUP_SIZE:
                lookup[value] = index + 1
        for value in self.ignore_values:
            if 0 <= value < _LOOKUP_SIZE:
                lookup[value] = 0
        return lookup

    def _read_labels(self, labels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[SegmentInfo, ...]]:
        if labels.dtype == bool:
            labels = labels.astype(np.uint8)
        if labels.dtype.kind == "i" or labels.dtype.itemsize > 2:
            within = (labels >= 0) & (labels < _LOOKUP_SIZE)
            segmentation = np.where(within, self._label_lookup[np.where(within, labels, 0)], _UNLISTED).astype(np.int32)
            for value, index in (self.label_mapping or {}).items():
                if not 0 <= value < _LOOKUP_SIZE:
                    segmentation[labels == value] = index + 1
            ignored = ~within & (np.isin(labels, self.ignore_values) | (self.ignore_unlisted & (segmentation < 0)))
            segmentation[ignored] = 0
        else:
            segmentation = self._label_lookup[labels]
        if segmentation.size and segmentation.min() < 0:
            self._raise_unlisted(np.unique(labels[segmentation < 0]), where)
        present = np.flatnonzero(np.bincount(segmentation.ravel(), minlength=1)[1:])
        if self.ignores_by_default and len(self.vocabulary) <= 2 and 1 not in present:
            self._hint_at_two_classes(labels, where)
        flags = [entry.is_thing is not False for entry in self.vocabulary]
        segments = tuple(SegmentInfo(int(index) + 1, int(index), flags[index]) for index in present)
        return segmentation, segments

    def _hint_at_two_classes(self, labels: np.ndarray, where: str) -> None:
        """Warn once if 255 seems to be the second class, which would be ignored in silence."""
        if "_has_hinted" in self.__dict__ or labels.max() != 255 or not np.isin(labels, (0, 255)).all():
            return
        self.__dict__["_has_hinted"] = True
        warnings.warn(
            f"{where}: the label map holds 255 and nothing else but 0, and 255 is ignored by default. If 255 is a "
            "class, say which: label_mapping={0: 0, 255: 1}, or a vocabulary with ids, such as "
            '{0: "background", 255: "lesion"}. If it does mean "ignored", say ignore_index=255.',
            stacklevel=2,
        )

    def _raise_unlisted(self, values: np.ndarray, where: str) -> None:
        ignored = ", ".join(map(str, self.ignore_values)) or "none"
        if self.label_mapping is None:
            expected = f"labels must be class indices, 0 to {len(self.vocabulary) - 1}"
        else:
            expected = "the mapping of labels to classes does not list them"
        raise DataError(
            f"{where}: the label map holds {listed_values(values.tolist())}, outside the vocabulary: {expected} "
            f"(ignored values: {ignored}). Give the vocabulary that the labels were made for, a mapping "
            "(label_mapping), reduce_labels if 0 means unlabelled and classes count from 1, or further values to "
            "ignore (ignore_index)."
            + (" Is 255 the second class? Then label_mapping={0: 0, 255: 1}." if self._lacks_second(values) else "")
        )

    def _lacks_second(self, values: np.ndarray) -> bool:
        return len(self.vocabulary) == 2 and self.label_mapping is None and values.tolist() == [255]

    def _read_panoptic(
        self, panoptic_map: Any, segments_info: Any, where: str
    ) -> tuple[np.ndarray, tuple[SegmentInfo, ...]]:
        records = _as_records(segments_info, where)
        listed = [whole_number(record["id"]) for record in records]
        try:
            checked_ids(listed, lowest=1)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        try:
            ids = segment_ids(panoptic_map, listed)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the panoptic map {error}") from None
        numbers = np.array(listed, dtype=np.int64)
        order = np.argsort(numbers)
        ascending = np.append(numbers[order], np.iinfo(np.int64).max)
        slot = np.searchsorted(ascending, ids)
        known = ascending[slot] == ids
        position = np.append(order + 1, 0)[slot]
        position[~known] = 0

        counts = np.bincount(position.ravel(), minlength=len(records) + 1)
        new_number = np.zeros(len(records) + 1, dtype=np.int32)
        segments: list[SegmentInfo] = []
        for number, record in enumerate(records, start=1):
            category = self._category(record, where)
            if category is None or not counts[number]:
                continue
            flag = self.vocabulary.classes[category].is_thing
            is_thing = bool(record.get("isthing", True)) if flag is None else flag
            segments.append(SegmentInfo(len(segments) + 1, category, is_thing, bool(record.get("iscrowd", False))))
            new_number[number] = len(segments)
        return new_number[position], tuple(segments)

    def _category(self, record: Mapping[str, Any], where: str) -> int | None:
        number = whole_number(record["category_id"])
        if self.label_mapping is not None:
            category = self.label_mapping.get(number)
        else:
            category = number if 0 <= number < len(self.vocabulary) else None
        if category is None and number not in self.ignore_values and not self.ignore_unlisted:
            known = "a mapping without it" if self.label_mapping is not None else f"{len(self.vocabulary)} classes"
            raise DataError(
                f"{where}: segment {record['id']} has category_id {number}, outside the vocabulary ({known}). Give the "
                "vocabulary that the segments were made for, or a mapping from category ids to class indices "
                "(label_mapping)."
            )
        return category


def file_name_of(value: Any) -> str:
    """Where a picture's value comes from, empty if it does not tell."""
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    return str(getattr(value, "filename", "") or "")


def _content_id(value: Any) -> str:
    """Identifies a sample by its picture, where nothing else does (streams without an id column)."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        content = value["bytes"]
    elif isinstance(value, (bytes, bytearray)):
        content = bytes(value)
    elif path := file_name_of(value):
        content = os.path.basename(path).encode()
    else:
        content = np.ascontiguousarray(value).tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def open_image(value: Any, where: str, what: str) -> Image.Image:
    """The decoded picture as it is stored: its own mode, and not turned by its EXIF orientation.

    Args:
        value: a picture in any form that a [`SampleReader`] takes.
        where: the sample, for messages.
        what: what the picture is, for messages.

    Raises:
        DataError: if it cannot be read.
    """
    if value is None:
        raise DataError(f"{where}: there is no {what}.")
    try:
        if isinstance(value, list):
            value = np.asarray(value)
        if isinstance(value, np.ndarray) or hasattr(value, "detach"):
            return as_viewer_shows(value)
        path = value.get("path") if isinstance(value, Mapping) and value.get("bytes") is None else value
        if isinstance(path, (str, os.PathLike)) and "://" in os.fspath(path):
            import datasets

            value = datasets.Image().decode_example({"path": os.fspath(path), "bytes": None})
        return open_picture(value)
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise DataError(f"{where}: the {what} cannot be read ({type(error).__name__}: {error}).") from error


def read_image(value: Any, where: str) -> Image.Image:
    """The picture as a viewer shows it, RGB.

    Args:
        value: a picture in any form that a [`SampleReader`] takes.
        where: the sample, for messages.

    Raises:
        DataError: if it cannot be read.
    """
    image = open_image(value, where, "picture")
    try:
        return as_viewer_shows(image)
    except ValueError as error:
        raise DataError(f"{where}: the picture cannot be read ({type(error).__name__}: {error}).") from error


def _open_annotation(value: Any, where: str, what: str) -> Any:
    """A map as a picture, or as an array or tensor if it is one."""
    if isinstance(value, list):
        return np.asarray(value)
    return value if isinstance(value, np.ndarray) or hasattr(value, "detach") else open_image(value, where, what)


def _fitting(image: Image.Image, annotated_size: tuple[int, ...], where: str, kind: str) -> Image.Image:
    """The picture as a viewer shows it, RGB, but not turned if it was annotated as it is stored."""
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        turned = ImageOps.exif_transpose(image)
        stored_fits = (image.height, image.width) == annotated_size
        turned_fits = (turned.height, turned.width) == annotated_size
        image = image if stored_fits and not turned_fits else turned
    if (image.height, image.width) != annotated_size:
        raise DataError(
            f"{where}: the picture is {image.width}×{image.height} pixels, but its {kind} "
            f"{annotated_size[1]}×{annotated_size[0]}. They must be of the same size: check that they belong together."
        )
    try:
        return as_rgb(image)
    except ValueError as error:
        raise DataError(f"{where}: the picture cannot be read ({type(error).__name__}: {error}).") from error


def _as_records(segments_info: Any, where: str) -> Sequence[Mapping[str, Any]]:
    """`segments_info` as a list of dicts; `datasets` may give a dict of lists instead."""
    if isinstance(segments_info, Mapping):
        lists = {key: list(values) for key, values in segments_info.items()}
        segments_info = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    if not isinstance(segments_info, Sequence) or isinstance(segments_info, str):
        raise DataError(f"{where}: segments_info must be a list of segments, got {type(segments_info).__name__}.")
    for record in segments_info:
        missing = [key for key in ("id", "category_id") if not isinstance(record, Mapping) or record.get(key) is None]
        if missing:
            raise DataError(f"{where}: a segment in segments_info lacks {' and '.join(missing)}: {record!r}.")
        for key in ("id", "category_id"):
            try:
                whole_number(record[key])
            except ValueError as error:
                raise DataError(f"{where}: the {key} of a segment {error}") from None
    return segments_info


__all__ = [
    "IGNORE_INDEX",
    "DataError",
    "SampleReader",
    "SegmentInfo",
    "SegmentationSample",
    "dataset_id_mapping",
    "file_name_of",
    "given_ids",
    "open_image",
    "read_image",
    "whole_mapping",
]
