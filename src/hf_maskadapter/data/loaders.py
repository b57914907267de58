"""The data loader of a training run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from .loading import SegmentationDataset, SegmentationStream
from .sampling import SampleKey, StreamingBatchSampler, TrainingBatchSampler
from .transforms import collate_training_samples


class SampleSource(Protocol):
    """Where samples come from: [`SegmentationDataset`], [`SegmentationStream`], or anything that reads an item."""

    def read(self, item: Any, /) -> Any:
        """The sample of an item: an index, or the row of a stream."""


class SizedSampleSource(SampleSource, Protocol):
    """A [`SampleSource`] whose items are the numbers below its length."""

    def __len__(self) -> int:
        """Number of samples."""


class TrainingDataset(Dataset):
    """Training samples by [`SampleKey`], as the batch samplers yield them.

    Args:
        source: where the samples come from.
        transform: makes a training sample of a sample and the epoch, such as a [`TrainingTransform`].
    """

    def __init__(self, source: SampleSource, transform: Callable[[Any, int], Any]) -> None:
        self.source = source
        self.transform = transform

    def __getitem__(self, key: SampleKey) -> Any:
        return self.transform(self.source.read(key.item), key.epoch)


def create_training_loader(
    source: SegmentationDataset | SegmentationStream | SizedSampleSource,
    transform: Callable[[Any, int], Any],
    batch_size: int,
    *,
    seed: int = 0,
    num_processes: int = 1,
    process_index: int = 0,
    num_batches: int | None = None,
    shuffle: bool = True,
    shuffle_buffer: int = 1000,
    collate: Callable[[list[Any]], Any] | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """The endless, resumable data loader of one process.

    What it yields depends on the seeds, `batch_size * num_processes` and the position in the sequence only. To go on
    after an interruption, give its `batch_sampler` the state saved before, and do so before iterating:

    ```python
    loader = create_training_loader(dataset, transform, batch_size, num_processes=accelerator.num_processes,
                                    process_index=accelerator.process_index)
    loader.batch_sampler.load_state_dict(saved)
    for batch in loader:
        batch = send_to_device(batch, accelerator.device)
        ...
        consumed += loader.batch_sampler.global_batch_size
        saved = loader.batch_sampler.state_dict(consumed)
    ```

    Do not pass it through `Accelerator.prepare`, which would shard it once more. It draws nothing from PyTorch's global
    random numbers.

    Args:
        source: where the samples come from.
        transform: what is done to them, such as a [`TrainingTransform`].
        batch_size: samples in a batch of this process.
        seed: seed of the order; the augmentation has its own in `transform`.
        num_processes: number of processes, as `Accelerator` tells it.
        process_index: this process's number, as `Accelerator` tells it.
        num_batches: stop after so many batches; `None`: endless.
        shuffle: whether to permute each epoch.
        shuffle_buffer: rows of a stream among which to choose the next one at random.
        collate: makes a batch of transformed samples; by default [`collate_training_samples`].
        num_workers: processes that decode and augment.
        pin_memory: whether to put batches in page-locked memory, for quick copies to a GPU.
    """
    options: dict[str, Any] = {
        "seed": seed,
        "num_processes": num_processes,
        "process_index": process_index,
        "num_batches": num_batches,
        "shuffle": shuffle,
    }
    sampler: StreamingBatchSampler | TrainingBatchSampler
    if isinstance(source, SegmentationStream):
        sampler = StreamingBatchSampler(source, batch_size, shuffle_buffer=shuffle_buffer, **options)
    else:
        sampler = TrainingBatchSampler(len(source), batch_size, **options)
    return DataLoader(
        TrainingDataset(source, transform),
        batch_sampler=sampler,
        collate_fn=collate or collate_training_samples,
        num_workers=num_workers,
        worker_init_fn=_outlive_a_signal,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )


def _outlive_a_signal(_worker: int) -> None:
    """Let a worker go on after Ctrl-C or a SIGTERM that its whole process group got, such as from `timeout`.

    The training process still asks it for batches then, up to the checkpoint that it ends with.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


__all__ = ["SampleSource", "SizedSampleSource", "TrainingDataset", "create_training_loader"]
