#!/usr/bin/env python
"""Teach a model's CLIP the words of your own domain, before `scripts/train.py` trains generator and adapter on it.

From segments and their class names:
accelerate launch scripts/pretrain_clip.py --dataset FOLDER --output_dir runs/clip --max_steps 500

From pictures with captions:
accelerate launch scripts/pretrain_clip.py --dataset FOLDER --captions --output_dir runs/clip --max_steps 5000

A run that was interrupted goes on exactly where its checkpoint was: add --resume_from_checkpoint latest.
"""

from __future__ import annotations

import logging
import sys


def main(command_line: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    from hf_maskadapter.training.pretraining_arguments import parse_pretraining_arguments

    arguments = parse_pretraining_arguments(command_line)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("hf_maskadapter").setLevel(logging.INFO)

    from hf_maskadapter.cli.running import run_script
    from hf_maskadapter.training.checkpoints import CheckpointError
    from hf_maskadapter.training.pretraining_command import run_pretraining

    def work() -> str:
        result = run_pretraining(arguments)
        return (
            f"Trained {result.step} steps in {result.seconds:.0f} seconds, loss {result.loss:.3f}, batch accuracy "
            f"{result.accuracy:.3f}; see {arguments.output_dir}."
        )

    return run_script(work, CheckpointError)


if __name__ == "__main__":
    sys.exit(main())
