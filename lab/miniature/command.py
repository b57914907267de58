"""`lab build-miniature` and `lab typical-scene`: the embedded checkpoint from seeds, and the demo's picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command, positive
from hf_maskadapter.cli.training import told_as_interruption
from hf_maskadapter.data.options import option, option_group
from hf_maskadapter.files import write_atomically, write_text
from hf_maskadapter.miniature import load_miniature
from hf_maskadapter.miniature.demonstration import demonstrate
from lab.miniature.building import PARTS, BuildSettings, build_miniature
from lab.miniature.typical_scene import measure_scenes, report, typical_scene


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


@dataclass(kw_only=True)
class TypicalSceneOptions:
    """Among how many scenes, and where the picture goes."""

    output_dir: Path = option("folder for demo.png and demo.md", metavar="DIR")
    scenes: int = option("how many scenes are measured", 100, parse=positive)
    threads: int = option("threads of PyTorch; on a shared core one is fastest", 1, parse=positive)


def run_typical_scene(options: TypicalSceneOptions) -> int:
    """Measure, draw the typical scene, and return the exit status."""
    torch.set_num_threads(options.threads)
    segmenter, processor = load_miniature()
    scores = measure_scenes(segmenter, processor, options.scenes)
    chosen = typical_scene(scores)
    picture = demonstrate(segmenter, processor, chosen.seed).picture
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / "demo.png"
    write_atomically(path, lambda file: picture.save(file, format="PNG", optimize=True))
    write_text(options.output_dir / "demo.md", report(scores))
    print(report(scores) + f"\n{path}: written")
    return EXIT_OK


BUILD = Command(
    name="build-miniature",
    summary="build the embedded miniature checkpoint from seeds: CLIP, mask generator, adapter, measured results",
    description="Build the embedded miniature checkpoint from seeds. Run it again after an interruption: finished "
    "parts are skipped, and a part that was cut off goes on.",
    options=BuildOptions,
    run=run,
)
TYPICAL_SCENE = Command(
    name="typical-scene",
    summary="find the scene that the demo's picture shows by measuring, and draw it",
    description="Measure pooling and the Mask-Adapter on the demo's first scenes, choose the one of median gain among "
    "those in which they differ, and write its picture and a table of what was measured. On one core, 100 scenes take "
    "about half a minute.",
    options=TypicalSceneOptions,
    run=run_typical_scene,
)
COMMANDS = (BUILD, TYPICAL_SCENE)

__all__ = ["COMMANDS", "BuildOptions", "TypicalSceneOptions", "run", "run_typical_scene"]
