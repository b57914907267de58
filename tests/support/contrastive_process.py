"""Contrastive trainings on one fixed batch; run as a program, one process of several under `torch.distributed.run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import CLIPTextConfig

from hf_maskadapter.cli.errors import leave_process_group
from hf_maskadapter.model.configuration_clips import ConvNextClipConfig
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.training.clip_stage import ContrastivePretraining
from hf_maskadapter.training.optimization import LearningRateSchedule, parameter_groups
from hf_maskadapter.training.trainer import Trainer, TrainerSettings
from lab.miniature.training import StepBatches

BATCH = 8


def trainer(output_dir, stage, batch_of_step, steps, warmup_steps=2, **settings):
    """A trainer in fp32 on batches that are a function of the step."""
    optimizer = torch.optim.AdamW(parameter_groups(stage, 0.05), lr=1e-3, betas=(0.9, 0.98), fused=True)
    schedule = LearningRateSchedule("cosine_after_warmup", steps, min(warmup_steps, steps))
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    settings = TrainerSettings(Path(output_dir), max_steps=steps, logging_steps=1, **settings)
    return Trainer(stage, StepBatches(batch_of_step), optimizer, schedule, accelerator, settings)


def build_trainer(output_dir, rank, processes):
    """A trainer whose process `rank` sees its part of one fixed batch; layer norm, so that parts do not interact."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=3,
    )
    model = ConvNextClipModel(
        ConvNextClipConfig(
            text_config=text, hidden_sizes=[8, 16], depths=[1, 1], projection_dim=8, projection_hidden_dim=None
        )
    )
    pixels = torch.randn(BATCH, 3, 16, 16)
    ids = torch.tensor([[[1, 4 + 6 * position + row % 5, 3] for row in range(BATCH)] for position in range(2)])
    part = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    own_ids = ids[:, part] if rank == 0 else torch.nn.functional.pad(ids[:, part], (0, 1), value=3)  # another length
    batch = {"pixel_values": pixels[part], "input_ids": own_ids}
    return trainer(output_dir, ContrastivePretraining(model), lambda _: batch, 3, warmup_steps=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        build_trainer(sys.argv[1], int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])).train()
    finally:
        leave_process_group()
