"""The opponent of the speed benchmark computes what the published implementation computed."""

import pytest
import torch

from hf_maskadapter.model.vocabulary import Vocabulary
from lab.benchmarks.dense_opponent import (
    DenseSegmenter,
    dense_encode_vocabulary,
    dense_panoptic_segmentation,
    dense_semantic_segmentation,
)
from support.golden import PIXEL_SHARE, Golden, folders
from support.golden_models import convert_golden

WITH_ADAPTER = [folder for folder in folders("fcclip", "maft") if "pooling" not in str(folder.values[0])]


@pytest.mark.parametrize("folder", WITH_ADAPTER)
def test_the_opponent_meets_the_golden_files(folder):
    golden = Golden(folder)
    model = convert_golden(folder, "eval.").model.eval()
    classes, templates = Vocabulary.parse(golden.meta["test_classes"]), golden.meta["prompt_templates"]
    vocabulary = dense_encode_vocabulary(model, classes, golden.tokenizer(), templates)
    if "eval.text_classifier" in golden.outputs:
        golden.assert_close(torch.cat([vocabulary.text_embeds, model.get_void_embeds()]), "eval.text_classifier")
    images = golden.meta["images"]
    pixel_values = golden.inputs["pixel_values"]
    pixel_mask = torch.zeros(len(images), *pixel_values.shape[-2:], dtype=torch.long)
    for mask, image in zip(pixel_mask, images, strict=True):
        height, width = image["input_hw"]
        mask[:height, :width] = 1
    outputs = DenseSegmenter(model)(pixel_values, vocabulary, pixel_mask)
    golden.assert_close(outputs.masks_queries_logits, "eval.pred_masks")
    golden.assert_close(outputs.in_vocabulary_logits, "eval.pred_logits")
    golden.assert_close(outputs.semantic_activation_maps, "eval.semantic_activation_maps")
    golden.assert_close(outputs.mask_embeddings, "eval.mask_embeddings")
    golden.assert_close(outputs.out_vocabulary_logits, "eval.out_vocab_logits")
    golden.assert_close(outputs.class_queries_logits, "eval.class_logits")

    run, hparams = golden.meta["runs"]["eval."], golden.meta["hparams"]
    target_sizes = [tuple(image["output_hw"]) for image in images]
    things = {index for index, is_thing in enumerate(golden.meta["test_isthing"]) if is_thing}
    label_maps = dense_semantic_segmentation(outputs, target_sizes)
    results = dense_panoptic_segmentation(
        outputs,
        target_sizes,
        hparams["object_mask_threshold"],
        hparams["overlap_threshold"],
        set(range(len(classes))) - things,
    )
    for number, (label_map, result) in enumerate(zip(label_maps, results, strict=True)):
        name = f"eval.img{number}"
        if run["sem_seg_postprocess_before_inference"] and f"{name}.sem_seg" in golden.outputs:
            expected = golden.outputs[f"{name}.sem_seg"].argmax(dim=0)
            assert (label_map != expected).float().mean() <= PIXEL_SHARE
        if run["panoptic_on"]:
            golden.assert_same_segments(result, name)
