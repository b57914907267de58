"""Every CLIP behind the one interface: dense features, projection, texts, and whole segmenters around each."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, SiglipConfig

from hf_maskadapter import (
    MaskAdapterConfig,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterProcessor,
    SiglipClipConfig,
    VitClipConfig,
    VitClipModel,
    load_clip,
)
from hf_maskadapter.model.configuration_clips import PIXEL_MEAN, PIXEL_STD, SIGLIP_PIXEL_MEAN
from hf_maskadapter.model.modeling_clip_vit import as_dense_clip
from hf_maskadapter.model.modeling_text_classifier import tokenize_prompts
from support import tiny_models, toy
from support.stage_batches import batch, compute

every_clip = pytest.mark.parametrize("name", tiny_models.TINY_CLIPS)
PATCH = tiny_models.VISION_CONFIG["patch_size"]


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(model):
    """The model with biases, norms and position embeddings that are not at their initial zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 0:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def wrapped(name: str):
    return randomized(tiny_models.TINY_CLIPS[name]())


def segmenter(name: str, **changes) -> MaskAdapterForOpenVocabularySegmentation:
    config = tiny_models.TINY_CLIPS[name]().config
    return tiny_models.segmenter(clip_config=config, mask_generator_config=None, **changes)


# --- every CLIP in a segmenter ----------------------------------------------------------------------------------------


@every_clip
@pytest.mark.parametrize("mask_embedding", ["adapter", "pooling", "crop"])
def test_masks_are_classified_on_any_clip(name, mask_embedding):
    model = segmenter(name)
    vocabulary = model.encode_vocabulary(["cat, kitten", "dog"], tiny_models.CharacterTokenizer())
    masks = (pictures(2, 3, 64, 96, seed=1) > 0).float()
    with torch.no_grad():
        outputs = model(pictures(2, 3, 64, 96), vocabulary, masks=masks, mask_embedding=mask_embedding)
    assert outputs.mask_embeddings.shape == (2, 3, tiny_models.EMBED_DIM)
    torch.testing.assert_close(outputs.class_queries_logits.exp().sum(-1), torch.ones(2, 3), rtol=1e-4, atol=1e-4)
    scale = model.clip.get_logit_scale()
    cosines = F.normalize(outputs.mask_embeddings, dim=-1) @ vocabulary.text_embeds.T
    expected = scale * torch.stack([cosines[..., :2].amax(-1), cosines[..., 2]], dim=-1)
    torch.testing.assert_close(outputs.out_vocabulary_logits[..., :2], expected, rtol=1e-4, atol=1e-4)


@every_clip
def test_a_segmenter_on_any_clip_is_saved_and_loaded(name, tmp_path):
    model = segmenter(name)
    model.save_pretrained(tmp_path)
    loaded, report = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert type(loaded.clip) is type(model.clip)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, tensor in (dict(model.named_parameters()) | dict(model.named_buffers())).items():
        assert torch.equal(tensor, (dict(loaded.named_parameters()) | dict(loaded.named_buffers()))[key]), key
    assert loaded._no_split_modules >= model.clip._no_split_modules


@every_clip
def test_warmup_training_moves_the_adapter_alone_on_any_clip(name):
    model = segmenter(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stage = toy.GroundTruthWarmup(model, toy.vocabulary(model))
    losses, gradients = compute(stage, [batch((1, 2))])
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    torch.optim.SGD(stage.parameters(), lr=0.1).step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith(("adapter.", "void_embedding")) for key in moved)


def test_a_generator_that_needs_several_feature_maps_runs_on_the_resnet():
    clip_config = tiny_models.resnet_clip_config()
    generator_config = tiny_models.generator_config(feature_channels=clip_config.feature_channels)
    model = tiny_models.segmenter(clip_config=clip_config, mask_generator_config=generator_config)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    with torch.no_grad():
        outputs = model(pictures(1, 3, 64, 96), vocabulary)
    assert outputs.masks_queries_logits.shape == (1, 6, 16, 24)
    assert outputs.in_vocabulary_logits.isfinite().all()


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_a_generator_that_needs_several_feature_maps_is_refused_on_a_clip_with_one(name):
    clip_config = tiny_models.TINY_CLIPS[name]().config
    with pytest.raises(StrictDataclassError, match=r"at least 3 feature maps.*gives 1 \(stride \[16\]\)"):
        tiny_models.segmenter(clip_config=clip_config)


