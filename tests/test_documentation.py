"""README and documentation: every code block runs as it stands, every link leads somewhere, every option exists."""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hf_maskadapter
from hf_maskadapter import cli
from hf_maskadapter.cli.options import make_parser
from lab.commands import COMMANDS as LABORATORY
from lab.documentation import site
from support.documentation import (
    PAGES,
    PROJECT,
    README,
    Block,
    anchors,
    blocks,
    command_lines,
    commands,
    links,
    prose,
    run_line,
    run_page,
)
from support.extras import needs_extra

TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {page: blocks(text) for page, text in TEXT.items()}
NAMES = {page: page.relative_to(PROJECT).as_posix() for page in PAGES}
RESULTS = {
    "README.md": (
        "demo.png",
        "scene.png",
        "panoptic.png",
        "panoptic.json",
        "panoptic_masks.png",
        "converted/model.safetensors",
    ),
    "docs/learn/pictures.md": ("scene.png", "panoptic.json", "pictures/scene.png", "demo.png"),
    "docs/learn/python.md": ("overlay.png",),
    "docs/learn/mask_generators.md": ("with_eomt.png",),
    "docs/learn/released_checkpoints.md": ("converted/model.safetensors",),
    "docs/learn/annotate.md": ("label_studio/tasks.json", "annotated/vocabulary.json", "coco/panoptic.json"),
    "docs/learn/train.md": ("warmup/model/model.safetensors", "mixed/model/model.safetensors", "mixed/adapter"),
    "docs/learn/pretrain.md": ("clip/model/model.safetensors",),
    "docs/learn/evaluate.md": ("evaluation/results.json",),
}


#: The extra that a page's blocks need beside those of the tests, and a module of it.
EXTRAS = {
    "docs/learn/export.md": ("export", "onnx"),
    "docs/learn/label_studio.md": ("serve", "fastapi"),
    "docs/learn/many.md": ("test-all", "faiss"),
    "docs/learn/service.md": ("serve", "fastapi"),
}


def of_page(name: str) -> list[Block]:
    return BLOCKS[PROJECT / name]


def newcomer_command(name: str) -> str:
    script = [sys.executable, str(PROJECT / ".ci" / "readme_command.py"), name]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a clone, where the pages' commands can write."""
    for name in ("configs", "examples", "scripts", "tests"):
        os.symlink(PROJECT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if {block.kind for block in BLOCKS[page]} - {"text"}], ids=NAMES.get
)
def test_the_blocks_of_a_page_run_as_they_stand(page, clone):
    if NAMES[page] in EXTRAS:
        needs_extra(*EXTRAS[NAMES[page]])
    run_page(NAMES[page], [block for block in BLOCKS[page] if block.comment != "slow"], {})
    for result in RESULTS.get(NAMES[page], ()):
        assert (clone / "out" / result).exists(), result


def test_pages_whose_results_are_looked_at_are_there():
    assert set(RESULTS) <= set(NAMES.values())


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
    (block,) = [block for block in of_page("docs/results/camvid.md") if block.comment == "slow"]
    for line in command_lines(block):
        run_line(line)

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


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_every_block_is_of_a_kind_that_is_checked(page):
    fences = re.findall(r"^\s*(?:```|~~~)", TEXT[page], re.MULTILINE)
    assert len(fences) == 2 * len(BLOCKS[page])
    for block in BLOCKS[page]:
        assert block.kind in {"bash", "python", "json", "yaml", "text"}, block
        assert (block.kind == "text") == (block.comment == "not run"), f"say why it is not run: {block.text}"


def test_few_blocks_are_not_run():
    found = [block for page in PAGES for block in BLOCKS[page]]
    assert sum(block.comment == "not run" for block in found) <= 0.2 * len(found)


def test_setup_commands_are_one_line_each_and_pin_versions():
    for name in ("run", "test"):
        assert newcomer_command(name).startswith("pip install -q -c constraints.txt -e ")
    assert newcomer_command("run").count("maskadapter ") == 2
    assert newcomer_command("test").endswith("&& pytest")


def test_the_readme_is_read_in_three_minutes():
    assert len(TEXT[README].splitlines()) <= 160
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\]\([^)]*\)", "]", prose(TEXT[README])))
    assert len(words) <= 3 * 300


