"""Building the miniature: CLIP, mask generator and adapter, trained from seeds by the package's own stages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from hf_maskadapter.data.scenes import (
    CLASS_NAMES,
    base_combinations,
    draw_scene,
    split_combinations,
    split_seed,
    training_class_names,
)
from hf_maskadapter.files import write_atomically, write_json
from hf_maskadapter.miniature.known_world import KnownWorld
from hf_maskadapter.model.configuration_clips import ConvNextClipConfig
from hf_maskadapter.model.configuration_mask_generators import FcClipMaskGeneratorConfig
from hf_maskadapter.model.configuration_maskadapter import MaskAdapterConfig
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.training.contrastive import ContrastiveArguments, ContrastiveTrainer, spread_text_embeddings
from hf_maskadapter.training.optimization import LearningRateSchedule, parameter_groups
from hf_maskadapter.training.stages import GroundTruthWarmup, MaskGeneratorTraining, MixedMaskTraining, SegmenterStage
from lab.miniature.measuring import (
    METHODS,
    Accuracies,
    IntersectionsAndUnions,
    cache_scenes,
    evaluation_scenes,
    generator_recall,
    mask_accuracies,
    scene_masks,
    segmentation_counts,
)
from lab.miniature.pretraining import (
    Curriculum,
    build_clip_config,
    build_tokenizer,
    normalize_pictures,
    zero_shot_accuracy,
)

PARTS = ("clip", "generator", "warmup", "mixed", "export", "results")
"""What is built, in this order; each part needs the ones before."""

MINUTES = {"clip": 25, "generator": 40, "warmup": 25, "mixed": 10, "export": 1, "results": 15}
"""Time budget of each part on one core that nothing else uses; a part that takes longer says so and goes on."""

SETTINGS_FILE = "settings.json"

SCENES_OF_KNOWN_WORLD = 400
"""Scenes that say what the miniature knows, and as many more for the threshold."""


def build_segmenter_config(clip_config: ConvNextClipConfig, withheld: str | None = None) -> MaskAdapterConfig:
    """The miniature's architecture: 24 queries, 3 decoder layers, an adapter of 128 channels with 16 maps.

    The ensemble's weights and the overlap threshold were chosen on validation scenes.
    """
    generator = FcClipMaskGeneratorConfig(
        feature_channels=clip_config.feature_channels,
        feature_strides=clip_config.feature_strides,
        text_embed_dim=clip_config.projection_dim,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_feedforward_dim=256,
        dim_feedforward=256,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=4,
        num_queries=24,
    )
    return MaskAdapterConfig(
        clip_config=clip_config,
        mask_generator_config=generator,
        hidden_size=128,
        num_blocks=3,
        layer_scale_init_value=0.1,
        training_vocabulary=[[name] for name in training_class_names(withheld)],
        ensemble_alpha=0.55,
        ensemble_beta=0.8,
        overlap_threshold=0.5,
    )


def build_segmenter(clip: nn.Module, config: MaskAdapterConfig, seed: int) -> MaskAdapterForOpenVocabularySegmentation:
    """A segmenter with a trained CLIP and everything else initialised from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = MaskAdapterForOpenVocabularySegmentation(config)
    segmenter.clip.load_state_dict(clip.state_dict())
    return segmenter.eval()


class SceneBatches:
    """Training batches of freshly drawn scenes, a function of the step.

    Args:
        batch_size: scenes a batch.
        seed: batches of different seeds show different scenes.
        withheld: see [`hf_maskadapter.data.scenes.base_combinations`].
    """

    def __init__(self, batch_size: int, seed: int = 0, withheld: str | None = None):
        self.batch_size, self.seed, self.withheld = batch_size, seed, withheld
        self.label_of = {name: label for label, name in enumerate(training_class_names(withheld))}
        self.combinations = split_combinations("train", withheld)

    def __call__(self, step: int) -> dict[str, Any]:
        """The batch of a step, as [`hf_maskadapter.training.stages.SegmenterStage`] takes it."""
        indices = [step * self.batch_size + index for index in range(self.batch_size)]
        scenes = [draw_scene((*split_seed("train"), self.seed, index), None, self.combinations) for index in indices]
        flips = np.random.default_rng((self.seed, step)).random(self.batch_size) < 0.5
        pictures, masks, labels = [], [], []
        for scene, flip in zip(scenes, flips, strict=True):
            of_scene, classes = scene_masks(scene)
            pictures.append(np.ascontiguousarray(scene.picture[:, ::-1]) if flip else scene.picture)
            masks.append(of_scene.flip(-1) if flip else of_scene)
            labels.append(torch.tensor([self.label_of[CLASS_NAMES[category]] for category in classes]))
        return {
            "pixel_values": normalize_pictures(pictures),
            "mask_labels": masks,
            "class_labels": labels,
            "sample_id": [str(index) for index in indices],
            "epoch": torch.zeros(self.batch_size, dtype=torch.long),
        }


