"""The sparse computation of the adapter's maps: the dense one's values, from fewer tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hf_maskadapter.model.modeling_adapter_maps import _DepthwiseConv, _distinct, sparse_activation_maps
from hf_maskadapter.model.modeling_clip_convnext import ConvNextBlock
from hf_maskadapter.model.post_processing_maskadapter import post_process_panoptic_segmentation
from support import tiny_models

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
"""Largest difference relative to the largest activation: rounding."""


def draw_mask(kind, height, width, generator):
    mask = torch.zeros(height, width)
    row, column = (int(torch.randint(side, (), generator=generator)) for side in (height, width))
    if kind == "full":
        mask.fill_(1)
    elif kind == "pixel":
        mask[row, column] = 1
    elif kind == "border":
        mask[:, 0] = mask[-1] = 1
    elif kind == "box":
        mask[row : row + max(height // 4, 1), column : column + max(width // 4, 1)] = 1
    elif kind == "specks":
        mask = (torch.rand(height, width, generator=generator) > 0.97).float()
    elif kind == "soft":
        mask[row:, :column] = torch.rand(height, width, generator=generator)[row:, :column]
    return mask


KINDS = ["empty", "full", "pixel", "border", "box", "specks", "soft"]


@st.composite
def pictures_with_masks(draw):
    """Features, and masks of some resolution with duplicates among them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    mask_size = draw(st.sampled_from([(4 * height, 4 * width), (8 * height, 8 * width), (23, 41)]))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=7))
    batch_size = draw(st.integers(1, 2))
    masks = [[draw_mask(kind, *mask_size, generator) for kind in kinds] for _ in range(batch_size)]
    masks = [[*of_picture, *of_picture[:2]] for of_picture in masks]
    stacked = torch.stack([torch.stack([torch.zeros(mask_size), *of_picture])[1:] for of_picture in masks])
    features = torch.randn(batch_size, tiny_models.EMBED_DIM, height, width, generator=generator)
    if draw(st.booleans()):
        features = features.transpose(2, 3).contiguous().transpose(2, 3)
        stacked = stacked.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    return features, stacked


def assert_equal_but_for_rounding(actual, expected):
    scale = max(expected.abs().max().item() if expected.numel() else 0, 1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[expected.dtype] * scale)


def both(adapter, *inputs):
    return [adapter.get_activation_maps(*inputs, implementation) for implementation in ("sparse", "dense")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40)
@given(pictures_with_masks())
def test_sparse_maps_equal_dense_maps_whatever_the_masks(dtype, inputs):
    adapter = tiny_models.adapter().to(dtype)
    features, masks = inputs
    with torch.no_grad():
        assert_equal_but_for_rounding(*both(adapter, features.to(dtype), masks))


