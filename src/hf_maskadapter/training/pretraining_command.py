"""What `scripts/pretrain_clip.py` does: train a model's CLIP on pictures with captions or on annotated segments.

The result is a complete model that `scripts/train.py` goes on from. Its mask generator, adapter and void embedding are
those of the model that was started from, fitted to the features of the CLIP as it was: good to start from, to be
trained next. With a new CLIP nothing in them is of use, and they get new weights, too.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data import DataError, SegmentationStream, create_training_loader
from ..data.captions import CropCollator, PictureCrops, SegmentCrops, load_captioned_pictures
from ..data.sampling import sample_generator
from ..files import replacing_folder, write_json
from ..hub.cards import CARD_NAME, training_card
from ..hub.errors import explaining
from ..miniature import checkpoint_path
from ..model.modeling_clip import ConvolutionalClipModel
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..provenance import versions
from .checkpoints import CheckpointError
from .command import ARGUMENTS_FILE, MODEL_FOLDER, RESULT_FILE, message_of_worker, open_dataset
from .contrastive import ContrastiveArguments, ContrastiveBatch, ContrastiveTrainer, spread_text_embeddings
from .pretraining_arguments import PretrainingArguments
from .step_log import StepLog
from .trainer import STEP_LOG, warn_of_changes

CHECKPOINT_FILE = "checkpoint.pt"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PretrainingResult:
    """What a pre-training leaves behind.

    Args:
        step: optimiser steps done.
        loss: the last step's.
        accuracy: running share of the crops whose nearest caption in the batch is their own or equals it.
        seconds: time spent in steps since the run was started or gone on with.
    """

    step: int
    loss: float
    accuracy: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class CropData:
    """The training data of a pre-training.

    Args:
        loader: endless batches of this process, as [`CropCollator`] makes them.
        templates: texts with one `{}`, where a caption goes.
        name: the data set's name.
        num_samples: number of its pictures, if that is known.
        num_classes: number of its classes; `None` for captions.
    """

    loader: DataLoader
    templates: Sequence[str]
    name: str
    num_samples: int | None
    num_classes: int | None


class CaptionBatches:
    """Batches for [`ContrastiveTrainer`] from a data loader of crops, a function of the step.

    A crop may have several captions or synonyms, of which a step takes one for each position. Within a position all
    crops share the template and the choice of the synonym: equal classes then have equal texts, which count as matching
    each other, instead of texts that mean the same and compete.

    Args:
        data: the crops.
        tokenizer: the CLIP's; captions longer than the text tower reads are cut.
        positions: captions of a crop at a time.
        seed: the run's seed.
    """

    def __init__(self, data: CropData, tokenizer: Any, positions: int = 1, seed: int = 0) -> None:
        self.data, self.tokenizer, self.positions, self.seed = data, tokenizer, positions, seed
        self._batches: Any = None
        self._next_step = -1

    def __call__(self, step: int, trainer: ContrastiveTrainer | None = None) -> ContrastiveBatch:
        """The batch of a step. If it is not the step after the last one, the loader starts anew.

        Raises:
            DataError: if a sample cannot be read; the message names it.
        """
        if step != self._next_step:
            sampler: Any = self.data.loader.batch_sampler
            sampler.load_state_dict({"consumed": step * sampler.global_batch_size})
            self._batches = iter(self.data.loader)
        try:
            batch = next(self._batches)
        except DataError as error:
            raise DataError(message_of_worker(error)) from error
        self._next_step = step + 1
        texts = [text for position in range(self.positions) for text in self._texts(step, position, batch["captions"])]
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return ContrastiveBatch(batch["pixel_values"], tokens["input_ids"].unflatten(0, (self.positions, -1)))

    def _texts(self, step: int, position: int, captions: Sequence[Sequence[str]]) -> list[str]:
        rng = sample_generator(self.seed, step, str(position), "caption")
        template, choice = self.data.templates[int(rng.integers(len(self.data.templates)))], rng.random()
        return [template.replace("{}", of_crop[int(choice * len(of_crop))]) for of_crop in captions]


class _Reporter:
    """Progress bar and step log of the main process."""

    def __init__(self, log: StepLog, max_steps: int, is_main_process: bool) -> None:
        self.log, self.is_main_process = log, is_main_process
        self.bar = tqdm(total=max_steps, desc="clip", unit="step", disable=not is_main_process, dynamic_ncols=True)

    def __call__(self, numbers: dict[str, float]) -> None:
        if not math.isfinite(numbers["loss"]):
            raise FloatingPointError(
                f"The loss of step {numbers['step']} is {numbers['loss']}. Start anew in another output folder with a "
                "lower learning rate, or with longer warm-up."
            )
        if self.is_main_process:
            self.log.append({name: round(value, 5) for name, value in numbers.items()})
        self.bar.update()
        self.bar.set_postfix(loss=f"{numbers['loss']:.3f}", accuracy=f"{numbers['accuracy']:.3f}", refresh=False)


def run_pretraining(arguments: PretrainingArguments) -> PretrainingResult:
    """Train the CLIP of a model as the arguments say, and save the model.

    The output folder then holds `model/` (the complete model with its processor and card), `checkpoint.pt`, `log.jsonl`
    (a line for each step), `training_arguments.json` and `training_result.json`. To be called by every process.

    Raises:
        DataError: if the data cannot be read; the message names the sample.
        CheckpointError: if the checkpoint cannot be written or used, or belongs to another run.
        FloatingPointError: if the loss is not finite.
        HubError: if the model cannot be fetched.
        ValueError: if options do not fit the model or the data.
    """
    accelerator = Accelerator(mixed_precision="no")  # the trainer casts by itself
    output_dir = Path(arguments.output_dir)
    _on_main_process(accelerator, lambda: check_output(arguments, output_dir))
    set_seed(arguments.seed)
    segmenter, processor = load_model(arguments)
    data = open_crops(arguments, segmenter, processor, accelerator)
    log = StepLog(output_dir / STEP_LOG)
    reporter = _Reporter(log, arguments.max_steps, accelerator.is_main_process)
    trainer = ContrastiveTrainer(
        segmenter.clip,
        CaptionBatches(data, processor.tokenizer, arguments.captions_per_crop, arguments.seed),
        ContrastiveArguments(
            max_steps=arguments.max_steps,
            learning_rate=arguments.learning_rate,
            warmup_steps=arguments.warmup_steps,
            weight_decay=arguments.weight_decay,
            max_grad_norm=arguments.max_grad_norm,
            text_learning_rate_scale=arguments.text_learning_rate_scale,
            bf16=arguments.mixed_precision == "bf16",
            checkpoint_steps=arguments.save_steps,
            logging_steps=1,
        ),
        output_dir / CHECKPOINT_FILE,
        accelerator.device,
        reporter,
    )
    if accelerator.is_main_process:
        log.cut_after(trainer.step)
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / ARGUMENTS_FILE, dataclasses.asdict(arguments), indent=2)
        logger.info(describe(arguments, segmenter, data, accelerator))
    reporter.bar.update(trainer.step)
    started = time.perf_counter()
    try:
        trainer.train()
    finally:
        reporter.bar.close()
    seconds = time.perf_counter() - started
    last = (log.read() or [{}])[-1]
    result = PretrainingResult(trainer.step, last.get("loss", math.nan), trainer.accuracy, seconds)
    if accelerator.is_main_process:
        save_result(arguments, segmenter, processor, data, result)
    accelerator.wait_for_everyone()
    return result


def check_output(arguments: PretrainingArguments, output_dir: Path) -> None:
    """Check that the output folder is new, or that of the run to go on with; a change of its options is warned of.

    Raises:
        CheckpointError: if a run would be overwritten.
    """
    if not (output_dir / CHECKPOINT_FILE).exists():
        if arguments.resume_from_checkpoint is not None:
            logger.warning("There is no checkpoint to go on from in %s: starting.", output_dir)
        return
    if arguments.resume_from_checkpoint is None:
        raise CheckpointError(
            f"{output_dir} holds the checkpoint of another run: go on with it (--resume_from_checkpoint latest), or "
            "choose another output folder."
        )
    try:
        stored = json.loads((output_dir / ARGUMENTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    current = json.loads(json.dumps(arguments.fingerprint()))
    warn_of_changes(stored, current)


def load_model(
    arguments: PretrainingArguments,
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """The model whose CLIP is trained, everything else in it frozen, and its processor.

    Raises:
        HubError: if it cannot be fetched.
        ValueError: if its CLIP is not one that can be trained here, or the crops do not fit it.
    """
    name = arguments.model or str(checkpoint_path())
    source = {"revision": arguments.model_revision} if arguments.model_revision else {}
    with explaining("load the model", name, arguments.model_revision):
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(name, dtype=torch.float32, **source)
        processor = MaskAdapterProcessor.from_pretrained(name, **source)
    if not isinstance(segmenter.clip, ConvolutionalClipModel):
        raise ValueError(
            f"{type(segmenter.clip).__name__} wraps a CLIP of Transformers, which is not trained here: train that CLIP "
            "by itself before it is wrapped, or start from a model whose CLIP is a ConvNeXt or a ResNet."
        )
    divisor = segmenter.config.clip_config.size_divisor
    if arguments.crop_size % divisor:
        raise ValueError(f"crop_size={arguments.crop_size} must be a multiple of {divisor}, the CLIP's last stride.")
    if arguments.new_clip:
        segmenter.config.training_vocabulary = None
        segmenter = MaskAdapterForOpenVocabularySegmentation(segmenter.config)
        tokenizer = processor.tokenizer
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
        spread_text_embeddings(segmenter.clip, sorted(special), arguments.seed)
    segmenter.requires_grad_(False).eval()
    segmenter.clip.requires_grad_(True)
    segmenter.clip.logit_scale.requires_grad_(arguments.train_logit_scale)
    return segmenter, processor


def open_crops(
    arguments: PretrainingArguments,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    accelerator: Accelerator,
) -> CropData:
    """The training data as the arguments describe them.

    Raises:
        DataError: if they cannot be found or opened, are empty, or lack a column or classes.
        ValueError: if options contradict each other or are out of range.
    """
    common: dict[str, Any] = {
        "crop_size": arguments.crop_size,
        "flip_probability": arguments.flip_probability,
        "seed": arguments.seed,
        "image_mean": processor.image_processor.image_mean,
        "image_std": processor.image_processor.image_std,
    }
    source: Any
    transform: PictureCrops | SegmentCrops
    if arguments.captions:
        source = load_captioned_pictures(
            arguments.dataset,
            split=arguments.train_split,
            config_name=arguments.dataset_config,
            cache_dir=arguments.cache_dir,
            image_column=arguments.image_column,
            caption_column=arguments.caption_column,
            id_column=arguments.id_column,
            max_samples=arguments.max_train_samples,
        )
        transform = PictureCrops(min_share=arguments.min_crop_share, **common)
        collator, templates, num_classes = CropCollator(1), ["{}"], None
    else:
        source = open_dataset(arguments, arguments.dataset, arguments.train_split, arguments.max_train_samples)
        transform = SegmentCrops(
            vocabulary=source.vocabulary,
            crops_per_picture=arguments.crops_per_picture,
            min_area=arguments.min_segment_area,
            context=arguments.context,
            max_enlargement=arguments.max_enlargement,
            **common,
        )
        collator = CropCollator(arguments.crops_per_picture, arguments.min_segment_area)
        templates, num_classes = processor.prompt_templates, len(source.vocabulary)
    loader = create_training_loader(
        source,
        transform,
        arguments.pictures_per_process(accelerator.num_processes),
        seed=arguments.seed,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        shuffle_buffer=arguments.shuffle_buffer,
        collate=collator,
        num_workers=arguments.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    num_samples = None if isinstance(source, SegmentationStream) else len(source)
    return CropData(loader, templates, source.name, num_samples, num_classes)


def describe(
    arguments: PretrainingArguments,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    data: CropData,
    accelerator: Accelerator,
) -> str:
    """What is about to happen, for people."""
    trained = sum(parameter.numel() for parameter in segmenter.clip.parameters() if parameter.requires_grad)
    size = f"{data.num_samples} samples" if data.num_samples is not None else "a stream"
    texts = "captions" if data.num_classes is None else f"{data.num_classes} classes"
    return (
        f"CLIP on {data.name}: {size}, {texts}. {trained / 1e6:.2f} M parameters are trained for "
        f"{arguments.max_steps} steps of {arguments.batch_size} crops on {accelerator.num_processes} process(es), "
        f"device {accelerator.device.type}, precision {arguments.mixed_precision}."
    )


def save_result(
    arguments: PretrainingArguments,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    data: CropData,
    result: PretrainingResult,
) -> None:
    """Save the model with the trained CLIP, its card and the results.

    Raises:
        OSError: if a file cannot be written. The checkpoint is as it was, so that the run can be given again.
    """
    output_dir = Path(arguments.output_dir)
    segmenter.to("cpu").to(memory_format=torch.contiguous_format)
    facts = dataclasses.asdict(arguments) | {"stage": "clip", "model": arguments.model or "the embedded miniature"}
    card = training_card(facts, dataclasses.asdict(result), data.num_samples, data.num_classes, versions())
    with replacing_folder(output_dir / MODEL_FOLDER) as folder:
        segmenter.save_pretrained(folder, save_original_format=False)
        processor.save_pretrained(folder)
        write_json(folder / ARGUMENTS_FILE, arguments.fingerprint(), indent=2)
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
    write_json(output_dir / RESULT_FILE, dataclasses.asdict(result), indent=2)
    logger.info("The model with the trained CLIP is in %s.", output_dir / MODEL_FOLDER)


def _on_main_process(accelerator: Accelerator, check: Any) -> None:
    """Do a check on the main process; its error is one of all processes."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            check()
        except CheckpointError as error:
            found[0] = str(error)
    broadcast_object_list(found)
    if found[0] is not None:
        raise CheckpointError(found[0])


__all__ = [
    "CHECKPOINT_FILE",
    "CaptionBatches",
    "CropData",
    "PretrainingResult",
    "check_output",
    "describe",
    "load_model",
    "open_crops",
    "run_pretraining",
    "save_result",
]
