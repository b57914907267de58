"""Contrastive pre-training of a CLIP on pictures and captions (arXiv 2103.00020, figure 3).

The loss is symmetric, compares the pictures and captions of all processes, and counts identical captions as matching
each other. Batches are a function of the step, so a run that was cut off goes on where its checkpoint was written.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..files import write_atomically
from ..model.modeling_clip import ConvolutionalClipModel
from .checkpoints import CheckpointError, describe_write_error


@dataclass
class ContrastiveBatch:
    """Pictures and their captions, as the model takes them.

    Attributes:
        pixel_values: (batch, channels, height, width), normalised.
        input_ids: (batch, length) token ids, or (captions, batch, length) where each picture has several captions.
    """

    pixel_values: Tensor
    input_ids: Tensor


@dataclass
class ContrastiveArguments:
    """How to pre-train.

    Args:
        max_steps: optimiser steps.
        learning_rate: peak of the cosine schedule.
        warmup_steps: steps of linear warm-up.
        weight_decay: decoupled, on matrices and kernels only.
        max_grad_norm: norm that gradients are clipped at; 0: no clipping.
        text_start_step: the text tower is trained from this step on. Texts of what the image tower cannot yet tell
            apart ("striped", "checked") would run together, and where they coincide neither tower gets a gradient.
        text_learning_rate_scale: factor on the text tower's learning rate.
        bf16: autocast to bfloat16; the loss stays in float32.
        checkpoint_steps: write a checkpoint every so many steps.
        logging_steps: report every so many steps.
    """

    max_steps: int = 4000
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    text_start_step: int = 0
    text_learning_rate_scale: float = 1.0
    bf16: bool = True
    checkpoint_steps: int = 200
    logging_steps: int = 50


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, in rank order; the gradients of all processes' losses flow back to each."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
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


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim >= 2 and "embedding" not in name
            groups.setdefault((name.startswith("text_model."), decayed), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decayed else 0.0, "is_text": is_text}
        for (is_text, decayed), parameters in groups.items()
    ]


class ContrastiveTrainer:
    """Trains a CLIP with an image tower of this package.

    Args:
        model: the model; every parameter that requires a gradient is trained.
        batches: gives a step's batch. It receives the step and the trainer, whose `accuracy` (a running mean) and
            `memory` (a dict of plain values that checkpoints keep) let a curriculum depend on what has been learned.
        arguments: how to train.
        checkpoint_path: file to write checkpoints to and to resume from; None for neither.
        device: where to train.
        report: called with a dict of numbers every `logging_steps`.
    """

    def __init__(
        self,
        model: ConvolutionalClipModel,
        batches: Callable[[int, ContrastiveTrainer], ContrastiveBatch],
        arguments: ContrastiveArguments | None = None,
        checkpoint_path: str | os.PathLike | None = None,
        device: str | torch.device = "cpu",
        report: Callable[[dict[str, float]], None] | None = None,
    ):
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.batches = batches
        self.arguments = arguments or ContrastiveArguments()
        self.checkpoint_path = Path(checkpoint_path) if checkpoint_path is not None else None
        self.device = torch.device(device)
        self.report = report
        self.step = 0
        self.accuracy = 0.0
        self.memory: dict[str, Any] = {}
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, self.arguments.weight_decay),
            lr=self.arguments.learning_rate,
            betas=self.arguments.betas,
            fused=True,
        )
        if self.checkpoint_path is not None and self.checkpoint_path.exists():
            self._load()

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then cosine to 0."""
        arguments = self.arguments
        if step < arguments.warmup_steps:
            return arguments.learning_rate * (step + 1) / arguments.warmup_steps
        progress = (step - arguments.warmup_steps) / max(1, arguments.max_steps - arguments.warmup_steps)
        return arguments.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def train(self) -> ConvolutionalClipModel:
        """Train to `max_steps` and return the model in evaluation mode."""
        self.model.train()
        started, first = time.perf_counter(), self.step
        while self.step < self.arguments.max_steps:
            loss = self._train_step()
            if self.report is not None and self.step % self.arguments.logging_steps == 0:
                elapsed = time.perf_counter() - started
                self.report(
                    {
                        "step": self.step,
                        "loss": loss,
                        "accuracy": self.accuracy,
                        "logit_scale": self.model.get_logit_scale().item(),
                        "steps_per_second": (self.step - first) / elapsed,
                        **{k: v for k, v in self.memory.items() if isinstance(v, (int, float))},
                    }
                )
            if self.step % self.arguments.checkpoint_steps == 0 or self.step == self.arguments.max_steps:
                self._save()
        return self.model.eval()

    def _train_step(self) -> float:
        trains_text = self.step >= self.arguments.text_start_step
        for group in self.optimizer.param_groups:
            scale = self.arguments.text_learning_rate_scale * trains_text if group["is_text"] else 1.0
            group["lr"] = scale * self.learning_rate(self.step)
        batch = self.batches(self.step, self)
        pixel_values = batch.pixel_values.to(self.device).contiguous(memory_format=torch.channels_last)
        input_ids = batch.input_ids.to(self.device)
        input_ids = (input_ids[None] if input_ids.ndim == 2 else input_ids).transpose(0, 1)
        eos_token_id = self.model.config.text_config.eos_token_id
        texts = input_ids.flatten(0, 1)
        unique, inverse = caption_groups_with_rows(texts, eos_token_id)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.arguments.bf16):
            image_embeds = self.model.get_image_features(pixel_values)
            with torch.set_grad_enabled(trains_text):
                text_embeds = self.model.get_text_features(texts[unique])[inverse]
        image_embeds = _gather(image_embeds.float())
        text_embeds = _gather(text_embeds.float().unflatten(0, input_ids.shape[:2]))
        ids = _gather_ids(input_ids, eos_token_id)
        groups = caption_groups(ids.flatten(0, 1), eos_token_id).unflatten(0, ids.shape[:2]).T
        text_embeds = text_embeds.transpose(0, 1)
        loss = contrastive_loss(image_embeds, text_embeds, groups, self.model.get_logit_scale())
        loss.backward()
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            of_positions = [batch_accuracy(image_embeds, *each) for each in zip(text_embeds, groups, strict=True)]
        self.accuracy += 0.1 * (sum(of_positions) / len(of_positions) - self.accuracy)
        self.step += 1
        return loss.item()

    def _average_gradients(self) -> None:
        if _is_distributed():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()

    def _save(self) -> None:
        if self.checkpoint_path is None or (_is_distributed() and dist.get_rank() != 0):
            return
        self.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "accuracy": self.accuracy,
            "memory": self.memory,
        }
        try:
            write_atomically(self.checkpoint_path, lambda file: torch.save(state, file), sync=True)
        except (OSError, RuntimeError) as error:  # PyTorch's writer makes a RuntimeError of a full disk
            again = "start the same run again to go on"
            raise describe_write_error(self.step, self.checkpoint_path.parent, error, again) from error

    def _load(self) -> None:
        try:
            state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"The checkpoint {self.checkpoint_path} is damaged or belongs to another model ({error}). Give the "
                "model and options that it was written with, or remove it to start anew."
            ) from error
        self.step, self.accuracy, self.memory = state["step"], state["accuracy"], state["memory"]


def caption_groups_with_rows(input_ids: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
    """One row index of each distinct caption, and each row's position among them: each caption is encoded once."""
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