def test_a_configuration_that_is_no_clips_is_refused():
    with pytest.raises(ValueError, match=r"got BertConfig: choose one of ConvNextClipConfig, .*Transformers' siglip"):
        MaskAdapterConfig(clip_config=BertConfig())


# --- dense features of Transformers' CLIPs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "metaclip_2", "siglip"])
def test_whole_pictures_are_embedded_as_the_wrapped_model_does(name):
    clip = wrapped(name)
    for size in ((64, 64), (48, 80)):
        pixel_values = pictures(2, 3, *size)
        with torch.no_grad():
            expected = clip.model.get_image_features(pixel_values, interpolate_pos_encoding=True).pooler_output
            torch.testing.assert_close(clip.get_image_features(pixel_values), expected, rtol=1e-4, atol=1e-5)


def test_naflex_sees_the_patches_of_its_own_image_processor():
    processing = pytest.importorskip("transformers.models.siglip2.image_processing_pil_siglip2")
    clip = wrapped("siglip2")
    pixel_values = pictures(2, 3, 48, 80)
    patches = [torch.from_numpy(processing.convert_image_to_patches(one.numpy(), PATCH)) for one in pixel_values]
    inputs = {
        "pixel_values": torch.stack(patches),
        "pixel_attention_mask": torch.ones(2, 15),
        "spatial_shapes": torch.tensor([[3, 5]] * 2),
    }
    with torch.no_grad():
        expected = clip.model.get_image_features(**inputs)
        output = clip(pixel_values)
    torch.testing.assert_close(output.image_embeds, expected.pooler_output, rtol=1e-4, atol=1e-5)
    dense = expected.last_hidden_state.transpose(1, 2).reshape(2, -1, 3, 5)
    torch.testing.assert_close(output.dense_features, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_siglips_projection_is_its_head_attending_to_one_position(name):
    clip = wrapped(name)
    with torch.no_grad():
        output = clip(pictures(3, 3, PATCH, PATCH))  # a picture of one patch
        projected = clip.project_dense(output.dense_features)[..., 0, 0]
    torch.testing.assert_close(projected, output.image_embeds, rtol=1e-4, atol=1e-5)


def test_siglips_head_is_the_projection_of_patches_pooled_with_its_own_attention():
    clip = wrapped("siglip")
    head = clip.model.vision_model.head
    head.attention.num_heads, head.attention.head_dim = 1, tiny_models.EMBED_DIM  # so that there is one set of weights
    with torch.no_grad():
        output = clip(pictures(2, 3, 64, 64))
        patches = output.dense_features.flatten(2).transpose(1, 2)
        weights = head.attention(head.probe.expand(2, -1, -1), patches, patches)[1]
        projected = clip.project((weights @ patches)[:, 0])
    torch.testing.assert_close(projected, output.image_embeds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "metaclip_2"])
def test_value_features_are_the_last_layer_with_attention_forced_to_the_own_position(name):
    clip = wrapped(name)
    clip.model.set_attn_implementation("eager")
    vision, pixel_values = clip.model.vision_model, pictures(2, 3, 48, 64)
    attention = vision.encoder.layers[-1].self_attn
    with torch.no_grad():
        actual = clip.get_feature_maps(pixel_values)[0]
        mask = torch.full((13, 13), float("-inf")).fill_diagonal_(0)[None, None]
        handle = attention.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"attention_mask": mask}), with_kwargs=True
        )
        output = vision(pixel_values, interpolate_pos_encoding=True).last_hidden_state
        handle.remove()
    expected = output[:, 1:].transpose(1, 2).reshape(2, -1, 3, 4)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_without_value_features_dense_features_are_the_last_hidden_states():
    clip = VitClipModel.wrap(wrapped("clip").model, value_features=False)
    pixel_values = pictures(2, 3, 48, 64)
    with torch.no_grad():
        expected = clip.model.vision_model(pixel_values, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
        output = clip(pixel_values)
        assert torch.equal(clip.get_feature_maps(pixel_values)[0], output.dense_features)
    torch.testing.assert_close(output.dense_features.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "metaclip_2", "siglip", "siglip2", "resnet"])
