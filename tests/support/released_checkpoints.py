"""Tiny random checkpoints in the names and shapes of the released ones, written down from their key lists."""

import torch

HIDDEN_SIZES, DEPTHS = [8, 16, 24, 32], [1, 1, 2, 1]
EMBED_DIM, TEXT_WIDTH, TEXT_LAYERS, VOCAB_SIZE = 16, 8, 2, 12
HEADS, HIDDEN_DIM, FEED_FORWARD, ENCODER_FEED_FORWARD, NUM_QUERIES, DECODER_LAYERS = 2, 32, 24, 40, 6, 3
MASK_CHANNELS, ADAPTER_SIZE, NUM_MAPS = 8, 20, 4

#: Settings that these weights cannot tell.
CLIP_SETTINGS = {"text_heads": 2, "norm_eps": 1e-6}
GENERATOR_SETTINGS = {
    "ensemble_alpha": 0.3,
    "ensemble_beta": 0.6,
    "overlap_threshold": 0.7,
    "training_vocabulary": [["cat", "kitten"], ["sky"]],
}
ADAPTER_SETTINGS = {"mask_threshold": 0.45}
TRANSFER_SETTINGS = {"text_transfer_heads": 4, "text_transfer_panoptic": False}
SETTINGS = CLIP_SETTINGS | GENERATOR_SETTINGS | ADAPTER_SETTINGS


def _linear(name, rows, columns, *kernel, bias=True):
    return {f"{name}.weight": (rows, columns, *kernel)} | ({f"{name}.bias": (rows,)} if bias else {})


def _norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _attention(name, width):
    shapes = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return shapes | _linear(f"{name}.out_proj", width, width)


def convnext_clip_shapes(
    hidden_sizes=HIDDEN_SIZES,
    depths=DEPTHS,
    head_width=28,
    embed_dim=EMBED_DIM,
    text_width=TEXT_WIDTH,
    text_layers=TEXT_LAYERS,
    vocab_size=VOCAB_SIZE,
):
    """Shapes of an OpenCLIP ConvNeXt CLIP; `head_width` is that of the head's MLP, `None` for a linear head."""
    shapes = _linear("visual.trunk.stem.0", hidden_sizes[0], 3, 4, 4) | _norm("visual.trunk.stem.1", hidden_sizes[0])
    for stage, (channels, depth) in enumerate(zip(hidden_sizes, depths, strict=True)):
        name = f"visual.trunk.stages.{stage}"
        if stage > 0:
            shapes |= _norm(f"{name}.downsample.0", hidden_sizes[stage - 1])
            shapes |= _linear(f"{name}.downsample.1", channels, hidden_sizes[stage - 1], 2, 2)
        for block in (f"{name}.blocks.{index}" for index in range(depth)):
            shapes |= {f"{block}.gamma": (channels,)} | _linear(f"{block}.conv_dw", channels, 1, 7, 7)
            shapes |= _norm(f"{block}.norm", channels) | _linear(f"{block}.mlp.fc1", 4 * channels, channels)
            shapes |= _linear(f"{block}.mlp.fc2", channels, 4 * channels)
    shapes |= _norm("visual.trunk.head.norm", hidden_sizes[-1])
    if head_width:
        shapes |= _linear("visual.head.mlp.fc1", head_width, hidden_sizes[-1])
        shapes |= _linear("visual.head.mlp.fc2", embed_dim, head_width, bias=False)
    else:
        shapes |= _linear("visual.head.proj", embed_dim, hidden_sizes[-1], bias=False)
    return shapes | _text_shapes(embed_dim, text_width, text_layers, vocab_size)


def _text_shapes(embed_dim=EMBED_DIM, width=TEXT_WIDTH, layers=TEXT_LAYERS, vocab_size=VOCAB_SIZE):
    shapes = {"positional_embedding": (77, width), "text_projection": (width, embed_dim), "logit_scale": ()}
    for layer in (f"transformer.resblocks.{index}" for index in range(layers)):
        shapes |= _norm(f"{layer}.ln_1", width) | _attention(f"{layer}.attn", width)
        shapes |= _norm(f"{layer}.ln_2", width) | _linear(f"{layer}.mlp.c_fc", 4 * width, width)
        shapes |= _linear(f"{layer}.mlp.c_proj", width, 4 * width)
    return shapes | {"token_embedding.weight": (vocab_size, width)} | _norm("ln_final", width)


