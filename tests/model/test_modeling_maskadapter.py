"""One tester for every model: save and load, precision, output forms, compilation and export on tiny versions."""

import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForUniversalSegmentation

from hf_maskadapter import (
    ConvNextClipModel,
    FcClipMaskGenerator,
    MaskAdapterForOpenVocabularySegmentation,
    MaskAdapterImageProcessorPil,
    MaskAdapterModel,
)
from support import tiny_models

NAMES = ["cat, kitten", "dog", "sky"]


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encoded(names=tuple(NAMES), model=None):
    return (model or tiny_models.segmenter()).encode_vocabulary(list(names), tiny_models.CharacterTokenizer())


def clip_inputs(batch_size: int = 2) -> dict:
    ids = tiny_models.CharacterTokenizer()(["ab", "cd"])["input_ids"]
    return {"pixel_values": pictures(batch_size, 3, 64, 96), "input_ids": torch.tensor(ids)}


def generator_inputs(batch_size: int = 2) -> dict:
    sizes = zip(tiny_models.HIDDEN_SIZES, (16, 8, 4, 2), (24, 12, 6, 3), strict=True)
    return {
        "feature_maps": tuple(pictures(batch_size, channels, height, width) for channels, height, width in sizes),
        "vocabulary": encoded(),
        "void_embeds": torch.nn.functional.normalize(pictures(1, tiny_models.EMBED_DIM), dim=-1),
    }


def adapter_inputs(batch_size: int = 2) -> dict:
    return {
        "projected_features": pictures(batch_size, tiny_models.EMBED_DIM, 2, 3),
        "masks": (pictures(batch_size, 5, 16, 24) > 0).float(),
        "dense_features": pictures(batch_size, tiny_models.HIDDEN_SIZES[-1], 2, 3),
    }


def segmenter_inputs(batch_size: int = 2) -> dict:
    return {"pixel_values": pictures(batch_size, 3, 64, 96), "vocabulary": encoded()}


class ModelTester:
    """What the tests need to know about a model class."""

    def __init__(self, model_class, build, inputs, name=None):
        self.model_class = model_class
        self.build = build
        self.inputs = inputs
        self.name = name or model_class.__name__

    def __repr__(self) -> str:
        return self.name


TESTERS = [
    *(ModelTester(type(build()), build, clip_inputs, name) for name, build in tiny_models.TINY_CLIPS.items()),
    ModelTester(FcClipMaskGenerator, tiny_models.generator, generator_inputs),
    ModelTester(MaskAdapterModel, tiny_models.adapter, adapter_inputs),
    ModelTester(MaskAdapterForOpenVocabularySegmentation, tiny_models.segmenter, segmenter_inputs),
]
every_model = pytest.mark.parametrize("tester", TESTERS, ids=repr)


def tensors_of(model) -> dict:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def assert_same_tensors(model, other):
    expected, actual = tensors_of(model), tensors_of(other)
    assert expected.keys() == actual.keys()
    for name, tensor in expected.items():
        assert torch.isfinite(actual[name].float()).all(), name
        assert torch.equal(tensor, actual[name]), name


def flat_outputs(output) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if output is None:
        return []
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in flat_outputs(value)]


@every_model
@pytest.mark.parametrize("max_shard_size", ["5GB", "20KB"])
def test_save_and_load_keep_every_parameter_and_buffer(tester, max_shard_size, tmp_path):
    model = tester.build()
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "20KB")
    loaded, report = tester.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert not loaded.training
    assert_same_tensors(model, loaded)


@every_model
def test_config_survives_a_round_trip(tester, tmp_path):
    config = tester.build().config
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is type(config)
    assert loaded.to_diff_dict() == config.to_diff_dict()


@every_model
def test_return_dict_false_gives_the_same_values_as_a_tuple(tester):
    model, inputs = tester.build(), tester.inputs()
    with torch.no_grad():
        as_dict, as_tuple = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    for expected, actual in zip(flat_outputs(as_dict), flat_outputs(as_tuple), strict=True):
        assert torch.equal(expected, actual)


@every_model
def test_batch_of_equal_sizes_equals_singles(tester):
    model, inputs = tester.build(), tester.inputs()
    per_image = ("pixel_values", "feature_maps", "projected_features", "masks", "dense_features")

    def single(name, value, row):
        if name not in per_image:
            return value
        return tuple(part[row : row + 1] for part in value) if isinstance(value, tuple) else value[row : row + 1]

    with torch.no_grad():
        together = model(**inputs)
        for row in range(2):
            alone = model(**{name: single(name, value, row) for name, value in inputs.items()})
            for name in together:
                if name in ("text_embeds", "padded_size", "generator_output", "feature_maps"):
                    continue
                torch.testing.assert_close(together[name][row : row + 1], alone[name], rtol=1e-4, atol=1e-4)


