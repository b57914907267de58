"""`maskadapter segment`: pictures with labels of your choice."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_model_options, add_vocabulary_options, fraction, positive, read_vocabulary
from .pictures import OVERLAY_SUFFIXES, segment_pictures

TASKS = ("semantic", "panoptic", "instance")


def add_parser(commands: Any) -> None:
    """Set up the command's options."""
    parser = commands.add_parser(
        "segment",
        help="segment pictures with labels of your choice",
        description="Segment pictures with labels of your choice, and write each picture with its segments painted "
        "over it and a legend below.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture file, or folder of pictures")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE_OR_DIR",
        help=f"picture file to write ({', '.join(OVERLAY_SUFFIXES)}), or folder for one PNG per picture",
    )
    add_model_options(parser)
    add_vocabulary_options(parser)

    how = parser.add_argument_group("how")
    how.add_argument("--task", choices=TASKS, default="semantic", help="default: semantic")
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segment, and write the results."""
    return segment_pictures(args, read_vocabulary(args))
