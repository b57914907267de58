"""Commands whose options are dataclasses: a command line made of their fields, and what was given made into them.

argparse from dataclasses and not `transformers.HfArgumentParser`: importing that takes a second, and it flattens.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..data.options import option
from ..model.vocabulary import Vocabulary, label_sets
from .errors import Parser, UserError, one_line

Options = TypeVar("Options")


@dataclass(frozen=True)
class Command(Generic[Options]):
    """A command: what its help says, its options, and what it does.

    Args:
        name: what the user types.
        summary: what the list of commands says.
        description: what the command's own help says.
        options: the dataclass of its options; fields are [`hf_maskadapter.data.options.option`]s and, for groups of
            them, `option_group`s of such dataclasses. It refuses what does not go together with a `ValueError`. Where
            it has a class method `complete(given)`, that takes the values that were given, nested as the dataclasses
            are, and returns them with those that follow from them, such as a preset's.
        run: does it; takes the options and returns the exit status.
        extra: the package's extra that holds the libraries that it needs.
    """

    name: str
    summary: str
    description: str
    options: type[Options]
    run: Callable[[Options], int]
    extra: str = ""


def parse_command(
    commands: Sequence[Command[Any]], arguments: Sequence[str], version: str, program: str = "maskadapter"
) -> tuple[Command[Any], Any]:
    """The command that the arguments name, and its options.

    Args:
        commands: The commands that there are.
        arguments: Of the process, without its name.
        version: What `--version` says.
        program: The process's name.

    Raises:
        SystemExit: if the arguments are wrong, after a line that says what; or if they ask for help, after it.
    """
    parsers: dict[str, argparse.ArgumentParser] = {}
    parser = make_parser(commands, version, parsers, program)
    given = vars(parser.parse_args([_with_dashes(argument) for argument in arguments]))
    command = next(command for command in commands if command.name == given["command"])
    try:
        return command, build_options(command.options, given)
    except ValueError as error:
        parsers[command.name].error(one_line(error))


def make_parser(
    commands: Sequence[Command[Any]],
    version: str,
    parsers: dict[str, argparse.ArgumentParser] | None = None,
    program: str = "maskadapter",
) -> argparse.ArgumentParser:
    """The parser of all commands; those of the single ones are added to `parsers` by their names."""
    parser = Parser(prog=program, description="Open-vocabulary segmentation with Mask-Adapter.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    places = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in commands:
        place = places.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            argument_default=argparse.SUPPRESS,
        )
        add_options(place, command.options)
        if parsers is not None:
            parsers[command.name] = place
    return parser


def _with_dashes(argument: str) -> str:
    """An option's name with dashes, however it is written; values stay as they are."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if argument.startswith("--") else argument


def add_options(parser: Any, kind: type, prefix: str = "", flags: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Offer the fields of a dataclass, and of the dataclasses in its fields, as options.

    `X | None` is an option for X, `bool` one with a `--no-` form, a tuple takes several values, a `Literal` offers its
    own. What is not given is absent from the parser's result.

    Args:
        parser: The parser, or a group of one.
        kind: The dataclass.
        prefix: Where the dataclass is in the command's.
        flags: Names on the command line in place of the fields' own.
    """
    types_of = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        field_type, path = types_of[field.name], prefix + field.name
        if dataclasses.is_dataclass(field_type):
            group = parser.add_argument_group(field.metadata["title"])
            add_options(group, field_type, f"{path}.", field.metadata["flags"])  # type: ignore[arg-type]
            continue
        metadata = field.metadata
        needed = field.default is dataclasses.MISSING
        keywords = _value_keywords(field_type) | {"help": metadata["help"] + _default_text(field)}
        for name, value in (("metavar", metadata["metavar"]), ("type", metadata["parse"])):
            if value is not None:
                keywords[name] = value
        if metadata["choices"] is not None:
            keywords["choices"] = metadata["choices"]()
            del keywords["metavar"]
        if metadata["positional"]:
            # A default of its own, since argparse gives the mark for "absent" to the type as if it were a word.
            optional = {"nargs": "?", "default": None if needed else field.default}
            parser.add_argument(path, **({} if needed else optional) | keywords)
            continue
        names = (flags or {}).get(field.name) or metadata["flags"] or (f"--{field.name.replace('_', '-')}",)
        if field_type is bool and field.default is False:
            parser.add_argument(*names, dest=path, action="store_true", help=keywords["help"])
            opposite = names[0].replace("--", "--no-", 1)
            parser.add_argument(opposite, dest=path, action="store_false", help=argparse.SUPPRESS)
        else:
            if keywords.get("nargs") == "*":
                keywords["action"] = "extend"  # all in one place, or one by one
            parser.add_argument(*names, dest=path, required=needed, **keywords)


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default in (dataclasses.MISSING, None, (), False, ""):
        return ""
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return f" (default: {' '.join(map(str, values))})"


def _value_keywords(kind: Any) -> dict[str, Any]:
    """Arguments of `add_argument` for a field's type."""
    if get_origin(kind) in (Union, types.UnionType):  # of several types, one that holds several values, or the first
        parts = [part for part in get_args(kind) if part is not type(None)]
        kind = next((part for part in parts if get_origin(part) is tuple), parts[0])
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        return _value_keywords(first) | {"nargs": "*" if others == [...] else 1 + len(others)}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    return {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}.get(kind, "PATH")}


