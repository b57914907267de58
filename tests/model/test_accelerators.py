"""No double precision on an accelerator, which Apple's refuse: every path of a model runs on a pretended one."""

import numpy as np
import pytest
import torch

from hf_maskadapter import (
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterProcessor,
    UniversalMaskGenerator,
    ZeroShotImageSegmentationPipeline,
)
from hf_maskadapter.data import collate_training_samples
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterSegmentationOutput
from hf_maskadapter.model.post_processing_maskadapter import (
    post_process_instance_segmentation,
    post_process_panoptic_segmentation,
    post_process_semantic_segmentation,
)
from hf_maskadapter.training.clip_stage import contrastive_loss
from support import tiny_generators, tiny_models, toy
from support.pretended_accelerator import (
    AcceleratorError,
    module_to_accelerator,
    pretended_accelerator,
    to_cpu,
)

NAMES = ["cat, kitten", "dog", "sky"]
TOKENIZER = tiny_models.CharacterTokenizer()


def pictures(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_pretended_accelerator_refuses_double_precision_and_mixed_devices():
    with pretended_accelerator() as move:
        here, there = torch.ones(2), move(torch.ones(2))
        assert there.device.type == "mps"
        assert (there + 1).device.type == "mps"
        assert torch.arange(3, device=there.device).device.type == "mps"
        assert here.to(there.device).device.type == here.to(there).device.type == "mps"
        assert there.cpu().device.type == "cpu"
        assert there.cpu().double().sum() == 2
        for mistake in (
            lambda: there.double(),
            lambda: here.double().to(there.device),
            lambda: torch.zeros(2, dtype=torch.float64, device=there.device),
            lambda: there.sum(dtype=torch.float64),
            lambda: there + here,
        ):
            with pytest.raises(AcceleratorError):
                mistake()


@pytest.mark.parametrize("name", tiny_models.TINY_CLIPS)
def test_clips(name):
    clip = tiny_models.TINY_CLIPS[name]()
    inputs = (pictures(2, 3, 64, 64), torch.tensor(TOKENIZER(["ab", "cd"])["input_ids"]))
    with torch.no_grad():
        expected = clip(*inputs)
        with pretended_accelerator() as move:
            found = module_to_accelerator(clip)(*move(inputs))
            assert found.image_embeds.device.type == "mps"
            dense = clip.project_dense(found.dense_features)
    torch.testing.assert_close(to_cpu(found.image_embeds), expected.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(to_cpu(found.text_embeds), expected.text_embeds, rtol=1e-4, atol=1e-5)
    assert dense.device.type == "mps"


def run_segmenter(model, vocabulary, inputs):
    with torch.no_grad():
        return model(**inputs, vocabulary=vocabulary)


def assert_same(found, expected, names):
    for name in names:
        assert found[name].device.type == "mps", name
        torch.testing.assert_close(to_cpu(found[name]), expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("implementation", ["dense", "sparse"])
def test_adapter(implementation):
    adapter = tiny_models.adapter()
    inputs = {
        "projected_features": pictures(2, tiny_models.EMBED_DIM, 6, 5),
        "masks": pictures(2, 9, 24, 20) > 1.5,
        "dense_features": pictures(2, 32, 6, 5, seed=1),
    }
    options = {"adapter_implementation": implementation}
    with torch.no_grad():
        expected = adapter(**inputs, **options)
        with pretended_accelerator() as move:
            there = move(inputs)
            module_to_accelerator(adapter)
            found = adapter(**there, **options)
            alone = adapter(**there, **options, project=lambda pooled: pooled, output_semantic_activation_maps=False)
    assert_same(found, expected, ["semantic_activation_maps", "pooled_features"])
    torch.testing.assert_close(
        to_cpu(alone.mask_embeddings), expected.pooled_features.mean(dim=2), rtol=1e-3, atol=1e-4
    )


SEGMENTERS = {
    "adapter": ({}, {}),
    "sparse adapter": ({"adapter_implementation": "sparse"}, {"output_semantic_activation_maps": True}),
    "pooling": ({}, {"mask_embedding": "pooling"}),
    "pooling by area": ({}, {"mask_embedding": "pooling", "mask_pooling": "area"}),
    "pooling of every cell": ({}, {"mask_embedding": "pooling", "mask_pooling": "any"}),
    "crop": ({}, {"mask_embedding": "crop"}),
    "ensemble on valid masks": ({"ensemble_on_valid_masks": True}, {"skip_void_masks": True}),
    "text transfer": ({"text_transfer": True, "text_transfer_heads": 2}, {"output_auxiliary": True}),
    "panoptic text transfer": (
        {"text_transfer": True, "text_transfer_heads": 2, "text_transfer_panoptic": True},
        {},
    ),
    "mixed positions": ({"mix_projected_positions": True}, {}),
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters(name):
    fields, options = SEGMENTERS[name]
    model = tiny_models.segmenter(**fields)
    mask = torch.ones(2, 64, 96)
    mask[1, 50:] = 0
    inputs = {"pixel_values": pictures(2, 3, 64, 96), "pixel_mask": mask.long()}
    expected = run_segmenter(model, model.encode_vocabulary(NAMES, TOKENIZER), inputs | options)
    with pretended_accelerator() as move:
        module_to_accelerator(model)
        vocabulary = model.encode_vocabulary(NAMES, TOKENIZER)
        found = run_segmenter(model, vocabulary, move(inputs) | options)
    assert_same(found, expected, ["class_queries_logits", "masks_queries_logits", "mask_embeddings"])
    assert to_cpu(found.image_sizes).tolist() == [[64, 96], [50, 96]]


@pytest.mark.parametrize("warmup_scoring", [False, True])
@pytest.mark.parametrize("mask_embedding", ["adapter", "pooling", "crop"])
def test_masks_of_the_caller(mask_embedding, warmup_scoring):
    model = tiny_models.segmenter(mask_generator_config=None, warmup_scoring=warmup_scoring)
    inputs = {"pixel_values": pictures(1, 3, 64, 64), "masks": (pictures(1, 5, 64, 64) > 1).float()}
    options = {"mask_embedding": mask_embedding}
    expected = run_segmenter(model, model.encode_vocabulary(NAMES, TOKENIZER), inputs | options)
    with pretended_accelerator() as move:
        module_to_accelerator(model)
        found = run_segmenter(model, model.encode_vocabulary(NAMES, TOKENIZER), move(inputs) | options)
    assert_same(found, expected, ["class_queries_logits", "mask_embeddings"])


@pytest.mark.parametrize("name", [name for name in tiny_generators.TINY_GENERATORS if name != "fcclip"])
def test_generators_that_look_at_pictures(name):
    generator = tiny_generators.TINY_GENERATORS[name]()
    seen = [torch.rand(3, 48, 64) * 255, torch.rand(3, 64, 40) * 255]
    expected = generator(seen, (64, 64))
    with pretended_accelerator() as move:
        found = module_to_accelerator(generator)(move(seen), (64, 64))
    assert_same(found, expected, [name for name in expected if name != "valid_masks"])
    if expected.valid_masks is not None:
        assert torch.equal(to_cpu(found.valid_masks), expected.valid_masks)


def test_double_precision_weights_of_a_saved_segmenter_are_loaded_in_single_precision(tmp_path):
    generator = tiny_generators.oneformer()
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.float32}
    scale = generator.segmenter.criterion.logit_scale
    scale.data = scale.data.double()  # as Transformers makes it
    generator.save_pretrained(tmp_path)
    loaded = UniversalMaskGenerator.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("are_logits", [True, False])
@pytest.mark.parametrize("searched", [False, True])
def test_post_processing(searched, are_logits, monkeypatch):
    # Labels are searched for on the CPU alone; of an accelerator's tensors, all scores are computed.
    products = 0 if searched else 2**60
    monkeypatch.setattr("hf_maskadapter.model.post_processing_maskadapter._SEARCH_FROM_PRODUCTS", products)
    fields = {
        "class_queries_logits": pictures(2, 7, 5).log_softmax(dim=-1),
        "image_sizes": torch.tensor([[64, 96], [50, 80]]),
        "padded_size": torch.tensor([64, 96]),
    }
    masks = pictures(2, 7, 16, 24) * 4
    fields |= {"masks_queries_logits": masks} if are_logits else {"mask_probabilities": masks.sigmoid()}
    sizes = [(90, 131), (33, 41)]
    functions = (
        lambda outputs: post_process_semantic_segmentation(outputs, target_sizes=sizes),
        lambda outputs: post_process_semantic_segmentation(outputs, target_sizes=sizes, resize_scores=True),
        lambda outputs: [
            result["segmentation"] for result in post_process_panoptic_segmentation(outputs, target_sizes=sizes)
        ],
        lambda outputs: [
            result["segmentation"] for result in post_process_instance_segmentation(outputs, target_sizes=sizes)
        ],
        lambda outputs: post_process_semantic_segmentation(outputs),
    )
    outputs = MaskAdapterSegmentationOutput(**fields)
    expected = [function(outputs) for function in functions]
    with pretended_accelerator() as move:
        there = MaskAdapterSegmentationOutput(**move(fields))
        found = [function(there) for function in functions]
    for maps, expected_maps in zip(found, expected, strict=True):
        for one, expected_one in zip(maps, expected_maps, strict=True):
            assert (to_cpu(one).cpu() == expected_one).float().mean() > 0.999


def test_masks_from_anywhere_regions_by_words_and_the_pipeline(tiny_model_dir, picture):
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir).eval()
    processor = MaskAdapterProcessor.from_pretrained(tiny_model_dir)
    masks = np.zeros((2, picture.height, picture.width), dtype=bool)
    masks[0, :20] = masks[1, :, 10:30] = True
    expected = model.classify_masks(picture, masks, NAMES, processor)
    cosines = model.score_texts(expected, ["a cat"], processor)
    with pretended_accelerator():
        module_to_accelerator(model)
        found = model.classify_masks(picture, masks, NAMES, processor)
        found_cosines = model.score_texts(found, ["a cat"], processor)
        for task in ("semantic", "panoptic", "instance"):
            segmenter = ZeroShotImageSegmentationPipeline(model=model, processor=processor, device=model.device)
            assert isinstance(segmenter(picture, candidate_labels=NAMES, subtask=task), list)
    assert [mask.label for mask in found] == [mask.label for mask in expected]
    torch.testing.assert_close(found_cosines, cosines, rtol=1e-3, atol=1e-4)


def learn(stage, batch):
    prepared = stage.prepare(batch)
    output = stage(prepared.inputs, {name: count or 1.0 for name, count in prepared.counts.items()})
    sum(output["losses"].values()).backward()
    gradients = {name: parameter.grad for name, parameter in stage.named_parameters()}
    return {name: loss.detach() for name, loss in output["losses"].items()}, gradients


STAGES = [
    ("warmup", {"adapter_implementation": "dense"}),
    ("warmup", {"adapter_implementation": "sparse"}),
    ("mixed", {"adapter_implementation": "dense"}),
    ("mixed", {"adapter_implementation": "sparse"}),
    ("generator", {}),
]


@pytest.mark.parametrize(("name", "options"), STAGES)
def test_stages_of_training(name, options):
    source = toy.Rectangles(min_masks=1)
    batch = collate_training_samples([toy.transform()(source.read(item), epoch=0) for item in (1, 2, 3)])
    losses, gradients = learn(toy.stage(name, **options), batch)
    with pretended_accelerator() as move:
        stage = toy.stage(name, module_to_accelerator(toy.segmenter()), **options)
        found_losses, found_gradients = learn(stage, move(batch))
    assert set(found_losses) == set(losses)
    for parameter, gradient in gradients.items():
        assert found_gradients[parameter].device.type == "mps"
        assert found_gradients[parameter].shape == gradient.shape
    for loss, value in losses.items():
        torch.testing.assert_close(to_cpu(found_losses[loss]), value, rtol=1e-3, atol=1e-3, msg=loss)


def test_contrastive_loss():
    images, texts = (torch.nn.functional.normalize(pictures(6, 8, seed=seed), dim=-1) for seed in (1, 2))
    groups, scale = torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor(10.0)
    expected = contrastive_loss(images, texts, groups, scale)
    with pretended_accelerator() as move:
        found = contrastive_loss(*move((images, texts, groups, scale)))
    torch.testing.assert_close(to_cpu(found), expected)