def test_pictures_of_any_multiple_of_the_stride_are_embedded(name):
    clip = wrapped(name)
    with torch.no_grad():
        for size in ((64, 64), (128, 128), (32, 96)):
            maps = clip.get_feature_maps(torch.zeros(1, 3, *size))
            expected = [tuple(side // stride for side in size) for stride in clip.config.feature_strides]
            assert [tuple(one.shape[-2:]) for one in maps] == expected
            assert clip.get_image_features(torch.zeros(1, 3, *size)).isfinite().all()


# --- loading and wrapping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "metaclip_2", "siglip", "siglip2"])
def test_a_published_clip_is_loaded_from_its_own_folder(name, tmp_path):
    clip = wrapped(name)
    clip.model.save_pretrained(tmp_path)
    for loaded in (load_clip(tmp_path), type(clip).from_clip_pretrained(tmp_path)):
        assert type(loaded) is type(clip)
        assert loaded.config.wrapped_config.model_type == name
        for key, tensor in clip.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key
        with torch.no_grad():
            actual, expected = (model(pictures(1, 3, 64, 64)).dense_features for model in (loaded, clip))
            assert torch.equal(actual, expected)


def test_a_clip_of_this_package_is_loaded_as_it_is(tmp_path):
    tiny_models.TINY_CLIPS["resnet"]().save_pretrained(tmp_path)
    assert type(load_clip(tmp_path)) is type(tiny_models.TINY_CLIPS["resnet"]())


def test_wrapping_does_not_copy_and_keeps_dtype_mode_and_attention():
    config = tiny_models.vit_clip_config().wrapped_config
    model = CLIPModel._from_config(config, attn_implementation="eager").to(torch.bfloat16).train()
    clip = as_dense_clip(model)
    assert clip.model is model
    assert clip.dtype == torch.bfloat16
    assert clip.training
    MaskAdapterProcessor.from_clip(model.config, tiny_models.byte_level_tokenizer())
    assert model.vision_model.config._attn_implementation == "eager"
    assert as_dense_clip(clip) is clip


def test_a_model_that_is_no_clip_is_refused():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8)
    with pytest.raises(TypeError, match=r"BertModel cannot be a segmenter's CLIP.*clip, metaclip_2, siglip, siglip2"):
        as_dense_clip(BertModel(config))


@pytest.mark.parametrize(
    ("config", "expected"), [(CLIPConfig, VitClipConfig), (SiglipConfig, SiglipClipConfig)], ids=["clip", "siglip"]
)
def test_configurations_of_transformers_own_clips_are_wrapped(config, expected):
    for clip_config in (config(), {"model_type": config.model_type}):
        wrapped_config = MaskAdapterConfig(clip_config=clip_config)
        assert type(wrapped_config.clip_config) is expected
        assert wrapped_config.embed_dim == {"clip": 512, "siglip": 768}[config.model_type]
        assert MaskAdapterConfig(**wrapped_config.to_dict()).to_diff_dict() == wrapped_config.to_diff_dict()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VitClipConfig(wrapped_config=SiglipConfig()), "wraps clip and metaclip_2, not siglip"),
        (lambda: SiglipClipConfig(wrapped_config=CLIPConfig()), "wraps siglip and siglip2, not clip"),
        (
            lambda: VitClipConfig(wrapped_config={"model_type": "clip", "vision_config": {"patch_size": [16, 14]}}),
            "must be square",
        ),
        (
            lambda: SiglipClipConfig(
                wrapped_config={"model_type": "siglip", "vision_config": {"vision_use_head": False}}
            ),
            "vision_use_head must be true",
        ),
        (
            lambda: SiglipClipConfig(wrapped_config={"model_type": "siglip", "text_config": {"projection_size": 8}}),
            r"hidden_size \(768\) must equal text_config.projection_size \(8\)",
        ),
        (lambda: tiny_models.resnet_clip_config(width=7), "width must be even"),
        (lambda: tiny_models.resnet_clip_config(num_attention_heads=5), "multiple of num_attention_heads"),
        (lambda: tiny_models.resnet_clip_config(image_size=100), "multiple of the last stage's stride"),
        (lambda: tiny_models.resnet_clip_config(projection_dim=8), "compared in one space"),
    ],
)
def test_configurations_that_cannot_work_are_refused(build, message):
    with pytest.raises(StrictDataclassError, match=message):
        build()


