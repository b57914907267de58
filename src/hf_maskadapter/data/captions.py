"""Data for contrastive pre-training: pictures with captions, and crops around segments whose captions are class names.

Every random choice is a function of (seed, epoch, sample id), as in the training of masks.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from ..model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from ..model.vocabulary import Vocabulary
from .opening import IMAGE_COLUMNS, features_of, find_column, identifying_column, open_source, undecoded
from .options import DatasetOptions
from .samples import DataError, SegmentationSample, file_name_of, read_image
from .sampling import sample_generator
from .transforms import normalize_image

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences")

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the picture."""


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture and what was said of it.

    Args:
        sample_id: names the sample in its data set, the same in every run.
        image: the picture, RGB, turned as a viewer shows it.
        captions: one or more captions.
    """

    sample_id: str
    image: Image.Image
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionedCrop:
    """A crop as a CLIP takes it, and what may be said of it.

    Args:
        pixel_values: (3, S, S) float32, normalised.
        captions: captions or names, any of which fits the crop.
    """

    pixel_values: torch.Tensor
    captions: tuple[str, ...]


class CaptionedPictures:
    """A data set of pictures with captions; a sample is decoded when it is read.

    Args:
        dataset: a Hugging Face data set.
        image_column: its column with pictures.
        caption_column: its column with captions: a string, or a list of them.
        id_column: its column that identifies the samples; without, their numbers do.
        name: the data set's name, for messages.

    Raises:
        DataError: if there is no sample.
    """

    def __init__(
        self, dataset: datasets.Dataset, image_column: str, caption_column: str, id_column: str | None, name: str
    ) -> None:
        columns = [column for column in (image_column, caption_column, id_column) if column is not None]
        self.dataset = undecoded(dataset, list(dict.fromkeys(columns)))
        self.image_column, self.caption_column, self.id_column = image_column, caption_column, id_column
        self.name = name
        if not len(dataset):
            raise DataError(f"{name}: the data set is empty.")

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, item: int) -> CaptionedPicture:
        """Decode a sample.

        Raises:
            DataError: if the picture cannot be read, or there is no caption; the message names the sample.
        """
        row: Mapping[str, Any] = self.dataset[item]
        value, captions = row[self.image_column], row[self.caption_column]
        sample_id = str(row[self.id_column]) if self.id_column is not None else str(item)
        file_name = file_name_of(value)
        where = f"{self.name}, sample {sample_id!r}" + (f" ({file_name})" if file_name else "")
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, Sequence) or not all(isinstance(caption, str) for caption in captions):
            raise DataError(
                f"{where}: the column {self.caption_column!r} must hold a caption or a list of captions, got "
                f"{type(row[self.caption_column]).__name__}."
            )
        captions = tuple(caption.strip() for caption in captions if caption.strip())
        if not captions:
            raise DataError(f"{where}: there is no caption. Remove the sample, or fill in its {self.caption_column!r}.")
        return CaptionedPicture(sample_id, read_image(value, where), captions)


def load_captioned_pictures(
    source: str | os.PathLike[str] | datasets.Dataset,
    *,
    split: str | None = None,
    config_name: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    max_samples: int | None = None,
) -> CaptionedPictures:
    """Open a data set of pictures with captions.

    Args:
        source: whatever `datasets.load_dataset` opens: a data set of the Hub, a folder of pictures with a
            `metadata.csv` or `metadata.jsonl` (columns `file_name` and the captions), Parquet files; or a
            `datasets.Dataset`.
        split: the split to open; may be left out if there is only one.
        config_name: configuration of a Hub data set.
        cache_dir: where `datasets` keeps what it downloads.
        image_column: column with the pictures, if it is not a usual one (`image`, ...).
        caption_column: column with the captions, if it is not a usual one (`caption`, `text`, ...).
        id_column: column that identifies the samples, if it is not a usual one (`id`, ...).
        max_samples: the first so many samples only.

    Raises:
        DataError: if the data set cannot be found or is empty, or a column is missing.
    """
    options = DatasetOptions(config_name=config_name, cache_dir=cache_dir, layout="dataset")
    dataset, _, name = open_source(source, split, options)
    features = features_of(dataset, name)
    image = find_column(features, name, image_column, IMAGE_COLUMNS, "the pictures (image_column)", is_picture=True)
    caption = find_column(features, name, caption_column, CAPTION_COLUMNS, "the captions (caption_column)")
    assert image is not None
    assert caption is not None
    identity = identifying_column(dataset, features, id_column, name)
    if max_samples is not None:
        dataset = dataset.select(range(min(max_samples, len(dataset))))
    return CaptionedPictures(dataset, image, caption, identity, name)


@dataclass(frozen=True, kw_only=True)
class _CropTransform:
    """What both kinds of crops have in common.

    Args:
        crop_size: side S of the finished crop in pixels.
        flip_probability: probability of a horizontal flip.
        seed: the run's seed.
        image_mean, image_std: of each channel, for values 0 to 255.
    """

    crop_size: int
    flip_probability: float = 0.5
    seed: int = 0
    image_mean: Sequence[float] = PIXEL_MEAN
    image_std: Sequence[float] = PIXEL_STD

    def _check(self) -> None:
        if self.crop_size < 1:
            raise ValueError(f"crop_size must be at least 1, got {self.crop_size}.")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability must lie in 0..1, got {self.flip_probability}.")

    def _cut(self, image: Image.Image, box: Box, rng: np.random.Generator) -> torch.Tensor:
        """The pixels of a box, resized with antialiasing, flipped by chance, normalised."""
        crop = image.resize((self.crop_size, self.crop_size), Image.Resampling.BILINEAR, box=box)
        if rng.random() < self.flip_probability:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalize_image(crop, self.image_mean, self.image_std)


@dataclass(frozen=True, kw_only=True)
class PictureCrops(_CropTransform):
    """A random square of a captioned picture, with its captions.

    Args:
        min_share: least share of the picture's largest square that the crop covers, by area.
        crop_size, flip_probability, seed, image_mean, image_std: as for [`SegmentCrops`].

    Raises:
        ValueError: if a value is out of range.
    """

    min_share: float = 0.5

    def __post_init__(self) -> None:
        self._check()
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share must be above 0 and at most 1, got {self.min_share}.")

    def __call__(self, picture: CaptionedPicture, epoch: int = 0) -> list[CaptionedCrop]:
        """The crop of an epoch, in a list of one."""
        rng = sample_generator(self.seed, epoch, picture.sample_id, "crop")
        width, height = picture.image.size
        side = min(width, height) * math.sqrt(rng.uniform(self.min_share, 1))
        left, top = rng.random(2) * (width - side, height - side)
        pixel_values = self._cut(picture.image, (left, top, left + side, top + side), rng)
        return [CaptionedCrop(pixel_values, picture.captions)]


@dataclass(frozen=True, kw_only=True)
class PictureCenters(_CropTransform):
    """The largest square in the middle of a captioned picture, with its captions.

    Args:
        flip_probability: by default it is not flipped.
        crop_size, seed, image_mean, image_std: as for [`SegmentCrops`].

    Raises:
        ValueError: if a value is out of range.
    """

    flip_probability: float = 0.0

    def __post_init__(self) -> None:
        self._check()

    def __call__(self, picture: CaptionedPicture, epoch: int = 0) -> list[CaptionedCrop]:
        """The crop, the same in every epoch, in a list of one."""
        width, height = picture.image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        rng = sample_generator(self.seed, epoch, picture.sample_id, "crop")
        return [CaptionedCrop(self._cut(picture.image, (left, top, left + side, top + side), rng), picture.captions)]


@dataclass(frozen=True, kw_only=True)
class SegmentCrops(_CropTransform):
    """Square crops around annotated segments; what is said of a crop are the synonyms of the segment's class.

    The parts of a segment that are not connected count each for itself, since a label map holds all cars of a picture
    as one segment. A crop is centred on a random pixel of such a part, so that long and winding ones are met, too.
    Classes take turns within a picture, so that rare ones come about as often as road and sky.

    Args:
        vocabulary: gives the class indices their names.
        crops_per_picture: crops of a picture each time it is read.
        min_area: leave out smaller parts, in pixels.
        context: range of the crop's side, in square roots of the part's area.
        max_enlargement: a crop is not enlarged more than so many times: of small parts it shows more surroundings.
        crop_size: side S of the finished crop in pixels.
        flip_probability: probability of a horizontal flip.
        seed: the run's seed.
        image_mean, image_std: of each channel, for values 0 to 255.

    Raises:
        ValueError: if a value is out of range.
    """

    vocabulary: Vocabulary
    crops_per_picture: int = 4
    min_area: int = 256
    context: tuple[float, float] = (0.5, 1.5)
    max_enlargement: float = 2.0

    def __post_init__(self) -> None:
        self._check()
        if self.crops_per_picture < 1 or self.min_area < 1:
            raise ValueError(
                f"crops_per_picture and min_area must be at least 1, got {self.crops_per_picture} and {self.min_area}."
            )
        if not 0 < self.context[0] <= self.context[1]:
            raise ValueError(f"context must be two positive numbers in ascending order, got {self.context}.")
        if self.max_enlargement <= 0:
            raise ValueError(f"max_enlargement must be positive, got {self.max_enlargement}.")

    def __call__(self, sample: SegmentationSample, epoch: int = 0) -> list[CaptionedCrop]:
        """The crops of an epoch: `crops_per_picture`, or none where no part is large enough."""
        rng = sample_generator(self.seed, epoch, sample.sample_id, "flips")
        return [
            CaptionedCrop(self._cut(sample.image, box, rng), self.vocabulary.synonyms[category])
            for category, box in self.draw_boxes(sample, epoch)
        ]

    def draw_boxes(self, sample: SegmentationSample, epoch: int = 0) -> list[tuple[int, Box]]:
        """Class index and box of each crop, `crops_per_picture` of them; none where no part is large enough."""
        parts_of = self._large_parts(sample)
        if not parts_of:
            return []
        rng = sample_generator(self.seed, epoch, sample.sample_id, "boxes")
        turns = rng.permutation(list(parts_of))
        boxes = []
        for category in itertools.islice(itertools.cycle(turns.tolist()), self.crops_per_picture):
            labels, number, area = parts_of[category][rng.integers(len(parts_of[category]))]
            pixels = np.flatnonzero(labels == number)
            y, x = divmod(int(pixels[rng.integers(len(pixels))]), labels.shape[1])
            boxes.append((category, self._box(x + 0.5, y + 0.5, area, sample.size, rng)))
        return boxes

    def _large_parts(self, sample: SegmentationSample) -> dict[int, list[tuple[np.ndarray, int, int]]]:
        """For each class its connected parts: a map of part numbers, the part's number in it, and its area."""
        found: dict[int, list[tuple[np.ndarray, int, int]]] = {}
        for segment in sample.segments_info:
            if segment.iscrowd:
                continue
            labels, count = ndimage.label(sample.segmentation == segment.id)
            areas = np.bincount(labels.ravel(), minlength=count + 1)
            for number in (np.flatnonzero(areas[1:] >= self.min_area) + 1).tolist():
                found.setdefault(segment.category_id, []).append((labels, number, int(areas[number])))
        return found

    def _box(self, x: float, y: float, area: int, size: tuple[int, int], rng: np.random.Generator) -> Box:
        """A square about a point, moved into the picture."""
        height, width = size
        side = max(rng.uniform(*self.context) * math.sqrt(area), self.crop_size / self.max_enlargement)
        side = min(side, height, width)
        left, top = min(max(x - side / 2, 0), width - side), min(max(y - side / 2, 0), height - side)
        return left, top, left + side, top + side


