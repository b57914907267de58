"""Which sample comes when, and which random numbers it meets: functions of the seed, the epoch and the sample alone.

Nothing here depends on the number of workers or processes. The training set is one endless sequence: a permutation of
all samples for epoch 0, another for epoch 1, and so on. Batch `k` of all processes together is the slice
`[k * global_batch, (k + 1) * global_batch)` of it, process `p` takes the `p`-th part of that slice. Therefore every
sample comes exactly once an epoch, all batches have the same size on all processes (one may hold the end of an epoch
and the beginning of the next), and a run that goes on after `n` consumed samples sees what it would have seen, also
with another number of processes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from .samples import DataError

if TYPE_CHECKING:
    from .loading import SegmentationStream


def sample_seed(seed: int, epoch: int, sample_id: str, purpose: str) -> int:
    """A seed for one random decision about one sample.

    Args:
        seed: the run's seed.
        epoch: number of the epoch, from 0.
        sample_id: identifies the sample in its data set.
        purpose: what is decided ("jitter", "masks", "match", ...); each purpose has random numbers of its own, so that
            one more decision in one place changes nothing elsewhere.

    Returns:
        An integer below 2**63, good for `numpy.random.default_rng` and `torch.Generator.manual_seed`. It is the same
        in every process and every run of Python.
    """
    text = f"{int(seed)}\0{int(epoch)}\0{purpose}\0{sample_id}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def sample_generator(seed: int, epoch: int, sample_id: str, purpose: str) -> np.random.Generator:
    """Random numbers for one decision about one sample; arguments as for [`sample_seed`]."""
    return np.random.default_rng(sample_seed(seed, epoch, sample_id, purpose))


def epoch_order(num_samples: int, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """Order of the samples in an epoch, (num_samples,) int64; a function of the arguments alone."""
    if not shuffle:
        return np.arange(num_samples)
    return sample_generator(seed, epoch, "", "order").permutation(num_samples)


def shard_indices(num_samples: int, num_processes: int = 1, process_index: int = 0) -> range:
    """The samples that a process evaluates: each sample on exactly one process, in ascending order.

    Shards differ by one sample at most. Nothing is padded or repeated, so counts that are summed over processes are
    exact; do not send such batches through `Accelerator.prepare`, which would repeat samples to even them out.
    """
    _check_process(num_processes, process_index)
    return range(process_index, num_samples, num_processes)


class SampleKey(NamedTuple):
    """What a training batch sampler yields for each sample, and [`hf_maskadapter.data.TrainingDataset`] takes.

    Args:
        epoch: the epoch that the sample is part of. Travelling with the key, it reaches persistent workers as well.
        item: index into a map-style data set, or the undecoded row of a stream.
    """

    epoch: int
    item: int | Mapping[str, Any]


class _ResumableBatchSampler(Sampler[list[SampleKey]]):
    """What both batch samplers are told, and where in their endless sequence they begin."""

    def __init__(
        self,
        batch_size: int,
        seed: int,
        num_processes: int,
        process_index: int,
        num_batches: int | None,
        shuffle: bool,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        _check_process(num_processes, process_index)
        self.batch_size = batch_size
        self.seed = seed
        self.num_processes = num_processes
        self.process_index = process_index
        self.num_batches = num_batches
        self.shuffle = shuffle
        self._start = 0

    @property
    def global_batch_size(self) -> int:
        """Samples in a batch of all processes together."""
        return self.batch_size * self.num_processes


class TrainingBatchSampler(_ResumableBatchSampler):
    """Batches of one process from an endless, shuffled, resumable sequence over a map-style data set.

    For a `DataLoader(batch_sampler=...)`. It already shards by process: do not let `Accelerator.prepare` do so again.

    Args:
        num_samples: size of the data set.
        batch_size: samples in a batch of this process.
        seed: seed of the order.
        num_processes: number of processes, each with the same `batch_size`.
        process_index: number of this process.
        num_batches: stop after so many batches; `None`: endless.
        shuffle: whether to permute each epoch.

    Raises:
        DataError: if the data set is empty.
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        num_processes: int = 1,
        process_index: int = 0,
        num_batches: int | None = None,
        shuffle: bool = True,
    ) -> None:
        if num_samples < 1:
            raise DataError("The training data set is empty.")
        super().__init__(batch_size, seed, num_processes, process_index, num_batches, shuffle)
        self.num_samples = num_samples

    def state_dict(self, consumed: int) -> dict[str, Any]:
        """State after the training has consumed so many samples, counted over all processes.

        The caller counts, since workers fetch batches before they are used.
        """
        return {"consumed": int(consumed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the samples consumed when the state was made, whatever the number of processes then and now."""
        self._start = int(state["consumed"])

    def epoch_and_offset(self, consumed: int) -> tuple[int, int]:
        """The epoch that a run is in after so many consumed samples, and how many of its samples are consumed."""
        return divmod(consumed, self.num_samples)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order_epoch, order = -1, np.empty(0, dtype=np.int64)
        for batch in itertools.count() if self.num_batches is None else range(self.num_batches):
            first = self._start + batch * self.global_batch_size + self.process_index * self.batch_size
            keys = []
            for position in range(first, first + self.batch_size):
                epoch, offset = divmod(position, self.num_samples)
                if epoch != order_epoch:
                    order_epoch, order = epoch, epoch_order(self.num_samples, self.seed, epoch, self.shuffle)
                keys.append(SampleKey(epoch, int(order[offset])))
            yield keys


class StreamingBatchSampler(_ResumableBatchSampler):
    """The same for a stream, whose length nobody knows.

    The rows are read here, in the training process, and decoded in the workers: their order cannot depend on workers.
    Every process reads the whole stream (undecoded) and keeps its part, so that neither can it depend on processes; for
    many processes, download the data set instead. An epoch's order comes from the shards' order and a buffer of
    `shuffle_buffer` rows, both seeded by (seed, epoch). Going on after an interruption is exact: the rows of the epoch
    that were consumed are read once more and passed over.

    Args:
        stream: the data set.
        batch_size, seed, num_processes, process_index, num_batches, shuffle: as [`TrainingBatchSampler`].
        shuffle_buffer: rows among which to choose the next one at random.
    """

    def __init__(
        self,
        stream: SegmentationStream,
        batch_size: int,
        *,
        seed: int = 0,
        num_processes: int = 1,
        process_index: int = 0,
        num_batches: int | None = None,
        shuffle: bool = True,
        shuffle_buffer: int = 1000,
    ) -> None:
        super().__init__(batch_size, seed, num_processes, process_index, num_batches, shuffle)
        self.stream = stream
        self.shuffle_buffer = shuffle_buffer
        self._epoch_lengths: list[int] = []

    def state_dict(self, consumed: int) -> dict[str, Any]:
        """State after so many consumed samples of all processes; it holds the lengths of the epochs read so far."""
        return {"consumed": int(consumed), "epoch_lengths": list(self._epoch_lengths)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the samples consumed when the state was made."""
        self._start = int(state["consumed"])
        self._epoch_lengths = [int(length) for length in state.get("epoch_lengths", ())]

    def epoch_and_offset(self, consumed: int) -> tuple[int, int]:
        """The epoch that a run is in after so many consumed samples, and how many of its samples are consumed."""
        for epoch, length in enumerate(self._epoch_lengths):
            if consumed < length:
                return epoch, consumed
            consumed -= length
        return len(self._epoch_lengths), consumed

    def __iter__(self) -> Iterator[list[SampleKey]]:
        own = range(self.process_index * self.batch_size, (self.process_index + 1) * self.batch_size)
        keys: list[SampleKey] = []
        batches = 0
        for position, key in enumerate(self._sequence()):
            if self.num_batches is not None and batches >= self.num_batches:
                return
            if position % self.global_batch_size in own:
                keys.append(key)
            if len(keys) == self.batch_size:
                yield keys
                keys = []
                batches += 1

    def _sequence(self) -> Iterator[SampleKey]:
        first_epoch, offset = self.epoch_and_offset(self._start)
        for epoch in itertools.count(first_epoch):
            order_seed = sample_seed(self.seed, epoch, "", "order") if self.shuffle else None
            length = 0
            for row in self.stream.rows(order_seed, self.shuffle_buffer):
                length += 1
                if length > offset:
                    yield SampleKey(epoch, row)
            if length == 0:
                raise DataError(f"{self.stream.name}: the training stream is empty.")
            if epoch == len(self._epoch_lengths):
                self._epoch_lengths.append(length)
            offset = 0


def _check_process(num_processes: int, process_index: int) -> None:
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index={process_index} does not lie in 0..{num_processes - 1} (num_processes).")


__all__ = [
    "SampleKey",
    "StreamingBatchSampler",
    "TrainingBatchSampler",
    "epoch_order",
    "sample_generator",
    "sample_seed",
    "shard_indices",
]
