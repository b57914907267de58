"""Segment picture files, each to a painted picture and what was asked for beside it."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_atomically, write_json
from ..model.vocabulary import Vocabulary
from .errors import EXIT_OK, EXIT_SOME_FAILED, UserError, one_line
from .options import model_name
from .segmenting import Segmenting

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OVERLAY_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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


def segment_pictures(args: argparse.Namespace, vocabulary: Vocabulary) -> int:
    """Segment the picture files that the options of `maskadapter segment` name.

    Returns:
        The exit status.

    Raises:
        UserError: if nothing can be done.
    """
    jobs = _jobs(find_pictures(args.pictures), args.output)
    if args.font is not None and not args.font.is_file():
        raise UserError(f"there is no font file {args.font}")
    # A mistake in the only picture is told before the model is loaded.
    read_ahead = {jobs[0]: _read_picture(jobs[0].picture)} if len(jobs) == 1 else {}
    segmenting = Segmenting(args, vocabulary)
    try:
        jobs[0].overlay.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {one_line(error)}") from error

    from tqdm import tqdm

    def read(job: _Job) -> Image.Image:
        return read_ahead.get(job) or _read_picture(job.picture)

    for job, picture, segments in segmenting.run(jobs, read, total=len(jobs), show_progress=len(jobs) > 1):
        try:
            _write_results(job, picture, segments, vocabulary, args)
        except OSError as error:
            raise UserError(f"cannot write the result of {job.picture}: {one_line(error)}") from error
        tqdm.write(f"{job.overlay}: {_summary(segments)}", file=sys.stdout)
    return EXIT_SOME_FAILED if segmenting.failed else EXIT_OK


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, in alphabetical order of each folder."""
    pictures: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
            except OSError as error:
                raise UserError(one_line(error)) from error
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
    from ..model.pictures import read_picture

    try:
        return read_picture(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UserError(one_line(error)) from error


def _summary(segments: Sequence[dict[str, Any]]) -> str:
    counts = Counter(segment["label"] for segment in segments)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items()) or "nothing found"


def _write_results(
    job: _Job, picture: Image.Image, segments: list[dict[str, Any]], vocabulary: Vocabulary, args: argparse.Namespace
) -> None:
    from PIL import Image

    from ..visualization import overlay_masks

    painted = overlay_masks(picture, segments, legend=not args.no_legend, font=args.font)
    formats = Image.registered_extensions()
    write_atomically(job.overlay, partial(painted.save, format=formats[job.overlay.suffix.lower()]))
    records = _records(segments, vocabulary, args.task)
    if args.masks:
        _write_masks(job, picture, segments, records, vocabulary, args.task)
    if args.json:
        content = {
            "picture": str(job.picture),
            "width": picture.width,
            "height": picture.height,
            "task": args.task,
            "model": model_name(args),
            "labels": list(vocabulary.names),
            "segments": records,
        }
        write_json(job.json, content, indent=1)


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

    from ..visualization import class_colors

    if task == "instance":
        job.mask_folder.mkdir(exist_ok=True)
        for old in job.mask_folder.glob("[0-9][0-9][0-9][0-9].png"):
            old.unlink()
        for segment, record in zip(segments, records, strict=True):
            path = job.mask_folder / f"{record['id']:04d}.png"
            record["mask"] = f"{job.mask_folder.name}/{path.name}"
            write_atomically(path, partial(segment["mask"].save, format="PNG"))
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
    write_atomically(job.id_map, partial(image.save, format="PNG"))
