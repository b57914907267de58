"""The command `maskadapter`: segment pictures, convert released checkpoints.

PyTorch and Transformers are imported only when a command runs, so that `maskadapter --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from . import __version__
from .vocabulary import Vocabulary, label_sets

if TYPE_CHECKING:
    from PIL import Image

EXIT_OK, EXIT_SOME_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130

TASKS = ("semantic", "panoptic", "instance")
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OVERLAY_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class UserError(Exception):
    """Something that the user can mend: reported in one line, without a traceback."""


class _Parser(argparse.ArgumentParser):
    """Reports mistakes in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default the process's.

    Returns:
        The exit status: 0, 1 if some of many pictures failed, 2 for a mistake of the user's, 130 if interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except UserError as error:
        print(f"maskadapter {args.command}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"maskadapter {args.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SOME_FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="maskadapter", description="Open-vocabulary segmentation with Mask-Adapter.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_segment(commands)
    _add_convert(commands)
    return parser


# --- segment ----------------------------------------------------------------------------------------------------------


def _add_segment(commands: Any) -> None:
    parser = commands.add_parser(
        "segment",
        help="segment pictures with labels of your choice",
        description="Segment pictures with labels of your choice, and write each picture with its segments painted "
        "over it and a legend below.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture file, or folder of pictures")
    parser.add_argument("--model", required=True, metavar="DIR_OR_ID", help="folder of a model, or its name on the Hub")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE_OR_DIR",
        help=f"picture file to write ({', '.join(OVERLAY_SUFFIXES)}), or folder for one PNG per picture",
    )

    labels = parser.add_argument_group("what to look for (one of these)").add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", metavar="NAMES", help='class names separated by commas: "cat, sofa, wall"')
    labels.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="one class a line, its synonyms separated by commas; also id:name,name lines, and JSON",
    )
    labels.add_argument("--label-set", choices=label_sets(), metavar="NAME", help=f"one of {', '.join(label_sets())}")
    parser.add_argument(
        "--things",
        metavar="NAMES",
        help="the countable classes among these; all others become stuff, of which a panoptic result has one segment",
    )

    how = parser.add_argument_group("how")
    how.add_argument("--task", choices=TASKS, default="semantic", help="default: semantic")
    how.add_argument(
        "--threshold", type=_fraction, metavar="X", help="least score of panoptic and instance segments, 0 to 1"
    )
    how.add_argument(
        "--overlap-threshold",
        type=_fraction,
        metavar="X",
        help="least visible share of a panoptic segment, 0 to 1",
    )
    how.add_argument(
        "--mask-embedding",
        choices=("adapter", "pooling", "crop"),
        help="how masks are classified; default: as the model's configuration says",
    )
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the first accelerator there is")
    how.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: auto"
    )
    how.add_argument(
        "--batch-size",
        type=_positive,
        default=1,
        metavar="N",
        help="pictures at a time, default 1; more are padded to a common size, which changes results slightly",
    )
    how.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a model on the Hub")
    how.add_argument("--subfolder", default="", metavar="DIR", help="folder inside the model's repository")

    written = parser.add_argument_group("what is written beside the painted picture")
    written.add_argument("--json", action="store_true", help="segments with labels, scores, areas and boxes")
    written.add_argument(
        "--masks",
        action="store_true",
        help="a PNG whose pixels are the ids in the JSON, 0 for nothing; for instances a folder with one mask each",
    )
    written.add_argument("--no-legend", action="store_true", help="leave the legend out: the picture keeps its size")
    written.add_argument("--font", type=Path, metavar="FILE", help="font for labels in letters other than English ones")
    parser.set_defaults(run=_segment)


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


@dataclass(frozen=True)
class _Job:
    """A picture, and the files that its result goes to."""

    picture: Path
    overlay: Path

    @property
    def json(self) -> Path:
        return self.overlay.with_suffix(".json")

    @property
    def id_map(self) -> Path:
        return self.overlay.with_name(f"{self.overlay.stem}_masks.png")

    @property
    def mask_folder(self) -> Path:
        return self.overlay.with_name(f"{self.overlay.stem}_masks")


