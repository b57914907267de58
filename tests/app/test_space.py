"""A Space is complete: it runs in a process of its own, and its requirements name what it needs."""

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hf_maskadapter.app import space
from hf_maskadapter.app.settings import AppSettings
from hf_maskadapter.app.space import SpaceError, write_space
from hf_maskadapter.loading import ModelNameError
from support.extras import needs_extra

needs_extra("app", "gradio", "httpx")

import httpx  # noqa: E402

from lab.documentation.app_process import wait_for_answer  # noqa: E402
from support.two_processes import free_port  # noqa: E402

SETTINGS = AppSettings(models=("miniature",), max_pixels=1_000_000)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spaces") / "space"
    write_space(folder, SETTINGS)
    return folder


def requirements_of(folder: Path) -> dict[str, str]:
    lines = (folder / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def test_the_readme_holds_the_metadata_of_a_space(written):
    _, head, _ = (written / "README.md").read_text(encoding="utf-8").split("---\n")
    metadata = yaml.safe_load(head)
    assert metadata["sdk"] == "gradio"
    assert metadata["sdk_version"] == importlib.metadata.version("gradio")
    assert metadata["app_file"] == "app.py"
    assert metadata["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert len(metadata["short_description"]) <= 60  # the Hub takes no longer one


def test_requirements_are_pinned_without_what_tells_builds_apart(written):
    requirements = requirements_of(written)
    assert {"torch", "transformers", "filelock", "gradio"} <= set(requirements)
    assert all(re.fullmatch(r"[0-9a-z.]+", version) for version in requirements.values())
    assert requirements["gradio"] == importlib.metadata.version("gradio")


def test_nothing_compiled_is_in_it(written):
    assert (written / "hf_maskadapter" / "miniature" / "checkpoint" / "model.safetensors").is_file()
    assert not list(written.rglob("*.pyc"))


def clean_environment(**variables: str) -> dict[str, str]:
    """Variables of a process that finds this package in its own folder alone."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"} | variables


def closure(names: set[str]) -> set[str]:
    """Distributions that those of the names need, themselves included."""
    found, waiting = set(), {canonicalize_name(name) for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            declared = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        needed = {canonicalize_name(requirement.name) for requirement in map(Requirement, declared)}
        waiting |= needed - found
    return found


def test_it_segments_in_a_clean_process_with_what_its_requirements_name(written):
    program = """
import json, sys
from app import SETTINGS
from hf_maskadapter.app.interface import build_app
from hf_maskadapter.app.labels import read_labels
from hf_maskadapter.app.models import AppModels
from hf_maskadapter.app.scenes import example_scenes
from hf_maskadapter.app.segmenting import Wish, segment_picture
models = AppModels(SETTINGS.models)
build_app(SETTINGS, models)
result = segment_picture(models.get("miniature"), Wish(example_scenes()[0].picture, read_labels("sand, water")))
import hf_maskadapter
top = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([hf_maskadapter.__file__, result.segments.labels, SETTINGS.max_pixels, top]))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(written.parent / "gradio"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=written, env=environment, capture_output=True, text=True, check=True
    )
    where, labels, max_pixels, modules = json.loads(answer.stdout.splitlines()[-1])
    assert Path(where) == written / "hf_maskadapter" / "__init__.py"
    assert labels == ["sand", "water"]
    assert max_pixels == 1_000_000
    owners = importlib.metadata.packages_distributions()
    loaded = {canonicalize_name(owner) for name in modules for owner in owners.get(name, [])} - {"hf-maskadapter"}
    optional = {canonicalize_name(name) for name in ("setuptools", "pip")}
    allowed = closure(set(requirements_of(written))) | optional
    assert loaded - allowed <= packages_that_others_try(loaded)


def packages_that_others_try(loaded: set[str]) -> set[str]:
    """Packages that libraries import where they happen to be installed, and that this package never imports."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in Path(space.__file__).parents[1].rglob("*.py"))
    owners = importlib.metadata.packages_distributions()
    modules = {canonicalize_name(owner): name for name, names in owners.items() for owner in names}
    return {
        name
        for name in loaded
        if not re.search(rf"^(?:import|from) {re.escape(modules[name])}\b", source, re.MULTILINE)
    }


def test_its_app_serves_where_it_is_told_and_ends_quietly(written):
    port = free_port()
    environment = clean_environment(GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT=str(port))
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=written, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            page = wait_for_answer(f"http://127.0.0.1:{port}/", process)
            assert "Mask-Adapter" in page.text
            assert httpx.get(f"http://127.0.0.1:{port}/config").json()["analytics_enabled"] is False
        finally:
            process.send_signal(signal.SIGINT)
            try:
                _, errors = process.communicate(timeout=60)
            finally:
                process.kill()  # one that does not end fails this test, and does not hold up the others
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(SpaceError, match="is not empty: name another one, or replace the Space in it"):
        write_space(tmp_path, SETTINGS)
    with pytest.raises(SpaceError, match="holds no Space of this command: it is not replaced"):
        write_space(tmp_path, SETTINGS, overwrite=True)
    with pytest.raises(SpaceError, match=r"diary\.txt is a file: name a folder"):
        write_space(tmp_path / "diary.txt", SETTINGS)
    assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]


def test_an_earlier_space_is_replaced_on_request_and_kept_if_that_fails(tmp_path, monkeypatch):
    folder = tmp_path / "space"
    write_space(folder, SETTINGS)
    (folder / "old.txt").write_text("old")
    monkeypatch.setattr(space, "_readme", lambda models: exec("raise OSError(28, 'No space left on device')"))
    with pytest.raises(OSError, match=r"Cannot write .*: No space left on device"):
        write_space(folder, SETTINGS, overwrite=True)
    assert (folder / "old.txt").exists()
    monkeypatch.undo()
    write_space(folder, AppSettings(models=("miniature", "maft-base")), overwrite=True)
    assert not (folder / "old.txt").exists()
    assert "models=('miniature', 'maft-base')," in (folder / "app.py").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["space"]


def test_the_history_of_a_cloned_space_is_not_lost(tmp_path):
    folder = tmp_path / "space"
    write_space(folder, SETTINGS)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    with pytest.raises(SpaceError, match="is a Git repository, whose history would be lost"):
        write_space(folder, SETTINGS, overwrite=True)
    assert (folder / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("fclip-large", "Did you mean fcclip-large"), ("/no/such/folder", "there is no model folder /no/such/folder")],
)
def test_a_name_of_no_model_is_told_before_a_space_is_written(tmp_path, model, sentence):
    with pytest.raises(ModelNameError, match=sentence):
        write_space(tmp_path / "space", AppSettings(models=(model,)))
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_this_machine_cannot_go_into_a_space(tmp_path):
    with pytest.raises(SpaceError, match="is a folder of this machine, which the Space would not have: publish it"):
        write_space(tmp_path / "space", AppSettings(models=(str(tmp_path),)))
    assert list(tmp_path.iterdir()) == []
