"""Converted golden checkpoints reproduce the published implementations, from pictures and names to segments."""

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hf_maskadapter.conversion import convert_checkpoint
from hf_maskadapter.model.cpu_mlp import SWITCH
from support.golden import PIXEL_SHARE, Golden, folders
from support.golden_models import checkpoint_file, convert_golden, golden_settings

OPEN_CLIP_ZERO_SHOT_SCALE = 100.0  # fixed in OpenCLIP's zero-shot evaluation
OPEN_CLIP = folders("open_clip")
SEGMENTERS = folders("fcclip", "maft")
WARM_UPS = folders("mask_adapter")


def converted(folder, run=None):
    golden = Golden(folder)
    conversion = convert_golden(folder, run)
    return golden, conversion.model.eval(), conversion.image_processor


def runs_from_pictures(folder):
    """The prefix of each run of the whole model, its flags, and outputs and image processor of our model."""
    for prefix, run in Golden(folder).meta["runs"].items():
        if prefix == "eval_validmask.":
            continue
        golden, model, image_processor = converted(folder, prefix)
        pictures = [golden.inputs[f"image{number}"] for number in range(len(golden.meta["images"]))]
        inputs = image_processor(pictures, do_resize=False, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs, vocabulary=encode(golden, model))
        yield prefix, run, outputs, image_processor


def encode(golden, model):
    return model.encode_vocabulary(
        golden.meta["test_classes"], golden.tokenizer(), templates=golden.meta["prompt_templates"]
    )


def assert_texts(golden, model, vocabulary, prefix):
    if f"{prefix}text_classifier" in golden.outputs:  # stored once for runs that share it
        texts = torch.cat([vocabulary.text_embeds, model.get_void_embeds()])
        golden.assert_close(texts, f"{prefix}text_classifier")
    assert vocabulary.class_ids.bincount().tolist() == golden.meta["test_num_synonyms"]


def assert_embedded(golden, output, prefix):
    if output.semantic_activation_maps is not None:
        golden.assert_close(output.semantic_activation_maps, f"{prefix}semantic_activation_maps")
    golden.assert_close(output.mask_embeddings, f"{prefix}mask_embeddings")
    golden.assert_close(output.out_vocabulary_logits, f"{prefix}out_vocab_logits")
    golden.assert_close(output.class_queries_logits, f"{prefix}class_logits")


@pytest.mark.parametrize("packing", ["0", "onednn", "mkl"])
@pytest.mark.parametrize("folder", OPEN_CLIP)
def test_clip_features_projection_and_texts(folder, packing, monkeypatch):
    monkeypatch.setenv(SWITCH, packing)
    golden = Golden(folder)
    model = convert_golden(folder).model.eval()
    with torch.no_grad():
        for image in range(len(golden.meta["images"])):
            output = model(golden.inputs[f"pixel_values{image}"], golden.inputs["prompt_tokens"].long())
            for stage, feature_map in enumerate(output.feature_maps):
                golden.assert_close(feature_map, f"img{image}.res{stage + 2}")
            golden.assert_close(output.dense_features, f"img{image}.clip_vis_dense")
            golden.assert_close(model.project_dense(output.dense_features), f"img{image}.dense_projected")
            golden.assert_close(output.image_embeds, f"img{image}.image_features")
            cosines = F.normalize(output.image_embeds, dim=-1) @ golden.outputs["text_classifier"].T
            golden.assert_close(OPEN_CLIP_ZERO_SHOT_SCALE * cosines, f"img{image}.zeroshot_logits")
        golden.assert_close(output.text_embeds, "text_features")
        golden.assert_close(model.get_logit_scale().reshape(1), "logit_scale_exp")


