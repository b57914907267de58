"""The package's model behind the evaluation's interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.evaluation import evaluate_model
from hf_maskadapter.evaluation.predictors import NO_CLASS, MaskAdapterPredictor, Method
from support import tiny_models
from support.evaluation_helpers import VOCABULARY, SampleList, items_of, make_sample, predict

TASKS = ("semantic", "panoptic", "instance")


@pytest.fixture(scope="module")
def model_and_processor(tiny_model_dir):
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    return model, MaskAdapterProcessor.from_pretrained(tiny_model_dir)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("adapter", Method("adapter", "adapter")),
        ("crop", Method("crop", "crop")),
        ("pooling", Method("pooling", "pooling")),
        ("pooling-any", Method("pooling-any", "pooling", "any")),
    ],
)
def test_methods_are_read_from_text(text, method):
    assert Method.parse(text) == method


@pytest.mark.parametrize("text", ["pool", "pooling-", "pooling-soft", "crop-area", "", "adapter-hard"])
def test_unknown_methods_are_refused(text):
    with pytest.raises(ValueError, match="use adapter, crop, pooling"):
        Method.parse(text)


def test_predictions_are_those_of_model_and_processor(model_and_processor):
    model, processor = model_and_processor
    predictor = MaskAdapterPredictor(model, processor, VOCABULARY, tasks=TASKS)
    sample = make_sample(0)
    found = predict(predictor, [sample])["adapter"][0]
    with torch.inference_mode():
        outputs = model(
            **processor(images=sample.image, return_tensors="pt"),
            vocabulary=model.encode_vocabulary(VOCABULARY, processor),
        )
    sizes = [sample.size]
    semantic = processor.post_process_semantic_segmentation(outputs, sizes)[0]
    np.testing.assert_array_equal(found.semantic, semantic)
    panoptic = processor.post_process_panoptic_segmentation(
        outputs, overlap_mask_area_threshold=0.1, label_ids_to_fuse=[2, 3], target_sizes=sizes
    )[0]
    np.testing.assert_array_equal(found.panoptic.panoptic_map()["segmentation"], panoptic["segmentation"])
    facts = [(info["label_id"], info["score"]) for info in panoptic["segments_info"]]
    assert [(one.class_id, one.score) for one in found.panoptic] == facts != []
    instance = processor.post_process_instance_segmentation(
        outputs, label_ids_to_keep=[0, 1], target_sizes=sizes, return_binary_maps=True
    )[0]
    np.testing.assert_array_equal([one.mask for one in found.instance.best_first()], instance["segmentation"])
    facts = [(info["label_id"], info["score"]) for info in instance["segments_info"]]
    assert [(one.class_id, one.score) for one in found.instance.best_first()] == facts != []
    resized = MaskAdapterPredictor(model, processor, VOCABULARY, resize_scores=True)
    expected = processor.post_process_semantic_segmentation(outputs, sizes, resize_scores=True)[0]
    np.testing.assert_array_equal(predict(resized, [sample])["adapter"][0].semantic, expected)


def test_features_and_masks_are_computed_once_for_all_methods(model_and_processor, monkeypatch):
    model, processor = model_and_processor
    calls = {"features": 0, "masks": 0}
    get_feature_maps = type(model.clip).get_feature_maps
    generate = type(model.mask_generator).forward

    def count_features(self, pixel_values, *args, **kwargs):
        calls["features"] += pixel_values.shape[-2:] == wanted
        return get_feature_maps(self, pixel_values, *args, **kwargs)

    def count_masks(self, *args, **kwargs):
        calls["masks"] += 1
        return generate(self, *args, **kwargs)

    names = ["adapter", "pooling", "pooling-area", "pooling-any", "crop"]
    predictor = MaskAdapterPredictor(model, processor, VOCABULARY, methods=[Method.parse(name) for name in names])
    samples = [make_sample(0), make_sample(2)]
    wanted = tuple(items_of(predictor, samples)[0].inputs["pixel_values"].shape[-2:])
    monkeypatch.setattr(type(model.clip), "get_feature_maps", count_features)
    monkeypatch.setattr(type(model.mask_generator), "forward", count_masks)
    together = predict(predictor, samples)
    assert calls == {"features": 1, "masks": 1}
    assert list(together) == names
    for name in names:
        alone = MaskAdapterPredictor(model, processor, VOCABULARY, methods=[Method.parse(name)])
        for one, other in zip(predict(alone, samples)[name], together[name], strict=True):
            np.testing.assert_array_equal(one.semantic, other.semantic)


@pytest.mark.parametrize("tasks", [("panoptic",), ("semantic", "panoptic"), ("instance",)])
def test_only_predictions_that_are_all_panoptic_do_without_masks_that_are_void(model_and_processor, tasks, monkeypatch):
    model, processor = model_and_processor
    skips, forward = [], model.forward

    def remember(*args, skip_void_masks=False, **kwargs):
        skips.append(skip_void_masks)
        return forward(*args, skip_void_masks=skip_void_masks, **kwargs)

    monkeypatch.setattr(model, "forward", remember)
    predict(MaskAdapterPredictor(model, processor, VOCABULARY, tasks=tasks), [make_sample(0)])
    assert skips == [tasks == ("panoptic",)]


def test_annotated_masks_keep_their_pixels_and_get_the_most_probable_class(model_and_processor):
    model, processor = model_and_processor
    methods = [Method.parse(name) for name in ("adapter", "pooling", "crop")]
    predictor = MaskAdapterPredictor(model, processor, VOCABULARY, tasks=TASKS, methods=methods, masks="annotation")
    samples = [make_sample(0), make_sample(2), make_sample(4)]
    items = items_of(predictor, samples)
    found = predict(predictor, samples)
    vocabulary = model.encode_vocabulary(VOCABULARY, processor)
    for item in items:
        for method in methods:
            with torch.inference_mode():
                outputs = model(
                    item.inputs["pixel_values"],
                    vocabulary,
                    item.inputs["masks"],
                    item.inputs["pixel_mask"],
                    mask_embedding=method.mask_embedding,
                )
            labels = outputs.class_queries_logits[0, :, :-1].argmax(dim=-1).tolist()
            prediction = found[method.name][item.index]
            assert prediction.segment_labels == labels
            for segment, label in zip(item.sample.segments_info, labels, strict=True):
                assert (prediction.semantic[item.sample.segmentation == segment.id] == label).all()
            assert (prediction.semantic[item.sample.segmentation == 0] == NO_CLASS).all()


def test_pictures_without_annotated_segments_are_evaluated_too(model_and_processor):
    model, processor = model_and_processor
    dataset = SampleList(3)
    for index in (0, 2):
        sample = dataset.samples[index]
        empty = {"segmentation": np.zeros_like(sample.segmentation), "segments_info": ()}
        dataset.samples[index] = type(sample)(**{**vars(sample), **empty})
    for masks in ("annotation", "generator"):
        predictor = MaskAdapterPredictor(model, processor, VOCABULARY, tasks=TASKS, masks=masks)
        result = evaluate_model(predictor, dataset, batch_size=2, num_worst=2, show_progress=False)
        assert result.num_samples == 3
        assert [one["index"] for one in result.worst][-1] == 1


def test_batches_of_one_size_predict_what_single_pictures_do(model_and_processor):
    model, processor = model_and_processor
    dataset = SampleList(6)
    results = [
        evaluate_model(
            MaskAdapterPredictor(model, processor, VOCABULARY, tasks=TASKS),
            dataset,
            batch_size=batch_size,
            show_progress=False,
        ).metrics
        for batch_size in (1, 3)
    ]
    assert results[0] == pytest.approx(results[1], abs=0.01, nan_ok=True)


def test_the_model_is_evaluated_in_eval_mode_and_says_which_classes_it_has_seen(model_and_processor):
    model, processor = model_and_processor
    predictor = MaskAdapterPredictor(model.train(), processor, VOCABULARY)
    assert not model.training
    assert predictor.seen_classes == [False, True, True, False]  # trained on "cat, kitten" and "sky"
    description = predictor.describe()
    assert description["image_processor"]["size"] == {"shortest_edge": 64, "longest_edge": 128}
    assert description["post_processing"]["overlap_threshold"] == 0.1


def test_parts_that_a_model_lacks_are_named(model_and_processor):
    _, processor = model_and_processor
    without_generator = tiny_models.segmenter(mask_generator_config=None)
    with pytest.raises(ValueError, match="no mask generator: evaluate it on annotated masks"):
        MaskAdapterPredictor(without_generator, processor, VOCABULARY)
    without_adapter = tiny_models.segmenter(use_adapter=False)
    with pytest.raises(ValueError, match="no adapter: evaluate it with mask_embedding 'pooling' or 'crop'"):
        MaskAdapterPredictor(without_adapter, processor, VOCABULARY, methods=[Method.parse("adapter")])
