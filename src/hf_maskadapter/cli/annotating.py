"""Pre-annotate pictures or a whole data set in another tool's format, and go on where an earlier run stopped."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_atomically
from ..model.vocabulary import Vocabulary
from .errors import EXIT_OK, EXIT_SOME_FAILED, UserError, one_line
from .options import model_name
from .segmenting import Segmenting

if TYPE_CHECKING:
    from PIL import Image

    from ..data.pictures import NamedPicture, PictureSource
    from ..exchange import ResultFormat

FORMATS = {
    "coco-instance": ("instance", "panoptic", "semantic"),
    "coco-panoptic": ("panoptic", "semantic"),
    "label-map": ("semantic",),
    "label-studio": ("semantic", "panoptic", "instance"),
    "cvat": ("semantic", "panoptic", "instance"),
}
"""The formats, and the tasks whose results each can hold, the usual one first; as `hf_maskadapter.exchange.FORMATS`,
which the command's help must not import."""
IMAGES = "images"


def annotate(args: argparse.Namespace, vocabulary: Vocabulary) -> int:
    """Write the results of all pictures that the options of `maskadapter segment` name in the format that they name.

    Returns:
        The exit status.

    Raises:
        UserError: if nothing can be done.
    """
    _check(args)
    from ..data.samples import DataError
    from ..exchange import FORMATS as FORMAT_CLASSES
    from ..exchange import ExchangeError, ResultWriter
    from ..model.segments import Segments

    args.task = args.task or FORMATS[args.format][0]
    folder = Path(args.output)
    try:
        source = _open_source(args)
        result_format = FORMAT_CLASSES[args.format](folder, vocabulary, model_name(args), args.image_prefix)
        with ResultWriter(result_format, _fingerprint(args, vocabulary), overwrite=args.overwrite) as writer:
            done = len(writer.done)
            rest = _not_done(source, writer.done, args)
            first = next(rest, None)
            failed = 0
            if first is not None:
                segmenting = Segmenting(args, vocabulary)
                items = itertools.chain([first], rest)
                total = source.size if args.max_pictures is None else min(source.size or sys.maxsize, args.max_pictures)
                for item, picture, segments in segmenting.run(items, _read, total=total, done=done):
                    file_name = _file_name(item.file_name, args)
                    if args.copy_pictures:
                        _copy(picture, folder / IMAGES / file_name)
                    size = picture.height, picture.width
                    writer.add(Segments.from_pipeline(segments, size, vocabulary, args.task, file_name))
                failed = segmenting.failed
            written = writer.finish()
    except (DataError, ExchangeError) as error:
        raise UserError(one_line(error)) from error
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {one_line(error)}") from error
    now = len(writer.done) - done
    before = f", {done} were done before" if done else ""
    print(f"{now} pictures segmented{before}: {', '.join(map(str, written))}")
    _print_next_step(result_format)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _check(args: argparse.Namespace) -> None:
    if (args.dataset is None) == (not args.pictures):
        raise UserError("name either pictures or a --dataset")
    if args.format is None:
        raise UserError(f"--dataset needs a --format: {', '.join(FORMATS)}")
    if args.task is not None and args.task not in FORMATS[args.format]:
        raise UserError(f"--format {args.format} holds --task {' or '.join(FORMATS[args.format])}, not {args.task}")
    for name in ("json", "masks", "no_legend", "font"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} is for painted pictures: leave it or --format out")
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise UserError(f"--output {args.output} must be a folder, but it is a file")


def _open_source(args: argparse.Namespace) -> PictureSource:
    from ..data.pictures import open_pictures, pictures_of_paths

    if args.dataset is None:
        return pictures_of_paths(args.pictures)
    try:
        return open_pictures(
            args.dataset,
            split=args.split,
            config_name=args.config_name,
            streaming=args.streaming,
            image_column=args.image_column,
            id_column=args.id_column,
            **({} if args.max_pictures is None else {"num_scenes": args.max_pictures}),
        )
    except ModuleNotFoundError as error:
        raise UserError(f"--dataset needs the library {error.name}: pip install 'hf-maskadapter[exchange]'") from error


def _fingerprint(args: argparse.Namespace, vocabulary: Vocabulary) -> dict[str, object]:
    """What makes the results; pictures of one batch size may be followed by those of another."""
    names = ["dataset", "split", "config_name", "model", "revision", "subfolder", "mask_embedding", "dtype", "task"]
    names += ["threshold", "overlap_threshold", "image_prefix", "copy_pictures"]
    facts = {name: getattr(args, name) for name in names}
    return {**facts, "pictures": [str(path) for path in args.pictures], "vocabulary": vocabulary.to_dict()}


def _not_done(source: PictureSource, done: set[str], args: argparse.Namespace) -> Iterator[NamedPicture]:
    items = itertools.islice(source, args.max_pictures)
    return (item for item in items if _file_name(item.file_name, args) not in done)


def _file_name(name: str, args: argparse.Namespace) -> str:
    """The picture's name in the results: its copy's, if it is copied, which is a PNG so that nothing is lost."""
    from ..exchange.formats import picture_name

    return picture_name(name, ".png") if args.copy_pictures else name


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


def _print_next_step(result_format: ResultFormat) -> None:
    for line in result_format.next_steps():
        print(line)
