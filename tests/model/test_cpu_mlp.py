"""ConvNeXt blocks for inference on a CPU: packed weights, bfloat16, and what must not notice any of it."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from hf_maskadapter import (
    ConvNextClipModel,
    MaskAdapterForOpenVocabularySegmentation,
    load_model,
    load_segmenter,
    use_int8,
)
from hf_maskadapter.model import cpu_mlp
from hf_maskadapter.model.cpu_mlp import SWITCH, Trial, packing_trials, prepare_mlp, rows_at_a_time
from hf_maskadapter.model.modeling_clip_convnext import ConvNextBlock
from hf_maskadapter.model.modeling_text_classifier import EncodedVocabulary, open_vocabulary_logits
from support import tiny_models

WAYS = {"modules": "0", "onednn": "onednn", "mkl": "mkl", "fastest": "1"}
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def computes(monkeypatch):
    """Choose how the layers are computed."""
    return lambda way: monkeypatch.setenv(SWITCH, WAYS[way])


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block(channels: int = 12, **options) -> ConvNextBlock:
    torch.manual_seed(0)
    made = ConvNextBlock(channels, layer_scale_init_value=0.5, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def exact(made: ConvNextBlock, features: torch.Tensor) -> torch.Tensor:
    """The formula of arXiv 2201.03545 in double precision, written out."""
    weights = {name: parameter.detach().double() for name, parameter in made.named_parameters()}
    padded = nn.functional.pad(features.double(), (3, 3, 3, 3))
    height, width = features.shape[-2:]
    mixed = weights["depthwise_conv.bias"][:, None, None].repeat(1, height, width)
    for row in range(7):
        for column in range(7):
            kernel = weights["depthwise_conv.weight"][:, 0, row, column, None, None]
            mixed = mixed + kernel * padded[..., row : row + height, column : column + width]
    centered = mixed - mixed.mean(dim=1, keepdim=True)
    normed = centered / (centered.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    normed = normed.permute(0, 2, 3, 1) * weights["norm.weight"] + weights["norm.bias"]
    hidden = normed @ weights["pointwise_conv1.weight"].T + weights["pointwise_conv1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    hidden = hidden @ weights["pointwise_conv2.weight"].T + weights["pointwise_conv2.bias"]
    return features.double() + (weights["layer_scale"] * hidden).permute(0, 3, 1, 2)


@every_way
@pytest.mark.parametrize("shape", [(1, 12, 5, 7), (2, 12, 3, 4), (1, 12, 40, 33), (0, 12, 4, 4), (1, 12, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_block_computes_the_published_formula(computes, way, shape, layout):
    computes(way)
    made, features = block(), random(*shape).contiguous(memory_format=layout)
    before = features.clone()
    with torch.no_grad():
        result = made(features)
    torch.testing.assert_close(result.double(), exact(made, features), rtol=1e-5, atol=1e-5)
    assert torch.equal(features, before), "inputs are not written to"


def test_packing_is_tried_on_this_machine():
    """Where this fails, PyTorch's private operations are not what they were."""
    assert packing_trials(torch.float32)["onednn"].is_right
    assert packing_trials(torch.bfloat16)["onednn"].is_right
    assert packing_trials(torch.float32)["mkl"].is_right == torch.backends.mkl.is_available()


@every_way
@pytest.mark.parametrize(("hidden_act", "at_most"), [("gelu", 1e-5), ("gelu_pytorch_tanh", 1e-5), ("relu", 1e-5)])
def test_any_activation_is_computed(computes, way, hidden_act, at_most):
    computes(way)
    made, features = block(hidden_act=hidden_act), random(1, 12, 9, 8)
    with torch.no_grad():
        found = made(features)
    expected = made(features).detach()  # with gradients the modules compute
    assert (found - expected).abs().max() <= at_most


@every_way
def test_the_computation_follows_every_change_of_the_weights(computes, way):
    computes(way)
    made, features = block(), random(1, 12, 6, 6)
    other = block()
    with torch.no_grad():
        made(features)
        other.pointwise_conv1.weight.mul_(-1.5)
        torch.testing.assert_close(other(features).double(), exact(other, features), rtol=1e-5, atol=1e-5)
        made.load_state_dict(other.state_dict())
        torch.testing.assert_close(made(features), other(features))
        made.pointwise_conv2.weight.data.zero_()
        made.pointwise_conv2.bias.data.zero_()
        assert torch.equal(made(features), features)
        double = made.to(torch.float64)(features.double())
    assert torch.equal(double, features.double())


