"""`maskadapter convert`: released checkpoints to models of this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import EXIT_OK, UserError, one_line
from .models import silence_transformers


def add_parser(commands: Any) -> None:
    """Set up the command's options."""
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the report."""
    silence_transformers()
    from ..conversion import convert_checkpoint

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
        raise UserError(one_line(error)) from error
    print(conversion.report)
    return EXIT_OK
