"""`lab write-model-cards`: the cards in `model_cards/` anew, with measured numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command
from hf_maskadapter.data.options import option
from lab.cards.collection import write_cards

PROJECT = Path(__file__).parents[2]
CARDS = PROJECT / "model_cards"


@dataclass(kw_only=True)
class CardOptions:
    """Where the numbers come from, and where the cards go."""

    output_dir: Path = option("folder of the cards", CARDS, metavar="DIR")
    results: Path = option(
        "what the miniature's build measured, if it is there",
        PROJECT / "src" / "hf_maskadapter" / "miniature" / "checkpoint" / "results.json",
        metavar="FILE",
    )
    benchmark: Path = option(
        "copy of the paper benchmark's tables, if it is there", CARDS / "results" / "paper.md", metavar="FILE"
    )


def run(options: CardOptions) -> int:
    """Write them, print their paths, and return the exit status."""
    for path in write_cards(options.output_dir, options.results, options.benchmark):
        print(path)
    return EXIT_OK


COMMAND = Command(
    name="write-model-cards",
    summary="write the cards in model_cards/ anew",
    description="Write the cards in model_cards/ anew. Numbers come from files, none from hand.",
    options=CardOptions,
    run=run,
)

__all__ = ["COMMAND", "CardOptions", "run"]
