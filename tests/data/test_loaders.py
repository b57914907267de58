"""The training data loader: the same batches whatever the number of workers and processes, and after a resume."""

from __future__ import annotations

import os
from functools import partial
from itertools import islice

import pytest
import torch

from hf_maskadapter.data import (
    DataError,
    TrainingDataset,
    TrainingTransform,
    collate_training_samples,
    create_training_loader,
    load_segmentation_dataset,
)
from hf_maskadapter.data.loaders import create_validation_loader
from hf_maskadapter.data.sampling import SampleKey

TRANSFORM = TrainingTransform(crop_size=16, seed=5, color_augmentation=True)


@pytest.fixture(params=["map", "stream"])
def source(request, picture_folder):
    return load_segmentation_dataset(picture_folder, split="train", streaming=request.param == "stream")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key])
        elif isinstance(value[0], torch.Tensor):
            assert len(value) == len(second[key])
            assert all(map(torch.equal, value, second[key]))
        else:
            assert value == second[key]


def batches(source, size=3, number=5, **options):
    return list(create_training_loader(source, TRANSFORM, size, seed=1, num_batches=number, **options))


def test_batches_do_not_depend_on_workers(source):
    without = batches(source)
    for workers in (1, 2):
        for first, second in zip(without, batches(source, num_workers=workers), strict=True):
            assert_equal(first, second)
    assert [epoch for batch in without for epoch in batch["epoch"]] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 3


def test_two_processes_see_the_halves_of_one_processs_batches(source):
    whole = batches(source, size=4)
    halves = [batches(source, size=2, num_processes=2, process_index=index) for index in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert batch["sample_id"] == first["sample_id"] + second["sample_id"]
        assert torch.equal(batch["pixel_values"], torch.cat([first["pixel_values"], second["pixel_values"]]))
        assert all(map(torch.equal, batch["mask_labels"], first["mask_labels"] + second["mask_labels"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_where_it_was_although_workers_had_read_ahead(source, workers):
    whole = batches(source, number=9)
    interrupted = create_training_loader(source, TRANSFORM, 3, seed=1, num_workers=workers)
    consumed = 0
    for _ in islice(interrupted, 5):
        consumed += interrupted.batch_sampler.global_batch_size
    state = interrupted.batch_sampler.state_dict(consumed)
    resumed = create_training_loader(source, TRANSFORM, 3, seed=1, num_batches=4, num_workers=workers)
    resumed.batch_sampler.load_state_dict(state)
    for first, second in zip(whole[5:], resumed, strict=True):
        assert_equal(first, second)


def test_streams_and_files_give_the_same_training_samples(picture_folder):
    dataset, stream = (
        load_segmentation_dataset(picture_folder, split="train", streaming=streaming) for streaming in (False, True)
    )
    first, second = (batches(source, size=4, number=1, shuffle=False)[0] for source in (dataset, stream))
    assert_equal(first, second)


def held_out(source, size=2, **options):
    """Place, sample and epoch of all samples that a process validates on, in its order."""
    loader = create_validation_loader(source, lambda sample, epoch: (sample.sample_id, epoch), size, **options)
    batches = list(loader)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    return [(place, *seen) for batch in batches for place, seen in batch]


def test_every_held_out_sample_comes_once_in_an_order_that_stays(source):
    whole = held_out(source)
    assert sorted(sample_id for _, sample_id, _ in whole) == sorted(sample.sample_id for sample in source)
    assert [place for place, *_ in whole] == list(range(len(whole)))
    assert {epoch for *_, epoch in whole} == {0}
    assert held_out(source) == whole
    shares = [held_out(source, num_processes=3, process_index=index) for index in range(3)]
    assert sorted(sample for share in shares for sample in share) == sorted(whole)


def test_held_out_samples_with_a_length_are_shuffled():
    class Numbers:
        def __len__(self):
            return 50

        def read(self, item):
            return item

    loader = create_validation_loader(Numbers(), lambda item, _: item, 50)
    ((*pairs,),) = loader
    assert sorted(item for _, item in pairs) == list(range(50))
    assert [item for _, item in pairs] != list(range(50))


def test_pytorchs_random_numbers_are_left_alone(source):
    state = torch.get_rng_state()
    batches(source, num_workers=1)
    batches(source)
    assert torch.equal(state, torch.get_rng_state())


def test_masks_may_be_left_to_the_device(source):
    assert "mask_labels" not in batches(source, collate=partial(collate_training_samples, mask_labels=False))[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_stops_the_epoch_with_its_name(picture_folder, workers):
    (picture_folder / "train" / "images" / "p2.jpg").write_bytes(b"broken")
    source = load_segmentation_dataset(picture_folder, split="train")
    with pytest.raises(DataError, match=r"sample 'p2'.*cannot be read"):
        batches(source, num_workers=workers)


def test_training_samples_can_be_asked_for_one_by_one(picture_folder):
    dataset = TrainingDataset(load_segmentation_dataset(picture_folder, split="train"), TRANSFORM)
    first, again, later = (dataset[SampleKey(epoch, 2)] for epoch in (0, 0, 1))
    assert first.sample_id == "p2"
    assert torch.equal(first.pixel_values, again.pixel_values)
    assert not torch.equal(first.pixel_values, later.pixel_values)


def test_camvid_batches(shared):
    source = load_segmentation_dataset(shared / "data" / "camvid", split="train")
    transform = TrainingTransform(crop_size=128, mask_unit="class", max_masks=6)
    loader = create_training_loader(source, transform, 4, num_workers=min(2, os.cpu_count() or 1), num_batches=3)
    for batch in loader:
        assert batch["pixel_values"].shape == (4, 3, 128, 128)
        for masks, classes in zip(batch["mask_labels"], batch["class_labels"], strict=True):
            assert len(masks) == len(classes) <= 6
            assert len(set(classes.tolist())) == len(classes)
            assert classes.min() >= 0
            assert classes.max() <= 10
