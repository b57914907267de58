"""`maskadapter evaluate`: mean IoU, panoptic quality and mask average precision of a model."""

from __future__ import annotations

from ..evaluation.options import EvaluationOptions
from .errors import EXIT_OK
from .options import Command


def run(options: EvaluationOptions) -> int:
    """Measure, and print a summary; or list the benchmarks."""
    if options.list_benchmarks:
        from ..evaluation.benchmarks import BENCHMARKS

        print("\n\n".join(f"{name}\n  {entry.instructions()}" for name, entry in BENCHMARKS.items()))
        return EXIT_OK
    from .evaluation import run_evaluation

    summary = run_evaluation(options)
    if summary:
        print(summary)
    return EXIT_OK


COMMAND = Command(
    name="evaluate",
    summary="measure a model: mean IoU, panoptic quality, mask average precision",
    description="Measure a model on a benchmark or on one's own data, on one or many processes (accelerate launch -m "
    "hf_maskadapter.cli evaluate ...). An interrupted evaluation goes on when the same command is given again.",
    options=EvaluationOptions,
    run=run,
    extra="eval",
)
