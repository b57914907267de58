"""The options of `maskadapter annotate`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data.options import SourceOptions, option, option_group
from .errors import UserError
from .options import ModelOptions, VocabularyOptions, positive
from .segmenting import ResultOptions, Task

if TYPE_CHECKING:
    from ..distributed.parts import Part

FORMATS: dict[str, tuple[Task, ...]] = {
    "coco-instance": ("instance", "panoptic", "semantic"),
    "coco-panoptic": ("panoptic", "semantic"),
    "label-map": ("semantic",),
    "label-studio": ("semantic", "panoptic", "instance"),
    "cvat": ("semantic", "panoptic", "instance"),
    "parquet": ("semantic", "panoptic", "instance"),
}
"""The formats, and the tasks whose results each can hold, the usual one first; as `hf_maskadapter.exchange.FORMATS`,
which the command's help must not import."""
IMAGES = "images"


def parse_shard(text: str) -> str:
    """What a word of the command line says: a part and how many there are, counted from 0.

    Raises:
        ArgumentTypeError: if it does not.
    """
    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise argparse.ArgumentTypeError(f"must be a part and how many there are, 0/4 to 3/4, got {text!r}")
    return text


@dataclass(kw_only=True)
class SpreadOptions:
    """Which of several processes does which part of the work."""

    processes: int | None = option("that many processes on this machine", None, metavar="N", parse=positive)
    shard: str | None = option(
        "this part of several, of which each is started by hand, counted from 0: 0/4 to 3/4; torchrun, accelerate "
        "launch and srun give it by themselves",
        None,
        metavar="I/N",
        parse=parse_shard,
    )
    merge: bool = option("assemble what all parts have finished, and segment nothing", False)
    engine: Literal["processes", "ray"] = option(
        "who spreads the work: processes that share the output folder alone, or Ray Data", "processes"
    )
    workers: int | None = option(
        "models that Ray runs; default: one a GPU, or one a core where there is none", None, metavar="N", parse=positive
    )
    ray_address: str | None = option(
        "a running Ray cluster ('auto': the one of this machine), whose machines all see the output folder; default: "
        "this machine alone",
        None,
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        given = [self.processes is not None, self.shard is not None, self.merge]
        if sum(given) > 1:
            raise ValueError("give at most one of --processes, --shard and --merge")
        if self.engine == "ray" and any(given):
            raise ValueError("--engine ray spreads the work by itself: leave out --processes, --shard and --merge")
        if self.engine != "ray" and (self.workers is not None or self.ray_address is not None):
            raise ValueError("--workers and --ray-address are for --engine ray")

    def part(self) -> Part | None:
        """The part of this process: by hand, or from the launcher.

        Raises:
            UserError: if both name one.
        """
        from ..distributed.parts import Part, part_from_environment

        try:
            launched = part_from_environment()
        except ValueError as error:
            raise UserError(str(error)) from error
        alone = self.processes is not None or self.shard is not None or self.merge or self.engine == "ray"
        if launched is not None and alone:
            raise UserError(
                "this process was started as one of several (RANK and WORLD_SIZE, or srun's): leave out --processes, "
                "--shard, --merge and --engine, or start it alone"
            )
        if self.shard is None:
            return launched
        index, _, of = self.shard.partition("/")
        return Part(int(index), int(of))


@dataclass(kw_only=True)
class AnnotateOptions:
    """Which pictures, how, in which format, and where it goes."""

    sources: tuple[str, ...] = option(
        "a data set (a folder, a name on the Hub, or 'scenes', which are drawn), or picture files and folders of them",
        (),
        metavar="PATH_OR_DATASET",
        positional=True,
    )
    dataset: str | None = option(argparse.SUPPRESS, None)
    format: str | None = option("what to write", None, choices=lambda: tuple(FORMATS))
    output: Path = option("folder to write; give the command again to go on where it was stopped", metavar="DIR")
    model: ModelOptions = option_group(ModelOptions, "model")
    vocabulary: VocabularyOptions = option_group(VocabularyOptions, "what to look for")
    result: ResultOptions = option_group(ResultOptions, "how")
    source: SourceOptions = option_group(SourceOptions, "the data set")
    split: str | None = option("the data set's split", None, metavar="NAME")
    max_pictures: int | None = option("the first N pictures only", None, metavar="N", parse=positive)
    copy_pictures: bool = option(f"write the pictures, too, as PNGs to {IMAGES}/ in the output folder", False)
    image_prefix: str | None = option(
        "address of the pictures' folder, for --format label-studio", None, metavar="TEXT"
    )
    embeddings: bool = option("write the embedding of every segment to embeddings.parquet, too", False)
    spread: SpreadOptions = option_group(SpreadOptions, "on many processes")
    overwrite: bool = option("begin anew in a folder with other results", False)


__all__ = ["FORMATS", "AnnotateOptions", "SpreadOptions"]