# --- texts and pixels -------------------------------------------------------------------------------------------------


class PaddingTokenizer(tiny_models.CharacterTokenizer):
    """Pads with a token that is not the end token, and would pad at the left, as SigLIP 2's may."""

    pad_token_id = 0
    padding_side = "left"


def test_siglips_texts_are_lower_case_and_padded_to_the_full_length():
    model = segmenter("siglip")
    tokenizer = PaddingTokenizer()
    encoded = model.encode_vocabulary(["Cat"], tokenizer, templates=["A {}."])
    ids = tokenizer(["a cat."])["input_ids"][0]
    padded = torch.tensor([ids + [0] * (64 - len(ids))])
    with torch.no_grad():
        expected = F.normalize(model.clip.model.get_text_features(padded).pooler_output, dim=-1)
    torch.testing.assert_close(encoded.text_embeds, expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_longer_than_siglips_text_tower_reads_is_refused():
    with pytest.raises(ValueError, match="at most 64: shorten the class name"):
        segmenter("siglip").encode_vocabulary(["x" * 60], tiny_models.CharacterTokenizer())


@every_clip
def test_another_clips_tokenizer_is_refused(name):
    class LargeTokenizer(tiny_models.CharacterTokenizer):
        def __call__(self, prompts, **kwargs):
            return {"input_ids": [[600, 601] for _ in prompts]}

    with pytest.raises(ValueError, match="gives a token 601, but the text tower knows 512"):
        segmenter(name).encode_vocabulary(["cat"], LargeTokenizer())


@pytest.mark.parametrize("name", ["clip", "metaclip_2", "resnet"])
def test_padding_plays_no_part_under_a_causal_mask(name):
    clip = tiny_models.TINY_CLIPS[name]()
    tokenizer = tiny_models.CharacterTokenizer()
    with torch.no_grad():
        alone, padded = (
            clip.get_text_features(tokenize_prompts(tokenizer, prompts, 77))
            for prompts in (["cat"], ["cat", "a very long name"])
        )
    torch.testing.assert_close(padded[:1], alone, rtol=1e-4, atol=1e-5)


def test_siglips_scale_is_not_clamped_and_clips_is():
    siglip, clip = wrapped("siglip"), wrapped("clip")
    for model in (siglip, clip):
        model.model.logit_scale.data.fill_(5.0)
    torch.testing.assert_close(siglip.get_logit_scale(), torch.tensor(5.0).exp())
    assert clip.get_logit_scale() == 100
    assert siglip.get_logit_scale().shape == clip.get_logit_scale().shape == ()


@every_clip
def test_the_processor_of_a_clip_has_its_statistics_stride_and_text_length(name, picture, tmp_path):
    model = segmenter(name)
    clip_config = model.config.clip_config
    processor = MaskAdapterProcessor.from_clip(
        clip_config, tiny_models.byte_level_tokenizer(), size={"shortest_edge": 40, "longest_edge": 50}
    )
    processor.save_pretrained(tmp_path)
    processor = MaskAdapterProcessor.from_pretrained(tmp_path)
    is_siglip = name.startswith("siglip")
    assert list(processor.image_processor.image_mean) == [*(SIGLIP_PIXEL_MEAN if is_siglip else PIXEL_MEAN)]
    assert list(processor.image_processor.image_std) == [*(SIGLIP_PIXEL_MEAN if is_siglip else PIXEL_STD)]
    height, width = processor(images=picture, return_tensors="pt")["pixel_values"].shape[-2:]
    assert height % clip_config.size_divisor == width % clip_config.size_divisor == 0
    assert processor.tokenize("Cat").shape == (1, clip_config.text_config.max_position_embeddings)
    assert processor.lower_case == is_siglip