def _batch_norm(name, channels):
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return _norm(name, channels) | statistics | {f"{name}.num_batches_tracked": ()}


def resnet_clip_shapes(width, depths, embed_dim, image_size, text_width, text_layers, vocab_size):
    """Shapes of a ResNet CLIP in OpenAI's layout."""
    shapes = {}
    stem = (3, width // 2, width // 2, width)
    for index in (1, 2, 3):
        shapes |= _linear(f"visual.conv{index}", stem[index], stem[index - 1], 3, 3, bias=False)
        shapes |= _batch_norm(f"visual.bn{index}", stem[index])
    channels = width
    for stage, depth in enumerate(depths):
        planes = width * 2**stage
        for block in range(depth):
            name = f"visual.layer{stage + 1}.{block}"
            for index, shape in enumerate(
                [(planes, channels, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)]
            ):
                shapes |= _linear(f"{name}.conv{index + 1}", *shape, bias=False)
                shapes |= _batch_norm(f"{name}.bn{index + 1}", shape[0])
            if block == 0:
                shapes |= _linear(f"{name}.downsample.0", 4 * planes, channels, 1, 1, bias=False)
                shapes |= _batch_norm(f"{name}.downsample.1", 4 * planes)
            channels = 4 * planes
    shapes |= {"visual.attnpool.positional_embedding": ((image_size // 32) ** 2 + 1, channels)}
    for part in "qkv":
        shapes |= _linear(f"visual.attnpool.{part}_proj", channels, channels)
    shapes |= _linear("visual.attnpool.c_proj", embed_dim, channels)
    return shapes | _text_shapes(embed_dim, text_width, text_layers, vocab_size)


def _generator_shapes():
    decoder, width = "pixel_decoder", HIDDEN_DIM
    shapes = {f"{decoder}.transformer.level_embed": (3, width)}
    for level, channels in enumerate(reversed(HIDDEN_SIZES[1:])):
        shapes |= _linear(f"{decoder}.input_proj.{level}.0", width, channels, 1, 1)
        shapes |= _norm(f"{decoder}.input_proj.{level}.1", width)
    layer = f"{decoder}.transformer.encoder.layers.0"
    shapes |= _linear(f"{layer}.self_attn.sampling_offsets", HEADS * 3 * 4 * 2, width)
    shapes |= _linear(f"{layer}.self_attn.attention_weights", HEADS * 3 * 4, width)
    shapes |= _linear(f"{layer}.self_attn.value_proj", width, width)
    shapes |= _linear(f"{layer}.self_attn.output_proj", width, width)
    shapes |= _norm(f"{layer}.norm1", width) | _norm(f"{layer}.norm2", width)
    shapes |= _linear(f"{layer}.linear1", ENCODER_FEED_FORWARD, width)
    shapes |= _linear(f"{layer}.linear2", width, ENCODER_FEED_FORWARD)
    shapes |= _linear(f"{decoder}.mask_features", width, width, 1, 1)
    shapes |= _linear(f"{decoder}.adapter_1", width, HIDDEN_SIZES[0], 1, 1, bias=False)
    shapes |= _linear(f"{decoder}.layer_1", width, width, 3, 3, bias=False)
    shapes |= _norm(f"{decoder}.adapter_1.norm", width) | _norm(f"{decoder}.layer_1.norm", width)
    predictor = "predictor"
    shapes |= {f"{predictor}.logit_scale": (), f"{predictor}.level_embed.weight": (3, width)}
    shapes |= {f"{predictor}.query_{kind}.weight": (NUM_QUERIES, width) for kind in ("feat", "embed")}
    for index in range(DECODER_LAYERS):
        for kind, module in (("self", "self_attn"), ("cross", "multihead_attn")):
            name = f"{predictor}.transformer_{kind}_attention_layers.{index}"
            shapes |= _attention(f"{name}.{module}", width) | _norm(f"{name}.norm", width)
        name = f"{predictor}.transformer_ffn_layers.{index}"
        shapes |= _linear(f"{name}.linear1", FEED_FORWARD, width) | _linear(f"{name}.linear2", width, FEED_FORWARD)
        shapes |= _norm(f"{name}.norm", width)
    shapes |= _norm(f"{predictor}.decoder_norm", width) | _norm(f"{predictor}._mask_pooling_proj.0", width)
    shapes |= _linear(f"{predictor}._mask_pooling_proj.1", width, width)
    for head, out in (("mask_embed", width), ("class_embed", EMBED_DIM)):
        for index, rows in enumerate((width, width, out)):
            shapes |= _linear(f"{predictor}.{head}.layers.{index}", rows, width)
    return shapes


def _adapter_shapes():
    shapes = _linear("fuse", ADAPTER_SIZE, EMBED_DIM, 1, 1) | _linear("final", NUM_MAPS, ADAPTER_SIZE, 1, 1)
    for block in ("cnext1", "cnext2", "cnext3"):
        shapes |= {f"{block}.gamma": (ADAPTER_SIZE,)} | _linear(f"{block}.dwconv", ADAPTER_SIZE, 1, 7, 7)
        shapes |= _norm(f"{block}.norm", ADAPTER_SIZE) | _linear(f"{block}.pwconv1", 4 * ADAPTER_SIZE, ADAPTER_SIZE)
        shapes |= _linear(f"{block}.pwconv2", ADAPTER_SIZE, 4 * ADAPTER_SIZE)
    shapes |= _norm("norm", ADAPTER_SIZE)
    shapes |= _linear("mask_downscaling.0", MASK_CHANNELS // 4, 1, 3, 3) | _norm(
        "mask_downscaling.1", MASK_CHANNELS // 4
    )
    shapes |= _linear("mask_downscaling.3", MASK_CHANNELS, MASK_CHANNELS // 4, 3, 3)
    shapes |= _norm("mask_downscaling.4", MASK_CHANNELS)
    return shapes | _linear("mask_downscaling.6", EMBED_DIM, MASK_CHANNELS, 1, 1)


def _transfer_shapes():
    shapes = _attention("cross_atten.multihead_attn", EMBED_DIM) | _norm("cross_atten.norm", EMBED_DIM)
    return shapes | _linear("cross_atten.MLP", EMBED_DIM, EMBED_DIM)


def _random(shapes, prefix, seed):
    generator = torch.Generator().manual_seed(seed)
    return {prefix + key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def openclip(mlp_head=True, prefix=""):
    """State dict of an OpenCLIP ConvNeXt CLIP."""
    return _random(convnext_clip_shapes(head_width=28 if mlp_head else None), prefix, seed=0)


def openai_resnet():
    """State dict of a ResNet CLIP: values of a size that a network of some depth bears, and counters."""
    shapes = resnet_clip_shapes(8, [2, 1, 1, 1], EMBED_DIM, 64, TEXT_WIDTH, TEXT_LAYERS, VOCAB_SIZE)
    state = {}
    for key, tensor in _random(shapes, "", seed=6).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var"):
            state[key] = 1 + tensor.abs()
        else:
            state[key] = tensor / max(tensor[0].numel(), 1) ** 0.5 if tensor.ndim > 1 else tensor
    return state


def fcclip():
    """State dict of FC-CLIP without adapter, with an entry that its files hold beside the model."""
    state = openclip(prefix="backbone.clip_model.") | _random(_generator_shapes(), "sem_seg_head.", seed=1)
    return (
        state | _random({"void_embedding.weight": (1, EMBED_DIM)}, "", 2) | {"criterion.empty_weight": torch.ones(134)}
    )


def warmup():
    """State dict of a warm-up checkpoint."""
    state = openclip(prefix="backbone.clip_model.") | _random(_adapter_shapes(), "mask_adapter.", seed=3)
    return state | _random({"void_embedding.weight": (1, EMBED_DIM)}, "", 4)


def fcclip_adapter():
    """State dict of FC-CLIP with Mask-Adapter."""
    return fcclip() | {key: tensor for key, tensor in warmup().items() if key.startswith("mask_adapter.")}


def transfer():
    """MAFT+'s part of a state dict."""
    return _random(_transfer_shapes(), "cdt.", seed=5)


def maft_plus():
    """State dict of MAFT+ without adapter, with an entry of the teacher that its files may hold beside the model."""
    teacher = openclip(prefix="backbone_t.clip_model.")
    key = "backbone_t.clip_model.logit_scale"
    return (
        {name: tensor for name, tensor in fcclip().items() if "criterion" not in name}
        | transfer()
        | {key: teacher[key]}
    )


def maft_plus_adapter():
    """State dict of MAFT+ with Mask-Adapter."""
    return fcclip_adapter() | transfer()


def maft_plus_warmup():
    """State dict of a warm-up checkpoint on MAFT+."""
    return warmup() | transfer()
