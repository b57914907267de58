"""`maskadapter segment`: each picture to a painted one, and what was asked for beside it.

A picture painted into a folder carries in its file what made it, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.options import option, option_group
from ..distributed.threads import in_batches
from ..files import folder_lock, write_atomically, write_json
from ..model.vocabulary import Vocabulary
from ..provenance import content_hash
from .errors import EXIT_OK, EXIT_SOME_FAILED, UserError, one_line
from .options import Command, ModelOptions, VocabularyOptions
from .segmenting import ResultOptions, Segmenting, Task, unit_size

if TYPE_CHECKING:
    from PIL import Image

    from ..model.segments import Segment, Segments

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OVERLAY_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PNG_LEVEL = 3
"""Of painted pictures: files are 4 % larger than with zlib's usual 6, and written in a quarter of the time."""
MADE_BY = "maskadapter:made_by"
"""Name of the text in a painted PNG that tells what made it."""


@dataclass(kw_only=True)
class WrittenOptions:
    """What is written."""

    json: bool = option("segments with labels, scores, areas and boxes", False)
    masks: bool = option(
        "a PNG whose pixels are the ids in the JSON, 0 for nothing; for instances a folder with one mask each", False
    )
    no_legend: bool = option("leave the legend out: the picture keeps its size", False)
    font: Path | None = option("font for labels in letters other than English ones", None, metavar="FILE")
    overwrite: bool = option("segment again what an earlier run with the same options has finished", False)


@dataclass(kw_only=True)
class SegmentOptions:
    """Which pictures, how, and where the results go."""

    pictures: tuple[Path, ...] = option("picture file, or folder of pictures", (), metavar="PICTURE", positional=True)
    recursive: bool = option("the pictures in subfolders of folders, too", False)
    output: str = option(
        f"picture file to write ({', '.join(OVERLAY_SUFFIXES)}), or folder for one PNG per picture, in which a run "
        "that was stopped goes on",
        metavar="FILE_OR_DIR",
    )
    model: ModelOptions = option_group(ModelOptions, "model")
    vocabulary: VocabularyOptions = option_group(VocabularyOptions, "what to look for")
    result: ResultOptions = option_group(ResultOptions, "how")
    written: WrittenOptions = option_group(WrittenOptions, "what is written beside the painted picture")


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


def old_spelling_as_annotate(arguments: Sequence[str]) -> list[str]:
    """The arguments with `annotate` for `segment --format` or `segment --dataset`, as that was called, and a hint."""
    old = {"--format", "--dataset"} & {argument.partition("=")[0] for argument in arguments}
    if not old or arguments[0] != "segment":
        return list(arguments)
    print(
        f"maskadapter segment: hint: segment with {sorted(old)[0]} is now called maskadapter annotate; "
        "this spelling will go in version 0.3",
        file=sys.stderr,
    )
    return ["annotate", *arguments[1:]]


def run(options: SegmentOptions) -> int:
    """Segment the pictures and write the results.

    Returns:
        The exit status.

    Raises:
        UserError: if nothing can be done.
    """
    if not options.pictures:
        raise UserError("name pictures (PICTURE); for data sets see maskadapter annotate --help")
    task = options.result.for_task("semantic")
    vocabulary = options.vocabulary.read()
    found = find_pictures(options.pictures, options.recursive, leave_out=Path(options.output))
    folder, jobs = _jobs(found, options.output)
    if options.written.font is not None and not options.written.font.is_file():
        raise UserError(f"there is no font file {options.written.font}")
    # A lock, and what earlier runs finished, for a folder alone: a single file appears as a whole, or not at all.
    with nullcontext() if folder is None else folder_lock(folder, "segment"):
        return _segment(jobs, options, task, vocabulary, in_folder=folder is not None)


