"""Building the miniature, from CLIP to results, in a few steps of each part."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from lab.commands import main
from lab.miniature.building import BuildSettings, build_miniature, claim_folder
from support import toy


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


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
        with pytest.raises(ValueError, match=r"work/clip holds 0 of 2 steps: build the part 'clip' first"):
            build_miniature(tmp_path / "work", tmp_path / "out", TINY, parts)
    (tmp_path / "work" / "clip" / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"work/clip holds 1 of 2 steps"):
        build_miniature(tmp_path / "work", tmp_path / "out", TINY, ["mixed"])
    assert not list((tmp_path / "out").iterdir())


def test_work_of_other_settings_is_not_gone_on_from(tmp_path):
    claim_folder(tmp_path / "work", TINY.of_training)
    claim_folder(tmp_path / "work", replace(TINY, scenes=5, split="test").of_training)
    for changes in ({"seed": 5}, {"withheld": "heart"}, {"generator_steps": 2}):
        with pytest.raises(ValueError, match=rf"other settings \({next(iter(changes))} .*, now"):
            build_miniature(tmp_path / "work", tmp_path / "out", replace(TINY, **changes))
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "clip").write_bytes(b"")
    with pytest.raises(ValueError, match="does not say what it holds"):
        build_miniature(tmp_path / "unknown", tmp_path / "out", TINY)


def test_mistakes_with_the_command_are_one_line_before_anything_is_trained(tmp_path, capsys):
    for options, message in (
        (["--withheld", "hexagon"], "'hexagon' is no value of an attribute"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--clip-steps", "0"], "clip_steps must be at least 1"),
    ):
        arguments = ["--work-dir", str(tmp_path / "work"), "--output-dir", str(tmp_path / "out"), *options]
        with pytest.raises(SystemExit, match="2"):
            main(["build-miniature", *arguments])
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("lab build-miniature: error: ")
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
