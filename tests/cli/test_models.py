"""`maskadapter models`, and names in place of folders wherever a command takes a model."""

import json
import re
from pathlib import Path

import pytest

from hf_maskadapter import cli, loading
from hf_maskadapter.cli.models import models_table

PROJECT = Path(__file__).parents[2]
PUBLISHED = {  # Mask-Adapter, arXiv 2412.04533, PC-459, PC-59, PAS-20
    "fcclip-large": (14.1, 36.6, 19.3, 59.7, 95.5),
    "maft-base": (14.2, 35.6, 17.9, 58.4, 95.1),
    "maft-large": (16.2, 38.2, 22.7, 60.4, 95.8),
}
BENCHMARKS = ("ade20k_847", "ade20k_150", "pascal_context_459", "pascal_context_59", "pascal_voc_20")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKADAPTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_list_tells_what_each_model_takes_and_whether_it_is_here(capsys):
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr().out
    for name, numbers in PUBLISHED.items():
        assert f"{name} " in printed
        columns = ("A-847", "A-150", "PC-459", "PC-59", "PAS-20")
        assert ", ".join(f"{title} {value}" for title, value in zip(columns, numbers, strict=True)) in printed
    assert (
        "387.4 million parameters, 1.55 GB on disk, 1.55 GB of weights; Mask-Adapter and FC-CLIP: Apache-2.0; "
        in printed
    )
    assert "1.67 GB to download" in printed


def test_the_list_as_json_has_numbers(capsys):
    assert cli.main(["models", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert list(records) == ["miniature", *PUBLISHED]
    for name, numbers in PUBLISHED.items():
        assert records[name]["published_mean_iou"] == dict(zip(BENCHMARKS, numbers, strict=True))
        assert not records[name]["is_here"]
        assert records[name]["memory_bytes"] == 4 * records[name]["num_parameters"]
    assert records["miniature"]["published_mean_iou"] == {}
    assert records["miniature"]["download_bytes"] == 0
    assert records["miniature"]["is_here"]


def test_what_is_prepared_is_told_and_removed(cache, capsys):
    folder = cache / "maft-base-1"
    folder.mkdir(parents=True)
    (folder / "conversion.json").write_bytes(bytes(2_500_000))
    cli.main(["models", "--json"])
    here = {record["name"]: record["is_here"] for record in json.loads(capsys.readouterr().out)}
    assert here == {"miniature": True, "fcclip-large": False, "maft-base": True, "maft-large": False}
    assert cli.main(["models", "--remove", "maft-base"]) == 0
    assert capsys.readouterr().out == "freed 2.5 MB\n"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--remove", "fcclip"], "There is no released model 'fcclip' to remove; there are fcclip-large, maft-base"),
        (["--fetch", "fcclip"], "There is no model 'fcclip'.*Did you mean fcclip-large"),
        (["--tokenizer", "x"], "--tokenizer belongs to --fetch NAME"),
        (["--fetch", "maft-base", "--remove", "maft-base"], "give either --fetch or --remove"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, capsys):
    try:
        status = cli.main(["models", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "scene.png", "--labels", "sand", "--output", "out.png"],
        ["annotate", "scene.png", "--format", "label-map", "--labels", "sand", "--output", "out"],
        ["evaluate", "--dataset", "scenes", "--max_samples", "1"],
        ["train", "--stage", "warmup", "--dataset", "scenes", "--output_dir", "run", "--max_steps", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_takes_names_and_tells_the_nearest_of_a_wrong_one(
    arguments, tmp_path, monkeypatch, capsys, picture
):
    monkeypatch.chdir(tmp_path)
    picture.save("scene.png")
    assert cli.main([*arguments, "--model", "miniatur"]) == 2
    assert "There is no model 'miniatur'" in capsys.readouterr().err
    taken = []
    monkeypatch.setattr(loading, "prepare_released", lambda model, **_: taken.append(model.name) or tmp_path / "none")
    assert cli.main([*arguments, "--model", "maft-large"]) == 2  # there is no model in that folder
    assert taken == ["maft-large"]


def test_the_documentation_shows_the_table_of_the_same_data():
    assert models_table() in (PROJECT / "docs" / "learn" / "models.md").read_text(encoding="utf-8")