def _segment(
    jobs: Sequence[_Job], options: SegmentOptions, task: Task, vocabulary: Vocabulary, *, in_folder: bool
) -> int:
    made_by = _fingerprint(options, task, vocabulary)
    todo = list(jobs)
    if in_folder and not options.written.overwrite:
        todo = [job for job in jobs if not _is_done(job, made_by, options, task)]
    done = len(jobs) - len(todo)
    failed = 0
    if todo:
        first, read_ahead, failed = _first_readable(todo)
        segmenting = Segmenting("segment", options.model, vocabulary, options.result, task)
        segmenting.failed = failed

        from tqdm import tqdm

        from ..exchange.plain import in_order

        def read(job: _Job) -> Image.Image:
            return read_ahead.pop(job, None) or _read_picture(job.picture)

        def write(job: _Job, picture: Image.Image, segments: Segments) -> str:
            try:
                _write_results(job, picture, segments, options, made_by)
            except OSError as error:
                raise UserError(f"cannot write the result of {job.picture}: {one_line(error)}") from error
            return _summary(in_order(segments))

        progress: dict[str, Any] = {"total": len(jobs), "done": done + first, "show_progress": len(jobs) > 1}
        units = in_batches(todo[first:], unit_size(options.result.batch_size))
        for job, summary in segmenting.run(units, read, write, **progress):
            tqdm.write(f"{job.overlay}: {summary}", file=sys.stdout)
        failed = segmenting.failed
    if done:
        print(f"{len(todo) - failed} pictures segmented, {done} were done before")
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _first_readable(jobs: Sequence[_Job]) -> tuple[int, dict[_Job, Image.Image], int]:
    """The first picture that can be read: mistakes before it are told before the model is loaded.

    Returns:
        Its place, the picture by its job, and how many before it cannot be read.

    Raises:
        UserError: if there is none.
    """
    for number, job in enumerate(jobs):
        try:
            return number, {job: _read_picture(job.picture)}, number
        except UserError as error:
            if number == len(jobs) - 1:
                raise
            print(f"maskadapter segment: {error}", file=sys.stderr)
    raise AssertionError("there is a picture")


def _fingerprint(options: SegmentOptions, task: Task, vocabulary: Vocabulary) -> str:
    """What makes the results, as a digest. Pictures of one batch size may be followed by those of another."""
    facts = asdict(options)
    facts["vocabulary"] = vocabulary.to_dict()
    facts["result"] |= {"task": task, "batch_size": None}
    facts["written"] |= {"overwrite": None}
    facts["model"] |= {"device": None}
    for name in ("pictures", "recursive", "output"):
        del facts[name]
    return content_hash(facts)


def _made_by(job: _Job, fingerprint: str) -> str:
    """What makes one picture's result: the options, and the picture as it is now."""
    facts = job.picture.stat()
    return f"{fingerprint} {facts.st_size} {facts.st_mtime_ns}"


def _is_done(job: _Job, fingerprint: str, options: SegmentOptions, task: Task) -> bool:
    """Whether an earlier run with the same options finished the picture: the painted picture is written last."""
    from PIL import Image

    others = [job.json] if options.written.json else []
    if options.written.masks:
        others.append(job.mask_folder if task == "instance" else job.id_map)
    if not all(path.exists() for path in (job.overlay, *others)):
        return False
    try:
        with Image.open(job.overlay) as painted:
            return painted.info.get(MADE_BY) == _made_by(job, fingerprint)
    except OSError:
        return False


def find_pictures(
    paths: Sequence[Path], recursive: bool = False, leave_out: Path | None = None
) -> list[tuple[Path, Path]]:
    """The pictures named, and those in the folders named, in alphabetical order of each folder.

    Args:
        paths: files and folders.
        recursive: whether those in subfolders are found, too.
        leave_out: a subfolder in which none is found: the one that results go to.

    Returns:
        Each picture, and its path in the folder named: its name alone, where it was not found in a subfolder.

    Raises:
        UserError: if there is none.
    """
    pictures: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(_pictures_in(path, recursive, leave_out))
            except OSError as error:
                raise UserError(one_line(error)) from error
            if not inside:
                hint = "" if recursive else " (those in subfolders are found with --recursive)"
                raise UserError(f"there are no pictures in the folder {path}{hint}")
            pictures += [(file, file.relative_to(path)) for file in inside]
        else:
            pictures.append((path, Path(path.name)))
    if not any(picture.exists() for picture, _ in pictures):
        raise UserError(f"there is no file {pictures[0][0]}")
    return pictures


