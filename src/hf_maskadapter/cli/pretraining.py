"""What `maskadapter pretrain` does: train a model's CLIP on pictures with captions or on annotated segments.

The result is a complete model that `maskadapter train` goes on from. Its mask generator, adapter and void embedding are
those of the model that was started from, fitted to the features of the CLIP as it was: good to start from, to be
trained next. With a new CLIP nothing in them is of use, and they get new weights, too.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from ..data import SegmentationStream, create_training_loader
from ..data.captions import CropCollator, PictureCenters, PictureCrops, SegmentCrops, load_captioned_pictures
from ..data.loaders import create_validation_loader
from ..data.sampling import sample_generator
from ..files import write_json
from ..hub.cards import training_card
from ..miniature import checkpoint_path
from ..model.modeling_clip import ConvolutionalClipModel
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..provenance import versions
from ..training.checkpoints import CheckpointError
from ..training.clip_stage import ACCURACY_RATE, ContrastivePretraining, spread_text_embeddings
from ..training.clip_validation import ContrastiveValidation
from ..training.interruption import StopSignals
from ..training.optimization import LearningRateSchedule
from ..training.options import PretrainingOptions, flat
from ..training.trainer import ResumableBatchSampler, Trainer, TrainingResult
from .training import (
    MODEL_FOLDER,
    RESULT_FILE,
    claimed_output,
    complete_state,
    load_weights,
    make_accelerator,
    make_optimizer,
    make_settings,
    open_dataset,
    require_fitting_crop,
    save_model,
    train,
)

FORMER_CHECKPOINT = "checkpoint.pt"
"""The only checkpoint that pre-trainings of versions before 0.2 wrote."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PretrainingResult(TrainingResult):
    """What a pre-training leaves behind.

    Args:
        accuracy: running share of the crops whose nearest caption in the batch is their own or equals it.
    """

    accuracy: float


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
    """Batches for [`ContrastivePretraining`] from a data loader of crops, a function of the step.

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
        self._sampler: ResumableBatchSampler = data.loader.batch_sampler  # type: ignore[assignment]
        self._first_step = 0

    @property
    def batch_sampler(self) -> CaptionBatches:
        """Itself: what tells where to go on."""
        return self

    @property
    def global_batch_size(self) -> int:
        """Pictures in a batch of all processes together."""
        return self._sampler.global_batch_size

    def state_dict(self, consumed: int) -> dict[str, Any]:
        """State after so many consumed pictures of all processes."""
        return self._sampler.state_dict(consumed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the pictures consumed when the state was made."""
        self._sampler.load_state_dict(state)
        self._first_step = state["consumed"] // self.global_batch_size

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for step, batch in enumerate(self.data.loader, self._first_step):
            of_positions = (self._texts(step, position, batch["captions"]) for position in range(self.positions))
            texts = [text for of_position in of_positions for text in of_position]
            tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")["input_ids"]
            yield {"pixel_values": batch["pixel_values"], "input_ids": tokens.unflatten(0, (self.positions, -1))}

    def _texts(self, step: int, position: int, captions: Sequence[Sequence[str]]) -> list[str]:
        rng = sample_generator(self.seed, step, str(position), "caption")
        template, choice = self.data.templates[int(rng.integers(len(self.data.templates)))], rng.random()
        return [template.replace("{}", of_crop[int(choice * len(of_crop))]) for of_crop in captions]


def run_pretraining(options: PretrainingOptions) -> PretrainingResult:
    """Train the CLIP of a model as the options say, and save the model.

    The output folder then holds `model/` (the complete model with its processor and card), `checkpoints/`, `log.jsonl`
    (a line for each step), `training_arguments.json` and `training_result.json`. To be called by every process.

    Raises:
        DataError: if the data cannot be read; the message names the sample.
        CheckpointError: if a checkpoint cannot be written or used, or belongs to another run.
        FloatingPointError: if the loss is not finite.
        HubError: if the model cannot be fetched.
        TrainingInterrupted: after Ctrl-C or SIGTERM, when a checkpoint has been saved.
        ValueError: if options do not fit the model or the data.
    """
    optimization = options.optimization
    require_no_former_checkpoint(Path(options.run.output_dir))
    accelerator = make_accelerator(options.run, optimization)
    with claimed_output(options.run, accelerator):
        set_seed(optimization.seed)
        segmenter, processor = load_model(options)
        data = open_crops(options, processor, accelerator)
        stage = ContrastivePretraining(segmenter.clip, text_learning_rate_scale=optimization.text_learning_rate_scale)
        max_steps = optimization.max_steps
        signals = StopSignals()
        trainer = Trainer(
            stage,
            CaptionBatches(data, processor.tokenizer, optimization.captions_per_crop, optimization.seed),
            make_optimizer(stage, optimization),
            LearningRateSchedule("cosine_after_warmup", max_steps, min(optimization.warmup_steps, max_steps)),
            accelerator,
            make_settings(
                options.run,
                optimization,
                max_steps,
                eval_steps=options.validation.eval_steps,
                best_metric="accuracy",
                fingerprint=options.fingerprint(),
            ),
            build_validation(options, stage, processor, accelerator, signals),
            signals,
        )
        if accelerator.is_main_process:
            logger.info(describe(options, stage, data, accelerator))
        result = train(trainer, options.run, flat(options))
        accuracy = stage.memory["accuracy"] / (1 - (1 - ACCURACY_RATE) ** result.step)  # the mean began at 0
        found = PretrainingResult(**dataclasses.asdict(result), accuracy=accuracy)
        save_result(options, trainer, segmenter, processor, data, found)
    return found