@pytest.mark.parametrize("folder", [*OPEN_CLIP, *SEGMENTERS, *WARM_UPS])
def test_pictures_become_the_same_pixel_values(folder):
    golden = Golden(folder)
    image_processor = convert_golden(folder).image_processor
    groups = {f"{prefix}pixel_values": run["images"] for prefix, run in golden.meta.get("runs", {}).items()}
    groups |= {f"pixel_values{number}": [number] for number in range(len(golden.meta["images"]))}
    groups["pixel_values"] = range(len(golden.meta["images"]))
    groups = {name: members for name, members in groups.items() if name in golden.inputs}
    assert groups
    for name, members in groups.items():
        pictures = [Image.fromarray(golden.inputs[f"image{number}"].permute(1, 2, 0).numpy()) for number in members]
        pixel_values = image_processor(pictures, do_resize=False, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixel_values, golden.inputs[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("adapter_implementation", "packing"), [("sparse", "0"), ("dense", "0"), ("sparse", "onednn"), ("sparse", "mkl")]
)
@pytest.mark.parametrize("folder", SEGMENTERS)
def test_generator_adapter_and_scores(folder, adapter_implementation, packing, monkeypatch):
    monkeypatch.setenv(SWITCH, packing)
    golden, model, _ = converted(folder)
    model.config.adapter_implementation = adapter_implementation
    vocabulary = encode(golden, model)
    assert_texts(golden, model, vocabulary, "eval.")
    assert vocabulary.seen_classes.int().tolist() == golden.meta["category_overlapping_mask"]
    with torch.no_grad():
        feature_maps = model.clip.get_feature_maps(golden.inputs["pixel_values"])
        for stage, feature_map in enumerate(feature_maps):
            golden.assert_close(feature_map, f"eval.features.res{stage + 2}")
        output = model(
            golden.inputs["pixel_values"],
            vocabulary,
            output_semantic_activation_maps=True,
            output_auxiliary=True,
        )
        embedded = model.embed_masks(
            feature_maps[-1], output.masks_queries_logits, True, output_semantic_activation_maps=False
        )
    golden.assert_close(output.masks_queries_logits, "eval.pred_masks")
    golden.assert_close(output.in_vocabulary_logits, "eval.pred_logits")
    for number, earlier in enumerate(output.generator_output.auxiliary_outputs):
        golden.assert_close(earlier.in_vocabulary_logits, f"eval.aux.{number}.pred_logits", at_least=1e-2)
    assert_embedded(golden, output, "eval.")
    golden.assert_close(embedded.mask_embeddings, "eval.mask_embeddings")
    if "eval.adapter_masks" in golden.outputs:
        binary = output.masks_queries_logits.sigmoid() > model.config.mask_threshold
        assert torch.equal(binary, golden.outputs["eval.adapter_masks"].bool())


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_projected_features_and_the_texts_of_each_picture(folder):
    golden = Golden(folder)
    for prefix in golden.meta["runs"]:
        _, model, _ = converted(folder, prefix)
        with torch.no_grad():
            projected = model.project_features(model.clip.get_feature_maps(golden.inputs["pixel_values"])[-1])
            adapted, void = model.adapt_texts(encode(golden, model), model.get_void_embeds(), projected)
        if f"{prefix}clip_dense_projected" in golden.outputs:
            golden.assert_close(projected, f"{prefix}clip_dense_projected")
        assert (f"{prefix}text_classifier_cdt" in golden.outputs) == (model.text_transfer is not None)
        if model.text_transfer is not None:
            texts = torch.cat([adapted.text_embeds, void], dim=1)
            golden.assert_close(texts, f"{prefix}text_classifier_cdt")


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_class_scores_of_each_run(folder):
    golden = Golden(folder)
    for prefix, _, outputs, _ in runs_from_pictures(folder):
        found = {"out_vocab_logits": outputs.out_vocabulary_logits, "class_logits": outputs.class_queries_logits}
        for name, logits in found.items():
            if f"{prefix}{name}" in golden.outputs:  # stored once for runs that share it
                golden.assert_close(logits, f"{prefix}{name}")


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_pixel_decoder(folder):
    golden, model, _ = converted(folder)
    with torch.no_grad():
        output = model.mask_generator.pixel_decoder(model.clip.get_feature_maps(golden.inputs["pixel_values"]))
    golden.assert_close(output.mask_features, "eval.pixel_decoder.mask_features")
    for level, features in enumerate(output.multi_scale_features):
        golden.assert_close(features, f"eval.pixel_decoder.multi_scale.{level}")


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_ensemble_on_valid_masks(folder):
    golden, model, _ = converted(folder)
    if "eval_validmask.class_logits" not in golden.outputs:
        pytest.skip("the golden folder has no such run")
    model.config.ensemble_on_valid_masks = True
    with torch.no_grad():
        output = model(golden.inputs["pixel_values"], encode(golden, model))
    golden.assert_close(output.class_queries_logits, "eval_validmask.class_logits")


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_label_maps_segments_and_instances_from_pictures(folder):
    golden = Golden(folder)
    hparams, images = golden.meta["hparams"], golden.meta["images"]
    target_sizes = [image["output_hw"] for image in images]
    things = [index for index, is_thing in enumerate(golden.meta["test_isthing"]) if is_thing]
    stuff = set(range(len(golden.meta["test_isthing"]))) - set(things)
    for prefix, run, outputs, image_processor in runs_from_pictures(folder):
        resize_scores = not run["sem_seg_postprocess_before_inference"]
        label_maps = image_processor.post_process_semantic_segmentation(outputs, target_sizes, resize_scores)
        for number, label_map in enumerate(label_maps):
            name = f"{prefix}img{number}"
            if f"{name}.sem_seg" in golden.outputs:
                expected = golden.outputs[f"{name}.sem_seg"].argmax(dim=0)
                assert (label_map != expected).float().mean() <= PIXEL_SHARE
        if run["panoptic_on"]:
            results = image_processor.post_process_panoptic_segmentation(
                outputs,
                threshold=hparams["object_mask_threshold"],
                overlap_mask_area_threshold=hparams["overlap_threshold"],
                label_ids_to_fuse=stuff,
                target_sizes=target_sizes,
            )
            for number, result in enumerate(results):
                golden.assert_same_segments(result, f"{prefix}img{number}")
        if run["instance_on"]:
            results = image_processor.post_process_instance_segmentation(
                outputs,
                top_k=hparams["test_topk_per_image"],
                label_ids_to_keep=things if run["panoptic_on"] else None,
                target_sizes=target_sizes,
                threshold=-1.0,
                return_binary_maps=True,
            )
            for number, result in enumerate(results):
                golden.assert_same_instances(result, f"{prefix}img{number}")


@pytest.mark.parametrize("folder", SEGMENTERS)
def test_semantic_scores_before_the_arg_max(folder):
    from hf_maskadapter.model.post_processing_maskadapter import semantic_scores

    golden = Golden(folder)
    images = golden.meta["images"]
    for prefix, run, outputs, _ in runs_from_pictures(folder):
        resize_scores = not run["sem_seg_postprocess_before_inference"]
        scores = semantic_scores(outputs, [image["output_hw"] for image in images], resize_scores)
        for number, of_image in enumerate(scores):
            if f"{prefix}img{number}.sem_seg" in golden.outputs:
                golden.assert_close(of_image, f"{prefix}img{number}.sem_seg")


@pytest.mark.parametrize("folder", folders("maft"))
def test_plain_maft_plus_classifies_by_its_pooled_features_and_the_texts_of_the_picture(folder, tmp_path):
    golden = Golden(folder)
    state = torch.load(checkpoint_file(folder), weights_only=True)["model"]
    flat = {key: tensor for key, tensor in state.items() if not key.startswith("mask_adapter.")}
    torch.save(flat, tmp_path / "plain.pth")
    settings = {name: value for name, value in golden_settings(folder).items() if not name.startswith("ensemble_")}
    model = convert_checkpoint(tmp_path / "plain.pth", **settings).model.eval()
    with torch.no_grad():
        output = model(golden.inputs["pixel_values"], encode(golden, model))
        features = golden.outputs["eval.features.clip_vis_dense"]
        masks = F.interpolate(golden.outputs["eval.pred_masks"], features.shape[-2:], mode="bilinear") > 0
        sums = torch.einsum("bchw,bnhw->bnc", features, masks.float())
        pooled = sums / (masks.sum(dim=(-2, -1))[..., None] + 1e-8)
        embeddings = F.normalize(model.clip.project(pooled), dim=-1)
        texts = golden.outputs["eval.text_classifier_cdt"]
        synonyms = (model.clip.get_logit_scale() * embeddings @ texts.transpose(1, 2))[..., :-1]
        logits = [scores.amax(dim=-1) for scores in synonyms.split(golden.meta["test_num_synonyms"], dim=-1)]
        void = golden.outputs["eval.pred_logits"].softmax(dim=-1)[..., -1:]
        expected = torch.cat([torch.stack(logits, dim=-1).softmax(dim=-1) * (1 - void), void], dim=-1).add(1e-8).log()
    torch.testing.assert_close(output.class_queries_logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("adapter_implementation", ["sparse", "dense"])
@pytest.mark.parametrize("folder", WARM_UPS)
def test_warm_up_model_on_ground_truth_masks(folder, adapter_implementation):
    golden, model, image_processor = converted(folder)
    model.config.adapter_implementation = adapter_implementation
    assert model.mask_generator is None
    hparams = golden.meta["hparams"]
    vocabulary = encode(golden, model)
    things = [index for index, is_thing in enumerate(golden.meta["test_isthing"]) if is_thing]
    stuff = set(range(len(golden.meta["test_isthing"]))) - set(things)
    for prefix, run in golden.meta["runs"].items():
        assert_texts(golden, model, vocabulary, prefix)
        (number,) = run["images"]
        image = golden.meta["images"][number]
        masks = golden.outputs[f"{prefix}adapter_masks"].float()
        height, width = image["input_hw"]
        pixel_values = golden.inputs[f"{prefix}pixel_values"]
        pixel_mask = torch.zeros(1, *pixel_values.shape[-2:], dtype=torch.long)
        pixel_mask[:, :height, :width] = 1
        with torch.no_grad():
            output = model(
                pixel_values, vocabulary, masks=masks, pixel_mask=pixel_mask, output_semantic_activation_maps=True
            )
        assert_embedded(golden, output, prefix)
        target_sizes, name = [image["output_hw"]], f"{prefix}img0"
        (label_map,) = image_processor.post_process_semantic_segmentation(output, target_sizes)
        expected = golden.outputs[f"{name}.sem_seg"].argmax(dim=0)
        assert (label_map != expected).float().mean() <= PIXEL_SHARE
        (result,) = image_processor.post_process_panoptic_segmentation(
            output,
            threshold=hparams["object_mask_threshold"],
            overlap_mask_area_threshold=hparams["overlap_threshold"],
            label_ids_to_fuse=stuff,
            target_sizes=target_sizes,
        )
        golden.assert_same_segments(result, name)
        (result,) = image_processor.post_process_instance_segmentation(
            output,
            mask_threshold=hparams["mask_threshold"],
            top_k=hparams["test_topk_per_image"],
            label_ids_to_keep=things,
            target_sizes=target_sizes,
            threshold=-1.0,
            return_binary_maps=True,
            class_score="sigmoid",
        )
        golden.assert_same_instances(result, name)
