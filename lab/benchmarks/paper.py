"""The paper's claims, tested again in the miniature world (arXiv 2412.04533, section 4).

Adapters are trained from several seeds on frozen features that are computed once, and measured on fresh scenes of the
`test` split, which nothing was ever chosen on. Every part writes its own JSON file, so that a run that was cut off goes
on. Intervals are 95 % intervals over scenes; where several seeds were trained, values are means over them.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from hf_maskadapter.data.scenes import CLASS_NAMES, COMBINATIONS, training_class_names
from hf_maskadapter.files import write_atomically, write_json, write_text
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.modeling_text_classifier import EncodedVocabulary
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.training.adapter_stages import AdapterStage, GroundTruthWarmup, MixedMaskTraining
from hf_maskadapter.training.losses import pairwise_mask_iou
from lab.benchmarks.paper_report import ablation_tables, main_tables, plot, report
from lab.benchmarks.paper_settings import PARTS, Settings
from lab.benchmarks.speed import figure_class
from lab.miniature.building import claim_folder
from lab.miniature.measuring import (
    KINDS,
    Accuracies,
    CachedScene,
    IntersectionsAndUnions,
    cache_scenes,
    generator_recall,
    mask_accuracies,
    segmentation_counts,
)
from lab.miniature.pretraining import IMAGE_MEAN, IMAGE_STD, zero_shot_accuracy
from lab.miniature.training import SceneBatches, Schedule, train_stage

POOLINGS = ("pooling/hard", "pooling/area", "pooling/any")
POOLING_ENSEMBLE = (0.4, 0.6)
"""Weights of the pooled embeddings in the ensemble, for seen and for unseen classes; end to end, pooling has these or
the model's. On 100 validation scenes, among 0.2, 0.3, ... 0.7 and 0.5, 0.6, ... 0.9, these are best for hard and for
any-overlap pooling (mean IoU of all classes), and 0.1 points below the best for area-weighted pooling."""

MAPS = (1, 4, 16, 32)
WITHHELD = "heart"

Measured = Mapping[str, Accuracies | IntersectionsAndUnions]
AdapterOfSeed = Callable[[int], MaskAdapterForOpenVocabularySegmentation]
MasksOfScene = Callable[[int, CachedScene], tuple[Tensor, Tensor]]


class CachedTrainingScenes:
    """Batches of training scenes, a function of the step, whose frozen features are computed when first needed, once.

    Args:
        segmenter: its CLIP and mask generator make the features.
        vocabulary: the training classes, encoded.
        count: number of scenes.
        batch_size: scenes a batch.
        withheld: see [`hf_maskadapter.data.scenes.base_combinations`].
    """

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        count: int,
        batch_size: int,
        withheld: str | None = None,
    ):
        assert segmenter.mask_generator is not None
        self.clip, self.mask_generator = segmenter.clip, segmenter.mask_generator
        self.void_embeds = segmenter.get_void_embeds().detach()
        self.vocabulary, self.count, self.batch_size = vocabulary, count, batch_size
        self.scenes = SceneBatches(1, seed=7, withheld=withheld)
        self._cached: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def _scene(self, index: int, generated: bool) -> dict[str, Tensor]:
        scene = self._cached.setdefault(index, {})
        if "dense_features" in scene and (not generated or "masks_queries_logits" in scene):
            return scene
        batch = self.scenes(index)
        feature_maps = self.clip.get_feature_maps(batch["pixel_values"])
        covered, number = batch["mask_labels"][0].max(dim=0)
        scene["dense_features"] = feature_maps[-1][0]
        scene["mask_map"] = number.where(covered, -1).to(torch.int8)
        scene["class_labels"] = batch["class_labels"][0]
        if generated:
            output = self.mask_generator(feature_maps, self.vocabulary, self.void_embeds, return_dict=True)
            scene["masks_queries_logits"] = output.masks_queries_logits[0].bfloat16()
            scene["class_queries_logits"] = output.in_vocabulary_logits[0]
        return scene

    def __call__(self, step: int, seed: int = 0, generated: bool = True) -> dict[str, Any]:
        """The batch of a step: another order of the scenes for every seed and pass.

        Args:
            step: with the seed, says which scenes.
            seed: see `step`.
            generated: whether the batch holds the mask generator's outputs.
        """
        passes, position = divmod(step * self.batch_size, self.count)
        order = np.random.default_rng((seed, passes)).permutation(self.count)
        chosen = np.take(order, range(position, position + self.batch_size), mode="wrap").tolist()
        scenes = [self._scene(index, generated) for index in chosen]
        batch: dict[str, Any] = {
            name: torch.stack([scene[name] for scene in scenes]) for name in ("dense_features", "mask_map")
        }
        if generated:
            batch["masks_queries_logits"] = torch.stack([scene["masks_queries_logits"].float() for scene in scenes])
            batch["class_queries_logits"] = torch.stack([scene["class_queries_logits"] for scene in scenes])
        return batch | {
            "class_labels": [scene["class_labels"] for scene in scenes],
            "sample_id": [str(index) for index in chosen],
            "epoch": torch.full((self.batch_size,), passes),
        }


def with_new_adapter(
    segmenter: MaskAdapterForOpenVocabularySegmentation, seed: int, num_output_maps: int | None = None
) -> MaskAdapterForOpenVocabularySegmentation:
    """The same frozen parts with an adapter of random weights."""
    config = copy.deepcopy(segmenter.config)
    if num_output_maps is not None:
        config.num_output_maps = num_output_maps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        renewed = MaskAdapterForOpenVocabularySegmentation(config)
    renewed.clip, renewed.mask_generator = segmenter.clip, segmenter.mask_generator
    renewed.void_embedding.data.copy_(segmenter.void_embedding)
    return renewed.eval()


def perturbed_masks(index: int, scene: CachedScene) -> tuple[Tensor, Tensor]:
    """Ground-truth masks that were shifted, grown or shrunk, and cut: about as wrong as a poor generator's.

    Args:
        index: of the scene; seeds the perturbations.
        scene: the scene.

    Returns:
        Masks `(num_masks, size, size)` bool and their class ids; masks that nothing is left of are dropped.
    """
    rng = np.random.default_rng((19, index))
    size = scene.masks.shape[-1]
    perturbed = []
    for mask in scene.masks:
        changed = torch.roll(mask, tuple(rng.integers(-6, 7, 2).tolist()), dims=(0, 1)).float()[None, None]
        width = 2 * int(rng.integers(1, 5)) + 1
        grown = F.max_pool2d(changed, width, 1, width // 2)
        shrunk = -F.max_pool2d(-changed, width, 1, width // 2)
        changed = (grown if rng.random() < 0.5 else shrunk)[0, 0] > 0
        rows, columns = mask.nonzero().float().unbind(dim=1)
        angle, part = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0)
        along = np.cos(angle) * torch.arange(size)[:, None] + np.sin(angle) * torch.arange(size)
        cut = np.cos(angle) * rows + np.sin(angle) * columns
        perturbed.append(changed & (along <= torch.quantile(cut, part)))
    masks = torch.stack(perturbed)
    kept = masks.flatten(1).any(dim=1)
    return masks[kept], scene.class_ids[kept]


def point_grid_masks(_index: int, scene: CachedScene, picture: np.ndarray) -> tuple[Tensor, Tensor]:
    """Masks of a proposer that was never trained: the region of similar colour around each point of a grid.

    Args:
        index: of the scene; not used, as nothing is random.
        scene: the scene.
        picture: `(size, size, 3)` uint8.

    Returns:
        The proposals that overlap a ground-truth mask with an IoU above 0.5, one for each, and their class ids.
    """
    from scipy import ndimage

    smooth = np.asarray(Image.fromarray(picture).filter(ImageFilter.MedianFilter(7)), dtype=np.int16)
    proposals: list[np.ndarray] = []
    for row in range(8, picture.shape[0], 12):
        for column in range(8, picture.shape[1], 12):
            if any(proposal[row, column] for proposal in proposals):
                continue
            similar = np.abs(smooth - smooth[row, column]).max(axis=-1) < 48
            region = ndimage.label(similar)[0]
            proposals.append(ndimage.binary_fill_holes(region == region[row, column]))
    masks = torch.from_numpy(np.stack(proposals))
    ious = pairwise_mask_iou(scene.masks, masks)
    best, chosen = ious.max(dim=1)
    return masks[chosen[best > 0.5]], scene.class_ids[best > 0.5]


def compare(measured: Measured) -> dict[str, Any]:
    """Every method's value and interval for each kind, and the paired difference between adapter and best pooling."""
    estimates = {method: of_method.estimates() for method, of_method in measured.items()}
    result: dict[str, Any] = {
        method: {kind: of_method[kind].with_interval() for kind in KINDS} for method, of_method in estimates.items()
    }
    poolings = [method for method in measured if method.startswith("pooling/")]
    if poolings and "adapter" in measured:
        result["difference"] = {}
        for kind in KINDS:
            best = max(poolings, key=lambda method: estimates[method][kind].value)
            difference = estimates["adapter"][kind] - estimates[best][kind]
            result["difference"][kind] = {**difference.with_interval(), "best_pooling": best.partition("/")[2]}
    return result


