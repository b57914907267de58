"""The miniature's stages, trained by the package's loop, against loops written out here in plain PyTorch.

The embedded checkpoint was trained by such loops. The same steps must give the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch.nn import functional as F

from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from hf_maskadapter.training.clip_stage import ContrastivePretraining, spread_text_embeddings
from hf_maskadapter.training.generator_stage import MaskGeneratorTraining
from hf_maskadapter.training.options import MaskLossOptions
from lab.miniature.pretraining import Curriculum, build_clip_config, build_tokenizer
from lab.miniature.segmenter import build_segmenter, build_segmenter_config
from lab.miniature.training import SceneBatches, Schedule, finished_steps, train_stage, trained_weights
from support import toy

STEPS = 3


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def clip(tokenizer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = ConvNextClipModel(build_clip_config(tokenizer))
    spread_text_embeddings(clip, [tokenizer.bos_token_id, tokenizer.eos_token_id])
    clip.logit_scale.requires_grad_(False)
    return clip


def train_clip_plainly(model, batches, text_scale, rate=1e-3, warmup=2):
    """The running accuracy, after training with a loss written out for captions that may be equal."""
    model = model.to(memory_format=torch.channels_last).train()
    text, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.05 if parameter.ndim >= 2 and "embedding" not in name else 0.0
            (text if name.startswith("text_model.") else rest).append({"params": [parameter], "weight_decay": decay})
    optimizer = torch.optim.AdamW([*rest, *text], lr=rate, betas=(0.9, 0.98), fused=True)
    memory = {"accuracy": 0.0}
    for step in range(STEPS):
        course = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))
        now = rate * (step + 1) / warmup if step < warmup else rate * course
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = now if index < len(rest) else text_scale * now
        batch = batches(step, memory)
        pixels = batch["pixel_values"].contiguous(memory_format=torch.channels_last)
        captions = [tuple(row) for row in batch["input_ids"].transpose(0, 1).flatten(0, 1).tolist()]
        distinct = sorted(set(captions))
        groups = torch.tensor([distinct.index(caption) for caption in captions])
        with torch.autocast("cpu", torch.bfloat16):
            images = model.get_image_features(pixels)
            texts = model.get_text_features(torch.tensor(distinct))[groups]
        num_captions = batch["input_ids"].shape[0]
        texts = F.normalize(texts.float(), dim=-1).unflatten(0, (-1, num_captions)).transpose(0, 1).flatten(0, 1)
        groups = groups.unflatten(0, (-1, num_captions)).T
        cosines = F.normalize(images.float(), dim=-1) @ texts.T
        logits = model.get_logit_scale() * F.normalize(images.float(), dim=-1) @ texts.T
        same = (groups[:, :, None] == groups.flatten()).float()
        of_pictures = (same / same.sum(dim=-1, keepdim=True)).mean(dim=0)
        of_captions = (same.amax(dim=0) / same.amax(dim=0).sum(dim=0)).T
        loss = 0.5 * (F.cross_entropy(logits, of_pictures) + F.cross_entropy(logits.T, of_captions))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        of_positions = cosines.detach().unflatten(1, groups.shape).argmax(dim=-1)
        right = (groups[torch.arange(num_captions), of_positions] == groups.T).float().mean().item()
        memory["accuracy"] += 0.1 * (right - memory["accuracy"])
    return memory["accuracy"]


def test_the_clip_gets_the_weights_of_a_plain_loop_bit_for_bit(clip, tokenizer, tmp_path):
    plain, stage = copy.deepcopy(clip), ContrastivePretraining(copy.deepcopy(clip), text_learning_rate_scale=0.15)
    curriculum = Curriculum(tokenizer, 8, STEPS)
    accuracy = train_clip_plainly(plain, curriculum, 0.15)
    schedule = Schedule(STEPS, 1e-3, 2, "cosine_after_warmup", (0.9, 0.98))
    assert train_stage(stage, lambda step: curriculum(step, stage.memory), schedule, tmp_path) == STEPS
    assert stage.memory["accuracy"] == pytest.approx(accuracy, rel=1e-9)
    for name, value in plain.state_dict().items():
        assert torch.equal(stage.clip.state_dict()[name], value), name


def train_plainly(stage, batches, rate, warmup=2):
    optimizer = torch.optim.AdamW(
        [
            {"params": [value for name, value in stage.named_parameters() if name not in stage.no_weight_decay()]},
            {
                "params": [value for name, value in stage.named_parameters() if name in stage.no_weight_decay()],
                "weight_decay": 0.0,
            },
        ],
        lr=rate,
        weight_decay=0.05,
        fused=True,
    )
    stage.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            warm = 1.0 if step >= warmup else (step + 1) / warmup
            group["lr"] = rate * (warm * ((1 + math.cos(math.pi * step / STEPS)) / 2))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                prepared = stage.prepare(batches(step))
            output = stage(prepared.inputs, {name: count or 1.0 for name, count in prepared.counts.items()})
        sum(output["losses"].values()).backward()
        torch.nn.utils.clip_grad_norm_(list(stage.parameters()), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["generator", "warmup", "mixed"])
def test_the_other_stages_get_the_weights_of_a_plain_loop_bit_for_bit(name, clip, tokenizer, tmp_path):
    def stage():
        segmenter = build_segmenter(clip, build_segmenter_config(clip.config), seed=0)
        vocabulary = segmenter.encode_vocabulary(["red star", "blue circle", "grass", *map(str, range(253))], tokenizer)
        if name == "generator":
            return MaskGeneratorTraining(segmenter, vocabulary, MaskLossOptions(num_points=32, num_matching_points=40))
        if name == "warmup":
            return GroundTruthWarmup(segmenter, vocabulary, train_void=False)
        return MixedMaskTraining(segmenter, vocabulary, train_void=False, iou_threshold=0.01)

    plain, trained, batches = stage(), stage(), SceneBatches(1, seed=1)
    before = {parameter: value.clone() for parameter, value in plain.state_dict().items()}
    train_plainly(plain, batches, 2e-3)
    train_stage(trained, batches, Schedule(STEPS, 2e-3, 2), tmp_path)
    for parameter, value in plain.state_dict().items():
        assert torch.equal(trained.state_dict()[parameter], value), parameter
    assert sum(not torch.equal(value, before[parameter]) for parameter, value in plain.state_dict().items()) > 20


def test_a_finished_stage_is_not_trained_again_and_its_weights_are_read(clip, tokenizer, tmp_path):
    curriculum = Curriculum(tokenizer, 4, 2)

    def train():
        stage = ContrastivePretraining(copy.deepcopy(clip))
        left = train_stage(stage, lambda step: curriculum(step, stage.memory), Schedule(2, 1e-3, 1), tmp_path)
        return stage, left

    first, second = train(), train()
    assert (first[1], second[1], finished_steps(tmp_path)) == (2, 0, 2)
    for name, value in first[0].state_dict().items():
        assert torch.equal(second[0].state_dict()[name], value), name
        assert torch.equal(trained_weights(tmp_path)[name], value), name
    state = json.loads((tmp_path / "checkpoints" / "step-00000002" / "trainer_state.json").read_text())
    assert state["memory"] == first[0].memory == second[0].memory
