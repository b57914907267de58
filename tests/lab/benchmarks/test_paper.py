"""The paper's claims in the miniature world: what is trained on, what is counted, and that a cut-off run goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_maskadapter.data.scenes import CLASS_NAMES, COMBINATIONS, novel_combinations, training_class_names
from hf_maskadapter.evaluation import MeanIoU
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.training.losses import pairwise_mask_iou
from lab.benchmarks import paper
from lab.benchmarks.paper_settings import Settings
from lab.miniature import measuring
from lab.miniature.building import build_segmenter, build_segmenter_config
from lab.miniature.pretraining import build_clip_config, build_tokenizer

SETTINGS = Settings(scenes=2, training_scenes=4, seeds=1, steps=1, mixed_steps=1, ablation_steps=1, batch_size=2)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def segmenter(tokenizer):
    torch.manual_seed(0)
    clip = ConvNextClipModel(build_clip_config(tokenizer)).eval()
    return build_segmenter(clip, build_segmenter_config(clip.config), seed=0)


@pytest.fixture(scope="module")
def vocabulary(segmenter, tokenizer):
    return segmenter.encode_vocabulary(Vocabulary.from_list([[name] for name in CLASS_NAMES]), tokenizer, ["{}"])


@pytest.fixture(scope="module")
def scenes(segmenter, vocabulary):
    return measuring.cache_scenes(segmenter, vocabulary, "validation", 4)


@pytest.mark.parametrize("withheld", [None, "heart"])
def test_no_novel_combination_is_in_any_mask_that_adapters_are_trained_on(withheld, segmenter, tokenizer):
    names = training_class_names(withheld)
    encoded = segmenter.encode_vocabulary(Vocabulary.from_list([[name] for name in names]), tokenizer, ["{}"])
    batches = paper.CachedTrainingScenes(segmenter, encoded, 12, 4, withheld)
    shown = {names[label] for step in range(3) for labels in batches(step)["class_labels"] for label in labels.tolist()}
    novel = {combination.name for combination in novel_combinations(withheld)}
    assert len(novel) > 60
    assert len(shown) > 20
    assert not shown & novel


def test_every_scene_is_trained_on_once_a_pass_in_another_order_for_each_seed(segmenter, tokenizer):
    names = training_class_names()
    encoded = segmenter.encode_vocabulary(Vocabulary.from_list([[name] for name in names]), tokenizer, ["{}"])
    batches = paper.CachedTrainingScenes(segmenter, encoded, 6, 2)
    without, with_generated = batches(0, generated=False), batches(0)
    assert with_generated.keys() - without.keys() == {"masks_queries_logits", "class_queries_logits"}
    assert all(torch.equal(without[name], with_generated[name]) for name in ("dense_features", "mask_map"))
    orders = [[one for step in range(3) for one in batches(step, seed)["sample_id"]] for seed in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list("012345")
    assert orders[0] != orders[1]


def test_mean_iou_of_counts_is_the_packages_metric(segmenter, vocabulary, scenes):
    counted = measuring.segmentation_counts(segmenter, vocabulary, scenes, ("pooling/hard",))["pooling/hard"]
    metric = MeanIoU(num_labels=len(CLASS_NAMES), ignore_index=1000)
    for scene in scenes:
        output = segmenter(scene.pixel_values, vocabulary, mask_embedding="pooling", return_dict=True)
        upsampled = torch.nn.functional.interpolate(
            output.masks_queries_logits, size=scene.semantic_map.shape, mode="bilinear", align_corners=False
        )
        scores = torch.einsum("qc,qhw->chw", output.class_queries_logits[0, :, :-1].exp(), upsampled[0].sigmoid())
        truth = scene.semantic_map.where(scene.semantic_map >= 0, 1000)
        metric.add_batch(predictions=[scores.argmax(dim=0)], references=[truth])
    expected = metric.compute()
    occurs = counted.counts[:, 1].sum(axis=0) > 0
    per_class = np.array(expected["per_category_iou"])[occurs]
    assert counted.estimates()["all"].value == pytest.approx(100 * np.nanmean(per_class), abs=1e-6)


@pytest.mark.parametrize(("scenes", "classes", "frequency"), [(60, 12, 0.4), (300, 64, 0.02)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(scenes, classes, frequency):
    """The second world is as sparse as the benchmark's novel classes, each of which occurs in about six scenes."""
    rng = np.random.default_rng(0)
    kinds = np.array(["base"] * classes, dtype=object)
    ease = rng.beta(6, 2, classes)

    def counts(count):
        truth = (rng.random((count, classes)) < frequency) * rng.integers(800, 4000, (count, classes))
        is_right = rng.random((count, classes)) < ease
        intersection = (truth * np.where(is_right, 0.9, 0.05)).astype(np.int64)
        elsewhere = (rng.random((count, classes)) < frequency / 4) * rng.integers(800, 4000, (count, classes))
        return np.stack([intersection, truth, intersection + elsewhere], axis=1)

    def measure(of_scenes):
        return measuring.IntersectionsAndUnions(of_scenes, kinds).estimates()["all"].with_interval()

    many = sum(counts(1000).sum(axis=0, keepdims=True) for _ in range(100))
    expected = measure(many)["value"]
    worlds = [measure(counts(scenes)) for _ in range(400)]
    sides = [(of["low"] > expected) - (of["high"] < expected) for of in worlds]
    assert 0.01 < np.mean(np.abs(sides)) < 0.1
    assert abs(np.mean(sides)) < 0.05  # neither side is missed much more often
    claimed = np.mean([of["high"] - of["low"] for of in worlds]) / 2 / measuring.NORMAL_QUANTILE
    assert claimed == pytest.approx(np.std([of["value"] for of in worlds]), rel=0.1)


