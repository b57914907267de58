"""`maskadapter annotate`: whole data sets in another tool's format, on one or many processes, going on after a stop."""

from __future__ import annotations

import dataclasses
import sys

from .annotate_options import FORMATS, AnnotateOptions, SpreadOptions
from .errors import UserError, run_to_status
from .options import Command
from .segmenting import Task


def run(options: AnnotateOptions) -> int:
    """Write the results of all pictures in the format.

    Returns:
        The exit status.

    Raises:
        UserError: if nothing can be done.
    """
    task = _check(options)
    vocabulary = options.vocabulary.read()
    part = options.spread.part()
    if options.spread.processes is not None:
        return _run_processes(options, options.spread.processes)
    from .annotating import Annotating, telling_mistakes

    with telling_mistakes():
        work = Annotating(options, task, vocabulary)
        if options.spread.merge:
            return work.merge()
        if options.spread.engine == "ray":
            return work.run_on_ray(options.spread.workers, options.spread.ray_address)
        if part is not None:
            return work.run_part(part, by_hand=options.spread.shard is not None)
        return work.run_whole()


def _run_processes(options: AnnotateOptions, num_processes: int) -> int:
    """The work in several processes, of which the last one to end assembles the results."""
    from tqdm import tqdm

    from ..distributed.parts import read_progress
    from ..distributed.processes import WorkerDiedError, run_processes

    if options.overwrite:
        from .annotating import begin_anew

        begin_anew(options.output)
    alone = dataclasses.replace(options, overwrite=False, spread=SpreadOptions())

    def report(line: str) -> None:
        tqdm.write(f"maskadapter annotate: {line}", file=sys.stderr)

    with tqdm(unit="picture", disable=None) as bar:

        def watch() -> None:
            bar.n, bar.total = read_progress(options.output, num_processes)
            bar.refresh()

        try:
            statuses = run_processes(
                run_one_of, lambda index: (alone, index, num_processes), num_processes, report=report, watch=watch
            )
        except WorkerDiedError as error:
            raise UserError(str(error)) from error
    return max(statuses)


def run_one_of(options: AnnotateOptions, index: int, num_processes: int) -> int:
    """What a process of several on this machine does."""
    from ..distributed.parts import Part

    def work() -> int:
        from .annotating import Annotating, telling_mistakes

        with telling_mistakes():
            work = Annotating(options, _check(options), options.vocabulary.read())
            return work.run_part(Part(index, num_processes, index), show_progress=False)

    return run_to_status("maskadapter annotate", work, "exchange")


def _check(options: AnnotateOptions) -> Task:
    """The task of the results, after a look at what the user can get wrong."""
    if (options.dataset is None) == (not options.sources):
        raise UserError("name either pictures or a data set (PATH_OR_DATASET)")
    if options.format is None:
        raise UserError(f"name a --format: {', '.join(FORMATS)}")
    tasks = FORMATS[options.format]
    task = options.result.for_task(tasks[0])
    if task not in tasks:
        raise UserError(f"--format {options.format} holds --task {' or '.join(tasks)}, not {task}")
    if options.embeddings and task == "semantic":
        raise UserError("--embeddings are those of masks: choose --task panoptic or instance")
    if options.overwrite and (options.spread.shard is not None or options.spread.merge):
        raise UserError("--overwrite would remove what other parts have finished: remove the folder before they start")
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output {options.output} must be a folder, but it is a file")
    return task


COMMAND = Command(
    name="annotate",
    summary="pre-annotate pictures or a whole data set in another tool's format",
    description="Segment pictures or a whole data set with labels of your choice, and write the results in another "
    "tool's format. Give the command again to go on where it was stopped.",
    options=AnnotateOptions,
    run=run,
    extra="exchange",
)