@dataclass(frozen=True)
class CropCollator:
    """Makes a batch of the crops of several pictures.

    Args:
        crops_per_picture: crops that a picture should have. Where some have none, others' crops come twice: batches
            have the same size on all processes.
        min_area: the least area of a segment, for the message.
    """

    crops_per_picture: int
    min_area: int = 1

    def __call__(self, samples: Sequence[Sequence[CaptionedCrop]]) -> dict[str, Any]:
        """`pixel_values` (batch, 3, S, S) and `captions`, what may be said of each crop.

        Raises:
            DataError: if no picture has a crop.
        """
        crops = list(itertools.chain.from_iterable(samples))
        if not crops:
            raise DataError(
                f"None of {len(samples)} pictures has a segment of {self.min_area} connected pixels or more: lower "
                "min_segment_area."
            )
        crops = list(itertools.islice(itertools.cycle(crops), len(samples) * self.crops_per_picture))
        return {
            "pixel_values": torch.stack([crop.pixel_values for crop in crops]),
            "captions": [crop.captions for crop in crops],
        }


__all__ = [
    "CAPTION_COLUMNS",
    "CaptionedCrop",
    "CaptionedPicture",
    "CaptionedPictures",
    "CropCollator",
    "PictureCenters",
    "PictureCrops",
    "SegmentCrops",
    "load_captioned_pictures",
]
