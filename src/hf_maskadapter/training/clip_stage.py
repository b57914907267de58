"""Contrastive pre-training of a CLIP on pictures and captions (arXiv 2103.00020, figure 3).

The loss is symmetric, compares the pictures and captions of all processes, and counts identical captions as matching
each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from ..model.modeling_clip import ConvolutionalClipModel
from .stage import Batch, PreparedBatch, TrainingStage

ACCURACY_RATE = 0.1
"""Weight of the latest batch in the running mean of the accuracies."""


class ContrastivePretraining(TrainingStage):
    """Training of a CLIP by a symmetric contrastive loss over the crops and captions of a step.

    Batches hold `pixel_values` `(batch_size, channels, height, width)`, normalised, and `input_ids`
    `(batch_size, length)` or, where each picture has several captions, `(captions, batch_size, length)`. Each process
    must hold as many pictures; the loss compares those of all. A step cannot be divided into accumulated batches, since
    its pictures and captions are compared with each other.

    `memory["accuracy"]` is a running mean of the batches' accuracies, which begins at 0.

    Args:
        clip: the model; every parameter that requires a gradient is trained.
        text_learning_rate_scale: factor on the text tower's learning rate.
    """

    name = "clip"
    accumulates = False

    def __init__(self, clip: ConvolutionalClipModel, *, text_learning_rate_scale: float = 1.0) -> None:
        super().__init__()
        self.clip = clip
        self.text_learning_rate_scale = text_learning_rate_scale
        self.memory["accuracy"] = 0.0

    def to_device(self, device: torch.device) -> None:
        """Move the CLIP, with kernels in the layout in which convolutions are fast."""
        self.to(device).to(memory_format=torch.channels_last)

    def no_weight_decay(self) -> set[str]:
        """Everything but matrices and kernels, and the embeddings."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2 or "embedding" in name}

    def learning_rate_scale(self, name: str) -> float:
        """See [`TrainingStage`]: the text tower may learn slower."""
        return self.text_learning_rate_scale if name.startswith("clip.text_model.") else 1.0

    def prepare(self, batch: Batch) -> PreparedBatch:
        """See [`TrainingStage`]. Finds equal captions, so that each is encoded once. Counts `crops`."""
        pixel_values, input_ids = batch["pixel_values"], batch["input_ids"]
        eos_token_id = self.clip.config.text_config.eos_token_id
        input_ids = (input_ids[None] if input_ids.ndim == 2 else input_ids).transpose(0, 1)
        texts = input_ids.flatten(0, 1)
        distinct, inverse = _distinct_captions(texts, eos_token_id)
        ids = _gather_ids(input_ids, eos_token_id)
        inputs = {
            "pixel_values": pixel_values.contiguous(memory_format=torch.channels_last),
            "texts": texts[distinct],
            "text_of_caption": inverse.unflatten(0, input_ids.shape[:2]),
            "groups": caption_groups(ids.flatten(0, 1), eos_token_id).unflatten(0, ids.shape[:2]).T,
        }
        return PreparedBatch(inputs, {"crops": float(len(pixel_values))})

    def forward(self, inputs: Mapping[str, Any], denominators: Mapping[str, float]) -> dict[str, dict[str, Tensor]]:
        """See [`TrainingStage`]. The loss is `loss_contrastive`, a mean over the crops of all processes."""
        del denominators  # every process computes the loss of all crops
        image_embeds = self.clip.get_image_features(inputs["pixel_values"])
        text_embeds = self.clip.get_text_features(inputs["texts"])[inputs["text_of_caption"]]
        groups = inputs["groups"]
        with torch.autocast(image_embeds.device.type, enabled=False):  # logits of cosines × 100 need fp32
            image_embeds = _gather(image_embeds.float())
            text_embeds = _gather(text_embeds.float()).transpose(0, 1)
            logit_scale = self.clip.get_logit_scale()
            loss = contrastive_loss(image_embeds, text_embeds, groups, logit_scale)
            accuracy = mean_accuracy(image_embeds, text_embeds, groups)
        if self.training:
            self.memory["accuracy"] += ACCURACY_RATE * (accuracy - self.memory["accuracy"])
        sums = {"batches": 1.0, "accuracy": accuracy, "logit_scale": logit_scale.item()}
        return {
            "losses": {"loss_contrastive": loss},
            "sums": {name: torch.tensor(value, device=loss.device) for name, value in sums.items()},
        }

    def report(self, sums: Mapping[str, float]) -> dict[str, float]:
        """`accuracy`, share of the crops whose nearest caption in the batch is theirs or equals it; `logit_scale`."""
        return {name: sums[name] / sums["batches"] for name in ("accuracy", "logit_scale")}


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, in rank order; the gradients of all processes' losses flow back to each."""

    @staticmethod
    def forward(_ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _gather(embeds: Tensor) -> Tensor:
    """Rows of all processes with gradients to each; every process must hold as many rows."""
    return _GatherRows.apply(embeds) if _is_distributed() else embeds


def caption_groups(input_ids: Tensor, eos_token_id: int) -> Tensor:
    """(batch,) number of each row's caption; rows with equal tokens up to the end token share one."""
    ended = (input_ids == eos_token_id).cumsum(dim=1)
    after_end = (ended - (input_ids == eos_token_id).long()) > 0
    return torch.unique(input_ids.masked_fill(after_end, -1), dim=0, return_inverse=True)[1]


def contrastive_loss(image_embeds: Tensor, text_embeds: Tensor, groups: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy between pictures and captions; all members of a group match each other.

    With several captions a picture each picture is compared with all of them, so that texts of different kinds
    ("striped red star", "grass") are comparable, and each caption with the pictures.

    Args:
        image_embeds: (batch, dim), need not be normalised.
        text_embeds: (batch, dim) or (captions, batch, dim).
        groups: (batch,) or (captions, batch) integer; equal numbers mark equal captions. A picture's target is uniform
            over its captions, and for each over the captions equal to it; a caption's over the pictures that have it.
        logit_scale: factor on the cosines.

    Returns:
        Scalar.
    """
    groups = groups.view(-1, len(image_embeds))
    texts = F.normalize(text_embeds.float(), dim=-1).flatten(0, -2)
    logits = logit_scale * F.normalize(image_embeds.float(), dim=-1) @ texts.T
    same = (groups[:, :, None] == groups.flatten()).to(logits.dtype)
    of_pictures = (same / same.sum(dim=-1, keepdim=True)).mean(dim=0)
    of_captions = (same.amax(dim=0) / same.amax(dim=0).sum(dim=0)).T
    return 0.5 * (F.cross_entropy(logits, of_pictures) + F.cross_entropy(logits.T, of_captions))


def batch_accuracy(image_embeds: Tensor, text_embeds: Tensor, groups: Tensor) -> float:
    """Share of the pictures whose nearest caption in the batch is their own or equals it."""
    nearest = (F.normalize(image_embeds.float(), dim=-1) @ F.normalize(text_embeds.float(), dim=-1).T).argmax(dim=1)
    return (groups[nearest] == groups).float().mean().item()


@torch.no_grad()
def mean_accuracy(image_embeds: Tensor, text_embeds: Tensor, groups: Tensor) -> float:
    """[`batch_accuracy`] among `(captions, batch, dim)` captions, each of a picture's for itself; their mean."""
    of_positions = [batch_accuracy(image_embeds, *each) for each in zip(text_embeds, groups, strict=True)]
    return sum(of_positions) / len(of_positions)


@torch.no_grad()
def spread_text_embeddings(model: ConvolutionalClipModel, special_token_ids: Sequence[int], seed: int = 0) -> None:
    """Initialise the text tower so that different texts start apart.

    With the usual initialisation the output at the end token hardly depends on the words: cosines between prompts start
    at .94–.98 and attributes that need fine visual evidence, such as shape, are then not learned. Here the special
    tokens share one direction, which the first layer's values ignore, so its output at the end token starts as the mean
    of the words' embeddings.

    Args:
        model: a freshly initialised model.
        special_token_ids: start, end and padding tokens.
        seed: of the random weights.
    """
    text = model.text_model
    generator = torch.Generator().manual_seed(seed)
    token_embedding = text.get_input_embeddings()
    width = token_embedding.embedding_dim
    direction = torch.ones(width)
    direction[1::2] = -1
    direction /= direction.norm()
    std = 0.02
    for token in special_token_ids:
        token_embedding.weight[token] = std * math.sqrt(width) * direction
    for name, parameter in text.named_parameters():
        if name.endswith("position_embedding.weight"):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std / 8)
        elif ".layers.0.self_attn." in name and name.endswith(("v_proj.weight", "out_proj.weight")):
            orthogonal = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
            if name.endswith("v_proj.weight"):
                orthogonal = orthogonal - torch.outer(orthogonal @ direction, direction)
            parameter.copy_(orthogonal)


def _distinct_captions(input_ids: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
    """One row index of each distinct caption, and each row's position among them."""
    groups = caption_groups(input_ids, eos_token_id)
    first = torch.full((int(groups.max()) + 1,), len(groups), dtype=torch.long, device=groups.device)
    first.scatter_reduce_(0, groups, torch.arange(len(groups), device=groups.device), reduce="amin")
    return first, groups


def _gather_ids(input_ids: Tensor, eos_token_id: int) -> Tensor:
    """(batch of all processes, captions, length) token ids of all processes."""
    if not _is_distributed():
        return input_ids
    length = torch.tensor(input_ids.shape[-1], device=input_ids.device)
    dist.all_reduce(length, op=dist.ReduceOp.MAX)
    padded = F.pad(input_ids, (0, int(length) - input_ids.shape[-1]), value=eos_token_id).contiguous()
    gathered = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, padded)
    return torch.cat(gathered)


__all__ = [
    "ACCURACY_RATE",
    "ContrastivePretraining",
    "batch_accuracy",
    "caption_groups",
    "contrastive_loss",
    "mean_accuracy",
    "spread_text_embeddings",
]
