"""Options that several commands have, and what their values mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..model.vocabulary import Vocabulary, label_sets
from .errors import UserError, one_line


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is run: what `load_segmenter` reads."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        help="folder of a model, or its name on the Hub; default: the small embedded one, which knows drawn scenes of "
        "coloured, textured shapes and nothing else",
    )
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a model on the Hub")
    group.add_argument("--subfolder", default="", metavar="DIR", help="folder inside the model's repository")
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the first accelerator there is")
    group.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: auto"
    )
    group.add_argument(
        "--mask-embedding",
        choices=("adapter", "pooling", "crop"),
        help="how masks are classified; default: as the model's configuration says",
    )


def model_name(args: argparse.Namespace) -> str:
    """What results call the model that the options of `add_model_options` name."""
    return args.model if args.model is not None else "hf_maskadapter miniature"


def add_vocabulary_options(parser: argparse.ArgumentParser) -> None:
    """What to look for: what `read_vocabulary` reads."""
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


def fraction(text: str) -> float:
    """Type of options from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def positive(text: str) -> int:
    """Type of options that count something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """The classes that the options of `add_vocabulary_options` name.

    Raises:
        UserError: if there are none, or a file cannot be read.
    """
    try:
        if args.vocabulary is not None:
            vocabulary = Vocabulary.from_file(args.vocabulary)
        elif args.label_set is not None:
            vocabulary = Vocabulary.from_label_set(args.label_set)
        else:
            vocabulary = Vocabulary.from_list(_names(args.labels))
        return vocabulary if args.things is None else vocabulary.with_things([n for (n,) in _names(args.things)])
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from error


def _names(text: str) -> list[list[str]]:
    """Names separated by commas, each a class without synonyms."""
    return [[name.strip()] for name in text.split(",") if name.strip()]
