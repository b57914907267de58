#!/usr/bin/env python
"""Turn a raw benchmark download into a Hugging Face data set.

python scripts/prepare_dataset.py ade20k_150 ADEChallengeData2016 prepared/ade20k_150
python scripts/prepare_dataset.py --list
"""

from __future__ import annotations

import argparse
import sys

from hf_maskadapter.cli.running import run_script
from hf_maskadapter.data import RAW_LAYOUTS, prepare_dataset


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Turn a raw benchmark download into a Hugging Face data set (Parquet files with class indices, the "
        "vocabulary and a card), which training and evaluation read and which can be pushed to the Hub."
    )
    parser.add_argument("layout", nargs="?", choices=RAW_LAYOUTS, metavar="LAYOUT", help="what it is; --list shows all")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="the folder with the unpacked download")
    parser.add_argument("output", nargs="?", metavar="OUTPUT", help="the folder to write, which must not exist yet")
    parser.add_argument("--list", action="store_true", help="show the layouts and what to download for each")
    parser.add_argument("--split", action="append", help="train or validation; may be repeated (default: those there)")
    parser.add_argument("--max_samples", type=int, help="so many samples of each split at most")
    parser.add_argument("--num_proc", type=int, default=1, help="processes to work with (default: 1)")
    parsed = parser.parse_args(arguments)
    if not parsed.list and parsed.output is None:
        parser.error("give LAYOUT, SOURCE and OUTPUT, or --list")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = parse_arguments(arguments)
    if parsed.list:
        for name, raw in RAW_LAYOUTS.items():
            print(f"{name}\n    {raw.files}")
        return 0

    def work() -> str:
        counts = prepare_dataset(
            parsed.layout,
            parsed.source,
            parsed.output,
            splits=parsed.split,
            max_samples=parsed.max_samples,
            num_proc=parsed.num_proc,
        )
        return f"{parsed.output}: {', '.join(f'{count} {split}' for split, count in counts.items())} samples"

    return run_script(work)


if __name__ == "__main__":
    sys.exit(main())