def mean_over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of values and interval ends over runs, and the standard deviation of the values between them."""
    first = results[0]
    if "value" in first:
        means = {name: float(np.mean([one[name] for one in results])) for name in ("value", "low", "high")}
        means["seed_deviation"] = float(np.std([one["value"] for one in results]))
        return means | {name: value for name, value in first.items() if name not in means}
    return {name: mean_over_seeds([one[name] for one in results]) for name in first}


class PaperBenchmark:
    """Runs the parts on one miniature.

    Args:
        segmenter: the miniature.
        tokenizer: its tokenizer.
        settings: how much.
        output_dir: for each part's JSON, the adapters and the report.
    """

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        output_dir: Path,
    ):
        self.segmenter, self.tokenizer, self.settings, self.output_dir = segmenter, tokenizer, settings, output_dir
        self._claim_folder()
        self.vocabulary = self._encode(list(CLASS_NAMES))
        self.test_scenes = cache_scenes(segmenter, self.vocabulary, "test", settings.scenes)
        self._baselines: dict[str, Measured] = {}
        self._training_scenes: dict[str | None, CachedTrainingScenes] = {}

    def _claim_folder(self) -> None:
        """Note in the output folder what is measured; adapters and results of anything else are not gone on from."""
        digest = hashlib.sha256()
        for name, value in sorted(self.segmenter.state_dict().items()):
            digest.update(name.encode() + value.float().numpy().tobytes())
        claim_folder(self.output_dir, {**asdict(self.settings), "weights_sha256": digest.hexdigest()})

    def _encode(self, names: list[str]) -> EncodedVocabulary:
        return self.segmenter.encode_vocabulary(Vocabulary.from_list([[name] for name in names]), self.tokenizer)

    def _batches(self, withheld: str | None) -> CachedTrainingScenes:
        if withheld not in self._training_scenes:
            vocabulary = self._encode(training_class_names(withheld))
            settings = self.settings
            self._training_scenes[withheld] = CachedTrainingScenes(
                self.segmenter, vocabulary, settings.training_scenes, settings.batch_size, withheld
            )
        return self._training_scenes[withheld]

    def train(
        self,
        name: str,
        stage_class: Callable[..., AdapterStage],
        steps: int,
        seed: int,
        start: MaskAdapterForOpenVocabularySegmentation | None = None,
        num_output_maps: int | None = None,
        withheld: str | None = None,
        **options: Any,
    ) -> MaskAdapterForOpenVocabularySegmentation:
        """Train an adapter on the cached features; goes on from its checkpoint in the output folder.

        Args:
            name: of the folder with the checkpoints.
            stage_class: what is trained.
            steps: how long.
            seed: of the random weights and of the order of the scenes.
            start: continue from this model's adapter instead of random weights.
            num_output_maps: K; default the miniature's.
            withheld: see [`hf_maskadapter.data.scenes.base_combinations`].
            **options: of the stage.
        """
        model = with_new_adapter(self.segmenter, seed, num_output_maps)
        if start is not None:
            model.adapter.load_state_dict(start.adapter.state_dict())
        stage = stage_class(model, self._encode(training_class_names(withheld)), train_void=False, seed=seed, **options)
        batches = self._batches(withheld)
        started = time.perf_counter()
        steps_done = train_stage(
            stage,
            lambda step: batches(step, seed, generated=stage_class is not GroundTruthWarmup),
            Schedule(steps, self.settings.learning_rate * (0.5 if start is not None else 1.0)),
            self.output_dir / "adapters" / name,
        )
        if steps_done > 0:
            print(f"trained {name} ({steps_done} steps) in {time.perf_counter() - started:.0f} s", flush=True)
        model.requires_grad_(False)
        return model.eval()

    def _warmed_up(self, seed: int) -> MaskAdapterForOpenVocabularySegmentation:
        return self.train(f"warmup{seed}", GroundTruthWarmup, self.settings.steps, seed)

    def _mixed(self, name: str, seed: int, **options: Any) -> MaskAdapterForOpenVocabularySegmentation:
        start = self._warmed_up(seed)
        return self.train(f"{name}{seed}", MixedMaskTraining, self.settings.mixed_steps, seed, start, **options)

    def _main_adapter(self, seed: int) -> MaskAdapterForOpenVocabularySegmentation:
        return self._mixed("mixed", seed)

    def _over_seeds(self, measure: Callable[[int], Mapping[str, Any]]) -> dict[str, Any]:
        return mean_over_seeds([measure(seed) for seed in range(self.settings.seeds)])

    def _accuracies(
        self,
        of_seed: AdapterOfSeed,
        methods: Sequence[str] = ("adapter",),
        masks_of: MasksOfScene | None = None,
    ) -> dict[str, Any]:
        """Accuracies of the adapters of all seeds."""
        shared = (self.vocabulary, self.test_scenes, methods, masks_of)
        return self._over_seeds(lambda seed: compare(mask_accuracies(of_seed(seed), *shared)))

    def _everything(self, model: MaskAdapterForOpenVocabularySegmentation) -> dict[str, Any]:
        """All tables; what does not depend on the adapter is measured once."""
        tables: dict[str, Callable[..., Measured]] = {
            "ground_truth_masks_accuracy": mask_accuracies,
            "ground_truth_masks_mean_iou": partial(segmentation_counts, ground_truth_masks=True),
            "generated_masks_mean_iou": segmentation_counts,
            "generated_masks_mean_iou_out_of_vocabulary": partial(segmentation_counts, ensemble_weights=(1.0, 1.0)),
        }
        results = {}
        for table, measure in tables.items():
            arguments = (self.vocabulary, self.test_scenes)
            if table not in self._baselines:
                methods = (*POOLINGS, "crop") if table.startswith("ground_truth_masks") else POOLINGS
                self._baselines[table] = measure(self.segmenter, *arguments, methods)
            if table == "generated_masks_mean_iou" and "pooling/hard/own" not in self._baselines[table]:
                weighted = measure(self.segmenter, *arguments, POOLINGS, ensemble_weights=POOLING_ENSEMBLE)
                reweighted = {f"{method}/own": counts for method, counts in weighted.items()}
                self._baselines[table] = {**self._baselines[table], **reweighted}
            adapter = measure(model, *arguments, ("adapter",))
            results[table] = compare({**self._baselines[table], **adapter})
        return results

    def main(self) -> dict[str, Any]:
        """Crop, pooling and adapter with true and generated masks: the shipped adapter, and the mean over new ones."""
        return {
            "clip_zero_shot": zero_shot_accuracy(self.segmenter.clip, self.tokenizer),
            "generator": generator_recall(self.test_scenes, self.vocabulary.seen_classes),
            "shipped": self._everything(self.segmenter),
            "seeds": self._over_seeds(lambda seed: self._everything(self._main_adapter(seed))),
        }

    def stages(self) -> dict[str, Any]:
        """Stage 1 only, stage 2 only, both; IoU and Hungarian matching, with and without the consistency loss.

        Each with the difference from stage 1 only, seed by seed on the same scenes.
        """
        settings, mixed = self.settings, self._mixed
        models: dict[str, AdapterOfSeed] = {
            "stage 1 only": self._warmed_up,
            f"stage 1, {settings.mixed_steps} steps more": lambda seed: self.train(
                f"longer{seed}", GroundTruthWarmup, settings.mixed_steps, seed, self._warmed_up(seed)
            ),
            f"stage 2 only, {settings.ablation_steps} steps": lambda seed: self.train(
                f"mixed_only{seed}", MixedMaskTraining, settings.ablation_steps, seed
            ),
            "both, IoU matcher, consistency": self._main_adapter,
            "both, IoU matcher": lambda seed: mixed("iou", seed, consistency_weight=0.0),
            "both, Hungarian, consistency": lambda seed: mixed("hungarian_consistency", seed, matcher="hungarian"),
            "both, Hungarian": lambda seed: mixed("hungarian", seed, matcher="hungarian", consistency_weight=0.0),
        }
        reference = next(iter(models))
        measures: dict[str, Callable[..., Measured]] = {
            "ground_truth_masks_accuracy": mask_accuracies,
            "generated_masks_mean_iou": segmentation_counts,
        }

        def measure(seed: int) -> dict[str, Any]:
            estimates: dict[str, Any] = {
                name: {
                    table: count(of_seed(seed), self.vocabulary, self.test_scenes, ("adapter",))["adapter"].estimates()
                    for table, count in measures.items()
                }
                for name, of_seed in models.items()
            }
            return {
                name: {
                    table: {
                        "adapter": {kind: estimate.with_interval() for kind, estimate in of_kind.items()},
                        "difference": {
                            kind: (estimate - estimates[reference][table][kind]).with_interval()
                            for kind, estimate in of_kind.items()
                        },
                    }
                    for table, of_kind in tables.items()
                }
                for name, tables in estimates.items()
            }

        return self._over_seeds(measure)

    def _of_maps(self, number: int, seed: int) -> MaskAdapterForOpenVocabularySegmentation:
        steps = self.settings.ablation_steps
        return self.train(f"maps{number}_{seed}", GroundTruthWarmup, steps, seed, num_output_maps=number)

    def maps(self) -> dict[str, Any]:
        """Numbers of semantic activation maps."""
        return {str(number): self._accuracies(partial(self._of_maps, number)) for number in MAPS}

    def sources(self) -> dict[str, Any]:
        """Masks that no adapter was trained with: perturbed ground truth, and a point-grid proposer's."""
        pictures = [self._picture(scene) for scene in self.test_scenes]
        sources: dict[str, MasksOfScene] = {
            "perturbed ground truth": perturbed_masks,
            "point grid": lambda index, scene: point_grid_masks(index, scene, pictures[index]),
        }
        methods = (*POOLINGS, "adapter")
        return {name: self._accuracies(self._main_adapter, methods, masks_of) for name, masks_of in sources.items()}

    @staticmethod
    def _picture(scene: CachedScene) -> np.ndarray:
        pixels = scene.pixel_values[0].permute(1, 2, 0) * torch.tensor(IMAGE_STD) + torch.tensor(IMAGE_MEAN)
        return pixels.round().clamp(0, 255).byte().numpy()

    def withheld(self) -> dict[str, Any]:
        """An adapter that never saw a mask of one shape, on the masks of that shape."""
        ids = {index for index, combination in enumerate(COMBINATIONS) if WITHHELD in combination.name.split()}

        def of_withheld(_index: int, scene: CachedScene) -> tuple[Tensor, Tensor]:
            chosen = torch.tensor([class_id in ids for class_id in scene.class_ids.tolist()], dtype=torch.bool)
            return scene.masks[chosen], scene.class_ids[chosen]

        models: dict[str, AdapterOfSeed] = {
            f"never a mask of a {WITHHELD}": lambda seed: self.train(
                f"without_{WITHHELD}{seed}", GroundTruthWarmup, self.settings.steps, seed, withheld=WITHHELD
            ),
            "all shapes": self._warmed_up,
        }
        methods = (*POOLINGS, "adapter")
        return {name: self._accuracies(of_seed, methods, of_withheld) for name, of_seed in models.items()}

    def run(self, parts: Sequence[str] = PARTS) -> dict[str, Any]:
        """Measure the parts that are not yet in the output folder, and write the report of all that is there.

        Raises:
            ImportError: if Matplotlib, which draws the report, or what a part needs is not installed.
        """
        figure_class()  # before hours of training, not after
        if "sources" in parts and importlib.util.find_spec("scipy") is None:
            raise ImportError("Masks of other sources need SciPy: pip install 'hf-maskadapter[benchmark]'.")
        for part in PARTS:
            path = self.output_dir / f"{part}.json"
            if part in parts and not path.exists():
                started = time.perf_counter()
                write_json(path, getattr(self, part)(), indent=2)
                print(f"{part}: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
        results = self._results()
        write_text(self.output_dir / "paper.md", report(results, self.settings) + "\n")
        figures = {"paper_ablations.png": ablation_tables(results, self.settings)}
        if "main" in results:
            figures["paper.png"] = main_tables(results["main"])
        for name, tables in figures.items():
            if tables:
                write_atomically(self.output_dir / name, partial(plot(tables).savefig, format="png"))
        return results

    def _results(self) -> dict[str, Any]:
        """All parts that are in the output folder, of whatever run."""
        results: dict[str, Any] = {}
        for part in PARTS:
            path = self.output_dir / f"{part}.json"
            if path.exists():
                results[part] = json.loads(path.read_text(encoding="utf-8"))
        return results