@every_model
def test_loads_and_runs_in_bfloat16(tester, tmp_path):
    model, inputs = tester.build(), tester.inputs()
    model.save_pretrained(tmp_path)
    half = tester.model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, parameter in half.named_parameters():
        in_generator = tester.model_class is FcClipMaskGenerator or name.startswith("mask_generator.")
        assert parameter.dtype == (torch.float32 if in_generator else torch.bfloat16), name
    with torch.no_grad():
        expected, actual = flat_outputs(model(**inputs)), flat_outputs(half(**inputs))
    for full, reduced in zip(expected, actual, strict=True):
        assert torch.isfinite(reduced.float()).all()
        assert (full.float() - reduced.float()).abs().mean() <= 0.05 * full.float().abs().max()


@every_model
def test_gradient_checkpointing_keeps_the_gradients(tester):
    gradients = []
    for checkpointing in (False, True):
        model, inputs = tester.build(), tester.inputs()
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        sum(value.float().square().mean() for value in flat_outputs(model(**inputs)) if value.requires_grad).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@every_model
def test_device_map_loads_the_same_weights(tester, tmp_path):
    model, inputs = tester.build(), tester.inputs()
    model.save_pretrained(tmp_path)
    loaded = tester.model_class.from_pretrained(tmp_path, device_map="cpu")
    assert_same_tensors(model, loaded)
    with torch.no_grad():
        for expected, actual in zip(flat_outputs(model(**inputs)), flat_outputs(loaded(**inputs)), strict=True):
            torch.testing.assert_close(actual, expected)


def test_auto_classes_load_the_right_models(tmp_path):
    segmenter = tiny_models.segmenter()
    segmenter.save_pretrained(tmp_path / "segmenter")
    segmenter.clip.save_pretrained(tmp_path / "clip")
    segmenter.mask_generator.save_pretrained(tmp_path / "generator")
    whole = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "segmenter")
    assert type(whole) is MaskAdapterForOpenVocabularySegmentation
    assert type(AutoModel.from_pretrained(tmp_path / "clip")) is ConvNextClipModel
    assert type(AutoModel.from_pretrained(tmp_path / "generator")) is FcClipMaskGenerator


def test_adapter_alone_loads_from_its_own_and_from_a_complete_checkpoint(tmp_path):
    segmenter = tiny_models.segmenter()
    segmenter.save_pretrained(tmp_path / "whole")
    segmenter.adapter.save_pretrained(tmp_path / "adapter")
    for folder in ("whole", "adapter"):
        adapter, report = AutoModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert type(adapter) is MaskAdapterModel
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert_same_tensors(segmenter.adapter, adapter)


