"""How a data set is read: options of the library and, as every field says what it means, of the commands."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Kind = TypeVar("Kind")
Layout = Literal["auto", "dataset", "folder", "coco_panoptic", "coco_stuff"]


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: Callable[[], Sequence[str]] | None = None,
    positional: bool = False,
) -> Any:
    """A dataclass field that a command line can offer: the field is the one place where the option is written.

    Args:
        help: What it means, for the command's help.
        default: Its value if it is not given; without one, it must be given.
        flags: Names on the command line, the first one shown, in place of `--` and the field's name.
        metavar: What the help calls its value.
        parse: Makes a value of a word and refuses wrong ones with a `ValueError`; by default the field's type.
        choices: Gives the values to choose from; `None`: those of the type, if it is a `Literal`.
        positional: Whether it is given by its place and not by a name.
    """
    metadata = {"help": help, "flags": flags, "metavar": metavar, "parse": parse, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata | {"positional": positional})


def option_group(kind: type, title: str, flags: Mapping[str, tuple[str, ...]] | None = None) -> Any:
    """A dataclass field that holds a dataclass of [`option`]s, which the command's help lists below a title.

    Args:
        kind: The dataclass.
        title: The heading.
        flags: Names on the command line of some of its fields in this command, in place of their own.
    """
    return dataclasses.field(default_factory=kind, metadata={"title": title, "flags": dict(flags or {})})


@dataclass(kw_only=True)
class SourceOptions:
    """Where in a data set the pictures are."""

    config_name: str | None = option("configuration of a data set on the Hub", None, metavar="NAME")
    revision: str | None = option(
        "version of a data set on the Hub", None, flags=("--dataset-revision",), metavar="NAME"
    )
    streaming: bool = option("read a data set on the Hub while it arrives instead of downloading it", False)
    cache_dir: str | os.PathLike[str] | None = option("where downloaded data sets are kept", None, metavar="DIR")
    image_column: str | None = option("column with the pictures, if it has no usual name", None, metavar="NAME")
    id_column: str | None = option("column that identifies the samples, if it has no usual name", None, metavar="NAME")


@dataclass(kw_only=True)
class DatasetOptions(SourceOptions):
    """How a data set with annotations is read: what [`hf_maskadapter.data.load_segmentation_dataset`] needs to know.

    The columns need a name only if it is not the usual one (the first of them: `image`, `label_map`, `panoptic_map`,
    `segments_info`, `id`).
    """

    layout: Layout = option("how to read a local folder; auto: by what it holds", "auto")
    image_folder: str | os.PathLike[str] | None = option(
        "folder of the pictures, if a COCO-style annotation file does not tell", None, metavar="DIR"
    )
    panoptic_folder: str | os.PathLike[str] | None = option(
        "folder of the panoptic PNGs, if it is not beside the annotation file", None, metavar="DIR"
    )
    label_column: str | None = option("column with label maps, if it has no usual name", None, metavar="NAME")
    panoptic_column: str | None = option("column with panoptic maps, if it has no usual name", None, metavar="NAME")
    segments_column: str | None = option(
        "column that tells what their segments are, if it has no usual name", None, metavar="NAME"
    )
    reduce_labels: bool = option("label maps hold class index + 1, and 0 where there is no label (as ADE20K's)", False)
    ignore_index: int | tuple[int, ...] | None = option(
        "values of label maps that mean 'ignored', in place of what the data set says or else 255 and 65535",
        None,
        metavar="N",
    )
    ignore_unlisted: bool = option("ignore labels outside the vocabulary instead of refusing them", False)


def with_named(kind: type[Kind], options: Kind | None, named: Mapping[str, Any]) -> Kind:
    """Options, the defaults if there are none, with some fields given by name.

    Raises:
        TypeError: if there is no field of a name.
    """
    return dataclasses.replace(kind() if options is None else options, **named)  # type: ignore[type-var]


__all__ = ["DatasetOptions", "Layout", "SourceOptions", "option", "option_group", "with_named"]
