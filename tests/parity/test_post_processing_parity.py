"""Golden mask and class scores become the golden label maps, segments and instances, without any model."""

from types import SimpleNamespace

import pytest
import torch

from hf_maskadapter.model.post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
    semantic_scores,
)
from support.golden import PIXEL_SHARE, Golden, folders

SEGMENTERS = folders("fcclip", "maft", "mask_adapter")
MAIN_RUN = "eval."


class Run:
    """One inference run of a golden folder: its scores as a model's outputs, and its flags and thresholds."""

    def __init__(self, golden, prefix):
        meta, self.flags, self.prefix = golden.meta, golden.meta["runs"][prefix], prefix
        self.hparams = meta["hparams"]
        images = [meta["images"][number] for number in self.flags["images"]]
        self.target_sizes = [image["output_hw"] for image in images]
        self.is_warm_up = meta["arch"] == "mask_adapter"
        self.things = [index for index, is_thing in enumerate(meta["test_isthing"]) if is_thing]
        self.stuff = [index for index, is_thing in enumerate(meta["test_isthing"]) if not is_thing]
        self.resize_scores = not self.flags["sem_seg_postprocess_before_inference"]

        def stored(tensors, name):  # tensors that runs share are stored with the main one
            return tensors[f"{prefix}{name}" if f"{prefix}{name}" in tensors else f"{MAIN_RUN}{name}"]

        pixel_values = golden.inputs.get(f"{prefix}pixel_values", golden.inputs.get("pixel_values"))
        self.outputs = SimpleNamespace(
            class_queries_logits=stored(golden.outputs, "class_logits"),
            masks_queries_logits=None if self.is_warm_up else stored(golden.outputs, "pred_masks"),
            mask_probabilities=stored(golden.outputs, "adapter_masks") if self.is_warm_up else None,
            image_sizes=torch.tensor([image["input_hw"] for image in images]),
            padded_size=torch.tensor(pixel_values.shape[-2:]),
        )

    def names(self):
        return [f"{self.prefix}img{number}" for number in range(len(self.target_sizes))]


def golden_and_runs(folder):
    golden = Golden(folder)
    return golden, [Run(golden, prefix) for prefix in golden.meta["runs"]]


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_semantic_scores_and_labels(folder):
    golden, runs = golden_and_runs(folder)
    num_compared = 0
    for run in runs:
        scores = semantic_scores(run.outputs, run.target_sizes, run.resize_scores)
        labels = post_process_semantic_segmentation(run.outputs, run.target_sizes, run.resize_scores)
        for name, of_image, label_map in zip(run.names(), scores, labels, strict=True):
            if f"{name}.sem_seg" in golden.outputs:
                golden.assert_close(of_image, f"{name}.sem_seg")
                expected = golden.outputs[f"{name}.sem_seg"].argmax(dim=0)
                assert (label_map != expected).float().mean() <= PIXEL_SHARE, name
                num_compared += 1
    assert num_compared


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_panoptic_segments(folder):
    golden, runs = golden_and_runs(folder)
    for run in runs:
        if not run.flags["panoptic_on"]:
            continue
        results = post_process_panoptic_segmentation(
            run.outputs,
            threshold=run.hparams["object_mask_threshold"],
            overlap_mask_area_threshold=run.hparams["overlap_threshold"],
            label_ids_to_fuse=run.stuff,
            target_sizes=run.target_sizes,
        )
        for name, result, expected in zip(run.names(), results, run.flags["segments_info"], strict=True):
            found = [(s["id"], s["label_id"], not s["was_fused"]) for s in result["segments_info"]]
            assert found == [(s["id"], s["category_id"], s["isthing"]) for s in expected], name
            if f"{name}.panoptic_seg" in golden.outputs:
                golden.assert_same_segments(result, name)


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_instances(folder):
    golden, runs = golden_and_runs(folder)
    for run in runs:
        if not run.flags["instance_on"]:
            continue
        warm_up = {"class_score": "sigmoid", "mask_threshold": run.hparams.get("mask_threshold")}
        results = post_process_instance_segmentation(
            run.outputs,
            threshold=-1.0,  # the published code returns empty masks too, with score 0
            top_k=run.hparams["test_topk_per_image"],
            label_ids_to_keep=run.things if run.flags["panoptic_on"] else None,
            target_sizes=run.target_sizes,
            return_binary_maps=True,
            **(warm_up if run.is_warm_up else {}),
        )
        for name, result in zip(run.names(), results, strict=True):
            if f"{name}.instances.scores" in golden.outputs:
                golden.assert_same_instances(result, name)