def build_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The dataclass of the values that were given: a parser's result, or values by the paths of their fields.

    Raises:
        ValueError: if they do not go together.
    """
    complete = getattr(kind, "complete", lambda nested: nested)
    return _construct(kind, complete(_nested(kind, given)))


def options_by_names(kind: type[Options], named: Mapping[str, Any]) -> Options:
    """The dataclass of values by the names that its options have on the command line, with `_` for `-`.

    Raises:
        TypeError: if there is no option of a name.
        ValueError: if the values do not go together.
    """
    paths = {name: path for path, names in _names(kind) for name in names}
    unknown = [name for name in named if name not in paths]
    if unknown:
        raise TypeError(f"There is no option {unknown[0]!r}; there are {', '.join(paths)}.")
    return build_options(kind, {paths[name]: value for name, value in named.items()})


def _names(
    kind: type, prefix: str = "", flags: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The path of each option, and what it is called."""
    types_of = get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        path = prefix + field.name
        if dataclasses.is_dataclass(types_of[field.name]):
            yield from _names(types_of[field.name], f"{path}.", field.metadata["flags"])
        else:
            names = (flags or {}).get(field.name) or field.metadata["flags"] or (field.name,)
            yield path, tuple(name.removeprefix("--").replace("-", "_") for name in names)


def _nested(kind: type, given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    types_of = get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        path = prefix + field.name
        if dataclasses.is_dataclass(types_of[field.name]):
            values[field.name] = _nested(types_of[field.name], given, f"{path}.")
        elif path in given:
            value = given[path]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return values


def _construct(kind: type[Options], nested: Mapping[str, Any]) -> Options:
    types_of = get_type_hints(kind)
    return kind(
        **{
            name: _construct(types_of[name], value) if dataclasses.is_dataclass(types_of[name]) else value
            for name, value in nested.items()
        }
    )


def fraction(text: str) -> float:
    """What a word of the command line says, from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def positive(text: str) -> int:
    """What a word of the command line says, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


@dataclass(kw_only=True)
class ModelOptions:
    """Which segmenter, and how it is run."""

    model: str | None = option(
        "name of a model (`maskadapter models`), folder, or name on the Hub; default: miniature, the small embedded "
        "one, which knows drawn scenes of "
        "coloured, textured shapes and nothing else",
        None,
        metavar="DIR_OR_ID",
    )
    revision: str | None = option(
        "branch, tag or commit of a model on the Hub", None, flags=("--revision", "--model-revision"), metavar="NAME"
    )
    subfolder: str = option("folder inside the model's repository", "", metavar="DIR")
    device: str | None = option("cpu, cuda, cuda:1, mps; default: the first accelerator there is", None)
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = option(
        "type of the weights; bfloat16, and int8 (of the ConvNeXt blocks' MLPs, on a CPU) are faster where the "
        "processor multiplies them faster, and a little less accurate",
        "auto",
    )
    mask_embedding: Literal["adapter", "pooling", "crop"] | None = option(
        "how masks are classified; default: as the model's configuration says", None
    )
    vocabulary_cache: bool = option("keep encoded labels on disk for the next time", True)

    @property
    def name(self) -> str:
        """What results call the model."""
        return self.model if self.model is not None else "hf_maskadapter miniature"


@dataclass(kw_only=True)
class VocabularyOptions:
    """What to look for: exactly one of labels, a file and a label set."""

    labels: str | None = option('class names separated by commas: "cat, sofa, wall"', None, metavar="NAMES")
    vocabulary: Path | None = option(
        "one class a line, its synonyms separated by commas; also id:name,name lines, and JSON", None, metavar="FILE"
    )
    label_set: str | None = option("a built-in list of classes", None, choices=label_sets)
    things: str | None = option(
        "the countable classes among these; all others become stuff, of which a panoptic result has one segment",
        None,
        metavar="NAMES",
    )

    def __post_init__(self) -> None:
        given = [value for value in (self.labels, self.vocabulary, self.label_set) if value is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of --labels, --vocabulary and --label-set")

    def read(self) -> Vocabulary:
        """The classes.

        Raises:
            UserError: if there are none, or a file cannot be read.
        """
        try:
            if self.vocabulary is not None:
                vocabulary = Vocabulary.from_file(self.vocabulary)
            elif self.label_set is not None:
                vocabulary = Vocabulary.from_label_set(self.label_set)
            else:
                vocabulary = Vocabulary.from_list(names_as_classes(self.labels or ""))
            if self.things is None:
                return vocabulary
            return vocabulary.with_things([name for (name,) in names_as_classes(self.things)])
        except (ValueError, OSError) as error:
            raise UserError(one_line(error)) from error


def names_as_classes(text: str) -> list[list[str]]:
    """Names separated by commas, each a class without synonyms."""
    return [[name.strip()] for name in text.split(",") if name.strip()]
