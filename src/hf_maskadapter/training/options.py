"""Options of a command as a dataclass, explained field by field and made into a command line; those of the data."""

from __future__ import annotations

import argparse
import dataclasses
import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

DATA = "data"
"""Heading of the options of [`DataArguments`] in the command line's help."""


def option(group: str, text: str, default: Any = dataclasses.MISSING) -> Any:
    """A field with its place and text in the command line's help."""
    return dataclasses.field(default=default, metadata={"group": group, "help": text})


@dataclass(kw_only=True)
class DataArguments:
    """Which data a command trains on, and how they are read."""

    dataset: str = option(
        DATA, "training data: a Hub id, a folder of pictures and label maps, COCO's root folder, a prepared data set"
    )
    dataset_config: str | None = option(DATA, "configuration of a Hub data set", None)
    train_split: str | None = option(DATA, "split to train on", "train")
    max_train_samples: int | None = option(DATA, "train on the first so many samples", None)
    streaming: bool = option(DATA, "read a Hub data set while it arrives instead of downloading it", False)
    shuffle_buffer: int = option(DATA, "rows of a stream among which to choose the next one", 1000)
    layout: Literal["auto", "dataset", "folder", "coco_panoptic", "coco_stuff"] = option(
        DATA, "how to read a local folder", "auto"
    )
    vocabulary: str | None = option(
        DATA, "classes of the data: a file, a label set or names; by default what the data set tells", None
    )
    image_folder: str | None = option(DATA, "folder of the pictures of a COCO-style annotation file", None)
    panoptic_folder: str | None = option(DATA, "folder of the panoptic PNGs of such a file", None)
    image_column: str | None = option(DATA, "column with the pictures", None)
    label_column: str | None = option(DATA, "column with label maps", None)
    panoptic_column: str | None = option(DATA, "column with panoptic maps", None)
    segments_column: str | None = option(DATA, "column that tells what their segments are", None)
    id_column: str | None = option(DATA, "column that identifies the samples", None)
    reduce_labels: bool = option(DATA, "label maps count from 1, and 0 means unlabelled", False)
    ignore_index: tuple[int, ...] | None = option(DATA, "values of label maps that mean unlabelled", None)
    ignore_unlisted: bool = option(DATA, "ignore labels outside the vocabulary", False)
    cache_dir: str | None = option(DATA, "where downloads are kept", None)
    num_workers: int = option(DATA, "processes that read and augment pictures, for each training process", 4)


def build_option_parser(arguments: type, prog: str, description: str) -> argparse.ArgumentParser:
    """The command line for a dataclass whose fields are [`option`]s.

    Args:
        arguments: the dataclass. `X | None` is an option for X, `bool` one with a `--no-` form, a tuple takes several
            values, a `Literal` offers its values.
        prog: name of the script.
        description: what it does.

    Returns:
        A parser in whose result options that are not given are absent.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, argument_default=argparse.SUPPRESS)
    types_of = get_type_hints(arguments)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(arguments):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        groups[group].add_argument(
            f"--{field.name}",
            required=field.default is dataclasses.MISSING,
            help=field.metadata["help"] + _default_text(field),
            **_parser_options(types_of[field.name]),
        )
    return parser


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default in (dataclasses.MISSING, None, ()):
        return ""
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return f" (default: {' '.join(map(str, values))})"


def _parser_options(kind: Any) -> dict[str, Any]:
    """Arguments of `add_argument` for a field's type."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        return {"type": first, "nargs": "*" if others == [...] else 1 + len(others)}
    return {"type": kind}


__all__ = ["DATA", "DataArguments", "build_option_parser", "option"]
