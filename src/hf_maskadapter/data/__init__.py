"""Data sets in, training samples out.

[`load_segmentation_dataset`] opens any data set; [`TrainingTransform`] and [`create_training_loader`] make batches of
it; [`prepare_dataset`] turns raw benchmark downloads into Hugging Face data sets; `scenes` draws the miniature world.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULE_OF = {
    "DataError": "samples",
    "DatasetOptions": "options",
    "IGNORE_INDEX": "samples",
    "NamedPicture": "opening",
    "PictureSource": "opening",
    "RAW_LAYOUTS": "raw_layouts",
    "SampleKey": "sampling",
    "SampleReader": "samples",
    "SegmentInfo": "samples",
    "SourceOptions": "options",
    "SegmentationDataset": "loading",
    "SegmentationSample": "samples",
    "SegmentationStream": "loading",
    "StreamingBatchSampler": "sampling",
    "TrainingBatchSampler": "sampling",
    "TrainingDataset": "loaders",
    "TrainingSample": "transforms",
    "TrainingTransform": "transforms",
    "collate_training_samples": "transforms",
    "create_training_loader": "loaders",
    "dataset_id_mapping": "samples",
    "load_segmentation_dataset": "loading",
    "masks_from_map": "transforms",
    "open_pictures": "opening",
    "prepare_dataset": "preparation",
    "sample_generator": "sampling",
    "sample_seed": "sampling",
    "shard_indices": "sampling",
}

__all__ = [
    "IGNORE_INDEX",
    "RAW_LAYOUTS",
    "DataError",
    "DatasetOptions",
    "NamedPicture",
    "PictureSource",
    "SampleKey",
    "SampleReader",
    "SegmentInfo",
    "SegmentationDataset",
    "SegmentationSample",
    "SegmentationStream",
    "SourceOptions",
    "StreamingBatchSampler",
    "TrainingBatchSampler",
    "TrainingDataset",
    "TrainingSample",
    "TrainingTransform",
    "collate_training_samples",
    "create_training_loader",
    "dataset_id_mapping",
    "load_segmentation_dataset",
    "masks_from_map",
    "open_pictures",
    "prepare_dataset",
    "sample_generator",
    "sample_seed",
    "shard_indices",
]


def __getattr__(name: str) -> Any:
    """Import on first use: drawn scenes need no `datasets`, samples no `torch`."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if TYPE_CHECKING:
    from .loaders import TrainingDataset, create_training_loader
    from .loading import SegmentationDataset, SegmentationStream, load_segmentation_dataset
    from .opening import NamedPicture, PictureSource, open_pictures
    from .options import DatasetOptions, SourceOptions
    from .preparation import prepare_dataset
    from .raw_layouts import RAW_LAYOUTS
    from .samples import (
        IGNORE_INDEX,
        DataError,
        SampleReader,
        SegmentationSample,
        SegmentInfo,
        dataset_id_mapping,
    )
    from .sampling import (
        SampleKey,
        StreamingBatchSampler,
        TrainingBatchSampler,
        sample_generator,
        sample_seed,
        shard_indices,
    )
    from .transforms import (
        TrainingSample,
        TrainingTransform,
        collate_training_samples,
        masks_from_map,
    )
