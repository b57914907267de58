"""Vocabulary encoding and open-vocabulary logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_maskadapter import EncodedVocabulary, Vocabulary
from hf_maskadapter.model.modeling_text_classifier import open_vocabulary_logits, tokenize_prompts
from support import tiny_models

TOKENIZER = tiny_models.CharacterTokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny_models.segmenter()


def test_embedding_is_the_normalized_mean_of_normalized_prompt_embeddings(model):
    templates = ["a photo of a {}.", "the {}"]
    encoded = model.encode_vocabulary(["cat, kitten", "dog"], TOKENIZER, templates=templates)
    for row, name in enumerate(["cat", "kitten", "dog"]):
        of_prompts = []
        for template in templates:
            ids = torch.tensor(TOKENIZER([template.format(name)])["input_ids"])
            with torch.no_grad():
                of_prompts.append(F.normalize(model.clip.get_text_features(ids), dim=-1))
        expected = F.normalize(torch.cat(of_prompts).mean(dim=0), dim=-1)
        torch.testing.assert_close(encoded.text_embeds[row], expected, rtol=1e-4, atol=1e-5)
    assert encoded.class_ids.tolist() == [0, 0, 1]
    assert encoded.num_classes == 2


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_does_not_change_the_embeddings(model, batch_size):
    names = ["cat, kitten", "dog", "a very long class name", "sky"]
    expected = model.encode_vocabulary(names, TOKENIZER)
    actual = model.encode_vocabulary(names, TOKENIZER, batch_size=batch_size)
    torch.testing.assert_close(actual.text_embeds, expected.text_embeds, rtol=1e-4, atol=1e-5)


def test_prompts_of_one_length_share_a_batch(model, monkeypatch):
    shapes = []
    encode = model.clip.get_text_features
    monkeypatch.setattr(model.clip, "get_text_features", lambda ids: shapes.append(tuple(ids.shape)) or encode(ids))
    model.encode_vocabulary(["ox", "a very long name", "ax", "another long name"], TOKENIZER, ["{}"], batch_size=2)
    assert shapes == [(2, 4), (2, 19)]


def test_name_shared_by_two_classes_is_encoded_once(model, monkeypatch):
    seen = []
    encode = model.clip.get_text_features
    monkeypatch.setattr(model.clip, "get_text_features", lambda ids: seen.append(len(ids)) or encode(ids))
    encoded = model.encode_vocabulary(["bat, animal", "mouse, animal"], TOKENIZER, templates=["{}"])
    assert sum(seen) == 3
    assert torch.equal(encoded.text_embeds[1], encoded.text_embeds[3])


def test_seen_classes_share_a_name_with_the_training_vocabulary(model):
    encoded = model.encode_vocabulary(["kitten, tiger", "dog", "sky"], TOKENIZER)
    assert encoded.seen_classes.tolist() == [True, False, True]


def test_long_prompt_is_refused_and_named(model):
    with pytest.raises(ValueError, match="at most 77: shorten the class name"):
        model.encode_vocabulary(["cat", "x" * 100], TOKENIZER)


def test_template_without_a_place_for_the_name_is_refused(model):
    with pytest.raises(ValueError, match="prompt template needs one"):
        model.encode_vocabulary(["cat"], TOKENIZER, templates=["a {}", "a photo"])


def test_prompts_of_different_length_are_padded_with_the_end_token():
    ids = tokenize_prompts(TOKENIZER, ["a", "abc"], 77)
    assert ids.tolist() == [[510, 97, 511, 511, 511], [510, 97, 98, 99, 511]]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 2**16))
def test_logits_are_the_maximum_over_synonyms(counts, num_masks, seed):
    generator = torch.Generator().manual_seed(seed)
    class_ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    text = F.normalize(torch.randn(len(class_ids), 8, generator=generator), dim=-1)
    void = F.normalize(torch.randn(1, 8, generator=generator), dim=-1)
    masks = torch.randn(2, num_masks, 8, generator=generator)
    vocabulary = EncodedVocabulary(
        text_embeds=text, class_ids=class_ids, seen_classes=torch.zeros(len(counts), dtype=torch.bool)
    )
    logits = open_vocabulary_logits(masks, vocabulary, void, torch.tensor(10.0))
    cosines = F.cosine_similarity(masks[:, :, None], torch.cat([text, void])[None, None], dim=-1)
    for index in range(len(counts)):
        rows = (class_ids == index).nonzero().flatten()
        torch.testing.assert_close(logits[..., index], 10 * cosines[..., rows].amax(-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[..., -1], 10 * cosines[..., -1], atol=1e-4, rtol=1e-4)
    assert open_vocabulary_logits(masks, vocabulary, None, torch.tensor(10.0)).shape == (2, num_masks, len(counts))


def test_encoded_vocabulary_moves_to_another_dtype(model):
    encoded = model.encode_vocabulary(Vocabulary.from_list(["cat", "dog"]), TOKENIZER).to(torch.bfloat16)
    assert encoded.text_embeds.dtype == torch.bfloat16
    assert encoded.class_ids.dtype == torch.long
    assert encoded.seen_classes.dtype == torch.bool


def test_gradients_do_not_depend_on_what_memory_held_before():
    vocabulary = EncodedVocabulary(
        text_embeds=F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1),
        class_ids=torch.tensor([0, 0, 1, 2, 2, 2]),
        seen_classes=torch.zeros(3, dtype=torch.bool),
    )
    embeddings = torch.randn(1, 64, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gradients = []
    for _ in range(20):  # freed results lie in memory, and are what the next ones are compared with
        logits = open_vocabulary_logits(embeddings, vocabulary, None, torch.tensor(10.0))
        gradients.append(torch.autograd.grad(logits.sum(), embeddings)[0])
        del logits
    best = torch.autograd.grad(
        sum(
            (10 * F.normalize(embeddings, dim=-1) @ vocabulary.text_embeds.T)[..., vocabulary.class_ids == index]
            .amax(-1)
            .sum()
            for index in range(3)
        ),
        embeddings,
    )[0]
    for gradient in gradients:
        torch.testing.assert_close(gradient, best)
