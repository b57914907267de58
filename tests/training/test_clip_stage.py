"""Contrastive pre-training: the loss, the stage in the training loop, the text tower's start."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F

import hf_maskadapter
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.training.clip_stage import (
    ContrastivePretraining,
    caption_groups,
    contrastive_loss,
    spread_text_embeddings,
)
from hf_maskadapter.training.log import StepLog
from hf_maskadapter.training.trainer import Trainer, TrainerSettings
from lab.miniature.pretraining import Curriculum, build_clip_config, build_tokenizer, encode_names, tokenize
from lab.miniature.training import StepBatches
from support import contrastive_process, toy


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


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


def curriculum(tokenizer, stage, batch_size=8, step=None):
    """Batches of drawn pictures; with a step always that step's."""
    draw = Curriculum(tokenizer, batch_size, 100)
    return lambda current: draw(current if step is None else step, stage.memory)


def trainer(output_dir, stage, batch_of_step, steps=6, **settings):
    return contrastive_process.trainer(output_dir, stage, batch_of_step, steps, **settings)


def test_a_run_that_was_cut_off_goes_on_bit_for_bit(tokenizer, tmp_path):
    def run(name, resume=None, until=6):
        stage = ContrastivePretraining(build_model(tokenizer))
        of_run = trainer(tmp_path / name, stage, curriculum(tokenizer, stage), save_steps=2, ema_decay=0.9)
        of_run.settings = type(of_run.settings)(**vars(of_run.settings) | {"max_steps": until})
        of_run.train(resume)
        return stage, of_run.ema.state_dict()

    whole, average = run("whole")
    run("parts", until=4)
    resumed, average_of_resumed = run("parts", "latest")
    assert whole.memory["accuracy"] > 0
    assert resumed.memory == whole.memory
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    for name, value in average.items():
        assert torch.equal(average_of_resumed[name], value), name


def test_training_lowers_the_loss_on_a_batch_seen_again(tokenizer, tmp_path):
    stage = ContrastivePretraining(build_model(tokenizer))
    trainer(tmp_path, stage, curriculum(tokenizer, stage, 16, step=0), 15, warmup_steps=1).train()
    losses = [record["loss"] for record in StepLog(tmp_path / "log.jsonl").read()]
    assert losses[-1] < losses[0] - 0.5


def test_the_log_tells_the_batchs_accuracy_and_the_memory_a_running_mean_of_it(tokenizer, tmp_path):
    stage = ContrastivePretraining(build_model(tokenizer))
    trainer(tmp_path, stage, curriculum(tokenizer, stage), 3).train()
    records = StepLog(tmp_path / "log.jsonl").read()
    mean = 0.0
    for record in records:
        mean += 0.1 * (record["accuracy"] - mean)
    assert stage.memory["accuracy"] == pytest.approx(mean, rel=1e-5)
    assert all(record["logit_scale"] == pytest.approx(40, rel=0.01) for record in records)


def test_the_text_tower_learns_slower_on_request(tokenizer, tmp_path):
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"pixel_values": pictures, "input_ids": tokenize(tokenizer, ["star", "ring", "cross", "heart"])}

    def change(part, **options):
        stage = ContrastivePretraining(build_model(tokenizer), **options)
        before = {name: value.clone() for name, value in stage.named_parameters()}
        trainer(tmp_path / str(len(list(tmp_path.iterdir()))), stage, lambda _: batch, 1, warmup_steps=1).train()
        return max(
            (value - before[name]).abs().max().item()
            for name, value in stage.named_parameters()
            if name.startswith(f"clip.{part}")
        )

    assert change("text_model", text_learning_rate_scale=0.1) == pytest.approx(0.1 * change("text_model"), rel=0.05)
    assert change("vision_model", text_learning_rate_scale=0.1) == pytest.approx(change("vision_model"), rel=0.05)


def test_weight_decay_is_for_matrices_and_kernels_only(tokenizer):
    stage = ContrastivePretraining(build_model(tokenizer))
    spared = stage.no_weight_decay()
    for name, parameter in stage.named_parameters():
        assert (name in spared) == (parameter.ndim < 2 or "embedding" in name), name
    assert sum("token_embedding" in name for name in spared) == 1


def test_a_step_cannot_be_divided_since_its_pictures_are_compared(tokenizer, tmp_path):
    stage = ContrastivePretraining(build_model(tokenizer))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW(stage.parameters())
    settings_of_run = TrainerSettings(tmp_path, max_steps=2, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="'clip' compares the pictures of a step"):
        Trainer(stage, StepBatches(dict), optimizer, lambda _: 1.0, accelerator, settings_of_run)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    source, tests = str(Path(hf_maskadapter.__file__).parents[1]), Path(contrastive_process.__file__).parents[1]
    path = os.pathsep.join((source, str(tests), str(tests.parent)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    program = [contrastive_process.__file__, str(tmp_path / "together")]
    done = subprocess.run([*command, *program], env=environment, timeout=300, check=False)
    assert done.returncode == 0
    contrastive_process.build_trainer(tmp_path / "alone", 0, 1).train()
    alone, together = (
        load_file(tmp_path / name / "checkpoints" / "step-00000003" / "model.safetensors")
        for name in ("alone", "together")
    )
    for name, value in alone.items():
        if name.endswith("k_proj.bias"):
            continue  # attention does not depend on it: its gradient is rounding noise, which Adam makes steps of
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5, msg=name)
