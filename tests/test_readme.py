"""Every code block of the README runs as it stands, in the order of the page."""

import json
import math
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


def steps_of(run: Path) -> list[dict]:
    """The records of a training's steps."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record for record in records if "loss" in record]


@pytest.mark.slow
def test_the_commands_for_camvid_teach_an_embedded_model_its_classes(clone):
    shared = os.environ.get("MASKADAPTER_SHARED")
    if not shared or not Path(shared, "data", "camvid").is_dir():
        pytest.skip("needs real data: set MASKADAPTER_SHARED to the folder that has data/camvid")
    os.symlink(Path(shared, "data", "camvid"), clone / "camvid")
    (commands,) = [text for kind, text in BLOCKS if kind == "text" and "--dataset camvid" in text]
    for line in commands.strip().splitlines():
        run_commands(line)

    out = clone / "out" / "camvid"
    assert steps_of(out / "clip")[-1]["accuracy"] > 0.4  # of crops among the captions of 64, a class in eleven
    warmup = steps_of(out / "warmup")[-20:]
    class_weight = json.loads((out / "warmup" / "training_arguments.json").read_text())["class_weight"]
    chance = class_weight * math.log(11)
    assert sum(step["loss_class"] for step in warmup) / len(warmup) < 0.6 * chance
    masks = sum(step["masks"] for step in warmup)
    accuracy = sum(step["mask_accuracy"] * step["masks"] for step in warmup) / masks
    pictures = json.loads((out / "warmup" / "training_arguments.json").read_text())["batch_size"] * len(warmup)
    largest_class = pictures / masks  # at most: a class has one mask in a picture
    assert accuracy > 4 * largest_class
    assert sum(step["matches"] for step in steps_of(out / "mixed")) > 0
    assert (out / "evaluation" / "results.json").is_file()


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


def test_measured_tables_agree_with_the_reports_that_the_benchmarks_wrote():
    def rows(title, text, mark):
        section = text.split(f"\n{title}")[1].split("\n## ")[0]
        return [line for line in section.splitlines() if line.startswith("|") and mark in line]

    results = PROJECT / "model_cards" / "results"
    reported = (results / "paper.md").read_text(encoding="utf-8").splitlines()
    claims = rows("## The paper's claims", README, "to +")
    assert len(claims) == 4
    assert set(claims) <= set(reported)
    speeds = rows("## Speed and memory", README, "×")
    reported = [
        set(re.split(r" *\| *", line)) for line in (results / "speed.md").read_text(encoding="utf-8").splitlines()
    ]
    assert len(speeds) >= 5
    for row in speeds:
        factor_and_memory = re.findall(r"(?<=\| )[\d.]+× | [\d.]+ MiB", row)
        assert len(factor_and_memory) == 3, row
        assert any({cell.strip() for cell in factor_and_memory} <= cells for cells in reported), row
