"""`maskadapter export`, and `maskadapter segment` with what it writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.cli import main
from support.extras import needs_extra

needs_extra("export", "onnx", "onnxscript", "onnxruntime")

PICTURE = str(Path(__file__).parents[2] / "examples" / "scene.png")
LABELS = "sand, water, dotted yellow star"


@pytest.fixture
def folder(exported_folder):
    return exported_folder


def segment(model, output, *options):
    command = [sys.executable, "-X", "importtime", "-m", "hf_maskadapter.cli", "segment", PICTURE, "--masks"]
    command += ["--labels", LABELS, "--output", str(output), *options]
    return subprocess.run([*command, "--model", str(model)], capture_output=True, text=True, check=True).stderr


def test_an_exported_folder_is_segmented_with_like_any_other_and_without_pytorch(folder, tmp_path):
    imported = segment(folder, tmp_path / "exported.png")
    assert not any(line.rpartition("|")[2].strip() in ("torch", "transformers") for line in imported.splitlines())
    assert main(["segment", PICTURE, "--labels", LABELS, "--masks", "--output", str(tmp_path / "own.png")]) == 0
    maps = [np.asarray(Image.open(tmp_path / f"{name}_masks.png")) for name in ("exported", "own")]
    assert (maps[0] == maps[1]).mean() >= 0.999
    assert len(np.unique(maps[0])) > 1


def test_the_manifest_tells_what_was_exported(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["dtype"], manifest["model"]["name"]) == ("onnx", "float32", "miniature")
    assert manifest["difference"]["equal_pixels"] >= 0.999
    assert manifest["difference"]["least_cosine"] >= 0.99999
    assert set(manifest["graphs"]) == {"texts", "picture", "proposals", "adapter", "pooling", "classes"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "exported models run on the cpu"),
        (["--dtype", "bfloat16"], "was exported with --dtype float32: export it again for another"),
        (["--mask-embedding", "crop"], 'mask_embedding="crop" is not exported'),
        (["--revision", "main"], "has no --revision"),
    ],
)
def test_options_that_an_exported_model_has_not(folder, tmp_path, capsys, options, message):
    output = tmp_path / "none.png"
    arguments = ["segment", PICTURE, "--labels", LABELS, "--model", str(folder), "--output", str(output), *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "miniature", "--output", str(tmp_path)]) == 2
    assert "holds something else than an exported model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_with_an_exported_model_needs_overwrite(folder, capsys):
    assert main(["export", "miniature", "--output", str(folder)]) == 2
    assert "holds an exported model already" in capsys.readouterr().err


def test_bfloat16_is_not_for_onnx_runtime(tmp_path, capsys):
    assert main(["export", "miniature", "--dtype", "bfloat16", "--output", str(tmp_path / "none")]) == 2
    assert "ONNX Runtime computes nothing in bfloat16" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_calibration_pictures_without_effect_are_refused(tmp_path, capsys):
    arguments = ["export", "miniature", "--calibration", str(Path(PICTURE).parent), "--output", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert "calibration pictures have an effect on int8 through OpenVINO alone" in capsys.readouterr().err
