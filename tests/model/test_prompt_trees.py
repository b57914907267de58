"""Prompts that begin alike, encoded as trees: each gets what it would get alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskadapter.model.modeling_text_classifier import pad_tokens
from hf_maskadapter.model.prompt_trees import plant
from support import tiny_models
from support.tiny_models import END, START

TOKENIZER = tiny_models.CharacterTokenizer()
NAMES = ["cat", "cat, kitten", "car", "caravan", "traffic light", "traffic sign", "sky"]


@pytest.fixture(scope="module")
def model():
    return tiny_models.segmenter()


def alone(model, prompts):
    with torch.no_grad():
        return torch.cat([model.clip.get_text_features(torch.tensor([prompt])) for prompt in prompts])


def test_a_tree_holds_shared_beginnings_once_and_each_token_sees_its_own_prompt_alone():
    trees = plant([[1, 2, 3], [1, 2, 4, 5], [6]], length=10)
    assert trees.input_ids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert trees.position_ids.tolist() == [[0, 1, 2, 2, 3, 0]]
    assert trees.ends.tolist() == [[0, 2], [0, 4], [0, 5]]
    assert trees.ancestors[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_a_prompt_that_does_not_fit_begins_the_next_row_with_all_of_itself():
    trees = plant([[1, 2, 3], [1, 2, 4], [1, 5, 6]], length=4)
    assert trees.input_ids.tolist() == [[1, 2, 3, 4], [1, 5, 6, 0]]
    assert trees.ends.tolist() == [[0, 2], [0, 3], [1, 2]]
    assert trees.ancestors[1].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


@given(
    st.lists(st.lists(st.integers(1, START - 1), min_size=0, max_size=9), min_size=1, max_size=12),
    st.integers(1, 5),
    st.sampled_from(["sdpa", "eager"]),
)
@settings(max_examples=30)
def test_embeddings_are_those_of_the_prompts_alone(model, texts, batch_size, attention):
    prompts = [[START, *text, END] for text in texts] * 2
    encoder = model.clip.tree_encoder
    tower = model.clip.text_model.text_model
    before = tower.config._attn_implementation
    tower.config._attn_implementation = attention
    try:
        batches = [plant(sorted(prompts), 77)]
        with torch.no_grad():
            (found,) = encoder._embed(batches)
            expected = alone(model, sorted(prompts))
            whole = encoder.encode(prompts, batch_size)
    finally:
        tower.config._attn_implementation = before
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if whole is not None:
        torch.testing.assert_close(whole, alone(model, prompts), rtol=1e-4, atol=1e-5)


def test_a_vocabulary_is_encoded_as_trees_with_the_same_result_and_few_tokens(model, monkeypatch):
    tokens = []
    tower = model.clip.text_model.text_model
    forward = type(tower).forward

    def counting(self, input_ids, **kwargs):
        tokens.append(input_ids.numel())
        return forward(self, input_ids, **kwargs)

    monkeypatch.setattr(type(tower), "forward", counting)
    as_trees = model.encode_vocabulary(NAMES, TOKENIZER)
    of_trees, tokens[:] = sum(tokens), []
    monkeypatch.setattr(type(model.clip), "tree_encoder", None)
    padded = model.encode_vocabulary(NAMES, TOKENIZER)
    torch.testing.assert_close(as_trees.text_embeds, padded.text_embeds, rtol=1e-4, atol=1e-6)
    assert of_trees < 0.7 * sum(tokens)


@pytest.mark.parametrize("end_token", [2, END, START - 1])
def test_the_end_is_where_transformers_finds_it(model, monkeypatch, end_token):
    """An end token of 2 stands for the largest token; one that a prompt lacks for its first token."""
    for tower in (model.clip.text_model.text_model,):
        monkeypatch.setattr(tower, "eos_token_id", end_token)
        monkeypatch.setattr(tower.config, "eos_token_id", end_token)
    prompts = [[START, 5, 9, END], [START, 5, END, 7, END], [START, 5, 9, 8, END]]
    with torch.no_grad():
        expected = model.clip.get_text_features(pad_tokens(prompts))
        encoder = model.clip.tree_encoder
        read = [prompt[: encoder.end(prompt) + 1] for prompt in prompts]
        order = sorted(range(3), key=read.__getitem__)
        (found,) = encoder._embed([plant([read[number] for number in order], 77)])
    torch.testing.assert_close(found, expected[order], rtol=1e-4, atol=1e-5)


def test_prompts_that_share_little_are_not_made_trees(model):
    assert model.clip.tree_encoder.encode([[START, 1, 2, END], [START, 3, 4, END]], 8) is None


def test_a_tower_whose_attention_takes_no_such_mask_is_left_alone(model, monkeypatch):
    prompts = [[START, 1, 2, 3, 4, END]] * 8
    assert model.clip.tree_encoder.encode(prompts, 8) is not None
    monkeypatch.setattr(model.clip.text_model.text_model.config, "_attn_implementation", "flash_attention_2")
    assert model.clip.tree_encoder.encode(prompts, 8) is None
