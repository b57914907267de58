"""Loading the embedded miniature, and what is said where that cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_maskadapter.miniature import checkpoint_path, load_miniature
from support import tiny_models


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
