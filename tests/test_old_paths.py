"""Every path that an `__all__` of version 0.1 named leads to the same objects until 0.3, and says where they are."""

import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import hf_maskadapter

NAMES: dict[str, list[str]] = json.loads((Path(__file__).parent / "fixtures/names_of_version_0_1.json").read_text())
MOVED = hf_maskadapter._MOVED


def true_home(module: str, name: str) -> tuple[str, str]:
    """Where a name of 0.1 is now by the table, without the import hook."""
    old = module.removeprefix("hf_maskadapter.")
    path, _, new_name = MOVED.get(f"{old}:{name}", MOVED.get(old, old)).partition(":")
    prefix = "" if path.startswith(("lab.", "hf_maskadapter")) else "hf_maskadapter."
    return prefix + path, new_name or name


@pytest.mark.parametrize("module", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_name_of_version_0_1_is_the_object_at_its_new_place(module):
    old = importlib.import_module(module)
    missing = [name for name in NAMES[module] if not hasattr(old, name)]
    assert not missing, f"add lines for {missing} of {module} to _MOVED in hf_maskadapter/__init__.py"
    for name in NAMES[module]:
        home, new_name = true_home(module, name)
        assert getattr(old, name) is getattr(importlib.import_module(home), new_name), name


@pytest.mark.parametrize("old", MOVED)
def test_every_line_of_the_table_leads_somewhere_and_shortens_no_path_that_is_old_itself(old):
    path, name = hf_maskadapter._new_path(old)
    assert path not in MOVED
    assert f"{path}:{name}" not in MOVED
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        module = importlib.import_module(path if path.startswith("lab.") else f"hf_maskadapter.{path}")
        assert not name or hasattr(module, name)


def run_python(code: str, *flags: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=folder)


def test_a_warning_names_the_new_path_at_the_line_that_imports_the_old_one():
    finished = run_python(
        "import hf_maskadapter\nfrom hf_maskadapter.vocabulary import Vocabulary\n"
        "assert Vocabulary is hf_maskadapter.Vocabulary\nfrom hf_maskadapter.data.samples import rgb_to_id\n"
    )
    assert finished.returncode == 0, finished.stderr
    assert [line for line in finished.stderr.splitlines() if "Warning" in line] == [
        "<string>:2: DeprecationWarning: hf_maskadapter.vocabulary is hf_maskadapter.model.vocabulary now; the old "
        "path works until version 0.3.",
        "<string>:4: DeprecationWarning: hf_maskadapter.data.samples.rgb_to_id is "
        "hf_maskadapter.model.masks.colors_to_ids now; the old path works until version 0.3.",
    ]


def test_new_paths_and_public_names_warn_of_nothing():
    modules = {true_home(module, "")[0] for module in NAMES if not true_home(module, "")[0].startswith("lab.")}
    code = "".join(f"import {module}\n" for module in sorted(modules))
    code += "import hf_maskadapter\nfor name in hf_maskadapter.__all__: getattr(hf_maskadapter, name)\n"
    finished = run_python(
        code, "-W", "error::DeprecationWarning:hf_maskadapter", "-W", "error::DeprecationWarning:__main__"
    )
    assert finished.returncode == 0, finished.stderr


def test_what_left_the_package_is_named_where_it_is_not_at_hand(tmp_path):
    finished = run_python("import hf_maskadapter.benchmarks.speed", folder=tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "ImportError: hf_maskadapter.benchmarks left the package with version 0.2: it is lab.benchmarks in the "
        "project's repository. Clone it, and run Python in the clone's folder."
    )


def test_a_name_that_never_was_is_missed_as_anywhere_else():
    from hf_maskadapter.data import samples

    with pytest.raises(AttributeError, match=r"module 'hf_maskadapter\.data\.samples' has no attribute 'nothing'"):
        samples.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'hf_maskadapter\.nothing'"):
        importlib.import_module("hf_maskadapter.nothing")
