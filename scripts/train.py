#!/usr/bin/env python
"""Train a Mask-Adapter (warm-up, then mixed masks) or a mask generator.

accelerate launch scripts/train.py --stage warmup --preset fcclip --model MODEL --dataset COCO --output_dir runs/stage1
accelerate launch scripts/train.py --stage mixed --preset fcclip --model runs/stage1/model --dataset COCO \
    --output_dir runs/stage2
accelerate launch scripts/train.py --stage warmup --num_epochs 20 --model MODEL --dataset FOLDER --output_dir runs/own

A run that was interrupted goes on exactly where its last checkpoint was: add --resume_from_checkpoint latest.
"""

from __future__ import annotations

import logging
import sys


def main(command_line: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from hf_maskadapter.training.arguments import parse_arguments

    arguments = parse_arguments(command_line)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hf_maskadapter").setLevel(logging.INFO)

    from hf_maskadapter.cli.running import run_script
    from hf_maskadapter.training.checkpoints import CheckpointError
    from hf_maskadapter.training.command import run_training

    def work() -> str:
        result = run_training(arguments)
        return f"Trained {result.step} steps in {result.seconds:.0f} seconds; see {arguments.output_dir}."

    return run_script(work, CheckpointError)


if __name__ == "__main__":
    sys.exit(main())