def _pictures_in(folder: Path, recursive: bool, leave_out: Path | None) -> Iterator[Path]:
    excluded = None if leave_out is None else leave_out.resolve()
    for file in folder.rglob("*") if recursive else folder.iterdir():
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() not in PICTURE_SUFFIXES or hidden or file.is_dir():
            continue
        if file.parent == folder or excluded not in file.resolve().parents:
            yield file


def _jobs(pictures: Sequence[tuple[Path, Path]], output: str) -> tuple[Path | None, list[_Job]]:
    """Where each picture's result goes.

    The output is a file if there is one picture and the output's name ends like a picture's, else a folder, which is
    created inside an existing one.

    Returns:
        The folder, or None for a file; and each picture with its files.
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
        jobs = [_Job(pictures[0][0], target)]
    else:
        jobs = [_Job(picture, folder / inside.with_suffix(".png")) for picture, inside in pictures]
    sources = {picture.resolve() for picture, _ in pictures}
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
    return None if is_file else folder, jobs


def _read_picture(path: Path) -> Image.Image:
    from ..model.pictures import read_picture

    try:
        return read_picture(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(one_line(error)) from error


def _summary(segments: Sequence[Segment]) -> str:
    counts = Counter(segment.label for segment in segments)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items()) or "nothing found"


def _write_results(
    job: _Job,
    picture: Image.Image,
    segments: Segments,
    options: SegmentOptions,
    fingerprint: str,
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from ..exchange.plain import describe
    from ..visualization import overlay

    job.overlay.parent.mkdir(parents=True, exist_ok=True)
    painted = overlay(picture, segments, legend=not options.written.no_legend, font=options.written.font)
    content = describe(segments, options.model.name, str(job.picture))
    if options.written.masks:
        _write_masks(job, segments, content["segments"])
    if options.written.json:
        write_json(job.json, content, indent=1)
    kind = Image.registered_extensions()[job.overlay.suffix.lower()]
    keywords: dict[str, Any] = {"format": kind}
    if kind == "PNG":
        keywords["compress_level"] = PNG_LEVEL
        keywords["pnginfo"] = PngInfo()
        keywords["pnginfo"].add_text(MADE_BY, _made_by(job, fingerprint))
    write_atomically(job.overlay, partial(painted.save, **keywords))


def _write_masks(job: _Job, segments: Segments, records: list[dict[str, Any]]) -> None:
    """A map of ids; a folder of masks for instances, which may overlap. Adds the files' names to the records."""
    from ..exchange.plain import id_map, in_order, mask_picture

    if segments.task == "instance":
        job.mask_folder.mkdir(exist_ok=True)
        for old in job.mask_folder.glob("[0-9][0-9][0-9][0-9].png"):
            old.unlink()
        for segment, record in zip(in_order(segments), records, strict=True):
            path = job.mask_folder / f"{record['id']:04d}.png"
            record["mask"] = f"{job.mask_folder.name}/{path.name}"
            write_atomically(path, partial(mask_picture(segment).save, format="PNG"))
        return
    for record in records:
        record["mask"] = job.id_map.name
    write_atomically(job.id_map, partial(id_map(segments, records).save, format="PNG"))


COMMAND = Command(
    name="segment",
    summary="segment pictures with labels of your choice",
    description="Segment pictures with labels of your choice, and write each picture with its segments painted over it "
    "and a legend below. For whole data sets, and for other tools' formats, see maskadapter annotate.",
    options=SegmentOptions,
    run=run,
)
