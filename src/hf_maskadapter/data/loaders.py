"""The data loaders of a training run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .loading import SegmentationDataset, SegmentationStream
from .sampling import SampleKey, StreamingBatchSampler, TrainingBatchSampler, epoch_order, shard_indices
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
        worker_init_fn=outlive_a_signal,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )


class _HeldOut(Dataset):
    """A process's share of a data set with a length: the place of each sample in the order, and the sample."""

    def __init__(
        self, source: SizedSampleSource, transform: Callable[[Any, int], Any], process: tuple[int, int]
    ) -> None:
        self.source, self.transform = source, transform
        self.order = epoch_order(len(source), seed=0, epoch=0)
        self.places = shard_indices(len(source), *process)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[int, Any]:
        place = self.places[number]
        return place, self.transform(self.source.read(int(self.order[place])), 0)


class _HeldOutStream(IterableDataset):
    """The same of a stream, in its own order."""

    def __init__(
        self, stream: SegmentationStream, transform: Callable[[Any, int], Any], process: tuple[int, int]
    ) -> None:
        self.stream, self.transform, self.process = stream, transform, process

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        number, index = self.process
        for count, sample in enumerate(self.stream.shard(number, index)):
            yield index + count * number, self.transform(sample, 0)


def create_validation_loader(
    source: SegmentationDataset | SegmentationStream | SizedSampleSource,
    transform: Callable[[Any, int], Any],
    batch_size: int,
    *,
    num_processes: int = 1,
    process_index: int = 0,
    num_workers: int = 0,
) -> DataLoader:
    """The share of one process of a data set that is measured on: each sample once, the same in every pass.

    Samples with a length come in an order that is shuffled, always alike: neighbours in a data set resemble each other.
    Batches are lists of pairs: the sample's place in the order of all processes together, and what the transform makes
    of it in epoch 0.

    Args:
        source: where the samples come from.
        transform: what is done to them.
        batch_size: samples in a batch; the last one may have fewer.
        num_processes: number of processes, as `Accelerator` tells it.
        process_index: this process's number, as `Accelerator` tells it.
        num_workers: processes that decode; a stream is read by one at most.
    """
    process = num_processes, process_index
    samples: Dataset
    if isinstance(source, SegmentationStream):
        samples, num_workers = _HeldOutStream(source, transform, process), min(num_workers, 1)
    else:
        samples = _HeldOut(source, transform, process)
    return DataLoader(
        samples,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=outlive_a_signal,
        generator=torch.Generator().manual_seed(0),
    )


def outlive_a_signal(_worker: int) -> None:
    """Let a worker go on after Ctrl-C or a SIGTERM that its whole process group got, such as from `timeout`.

    The process that it works for decides when to end: training still asks for batches, up to its last checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


__all__ = [
    "SampleSource",
    "SizedSampleSource",
    "TrainingDataset",
    "create_training_loader",
    "create_validation_loader",
    "outlive_a_signal",
]
