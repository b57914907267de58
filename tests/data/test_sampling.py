"""The order of training samples and their random numbers: functions of seed, epoch and sample alone."""

from __future__ import annotations

from itertools import islice

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskadapter.data import (
    DataError,
    SampleReader,
    SegmentationStream,
    StreamingBatchSampler,
    TrainingBatchSampler,
    sample_generator,
    sample_seed,
    shard_indices,
)
from hf_maskadapter.model.vocabulary import Vocabulary


def take(sampler, batches):
    return list(islice(iter(sampler), batches))


def stream_of(size, shards=1):
    """A stream of `size` undecoded rows."""

    def rows(numbers):
        for number in numbers:
            yield {"id": str(number), "image": number, "label_map": number}

    dataset = datasets.IterableDataset.from_generator(rows, gen_kwargs={"numbers": list(range(size))})
    reader = SampleReader(Vocabulary.from_list(["a"]), label_column="label_map", id_column="id", name="stream")
    return SegmentationStream(dataset, reader)


SAMPLERS = {
    "map": lambda size, batch, **options: TrainingBatchSampler(size, batch, **options),
    "stream": lambda size, batch, **options: StreamingBatchSampler(stream_of(size), batch, shuffle_buffer=4, **options),
}


def flat(batches):
    """Epoch and sample number of each key."""
    return [
        (key.epoch, key.item if isinstance(key.item, int) else int(key.item["id"])) for keys in batches for key in keys
    ]


def test_seeds_differ_by_every_argument_and_stay_the_same_between_runs():
    seeds = {
        sample_seed(*arguments)
        for arguments in [
            (0, 0, "a", "jitter"),
            (1, 0, "a", "jitter"),
            (0, 1, "a", "jitter"),
            (0, 0, "b", "jitter"),
            (0, 0, "a", "masks"),
            (0, 11, "a", "x"),
            (0, 1, "1a", "x"),
        ]
    }
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(5, 2, "street 7", "match") == 728624586028610946


def test_generators_repeat_themselves():
    np.testing.assert_array_equal(
        sample_generator(3, 1, "a", "masks").random(5), sample_generator(3, 1, "a", "masks").random(5)
    )


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(("size", "batch"), [(7, 3), (4, 4), (3, 5), (1, 2)])
def test_every_sample_comes_once_an_epoch_in_batches_of_one_size(kind, size, batch):
    batches = take(SAMPLERS[kind](size, batch, seed=2), 4 * size)
    assert {len(keys) for keys in batches} == {batch}
    sequence = flat(batches)
    for epoch in range(4):
        part = sequence[epoch * size : (epoch + 1) * size]
        assert {key[0] for key in part} == {epoch}
        assert sorted(key[1] for key in part) == list(range(size))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_order_differs_between_epochs_and_seeds_and_repeats_itself(kind):
    def epochs(seed):
        sequence = [number for _, number in flat(take(SAMPLERS[kind](12, 4, seed=seed), 6))]
        return sequence[:12], sequence[12:]

    assert epochs(0) == epochs(0)
    assert epochs(0)[0] != epochs(0)[1]
    assert epochs(0) != epochs(1)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_without_shuffling_every_epoch_is_in_order(kind):
    assert flat(take(SAMPLERS[kind](3, 2, shuffle=False), 3)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@given(
    size=st.integers(1, 20),
    batch=st.integers(1, 5),
    processes=st.integers(1, 4),
    seed=st.integers(0, 3),
    consumed=st.integers(0, 50),
)
def test_processes_together_see_what_one_process_sees(size, batch, processes, seed, consumed):
    one = TrainingBatchSampler(size, batch * processes, seed=seed)
    many = [
        TrainingBatchSampler(size, batch, seed=seed, num_processes=processes, process_index=index)
        for index in range(processes)
    ]
    for sampler in [one, *many]:
        sampler.load_state_dict({"consumed": consumed})
        assert sampler.global_batch_size == batch * processes
    parts = zip(*(take(sampler, 5) for sampler in many), strict=True)
    assert flat(take(one, 5)) == [key for part in parts for key in flat(part)]


def test_processes_together_see_what_one_process_sees_of_a_stream():
    one = StreamingBatchSampler(stream_of(7), 4, seed=1, shuffle_buffer=3)
    two = [
        StreamingBatchSampler(stream_of(7), 2, seed=1, num_processes=2, process_index=i, shuffle_buffer=3)
        for i in (0, 1)
    ]
    parts = zip(*(take(sampler, 5) for sampler in two), strict=True)
    assert flat(take(one, 5)) == [key for part in parts for key in flat(part)]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("consumed", [0, 4, 12, 16, 40])
def test_a_resumed_run_sees_what_it_would_have_seen_also_with_other_processes(kind, consumed):
    whole = SAMPLERS[kind](7, 4, seed=3)
    sequence = flat(take(whole, 16))
    state = whole.state_dict(consumed)

    resumed = SAMPLERS[kind](7, 4, seed=3)
    resumed.load_state_dict(state)
    assert flat(take(resumed, 4)) == sequence[consumed : consumed + 16]
    second_of_two = SAMPLERS[kind](7, 2, seed=3, num_processes=2, process_index=1)
    second_of_two.load_state_dict(state)
    assert flat(take(second_of_two, 1)) == sequence[consumed + 2 : consumed + 4]
    assert resumed.epoch_and_offset(consumed) == divmod(consumed, 7)


def test_a_stream_resumes_without_reading_finished_epochs_again():
    sampler = StreamingBatchSampler(stream_of(5), 5, seed=0)
    take(sampler, 4)
    state = sampler.state_dict(15)
    assert state == {"consumed": 15, "epoch_lengths": [5, 5, 5]}
    resumed = StreamingBatchSampler(stream_of(5), 5, seed=0)
    resumed.load_state_dict(state)
    passes = []
    rows = resumed.stream.rows
    resumed.stream.rows = lambda *arguments: passes.append(arguments) or rows(*arguments)
    take(resumed, 1)
    assert len(passes) == 1


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_number_of_batches_can_be_limited(kind):
    assert len(list(SAMPLERS[kind](5, 2, num_batches=7))) == 7


def test_empty_data_sets_are_refused():
    with pytest.raises(DataError, match="empty"):
        TrainingBatchSampler(0, 2)
    with pytest.raises(DataError, match="stream: the training stream is empty"):
        take(StreamingBatchSampler(stream_of(0), 2), 1)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_numbers_out_of_range_are_refused(kind):
    with pytest.raises(ValueError, match="batch_size"):
        SAMPLERS[kind](5, 0)
    with pytest.raises(ValueError, match="process_index=2"):
        SAMPLERS[kind](5, 1, num_processes=2, process_index=2)


@given(st.integers(0, 50), st.integers(1, 7))
def test_evaluation_shards_hold_every_sample_once(size, processes):
    shards = [shard_indices(size, processes, index) for index in range(processes)]
    assert sorted(index for shard in shards for index in shard) == list(range(size))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
