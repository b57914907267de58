"""Validation of a contrastive pre-training: its values worked out with NumPy, its crops, its end by a signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from hf_maskadapter.data import DataError
from hf_maskadapter.data.captions import CaptionedCrop
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.training.clip_stage import ContrastivePretraining, spread_text_embeddings
from hf_maskadapter.training.clip_validation import ContrastiveValidation
from hf_maskadapter.training.interruption import ValidationInterrupted
from lab.miniature.pretraining import build_clip_config, build_tokenizer
from support import toy

CAPTIONS = [("star", "red star"), ("ring",), ("star",), ("heart",), ("cross", "ring"), ("ring",), ("heart", "star")]
PICTURES = [2, 0, 3, 2]
"""Crops of each picture."""


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    """Accelerate keeps precision and accumulation in the process."""
    yield
    toy.reset_accelerate()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def stage(tokenizer):
    torch.manual_seed(0)
    model = ConvNextClipModel(build_clip_config(tokenizer))
    spread_text_embeddings(model, [tokenizer.bos_token_id, tokenizer.eos_token_id])
    return ContrastivePretraining(model).eval()


@pytest.fixture(scope="module")
def pictures():
    """The crops of each picture."""
    generator = torch.Generator().manual_seed(0)
    crops = iter([CaptionedCrop(torch.randn(3, 32, 32, generator=generator), captions) for captions in CAPTIONS])
    return [[next(crops) for _ in range(number)] for number in PICTURES]


def validation(stage, tokenizer, batches, **options):
    accelerator = Accelerator(cpu=True)
    return ContrastiveValidation(stage, batches, tokenizer, accelerator, **{"batch_size": 3} | options)


def numbered(pictures):
    return list(enumerate(pictures))


@torch.no_grad()
def cosines(stage, tokenizer, pictures, texts):
    """Of each crop, encoded alone, with each text, encoded alone; (crops, texts) float64."""

    def directions(embeds):
        rows = np.concatenate([row.numpy().astype(np.float64) for row in embeds])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    crops = [crop for of_picture in pictures for crop in of_picture]
    images = directions([stage.clip.get_image_features(crop.pixel_values[None]) for crop in crops])
    ids = [tokenizer([text], return_tensors="pt")["input_ids"] for text in texts]
    return images @ directions([stage.clip.get_text_features(each) for each in ids]).T


def log_softmax(logits, axis):
    return logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))


def expected_of_batch(of_batch, texts, scale):
    """Loss and accuracy of a batch with a text for each crop, by the definition, one crop at a time."""
    rows, columns = log_softmax(scale * of_batch, 1), log_softmax(scale * of_batch, 0)
    losses, right = [], []
    for own, text in enumerate(texts):
        equal = [index for index, other in enumerate(texts) if other == text]
        losses.append(-(rows[own, equal].mean() + columns[equal, own].mean()) / 2)
        right.append(texts[of_batch[own].argmax()] == text)
    return np.mean(losses), np.mean(right)


@pytest.mark.parametrize("pictures_at_a_time", [1, 4])
def test_the_values_are_those_of_the_definition_in_batches_of_at_least_the_size(
    pictures_at_a_time, stage, tokenizer, pictures
):
    order = numbered(pictures)
    batches = [order[start : start + pictures_at_a_time] for start in range(0, 4, pictures_at_a_time)]
    with torch.no_grad():
        found = validation(stage, tokenizer, batches, templates=["a {}.", "the {}"])()
    texts = [f"a {captions[0]}." for captions in CAPTIONS]
    of_all, scale = cosines(stage, tokenizer, pictures, texts), stage.clip.get_logit_scale().item()
    parts = [expected_of_batch(of_all[part, part], texts[part], scale) for part in (slice(0, 4), slice(4, 7))]
    loss, accuracy = (4 * np.array(parts[0]) + 3 * np.array(parts[1])) / 7
    assert found == {"loss": pytest.approx(loss, rel=1e-4), "accuracy": pytest.approx(accuracy)}


def test_fewer_crops_than_a_batch_are_compared_with_each_other(stage, tokenizer, pictures):
    with torch.no_grad():
        found = validation(stage, tokenizer, [numbered(pictures)], batch_size=64)()
    texts = [captions[0] for captions in CAPTIONS]
    of_all, scale = cosines(stage, tokenizer, pictures, texts), stage.clip.get_logit_scale().item()
    loss, accuracy = expected_of_batch(of_all, texts, scale)
    assert found == {"loss": pytest.approx(loss, rel=1e-4), "accuracy": pytest.approx(accuracy)}


def test_each_position_takes_the_next_caption_and_template(stage, tokenizer, pictures):
    with torch.no_grad():
        found = validation(
            stage, tokenizer, [numbered(pictures)], batch_size=64, positions=2, templates=["a {}.", "the {}"]
        )()
    of_positions = [[f"a {each[0]}." for each in CAPTIONS], [f"the {each[-1]}" for each in CAPTIONS]]
    both = [cosines(stage, tokenizer, pictures, texts) for texts in of_positions]
    scale = stage.clip.get_logit_scale().item()
    rows = log_softmax(scale * np.concatenate(both, axis=1), 1)
    all_texts = of_positions[0] + of_positions[1]
    losses, right = [], []
    for position, texts in enumerate(of_positions):
        columns = log_softmax(scale * both[position], 0)
        for own, text in enumerate(texts):
            equal = [index for index, other in enumerate(texts) if other == text]
            losses.append(-columns[equal, own].mean())
            right.append(texts[both[position][own].argmax()] == text)
            losses.append(-rows[own, [index for index, other in enumerate(all_texts) if other == text]].mean())
    assert found == {"loss": pytest.approx(np.mean(losses), rel=1e-4), "accuracy": pytest.approx(np.mean(right))}


def test_the_places_give_the_order_of_the_crops(stage, tokenizer, pictures):
    order = numbered(pictures)
    with torch.no_grad():
        forward = validation(stage, tokenizer, [order])()
        backward = validation(stage, tokenizer, [[each] for each in reversed(order)])()
    assert backward == {name: pytest.approx(value, rel=1e-5) for name, value in forward.items()}


def test_a_signal_ends_it_before_the_next_batch(stage, tokenizer, pictures):
    read = []

    def batches():
        for number, crops in numbered(pictures):
            read.append(number)
            yield [(number, crops)]

    with pytest.raises(ValidationInterrupted), torch.no_grad():
        validation(stage, tokenizer, batches(), should_stop=lambda: len(read) > 2)()
    assert read == [0, 1, 2]


def test_data_without_a_crop_are_an_error(stage, tokenizer):
    with pytest.raises(DataError, match="lower min_segment_area"):
        validation(stage, tokenizer, [[(0, [])]], nothing="lower min_segment_area")()