def test_an_interval_has_a_width_even_where_all_masks_are_right():
    right = measuring.Estimate.of_ratios(np.ones(96), np.ones(96)).with_interval()
    wrong = measuring.Estimate.of_ratios(np.zeros(96), np.ones(96)).with_interval()
    assert right == {"value": 100.0, "low": pytest.approx(96.15, abs=0.01), "high": 100.0}
    assert wrong == {"value": 0.0, "low": 0.0, "high": pytest.approx(3.85, abs=0.01)}


def test_a_difference_on_the_same_scenes_is_surer_than_the_two_numbers():
    rng = np.random.default_rng(0)
    total = rng.integers(1, 9, 50)
    right = rng.binomial(total, rng.random(50))
    better = measuring.Estimate.of_ratios(np.minimum(right + (rng.random(50) < 0.2), total), total)
    estimate = measuring.Estimate.of_ratios(right, total)
    assert estimate.influences.sum() == pytest.approx(0, abs=1e-9)

    def width(of):
        return of.with_interval()["high"] - of.with_interval()["low"]

    assert width(better - estimate) < 0.5 * width(estimate)
    assert (better - estimate).value == pytest.approx(better.value - estimate.value)
    assert measuring.Estimate.of_ratios(np.zeros(3), np.zeros(3)).with_interval() == {"value": 0, "low": 0, "high": 0}


def test_kinds_part_the_classes(vocabulary):
    kinds = measuring.kinds_of_classes(vocabulary.seen_classes)
    novel = {name for name, kind in zip(CLASS_NAMES, kinds, strict=True) if kind == "novel"}
    assert novel == {combination.name for combination in COMBINATIONS if combination.is_novel}
    assert list(kinds).count("stuff") == 6


def test_perturbed_masks_are_other_masks_of_the_same_classes(scenes):
    for index, scene in enumerate(scenes):
        masks, class_ids = paper.perturbed_masks(index, scene)
        assert len(masks) == len(class_ids) <= len(scene.masks)
        ious = pairwise_mask_iou(scene.masks, masks)
        assert 0.3 < ious.amax(dim=0).mean() < 0.98
        again, _ = paper.perturbed_masks(index, scene)
        assert torch.equal(masks, again)


