"""Building the miniature, from CLIP to results, in a few steps of each part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hf_maskadapter.miniature import checkpoint_path, load_miniature
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from lab.miniature.building import BuildSettings, build_miniature, claim_folder
from support import tiny_models
from support.project_scripts import load_script

TINY = BuildSettings(
    clip_steps=2,
    clip_batch_size=8,
    generator_steps=1,
    warmup_steps=1,
    mixed_steps=1,
    generator_batch_size=1,
    adapter_batch_size=1,
    scenes=12,
)


@pytest.mark.slow
def test_the_build_writes_a_checkpoint_with_results_and_a_second_run_changes_nothing(tmp_path):
    build_miniature(tmp_path / "work", tmp_path / "first", TINY)
    build_miniature(tmp_path / "work", tmp_path / "second", TINY, ["export"])
    results = json.loads((tmp_path / "first" / "results.json").read_text())
    assert results["settings"]["clip_steps"] == 2
    assert set(results["ground_truth_masks_accuracy"]["adapter"]) == {"base", "novel", "stuff", "all"}
    first, second = (
        MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path / name).state_dict()
        for name in ("first", "second")
    )
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_a_part_needs_the_ones_before(tmp_path):
    for parts in (["export"], ["generator", "results"]):
        with pytest.raises(ValueError, match=r"clip\.pt holds 0 of 2 steps: build the part 'clip' first"):
            build_miniature(tmp_path / "work", tmp_path / "out", TINY, parts)
    torch.save({"step": 1}, tmp_path / "work" / "clip.pt")
    with pytest.raises(ValueError, match=r"clip\.pt holds 1 of 2 steps"):
        build_miniature(tmp_path / "work", tmp_path / "out", TINY, ["mixed"])
    assert not list((tmp_path / "out").iterdir())


def test_work_of_other_settings_is_not_gone_on_from(tmp_path):
    claim_folder(tmp_path / "work", TINY.of_training)
    claim_folder(tmp_path / "work", replace(TINY, scenes=5, split="test").of_training)
    for changes in ({"seed": 5}, {"withheld": "heart"}, {"generator_steps": 2}):
        with pytest.raises(ValueError, match=rf"other settings \({next(iter(changes))} .*, now"):
            build_miniature(tmp_path / "work", tmp_path / "out", replace(TINY, **changes))
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "clip.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="does not say what it holds"):
        build_miniature(tmp_path / "unknown", tmp_path / "out", TINY)


def test_mistakes_with_the_script_are_one_line_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    script = load_script("build_miniature")
    for options, message in (
        (["--withheld", "hexagon"], "'hexagon' is no value of an attribute"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--clip-steps", "0"], "clip_steps must be at least 1"),
    ):
        arguments = ["--work-dir", str(tmp_path / "work"), "--output-dir", str(tmp_path / "out"), *options]
        monkeypatch.setattr("sys.argv", ["build_miniature.py", *arguments])
        assert script.main() == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind_is_no_miniature(tmp_path):
    tiny_models.segmenter(mask_generator_config=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no miniature"):
        load_miniature(tmp_path)


def test_without_an_embedded_checkpoint_the_message_says_how_to_build_one(monkeypatch, tmp_path):
    monkeypatch.setattr("hf_maskadapter.miniature.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"Build it: python scripts/build_miniature\.py"):
        checkpoint_path()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    assert checkpoint_path() == Path(tmp_path) / "checkpoint"
