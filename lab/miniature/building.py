"""Building the miniature: CLIP, mask generator and adapter, trained from seeds by the package's own stages and loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CLIPTokenizer

from hf_maskadapter.data.options import option
from hf_maskadapter.data.scenes import CLASS_NAMES, base_combinations, training_class_names
from hf_maskadapter.files import folder_lock, write_json
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from hf_maskadapter.training.clip_stage import ContrastivePretraining, spread_text_embeddings
from hf_maskadapter.training.generator_stage import MaskGeneratorTraining
from hf_maskadapter.training.options import MaskLossOptions
from hf_maskadapter.training.stage import SegmenterStage
from lab.miniature.measuring import (
    METHODS,
    Accuracies,
    IntersectionsAndUnions,
    cache_scenes,
    generator_recall,
    mask_accuracies,
    segmentation_counts,
)
from lab.miniature.pretraining import Curriculum, build_clip_config, build_tokenizer, zero_shot_accuracy
from lab.miniature.segmenter import build_segmenter, build_segmenter_config, save_segmenter
from lab.miniature.training import SceneBatches, Schedule, finished_steps, train_stage, trained_weights

PARTS = ("clip", "generator", "warmup", "mixed", "export", "results")
"""What is built, in this order; each part needs the ones before."""

MINUTES = {"clip": 25, "generator": 40, "warmup": 25, "mixed": 10, "export": 1, "results": 15}
"""Time budget of each part on one core that nothing else uses; a part that takes longer says so and goes on."""

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class BuildSettings:
    """What is built. The defaults are those of the embedded checkpoint.

    Args:
        seed: of all random weights and training scenes.
        clip_steps, clip_batch_size: length of CLIP's pre-training.
        generator_steps, warmup_steps, mixed_steps: lengths of the generator's training and of the adapter's two stages.
        generator_batch_size, adapter_batch_size: scenes a batch in these three.
        scenes: how many scenes of `split` results are measured on.
        split: `"validation"` while choosing, `"test"` for what is published.
        withheld: see [`hf_maskadapter.data.scenes.base_combinations`].

    Raises:
        ValueError: if a number is out of range, or `withheld` is no value of an attribute.
    """

    seed: int = option("of all random weights and training scenes", 0)
    clip_steps: int = option("steps of CLIP's pre-training", 3000)
    clip_batch_size: int = option("pictures in each of them", 64)
    generator_steps: int = option("steps of the mask generator's training", 4000)
    warmup_steps: int = option("steps of the adapter's stage 1; 0 leaves it out", 2000)
    mixed_steps: int = option("steps of the adapter's stage 2; 0 leaves it out", 150)
    generator_batch_size: int = option("scenes in a step of the generator's", 4)
    adapter_batch_size: int = option("scenes in a step of the adapter's", 8)
    scenes: int = option("scenes that results are measured on", 300)
    split: Literal["validation", "test"] = option("their split", "validation")
    withheld: str | None = option("value of an attribute to withhold from all training masks, e.g. heart", None)

    def __post_init__(self) -> None:
        least = {"seed": 0, "warmup_steps": 0, "mixed_steps": 0}
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < least.get(name, 1):
                raise ValueError(f"{name} must be at least {least.get(name, 1)}, got {value}.")
        base_combinations(self.withheld)

    @property
    def of_training(self) -> dict[str, Any]:
        """Those that decide what weights come out."""
        return {name: value for name, value in asdict(self).items() if name not in ("scenes", "split")}


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note in a folder what its unfinished work is made with, so that nothing goes on from work of another kind.

    Args:
        folder: made if it is not there.
        settings: as JSON can hold them.

    Raises:
        ValueError: if the folder holds work that was made with others.
    """
    path = folder / SETTINGS_FILE
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
        if changed:
            differences = ", ".join(f"{name} {stored.get(name)!r}, now {settings.get(name)!r}" for name in changed)
            raise ValueError(
                f"{folder} holds work with other settings ({differences}): give the same ones, or another folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty and does not say what it holds: give another folder.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings, indent=2)


def train_clip(tokenizer: CLIPTokenizer, settings: BuildSettings, output_dir: Path) -> ConvNextClipModel:
    """Pre-train the miniature's CLIP; its logit scale stays at its initial 40, so that attributes do not compete."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        clip = ConvNextClipModel(build_clip_config(tokenizer))
    spread_text_embeddings(clip, [tokenizer.bos_token_id, tokenizer.eos_token_id], settings.seed)
    clip.logit_scale.requires_grad_(False)
    stage = ContrastivePretraining(clip, text_learning_rate_scale=0.15)
    curriculum = Curriculum(tokenizer, settings.clip_batch_size, settings.clip_steps)
    train_stage(
        stage,
        lambda step: curriculum(step, stage.memory),
        Schedule(settings.clip_steps, 1e-3, 100, "cosine_after_warmup", (0.9, 0.98)),
        output_dir,
    )
    return clip


@dataclass(frozen=True)
class SegmenterPart:
    """How a part of the segmenter is trained.

    Args:
        build_stage: makes the stage.
        learning_rate: its peak.
        max_steps: optimiser steps; 0 leaves the part out.
        batches: makes a step's batch.
    """

    build_stage: Callable[[], SegmenterStage]
    learning_rate: float
    max_steps: int
    batches: SceneBatches


def segmenter_parts(
    segmenter: MaskAdapterForOpenVocabularySegmentation, tokenizer: CLIPTokenizer, settings: BuildSettings
) -> dict[str, SegmenterPart]:
    """The parts that are trained after the CLIP, in their order."""
    classes = [[name] for name in training_class_names(settings.withheld)]
    vocabulary = segmenter.encode_vocabulary(Vocabulary.from_list(classes), tokenizer)

    points = MaskLossOptions(num_points=256, num_matching_points=400)

    def batches(number: int, size: int) -> SceneBatches:
        return SceneBatches(size, 1000 * settings.seed + number, settings.withheld)

    return {
        "generator": SegmenterPart(
            lambda: MaskGeneratorTraining(segmenter, vocabulary, points),
            1.5e-3,
            settings.generator_steps,
            batches(1, settings.generator_batch_size),
        ),
        "warmup": SegmenterPart(
            lambda: GroundTruthWarmup(segmenter, vocabulary, train_void=False),
            2e-3,
            settings.warmup_steps,
            batches(2, settings.adapter_batch_size),
        ),
        "mixed": SegmenterPart(
            lambda: MixedMaskTraining(segmenter, vocabulary, train_void=False),
            1e-3,
            settings.mixed_steps,
            batches(3, settings.adapter_batch_size),
        ),
    }


def require_finished(output_dir: Path, part: str, steps: int) -> None:
    """Check that a part was trained to its end.

    Raises:
        ValueError: if not.
    """
    done = finished_steps(output_dir)
    if done < steps:
        raise ValueError(f"{output_dir} holds {done} of {steps} steps: build the part {part!r} first.")


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Say how long a part took, and whether it was longer than its budget."""
    started = time.perf_counter()
    yield
    minutes = (time.perf_counter() - started) / 60
    late = f", over its budget of {MINUTES[part]}" if minutes > MINUTES[part] else ""
    print(f"{part}: {minutes:.1f} minutes{late}", flush=True)


def build_miniature(
    work_dir: Path, output_dir: Path, settings: BuildSettings | None = None, parts: Sequence[str] = PARTS
) -> None:
    """Build the miniature; finished steps in `work_dir` are not done again.

    Args:
        work_dir: for the parts' checkpoints and logs.
        output_dir: for the finished checkpoint and `results.json`.
        settings: what is built.
        parts: which of `PARTS`; the ones before must be finished in `work_dir`.

    Raises:
        ValueError: if a part before those is not finished, or `work_dir` holds work with other settings.
        hf_maskadapter.files.FolderInUseError: if another run works in `work_dir`.
        hf_maskadapter.training.interruption.TrainingInterrupted: after Ctrl-C or SIGTERM while a part was trained.
    """
    settings = settings or BuildSettings()
    claim_folder(work_dir, settings.of_training)
    with folder_lock(work_dir, "build the miniature"):
        _build(work_dir, output_dir, settings, parts)


def _build(work_dir: Path, output_dir: Path, settings: BuildSettings, parts: Sequence[str]) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    lengths = {part: getattr(settings, f"{part}_steps") for part in ("clip", "generator", "warmup", "mixed")}
    for part in PARTS[: max(PARTS.index(part) for part in parts)]:
        if lengths.get(part) and part not in parts:
            require_finished(work_dir / part, part, lengths[part])

    with timed("clip"):
        clip = train_clip(tokenizer, settings, work_dir / "clip")
    segmenter = build_segmenter(clip, build_segmenter_config(clip.config, settings.withheld), settings.seed)
    for name, training in segmenter_parts(segmenter, tokenizer, settings).items():
        folder = work_dir / name
        if training.max_steps == 0:
            continue
        if name in parts:
            with timed(name):
                schedule = Schedule(training.max_steps, training.learning_rate)
                train_stage(training.build_stage(), training.batches, schedule, folder)
        elif finished_steps(folder):
            segmenter.load_state_dict(trained_weights(folder), strict=False)
    segmenter.eval()
    if "export" in parts:
        with timed("export"):
            save_segmenter(segmenter, tokenizer, output_dir)
    if "results" in parts:
        with timed("results"):
            results = measure(segmenter, tokenizer, settings)
        write_json(output_dir / "results.json", results, indent=2)


def measure(
    segmenter: MaskAdapterForOpenVocabularySegmentation, tokenizer: CLIPTokenizer, settings: BuildSettings
) -> dict[str, Any]:
    """Every number that the checkpoint is described by, with the settings that they were measured with."""
    vocabulary = segmenter.encode_vocabulary(Vocabulary.from_list([[name] for name in CLASS_NAMES]), tokenizer)
    scenes = cache_scenes(segmenter, vocabulary, settings.split, settings.scenes)
    shared = (segmenter, vocabulary, scenes)
    end_to_end = tuple(method for method in METHODS if method != "crop")

    def values(measured: Mapping[str, Accuracies | IntersectionsAndUnions]) -> dict[str, dict[str, float]]:
        return {method: {k: v.value / 100 for k, v in of.estimates().items()} for method, of in measured.items()}

    return {
        "settings": asdict(settings),
        "clip_zero_shot": zero_shot_accuracy(segmenter.clip, tokenizer),
        "generator": generator_recall(scenes, vocabulary.seen_classes),
        "ground_truth_masks_accuracy": values(mask_accuracies(*shared)),
        "ground_truth_masks_mean_iou": values(segmentation_counts(*shared, end_to_end, ground_truth_masks=True)),
        "generated_masks_mean_iou": values(segmentation_counts(*shared, end_to_end)),
        "generated_masks_mean_iou_out_of_vocabulary": values(
            segmentation_counts(*shared, end_to_end, ensemble_weights=(1.0, 1.0))
        ),
    }


__all__ = ["PARTS", "BuildSettings", "build_miniature", "claim_folder", "measure"]
