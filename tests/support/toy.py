"""A toy world to train tiny models on: coloured rectangles, and runs on them that a test configures.

Run as a program it trains in a process of its own, also under `torch.distributed.run`.
"""

import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from PIL import Image
from safetensors.torch import save_file

from hf_maskadapter.cli.errors import leave_process_group
from hf_maskadapter.data import (
    SegmentationSample,
    SegmentInfo,
    TrainingTransform,
    collate_training_samples,
    create_training_loader,
)
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from hf_maskadapter.training.generator_stage import MaskGeneratorTraining
from hf_maskadapter.training.optimization import LearningRateSchedule, parameter_groups
from hf_maskadapter.training.options import MaskLossOptions
from hf_maskadapter.training.trainer import Trainer, TrainerSettings
from support import tiny_models

NAMES = ["cat", "sky", "road", "tree", "lamp", "boat"]
COLORS = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [220, 220, 40], [220, 40, 220], [40, 220, 220]])
SIDE = 64


class Rectangles:
    """Pictures of coloured rectangles on grey; the colour is the class. The first pictures hold the fewest."""

    name = "rectangles"

    def __init__(self, num_samples=8, min_masks=0, delay=0.0):
        self.num_samples = num_samples
        self.min_masks = min_masks
        self.delay = delay

    def __len__(self):
        return self.num_samples

    def read(self, item):
        time.sleep(self.delay)
        rng = np.random.default_rng(item)
        pixels = np.full((SIDE, SIDE, 3), 120)
        segmentation = np.zeros((SIDE, SIDE), dtype=np.int32)
        segments = []
        for number in range(1, 1 + self.min_masks + item % 4):
            top, left = 16 * rng.integers(0, 3, 2)
            height, width = 16 * rng.integers(1, 3, 2)
            category = int(rng.integers(len(NAMES)))
            area = np.s_[top : top + height, left : left + width]
            pixels[area], segmentation[area] = COLORS[category], number
            segments.append(SegmentInfo(number, category, True))
        noisy = np.clip(pixels + rng.integers(-10, 10, pixels.shape), 0, 255).astype(np.uint8)
        present = tuple(segment for segment in segments if (segmentation == segment.id).any())
        return SegmentationSample(str(item), Image.fromarray(noisy), segmentation, present, True, f"{item}.png")


def transform(**changes):
    options = {"crop_size": SIDE, "scale_range": (0.8, 1.2)}
    return TrainingTransform(**options | changes)


def segmenter(**changes):
    """A tiny segmenter whose features are fine enough for the rectangles."""
    fields = {
        "clip_config": tiny_models.clip_config(patch_size=2, kernel_sizes=3),
        "mask_generator_config": generator_config(),
    }
    return tiny_models.segmenter(**fields | changes)


def generator_config(**changes):
    return tiny_models.generator_config(feature_strides=[2, 4, 8, 16], common_stride=2, **changes)


def vocabulary(model):
    return model.encode_vocabulary(NAMES, tiny_models.CharacterTokenizer())


def stage(name, model=None, **options):
    """A stage on a tiny model. Its generator is random, yet matches some; embeddings of a random CLIP are almost
    parallel, so the consistency loss has a great weight."""
    model = model if model is not None else segmenter()
    if name == "warmup":
        return GroundTruthWarmup(model, vocabulary(model), **options)
    if name == "mixed":
        options = {
            "iou_threshold": 0.02,
            "max_ground_truth_masks": 2,
            "max_matches": 2,
            "consistency_weight": 1000.0,
        } | options
        return MixedMaskTraining(model, vocabulary(model), **options)
    return MaskGeneratorTraining(model, vocabulary(model), MaskLossOptions(num_points=64), **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the toy world is trained on.

    To compare runs that differ by rounding, choose `optimizer="sgd"`: AdamW makes steps of the learning rate's size out
    of gradients that are nothing but rounding.

    Args:
        steps: length of the run.
        batch_size: pictures in a step, over all processes and accumulated batches.
        accumulation: batches of a process in a step.
        delay: seconds that reading a picture takes.
        num_workers: processes that read.
        learning_rate: at its peak.
        optimizer: "adamw" or "sgd".
        mixed_precision: as Accelerate calls it.
        fsdp: whether to shard.
    """

    steps: int = 4
    batch_size: int = 4
    accumulation: int = 1
    delay: float = 0.0
    num_workers: int = 0
    learning_rate: float = 1e-2
    optimizer: str = "adamw"
    mixed_precision: str = "no"
    fsdp: bool = False


def trainer(output_dir, name="warmup", *, of_stage=None, source=None, validate=None, **options):
    """A trainer on the toy world.

    Args:
        output_dir: where checkpoints and logs go.
        name: the stage's name.
        of_stage: the stage, if not a new one.
        source: the pictures, if not those of the toy world.
        validate: see `Trainer`.
        **options: fields of [`RunOptions`] and of `TrainerSettings`.
    """
    names = {field.name for field in dataclasses.fields(RunOptions)}
    run = RunOptions(**{option: value for option, value in options.items() if option in names})
    settings = {option: value for option, value in options.items() if option not in names}
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=run.accumulation, mixed_precision=run.mixed_precision
    )
    if run.fsdp:
        shard_fully(accelerator)
    of_stage = of_stage if of_stage is not None else stage(name)
    loader = create_training_loader(
        source if source is not None else Rectangles(delay=run.delay),
        transform(),
        run.batch_size // (accelerator.num_processes * run.accumulation),
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        num_workers=run.num_workers,
        collate=partial(collate_training_samples, mask_labels=False),
    )
    groups = parameter_groups(of_stage, 0.05)
    sgd = run.optimizer == "sgd"
    return Trainer(
        of_stage,
        loader,
        torch.optim.SGD(groups, run.learning_rate, 0.9) if sgd else torch.optim.AdamW(groups, run.learning_rate),
        LearningRateSchedule("cosine", run.steps, warmup_steps=min(2, run.steps)),
        accelerator,
        TrainerSettings(
            Path(output_dir),
            max_steps=run.steps,
            gradient_accumulation_steps=run.accumulation,
            logging_steps=2,
            **settings,
        ),
        validate,
    )


def shard_fully(accelerator):
    """Have Accelerate shard with FSDP on the CPU, where it offers plain data parallelism only."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
    for state in (PartialState._shared_state, accelerator.state._shared_state):
        state["distributed_type"] = DistributedType.FSDP
    accelerator.state._shared_state["fsdp_plugin"] = plugin


def reset_accelerate():
    """Forget the precision and accumulation that Accelerate keeps in the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def main(arguments):
    """Train once for each run in a JSON list of keyword arguments, with `resume` for `Trainer.train` and `weights_file`
    to save whole weights in."""
    torch.set_num_threads(1)
    for run in json.loads(arguments):
        resume, weights_file = run.pop("resume", None), run.pop("weights_file", None)
        of_run = trainer(**run)
        of_run.train(resume)
        if weights_file is not None:
            weights = of_run.accelerator.get_state_dict(of_run.prepared_stage)
            if of_run.accelerator.is_main_process:
                save_file(weights, weights_file)
        reset_accelerate()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    finally:
        leave_process_group()
