"""Transformers' universal segmenters behind the evaluation's interface."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hf_maskadapter.evaluation import evaluate_model
from hf_maskadapter.evaluation.predictors import NO_CLASS
from hf_maskadapter.evaluation.universal_predictor import UniversalPredictor, match_labels
from hf_maskadapter.model.vocabulary import Vocabulary
from support.evaluation_helpers import VOCABULARY, SampleList, make_sample, predict

TASKS = ("semantic", "panoptic", "instance")


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
    assert found.panoptic.segment_map().tolist() == [[1, 0], [2, 0]]
    assert found.panoptic.class_ids.tolist() == [1, 2]
    assert found.instance.class_ids.tolist() == [1]  # the sky is no object
    assert found.instance.masks.tolist() == [[[1, 0], [0, 0]]]
    assert len(stub.calls) == 1


def test_a_model_that_must_know_its_task_is_told():
    class TaskSegmenter(Segmenter):
        def forward(self, pixel_values=None, task_inputs=None):
            return self

    stub = TaskSegmenter(RESULTS)
    predict(UniversalPredictor(stub, stub, VOCABULARY, tasks=TASKS), [make_sample(0)])
    assert stub.calls == [["semantic"], ["panoptic"], ["instance"]]