@every_way
def test_inference_leaves_the_modules_as_they_were(computes, way):
    computes(way)
    made, features = block(), random(1, 12, 6, 6)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    attributes = set(vars(made))
    with torch.inference_mode():
        result = made(features)
    assert set(vars(made)) == attributes
    assert made.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    with torch.no_grad():
        for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert torch.equal(copied(features), result)
    trained = made.train()(features.requires_grad_())
    trained.sum().backward()
    assert made.pointwise_conv1.weight.grad.abs().sum() > 0
    torch.testing.assert_close(trained.detach(), result, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["depthwise_conv", "norm", "pointwise_conv1", "activation", "pointwise_conv2"])
def test_hooks_see_whole_pictures(computes, name):
    computes("onednn")
    made, features = block(), random(2, 12, 40, 33)
    seen = []
    with torch.no_grad():
        expected = made(features)
        made.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
        result = made(features)
    assert len(seen) == 1
    assert seen[0] % features.numel() == 0
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_layers_of_other_classes_compute_as_they_stand(computes):
    computes("onednn")

    class Doubled(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    made, features = block(), random(1, 12, 6, 6)
    doubled = Doubled(48, 12)
    doubled.load_state_dict(made.pointwise_conv2.state_dict())
    with torch.no_grad():
        once = made(features) - features
        made.pointwise_conv2 = doubled
        torch.testing.assert_close(made(features) - features, 2 * once, rtol=1e-4, atol=1e-5)


@every_way
def test_compiled_and_exported_models_hold_public_operations_alone(computes, way):
    computes(way)
    made, features = block(), random(1, 12, 6, 6)
    with torch.no_grad():
        program = torch.export.export(made, (features,))
        names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert not [name for name in names if "mkldnn" in name or "onednn" in name]
        torch.testing.assert_close(program.module()(features), made(features), rtol=1e-5, atol=1e-5)
        compiled = torch.compile(made, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(features), made(features), rtol=1e-5, atol=1e-5)


def test_chunks_are_all_of_about_the_same_size():
    assert [len(chunk) for chunk in random(1030, 2).split(rows_at_a_time(1030))] == [344, 344, 342]
    assert rows_at_a_time(512) == 512
    assert rows_at_a_time(513) == 257
    assert rows_at_a_time(0) == 1


class TestTrial:
    @pytest.fixture(autouse=True)
    def fresh(self):
        cpu_mlp._packing_trials.cache_clear()
        yield
        cpu_mlp._packing_trials.cache_clear()

    def layers(self):
        return nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512)

    def is_packed(self) -> bool:
        with torch.no_grad():
            return isinstance(prepare_mlp(*self.layers(), rows=8), cpu_mlp._OneDnnMlp | cpu_mlp._MklMlp)

    def test_wrong_results_are_not_used(self, monkeypatch, computes):
        computes("onednn")
        assert self.is_packed()
        cpu_mlp._packing_trials.cache_clear()
        compute = cpu_mlp._OneDnnMlp.__call__
        monkeypatch.setattr(cpu_mlp._OneDnnMlp, "__call__", lambda self, tokens: 1.001 * compute(self, tokens))
        assert not self.is_packed()

    def test_a_wish_for_rough_products_is_respected(self, computes):
        computes("fastest")
        assert self.is_packed()
        tokens, layers = random(64, 512), self.layers()
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("medium")
            with torch.no_grad():
                usual = layers[2](layers[1](layers[0](tokens)))
                assert torch.allclose(prepare_mlp(*layers, rows=64)(tokens), usual, atol=1e-5)
        finally:
            torch.set_float32_matmul_precision(before)

    def test_a_missing_operation_is_no_error(self, monkeypatch, computes):
        computes("onednn")

        def missing(layers, rows):
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

        monkeypatch.setitem(cpu_mlp._WAYS, "onednn", missing)
        assert not self.is_packed()

    @pytest.mark.parametrize("version", ["2.5.1", "2.99.0+cpu", "3.0.0a0"])
    def test_unknown_versions_of_pytorch_are_not_tried(self, monkeypatch, computes, version):
        computes("onednn")
        monkeypatch.setattr(torch, "__version__", version)
        assert not self.is_packed()

    @pytest.mark.parametrize(("seconds", "is_packed"), [(0.8, True), (1.0, False), (2.0, False)])
    def test_less_time_decides(self, monkeypatch, seconds, is_packed):
        monkeypatch.delenv(SWITCH, raising=False)
        monkeypatch.setattr(cpu_mlp, "_compare", lambda *arguments: Trial(True, seconds, 1.0))
        assert self.is_packed() == is_packed

    def test_the_switch_forbids_it(self, monkeypatch, computes):
        computes("modules")
        monkeypatch.setattr(cpu_mlp, "_compare", lambda *arguments: Trial(True, 0.1, 1.0))
        assert not self.is_packed()