def test_point_grid_masks_overlap_what_they_are_named_after(scenes):
    pytest.importorskip("scipy", reason="the proposer labels regions with SciPy")
    found = 0
    for index, scene in enumerate(scenes):
        masks, class_ids = paper.point_grid_masks(index, scene, paper.PaperBenchmark._picture(scene))
        assert masks.shape[1:] == scene.masks.shape[1:]
        for mask, class_id in zip(masks, class_ids, strict=True):
            truth = scene.masks[scene.class_ids == class_id]
            assert pairwise_mask_iou(truth, mask[None]).max() > 0.5
            found += 1
    assert found > len(scenes)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_run_measures_its_parts_once_and_refuses_other_settings(segmenter, tokenizer, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the report is drawn with Matplotlib")
    benchmark = paper.PaperBenchmark(segmenter, tokenizer, SETTINGS, tmp_path)
    results = benchmark.run(["main"])
    text = (tmp_path / "paper.md").read_text()
    assert "adapter − best pooling" in text
    assert "as shipped" in text
    assert (tmp_path / "paper.png").stat().st_size > 10_000
    assert not (tmp_path / "paper_ablations.png").exists()
    monkeypatch.setattr(benchmark, "main", None)  # would fail if it were called
    assert benchmark.run(["main"]).keys() == results.keys()
    assert paper.PaperBenchmark(segmenter, tokenizer, SETTINGS, tmp_path).run([]).keys() == results.keys()
    with pytest.raises(ValueError, match=r"other settings \(steps 1, now 2\)"):
        paper.PaperBenchmark(segmenter, tokenizer, replace(SETTINGS, steps=2), tmp_path)
    other = paper.with_new_adapter(segmenter, seed=1)
    with pytest.raises(ValueError, match=r"other settings \(weights_sha256"):
        paper.PaperBenchmark(other, tokenizer, SETTINGS, tmp_path)


def test_what_another_run_measured_in_the_meantime_is_reported_too(segmenter, tokenizer, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the report is drawn with Matplotlib")
    benchmark = paper.PaperBenchmark(segmenter, tokenizer, SETTINGS, tmp_path)
    number = {kind: {"value": 50.0, "low": 40.0, "high": 61.0} for kind in measuring.KINDS}

    def measure_while_another_run_finishes():
        (tmp_path / "maps.json").write_text(json.dumps({"1": {"adapter": number}}))
        return {"point grid": {"adapter": number}}

    monkeypatch.setattr(benchmark, "sources", measure_while_another_run_finishes)
    assert benchmark.run(["sources"]).keys() == {"maps", "sources"}
    text = (tmp_path / "paper.md").read_text()
    assert "| K = 1 | 50.0 (40.0 to 61.0) |" in text
    assert "| point grid: masks right, % |" in text
    assert (tmp_path / "paper_ablations.png").stat().st_size > 10_000


def test_what_is_not_installed_is_an_error_before_anything_is_trained(segmenter, tokenizer, tmp_path, monkeypatch):
    benchmark = paper.PaperBenchmark(segmenter, tokenizer, SETTINGS, tmp_path)
    monkeypatch.setattr(benchmark, "train", None)  # would fail if it were called
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"SciPy.*\[benchmark\]"):
        benchmark.run(["sources"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"Matplotlib.*\[benchmark\]"):
        benchmark.run(["main"])


def test_differences_are_taken_against_the_best_pooling():
    kinds = np.array(["base", "novel", "stuff"], dtype=object)
    total = np.ones((4, 3), dtype=np.int64)

    def accuracies(share):
        return measuring.Accuracies((np.arange(4)[:, None] < 4 * share) * total, total, kinds)

    compared = paper.compare(
        {"pooling/hard": accuracies(0.25), "pooling/any": accuracies(0.5), "adapter": accuracies(1.0)}
    )
    assert compared["difference"]["all"]["value"] == pytest.approx(50.0)
    assert compared["difference"]["all"]["best_pooling"] == "any"
    assert compared["adapter"]["base"] == {"value": 100.0, "low": pytest.approx(51.0, abs=0.1), "high": 100.0}
