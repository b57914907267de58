"""One process of a distributed contrastive step; started by `test_contrastive.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import CLIPTextConfig

from hf_maskadapter.cli.errors import leave_process_group
from hf_maskadapter.model.configuration_clips import ConvNextClipConfig
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.training.contrastive import ContrastiveArguments, ContrastiveBatch, ContrastiveTrainer

BATCH = 8


def build_trainer(rank: int, processes: int) -> ContrastiveTrainer:
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
    return ContrastiveTrainer(
        model,
        lambda step, trainer: ContrastiveBatch(pixels[part], own_ids),
        ContrastiveArguments(max_steps=3, warmup_steps=1, bf16=False),
    )


def main() -> None:
    rank, rendezvous, output = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    trainer = build_trainer(rank, 2)
    trainer.train()
    if rank == 0:
        torch.save(trainer.model.state_dict(), output)
    dist.barrier()


if __name__ == "__main__":
    main()
    leave_process_group()