def test_single_precision_generator_under_autocast():
    model, inputs = tiny_models.generator(), generator_inputs()
    with torch.no_grad():
        expected = model(**inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = model(**inputs)
    assert torch.equal(actual.masks_queries_logits, expected.masks_queries_logits)
    assert torch.equal(actual.in_vocabulary_logits, expected.in_vocabulary_logits)


def test_auxiliary_predictions_come_on_request_and_end_with_the_same_prediction():
    model, inputs = tiny_models.generator(), generator_inputs()
    with torch.no_grad():
        plain, deep = model(**inputs), model(**inputs, output_auxiliary=True)
    assert plain.auxiliary_outputs is None
    assert len(deep.auxiliary_outputs) == model.config.decoder_layers - 1
    assert torch.equal(plain.masks_queries_logits, deep.masks_queries_logits)
    for earlier in deep.auxiliary_outputs:
        assert earlier.in_vocabulary_logits.shape == plain.in_vocabulary_logits.shape


@pytest.mark.parametrize("mask_embedding", ["adapter", "pooling", "crop"])
@pytest.mark.parametrize("num_masks", [0, 1, 7])
def test_callers_masks_need_no_generator_and_void_plays_no_part(mask_embedding, num_masks):
    model = tiny_models.segmenter(mask_generator_config=None)
    masks = (pictures(2, num_masks, 32, 48) > 0).float()
    with torch.no_grad():
        output = model(pictures(2, 3, 64, 96), encoded(), masks=masks, mask_embedding=mask_embedding)
    assert output.masks_queries_logits is None
    assert output.in_vocabulary_logits is None
    assert torch.equal(output.mask_probabilities, masks)
    probabilities = output.class_queries_logits.exp()
    assert probabilities.shape == (2, num_masks, 4)
    torch.testing.assert_close(probabilities[..., :-1].sum(-1), torch.ones(2, num_masks), atol=1e-5, rtol=0)
    assert (probabilities[..., -1] < 1e-7).all()


@pytest.mark.parametrize("mask_embedding", ["adapter", "pooling", "crop"])
def test_empty_and_full_masks_give_finite_scores(mask_embedding):
    model = tiny_models.segmenter()
    masks = torch.stack([torch.zeros(64, 96), torch.ones(64, 96)])[None]
    with torch.no_grad():
        output = model(pictures(1, 3, 64, 96), encoded(), masks=masks, mask_embedding=mask_embedding)
    assert torch.isfinite(output.class_queries_logits).all()
    assert torch.isfinite(output.mask_embeddings).all()


@pytest.mark.parametrize("num_classes", [1, 1000])
def test_vocabularies_of_one_and_of_a_thousand_classes(num_classes):
    model = tiny_models.segmenter()
    vocabulary = model.encode_vocabulary(
        [f"thing {number}" for number in range(num_classes)], tiny_models.CharacterTokenizer(), templates=["a {}"]
    )
    with torch.no_grad():
        output = model(pictures(1, 3, 64, 64), vocabulary)
    assert output.class_queries_logits.shape == (1, 6, num_classes + 1)
    assert torch.isfinite(output.class_queries_logits).all()


@pytest.mark.parametrize("hidden_sizes", [[8, 16, 24], [8, 16, 24, 32, 40]])
@pytest.mark.parametrize("patch_size", [2, 4])
def test_number_of_stages_and_strides_come_from_the_clip(hidden_sizes, patch_size):
    clip = tiny_models.clip_config(hidden_sizes=hidden_sizes, depths=[1] * len(hidden_sizes), patch_size=patch_size)
    common_stride = 4 if 4 in clip.feature_strides[:-2] else patch_size
    generator = tiny_models.generator_config(
        feature_channels=clip.feature_channels, feature_strides=clip.feature_strides, common_stride=common_stride
    )
    model = tiny_models.segmenter(clip_config=clip, mask_generator_config=generator)
    side = 2 * clip.size_divisor
    with torch.no_grad():
        output = model(pictures(1, 3, side, side), encoded(model=model), output_semantic_activation_maps=True)
    assert output.masks_queries_logits.shape[-2:] == (side // common_stride, side // common_stride)
    assert output.semantic_activation_maps.shape[-2:] == (2, 2)


@pytest.mark.parametrize("stem", ["patch", "overlap"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_stems_norms_and_kernels_keep_the_strides(stem, norm):
    model = tiny_models.clip(stem=stem, norm=norm, kernel_sizes=[7, 5, 5, 3], projection_hidden_dim=None)
    with torch.no_grad():
        maps = model.get_feature_maps(pictures(1, 3, 64, 96))
    assert [tuple(feature_map.shape[-2:]) for feature_map in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("mask_embedding", ["adapter", "pooling", "crop"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 57), (3000, 40)])
def test_odd_picture_sizes_are_segmented_at_their_own_size(height, width, mask_embedding):
    processor = MaskAdapterImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    pixels = pictures(height, width, 3).mul(60).add(128).clamp(0, 255).byte().numpy()
    model = tiny_models.segmenter()
    with torch.no_grad():
        outputs = model(
            **processor(pixels, return_tensors="pt"), vocabulary=encoded(model=model), mask_embedding=mask_embedding
        )
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(height, width)])
    assert label_map.shape == (height, width)
    assert set(label_map.unique().tolist()) <= {0, 1, 2}


def test_picture_whose_size_is_no_multiple_of_the_stride_gets_a_clear_error():
    with pytest.raises(ValueError, match="pad it to 64x96"):
        tiny_models.clip().get_feature_maps(pictures(1, 3, 60, 90))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": NAMES}, "model.encode_vocabulary"),
        ({"pixel_values": pictures(3, 64, 96)}, "pixel_values must have shape"),
        ({"masks": torch.zeros(1, 64, 96)}, "masks must have shape"),
        ({"masks": torch.zeros(3, 1, 64, 96)}, "masks must have shape"),
        ({"mask_embedding": "magic"}, '"adapter", "pooling" or "crop"'),
        ({"mask_embedding": "pooling", "mask_pooling": "magic"}, '"hard", "area" or "any"'),
    ],
)
def test_wrong_input_gets_a_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_models.segmenter()(**segmenter_inputs() | changes)


