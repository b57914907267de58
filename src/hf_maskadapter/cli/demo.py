"""`maskadapter demo`: the embedded model on a drawn scene, beside plain mask pooling and the truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .errors import EXIT_OK, UserError, one_line
from .models import silence_transformers
from .pictures import OVERLAY_SUFFIXES

_PANEL_SIZE = 384
_HEAT_MAPS = 4


def add_parser(commands: Any) -> None:
    """Set up the command's options."""
    parser = commands.add_parser(
        "demo",
        help="draw a scene and segment it with the embedded model",
        description="Draw a scene of coloured, textured shapes from a seed, segment it with the embedded model and "
        "labels of your choice, and write one picture: input, truth, mask pooling and Mask-Adapter side by side, and "
        "where the adapter looks. Nothing is downloaded.",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="picture file to write")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the scene, default 0")
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help='class names separated by commas, such as "striped red star, grass"; default: what the scene shows, and '
        "as many things that it does not show",
    )
    parser.add_argument("--model", metavar="DIR", help="a miniature of your own; default: the embedded one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, segment, and write the picture."""
    if args.output.suffix.lower() not in OVERLAY_SUFFIXES:
        raise UserError(f"--output {args.output} must end in one of {', '.join(OVERLAY_SUFFIXES)}")
    if args.seed < 0:
        raise UserError(f"--seed must not be negative, got {args.seed}")
    silence_transformers()
    from PIL import Image

    from ..miniature import load_miniature
    from ..miniature.demonstration import demonstrate
    from ..model.vocabulary import Vocabulary

    try:
        vocabulary = None
        if args.labels is not None:
            names = [name.strip() for name in args.labels.split(",")]
            vocabulary = Vocabulary.from_list([[name] for name in names if name])
        segmenter, processor = load_miniature(args.model)
        demonstration = demonstrate(
            segmenter, processor, args.seed, vocabulary, panel_size=_PANEL_SIZE, heat_maps=_HEAT_MAPS
        )
    except (OSError, ValueError) as error:
        raise UserError(one_line(error)) from error
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        kind = Image.registered_extensions()[args.output.suffix.lower()]
        write_atomically(args.output, lambda file: demonstration.picture.save(file, format=kind))
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {one_line(error)}") from error
    print("Given the true masks (the picture shows results with generated ones):")
    for line in demonstration.lines:
        print(line)
    print(f"{args.output}: written")
    return EXIT_OK
