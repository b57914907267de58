"""The mask generator, and the contract with Transformers' Mask2Former modules that it relies on."""

import torch
from transformers.models.mask2former import modeling_mask2former as mask2former

from hf_maskadapter.model.modeling_mask_generator_fcclip import Float32SinePositionEmbedding
from support import tiny_models


def test_contract_pixel_decoder_reads_the_last_three_maps_and_returns_fine_mask_features():
    config = tiny_models.generator_config()
    decoder = mask2former.Mask2FormerPixelDecoder(config, config.feature_channels).eval()
    torch.nn.init.normal_(decoder.level_embed)
    features = [torch.randn(1, channels, 64 // 2**i, 96 // 2**i) for i, channels in enumerate(config.feature_channels)]
    with torch.no_grad():
        output = decoder(features)
    assert output.mask_features.shape == (1, config.mask_feature_size, 64, 96)
    assert [tuple(level.shape[-2:]) for level in output.multi_scale_features] == [(8, 12), (16, 24), (32, 48)]


def test_contract_decoder_returns_one_prediction_more_than_it_has_layers():
    config = tiny_models.generator_config()
    module = mask2former.Mask2FormerTransformerModule(config.feature_size, config).eval()
    features = [torch.randn(1, config.feature_size, side, side) for side in (2, 4, 8)]
    with torch.no_grad():
        output = module(features, torch.randn(1, config.mask_feature_size, 16, 16))
    assert len(module.decoder.layers) == config.decoder_layers - 1
    assert len(output.intermediate_hidden_states) == len(output.masks_queries_logits) == config.decoder_layers
    assert output.intermediate_hidden_states[0].shape == (config.num_queries, 1, config.hidden_dim)


def test_contract_modules_carry_the_names_that_checkpoints_are_converted_to():
    names = set(tiny_models.generator().state_dict())
    for name in (
        "pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.weight",
        "pixel_decoder.adapter_1.0.weight",
        "transformer_module.decoder.layers.0.cross_attn.in_proj_weight",
        "transformer_module.decoder.layers.0.self_attn.q_proj.weight",
        "transformer_module.decoder.mask_predictor.mask_embedder.0.0.weight",
        "class_head.class_embedder.2.0.weight",
    ):
        assert name in names


def test_sine_positions_are_computed_in_single_precision():
    embedding = Float32SinePositionEmbedding(16, normalize=True)
    shape = torch.Size((1, 8, 30, 41))
    exact = embedding(shape, "cpu", torch.float32)
    rounded = embedding(shape, "cpu", torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.to(torch.bfloat16))


def test_class_branch_is_skipped_without_a_vocabulary():
    model = tiny_models.generator()
    maps = [
        torch.randn(1, channels, 16 // 2**i, 16 // 2**i) for i, channels in enumerate(model.config.feature_channels)
    ]
    with torch.no_grad():
        output = model(maps)
    assert output.in_vocabulary_logits is None
    assert output.masks_queries_logits.shape == (1, 6, 16, 16)