def test_missing_parts_get_a_clear_error():
    inputs = segmenter_inputs()
    with pytest.raises(ValueError, match="no mask generator"):
        tiny_models.segmenter(mask_generator_config=None)(**inputs)
    with pytest.raises(ValueError, match="no adapter"):
        tiny_models.segmenter(use_adapter=False)(**inputs, mask_embedding="adapter")
    with pytest.raises(ValueError, match="Give pixel_values"):
        tiny_models.clip()()


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("part", ["clip", "adapter"])
def test_torch_compile_gives_the_same_values(part):
    if part == "clip":
        model, inputs = tiny_models.clip(hidden_sizes=[8, 16], depths=[1, 1]), {"pixel_values": pictures(1, 3, 64, 96)}
    else:
        model, inputs = tiny_models.adapter(num_blocks=1), adapter_inputs()
    with torch.no_grad():
        expected = flat_outputs(model(**inputs))
        actual = flat_outputs(torch.compile(model)(**inputs))
    for eager, compiled in zip(expected, actual, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


class ImageTower(torch.nn.Module):
    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, pixel_values):
        return self.clip.get_feature_maps(pixel_values)


class ActivationMaps(torch.nn.Module):
    def __init__(self, adapter):
        super().__init__()
        self.adapter = adapter

    def forward(self, projected_features, masks):
        return self.adapter.get_activation_maps(projected_features, masks)


@pytest.mark.parametrize("part", ["clip", "adapter"])
def test_torch_export_of_the_image_tower_and_of_the_adapter(part):
    if part == "clip":
        module, inputs = ImageTower(tiny_models.clip()), (pictures(1, 3, 64, 96),)
    else:
        inputs = tuple(adapter_inputs()[name] for name in ("projected_features", "masks"))
        module = ActivationMaps(tiny_models.adapter())
    with torch.no_grad():
        exported = torch.export.export(module.eval(), inputs).module()
        for eager, value in zip(flat_outputs(module(*inputs)), flat_outputs(exported(*inputs)), strict=True):
            torch.testing.assert_close(value, eager, rtol=1e-4, atol=1e-5)


def test_seen_classes_use_alpha_and_unseen_ones_beta():
    model = tiny_models.segmenter(ensemble_alpha=0.0, ensemble_beta=1.0)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    inside, outside = torch.tensor([[[1.0, 2.0, 0.5]]]), torch.tensor([[[3.0, 0.5, 0.0]]])
    scores = model.ensemble(inside, outside, vocabulary)[..., :-1]
    log_in, log_out = inside[..., :-1].log_softmax(-1), outside[..., :-1].log_softmax(-1)
    expected = torch.stack([log_in[..., 0], log_out[..., 1]], dim=-1).log_softmax(-1)
    torch.testing.assert_close(scores.log_softmax(-1), expected, atol=1e-5, rtol=1e-5)


def test_without_in_vocabulary_branch_alpha_and_beta_of_one_are_the_adapter_alone():
    model = tiny_models.segmenter(ensemble_alpha=1.0, ensemble_beta=1.0)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    outside = torch.randn(1, 4, 3)
    certain = torch.tensor([0.0, 0.0, -1e4]).expand(1, 4, 3)
    torch.testing.assert_close(
        model.ensemble(None, outside, vocabulary), model.ensemble(certain, outside, vocabulary), atol=1e-5, rtol=1e-5
    )


def test_ensemble_on_valid_masks_leaves_masks_without_a_cell_to_the_generator():
    model = tiny_models.segmenter(ensemble_alpha=1.0, ensemble_beta=1.0, ensemble_on_valid_masks=True)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    inside, outside = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    scores = model.ensemble(inside, outside, vocabulary, valid_masks=torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(scores[0, 0, :-1].softmax(-1), outside[0, 0, :-1].softmax(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0, 1].exp(), inside[0, 1].softmax(-1), atol=1e-5, rtol=1e-4)


def test_warmup_scoring_returns_probabilities_with_void():
    model = tiny_models.segmenter(mask_generator_config=None, warmup_scoring=True)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64), vocabulary, masks=torch.ones(1, 2, 64, 64))
    torch.testing.assert_close(output.class_queries_logits, output.out_vocabulary_logits.softmax(-1))


def test_mixed_projection_is_the_published_reshape_and_not_a_projection_of_each_position():
    model, plain = tiny_models.segmenter(mix_projected_positions=True), tiny_models.segmenter()
    dense = torch.randn(2, tiny_models.HIDDEN_SIZES[-1], 2, 3)
    with torch.no_grad():
        mixed = model.project_features(dense)
        rows = model.clip.project(dense.reshape(2 * 2 * 3, -1))
        assert torch.equal(mixed, rows.reshape(2, 2, 3, -1).permute(0, 3, 1, 2))
        assert not torch.allclose(mixed, plain.project_features(dense))
