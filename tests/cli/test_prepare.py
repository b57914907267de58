"""`maskadapter prepare`: raw downloads to data sets."""

from __future__ import annotations

import pytest

from data.test_preparation import make_ade20k
from hf_maskadapter import cli
from hf_maskadapter.data import RAW_LAYOUTS


def command(*arguments) -> int:
    return cli.main(["prepare", *map(str, arguments)])


def test_the_command_prepares_a_data_set(tmp_path, capsys):
    make_ade20k(tmp_path / "ade")
    arguments = ["ade20k_150", tmp_path / "ade", tmp_path / "out", "--split", "train", "--max_samples", "1"]
    assert command(*arguments) == 0
    assert "out: 1 train samples" in capsys.readouterr().out
    assert command(*arguments) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("splits", [("--split", "train", "validation"), ("--split", "train", "--split", "validation")])
def test_several_splits_can_be_named(tmp_path, capsys, splits):
    make_ade20k(tmp_path / "ade")
    assert command("ade20k_150", tmp_path / "ade", tmp_path / "out", *splits, "--max-samples", "1") == 0
    assert "out: 1 train, 1 validation samples" in capsys.readouterr().out


def test_mistakes_with_the_command_are_one_line(tmp_path, capsys):
    make_ade20k(tmp_path / "ade")
    (tmp_path / "file").write_text("")
    for changes in (["file/out"], ["out", "--max_samples", "0"], ["out", "--max_samples", "-1"]):
        assert command("ade20k_150", tmp_path / "ade", tmp_path / changes[0], *changes[1:]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("maskadapter prepare: error: ")
        assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_the_command_lists_layouts_and_wants_all_its_arguments(capsys):
    assert command("--list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RAW_LAYOUTS)
    with pytest.raises(SystemExit):
        command("ade20k_150")
