"""The card of the embedded miniature, filled from the results that its build and the benchmark measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from hf_maskadapter.hub.cards import ModelCardFacts, render_card
from hf_maskadapter.hub.markdown import markdown_table, percent
from hf_maskadapter.provenance import versions_text

BUILD_COMMAND = "python scripts/build_miniature.py --split test --output-dir src/hf_maskadapter/miniature/checkpoint"
BENCHMARK_COMMAND = "python scripts/benchmark.py paper --output-dir out/paper"
_KINDS = ("base", "novel", "stuff", "all")
_KIND_NAMES = {
    "base": "things seen in training",
    "novel": "things never seen in a mask",
    "stuff": "stuff",
    "all": "all",
}
_TABLES = {
    "ground_truth_masks_accuracy": "Annotated masks, share classified right",
    "ground_truth_masks_mean_iou": "Annotated masks, mIoU",
    "generated_masks_mean_iou": "Generated masks, mIoU",
    "generated_masks_mean_iou_out_of_vocabulary": "Generated masks, mIoU, classified by CLIP and the adapter alone",
}


def miniature_card(results: Mapping[str, Any] | None, benchmark: str | None = None) -> str:
    """The miniature's card.

    Args:
        results: what `scripts/build_miniature.py` wrote to `results.json`; `None` if it was not built yet.
        benchmark: the tables that `scripts/benchmark.py paper` wrote to `paper.md`, if it was run.
    """
    tables = [] if results is None else _result_tables(results)
    if benchmark is not None:
        tables += [f"The paper's claims, tested again in miniature by `{BENCHMARK_COMMAND}`:", benchmark.strip()]
    facts = ModelCardFacts(
        title="Mask-Adapter in miniature",
        summary=(
            "The whole method at a size that trains on one CPU core: a CLIP, a mask generator and a Mask-Adapter for a "
            "drawn world of coloured, textured shapes."
        ),
        description=[
            "It exists to show, test and measure the method without a download. It knows 8 colours, 4 textures and 8 "
            'shapes ("striped red star") on six backgrounds, and nothing else.'
        ],
        model_name="mask-adapter-miniature",
        labels=("striped red star", "plain blue circle", "grass", "sky"),
        license="apache-2.0",
        training=_training(results),
        results=tables or [f"Not measured yet. `{BUILD_COMMAND}` builds the model and measures it."],
        limits=[
            "On photographs its answers mean nothing: it has seen drawn scenes only.",
            "The world is its own: numbers here compare methods with each other, not with published benchmarks.",
            "Novel classes are new combinations of known words; that is easier than new words.",
        ],
        licenses=["Weights, code and the drawn pictures: Apache-2.0. No other data or weights went into it."],
        eval_results=[] if results is None else _metadata(results),
        citations=("mask-adapter", "fc-clip"),
    )
    return render_card(facts)


def _training(results: Mapping[str, Any] | None) -> list[str]:
    paragraphs = [
        "Everything is drawn and initialised from seeds: first CLIP learns from pictures with captions, many of which "
        "name one attribute only; then the mask generator is trained, then the adapter in the paper's two stages. A "
        "quarter of the 256 kinds of things occurs in captions, but in no mask that either was trained on.",
        f"The command that builds and measures it: `{BUILD_COMMAND}`.",
    ]
    if results is not None:
        paragraphs.insert(1, markdown_table(["setting", "value"], list(results["settings"].items())))
    return paragraphs


def _result_tables(results: Mapping[str, Any]) -> list[str]:
    settings = results["settings"]
    parts = [
        f"In per cent, on {settings['scenes']} scenes of the split {settings['split']!r}, seed {settings['seed']}. "
        f"Measured by `{BUILD_COMMAND}`"
        + (f" with {versions_text(results['versions'])}." if "versions" in results else ".")
    ]
    for name, title in _TABLES.items():
        if name in results:
            rows = [[method, *(percent(kinds.get(kind)) for kind in _KINDS)] for method, kinds in results[name].items()]
            parts += [f"{title}:", markdown_table(["", *(_KIND_NAMES[kind] for kind in _KINDS)], rows)]
    for name, title in (("generator", "Mask generator"), ("clip_zero_shot", "CLIP, zero-shot on single objects")):
        if name in results:
            rows = [[key, percent(value)] for key, value in results[name].items()]
            parts += [f"{title}:", markdown_table(["", "per cent"], rows)]
    return parts


def _metadata(results: Mapping[str, Any]) -> list[EvalResult]:
    kinds = results.get("generated_masks_mean_iou", {}).get("adapter", {})
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="semantic segmentation",
            dataset_type="scenes",
            dataset_name="drawn scenes of the miniature world",
            dataset_split=results["settings"]["split"],
            metric_type="mean_iou",
            metric_name=f"mIoU ({_KIND_NAMES[kind]})",
            metric_value=round(100 * kinds[kind], 2),
        )
        for kind in _KINDS
        if kind in kinds
    ]


__all__ = ["miniature_card"]
