"""Published mIoU in per cent on the field's benchmarks (Mask-Adapter paper, arXiv 2412.04533)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TITLES: Mapping[str, str] = {
    "ade20k_150": "A-150 (ADE20K)",
    "ade20k_847": "A-847 (full ADE20K)",
    "pascal_context_59": "PC-59 (Pascal Context)",
    "pascal_context_459": "PC-459 (Pascal Context)",
    "pascal_voc_20": "PAS-20 (Pascal VOC 2012 without background)",
}
"""What results call these benchmarks."""


def _published(fcclip: Sequence[float], maft_base: Sequence[float], maft_large: Sequence[float]) -> dict[str, float]:
    """Pairs of (without adapter, with Mask-Adapter) by model."""
    models = {"FC-CLIP-L": fcclip, "MAFT+-B": maft_base, "MAFT+-L": maft_large}
    return {
        name: value
        for model, (plain, adapted) in models.items()
        for name, value in ((model, plain), (f"{model} with Mask-Adapter", adapted))
    }


PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "ade20k_150": _published((34.1, 36.6), (34.5, 35.6), (36.3, 38.2)),
    "ade20k_847": _published((14.8, 14.1), (13.8, 14.2), (15.5, 16.2)),
    "pascal_context_59": _published((58.4, 59.7), (57.5, 58.4), (59.5, 60.4)),
    "pascal_context_459": _published((18.2, 19.3), (18.5, 17.9), (21.2, 22.7)),
    "pascal_voc_20": _published((95.4, 95.5), (95.5, 95.1), (96.4, 95.8)),
}
"""Benchmark → model → mIoU."""

__all__ = ["PUBLISHED", "TITLES"]
