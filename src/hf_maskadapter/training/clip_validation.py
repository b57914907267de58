"""What a CLIP that is pre-trained makes of pictures and captions that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..data.captions import CaptionedCrop
from ..data.samples import DataError
from .clip_stage import ContrastivePretraining, caption_groups, contrastive_loss, mean_accuracy
from .interruption import ValidationInterrupted


@dataclass
class _Encoded:
    """The crops of a picture on the CPU.

    Args:
        image_embeds: (crops, dim) float32.
        texts: of each position the texts of the crops.
    """

    image_embeds: Tensor
    texts: list[list[str]]


class ContrastiveValidation:
    """Contrastive loss and accuracy on held-out crops and their captions, by which a training run tells its progress.

    Crops are compared in batches of at least the training's size, in a fixed order, so that the numbers mean what those
    of the training's log mean and are the same, up to rounding, on any number of processes. Of several captions or
    names and templates, position 0 takes the first ones, position 1 the second ones, and so on, from the first one
    again where there are fewer.

    Args:
        stage: whose CLIP is measured, as it then is.
        loader: this process's share, as [`hf_maskadapter.data.loaders.create_validation_loader`] makes it of crops.
        tokenizer: the CLIP's; captions longer than the text tower reads are cut.
        accelerator: tells the processes and the precision.
        templates: texts with one `{}`, where a caption goes.
        batch_size: crops that are compared with each other at least, if there are so many.
        positions: captions that a crop is compared with at a time, as in training.
        should_stop: asked before each batch; once it says yes on a process, that one reads no further pictures.
        nothing: the message where the data give no crop.
    """

    def __init__(
        self,
        stage: ContrastivePretraining,
        loader: Iterable[Sequence[tuple[int, Sequence[CaptionedCrop]]]],
        tokenizer: Any,
        accelerator: Accelerator,
        *,
        templates: Sequence[str] = ("{}",),
        batch_size: int,
        positions: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
        nothing: str = "The validation data give no crop.",
    ) -> None:
        self.stage, self.loader, self.tokenizer, self.accelerator = stage, loader, tokenizer, accelerator
        self.templates, self.batch_size, self.positions = templates, batch_size, positions
        self.should_stop, self.nothing = should_stop, nothing

    def __call__(self) -> dict[str, float]:
        """Measure; to be called by every process, without gradients.

        Returns:
            `loss`, the contrastive loss, a mean over the crops; `accuracy`, the share of the crops whose nearest
            caption in their batch is theirs or equals it.

        Raises:
            DataError: if the data cannot be read, or give no crop.
            ValidationInterrupted: on all processes, if `should_stop` said yes on one of them.
        """
        crops, text_embeds, is_stopped = self._encode()
        of_processes = [(crops, text_embeds, is_stopped)]
        if self.accelerator.num_processes > 1:
            of_processes = gather_object(of_processes)
        if any(is_stopped for *_, is_stopped in of_processes):
            raise ValidationInterrupted("The validation was ended by a signal.")
        crops = {place: encoded for of_process, *_ in of_processes for place, encoded in of_process.items()}
        text_embeds = {text: embeds for _, of_process, _ in of_processes for text, embeds in of_process.items()}
        if not crops:
            raise DataError(self.nothing)
        return self._compare([crops[place] for place in sorted(crops)], text_embeds)

    def _encode(self) -> tuple[dict[int, _Encoded], dict[str, Tensor], bool]:
        """The crops of this process's pictures by place, the texts' embeddings, and whether it was stopped."""
        clip, device = self.stage.clip, self.accelerator.device
        crops: dict[int, _Encoded] = {}
        text_embeds: dict[str, Tensor] = {}
        for batch in self.loader:
            if self.should_stop():
                return {}, {}, True
            pictures = [(place, of_picture) for place, of_picture in batch if of_picture]
            if not pictures:
                continue
            pixel_values = torch.stack([crop.pixel_values for _, of_picture in pictures for crop in of_picture])
            pixel_values = pixel_values.to(device).contiguous(memory_format=torch.channels_last)
            with self.accelerator.autocast():
                image_embeds = clip.get_image_features(pixel_values).float().cpu()
            of_pictures = image_embeds.split([len(of_picture) for _, of_picture in pictures])
            for (place, of_picture), embeds in zip(pictures, of_pictures, strict=True):
                crops[place] = _Encoded(embeds, [self._texts(of_picture, each) for each in range(self.positions)])
            texts = {text for place, _ in pictures for of_position in crops[place].texts for text in of_position}
            if new := sorted(texts - text_embeds.keys()):
                with self.accelerator.autocast():
                    embeds = clip.get_text_features(self._tokenize(new).to(device)).float().cpu()
                text_embeds.update(zip(new, embeds, strict=True))
        return crops, text_embeds, False

    def _texts(self, crops: Sequence[CaptionedCrop], position: int) -> list[str]:
        template = self.templates[position % len(self.templates)]
        return [template.replace("{}", crop.captions[position % len(crop.captions)]) for crop in crops]

    def _tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")["input_ids"]

    def _compare(self, crops: Sequence[_Encoded], text_embeds: dict[str, Tensor]) -> dict[str, float]:
        image_embeds = torch.cat([encoded.image_embeds for encoded in crops])
        texts = [[text for encoded in crops for text in encoded.texts[each]] for each in range(self.positions)]
        eos_token_id = self.stage.clip.config.text_config.eos_token_id
        logit_scale = self.stage.clip.get_logit_scale().float().cpu()
        number = len(image_embeds)
        totals = torch.zeros(2, dtype=torch.float64)
        for batch in torch.arange(number).tensor_split(max(1, number // self.batch_size)):
            own = [[of_position[index] for index in batch.tolist()] for of_position in texts]
            flat = [text for of_position in own for text in of_position]
            groups = caption_groups(self._tokenize(flat), eos_token_id).unflatten(0, (self.positions, -1))
            embeds = torch.stack([text_embeds[text] for text in flat]).unflatten(0, (self.positions, -1))
            loss = contrastive_loss(image_embeds[batch], embeds, groups, logit_scale)
            accuracy = mean_accuracy(image_embeds[batch], embeds, groups)
            totals += len(batch) * torch.tensor([loss.item(), accuracy], dtype=torch.float64)
        loss, accuracy = (totals / number).tolist()
        return {"loss": loss, "accuracy": accuracy}


__all__ = ["ContrastiveValidation"]
