"""The cards that the project keeps in `model_cards/`."""

from __future__ import annotations

from pathlib import Path

from hf_maskadapter.files import read_json, write_text
from hf_maskadapter.hub.released import RELEASED_PRESETS, released_card
from lab.cards.miniature import miniature_card

MINIATURE = "mask-adapter-miniature"


def write_cards(output_dir: Path, results: Path | None = None, benchmark: Path | None = None) -> list[Path]:
    """Write all cards.

    Args:
        output_dir: folder to write into; made if it is not there.
        results: `results.json` of the miniature's build; left out if it is not there.
        benchmark: `paper.md` of the benchmark of the paper's claims; left out if it is not there.

    Returns:
        The files.

    Raises:
        ValueError: if a file with results cannot be read.
        OSError: if a card cannot be written.
    """
    measured = read_json(results) if results is not None and results.is_file() else None
    claims = benchmark.read_text(encoding="utf-8") if benchmark is not None and benchmark.is_file() else None
    cards = {MINIATURE: miniature_card(measured, claims)}
    cards |= {preset: released_card(preset) for preset in RELEASED_PRESETS}
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in cards.items():
        paths.append(output_dir / f"{name}.md")
        write_text(paths[-1], text)
    return paths


__all__ = ["MINIATURE", "write_cards"]