def _segment(args: argparse.Namespace) -> int:
    vocabulary = _vocabulary(args)
    jobs = _jobs(_pictures(args.pictures), args.output)
    if args.font is not None and not args.font.is_file():
        raise UserError(f"there is no font file {args.font}")
    # A mistake in the only picture is told before the model is loaded.
    read_ahead = {jobs[0]: _read_picture(jobs[0].picture)} if len(jobs) == 1 else {}
    segmenter = _load_segmenter(args)
    try:
        segmenter.encode_vocabulary(vocabulary)
    except ValueError as error:  # a name that is too long
        raise UserError(_one_line(error)) from error

    import torch
    from tqdm import tqdm

    options = {
        "subtask": args.task,
        "threshold": args.threshold,
        "overlap_mask_area_threshold": args.overlap_threshold,
        "mask_embedding": args.mask_embedding,
    }
    options = {name: value for name, value in options.items() if value is not None}
    try:
        jobs[0].overlay.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {_one_line(error)}") from error
    read: deque[tuple[_Job, Image.Image]] = deque()
    failed = 0
    # disable=None: no bar where standard error is not a terminal.
    with tqdm(total=len(jobs), unit="picture", disable=True if len(jobs) == 1 else None) as progress:

        def pictures() -> Iterator[Image.Image]:
            nonlocal failed
            for job in jobs:
                try:
                    picture = read_ahead.get(job) or _read_picture(job.picture)
                except UserError as error:
                    failed += 1
                    progress.update()
                    tqdm.write(f"maskadapter segment: {error}", file=sys.stderr)
                    continue
                read.append((job, picture))
                yield picture

        try:
            for segments in segmenter(pictures(), candidate_labels=vocabulary, batch_size=args.batch_size, **options):
                job, picture = read.popleft()
                try:
                    _write_results(job, picture, segments, vocabulary, args)
                except OSError as error:
                    raise UserError(f"cannot write the result of {job.picture}: {_one_line(error)}") from error
                progress.update()
                tqdm.write(f"{job.overlay}: {_summary(segments)}", file=sys.stdout)
        except torch.OutOfMemoryError as error:
            raise UserError("out of memory: choose a smaller --batch-size, smaller pictures or --device cpu") from error
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _vocabulary(args: argparse.Namespace) -> Vocabulary:
    try:
        if args.vocabulary is not None:
            vocabulary = Vocabulary.from_file(args.vocabulary)
        elif args.label_set is not None:
            vocabulary = Vocabulary.from_label_set(args.label_set)
        else:
            vocabulary = Vocabulary.from_list(_names(args.labels))
        return vocabulary if args.things is None else vocabulary.with_things([n for (n,) in _names(args.things)])
    except (ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error


def _names(text: str) -> list[list[str]]:
    """Names separated by commas, each a class without synonyms."""
    return [[name.strip()] for name in text.split(",") if name.strip()]


def _pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, in alphabetical order of each folder."""
    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
            except OSError as error:
                raise UserError(_one_line(error)) from error
            if not inside:
                raise UserError(f"there are no pictures in the folder {path}")
            pictures += inside
        else:
            pictures.append(path)
    if not any(picture.exists() for picture in pictures):
        raise UserError(f"there is no file {pictures[0]}")
    return pictures


def _jobs(pictures: Sequence[Path], output: str) -> list[_Job]:
    """Where each picture's result goes.

    The output is a file if there is one picture and the output's name ends like a picture's, else a folder, which is
    created inside an existing one.
    """
    target = Path(output)
    is_file = (
        len(pictures) == 1
        and target.suffix.lower() in OVERLAY_SUFFIXES
        and not target.is_dir()
        and not output.endswith(("/", os.sep))
    )
    folder = target.parent if is_file else target
    existing = folder if is_file or folder.exists() else folder.parent
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"--output {output} must be a folder for {len(pictures)} pictures, but it is a file"
            if len(pictures) > 1
            else f"--output {output} exists and is no picture; name a file that ends in {', '.join(OVERLAY_SUFFIXES)}"
        )
    if not existing.is_dir():
        raise UserError(f"--output {output}: there is no folder {existing}")
    if is_file:
        jobs = [_Job(pictures[0], target)]
    else:
        jobs = [_Job(picture, folder / f"{picture.stem}.png") for picture in pictures]
    sources = {picture.resolve() for picture in pictures}
    owner: dict[Path, Path] = {}
    for job in jobs:
        for file in (job.overlay, job.id_map):
            path = file.resolve()
            if path in sources:
                raise UserError(f"--output would overwrite the picture {file}; choose another folder or name")
            if path in owner:
                raise UserError(
                    f"{owner[path]} and {job.picture} would both be written to {file}; segment them separately"
                )
            owner[path] = job.picture
    return jobs


def _read_picture(path: Path) -> Image.Image:
    from .image_processing_maskadapter import read_picture

    try:
        return read_picture(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(_one_line(error)) from error


def _load_segmenter(args: argparse.Namespace) -> Any:
    """The pipeline of the model that the arguments name."""
    _silence_transformers()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoProcessor

    from .modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from .pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline

    device = None
    if args.device is not None:
        try:
            device = torch.empty(0, device=args.device).device
        except (RuntimeError, AssertionError) as error:  # an unknown name, or PyTorch was built without it
            raise UserError(f"--device {args.device} cannot be used: {_one_line(error)}") from error
    if args.model.startswith((".", "/", "~")) and not Path(args.model).is_dir():
        raise UserError(f"there is no model folder {args.model}")
    where = {"revision": args.revision or "main", "subfolder": args.subfolder}
    try:
        config = AutoConfig.from_pretrained(args.model, **where)
        if config.model_type != "maskadapter":
            raise UserError(f"{args.model} holds a model of type {config.model_type!r}, not a Mask-Adapter segmenter")
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(
            args.model, config=config, dtype=args.dtype, **where
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the model {args.model} cannot be loaded: {_one_line(error)}") from error
    if args.mask_embedding == "adapter" and model.adapter is None:
        raise UserError(f"{args.model} has no adapter: choose --mask-embedding pooling or crop")
    if model.mask_generator is None:
        raise UserError(f"{args.model} has no mask generator; convert it again with --generator-from")
    try:
        processor = AutoProcessor.from_pretrained(args.model, **where)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the processor of {args.model} cannot be loaded; if the model was converted without a tokenizer, convert "
            f"it again with --tokenizer ({_one_line(error)})"
        ) from error
    return ZeroShotImageSegmentationPipeline(model=model, processor=processor, device=device)


def _silence_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _summary(segments: Sequence[dict[str, Any]]) -> str:
    counts = Counter(segment["label"] for segment in segments)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items()) or "nothing found"


def _write_results(
    job: _Job, picture: Image.Image, segments: list[dict[str, Any]], vocabulary: Vocabulary, args: argparse.Namespace
) -> None:
    from PIL import Image

    from .visualization import overlay_masks

    painted = overlay_masks(picture, segments, vocabulary.names, legend=not args.no_legend, font=args.font)
    formats = Image.registered_extensions()
    _write_atomically(job.overlay, partial(painted.save, format=formats[job.overlay.suffix.lower()]))
    records = _records(segments, vocabulary, args.task)
    if args.masks:
        _write_masks(job, picture, segments, records, vocabulary, args.task)
    if args.json:
        content = {
            "picture": str(job.picture),
            "width": picture.width,
            "height": picture.height,
            "task": args.task,
            "model": args.model,
            "labels": list(vocabulary.names),
            "segments": records,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        _write_atomically(job.json, lambda file: file.write(text.encode()))


def _records(segments: Sequence[dict[str, Any]], vocabulary: Vocabulary, task: str) -> list[dict[str, Any]]:
    """The segments for JSON. The id of a semantic segment is its label's place in the vocabulary, from 1."""
    records = []
    for number, segment in enumerate(segments, start=1):
        label_id = vocabulary.names.index(segment["label"])
        left, top, right, bottom = segment["mask"].getbbox() or (0, 0, 0, 0)
        records.append(
            {
                "id": label_id + 1 if task == "semantic" else number,
                "label": segment["label"],
                "label_id": label_id,
                "score": segment["score"],
                "area": segment["mask"].histogram()[255],
                "box": [left, top, right - left, bottom - top],
            }
        )
    return records


def _write_masks(
    job: _Job,
    picture: Image.Image,
    segments: Sequence[dict[str, Any]],
    records: list[dict[str, Any]],
    vocabulary: Vocabulary,
    task: str,
) -> None:
    """A map of ids; a folder of masks for instances, which may overlap. Adds the files' names to the records."""
    import numpy as np
    from PIL import Image

    from .visualization import class_colors

    if task == "instance":
        job.mask_folder.mkdir(exist_ok=True)
        for old in job.mask_folder.glob("[0-9][0-9][0-9][0-9].png"):
            old.unlink()
        for segment, record in zip(segments, records, strict=True):
            path = job.mask_folder / f"{record['id']:04d}.png"
            record["mask"] = f"{job.mask_folder.name}/{path.name}"
            _write_atomically(path, partial(segment["mask"].save, format="PNG"))
        return
    ids = np.zeros((picture.height, picture.width), dtype=np.uint16)
    for segment, record in zip(segments, records, strict=True):
        ids[np.asarray(segment["mask"]) > 0] = record["id"]
        record["mask"] = job.id_map.name
    if max((record["id"] for record in records), default=0) < 256:
        image = Image.fromarray(ids.astype(np.uint8), mode="P")
        colors = class_colors(vocabulary.names)
        palette = [0] * 768
        for record in records:
            palette[3 * record["id"] : 3 * record["id"] + 3] = colors[record["label_id"]]
        image.putpalette(palette)
    else:
        image = Image.fromarray(ids)
    _write_atomically(job.id_map, partial(image.save, format="PNG"))


# --- convert ----------------------------------------------------------------------------------------------------------


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert a released checkpoint to a model of this package",
        description="Convert a released OpenCLIP ConvNeXt, FC-CLIP or Mask-Adapter checkpoint. Every weight is used or "
        "named in the report, which is printed and saved with the model.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="local file, or a file on the Hub: owner/name:path/in/repository",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder to write: it appears complete or not at all"
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="the released model, which tells what the weights cannot; default: the one that the weights look like",
    )
    parser.add_argument("--config", type=Path, metavar="JSON", help="the same as settings in a file, for other models")
    parser.add_argument(
        "--generator-from",
        metavar="SOURCE",
        help="FC-CLIP checkpoint that completes a warm-up checkpoint with its mask generator and void embedding",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FILE_OR_ID",
        help="CLIP's bpe_simple_vocab_16e6.txt.gz, or a tokenizer's folder or name on the Hub; default: CLIP's, if the "
        "Hub can be reached",
    )
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of sources on the Hub")
    parser.add_argument("--overwrite", action="store_true", help="replace the model in the output folder")
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    _silence_transformers()
    from .conversion import convert_checkpoint

    try:
        conversion = convert_checkpoint(
            args.source,
            args.output,
            preset=args.preset,
            config=args.config,
            generator_from=args.generator_from,
            tokenizer=args.tokenizer,
            overwrite=args.overwrite,
            revision=args.revision,
        )
    except (ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error
    print(conversion.report)
    return EXIT_OK


# --- files and messages -----------------------------------------------------------------------------------------------


def _write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name in its folder and rename it, so that it appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        with temporary.open("xb") as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
