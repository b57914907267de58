"""Segment Anything as a mask generator: filters, suppression, crops, and a varying number of masks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import SamImageProcessorPil
from transformers.models.sam import image_processing_pil_sam

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, SamMaskGenerator
from hf_maskadapter.model.modeling_mask_generator import MaskGeneratorOutput, stack_masks
from hf_maskadapter.model.modeling_mask_generator_sam import (
    box_ious,
    boxes_of_masks,
    component_areas,
    crop_boxes,
    mask_ious,
    non_maximum_suppression,
    remove_fragments,
    stability_scores,
)
from hf_maskadapter.model.post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
    semantic_scores,
)
from support import tiny_generators, tiny_models

SMALL_MASKS = arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))


def pixels_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def slow_areas(mask):
    """Areas of components by flood filling."""
    areas = np.zeros(mask.shape, dtype=int)
    seen = set()
    for start in zip(*np.nonzero(mask), strict=True):
        if start in seen:
            continue
        component, stack = [], [start]
        seen.add(start)
        while stack:
            row, column = stack.pop()
            component.append((row, column))
            for other in ((row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)):
                inside = 0 <= other[0] < mask.shape[0] and 0 <= other[1] < mask.shape[1]
                if inside and mask[other] and other not in seen:
                    seen.add(other)
                    stack.append(other)
        for place in component:
            areas[place] = len(component)
    return areas


class TestSuppression:
    @settings(max_examples=30)
    @given(st.lists(st.tuples(*[st.integers(0, 8)] * 4, st.integers(0, 5)), max_size=9), st.floats(0, 1))
    def test_keeps_the_best_and_nothing_that_overlaps_a_better_one(self, values, threshold):
        boxes = torch.tensor([[x, y, x + w + 1, y + h + 1] for x, y, w, h, _ in values]).view(-1, 4).float()
        scores = torch.tensor([float(score) for *_, score in values])
        ious = box_ious(boxes)
        kept = non_maximum_suppression(ious, scores, threshold).tolist()
        expected = []
        for index in sorted(range(len(values)), key=lambda index: -values[index][4]):
            if all(ious[index, other] <= threshold for other in expected):
                expected.append(index)
        assert kept == expected

    def test_box_ious(self):
        ious = box_ious(torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [8, 8, 9, 9], [3, 3, 3, 3]]))
        assert ious[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])

    @settings(max_examples=30)
    @given(SMALL_MASKS)
    def test_mask_ious_and_boxes(self, masks):
        tensor = torch.from_numpy(masks)
        ious, boxes = mask_ious(tensor), boxes_of_masks(tensor)
        for index, mask in enumerate(masks):
            for other, other_mask in enumerate(masks):
                union = (mask | other_mask).sum()
                assert ious[index, other].item() == pytest.approx((mask & other_mask).sum() / max(union, 1))
            rows, columns = np.nonzero(mask)
            if len(rows):
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert boxes[index].tolist() == box
            else:
                assert boxes[index, 2] == boxes[index, 0]


class TestFragments:
    @settings(max_examples=60)
    @given(SMALL_MASKS)
    def test_areas_are_those_of_connected_pixels(self, masks):
        found = component_areas(torch.from_numpy(masks)).numpy()
        np.testing.assert_array_equal(found, np.stack([slow_areas(mask) for mask in masks]))

    def test_a_long_winding_component_is_one(self):
        mask = torch.zeros(1, 41, 41, dtype=torch.bool)
        mask[0, ::2] = True
        mask[0, 1::4, -1] = mask[0, 3::4, 0] = True
        assert component_areas(mask).max() == mask.sum()

    def test_islands_and_holes_go_and_what_is_large_stays(self):
        logits = torch.full((1, 20, 20), -3.0)
        logits[0, 2:14, 2:14] = 3.0
        logits[0, 5:7, 5:7] = -2.0  # a hole of 4
        logits[0, 17, 17] = 1.0  # an island of 1
        cleaned = remove_fragments(logits, 5)
        assert (cleaned[0, 2:14, 2:14] > 0).all()
        assert (cleaned > 0).sum() == 144
        assert torch.equal(remove_fragments(logits, 0), logits)

    def test_a_mask_of_fragments_alone_goes(self):
        logits = torch.full((1, 20, 20), -3.0)
        logits[0, ::4, ::4] = 3.0
        assert not (remove_fragments(logits, 2) > 0).any()

    def test_there_may_be_no_mask(self):
        assert remove_fragments(torch.zeros(0, 4, 4), 3).shape == (0, 4, 4)


def test_stability_is_that_of_transformers():
    logits = torch.randn(4, 9, 9) * 3
    found = stability_scores(logits, 1.0)
    expected = image_processing_pil_sam._compute_stability_score(logits[None], 0.0, 1.0)
    torch.testing.assert_close(found, expected.flatten().to(found.dtype))


@pytest.mark.parametrize("size", [(60, 90), (97, 41)])
def test_crops_are_those_of_transformers(size):
    found = crop_boxes(size, 2, 512 / 1500)
    boxes, layers = image_processing_pil_sam._generate_per_layer_crops(2, 512 / 1500, size)
    assert [list(box) for _, box in found] == boxes
    assert [layer for layer, _ in found] == layers


class TestGenerator:
    def test_prepares_a_picture_as_sams_image_processor_does(self, picture):
        side = {"height": 64, "width": 64}
        processor = SamImageProcessorPil(size={"longest_edge": 64}, pad_size=side)
        inputs = processor(images=[picture], return_tensors="pt")
        pixels, scaled = tiny_generators.sam().prepare(pixels_of(picture))
        assert scaled == tuple(inputs["reshaped_input_sizes"][0].tolist())
        assert (pixels - inputs["pixel_values"][0]).abs().max() <= 1.01 / (255 * min(processor.image_std))

    def test_points_are_those_of_sams_image_processor(self, picture):
        generator = tiny_generators.sam(points_per_side=4)
        processor = SamImageProcessorPil()
        pixels = np.asarray(picture).transpose(2, 0, 1)
        _, points, _, _ = processor.generate_crop_boxes(pixels, 64, points_per_crop=4)
        _, scaled = generator.prepare(pixels_of(picture))
        np.testing.assert_allclose(generator._points(0, scaled), points.flatten(0, 2), atol=1e-4)

    def test_result_does_not_depend_on_how_many_points_go_at_a_time(self, picture):
        settings = {"max_masks": 100, "box_nms_threshold": 0.9}
        results = [
            tiny_generators.sam(points_per_batch=number, **settings)([pixels_of(picture)], (64, 96))
            for number in (1, 4, 64)
        ]
        for result in results[1:]:
            torch.testing.assert_close(
                result.masks_queries_logits, results[0].masks_queries_logits, rtol=1e-2, atol=1e-2
            )

    def test_most_masks_at_most(self, picture):
        assert tiny_generators.sam(max_masks=4)([pixels_of(picture)], (64, 96)).masks_queries_logits.shape[1] == 4

    def test_duplicates_go(self, picture):
        everything = tiny_generators.sam(max_masks=100)([pixels_of(picture)], (64, 96)).masks_queries_logits
        fewer = tiny_generators.sam(max_masks=100, mask_nms_threshold=0.8)([pixels_of(picture)], (64, 96))
        ious = mask_ious(fewer.masks_queries_logits[0] > 0)
        assert len(ious) < everything.shape[1]
        assert (ious - torch.eye(len(ious))).max() <= 0.8

    def test_filters_may_leave_nothing(self, picture):
        output = tiny_generators.sam(pred_iou_threshold=1e6)([pixels_of(picture)], (64, 96))
        assert output.masks_queries_logits.shape == (1, 1, 16, 24)
        assert not output.valid_masks.any()

    def test_crops_find_masks_inside_themselves(self, picture):
        generator = tiny_generators.sam(crop_layers=1)
        box = (0, 0, 60, 40)
        masks, scores = generator._masks_of_crop(pixels_of(picture), box, 1, (64, 96))
        assert len(masks) == len(scores)
        assert not (masks[:, 11:] > 0).any()
        assert not (masks[:, :, 16:] > 0).any()
        assert generator([pixels_of(picture)], (64, 96)).valid_masks.any()

    def test_a_predicted_region_comes_back_in_its_place(self, picture, monkeypatch):
        """A model that predicts the lower right quarter of the *picture*, in its own padded square."""
        generator = tiny_generators.sam(points_per_side=1)
        pixels = pixels_of(picture)  # 60 × 90, 43 × 64 in SAM's input of 64 × 64, masks of 64 × 64
        logits = torch.full((1, 1, 1, 64, 64), -4.0)
        logits[..., round(43 / 2) : 43, 32:] = 4.0
        answer = SimpleNamespace(pred_masks=logits, iou_scores=torch.ones(1, 1, 1))
        monkeypatch.setattr(generator.sam, "forward", lambda **kwargs: answer)
        masks = generator([pixels], (64, 96)).masks_queries_logits[0, 0] > 0
        resized = torch.nn.functional.interpolate(masks[None, None].float(), scale_factor=4)[0, 0, :60, :90] > 0
        wanted = torch.zeros(60, 90, dtype=torch.bool)
        wanted[30:, 45:] = True
        assert (resized & wanted).sum() / (resized | wanted).sum() > 0.9

    @pytest.mark.parametrize(
        ("build", "side", "mean"),
        [(tiny_generators.sam2_model, 64, [123.675, 116.28, 103.53]), (tiny_generators.sam3_model, 56, [127.5] * 3)],
    )
    def test_later_models_stretch_pictures_and_need_no_torchvision(self, build, side, mean, picture):
        generator = SamMaskGenerator.from_sam(build(), points_per_side=2, **tiny_generators.NO_FILTERS)
        pixels, scaled = generator.prepare(pixels_of(picture))
        assert (pixels.shape, scaled) == ((3, side, side), (side, side))
        assert list(generator.config.image_mean) == mean
        assert generator([pixels_of(picture)], (64, 96)).valid_masks.any()

    def test_a_checkpoint_for_videos_is_known_by_its_class(self):
        model = tiny_generators.sam2_model()
        model.config.model_type = "sam2_video"  # as Transformers leaves it when it loads such a checkpoint
        assert not SamMaskGenerator.from_sam(model).config.keep_aspect_ratio

    def test_other_models_are_refused(self):
        with pytest.raises(ValueError, match="these can: sam, sam2"):
            SamMaskGenerator.from_sam(tiny_models.clip())

    @pytest.mark.parametrize("setting", ["points_per_side", "max_masks", "points_per_batch"])
    def test_impossible_settings_are_refused(self, setting):
        with pytest.raises(StrictDataclassClassValidationError, match=f"{setting} must be at least 1"):
            tiny_generators.sam(**{setting: 0})


@pytest.fixture(scope="module")
def model():
    return MaskAdapterForOpenVocabularySegmentation.from_parts(
        tiny_models.clip(), tiny_generators.sam(), tiny_models.adapter()
    )


@pytest.fixture(scope="module")
def vocabulary(model):
    return model.encode_vocabulary(["cat", "sky", "grass"], tiny_models.CharacterTokenizer())


def generated(model, *counts):
    """As from a generator that finds so many masks in each picture."""
    torch.manual_seed(0)
    masks, valid = stack_masks([torch.randn(count, 16, 16) for count in counts])
    return MaskGeneratorOutput(masks_queries_logits=masks, valid_masks=valid)


class TestSegmenter:
    def test_an_adapter_from_elsewhere_classifies_its_masks(self, model, vocabulary, picture):
        """What it says of a mask is what it says of the same mask from the caller: it transfers without training."""
        pixel_values = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            outputs = model(pixel_values, vocabulary)
            masks = (outputs.masks_queries_logits.sigmoid() > 0.5).float()
            expected = model(pixel_values, vocabulary, masks=masks)
        torch.testing.assert_close(outputs.out_vocabulary_logits, expected.out_vocabulary_logits)
        torch.testing.assert_close(outputs.class_queries_logits, expected.class_queries_logits)

    def test_filling_changes_nothing_for_the_picture_with_fewer_masks(self, model, vocabulary):
        pixel_values = torch.randn(2, 3, 64, 64)
        both, alone = generated(model, 2, 5), generated(model, 2)
        with torch.no_grad():
            together = model(pixel_values, vocabulary, generator_output=both)
            single = model(pixel_values[:1], vocabulary, generator_output=alone)
        assert together.valid_masks.sum(dim=1).tolist() == [2, 5]
        assert (together.class_queries_logits[0, 2:].argmax(dim=-1) == vocabulary.num_classes).all()
        torch.testing.assert_close(next(semantic_scores(together)), next(semantic_scores(single)))
        for function in (post_process_panoptic_segmentation, post_process_instance_segmentation):
            found, expected = function(together)[0], function(single)[0]
            assert torch.equal(found["segmentation"], expected["segmentation"])
            assert len(found["segments_info"]) == len(expected["segments_info"])

    def test_a_picture_without_masks_gives_empty_results(self, model, vocabulary):
        with torch.no_grad():
            outputs = model(torch.randn(1, 3, 64, 64), vocabulary, generator_output=generated(model, 0))
        assert post_process_panoptic_segmentation(outputs)[0]["segments_info"] == []
        assert post_process_instance_segmentation(outputs)[0]["segments_info"] == []
        assert not post_process_semantic_segmentation(outputs)[0].any()

    def test_background_threshold_turns_doubtful_masks_to_void(self, model, vocabulary, monkeypatch):
        pixel_values, masks = torch.randn(1, 3, 64, 64), generated(model, 5)
        with torch.no_grad():
            plain = model(pixel_values, vocabulary, generator_output=masks).class_queries_logits[0].exp()
            best = plain[:, :-1].amax(dim=-1)
            threshold = best.sort().values[2].item()
            monkeypatch.setattr(model.config, "background_threshold", threshold)
            found = model(pixel_values, vocabulary, generator_output=masks).class_queries_logits[0].exp()
            own = (masks.masks_queries_logits > 0).float()
            of_caller = model(pixel_values, vocabulary, masks=own).class_queries_logits[0].exp()
        assert (plain[:, -1] < 1e-6).all()
        is_void = found[:, -1] > 0.5
        assert is_void.tolist() == (best < threshold - 1e-7).tolist()
        torch.testing.assert_close(found[~is_void], plain[~is_void])
        assert (of_caller[:, -1] < 1e-6).all()

    def test_a_background_threshold_is_a_probability(self):
        with pytest.raises(StrictDataclassClassValidationError, match="background_threshold is a probability"):
            tiny_models.segmenter_config(background_threshold=1.5)
