"""Every code block of the README runs as it stands, in the order of the page."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_maskadapter import cli

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def newcomer_command(name: str) -> str:
    script = [sys.executable, str(PROJECT / ".ci" / "readme_command.py"), name]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a clone, where the README's commands can write."""
    for name in ("examples", "scripts", "tests"):
        os.symlink(PROJECT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_commands(line: str) -> None:
    """Run a shell line of `maskadapter` commands and launched scripts; installing is not repeated."""
    for command in line.split(" && "):
        program, *arguments = shlex.split(command)
        if program in ("accelerate", "python"):
            launched = [sys.executable, *(arguments[1:] if program == "accelerate" else arguments)]
            finished = subprocess.run(launched, capture_output=True, text=True)
            assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        elif program != "pip":
            assert program == "maskadapter", f"the README runs {program}, which this test does not know"
            assert cli.main(arguments) == 0, command


def test_commands_and_python_blocks_run_as_they_stand(clone, capsys):
    namespace: dict = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), namespace)
        elif kind == "bash" and "pytest" not in text:
            for line in text.strip().splitlines():
                run_commands(line)
    for result in (
        "demo.png",
        "scene.png",
        "panoptic.png",
        "panoptic.json",
        "panoptic_masks.png",
        "overlay.png",
        "pictures/scene.png",
        "converted/model.safetensors",
        "label_studio/tasks.json",
        "annotated/vocabulary.json",
        "coco/panoptic.json",
        "warmup/model/model.safetensors",
        "clip/model/model.safetensors",
        "mixed/model/model.safetensors",
        "evaluation/results.json",
    ):
        assert (clone / "out" / result).is_file(), result


def test_every_block_is_of_a_kind_that_is_checked():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "text"}


def test_setup_commands_are_one_line_each_and_pin_versions():
    for name in ("run", "test"):
        assert newcomer_command(name).startswith("pip install -q -c constraints.txt -e ")
    assert newcomer_command("run").count("maskadapter ") == 2
    assert newcomer_command("test").endswith("&& pytest")


def test_links_to_files_and_sections_exist():
    sections = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in sections, target
        elif not target.startswith("https://"):
            assert (PROJECT / target).exists(), target