def train_stage(
    stage: SegmenterStage,
    batches: Callable[[int], Mapping[str, Any]],
    *,
    max_steps: int,
    learning_rate: float,
    weight_decay: float = 0.05,
    warmup_steps: int = 50,
    checkpoint_path: str | os.PathLike | None = None,
    checkpoint_steps: int = 100,
    report: Callable[[dict[str, float]], None] | None = None,
    report_steps: int = 50,
) -> int:
    """Train a stage on one CPU process in bf16: AdamW, warm-up then cosine, clipping at 1; resumes from its checkpoint.

    Args:
        stage: what is trained.
        batches: gives a step's batch.
        max_steps, learning_rate, weight_decay, warmup_steps: the schedule.
        checkpoint_path: file to write to and to resume from; None for neither.
        checkpoint_steps: write so often.
        report: called with the mean losses since the last report.
        report_steps: so often.

    Returns:
        How many steps were left to do.
    """
    optimizer = torch.optim.AdamW(parameter_groups(stage, weight_decay), lr=learning_rate, fused=True)
    schedule = LearningRateSchedule("cosine", max_steps, min(warmup_steps, max_steps))
    path = Path(checkpoint_path) if checkpoint_path is not None else None
    step = 0
    if path is not None and path.exists():
        state = torch.load(path, weights_only=True)
        stage.load_state_dict(state["stage"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    sums: dict[str, float] = {}
    started, first = time.perf_counter(), step
    stage.train()
    while step < max_steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(step)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                prepared = stage.prepare(batches(step))
            output = stage(prepared.inputs, {name: count or 1.0 for name, count in prepared.counts.items()})
        sum(output["losses"].values()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        for name, value in {**output["losses"], **output["sums"]}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if report is not None and step % report_steps == 0:
            losses = {name: sums[name] / report_steps for name in output["losses"]}
            of_sums = stage.report({name: sums[name] for name in output["sums"]})
            report(
                {
                    "step": step,
                    **losses,
                    **of_sums,
                    "seconds_per_step": (time.perf_counter() - started) / (step - first),
                }
            )
            sums = {}
        if path is not None and (step % checkpoint_steps == 0 or step == max_steps):
            path.parent.mkdir(parents=True, exist_ok=True)
            state = {"stage": stage.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            write_atomically(path, partial(torch.save, state), sync=True)
    stage.eval()
    return max_steps - first


@torch.no_grad()
def save_segmenter(
    segmenter: MaskAdapterForOpenVocabularySegmentation, tokenizer: CLIPTokenizer, folder: str | os.PathLike
) -> None:
    """Write model, processor and what the model knows in the form that [`load_miniature`] reads."""
    from hf_maskadapter.model.image_processing_maskadapter import MaskAdapterImageProcessorPil
    from hf_maskadapter.model.processing_maskadapter import MaskAdapterProcessor

    image_processor = MaskAdapterImageProcessorPil(
        size={"shortest_edge": 192, "longest_edge": 320}, size_divisor=segmenter.config.clip_config.size_divisor
    )
    segmenter.save_pretrained(folder)
    MaskAdapterProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)

    def features(split: str) -> Iterator[Tensor]:
        for scene in evaluation_scenes(split, SCENES_OF_KNOWN_WORLD):
            yield segmenter.clip.get_feature_maps(normalize_pictures([scene.picture]))[-1]

    KnownWorld.of_scenes(features("train"), features("validation")).save(folder)


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

    seed: int = 0
    clip_steps: int = 3000
    clip_batch_size: int = 64
    generator_steps: int = 4000
    warmup_steps: int = 2000
    mixed_steps: int = 150
    generator_batch_size: int = 4
    adapter_batch_size: int = 8
    scenes: int = 300
    split: str = "validation"
    withheld: str | None = None

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


def train_clip(
    tokenizer: CLIPTokenizer, settings: BuildSettings, checkpoint_path: Path, report: Callable[[dict[str, float]], None]
) -> ConvNextClipModel:
    """Pre-train the miniature's CLIP; its logit scale stays at its initial 40, so that attributes do not compete."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        clip = ConvNextClipModel(build_clip_config(tokenizer))
    spread_text_embeddings(clip, [tokenizer.bos_token_id, tokenizer.eos_token_id], settings.seed)
    clip.logit_scale.requires_grad_(False)
    return ContrastiveTrainer(
        clip,
        Curriculum(tokenizer, settings.clip_batch_size, settings.clip_steps),
        ContrastiveArguments(max_steps=settings.clip_steps, text_learning_rate_scale=0.15),
        checkpoint_path,
        report=report,
    ).train()


def load_stage(segmenter: MaskAdapterForOpenVocabularySegmentation, checkpoint_path: Path) -> None:
    """Put what a stage has trained into a segmenter."""
    segmenter.load_state_dict(torch.load(checkpoint_path, weights_only=True)["stage"], strict=False)


def require_finished(checkpoint_path: Path, part: str, steps: int) -> None:
    """Check that a part was trained to its end.

    Raises:
        ValueError: if not.
    """
    done = int(torch.load(checkpoint_path, weights_only=True)["step"]) if checkpoint_path.exists() else 0
    if done < steps:
        raise ValueError(f"{checkpoint_path} holds {done} of {steps} steps: build the part {part!r} first.")


def build_miniature(
    work_dir: Path, output_dir: Path, settings: BuildSettings | None = None, parts: Sequence[str] = PARTS
) -> None:
    """Build the miniature; finished steps in `work_dir` are not done again.

    Args:
        work_dir: for the parts' checkpoints.
        output_dir: for the finished checkpoint and `results.json`.
        settings: what is built.
        parts: which of `PARTS`; the ones before must be finished in `work_dir`.

    Raises:
        ValueError: if a part before those is not finished, or `work_dir` holds work with other settings.
    """
    settings = settings or BuildSettings()
    claim_folder(work_dir, settings.of_training)
    output_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()

    def timed(part: str, work: Callable[[Callable[[dict[str, float]], None]], Any]) -> Any:
        started = time.perf_counter()
        result = work(lambda numbers: print(part, json.dumps({k: round(v, 4) for k, v in numbers.items()}), flush=True))
        minutes = (time.perf_counter() - started) / 60
        late = f", over its budget of {MINUTES[part]}" if minutes > MINUTES[part] else ""
        print(f"{part}: {minutes:.1f} minutes{late}", flush=True)
        return result

    lengths = {part: getattr(settings, f"{part}_steps") for part in ("clip", "generator", "warmup", "mixed")}
    for part in PARTS[: max(PARTS.index(part) for part in parts)]:
        if lengths.get(part) and part not in parts:
            require_finished(work_dir / f"{part}.pt", part, lengths[part])

    clip = timed("clip", lambda report: train_clip(tokenizer, settings, work_dir / "clip.pt", report))
    segmenter = build_segmenter(clip, build_segmenter_config(clip.config, settings.withheld), settings.seed)
    vocabulary = segmenter.encode_vocabulary(
        Vocabulary.from_list([[name] for name in training_class_names(settings.withheld)]), tokenizer
    )
    stages: dict[str, tuple[Callable[[], SegmenterStage], float]] = {
        "generator": (
            lambda: MaskGeneratorTraining(segmenter, vocabulary, num_points=256, num_matching_points=400),
            1.5e-3,
        ),
        "warmup": (lambda: GroundTruthWarmup(segmenter, vocabulary, train_void=False), 2e-3),
        "mixed": (lambda: MixedMaskTraining(segmenter, vocabulary, train_void=False), 1e-3),
    }
    sizes = {1: settings.generator_batch_size, 2: settings.adapter_batch_size, 3: settings.adapter_batch_size}
    for number, (part, (build_stage, learning_rate)) in enumerate(stages.items(), start=1):
        path, steps = work_dir / f"{part}.pt", lengths[part]
        if part in parts and steps > 0:
            timed(
                part,
                lambda report, build=build_stage, n=number, s=steps, rate=learning_rate, file=path: train_stage(
                    build(),
                    SceneBatches(sizes[n], 1000 * settings.seed + n, settings.withheld),
                    max_steps=s,
                    learning_rate=rate,
                    checkpoint_path=file,
                    report=report,
                ),
            )
        elif path.exists() and steps > 0:
            load_stage(segmenter, path)
    segmenter.eval()
    if "export" in parts:
        timed("export", lambda report: save_segmenter(segmenter, tokenizer, output_dir))
    if "results" in parts:
        results = timed("results", lambda report: measure(segmenter, tokenizer, settings))
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
