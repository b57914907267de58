"""Build the embedded miniature checkpoint from seeds: CLIP, mask generator, adapter, measured results.

Resumable: run it again after an interruption, finished parts are skipped and a part that was cut off goes on.

    python scripts/build_miniature.py --work-dir miniature-build --output-dir src/hf_maskadapter/miniature/checkpoint
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from hf_maskadapter.cli.errors import run_script

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where lab is

from lab.miniature.building import PARTS, BuildSettings, build_miniature


def parse_arguments() -> argparse.Namespace:
    defaults = BuildSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("miniature-build"), help="checkpoints of the parts")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the finished checkpoint")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="build only these")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; on a shared core one is fastest")
    parser.add_argument("--clip-steps", type=int, default=defaults.clip_steps)
    parser.add_argument("--generator-steps", type=int, default=defaults.generator_steps)
    parser.add_argument("--warmup-steps", type=int, default=defaults.warmup_steps, help="steps of stage 1")
    parser.add_argument(
        "--mixed-steps", type=int, default=defaults.mixed_steps, help="steps of stage 2; 0 leaves it out"
    )
    parser.add_argument("--scenes", type=int, default=defaults.scenes, help="scenes that results are measured on")
    parser.add_argument("--split", choices=("validation", "test"), default=defaults.split)
    parser.add_argument("--withheld", help="value of an attribute to withhold from all training masks, e.g. heart")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)

    def work() -> None:
        settings = BuildSettings(
            seed=arguments.seed,
            clip_steps=arguments.clip_steps,
            generator_steps=arguments.generator_steps,
            warmup_steps=arguments.warmup_steps,
            mixed_steps=arguments.mixed_steps,
            scenes=arguments.scenes,
            split=arguments.split,
            withheld=arguments.withheld,
        )
        build_miniature(arguments.work_dir, arguments.output_dir, settings, arguments.parts)

    return run_script(work)


if __name__ == "__main__":
    sys.exit(main())
