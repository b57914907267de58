"""Contrastive pre-training: the loss, resumption, the text tower's start, the miniature's tokenizer and captions."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hf_maskadapter.training.contrastive import (
    ContrastiveArguments,
    ContrastiveBatch,
    ContrastiveTrainer,
    caption_groups,
    contrastive_loss,
    spread_text_embeddings,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import hf_maskadapter
from hf_maskadapter.data.scenes import ATTRIBUTES, CLASS_NAMES, COMBINATIONS
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from lab.miniature.pretraining import (
    Curriculum,
    build_clip_config,
    build_tokenizer,
    caption,
    encode_names,
    tokenize,
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def build_model(tokenizer):
    torch.manual_seed(0)
    model = ConvNextClipModel(build_clip_config(tokenizer))
    spread_text_embeddings(model, [tokenizer.bos_token_id, tokenizer.eos_token_id])
    return model


@given(st.integers(2, 8), st.integers(0, 1000))
@settings(max_examples=25)
def test_without_repeated_captions_the_loss_is_clips(batch, seed):
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(batch, 6, generator=generator), torch.randn(batch, 6, generator=generator)
    logits = 7.0 * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    own = torch.arange(batch)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, own, torch.tensor(7.0)), expected)


def test_identical_captions_match_each_other():
    image = torch.eye(2)[[0, 0, 1]]
    text = torch.eye(2)[[0, 0, 1]]
    grouped = contrastive_loss(image, text, torch.tensor([0, 0, 1]), torch.tensor(100.0))
    apart = contrastive_loss(image, text, torch.arange(3), torch.tensor(100.0))
    assert grouped.item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    image_of_other = contrastive_loss(image[[0, 2, 1]], text, torch.tensor([0, 0, 1]), torch.tensor(100.0))
    assert image_of_other > 10 * grouped
    assert apart.item() == pytest.approx(grouped.item(), abs=1e-4)


@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_several_captions_share_a_pictures_target_and_compete(captions, batch, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 6, generator=generator)
    groups = torch.randint(kinds, (captions, batch), generator=generator)
    text = torch.randn(captions * kinds, 6, generator=generator)[groups]
    cosines = torch.einsum("id,cjd->icj", F.normalize(image, dim=-1), F.normalize(text, dim=-1))
    log_of_pictures = (5 * cosines).flatten(1).log_softmax(dim=1).view_as(cosines)
    log_of_captions = (5 * cosines).log_softmax(dim=0)
    of_pictures, of_captions = [], []
    for picture in range(batch):
        for own in groups[:, picture]:
            equal = groups == own
            of_pictures.append(-log_of_pictures[picture][equal].mean())
    for position in range(captions):
        for column in range(batch):
            with_it = (groups == groups[position, column]).any(dim=0)
            of_captions.append(-log_of_captions[with_it, position, column].mean())
    expected = (torch.stack(of_pictures).mean() + torch.stack(of_captions).mean()) / 2
    torch.testing.assert_close(contrastive_loss(image, text, groups, torch.tensor(5.0)), expected)


def test_captions_are_compared_up_to_the_end_token():
    groups = caption_groups(torch.tensor([[1, 5, 2, 2], [1, 5, 2, 0], [1, 6, 2, 2], [1, 5, 7, 2]]), eos_token_id=2)
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 3


def test_texts_start_apart(tokenizer):
    embeds = encode_names(build_model(tokenizer).eval(), tokenizer, ["circle", "star", "ring", "heart"], ["{}"])
    cosines = embeds @ embeds.T
    assert cosines[~torch.eye(4, dtype=torch.bool)].max() < 0.7


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


def train(tokenizer, steps, checkpoint=None, until=None):
    model = build_model(tokenizer)
    arguments = ContrastiveArguments(max_steps=steps, warmup_steps=2, checkpoint_steps=2, bf16=False)
    trainer = ContrastiveTrainer(model, Curriculum(tokenizer, 8, steps), arguments, checkpoint)
    if until is not None:
        while trainer.step < until:
            trainer.model.train()
            trainer._train_step()
        trainer._save()
        return trainer
    trainer.train()
    return trainer


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tokenizer, tmp_path):
    whole = train(tokenizer, 6)
    train(tokenizer, 6, tmp_path / "clip.pt", until=4)
    resumed = train(tokenizer, 6, tmp_path / "clip.pt")
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, msg=name)


def test_training_lowers_the_loss_on_a_batch_seen_again(tokenizer):
    model = build_model(tokenizer)
    trainer = ContrastiveTrainer(
        model,
        lambda step, trainer: Curriculum(tokenizer, 16, 100)(0, trainer),
        ContrastiveArguments(max_steps=15, warmup_steps=1, bf16=False),
    )
    trainer.model.train()
    first = trainer._train_step()
    for _ in range(13):
        trainer._train_step()
    assert trainer._train_step() < first - 0.5


def one_step(tokenizer, captions, **options):
    """The loss of a first step on four pictures, and the trained model."""
    input_ids = tokenize(tokenizer, [text for position in captions for text in position])
    input_ids = input_ids.unflatten(0, (len(captions), 4)) if len(captions) > 1 else input_ids
    pixel_values = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    arguments = ContrastiveArguments(max_steps=4, warmup_steps=1, bf16=False, **options)
    batch = ContrastiveBatch(pixel_values, input_ids)
    trainer = ContrastiveTrainer(build_model(tokenizer), lambda *_: batch, arguments)
    trainer.model.train()
    return trainer._train_step(), trainer


def test_the_text_tower_waits_for_its_start_and_then_learns_slower(tokenizer):
    captions = [["star", "ring", "cross", "heart"]]

    def change(part, **options):
        _, trainer = one_step(tokenizer, captions, **options)
        before = build_model(tokenizer).state_dict()
        return max(
            (value - before[name]).abs().max().item()
            for name, value in trainer.model.state_dict().items()
            if name.startswith(part) and value.is_floating_point() and "running" not in name
        )

    assert change("text_model", text_start_step=1) == 0 < change("vision_model", text_start_step=1)
    assert change("text_model", text_learning_rate_scale=0.1) == pytest.approx(0.1 * change("text_model"), rel=0.05)


def test_after_the_first_phase_each_picture_has_a_caption_for_each_attribute(tokenizer):
    class Trainer:
        accuracy, memory = 0.9, {}

    curriculum = Curriculum(tokenizer, 4, 1000)
    first = curriculum(0, Trainer)
    assert first.input_ids.shape[:2] == (2, 4)
    assert not Trainer.memory
    batches = [curriculum(step, Trainer) for step in range(40, 60)]
    assert Trainer.memory == {"end_of_first_phase": 40}
    assert {batch.input_ids.shape[0] for batch in batches} == {5, 2}
    words = [tokenizer.decode(row, skip_special_tokens=True) for row in first.input_ids[:, 0]]
    assert words[0] in ATTRIBUTES["shape"]
    assert words[1] in ATTRIBUTES["texture"]


def test_captions_of_a_batch_are_padded_to_the_longest(tokenizer):
    assert tokenize(tokenizer, ["red", "striped red star"]).shape == (2, 5)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    from support import contrastive_process

    command = [sys.executable, contrastive_process.__file__]
    source = str(Path(hf_maskadapter.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "rendezvous"), str(tmp_path / "model.pt")], env=environment
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    together = torch.load(tmp_path / "model.pt", weights_only=True)
    alone = contrastive_process.build_trainer(0, 1).train().state_dict()
    for name, value in alone.items():
        if name.endswith("k_proj.bias"):
            continue  # attention does not depend on it: its gradient is rounding noise, which Adam makes steps of
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5, msg=name)
