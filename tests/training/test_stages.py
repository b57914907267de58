"""The stages: what they update, what they count, and that a batch may be divided in any way."""

import pytest
import torch
from torch.nn import functional as F

from hf_maskadapter import EncodedVocabulary
from hf_maskadapter.data import collate_training_samples
from hf_maskadapter.model.configuration_clips import PIXEL_MEAN, PIXEL_STD
from hf_maskadapter.training.stages import GroundTruthWarmup, MaskGeneratorTraining, MixedMaskTraining
from support import toy

NAMES = ["warmup", "mixed", "generator"]


def batch(items=(1, 2, 3), source=None, **options):
    source = source or toy.Rectangles(min_masks=0)
    samples = [toy.transform(**options)(source.read(item), epoch=0) for item in items]
    return collate_training_samples(samples)


def compute(stage, batches):
    """Losses and gradients of batches with common denominators."""
    prepared = [stage.prepare(part) for part in batches]
    denominators = {name: sum(part.counts[name] for part in prepared) or 1.0 for name in prepared[0].counts}
    stage.zero_grad()
    losses = {}
    for part in prepared:
        output = stage(part.inputs, denominators)
        sum(output["losses"].values()).backward()
        for name, loss in output["losses"].items():
            losses[name] = losses.get(name, 0) + loss.detach()
    return losses, {name: parameter.grad for name, parameter in stage.named_parameters()}


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


