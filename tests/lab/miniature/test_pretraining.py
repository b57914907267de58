"""The miniature's tokenizer, its captions and its curriculum."""

from __future__ import annotations

import pytest

from hf_maskadapter.data.scenes import ATTRIBUTES, CLASS_NAMES, COMBINATIONS
from lab.miniature.pretraining import Curriculum, build_tokenizer, caption, tokenize


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_word_of_a_class_name_is_one_token_and_other_text_tokenizes_too(tokenizer):
    assert len(tokenizer) < 3000
    for name in CLASS_NAMES:
        assert len(tokenizer(name).input_ids) == len(name.split()) + 2
    unknown = tokenizer("Ein Zebra läuft 42 Meilen 🙂").input_ids
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in unknown[:-1]
    assert max(unknown) < len(tokenizer)


def test_a_saved_tokenizer_reads_text_the_same(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a photo of a striped red star.", "unheard-of things"):
        assert loaded(text).input_ids == tokenizer(text).input_ids


def test_a_caption_names_the_attributes_asked_for_only():
    thing = COMBINATIONS[0]
    assert caption([thing], ["grass"], "shape") == thing.shape
    assert caption([thing], ["grass"], "texture color") == f"{thing.texture} {thing.color}"
    assert caption([thing], ["grass"], "texture color shape stuff") == f"{thing.name} on grass"
    assert caption([thing], ["grass", "sky"], "stuff") == "grass and sky"


def test_after_the_first_phase_each_picture_has_a_caption_for_each_attribute(tokenizer):
    memory = {"accuracy": 0.9}
    curriculum = Curriculum(tokenizer, 4, 1000)
    first = curriculum(0, memory)
    assert first["input_ids"].shape[:2] == (2, 4)
    assert memory == {"accuracy": 0.9}
    batches = [curriculum(step, memory) for step in range(40, 60)]
    assert memory == {"accuracy": 0.0, "end_of_first_phase": 40}
    assert {batch["input_ids"].shape[0] for batch in batches} == {5, 2}
    words = [tokenizer.decode(row, skip_special_tokens=True) for row in first["input_ids"][:, 0]]
    assert words[0] in ATTRIBUTES["shape"]
    assert words[1] in ATTRIBUTES["texture"]


def test_captions_of_a_batch_are_padded_to_the_longest(tokenizer):
    assert tokenize(tokenizer, ["red", "striped red star"]).shape == (2, 5)
