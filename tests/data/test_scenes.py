"""The miniature world: determinism, truth, the novel split, and the data sets."""

from __future__ import annotations

import numpy as np
import pytest

from hf_maskadapter.data.scenes import (
    ATTRIBUTES,
    CLASS_NAMES,
    COMBINATIONS,
    STUFF,
    SceneConfig,
    SceneDataset,
    base_combinations,
    draw_scene,
    load_scenes,
    novel_combinations,
    scene_vocabulary,
    split_combinations,
    split_seed,
    training_class_names,
)


def test_a_seed_draws_the_same_scene_each_time_and_another_seed_another():
    first, again, other = draw_scene(5), draw_scene(5), draw_scene(6)
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.panoptic_map, again.panoptic_map)
    assert first.segments_info == again.segments_info
    assert not np.array_equal(first.picture, other.picture)


@pytest.mark.parametrize("seed", range(10))
def test_segments_info_agrees_with_the_panoptic_map(seed):
    scene = draw_scene(seed)
    assert {segment["id"] for segment in scene.segments_info} == set(np.unique(scene.panoptic_map)) - {0}
    for segment in scene.segments_info:
        rows, columns = np.nonzero(scene.panoptic_map == segment["id"])
        left, top, width, height = segment["bbox"]
        assert segment["area"] == len(rows)
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
        assert segment["isthing"] == int(CLASS_NAMES[segment["category_id"]] not in STUFF)


def test_the_semantic_map_names_the_class_of_each_segment():
    scene = draw_scene(3)
    for segment in scene.segments_info:
        assert (scene.semantic_map[scene.panoptic_map == segment["id"]] == segment["category_id"]).all()


def test_scenes_hold_several_instances_of_a_class():
    repeated = 0
    for seed in range(40):
        categories = [segment["category_id"] for segment in draw_scene(seed).segments_info if segment["isthing"]]
        repeated += len(categories) != len(set(categories))
    assert repeated >= 10


def test_the_caption_names_everything_that_is_visible():
    for seed in range(20):
        scene = draw_scene(seed)
        for segment in scene.segments_info:
            assert CLASS_NAMES[segment["category_id"]] in scene.caption


def test_a_quarter_of_the_combinations_is_novel_and_every_value_is_balanced():
    novel = novel_combinations()
    assert len(novel) == len(COMBINATIONS) // 4
    for attribute, values in ATTRIBUTES.items():
        counts = {value: sum(getattr(combination, attribute) == value for combination in novel) for value in values}
        assert set(counts.values()) == {len(novel) // len(values)}


@pytest.mark.parametrize("withheld", [None, "heart", "purple", "dotted"])
def test_no_novel_combination_occurs_in_any_training_mask(withheld):
    novel = {combination.name for combination in novel_combinations(withheld)}
    dataset = SceneDataset("train", 60, SceneConfig(size=96), withheld=withheld)
    seen = set()
    for index in range(len(dataset)):
        seen |= {CLASS_NAMES[segment["category_id"]] for segment in dataset.scene(index).segments_info}
    assert seen
    assert not seen & novel
    # Beyond the sample: a scene can only show what it is given, and the training split is given base combinations only.
    assert not {combination.name for combination in split_combinations("train", withheld)} & novel
    assert not set(training_class_names(withheld)) & novel


def test_no_novel_combination_occurs_in_the_batches_that_generator_and_adapter_are_trained_on():
    pytest.importorskip("torch")
    from lab.miniature.building import SceneBatches

    batches = SceneBatches(4, seed=1)
    assert set(batches.combinations) == set(base_combinations())
    names = {label: name for name, label in batches.label_of.items()}
    novel = {combination.name for combination in novel_combinations()}
    for step in range(5):
        batch = batches(step)
        assert not {names[int(label)] for labels in batch["class_labels"] for label in labels} & novel
        for masks, labels in zip(batch["mask_labels"], batch["class_labels"], strict=True):
            assert len(masks) == len(labels)
            assert masks.flatten(1).any(1).all()


def test_validation_and_test_scenes_show_novel_combinations():
    for split in ("validation", "test"):
        assert any(
            combination.is_novel
            for index in range(10)
            for combination in draw_scene((*split_seed(split), 0, index)).things
        )


def test_a_withheld_value_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'hexagon' is no value"):
        base_combinations("hexagon")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="choose one of train, validation, test"):
        SceneDataset("dev")


def test_an_index_beyond_the_end_is_refused():
    with pytest.raises(IndexError, match="2 scenes"):
        SceneDataset("train", 2).scene(2)


def test_streamed_and_map_style_data_sets_hold_the_same_scenes(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    stored = load_scenes("validation", 3)
    streamed = {row["image_id"]: row for row in load_scenes("validation", 3, streaming=True)}
    assert len(stored) == len(streamed) == 3
    for row in stored:
        other = streamed[row["image_id"]]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))
        assert np.array_equal(np.asarray(row["panoptic_map"]), np.asarray(other["panoptic_map"]))
        assert row["segments_info"] == other["segments_info"]


def test_scenes_open_as_a_segmentation_data_set(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    from hf_maskadapter.data import load_segmentation_dataset

    dataset = load_segmentation_dataset(load_scenes("validation", 2), vocabulary=scene_vocabulary())
    scene = SceneDataset("validation", 2).scene(1)
    assert np.array_equal(dataset[1].label_map(-1), scene.semantic_map)