class TestAdapterStages:
    @pytest.mark.parametrize("name", ["warmup", "mixed"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_sparse_training_has_the_losses_and_gradients_of_dense_training(self, name, checkpointing):
        dense = compute(toy.stage(name), [batch()])
        stage = toy.stage(name, adapter_implementation="sparse", gradient_checkpointing=checkpointing)
        stage.train()
        sparse = compute(stage, [batch()])
        torch.testing.assert_close(sparse[0], dense[0], rtol=1e-4, atol=1e-3)
        scale = max(gradient.abs().max() for gradient in dense[1].values())
        for parameter, gradient in dense[1].items():
            torch.testing.assert_close(sparse[1][parameter], gradient, rtol=1e-3, atol=1e-5 * scale.item())

    def test_more_masks_than_slots_leave_a_random_choice(self):
        stage = toy.stage("warmup", max_ground_truth_masks=2)
        source = toy.Rectangles(min_masks=6)
        kept = {
            tuple(stage.prepare(batch((3,), source) | {"epoch": [epoch]}).inputs["labels"][0].tolist())
            for epoch in range(20)
        }
        assert all(len(labels) == 2 for labels in kept)
        assert len(kept) > 1

    def test_mask_labels_and_mask_map_are_alike(self):
        stage, given = toy.stage("warmup"), batch()
        by_map = stage.prepare({name: value for name, value in given.items() if name != "mask_labels"})
        assert torch.equal(by_map.inputs["masks"], stage.prepare(given).inputs["masks"])

    def test_empty_masks_are_left_out(self):
        stage, given = toy.stage("warmup"), batch((2,))
        masks, labels = given["mask_labels"][0], given["class_labels"][0]
        given["mask_labels"] = [torch.cat([torch.zeros_like(masks[:1]), masks])]
        given["class_labels"] = [torch.cat([labels[:1], labels])]
        prepared = stage.prepare(given)
        assert prepared.counts["masks"] == len(labels)
        assert prepared.inputs["labels"][0].tolist() == labels.tolist()

    def test_cached_features_take_the_place_of_pictures(self):
        stage, given = toy.stage("mixed"), batch()
        with torch.no_grad():
            feature_maps = stage.segmenter.clip.get_feature_maps(given["pixel_values"])
            masks_logits = stage.segmenter.mask_generator(feature_maps, return_dict=True).masks_queries_logits
        cached = {name: value for name, value in given.items() if name != "pixel_values"}
        cached |= {"dense_features": feature_maps[-1], "masks_queries_logits": masks_logits}
        assert compute(stage, [cached])[0] == compute(stage, [given])[0]
        del cached["masks_queries_logits"]
        with pytest.raises(ValueError, match="masks_queries_logits"):
            stage.prepare(cached)

    def test_void_stays_as_it_is_on_request(self):
        stage = toy.stage("mixed", train_void=False)
        assert "void_embedding" not in dict(stage.named_parameters())
        assert not stage.segmenter.void_embedding.requires_grad

    def test_gradient_checkpointing_changes_nothing(self):
        plain, saving = toy.stage("warmup"), toy.stage("warmup", gradient_checkpointing=True)
        for stage in (plain, saving):
            stage.train()
        expected, found = compute(plain, [batch()]), compute(saving, [batch()])
        torch.testing.assert_close(found, expected)

    def test_a_model_without_an_adapter_is_an_error(self):
        with pytest.raises(ValueError, match="no adapter"):
            toy.stage("warmup", toy.segmenter(use_adapter=False))


class TestMixedMasks:
    def test_pairs_are_predictions_with_their_ground_truth(self):
        stage = toy.stage("mixed")
        inputs = stage.prepare(batch((3, 2, 7))).inputs
        assert len(inputs["pairs"]) == inputs["num_matches"] > 0
        for picture, predicted, target in inputs["pairs"].tolist():
            labels, masks = inputs["labels"][picture], inputs["masks"][picture]
            assert labels[predicted] == labels[target] >= 0
            assert predicted >= stage.max_ground_truth_masks or predicted >= 1
            assert not torch.equal(masks[predicted], masks[target])

    def test_absent_pairs_count_on_request_only(self):
        given = batch((3, 0))
        left_out, counted = (toy.stage("mixed", count_empty_pairs=flag).prepare(given) for flag in (False, True))
        assert left_out.counts["pairs"] == left_out.inputs["num_matches"] < counted.counts["pairs"] == 2 * 2
        assert counted.counts["masks"] == left_out.counts["masks"]
        assert counted.inputs["num_matches"] == left_out.inputs["num_matches"]

    def test_an_absent_prediction_is_a_full_mask_below_a_threshold_of_one_half(self):
        for threshold, expected in ((0.5, 0.0), (0.45, 1.0)):
            stage = toy.stage("mixed", toy.segmenter(mask_threshold=threshold), count_empty_pairs=True)
            inputs = stage.prepare(batch((0,))).inputs
            picture, predicted, target = inputs["pairs"][0].tolist()
            assert inputs["masks"][picture, predicted].unique().tolist() == [expected]
            assert inputs["masks"][picture, target].unique().tolist() == [0.0]

    def test_without_weight_there_is_no_consistency_loss(self):
        assert "loss_consistency" not in compute(toy.stage("mixed", consistency_weight=0.0), [batch()])[0]

    def test_not_detached_targets_change_gradients_but_not_losses(self):
        # Gradients of the consistency loss alone.
        detached, attached = (toy.stage("mixed", detach_target=flag, class_weight=0.0) for flag in (True, False))
        expected, found = compute(detached, [batch((3, 7))]), compute(attached, [batch((3, 7))])
        torch.testing.assert_close(found[0], expected[0])
        assert not torch.allclose(
            found[1]["adapter.final.weight"], expected[1]["adapter.final.weight"], rtol=1e-2, atol=0
        )

    def test_the_hungarian_matcher_pairs_every_mask_up_to_the_limit(self):
        stage = toy.stage("mixed", matcher="hungarian", iou_threshold=0.99)
        given = batch((3, 2))
        assert stage.prepare(given).inputs["num_matches"] == sum(
            min(2, len(labels)) for labels in given["class_labels"]
        )
        assert toy.stage("mixed", iou_threshold=0.99).prepare(given).inputs["num_matches"] == 0

    def test_mistakes_are_errors(self):
        with pytest.raises(ValueError, match="matcher must be"):
            toy.stage("mixed", matcher="best")
        with pytest.raises(ValueError, match="no mask generator"):
            toy.stage("mixed", toy.segmenter(mask_generator_config=None))


class TestMaskGenerator:
    def test_supervises_every_prediction_of_the_decoder(self):
        stage = toy.stage("generator")
        given = batch((3,))
        losses, _ = compute(stage, [given])
        single = toy.stage("generator", toy.segmenter(mask_generator_config=toy.generator_config(decoder_layers=2)))
        assert losses["loss_mask"] > 1.5 * compute(single, [given])[0]["loss_mask"]

    def test_cached_feature_maps_take_the_place_of_pictures(self):
        stage, given = toy.stage("generator"), batch()
        with torch.no_grad():
            feature_maps = stage.segmenter.clip.get_feature_maps(given["pixel_values"])
        cached = {name: value for name, value in given.items() if name != "pixel_values"} | {
            "feature_maps": feature_maps
        }
        assert compute(stage, [cached])[0] == compute(stage, [given])[0]

    def test_learns(self):
        stage, given = toy.stage("generator"), batch((3, 7))
        optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-2)
        totals = []
        for _ in range(40):
            losses, _ = compute(stage, [given])
            torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
            optimizer.step()
            totals.append(sum(losses.values()).item())
        assert totals[-1] < 0.7 * totals[0]

    def test_a_model_without_a_generator_is_an_error(self):
        with pytest.raises(ValueError, match="no mask generator"):
            toy.stage("generator", toy.segmenter(mask_generator_config=None))


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


def test_stages_are_known_by_name():
    from hf_maskadapter.training.stages import STAGES

    assert {name: STAGES[name] for name in NAMES} == dict(
        zip(NAMES, (GroundTruthWarmup, MixedMaskTraining, MaskGeneratorTraining), strict=True)
    )
