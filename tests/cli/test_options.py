"""Command lines made of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from hf_maskadapter.cli.options import Command, build_options, parse_command
from hf_maskadapter.data.options import option, option_group


@dataclass(kw_only=True)
class Optimizer:
    learning_rate: float = option("size of a step", 0.1)
    milestones: tuple[float, ...] = option("where it drops", ())
    ema: bool = option("average", False)
    decay: bool = option("decay", True)
    revision: str | None = option("version", None)


@dataclass(kw_only=True)
class Options:
    data: tuple[str, ...] = option("what to read", (), metavar="PATH", positional=True)
    output_dir: str = option("where to")
    scale: tuple[int, int] | None = option("from, to", None)
    stage: Literal["one", "two"] = option("which", "one")
    resize: bool | None = option("resize", None)
    optimizer: Optimizer = option_group(Optimizer, "optimizer", {"revision": ("--optimizer-revision", "--version-of")})

    def __post_init__(self):
        if self.output_dir == "bad":
            raise ValueError("--output-dir must not be bad")

    @classmethod
    def complete(cls, given):
        if given.get("stage") == "two":
            given["optimizer"] = {"learning_rate": 0.5} | given["optimizer"]
        return given


COMMAND = Command(name="try", summary="try it", description="Try it.", options=Options, run=lambda _: 0)


def parse(*arguments):
    return parse_command([COMMAND], ["try", *arguments], "1.0")[1]


def test_what_is_not_given_has_its_default():
    assert parse("--output-dir", "x") == Options(output_dir="x", optimizer=Optimizer())


def test_dashes_and_underscores_are_the_same_in_names_and_not_in_values():
    expected = Options(output_dir="a_b-c", optimizer=Optimizer(learning_rate=2.0))
    assert parse("--output_dir", "a_b-c", "--learning-rate=2") == expected
    assert parse("--output-dir=a_b-c", "--learning_rate", "2") == expected


def test_types_follow_the_fields():
    options = parse("p", "q", "--output-dir", "x", "--scale", "1", "2", "--milestones", "0.5", "0.75", "--resize")
    assert (options.data, options.scale) == (("p", "q"), (1, 2))
    assert options.optimizer.milestones == (0.5, 0.75)
    assert options.resize is True
    assert parse("--output-dir", "x").resize is None
    assert parse("--output-dir", "x", "--no-resize").resize is False


def test_switches_can_be_turned_on_and_off():
    options = parse("--output-dir", "x", "--ema", "--no-decay").optimizer
    assert (options.ema, options.decay) == (True, False)
    options = parse("--output-dir", "x", "--ema", "--no_ema").optimizer
    assert (options.ema, options.decay) == (False, True)


def test_a_group_may_be_offered_under_other_names():
    for name in ("--optimizer-revision", "--optimizer_revision", "--version-of"):
        assert parse("--output-dir", "x", name, "v1").optimizer.revision == "v1"


def test_what_was_given_goes_before_what_follows_from_it():
    assert parse("--output-dir", "x", "--stage", "two").optimizer.learning_rate == 0.5
    assert parse("--output-dir", "x", "--stage", "two", "--learning-rate", "3").optimizer.learning_rate == 3


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--output-dir"),
        (["--output-dir", "bad"], "--output-dir must not be bad (see maskadapter try --help)"),
        (["--output-dir", "x", "--stage", "three"], "'three'"),
        (["--output-dir", "x", "--scale", "1"], "--scale"),
        (["--output-dir", "x", "--learning-rate", "fast"], "'fast'"),
        (["--output-dir", "x", "--nothing"], "--nothing"),
    ],
)
def test_mistakes_get_one_line(arguments, part, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(*arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("maskadapter")
    assert part in line


def test_help_shows_titles_defaults_and_one_spelling(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse("--help")
    assert exit_.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "optimizer:" in shown
    assert "--learning-rate X size of a step (default: 0.1)" in shown
    assert "--no-ema" not in shown
    assert "_rate" not in shown


def test_options_can_be_built_from_values_by_their_paths():
    options = build_options(Options, {"output_dir": "x", "optimizer.milestones": [1.0, 2.0]})
    assert options == Options(output_dir="x", optimizer=Optimizer(milestones=(1.0, 2.0)))