class TestBfloat16:
    def test_sums_over_the_blocks_keep_their_bits(self):
        clip = ConvNextClipModel(tiny_models.clip_config(depths=[2, 2, 12, 2])).eval()
        pixels = random(1, 3, 64, 96)
        with torch.no_grad():
            right = clip.get_feature_maps(pixels)
            half = copy.deepcopy(clip).bfloat16()
            found = half.get_feature_maps(pixels)
            with torch.autocast("cpu", enabled=False):
                features = half.vision_model.stem(pixels.bfloat16())
                rounded = []
                for stage in half.vision_model.stages:
                    features = stage(features)
                    rounded.append(features)
        assert {features.dtype for features in found} == {torch.float32}
        assert {features.dtype for features in rounded} == {torch.bfloat16}
        errors = [(maps[-1].float() - right[-1]).square().mean().item() for maps in (found, rounded)]
        assert errors[0] < 0.7 * errors[1]

    def test_the_adapter_is_nearer_to_fp32_than_with_rounded_sums(self):
        adapter = tiny_models.adapter().eval()
        features, masks = random(1, tiny_models.EMBED_DIM, 8, 9), (random(1, 6, 32, 36) > 1.0).float()
        with torch.no_grad():
            right = adapter.get_activation_maps(features, masks)
            half = copy.deepcopy(adapter).bfloat16()
            for implementation in ("sparse", "dense"):
                found = half.get_activation_maps(features, masks, implementation)
                assert found.dtype == torch.float32
                assert (found - right).abs().max() <= 0.02 * right.abs().max()

    def test_class_scores_are_cosines_in_fp32(self):
        embeddings, texts = random(1, 5, 16).bfloat16(), nn.functional.normalize(random(7, 16, seed=1), dim=-1)
        vocabulary = EncodedVocabulary(texts, torch.arange(7), torch.zeros(7, dtype=torch.bool))
        logits = open_vocabulary_logits(embeddings, vocabulary, None, torch.tensor(100.0).bfloat16())
        rows = embeddings.double()[0]
        expected = 100 * (rows / rows.norm(dim=-1, keepdim=True)) @ texts.double().T
        torch.testing.assert_close(logits[0].double(), expected, rtol=1e-5, atol=1e-4)

    def test_autocast_computes_as_it_did(self):
        made, features = block(), random(1, 12, 6, 6)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            result = made(features)
            hidden = made.norm(made.depthwise_conv(features)).permute(0, 2, 3, 1)
            expected = features + made.channel_mlp(hidden).permute(0, 3, 1, 2)
        assert torch.equal(result, expected)


class TestWarning:
    """Where a CPU gains nothing, it is said once a model is loaded, and results are the same."""

    @pytest.fixture
    def gains_nothing(self, monkeypatch):
        monkeypatch.setattr(cpu_mlp, "reduced_precision_trial", lambda int8=False: Trial(True, 3.0, 1.0))

    @pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
    @pytest.mark.parametrize("load", [load_model, load_segmenter])
    @pytest.mark.usefixtures("gains_nothing")
    def test_it_names_the_type_and_the_loss(self, load, dtype):
        with pytest.warns(UserWarning, match=rf"gains nothing by {dtype}: in a trial, it took 3\.0 times as long"):
            load(dtype=dtype, device="cpu")

    @pytest.mark.usefixtures("gains_nothing")
    def test_float32_is_not_warned_about(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_model()

    @pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
    def test_a_cpu_that_gains_is_not_warned_about(self, monkeypatch, dtype):
        monkeypatch.setattr(cpu_mlp, "reduced_precision_trial", lambda int8=False: Trial(True, 0.3, 1.0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_model(dtype=dtype)

    def test_wrong_results_are_told(self, monkeypatch):
        monkeypatch.setattr(cpu_mlp, "reduced_precision_trial", lambda int8=False: Trial(False))
        with pytest.warns(UserWarning, match="int8 gives wrong results on this CPU"):
            load_model(dtype="int8")


def test_saving_a_model_that_computes_in_int8_saves_its_weights(tmp_path):
    model = tiny_models.segmenter()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_int8(model)
    vocabulary = model.encode_vocabulary(["cat"], tiny_models.CharacterTokenizer())
    with torch.no_grad():
        model(random(1, 3, 64, 96), vocabulary)
    model.save_pretrained(tmp_path)
    loaded = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert not cpu_mlp.computes_in_int8(loaded)
