"""The second distribution: what it packs, and that it runs where PyTorch and Transformers are missing."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hf_maskadapter import load_segmenter
from support.extras import needs_extra
from support.import_graph import import_graph

PROJECT = Path(__file__).parents[2]
START = "hf_maskadapter.export.segmenter"

SCRIPT = """
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "hf_maskadapter"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if sys.argv[4] == "blocked":
    sys.meta_path.insert(0, Missing())
from hf_maskadapter_runtime import ExportedSegmenter, Vocabulary
segmenter = ExportedSegmenter.from_pretrained(sys.argv[1], threads=1, verify=True)
segments = segmenter(sys.argv[2], candidate_labels=json.loads(sys.argv[3]), return_segments=True)
assert len(Vocabulary.from_label_set("cityscapes_19")) == 19
assert not {"torch", "transformers", "hf_maskadapter"} & set(sys.modules)
import numpy as np
np.save("labels.npy", segments.label_map())
"""
LABELS = ["red circle", "blue square", "green triangle", "grass", "sky"]


def packed():
    """Where the wheel puts each file of the project."""
    project = tomllib.loads((PROJECT / "runtime" / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    return {(PROJECT / "runtime" / source).resolve(): target for source, target in packed.items()}


def test_the_wheel_packs_what_the_segmenter_imports_and_nothing_else():
    graph = import_graph(PROJECT / "src")
    found, waiting = set(), [START]
    while waiting:
        module = waiting.pop()
        found.add(module)
        packages = {module.rpartition(".")[0]} - {"hf_maskadapter"}
        # The package's own name, and what writes exported models, whose name the room loads on first use.
        left_out = {"hf_maskadapter", "hf_maskadapter.export.exporting"}
        waiting += list({*graph[module], *packages} - found - left_out)
    files = {module_file(module) for module in found}
    assert {path for path in packed() if path.suffix == ".py"} == files
    for path, target in packed().items():
        assert target == f"hf_maskadapter_runtime/{path.relative_to(PROJECT / 'src' / 'hf_maskadapter').as_posix()}"


def module_file(module):
    path = PROJECT / "src" / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.fixture
def installed(tmp_path):
    """The files of the wheel, laid out as it would install them."""
    site = tmp_path / "site"
    shutil.copytree(PROJECT / "runtime" / "hf_maskadapter_runtime", site / "hf_maskadapter_runtime")
    for source, target in packed().items():
        (site / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, site / target)
    return site


def run(python, folder, site, exported_folder, blocked):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    picture = PROJECT / "examples" / "scene.png"
    command = [python, "-c", SCRIPT, exported_folder, picture, json.dumps(LABELS), blocked]
    subprocess.run(list(map(str, command)), check=True, cwd=folder, env=environment)
    import numpy as np

    expected = load_segmenter("miniature", device="cpu")(str(picture), candidate_labels=LABELS, return_segments=True)
    assert (np.load(folder / "labels.npy") == expected.label_map()).mean() >= 0.999


def test_it_segments_where_pytorch_and_transformers_are_missing(installed, exported_folder, tmp_path):
    run(sys.executable, tmp_path, installed, exported_folder, "blocked")


@pytest.mark.slow
def test_the_wheel_installs_into_an_environment_without_pytorch_and_segments(exported_folder, tmp_path):
    needs_extra("export", "onnxruntime")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", PROJECT / "constraints.txt"]
    subprocess.run([*install, f"{PROJECT / 'runtime'}[onnxruntime]"], check=True)
    names = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
    assert not {"torch", "transformers"} & {package["name"] for package in json.loads(names)}
    run(python, tmp_path, None, exported_folder, "really missing")
