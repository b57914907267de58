"""`lab load`: the service under load, compared with the pipeline."""

from __future__ import annotations

from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command
from lab.serving.load import LoadOptions, measure, watch_memory


def run(options: LoadOptions) -> int:
    """Print the table, and return the exit status."""
    print(watch_memory(options) if options.memory_requests else measure(options))
    return EXIT_OK


COMMAND = Command(
    name="load",
    summary="the service under load, compared with the pipeline",
    description="Start maskadapter serve on loopback, let clients ask it, and compare its pictures per CPU second with "
    "those of the pipeline, in turns. Needs Linux.",
    options=LoadOptions,
    run=run,
)
__all__ = ["COMMAND"]
