"""`maskadapter segment`: pictures or a data set with labels of your choice."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .annotating import FORMATS, IMAGES, annotate
from .errors import UserError
from .options import add_model_options, add_vocabulary_options, fraction, positive, read_vocabulary
from .pictures import OVERLAY_SUFFIXES, segment_pictures

TASKS = ("semantic", "panoptic", "instance")


def add_parser(commands: Any) -> None:
    """Set up the command's options."""
    parser = commands.add_parser(
        "segment",
        help="segment pictures or a data set with labels of your choice",
        description="Segment pictures with labels of your choice, and write each picture with its segments painted "
        "over it and a legend below; or pre-annotate pictures or a whole data set in another tool's format.",
    )
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="picture file, or folder of pictures")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE_OR_DIR",
        help=f"picture file to write ({', '.join(OVERLAY_SUFFIXES)}), or folder for one PNG per picture or "
        "a --format's files",
    )
    add_model_options(parser)
    add_vocabulary_options(parser)

    how = parser.add_argument_group("how")
    how.add_argument("--task", choices=TASKS, help="default: semantic, or the --format's")
    how.add_argument(
        "--threshold", type=fraction, metavar="X", help="least score of panoptic and instance segments, 0 to 1"
    )
    how.add_argument(
        "--overlap-threshold",
        type=fraction,
        metavar="X",
        help="least visible share of a panoptic segment, 0 to 1",
    )
    how.add_argument(
        "--batch-size",
        type=positive,
        default=1,
        metavar="N",
        help="pictures at a time, default 1; more are padded to a common size, which changes results slightly",
    )

    written = parser.add_argument_group("what is written beside the painted picture")
    written.add_argument("--json", action="store_true", help="segments with labels, scores, areas and boxes")
    written.add_argument(
        "--masks",
        action="store_true",
        help="a PNG whose pixels are the ids in the JSON, 0 for nothing; for instances a folder with one mask each",
    )
    written.add_argument("--no-legend", action="store_true", help="leave the legend out: the picture keeps its size")
    written.add_argument("--font", type=Path, metavar="FILE", help="font for labels in letters other than English ones")

    many = parser.add_argument_group("pre-annotation")
    many.add_argument(
        "--format",
        choices=FORMATS,
        help="what to write instead of painted pictures; run the command again to go on where it was stopped",
    )
    many.add_argument(
        "--dataset",
        metavar="DIR_OR_ID",
        help="segment a data set instead of pictures: a folder, a name on the Hub, or 'scenes' (drawn)",
    )
    many.add_argument("--split", metavar="NAME", help="the data set's split")
    many.add_argument("--config-name", metavar="NAME", help="the data set's configuration")
    many.add_argument("--image-column", metavar="NAME", help="the data set's column of pictures")
    many.add_argument("--id-column", metavar="NAME", help="the data set's column that names the pictures")
    many.add_argument("--streaming", action="store_true", help="read the data set while it is downloaded")
    many.add_argument("--max-pictures", type=positive, metavar="N", help="the first N pictures only")
    many.add_argument(
        "--copy-pictures",
        action="store_true",
        help=f"write the pictures, too, as PNGs to {IMAGES}/ in the output folder",
    )
    many.add_argument(
        "--image-prefix", metavar="TEXT", help="address of the pictures' folder, for --format label-studio"
    )
    many.add_argument("--overwrite", action="store_true", help="begin anew in a folder with other results")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segment, and write the results.

    Raises:
        UserError: if nothing can be done.
    """
    vocabulary = read_vocabulary(args)
    if args.dataset is not None or args.format is not None:
        return annotate(args, vocabulary)
    if not args.pictures:
        raise UserError("name pictures (PICTURE), or a --dataset with a --format (see maskadapter segment --help)")
    args.task = args.task or TASKS[0]
    return segment_pictures(args, vocabulary)
