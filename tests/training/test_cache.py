"""Frozen features on disk: computed once, of the right picture and model, within a size."""

import pytest
import torch
from safetensors.torch import load_file

from hf_maskadapter.training.cache import FeatureCache
from support import toy
from support.stage_batches import batch


class Doubler(torch.nn.Linear):
    """Stands for the frozen parts, and counts the pictures that it sees."""

    def __init__(self, factor=2.0):
        super().__init__(1, 1, bias=False)
        torch.nn.init.constant_(self.weight, factor)
        self.seen = 0

    def run(self, pictures):
        pixel_values = pictures["pixel_values"]
        self.seen += len(pixel_values)
        return {"doubled": self.weight.item() * pixel_values, "means": pixel_values.mean(dim=(1, 2, 3))}


def pictures(count, seed=0):
    return torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def complete(cache, pixel_values, part, **more):
    return cache.complete({"pixel_values": pixel_values} | more, part.run)


def cache_of(part, directory, max_bytes=10**6, **options):
    return FeatureCache(directory, max_bytes, [part], {"outputs": ["doubled"]}, **options)


def files(directory):
    return sorted(directory.glob("*/*"))


def test_a_picture_is_computed_once_whatever_batch_it_is_in(tmp_path):
    part, shown = Doubler(), pictures(4)
    cache = cache_of(part, tmp_path)
    complete(cache, shown[:2], part)
    mixed = complete(cache, shown[[3, 1, 2, 0]], part)
    assert part.seen == 4
    assert torch.equal(mixed["doubled"], 2 * shown[[3, 1, 2, 0]])
    assert torch.equal(mixed["means"], shown[[3, 1, 2, 0]].mean(dim=(1, 2, 3)))
    again = complete(cache_of(part, tmp_path), shown, part)
    assert part.seen == 4
    assert torch.equal(again["doubled"], 2 * shown)


def test_other_weights_facts_and_precision_have_entries_of_their_own(tmp_path):
    shown, other = pictures(1), Doubler(3.0)
    complete(cache_of(Doubler(), tmp_path), shown, Doubler())
    assert torch.equal(complete(cache_of(other, tmp_path), shown, other)["doubled"], 3 * shown)
    complete(FeatureCache(tmp_path, 10**6, [other], {"outputs": ["more"]}), shown, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        complete(cache_of(other, tmp_path), shown, other)
    assert other.seen == 3
    assert len(files(tmp_path)) == 4


def test_everything_that_a_picture_comes_with_counts(tmp_path):
    part, shown = Doubler(), pictures(1)
    for pixel_mask in (torch.ones(1, 4, 5), torch.zeros(1, 4, 5), torch.ones(1, 4, 5)):
        complete(cache_of(part, tmp_path), shown, part, pixel_mask=pixel_mask)
    assert part.seen == 2


def test_the_folder_stays_within_its_size_and_the_rest_is_computed_each_time(tmp_path):
    part, shown = Doubler(), pictures(5)
    complete(cache_of(part, tmp_path), shown[:1], part)
    size = files(tmp_path)[0].stat().st_size
    cache = cache_of(part, tmp_path, 3 * size)
    for _ in range(2):
        assert torch.equal(complete(cache, shown, part)["doubled"], 2 * shown)
    assert len(files(tmp_path)) == 3
    assert part.seen == 1 + 4 + 2
    complete(cache_of(part, tmp_path, 5 * size, num_processes=2), pictures(5, seed=1), part)
    assert len(files(tmp_path)) == 4


def test_a_damaged_file_is_written_again(tmp_path):
    part, shown = Doubler(), pictures(1)
    cache = cache_of(part, tmp_path)
    complete(cache, shown, part)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert torch.equal(complete(cache, shown, part)["doubled"], 2 * shown)
    assert torch.equal(load_file(path)["doubled"], 2 * shown[0])


@pytest.mark.parametrize("name", ["warmup", "mixed"])
def test_a_stage_that_keeps_features_prepares_the_same_without_running_the_frozen_parts(name, tmp_path, monkeypatch):
    given = batch((1, 2, 3))
    expected = toy.stage(name).prepare(given)
    stage = toy.stage(name)
    stage.keep_features(tmp_path, 10**9)
    stage.prepare(given)

    def refuse(*args, **kwargs):
        raise AssertionError("ran a frozen part")

    monkeypatch.setattr(stage.segmenter.clip, "get_feature_maps", refuse)
    monkeypatch.setattr(stage.segmenter.mask_generator, "forward", refuse)
    found = stage.prepare(given)
    assert found.counts == expected.counts
    for key, value in expected.inputs.items():
        torch.testing.assert_close(found.inputs[key], value)


def test_class_scores_that_change_in_training_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="match by IoU"):
        toy.stage("mixed", matcher="hungarian").keep_features(tmp_path, 10**9)
