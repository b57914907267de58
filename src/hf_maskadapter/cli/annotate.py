"""`maskadapter annotate`: pictures or whole data sets in another tool's format, going on after a stop."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.options import SourceOptions, option, option_group
from ..files import folder_lock, write_atomically
from ..model.vocabulary import Vocabulary
from .errors import EXIT_OK, EXIT_SOME_FAILED, UserError, one_line
from .options import Command, ModelOptions, VocabularyOptions, positive
from .segment import PICTURE_SUFFIXES
from .segmenting import ResultOptions, Segmenting, Task

if TYPE_CHECKING:
    from PIL import Image

    from ..data.opening import NamedPicture, PictureSource
    from ..model.segments import Segments

FORMATS: dict[str, tuple[Task, ...]] = {
    "coco-instance": ("instance", "panoptic", "semantic"),
    "coco-panoptic": ("panoptic", "semantic"),
    "label-map": ("semantic",),
    "label-studio": ("semantic", "panoptic", "instance"),
    "cvat": ("semantic", "panoptic", "instance"),
}
"""The formats, and the tasks whose results each can hold, the usual one first; as `hf_maskadapter.exchange.FORMATS`,
which the command's help must not import."""
IMAGES = "images"


@dataclass(kw_only=True)
class AnnotateOptions:
    """Which pictures, how, in which format, and where it goes."""

    sources: tuple[str, ...] = option(
        "a data set (a folder, a name on the Hub, or 'scenes', which are drawn), or picture files and folders of them",
        (),
        metavar="PATH_OR_DATASET",
        positional=True,
    )
    dataset: str | None = option(argparse.SUPPRESS, None)
    format: str | None = option("what to write", None, choices=lambda: tuple(FORMATS))
    output: Path = option("folder to write; give the command again to go on where it was stopped", metavar="DIR")
    model: ModelOptions = option_group(ModelOptions, "model")
    vocabulary: VocabularyOptions = option_group(VocabularyOptions, "what to look for")
    result: ResultOptions = option_group(ResultOptions, "how")
    source: SourceOptions = option_group(SourceOptions, "the data set")
    split: str | None = option("the data set's split", None, metavar="NAME")
    max_pictures: int | None = option("the first N pictures only", None, metavar="N", parse=positive)
    copy_pictures: bool = option(f"write the pictures, too, as PNGs to {IMAGES}/ in the output folder", False)
    image_prefix: str | None = option(
        "address of the pictures' folder, for --format label-studio", None, metavar="TEXT"
    )
    overwrite: bool = option("begin anew in a folder with other results", False)


def run(options: AnnotateOptions) -> int:
    """Write the results of all pictures in the format.

    Returns:
        The exit status.

    Raises:
        UserError: if nothing can be done.
    """
    task = _check(options)
    vocabulary = options.vocabulary.read()
    from ..data.samples import DataError
    from ..exchange import FORMATS as FORMAT_CLASSES
    from ..exchange import ExchangeError, ResultWriter

    folder = options.output
    try:
        source = _open_source(options)
        result_format = FORMAT_CLASSES[str(options.format)](
            folder, vocabulary, options.model.name, options.image_prefix
        )
        with (
            folder_lock(folder, "annotate"),
            ResultWriter(result_format, _fingerprint(options, task, vocabulary), overwrite=options.overwrite) as writer,
        ):
            done = len(writer.done)
            rest = _not_done(source, writer.done, options)
            first = next(rest, None)
            failed = 0
            if first is not None:
                segmenting = Segmenting("annotate", options.model, vocabulary, options.result, task)
                items = itertools.chain([first], rest)
                total = source.size
                if options.max_pictures is not None:
                    total = min(source.size or sys.maxsize, options.max_pictures)

                def claimed() -> Iterator[NamedPicture]:
                    for item in items:
                        writer.claim(_file_name(item.file_name, options))
                        yield item

                def record(item: NamedPicture, picture: Image.Image, segments: Segments) -> dict[str, Any]:
                    file_name = _file_name(item.file_name, options)
                    if options.copy_pictures:
                        _copy(picture, folder / IMAGES / file_name)
                    return writer.format.record(dataclasses.replace(segments, picture=file_name))

                for item, finished in segmenting.run(claimed(), _read, record, total=total, done=done):
                    writer.note(finished, item.place)
                failed = segmenting.failed
            written = writer.finish()
    except (DataError, ExchangeError) as error:
        raise UserError(one_line(error)) from error
    now = len(writer.done) - done
    before = f", {done} were done before" if done else ""
    print(f"{now} pictures segmented{before}: {', '.join(map(str, written))}")
    for line in result_format.next_steps():
        print(line)
    return EXIT_SOME_FAILED if failed else EXIT_OK


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
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output {options.output} must be a folder, but it is a file")
    return task


def _open_source(options: AnnotateOptions) -> PictureSource:
    from ..data.opening import open_pictures, pictures_of_paths

    dataset = options.dataset
    if dataset is None:
        paths = [Path(source) for source in options.sources]
        if len(paths) > 1 or paths[0].suffix.lower() in PICTURE_SUFFIXES:
            return pictures_of_paths(paths)
        dataset = options.sources[0]
    return open_pictures(dataset, options.source, split=options.split, num_scenes=options.max_pictures or 300)


def _fingerprint(options: AnnotateOptions, task: Task, vocabulary: Vocabulary) -> dict[str, object]:
    """What makes the results; pictures of one batch size may be followed by those of another."""
    facts = dataclasses.asdict(options)
    model, result, source = facts.pop("model"), facts.pop("result"), facts.pop("source")
    for group, names in (
        (facts, ("format", "output", "max_pictures", "overwrite")),
        (model, ("device",)),
        (result, ("batch_size",)),
        (source, ("streaming", "cache_dir")),
    ):
        for name in names:
            del group[name]
    return {**facts, **source, **model, **result, "task": task, "vocabulary": vocabulary.to_dict()}


def _not_done(source: PictureSource, done: set[str], options: AnnotateOptions) -> Iterator[NamedPicture]:
    items = itertools.islice(source, options.max_pictures)
    return (item for item in items if _file_name(item.file_name, options) not in done)


def _file_name(name: str, options: AnnotateOptions) -> str:
    """The picture's name in the results: its copy's, if it is copied, which is a PNG so that nothing is lost."""
    from ..exchange.formats import picture_name

    return picture_name(name, ".png") if options.copy_pictures else name


def _read(item: NamedPicture) -> Image.Image:
    from ..data.samples import DataError
    from ..model.pictures import as_viewer_shows

    try:
        return as_viewer_shows(item.read())
    except DataError as error:
        raise UserError(one_line(error)) from error


def _copy(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(picture.save, format="PNG"))


COMMAND = Command(
    name="annotate",
    summary="pre-annotate pictures or a whole data set in another tool's format",
    description="Segment pictures or a whole data set with labels of your choice, and write the results in another "
    "tool's format. Give the command again to go on where it was stopped.",
    options=AnnotateOptions,
    run=run,
    extra="exchange",
)
