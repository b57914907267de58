"""Ground-truth warm-up and mixed masks: what they select, pair and count."""

import pytest
import torch

from support import toy
from support.stage_batches import batch, compute


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
