#!/usr/bin/env python
"""Write the cards in model_cards/ anew, with the numbers that the miniature's build and the benchmark measured.

python scripts/write_model_cards.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CHECKPOINT = PROJECT / "src" / "hf_maskadapter" / "miniature" / "checkpoint"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Write the cards in model_cards/ anew. Numbers come from files, none from hand."
    )
    parser.add_argument("--output_dir", type=Path, default=PROJECT / "model_cards", help="default: model_cards")
    parser.add_argument(
        "--results",
        type=Path,
        default=CHECKPOINT / "results.json",
        help="what build_miniature.py measured (default: the embedded checkpoint's results.json, if it is there)",
    )
    parser.add_argument(
        "--benchmark",
        type=Path,
        default=PROJECT / "model_cards" / "results" / "paper.md",
        help="copy of benchmark.py paper's paper.md (default: model_cards/results/paper.md, if it is there)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = parse_arguments(arguments)

    sys.path.insert(0, str(PROJECT))  # where lab is
    from lab.cards.collection import write_cards

    try:
        for path in write_cards(parsed.output_dir, parsed.results, parsed.benchmark):
            print(path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
