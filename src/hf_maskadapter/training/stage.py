"""What a stage of training is: something to prepare batches, losses, and parameters that it updates.

A stage has two halves. `prepare` runs the frozen parts on a batch, makes the targets and counts them; it needs no
gradients. `forward` runs the parts that learn and returns the losses, divided by the counts *of the whole optimiser
step* (all accumulated batches on all processes), which the training loop sums between the two. That is why results do
not depend on how a batch is divided.

The parameters of a stage (an `nn.Module`) are exactly those that it updates, under the segmenter's own names. The
frozen rest is only referred to: it is neither wrapped, averaged nor saved, and stays in eval mode whatever `train()` is
called.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.sampling import sample_seed
from ..data.transforms import masks_from_map
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.modeling_text_classifier import EncodedVocabulary

Batch = Mapping[str, Any]


@dataclass
class PreparedBatch:
    """A batch after the frozen parts.

    Args:
        inputs: what the stage's `forward` takes.
        counts: what this batch adds to each denominator of the losses; the same names for every batch of a stage.
    """

    inputs: dict[str, Any]
    counts: dict[str, float]


class TrainingStage(nn.Module, abc.ABC):
    """One kind of training; see the module's text. Its parameters are what it updates.

    Attributes:
        name: what checkpoints and reports call it.
        accumulates: whether a step's batches can be worked on one after the other, since its losses are sums over
            samples.
        memory: plain values, beside the weights, that change while it is trained; checkpoints keep them.
    """

    name: ClassVar[str]
    accumulates: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[str, Any] = {}

    @abc.abstractmethod
    def prepare(self, batch: Batch) -> PreparedBatch:
        """Run the frozen parts on a batch that is on the stage's device. Called without gradients, under autocast."""

    @abc.abstractmethod
    def forward(self, inputs: Mapping[str, Any], denominators: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
        """Losses of a prepared batch.

        Args:
            inputs: from [`PreparedBatch`].
            denominators: for each count, what the sums are divided by.

        Returns:
            `"losses"`: weighted scalars, whose sum is minimised. `"sums"`: scalars that add up over batches and
            processes, made into reported numbers by [`TrainingStage.report`].
        """

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone: by default those of norms and embeddings."""
        kinds = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
        return {
            f"{module_name}.{name}" if module_name else name
            for module_name, module in self.named_modules()
            if isinstance(module, kinds)
            for name, _ in module.named_parameters(recurse=False)
        }

    def learning_rate_scale(self, name: str) -> float:
        """Factor on the learning rate of a parameter, by its name."""
        del name  # the same for all, where a stage does not say otherwise
        return 1.0

    def report(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Numbers to log from the sums of an optimiser step."""
        return dict(sums)

    def to_device(self, device: torch.device) -> None:
        """Move the stage with the frozen parts that it refers to."""
        self.to(device)


class SegmenterStage(TrainingStage):
    """What the stages on a segmenter have in common.

    Batches are those of `hf_maskadapter.data.collate_training_samples`: `pixel_values`; `mask_map`, or `mask_labels`;
    `class_labels`; `sample_id` and `epoch`. Frozen features computed before may take the place of pictures, see the
    stages.

    Args:
        segmenter: the model. Everything in it is frozen and put in eval mode, but for what the stage updates.
        vocabulary: the training classes, encoded once.
        train_void: whether the void embedding is updated too.
        seed: the run's seed.
    """

    def __init__(
        self,
        segmenter: MaskAdapterForOpenVocabularySegmentation,
        vocabulary: EncodedVocabulary,
        *,
        train_void: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        segmenter.requires_grad_(False).eval()
        object.__setattr__(self, "segmenter", segmenter)  # not registered as a submodule
        self.vocabulary = vocabulary
        self.seed = seed
        self.train_void = train_void
        if train_void:
            self.void_embedding = segmenter.void_embedding.requires_grad_(True)

    def to_device(self, device: torch.device) -> None:
        """Move the stage, the whole segmenter and the encoded vocabulary."""
        self.segmenter.to(device)
        self.vocabulary = self.vocabulary.to(device)

    def _void_embeds(self) -> Tensor:
        embedding = self.void_embedding if self.train_void else self.segmenter.void_embedding
        if hasattr(embedding, "full_tensor"):  # sharded by FSDP, outside `forward`
            embedding = embedding.full_tensor()
        return F.normalize(embedding, dim=-1)

    def _mask_labels(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Masks `(num_masks, h, w)` bool and classes `(num_masks,)` of each picture; empty masks are left out."""
        class_labels = batch["class_labels"]
        if "mask_labels" in batch:
            mask_labels = batch["mask_labels"]
        else:
            mask_labels = [
                masks_from_map(mask_map, len(labels))
                for mask_map, labels in zip(batch["mask_map"], class_labels, strict=True)
            ]
        masks, classes = [], []
        for of_picture, labels in zip(mask_labels, class_labels, strict=True):
            present = of_picture.bool().flatten(1).any(dim=1)
            masks.append(of_picture[present].bool())
            classes.append(labels[present].long())
        return masks, classes

    def _seeds(self, batch: Batch, purpose: str) -> list[int]:
        """A seed for a random choice about each picture, the same whatever batch the picture is in."""
        return [
            sample_seed(self.seed, int(epoch), str(sample_id), purpose)
            for sample_id, epoch in zip(batch["sample_id"], batch["epoch"], strict=True)
        ]


__all__ = ["Batch", "PreparedBatch", "SegmenterStage", "TrainingStage"]
