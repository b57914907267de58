"""Models behind the evaluation's interface: the package's own and Transformers' universal segmenters."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.evaluation import evaluate_model
from hf_maskadapter.evaluation.predictors import (
    NO_CLASS,
    EvaluationItem,
    MaskAdapterPredictor,
    Method,
    UniversalPredictor,
    match_labels,
)
from hf_maskadapter.model.vocabulary import Vocabulary
from support import tiny_models
from support.evaluation_helpers import VOCABULARY, SampleList, make_sample

TASKS = ("semantic", "panoptic", "instance")


@pytest.fixture(scope="module")
def model_and_processor(tiny_model_dir):
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    return model, MaskAdapterProcessor.from_pretrained(tiny_model_dir)


def items_of(predictor, samples):
    return [EvaluationItem(index, sample, *predictor.prepare(sample)) for index, sample in enumerate(samples)]


def predict(predictor, samples):
    with torch.inference_mode():
        return predictor.predict(items_of(predictor, samples))


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


# --- The package's own model ---


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
    np.testing.assert_array_equal(found.panoptic["segmentation"], panoptic["segmentation"])
    assert found.panoptic["segments_info"] == panoptic["segments_info"] != []
    instance = processor.post_process_instance_segmentation(
        outputs, label_ids_to_keep=[0, 1], target_sizes=sizes, return_binary_maps=True
    )[0]
    np.testing.assert_array_equal(found.instance["segmentation"], instance["segmentation"])
    assert found.instance["segments_info"] == instance["segments_info"] != []
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


# --- Fixed labels ---


def test_labels_are_matched_by_names_and_synonyms():
    vocabulary = Vocabulary.from_list(["dog, puppy", "traffic light", "wall-brick"])
    labels = {0: "Traffic_Light", 1: "wall brick", 2: "spaceship", 3: "hound, puppy"}
    assert match_labels(labels, vocabulary) == [1, 2, NO_CLASS, 0]
    assert match_labels({0: "a", 1: "b", 2: "c"}, vocabulary, "order") == [0, 1, 2]
    with pytest.raises(ValueError, match=r"None of the model's labels \(LABEL_0, .*label_matching='order'"):
        match_labels({0: "LABEL_0"}, vocabulary)
    with pytest.raises(ValueError, match="1 labels, the vocabulary 3 classes"):
        match_labels({0: "LABEL_0"}, vocabulary, "order")


def tiny_swin():
    return {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "image_size": 32}


def mask2former(labels):
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessorPil,
        SwinConfig,
    )

    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**tiny_swin(), out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=5,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return Mask2FormerForUniversalSegmentation(config), Mask2FormerImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 96}, num_labels=len(labels), ignore_index=255
    )


def eomt(labels):
    from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessorPil

    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_blocks=1,
        num_queries=5,
        num_upscale_blocks=1,
        num_register_tokens=0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    size = {"shortest_edge": 32, "longest_edge": 32}
    return EomtForUniversalSegmentation(config), EomtImageProcessorPil(size=size, do_split_image=False, do_pad=True)


@pytest.mark.parametrize("build", [mask2former, eomt], ids=["mask2former", "eomt"])
@pytest.mark.parametrize("labels", [["grass", "sky", "puma", "cat", "dog"], ["cat", "dog", "sky", "grass"]])
def test_a_universal_model_of_transformers_is_evaluated_in_every_task(build, labels):
    model, processor = build(labels)
    predictor = UniversalPredictor(model, processor, VOCABULARY, tasks=TASKS)
    result = evaluate_model(predictor, SampleList(5), batch_size=2, show_progress=False)
    assert list(result.methods) == [model.config.model_type]
    assert {"mean_iou", "pq", "ap"} <= result.metrics.keys()


class Segmenter(torch.nn.Module):
    """Stands for a model with a processor in one: returns what it is told to."""

    def __init__(self, results, labels=("cat", "puma", "sky")):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(model_type="stub", id2label=dict(enumerate(labels)))
        self.results, self.calls = results, []

    def forward(self, pixel_values=None):
        self.calls.append(None)
        return self

    def __call__(self, images=None, return_tensors=None, **kwargs):
        if images is not None:
            return {"pixel_values": torch.zeros(len(images), 3, 2, 2), **kwargs}
        self.calls.append(kwargs.pop("task_inputs", None))
        return self

    def post_process_semantic_segmentation(self, outputs, target_sizes):
        return [self.results["semantic"]]

    def post_process_panoptic_segmentation(self, outputs, target_sizes, stuff_classes=None):
        assert stuff_classes == [2]
        return [self.results["panoptic"]]

    def post_process_instance_segmentation(self, outputs, target_sizes, threshold=0.5, return_binary_maps=False):
        assert threshold == 0.0
        assert return_binary_maps
        return [self.results["instance"]]


def info(number, label, score=0.5):
    return {"id": number, "label_id": label, "was_fused": False, "score": score}


RESULTS = {
    "semantic": torch.tensor([[0, 1], [2, -1]]),
    "panoptic": {
        "segmentation": torch.tensor([[0, 1], [2, -1]]),
        "segments_info": [info(0, 0), info(1, 1), info(2, 2), info(3, 0)],
    },
    "instance": {
        "segmentation": torch.tensor([[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]),
        "segments_info": [info(0, 0, 0.9), info(1, 1, 0.8), info(2, 2, 0.7)],
    },
}


def test_labels_of_a_universal_model_become_classes_and_unknown_ones_are_dropped():
    stub = Segmenter(RESULTS)
    found = predict(UniversalPredictor(stub, stub, VOCABULARY, tasks=TASKS), [make_sample(0)])["stub"][0]
    assert found.semantic.tolist() == [[1, NO_CLASS], [2, NO_CLASS]]
    assert found.panoptic["segmentation"].tolist() == [[1, 0], [3, 0]]
    assert [(one["id"], one["category_id"]) for one in found.panoptic["segments_info"]] == [(1, 1), (3, 2)]
    assert [one["category_id"] for one in found.instance["segments_info"]] == [1]  # the sky is no object
    assert [mask.tolist() for mask in found.instance["segmentation"]] == [[[1, 0], [0, 0]]]
    assert len(stub.calls) == 1


def test_a_model_that_must_know_its_task_is_told():
    class TaskSegmenter(Segmenter):
        def forward(self, pixel_values=None, task_inputs=None):
            return self

    stub = TaskSegmenter(RESULTS)
    predict(UniversalPredictor(stub, stub, VOCABULARY, tasks=TASKS), [make_sample(0)])
    assert stub.calls == [["semantic"], ["panoptic"], ["instance"]]
