"""`lab build-miniature`: the embedded checkpoint from seeds, with its measured results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command, positive
from hf_maskadapter.cli.training import told_as_interruption
from hf_maskadapter.data.options import option, option_group
from lab.miniature.building import PARTS, BuildSettings, build_miniature


@dataclass(kw_only=True)
class BuildOptions:
    """What is built, and where."""

    work_dir: Path = option("checkpoints and logs of the parts", Path("miniature-build"), metavar="DIR")
    output_dir: Path = option("folder of the finished checkpoint", metavar="DIR")
    parts: tuple[str, ...] = option("build only these", PARTS, choices=lambda: PARTS)
    threads: int = option("threads of PyTorch; on a shared core one is fastest", 1, parse=positive)
    settings: BuildSettings = option_group(BuildSettings, "what is built")


def run(options: BuildOptions) -> int:
    """Build it, and return the exit status."""
    torch.set_num_threads(options.threads)
    with told_as_interruption("give the command again to go on"):
        build_miniature(options.work_dir, options.output_dir, options.settings, options.parts)
    return EXIT_OK


COMMAND = Command(
    name="build-miniature",
    summary="build the embedded miniature checkpoint from seeds: CLIP, mask generator, adapter, measured results",
    description="Build the embedded miniature checkpoint from seeds. Run it again after an interruption: finished "
    "parts are skipped, and a part that was cut off goes on.",
    options=BuildOptions,
    run=run,
)

__all__ = ["COMMAND", "BuildOptions", "run"]
