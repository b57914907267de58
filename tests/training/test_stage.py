"""What all stages on a segmenter have in common, and that each of them learns."""

import pytest
import torch
from torch.nn import functional as F

from hf_maskadapter import EncodedVocabulary
from hf_maskadapter.model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from support import toy
from support.stage_batches import batch, compute

NAMES = ["warmup", "mixed", "generator"]


@pytest.mark.parametrize("name", NAMES)
class TestEveryStage:
    def test_updates_what_it_says_and_every_bit_of_it_gets_a_gradient(self, name):
        stage = toy.stage(name)
        part = {"warmup": "adapter", "mixed": "adapter", "generator": "mask_generator"}[name]
        names = {parameter for parameter, _ in stage.named_parameters()}
        in_segmenter = {parameter for parameter, _ in stage.segmenter.named_parameters() if parameter.startswith(part)}
        assert names == in_segmenter | {"void_embedding"}
        _, gradients = compute(stage, [batch()])
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())

    def test_leaves_the_rest_frozen_and_in_eval_mode(self, name):
        stage = toy.stage(name)
        stage.train()
        updated = {id(parameter) for parameter in stage.parameters()}
        frozen = [value for value in stage.segmenter.parameters() if id(value) not in updated]
        assert not any(parameter.requires_grad for parameter in frozen)
        assert not stage.segmenter.clip.training
        if name != "generator":
            assert not stage.segmenter.mask_generator.training
        compute(stage, [batch()])
        assert all(parameter.grad is None for parameter in frozen)

    def test_does_not_depend_on_how_a_batch_is_divided(self, name):
        stage = toy.stage(name)
        # The first half holds no mask at all: item 4 and item 0 are pictures without rectangles.
        whole = compute(stage, [batch((0, 4, 3, 2))])
        halves = compute(stage, [batch((0, 4)), batch((3, 2))])
        torch.testing.assert_close(halves[0], whole[0], rtol=1e-5, atol=1e-3 if name == "mixed" else 1e-5)
        scale = max(gradient.abs().max() for gradient in whole[1].values())
        for parameter, gradient in whole[1].items():
            torch.testing.assert_close(halves[1][parameter], gradient, rtol=1e-4, atol=1e-5 * scale.item())

    def test_a_batch_without_masks_is_harmless(self, name):
        stage = toy.stage(name)
        losses, gradients = compute(stage, [batch((0, 4))])
        assert all(loss.isfinite() for loss in losses.values())
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        if name != "generator":  # whose queries still learn that there is nothing
            assert all(loss == 0 for loss in losses.values())

    def test_choices_do_not_depend_on_the_batch_but_on_seed_and_epoch(self, name):
        stage = toy.stage(name)
        whole, alone = batch((3, 7)), batch((7,))
        torch.manual_seed(1)
        expected = stage.prepare(whole).inputs
        torch.manual_seed(2)
        found = stage.prepare(alone).inputs
        if name == "generator":
            assert found["seeds"] == expected["seeds"][1:]
            assert toy.stage(name, seed=1).prepare(alone).inputs["seeds"] != found["seeds"]
        else:
            slots = found["labels"].shape[1]
            assert torch.equal(found["labels"][0], expected["labels"][1, :slots])
            torch.testing.assert_close(found["masks"][0], expected["masks"][1, :slots])

    def test_weight_decay_spares_existing_parameters(self, name):
        stage = toy.stage(name)
        names = {parameter for parameter, _ in stage.named_parameters()}
        spared = stage.no_weight_decay()
        assert spared <= names
        if name == "generator":
            assert "mask_generator.transformer_module.queries_features.weight" in spared
            assert "mask_generator.class_head.pooling_norm.weight" in spared
            assert "mask_generator.class_head.pooling_projection.weight" not in spared
        else:
            assert spared == {"adapter.norm.weight", "adapter.norm.bias", "void_embedding"}


class TestOverfitting:
    """The adapter on a CLIP that tells colours apart, on four pictures."""

    @staticmethod
    def color_clip():
        """A fine-grained random CLIP, and "texts" that are its embeddings of plain colours."""
        torch.manual_seed(0)
        model = toy.segmenter(layer_scale_init_value=0.1)
        model.clip.logit_scale.data.fill_(3.5)
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        plain = ((torch.tensor(toy.COLORS) - mean) / std)[:, :, None, None].expand(-1, -1, 64, 64)
        with torch.no_grad():
            embeddings = model.clip.get_image_features(plain)
        num_classes = len(embeddings)
        texts = EncodedVocabulary(
            text_embeds=F.normalize(embeddings - embeddings.mean(dim=0), dim=-1),
            class_ids=torch.arange(num_classes),
            seen_classes=torch.ones(num_classes, dtype=torch.bool),
        )
        return model, texts

    @staticmethod
    def mask_accuracy(model, texts, given):
        """Fraction of ground-truth masks that the model, used as a user does, gives their class."""
        correct = 0
        for pixel_values, masks, labels in zip(
            given["pixel_values"], given["mask_labels"], given["class_labels"], strict=True
        ):
            with torch.no_grad():
                output = model(pixel_values[None], texts, masks=masks[None].float())
            correct += (output.class_queries_logits[0].argmax(dim=-1) == labels).sum().item()
        return correct / sum(map(len, given["class_labels"]))

    @pytest.mark.parametrize("name", ["warmup", "mixed"])
    @pytest.mark.parametrize("is_broken", [False, True], ids=["right", "wrong targets"])
    def test_four_pictures_are_learned_from_right_targets_only(self, name, is_broken):
        model, texts = self.color_clip()
        given = batch(range(4), toy.Rectangles(min_masks=3), scale_range=(1, 1), flip_probability=0)
        shown = dict(given)
        if is_broken:
            shown["class_labels"] = [(labels + 1) % len(toy.NAMES) for labels in given["class_labels"]]
        if name == "warmup":
            stage = GroundTruthWarmup(model, texts)
        else:
            stage = MixedMaskTraining(model, texts)
            shown["masks_queries_logits"] = self.frayed(given["mask_labels"])
            assert stage.prepare(shown).counts["pairs"] > 8
        before = self.mask_accuracy(model, texts, given)
        optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-2)
        for _ in range(60):
            compute(stage, [shown])
            torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
            optimizer.step()
        after = self.mask_accuracy(model, texts, given)
        assert before < 0.5
        assert after < 0.5 if is_broken else after > 0.99

    @staticmethod
    def frayed(mask_labels):
        """Predictions at half the resolution: the ground truth with a column cut off, and void queries."""
        predictions = torch.full((len(mask_labels), 8, 32, 32), -5.0)
        for of_picture, masks in zip(predictions, mask_labels, strict=True):
            of_picture[: len(masks)] += 10 * (masks & masks.roll(2, dims=-1))[:, ::2, ::2]
        return predictions