def spots(num_masks=6, height=24, width=20):
    """One picture's features, and small masks far apart."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(1, num_masks, 8 * height, 8 * width)
    for number in range(num_masks):
        masks[0, number, 20 * number : 20 * number + 9, 15 * number : 15 * number + 12] = 1
    return torch.randn(1, tiny_models.EMBED_DIM, height, width, generator=generator), masks


def count_tokens(adapter):
    """A list that the pointwise layers' numbers of tokens are added to."""
    counted = []
    for block in adapter.blocks:
        block.pointwise_conv1.register_forward_hook(
            lambda module, inputs, output: counted.append(output.numel() // output.shape[-1])
        )
    return counted


@torch.no_grad()
def tokens_of(adapter, *inputs, **options):
    counted = count_tokens(adapter)
    adapter(*inputs, **options)
    return sum(counted)


@pytest.mark.parametrize(("kernel_size", "num_blocks"), [(3, 2), (5, 1), (9, 2), (7, 0)])
def test_the_reach_of_masks_comes_from_the_kernels_and_the_number_of_blocks(kernel_size, num_blocks):
    adapter = tiny_models.adapter()
    width = adapter.config.hidden_size
    adapter.blocks = torch.nn.ModuleList(
        ConvNextBlock(width, kernel_size, layer_scale_init_value=0.5) for _ in range(num_blocks)
    )
    with torch.no_grad():
        assert_equal_but_for_rounding(*both(adapter, *spots()))


def test_small_masks_need_few_tokens_and_empty_and_repeated_ones_none():
    adapter = tiny_models.adapter()
    features, masks = spots()
    positions, num_blocks = features[0, 0].numel(), len(adapter.blocks)
    dense = tokens_of(adapter, features, masks, adapter_implementation="dense")
    assert dense == masks.shape[1] * positions * num_blocks
    sparse = tokens_of(tiny_models.adapter(), features, masks)
    assert sparse < 0.6 * dense
    padded = torch.cat([masks, torch.zeros_like(masks), masks], dim=1)
    assert tokens_of(tiny_models.adapter(), features, padded) == sparse
    empty = tokens_of(tiny_models.adapter(), features, torch.zeros_like(masks))
    assert empty == positions * num_blocks


def test_no_more_tokens_than_the_receptive_field_holds():
    adapter = tiny_models.adapter()
    features, _ = spots()
    height, width = features.shape[2:]
    masks = torch.zeros(1, 4, 4 * height, 4 * width)
    masks[:, :, 48, 40] = 1  # the encoder's own reach is one position here
    masks *= torch.arange(1, 5)[:, None, None] / 4
    of_reference = height * width * len(adapter.blocks)
    windows = sum((1 + 2 * 3 * block) ** 2 for block in range(1, len(adapter.blocks) + 1))
    assert tokens_of(adapter, features, masks) == of_reference + 4 * windows


def test_sparse_for_inference_and_training_and_dense_where_masks_want_gradients_or_are_few():
    inputs = spots()
    dense = tokens_of(tiny_models.adapter(), *inputs, adapter_implementation="dense")

    def counted(adapter, features, masks):
        tokens = count_tokens(adapter)
        adapter(features, masks)
        return sum(tokens)

    assert counted(tiny_models.adapter().train(), *inputs) < dense
    assert counted(tiny_models.adapter().requires_grad_(False), *inputs) < dense
    with_gradients = inputs[1].clone().requires_grad_()
    assert counted(tiny_models.adapter(), inputs[0], with_gradients) == dense
    with torch.inference_mode():
        assert counted(tiny_models.adapter(), *inputs) < dense
        assert counted(tiny_models.adapter(adapter_implementation="dense"), *inputs) == dense
        few = counted(tiny_models.adapter(), inputs[0], inputs[1][:, :2])
    assert few == dense / 3


def test_masks_that_want_gradients_get_them():
    adapter, (features, masks) = tiny_models.adapter(), spots()
    masks.requires_grad_()
    adapter.get_activation_maps(features, masks).square().sum().backward()
    assert (masks.grad != 0).any()


def test_weights_that_hooks_fetch_for_each_module_are_computed_densely():
    accelerate = pytest.importorskip("accelerate")
    adapter, inputs = tiny_models.adapter(), spots()
    with torch.no_grad():
        expected = adapter.get_activation_maps(*inputs, "dense")
        accelerate.cpu_offload(adapter, execution_device="cpu")
        assert all(parameter.is_meta for parameter in adapter.parameters())
        assert_equal_but_for_rounding(adapter(*inputs).semantic_activation_maps, expected)


def masks_of_all_kinds():
    """One picture's features, and masks far apart, full, empty and repeated."""
    features, masks = spots()
    return features, torch.cat([masks, torch.ones_like(masks[:, :1]), torch.zeros_like(masks[:, :1]), masks[:, :1]], 1)


def gradients_of(adapter, features, masks, implementation, autocast=False):
    features = features.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        maps = adapter.get_activation_maps(features, masks, implementation)
    weights = torch.arange(maps.numel(), dtype=torch.float64).cos().view_as(maps)
    (maps.double().sigmoid() * weights).sum().backward()
    return [features.grad, *(parameter.grad for parameter in adapter.parameters())]


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_sparse_gradients_equal_dense_ones(reentrant):
    features, masks = masks_of_all_kinds()
    found, expected = (
        tiny_models.adapter().double().train(),
        tiny_models.adapter().double().train(),
    )
    if reentrant is not None:
        found.activation_checkpointing_enable({"use_reentrant": reentrant})
    sparse = gradients_of(found, features.double(), masks, None)
    dense = gradients_of(expected, features.double(), masks, "dense")
    for actual, right in zip(sparse, dense, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-9, atol=1e-10)


def test_chunks_of_tokens_do_not_change_gradients(monkeypatch):
    features, masks = masks_of_all_kinds()
    expected = gradients_of(tiny_models.adapter().double(), features.double(), masks, "sparse")
    monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._POSITIONS_AT_A_TIME_ON_CPU", 1000)
    monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._TOKENS_AT_A_TIME_WITH_GRADIENTS", 100)
    found = gradients_of(tiny_models.adapter().double(), features.double(), masks, "sparse")
    for actual, right in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_in_half_precision_are_as_close_to_single_precision_as_the_dense_way_s(checkpointing):
    inputs = masks_of_all_kinds()
    expected = gradients_of(tiny_models.adapter().train(), *inputs, "dense")
    errors = {}
    for implementation in ("dense", "sparse"):
        adapter = tiny_models.adapter().train()
        if checkpointing:
            adapter.activation_checkpointing_enable({"use_reentrant": False})
        found = gradients_of(adapter, *inputs, implementation, autocast=True)
        assert all(gradient.dtype == torch.float32 for gradient in found)
        errors[implementation] = [
            ((gradient - right).norm() / right.norm()).item() for gradient, right in zip(found, expected, strict=True)
        ]
    for sparse, dense in zip(errors["sparse"], errors["dense"], strict=True):
        assert 0 < sparse < max(2 * dense, 0.02)


@pytest.mark.parametrize(("kernel_size", "batch_size"), [(3, 1), (7, 2)])
def test_the_depthwise_backward_pass_is_that_of_pytorch_and_has_one_itself(kernel_size, batch_size):
    generator = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv2d(3, 3, kernel_size, padding=kernel_size // 2, groups=3).double()
    features = torch.randn(batch_size, 3, 5, 4, dtype=torch.double, generator=generator, requires_grad=True)
    arguments = features, conv.weight, conv.bias

    def convolve(features, weight, bias):
        return _DepthwiseConv.apply(features, weight, bias, kernel_size // 2)

    torch.testing.assert_close(convolve(*arguments), conv(features))
    assert torch.autograd.gradcheck(convolve, arguments)
    assert torch.autograd.gradgradcheck(convolve, arguments)


def test_a_depthwise_convolution_that_was_changed_is_called_as_it_is():
    adapter, (features, masks) = tiny_models.adapter(), spots()
    doubled = tiny_models.adapter()
    with torch.no_grad():
        for block in doubled.blocks:
            block.depthwise_conv.weight.mul_(2)
            block.depthwise_conv.bias.mul_(2)
    for block in adapter.blocks:
        block.depthwise_conv.register_forward_hook(lambda module, inputs, output: 2 * output)
    found, expected = (one.get_activation_maps(features, masks, "sparse") for one in (adapter, doubled))
    assert found.requires_grad
    assert_equal_but_for_rounding(found, expected)


def test_changed_weights_count_at_once():
    adapter = tiny_models.adapter()
    inputs = spots()
    with torch.no_grad():
        before, _ = both(adapter, *inputs)
        for parameter in adapter.parameters():
            parameter.mul_(1.1)
        after, expected = both(adapter, *inputs)
    assert not torch.allclose(before, after, atol=1e-3)
    assert_equal_but_for_rounding(after, expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_as_close_to_single_precision_as_the_dense_way(autocast):
    inputs = spots()
    with torch.no_grad():
        expected = tiny_models.adapter().get_activation_maps(*inputs, "dense")
        adapter = tiny_models.adapter().to(torch.float32 if autocast else torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            sparse, dense = ((maps.float() - expected).abs().mean() for maps in both(adapter, *inputs))
    assert 0 < sparse < 1.5 * dense < 0.02 * expected.abs().max()


def test_groups_of_masks_and_chunks_of_tokens_change_nothing(monkeypatch):
    adapter, (features, masks) = tiny_models.adapter(), spots()
    with torch.no_grad():
        expected = adapter.get_activation_maps(features, masks, "sparse")
        monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._POSITIONS_AT_A_TIME_ON_CPU", 1000)
        monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._TOKENS_AT_A_TIME_ON_CPU", 100)
        assert_equal_but_for_rounding(adapter.get_activation_maps(features, masks, "sparse"), expected)


def storage_of(tensor):
    return tensor.untyped_storage().data_ptr()


class LargestResult(TorchDispatchMode):
    """Remembers the most elements of a tensor that was computed, other than views of the first arguments."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if isinstance(result, torch.Tensor):
            source = args[0] if args else None
            if not isinstance(source, torch.Tensor) or storage_of(result) != storage_of(source):
                self.elements = max(self.elements, result.numel())
        return result


def test_no_tensor_grows_with_the_number_of_masks(monkeypatch):
    monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._MASKS_HASHED_AT_A_TIME", 2)
    adapter, (features, masks) = tiny_models.adapter(), spots()
    hidden_size, positions = adapter.config.hidden_size, features[0, 0].numel()
    monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._POSITIONS_AT_A_TIME_ON_CPU", 2 * positions)
    masks = torch.stack([masks[0, 0, ::2, ::2].roll(number, 0) for number in range(40)])[None]
    largest = []
    for some in (masks[:, :8], masks):
        with torch.no_grad(), LargestResult() as result:
            sparse_activation_maps(adapter, features, some, lambda maps, pictures: maps.mean(dim=(3, 4)))
        largest.append(result.elements)
    assert largest[0] == largest[1]
    assert largest[0] <= max(3, 4) * positions * hidden_size


def test_one_window_for_all_masks_as_on_a_gpu_changes_nothing(monkeypatch):
    adapter, (features, masks) = tiny_models.adapter(), spots()
    with torch.no_grad():
        expected = adapter.get_activation_maps(features, masks, "sparse")
        whole = slice(None), (0, features.shape[2]), (0, features.shape[3])
        monkeypatch.setattr("hf_maskadapter.model.modeling_adapter_maps._windows", lambda touched: [whole])
        assert_equal_but_for_rounding(adapter.get_activation_maps(features, masks, "sparse"), expected)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=40))
def test_distinct_masks_are_each_there_once(kinds):
    originals = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    masks = originals[kinds] if kinds else originals[:0]
    distinct, number = _distinct(masks)
    assert len(distinct) == len(set(kinds))
    assert torch.equal(masks[distinct[number]], masks)


def test_masks_whose_sums_collide_stay_apart(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **options: torch.zeros(size, dtype=torch.long))
    masks = torch.rand(3, 4, 4)[[0, 1, 0, 2]]
    distinct, number = _distinct(masks)
    assert len(distinct) == 3
    assert torch.equal(masks[distinct[number]], masks)


@pytest.mark.parametrize("implementation", ["sparse", "dense"])
def test_embeddings_alone_equal_those_beside_the_maps(implementation):
    adapter, (features, masks) = tiny_models.adapter(), spots()
    dense_features, project = torch.randn(1, 32, *features.shape[2:]), torch.nn.Linear(32, 8)
    inputs = features, masks, dense_features, project
    with torch.no_grad():
        expected = adapter(*inputs, adapter_implementation=implementation)
        alone = adapter(*inputs, adapter_implementation=implementation, output_semantic_activation_maps=False)
    torch.testing.assert_close(alone.mask_embeddings, expected.mask_embeddings)
    assert alone.semantic_activation_maps is None
    assert alone.pooled_features is None


def test_unknown_implementation_and_missing_inputs_get_a_clear_error():
    adapter, inputs = tiny_models.adapter(), spots()
    with pytest.raises(ValueError, match='"auto", "dense" or "sparse"'):
        adapter(*inputs, adapter_implementation="quick")
    with pytest.raises(ValueError, match="need dense_features and project"):
        adapter(*inputs, output_semantic_activation_maps=False)


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_results_are_the_same_without_masks_that_are_void(seed):
    torch.manual_seed(seed)
    model = tiny_models.segmenter(mask_generator_config=tiny_models.generator_config(num_queries=30))
    vocabulary = model.encode_vocabulary(["cat, kitten", "dog", "sky"], tiny_models.CharacterTokenizer())
    pixel_values = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        feature_maps = model.clip.get_feature_maps(pixel_values)
        generated = model.mask_generator(feature_maps, vocabulary, model.get_void_embeds())
        logits = generated.in_vocabulary_logits.copy_(4 * torch.randn(2, 30, 4))
        logits[0, :2] = torch.tensor([[-50.0, -50.0, 0.0, 1e-3], [-50.0, -50.0, 0.0, 1e-2]])  # just above one half
        full, skipped = (
            model(
                pixel_values,
                vocabulary,
                feature_maps=feature_maps,
                generator_output=generated,
                output_semantic_activation_maps=True,
                skip_void_masks=skip,
            )
            for skip in (False, True)
        )
    is_void = logits.softmax(dim=-1)[..., -1] > 0.501
    assert 0 < is_void.sum() < is_void.numel()
    differs = (full.semantic_activation_maps - skipped.semantic_activation_maps).flatten(2).abs().amax(dim=2) > 1e-3
    assert differs[is_void].any()
    assert not differs[~is_void].any()
    stuff = [2]
    expected, actual = (
        post_process_panoptic_segmentation(outputs, overlap_mask_area_threshold=0.1, label_ids_to_fuse=stuff)
        for outputs in (full, skipped)
    )
    assert any(result["segments_info"] for result in expected)
    for one, other in zip(expected, actual, strict=True):
        assert torch.equal(one["segmentation"], other["segmentation"])
        for segment, same in zip(one["segments_info"], other["segments_info"], strict=True):
            assert segment | {"score": 0} == same | {"score": 0}
            assert segment["score"] == pytest.approx(same["score"], abs=1e-5)
