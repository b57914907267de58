"""The front door: help, and mistakes in the arguments."""

import os
import subprocess
import sys

import pytest

import hf_maskadapter
from hf_maskadapter import cli
from support.commands import ENVIRONMENT, assert_one_error, command


class TestHelp:
    def test_help_answers_within_a_second(self):
        before = os.times()  # of this process's ended children: processor time, which a busy machine does not lengthen
        done = subprocess.run(command("--help"), env=ENVIRONMENT, capture_output=True, text=True, check=True)
        after = os.times()
        assert "segment" in done.stdout
        assert "convert" in done.stdout
        used = after.children_user - before.children_user + after.children_system - before.children_system
        assert 0 < used < 1

    def test_help_imports_neither_torch_nor_transformers(self):
        code = (
            "import sys; from hf_maskadapter import cli; cli.build_parser().format_help(); "
            "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_version_is_the_packages(self, capsys):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["--version"])
        assert exit_.value.code == 0
        assert capsys.readouterr().out.strip() == f"maskadapter {hf_maskadapter.__version__}"

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            ([], "COMMAND"),
            (["paint"], "paint"),
            (["segment"], "--output"),
            (["segment", "x.png", "--model", "m", "--output", "o"], "--labels"),
            (
                ["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--label-set", "no_such"],
                "no_such",
            ),
            (
                ["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--threshold", "2"],
                "between 0 and 1",
            ),
            (["segment", "x.png", "--model", "m", "--output", "o", "--labels", "a", "--batch-size", "0"], "at least 1"),
            (["convert", "x.pth"], "--output"),
        ],
    )
    def test_mistakes_in_the_arguments_get_one_line(self, capsys, arguments, part):
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == 2
        assert_one_error(capsys, part, "--help")
