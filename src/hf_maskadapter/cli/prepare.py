"""`maskadapter prepare`: a raw benchmark download to a Hugging Face data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.options import option
from .errors import EXIT_OK
from .options import Command, positive


@dataclass(kw_only=True)
class PrepareOptions:
    """Which download, and where the data set goes."""

    layout: str | None = option("what it is; --list shows all", None, metavar="LAYOUT", positional=True)
    source: Path | None = option("the folder with the unpacked download", None, metavar="SOURCE", positional=True)
    output: Path | None = option(
        "the folder to write, which must not exist yet: it appears complete or not at all",
        None,
        metavar="OUTPUT",
        positional=True,
    )
    list_layouts: bool = option("show the layouts and what to download for each", False, flags=("--list",))
    split: tuple[str, ...] = option("train, validation, or both (default: those there)", (), metavar="NAME")
    max_samples: int | None = option("so many samples of each split at most", None)
    num_proc: int = option("processes to work with", 1, parse=positive)

    def __post_init__(self) -> None:
        if not self.list_layouts and self.output is None:
            raise ValueError("give LAYOUT, SOURCE and OUTPUT, or --list")


def run(options: PrepareOptions) -> int:
    """Write the data set and say how many samples it has; or list the layouts."""
    from ..data import RAW_LAYOUTS, prepare_dataset

    if options.list_layouts:
        for name, raw in RAW_LAYOUTS.items():
            print(f"{name}\n    {raw.files}")
        return EXIT_OK
    counts = prepare_dataset(
        str(options.layout),
        str(options.source),
        str(options.output),
        splits=options.split or None,
        max_samples=options.max_samples,
        num_proc=options.num_proc,
    )
    print(f"{options.output}: {', '.join(f'{count} {split}' for split, count in counts.items())} samples")
    return EXIT_OK


COMMAND = Command(
    name="prepare",
    summary="turn a raw benchmark download into a Hugging Face data set",
    description="Turn a raw benchmark download into a Hugging Face data set (Parquet files with class indices, the "
    "vocabulary and a card), which training and evaluation read and which can be pushed to the Hub.",
    options=PrepareOptions,
    run=run,
    extra="eval",
)
