"""Building the miniature, from CLIP to results, in a few steps of each part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hf_maskadapter.miniature import checkpoint_path
from hf_maskadapter.miniature.building import BuildSettings, build_miniature
from hf_maskadapter.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation

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


def test_without_an_embedded_checkpoint_the_message_says_how_to_build_one(monkeypatch, tmp_path):
    monkeypatch.setattr("hf_maskadapter.miniature.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"Build it: python scripts/build_miniature\.py"):
        checkpoint_path()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    assert checkpoint_path() == Path(tmp_path) / "checkpoint"