def require_no_former_checkpoint(output_dir: Path) -> None:
    """Check that a folder was not begun in the form of versions before 0.2.

    Raises:
        CheckpointError: if it was.
    """
    if (output_dir / FORMER_CHECKPOINT).exists():
        raise CheckpointError(
            f"{output_dir / FORMER_CHECKPOINT} is the checkpoint of a pre-training by a version before 0.2, which "
            "cannot be gone on from: end that run with its version, or choose another output folder."
        )


def load_model(
    options: PretrainingOptions,
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """The model whose CLIP is trained, everything else in it frozen, and its processor.

    Raises:
        HubError: if it cannot be fetched.
        ValueError: if its CLIP is not one that can be trained here, or the crops do not fit it.
    """
    start = options.start
    segmenter, processor = load_weights(start, start.model or str(checkpoint_path()))
    if not isinstance(segmenter.clip, ConvolutionalClipModel):
        raise ValueError(
            f"{type(segmenter.clip).__name__} wraps a CLIP of Transformers, which is not trained here: train that CLIP "
            "by itself before it is wrapped, or start from a model whose CLIP is a ConvNeXt or a ResNet."
        )
    require_fitting_crop(options.crops.crop_size, segmenter)
    if start.new_clip:
        segmenter.config.training_vocabulary = None
        segmenter = MaskAdapterForOpenVocabularySegmentation(segmenter.config)
        tokenizer = processor.tokenizer
        special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
        spread_text_embeddings(segmenter.clip, sorted(special), options.optimization.seed)
    segmenter.requires_grad_(False).eval()
    segmenter.clip.requires_grad_(True)
    segmenter.clip.logit_scale.requires_grad_(start.train_logit_scale)
    return segmenter, processor


def open_crops(options: PretrainingOptions, processor: MaskAdapterProcessor, accelerator: Accelerator) -> CropData:
    """The training data as the options describe them.

    Raises:
        DataError: if they cannot be found or opened, are empty, or lack a column or classes.
        ValueError: if options contradict each other or are out of range.
    """
    reading, crops, seed = options.data, options.crops, options.optimization.seed
    source = open_source(options, reading.dataset, reading.train_split, reading.max_train_samples)
    common = {"flip_probability": crops.flip_probability, "seed": seed} | _preparation(options, processor)
    transform: PictureCrops | SegmentCrops
    if reading.captions:
        transform = PictureCrops(min_share=crops.min_crop_share, **common)
        collator, num_classes = CropCollator(1), None
    else:
        transform = _segment_crops(options, source, **common)
        collator = CropCollator(crops.crops_per_picture, crops.min_segment_area)
        num_classes = len(source.vocabulary)
    loader = create_training_loader(
        source,
        transform,
        options.pictures_per_process(accelerator.num_processes),
        seed=seed,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        shuffle_buffer=reading.shuffle_buffer,
        collate=collator,
        num_workers=reading.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    num_samples = None if isinstance(source, SegmentationStream) else len(source)
    return CropData(loader, _templates(options, processor), source.name, num_samples, num_classes)


def open_source(options: PretrainingOptions, name: str, split: str | None, max_samples: int | None) -> Any:
    """A data set of captioned pictures or of annotated ones, as the options describe it.

    Raises:
        DataError: if it cannot be found or opened, is empty, or lacks a column or classes.
        ValueError: if the number of samples is limited for a stream.
    """
    reading = options.data
    if not reading.captions:
        return open_dataset(reading, name, split, max_samples)
    return load_captioned_pictures(
        name,
        split=split,
        config_name=reading.config_name,
        cache_dir=reading.cache_dir,
        image_column=reading.image_column,
        caption_column=reading.caption_column,
        id_column=reading.id_column,
        max_samples=max_samples,
    )


def _preparation(options: PretrainingOptions, processor: MaskAdapterProcessor) -> dict[str, Any]:
    """How a crop becomes what the CLIP takes."""
    image_processor = processor.image_processor
    return {
        "crop_size": options.crops.crop_size,
        "image_mean": image_processor.image_mean,
        "image_std": image_processor.image_std,
    }


def _segment_crops(options: PretrainingOptions, source: Any, **common: Any) -> SegmentCrops:
    crops = options.crops
    return SegmentCrops(
        vocabulary=source.vocabulary,
        crops_per_picture=crops.crops_per_picture,
        min_area=crops.min_segment_area,
        context=crops.context,
        max_enlargement=crops.max_enlargement,
        **common,
    )


def _templates(options: PretrainingOptions, processor: MaskAdapterProcessor) -> Sequence[str]:
    """Texts with one `{}`, where a caption goes."""
    return ["{}"] if options.data.captions else processor.prompt_templates


def build_validation(
    options: PretrainingOptions,
    stage: ContrastivePretraining,
    processor: MaskAdapterProcessor,
    accelerator: Accelerator,
    signals: StopSignals,
) -> Callable[[], dict[str, float]] | None:
    """Loss and accuracy on the validation data, if there are any: see [`ContrastiveValidation`].

    The crops are the same in every validation and every run, whatever its seed, and are not flipped; of a captioned
    picture it is the largest square in its middle. A signal ends the validation before the next batch.

    Raises:
        DataError: if the data cannot be found or opened, are empty, or lack a column or classes.
        ValueError: if the number of samples is limited for a stream.
    """
    validation, reading = options.validation, options.data
    if validation.validation_split is None:
        return None
    source = open_source(
        options,
        validation.validation_dataset or reading.dataset,
        validation.validation_split,
        validation.max_validation_samples,
    )
    preparation = _preparation(options, processor)
    loader = create_validation_loader(
        source,
        PictureCenters(**preparation)
        if reading.captions
        else _segment_crops(options, source, flip_probability=0.0, seed=0, **preparation),
        options.pictures_per_process(accelerator.num_processes),
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        num_workers=reading.num_workers,
    )
    return ContrastiveValidation(
        stage,
        loader,
        processor.tokenizer,
        accelerator,
        templates=_templates(options, processor),
        batch_size=options.optimization.batch_size,
        positions=options.optimization.captions_per_crop,
        should_stop=signals.is_received,
        nothing=f"{source.name}: no picture to validate on has a segment of {options.crops.min_segment_area} connected "
        "pixels or more: lower min_segment_area.",
    )


def describe(
    options: PretrainingOptions, stage: ContrastivePretraining, data: CropData, accelerator: Accelerator
) -> str:
    """What is about to happen, for people."""
    trained = sum(parameter.numel() for parameter in stage.parameters() if parameter.requires_grad)
    size = f"{data.num_samples} samples" if data.num_samples is not None else "a stream"
    texts = "captions" if data.num_classes is None else f"{data.num_classes} classes"
    return (
        f"CLIP on {data.name}: {size}, {texts}. {trained / 1e6:.2f} M parameters are trained for "
        f"{options.optimization.max_steps} steps of {options.optimization.batch_size} crops on "
        f"{accelerator.num_processes} process(es), device {accelerator.device.type}, precision "
        f"{accelerator.mixed_precision}."
    )


def save_result(
    options: PretrainingOptions,
    trainer: Trainer,
    segmenter: MaskAdapterForOpenVocabularySegmentation,
    processor: MaskAdapterProcessor,
    data: CropData,
    result: PretrainingResult,
) -> None:
    """Save the model with the trained CLIP, its card and the results.

    Raises:
        OSError: if a file cannot be written. Checkpoints are as they were, so that the run can be given again.
    """
    output_dir = Path(options.run.output_dir)
    state = complete_state(segmenter, trainer, result, options.outcome.keep)
    if trainer.accelerator.is_main_process:
        facts = flat(options) | {"stage": "clip", "model": options.start.model or "the embedded miniature"}
        card = training_card(facts, dataclasses.asdict(result), data.num_samples, data.num_classes, versions())
        save_model(segmenter, processor, state, output_dir, options.fingerprint(), card)
        write_json(output_dir / RESULT_FILE, dataclasses.asdict(result), indent=2)
        logger.info("The model with the trained CLIP is in %s.", output_dir / MODEL_FOLDER)
    trainer.accelerator.wait_for_everyone()


__all__ = [
    "FORMER_CHECKPOINT",
    "CaptionBatches",
    "CropData",
    "PretrainingResult",
    "build_validation",
    "describe",
    "load_model",
    "open_crops",
    "open_source",
    "require_no_former_checkpoint",
    "run_pretraining",
    "save_result",
]