@pytest.mark.parametrize(
    "page", [*PAGES, *(PROJECT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]
)
def test_links_to_files_and_sections_exist(page):
    made = site.reference_pages()
    text = page.read_text(encoding="utf-8")
    for link in links(text):
        if re.match("https?:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        name = os.path.relpath(path, PROJECT / "docs")
        there = made.get(name) or (path.read_text(encoding="utf-8") if path.suffix == ".md" else "")
        assert name in made or path.exists(), link
        assert not anchor or anchor in anchors(there), link


def parsed_options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """The options of each command, with dashes."""
    return {
        name: {option for action in command._actions for option in action.option_strings}
        for name, command in site.subcommands(parser).items()
    }


OPTIONS = parsed_options(cli.build_parser())
LABORATORY_OPTIONS = parsed_options(make_parser(LABORATORY, "", program="lab"))


def launched_command(words: list[str]) -> list[str]:
    """The command and its arguments in a line that calls `maskadapter`, itself or by `accelerate launch`."""
    if words[:1] == ["maskadapter"]:
        return words[1:]
    if "hf_maskadapter.cli" in words:
        return words[words.index("hf_maskadapter.cli") + 1 :]
    return []


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_commands_and_options_in_a_page_exist(page):
    text = prose(TEXT[page])
    if NAMES[page] == "docs/migration.md":
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)  # what was
    lines = [line for block in BLOCKS[page] if block.kind in ("bash", "text") for line in command_lines(block)]
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if re.search(r"maskadapter(\.cli)? \w", code)]
    for line in lines:
        for words in commands(line):
            name, *arguments = launched_command(words) or [""]
            if not name or not name.islower():
                continue
            assert name in OPTIONS, line
            given = {word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")}
            assert given <= OPTIONS[name], f"{line}: {given - OPTIONS[name]}"


OTHER_TOOLS = {
    "--nproc_per_node",
    "--cpu",
    "--config_file",
    "--num_processes",
    "--eval-only",
    "--config-file",
    "--num-gpus",
}
OTHER_TOOLS |= {"--input", "--opts", "--help", "--seed", "--strict", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_options_that_a_page_speaks_of_exist(page):
    known = set().union(*OPTIONS.values(), *LABORATORY_OPTIONS.values())
    known |= {name.replace("--", "--no-", 1) for name in known} | OTHER_TOOLS
    for code in re.findall(r"`([^`\n]+)`", prose(TEXT[page])):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in known or option.replace("_", "-") in known, code


def test_the_map_of_the_code_names_what_is_there():
    page = (
        (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## Map of the code\n")[1].split("\n## ")[0]
    )
    package = PROJECT / "src" / "hf_maskadapter"
    first_cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    named = {name.rstrip("/") for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    model = {path.name for path in (package / "model").glob("*.py")} - {"__init__.py"}
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} - {"model"}
    assert model | rooms <= named
    for name in named - model:
        assert (package / name).exists() or (PROJECT / name).exists(), name
    top = {path.name for path in package.glob("*.py")}
    assert all(f"`{name}`" in page for name in top)


def test_versions_and_names_of_the_project_agree():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == hf_maskadapter.__version__
    assert f"\n## [{hf_maskadapter.__version__}] - " in changelog


def test_continuous_integration_is_the_script_that_anyone_can_run():
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["check"]["steps"][-1] == {"run": ".ci/run"}
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_measured_tables_agree_with_the_reports_that_the_benchmarks_wrote():
    def rows(name, mark):
        return [line for line in TEXT[PROJECT / name].splitlines() if line.startswith("|") and mark in line]

    results = PROJECT / "model_cards" / "results"
    reported = (results / "paper.md").read_text(encoding="utf-8").splitlines()
    claims = rows("docs/results/paper.md", "to +")
    assert len(claims) == 4
    assert set(claims) <= set(reported)
    speeds = [row for row in rows("docs/results/speed.md", "×") if "MiB" in row]
    reported = [
        set(re.split(r" *\| *", line)) for line in (results / "speed.md").read_text(encoding="utf-8").splitlines()
    ]
    assert len(speeds) >= 5
    for row in speeds:
        factor_and_memory = re.findall(r"(?<=\| )[\d.]+× | [\d.]+ MiB", row)
        assert len(factor_and_memory) == 3, row
        assert any({cell.strip() for cell in factor_and_memory} <= cells for cells in reported), row
