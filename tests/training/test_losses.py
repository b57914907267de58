"""The matchers and losses: against brute force, Transformers' Mask2Former, and the published implementation's files."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers.models.mask2former import modeling_mask2former as mask2former

from hf_maskadapter.training.losses import (
    draw_uncertain_points,
    mask_classification_loss,
    mask_consistency_loss,
    mask_generator_losses,
    match_by_assignment,
    match_by_iou,
    pairwise_mask_iou,
    pairwise_point_costs,
    query_weight_sum,
    sample_points,
)
from hf_maskadapter.training.options import MaskLossOptions

FIXTURES = Path(os.environ.get("MASKADAPTER_FIXTURES", Path(__file__).parents[1] / "fixtures"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mask_logits(masks):
    return (masks.float() - 0.5) * 20


def stripes(num_masks, side=16):
    """Disjoint vertical stripes."""
    columns = torch.arange(side) * num_masks // side
    return (columns == torch.arange(num_masks)[:, None])[:, None].expand(-1, side, -1)


class TestPairwiseMaskIou:
    @given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 4))
    @settings(max_examples=30)
    def test_equals_counting_pixels_pair_by_pair(self, seed, num_masks, num_others):
        masks = torch.rand(num_masks, 5, 7, generator=seeded(seed)) > 0.5
        others = torch.rand(num_others, 5, 7, generator=seeded(seed + 1)) > 0.5
        iou = pairwise_mask_iou(masks, others)
        assert iou.shape == (num_masks, num_others)
        for i, mask in enumerate(masks):
            for j, other in enumerate(others):
                union = (mask | other).sum().item()
                assert iou[i, j].item() == pytest.approx((mask & other).sum().item() / max(union, 1))

    def test_is_exact_under_autocast(self):
        masks = torch.zeros(2, 100, 100, dtype=torch.bool)
        masks[0, :99], masks[1, :, :99] = True, True
        with torch.autocast("cpu", dtype=torch.bfloat16):
            iou = pairwise_mask_iou(masks, masks)
        assert iou[0, 1].item() == pytest.approx(99 * 99 / (2 * 9900 - 99 * 99), abs=1e-7)


class TestMatchByIou:
    def test_pairs_each_mask_with_its_prediction(self):
        masks = stripes(4)
        order = torch.tensor([2, 0, 3, 1])
        matches = match_by_iou(mask_logits(masks[order]), masks, generator=seeded())
        assert matches.targets.tolist() == [0, 1, 2, 3]
        assert order[matches.queries].tolist() == [0, 1, 2, 3]

    def test_threshold_is_strict(self):
        target = torch.zeros(1, 10, 10, dtype=torch.bool)
        target[0, :, :] = True
        prediction = torch.zeros(1, 10, 10, dtype=torch.bool)
        prediction[0, :7, :] = True
        assert len(match_by_iou(mask_logits(prediction), target, generator=seeded(), iou_threshold=0.7).queries) == 0
        assert len(match_by_iou(mask_logits(prediction), target, generator=seeded(), iou_threshold=0.69).queries) == 1

    def test_binarizes_predictions_from_the_threshold_on(self):
        target = torch.ones(1, 4, 4, dtype=torch.bool)
        logits = torch.full((1, 4, 4), 0.4).logit()
        assert len(match_by_iou(logits, target, generator=seeded(), binarize_threshold=0.39).queries) == 1
        assert len(match_by_iou(logits, target, generator=seeded(), binarize_threshold=0.41).queries) == 0
        at_threshold = torch.zeros(1, 4, 4)
        assert len(match_by_iou(at_threshold, target, generator=seeded(), binarize_threshold=0.5).queries) == 1

    def test_draws_every_qualifying_prediction_and_no_other(self):
        masks = stripes(2)
        predictions = torch.cat([masks[:1], masks[:1], masks[1:], masks[:1]])
        drawn = {
            match_by_iou(mask_logits(predictions), masks[:1], generator=seeded(seed)).queries.item()
            for seed in range(50)
        }
        assert drawn == {0, 1, 3}

    def test_keeps_a_random_choice_of_more_matches_than_allowed(self):
        masks = stripes(8)
        kept = [
            match_by_iou(mask_logits(masks), masks, generator=seeded(seed), max_matches=3).targets.tolist()
            for seed in range(40)
        ]
        assert all(len(targets) == 3 and targets == sorted(targets) for targets in kept)
        assert {target for targets in kept for target in targets} == set(range(8))

    def test_depends_on_the_seed_alone(self):
        predictions = mask_logits(torch.cat([stripes(4)] * 3))
        torch.manual_seed(1)
        first = match_by_iou(predictions, stripes(4), generator=seeded(5), max_matches=2)
        torch.manual_seed(2)
        second = match_by_iou(predictions, stripes(4), generator=seeded(5), max_matches=2)
        assert torch.equal(first.queries, second.queries)
        assert torch.equal(first.targets, second.targets)

    @pytest.mark.parametrize("num_masks", [0, 2])
    def test_gives_no_pairs_where_nothing_qualifies(self, num_masks):
        matches = match_by_iou(torch.full((3, 4, 4), -9.0), torch.ones(num_masks, 16, 16), generator=seeded())
        assert matches.queries.shape == matches.targets.shape == (0,)

    def test_reduces_ground_truth_to_the_predictions_resolution(self):
        masks = F.interpolate(stripes(4, 16)[None].float(), scale_factor=4)[0].bool()
        matches = match_by_iou(mask_logits(stripes(4, 16)), masks, generator=seeded())
        assert matches.queries.tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize(("folder", "binarize_threshold"), [("fcclip_large", 0.4), ("maftp_base", 0.5)])
    def test_reproduces_the_published_matches(self, folder, binarize_threshold):
        golden = Golden(folder)
        for image in range(2):
            masks = golden.mask_labels(image)
            matches = match_by_iou(
                golden.outputs["train.pred_masks"][image],
                masks,
                generator=seeded(),
                binarize_threshold=binarize_threshold,
            )
            expected = [query for query in golden.meta["train"]["matched_queries"][image] if query >= 0]
            assert matches.queries.tolist() == expected
            classes = golden.inputs[f"train.img{image}.gt_classes"][matches.targets]
            assert classes.tolist() == golden.outputs["train.matched_labels"][image][: len(expected)].tolist()


class TestMatchByAssignment:
    def test_finds_the_cheapest_assignment(self):
        masks = stripes(3)
        order = torch.tensor([1, 2, 0])
        class_logits = torch.zeros(5, 4)
        logits = torch.cat([torch.full((2, 16, 16), -5.0), mask_logits(masks[order])])
        matches = match_by_assignment(
            logits, class_logits, masks, torch.tensor([0, 1, 2]), generator=seeded(), num_points=64
        )
        assert matches.targets.tolist() == [0, 1, 2]
        assert (order[matches.queries - 2]).tolist() == [0, 1, 2]

    def test_classes_decide_between_equal_masks(self):
        masks = stripes(1).expand(2, -1, -1)
        class_logits = torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0]])
        matches = match_by_assignment(
            mask_logits(masks), class_logits, masks, torch.tensor([0, 1]), generator=seeded(), num_points=16
        )
        assert matches.queries.tolist() == [1, 0]

    def test_more_masks_than_queries_leaves_masks_over(self):
        matches = match_by_assignment(
            mask_logits(stripes(4))[:2],
            torch.zeros(2, 5),
            stripes(4),
            torch.arange(4),
            generator=seeded(),
            num_points=64,
        )
        assert sorted(matches.queries.tolist()) == [0, 1]
        assert matches.targets.tolist() == [0, 1]

    def test_without_masks_there_are_no_matches(self):
        matches = match_by_assignment(
            torch.zeros(2, 4, 4), torch.zeros(2, 5), torch.zeros(0, 4, 4), torch.zeros(0).long(), generator=seeded()
        )
        assert len(matches.queries) == len(matches.targets) == 0

    def test_survives_logits_that_are_not_finite(self):
        logits = mask_logits(stripes(2))
        logits[0, 0, 0] = float("nan")
        matches = match_by_assignment(
            logits, torch.zeros(2, 3), stripes(2), torch.arange(2), generator=seeded(), num_points=64
        )
        assert sorted(matches.queries.tolist()) == [0, 1]

    def test_costs_equal_those_of_transformers(self):
        logits = torch.randn(5, 30, generator=seeded())
        labels = (torch.rand(3, 30, generator=seeded(1)) > 0.5).float()
        cross_entropy, dice = pairwise_point_costs(logits, labels)
        torch.testing.assert_close(cross_entropy, mask2former.pair_wise_sigmoid_cross_entropy_loss(logits, labels))
        torch.testing.assert_close(dice, mask2former.pair_wise_dice_loss(logits, labels))


class TestClassificationAndConsistency:
    def test_slots_without_a_mask_do_not_count(self):
        logits = torch.randn(2, 3, 5, generator=seeded())
        labels = torch.tensor([[1, 4, -1], [2, -1, -1]])
        expected = F.cross_entropy(logits[[0, 0, 1], [0, 1, 0]], torch.tensor([1, 4, 2]))
        torch.testing.assert_close(mask_classification_loss(logits, labels, 3), expected)

    def test_parts_with_a_common_denominator_add_up_to_the_whole(self):
        logits = torch.randn(4, 3, 5, generator=seeded())
        labels = torch.tensor([[1, 4, -1], [2, -1, -1], [0, 1, 2], [-1, -1, -1]])
        whole = mask_classification_loss(logits, labels, 6)
        parts = mask_classification_loss(logits[:3], labels[:3], 6) + mask_classification_loss(
            logits[3:], labels[3:], 6
        )
        torch.testing.assert_close(parts, whole)

    def test_without_masks_they_are_zero_and_have_zero_gradients(self):
        logits = torch.randn(1, 2, 5, requires_grad=True)
        mask_classification_loss(logits, torch.full((1, 2), -1), 1).backward()
        assert logits.grad.abs().max() == 0
        embeddings = torch.randn(0, 4, requires_grad=True)
        loss = mask_consistency_loss(embeddings, torch.randn(0, 4), 1)
        loss.backward()
        assert loss == 0

    def test_consistency_detaches_the_target_side_or_not(self):
        predicted, target = (torch.randn(3, 4, generator=seeded(i)).requires_grad_() for i in range(2))
        mask_consistency_loss(predicted, target, 3).backward()
        assert target.grad is None
        assert predicted.grad.abs().max() > 0
        mask_consistency_loss(predicted, target, 3, detach_target=False).backward()
        assert target.grad.abs().max() > 0

    @pytest.mark.parametrize("folder", ["warmup_large", "fcclip_large", "maftp_base"])
    def test_reproduce_the_published_losses(self, folder):
        golden = Golden(folder)
        labels = golden.outputs["train.labels"].long()
        loss = mask_classification_loss(golden.outputs["train.class_logits"], labels, (labels >= 0).sum())
        torch.testing.assert_close(2.0 * loss, golden.outputs["train.loss_ce"][0], rtol=1e-5, atol=1e-5)
        if folder != "warmup_large":
            predicted, target = (golden.outputs[f"train.cosine_{side}"].flatten(0, 1) for side in ("pred", "gt"))
            loss = mask_consistency_loss(predicted, target, len(predicted))
            torch.testing.assert_close(5.0 * loss, golden.outputs["train.loss_cosine"][0], rtol=1e-4, atol=1e-5)


class TestMaskGeneratorLosses:
    def test_equal_transformers_where_all_points_are_drawn_alike(self, monkeypatch):
        num_points = 32
        fixed = torch.rand(1, num_points, 2, generator=seeded(3))
        torch_rand = torch.rand
        monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: fixed[:, : size[1]].repeat(size[0], 1, 1))
        everywhere = {"oversample_ratio": 1.0, "importance_sample_ratio": 1.0}

        masks_logits = torch.randn(2, 6, 8, 8, generator=seeded(1))
        class_logits = torch.randn(2, 6, 4, generator=seeded(2))
        mask_labels = [stripes(2, 8).float(), stripes(3, 8).float()]
        class_labels = [torch.tensor([0, 2]), torch.tensor([1, 1, 0])]
        config = mask2former.Mask2FormerConfig(
            num_labels=3, train_num_points=num_points, no_object_weight=0.1, **everywhere
        )
        weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
        expected = mask2former.Mask2FormerLoss(config, weights)(masks_logits, class_logits, mask_labels, class_labels)
        losses = mask_generator_losses(
            masks_logits,
            class_logits,
            mask_labels,
            class_labels,
            generators=[seeded(), seeded()],
            mask_denominator=5,
            class_denominator=query_weight_sum(6, [2, 3]),
            options=MaskLossOptions(num_points=num_points, **everywhere),
        )
        monkeypatch.setattr(torch, "rand", torch_rand)
        torch.testing.assert_close(losses["loss_class"], 2 * expected["loss_cross_entropy"])
        torch.testing.assert_close(losses["loss_mask"], 5 * expected["loss_mask"])
        torch.testing.assert_close(losses["loss_dice"], 5 * expected["loss_dice"])

    def test_do_not_depend_on_how_a_batch_is_divided(self):
        masks_logits = torch.randn(3, 6, 8, 8, generator=seeded(1))
        class_logits = torch.randn(3, 6, 4, generator=seeded(2))
        mask_labels = [stripes(2, 8), stripes(3, 8), torch.zeros(0, 8, 8, dtype=torch.bool)]
        class_labels = [torch.tensor([0, 2]), torch.tensor([1, 1, 0]), torch.zeros(0).long()]

        def total(images):
            losses = mask_generator_losses(
                masks_logits[images],
                class_logits[images],
                [mask_labels[i] for i in images],
                [class_labels[i] for i in images],
                generators=[seeded(i) for i in images],
                mask_denominator=5,
                class_denominator=query_weight_sum(6, [2, 3, 0]),
                options=MaskLossOptions(num_points=32),
            )
            return sum(losses.values())

        torch.testing.assert_close(total([0]) + total([1, 2]), total([0, 1, 2]))

    def test_are_small_for_the_right_masks_and_classes_only(self):
        masks, labels = stripes(2, 8), torch.tensor([1, 0])
        right_classes = 20 * F.one_hot(torch.tensor([1, 0, 2])).float()[None]

        def losses(predicted, class_logits):
            return mask_generator_losses(
                mask_logits(torch.cat([predicted, torch.zeros(1, 8, 8)]))[None],
                class_logits,
                [masks],
                [labels],
                generators=[seeded()],
                mask_denominator=2,
                class_denominator=query_weight_sum(3, [2]),
                options=MaskLossOptions(num_points=64, importance_sample_ratio=0.0),
            )

        right = losses(masks, right_classes)
        wrong = losses(masks.transpose(1, 2), right_classes.flip(-1))
        assert right["loss_class"] < 1e-3
        assert all(right[name] < 0.2 * wrong[name] for name in right)

    def test_most_points_are_uncertain_ones(self):
        logits = mask_logits(stripes(2, 32))[:1]
        points = draw_uncertain_points(
            logits, 200, generator=seeded(), oversample_ratio=3, importance_sample_ratio=0.75
        )
        assert points.shape == (1, 200, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        uncertain = sample_points(logits, points).abs() < 9.9
        random = sample_points(logits, torch.rand(1, 2000, 2, generator=seeded(1))).abs() < 9.9
        assert uncertain.float().mean() > 2 * random.float().mean()


class Golden:
    """The training part of a golden folder."""

    def __init__(self, folder):
        path = FIXTURES / folder
        if not path.is_dir():
            pytest.skip(f"MASKADAPTER_FIXTURES does not name a folder with {folder}")
        self.inputs = load_file(path / "inputs.safetensors")
        self.outputs = load_file(path / "outputs.safetensors")
        if "train.loss_ce" not in self.outputs:
            pytest.skip(f"MASKADAPTER_FIXTURES does not name a folder with the training part of {folder}")
        self.meta = json.loads((path / "meta.json").read_text())

    def mask_labels(self, image):
        """Ground-truth masks of a picture, padded to the batch's size."""
        sizes = self.meta["train"]["images"]
        height, width = (-(-max(size[axis] for size in sizes) // 32) * 32 for axis in range(2))
        masks = self.inputs[f"train.img{image}.gt_masks"].bool()
        return F.pad(masks, (0, width - masks.shape[2], 0, height - masks.shape[1]))
