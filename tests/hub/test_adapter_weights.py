"""Adapter-only weights attach to a base model by its name."""

import json

import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.hub.adapter_weights import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_WEIGHTS_NAME,
    add_adapter,
    attach_adapter_weights,
    load_with_adapter,
    save_adapter_weights,
)
from support import tiny_models


@pytest.fixture
def base_dir(tmp_path):
    """A plain pooling model."""
    tiny_models.segmenter(use_adapter=False).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def trained(base_dir):
    """The base with an adapter of unusual size and another void embedding."""
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(base_dir).eval()
    torch.manual_seed(7)
    add_adapter(model, hidden_size=40, num_output_maps=3, mask_threshold=0.45, ensemble_alpha=0.6)
    with torch.no_grad():
        model.void_embedding.normal_()
    return model


def predict(model):
    vocabulary = model.encode_vocabulary(["cat", "sky", "tree"], tiny_models.CharacterTokenizer())
    pixel_values = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(pixel_values, vocabulary).class_queries_logits


def test_attached_to_their_base_they_are_the_trained_model(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    loaded = load_with_adapter(tmp_path / "adapter")
    assert not loaded.training
    assert torch.equal(predict(loaded), predict(trained))
    assert (loaded.config.mask_threshold, loaded.config.ensemble_alpha) == (0.45, 0.6)


def test_the_loaded_model_is_saved_and_loaded_like_any_other(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    load_with_adapter(tmp_path / "adapter").save_pretrained(tmp_path / "whole")
    whole = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(predict(whole), predict(trained))


def test_they_hold_nothing_else(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [ADAPTER_WEIGHTS_NAME, ADAPTER_CONFIG_NAME]
    size = (tmp_path / "adapter" / ADAPTER_WEIGHTS_NAME).stat().st_size
    assert size < 0.5 * (base_dir / "model.safetensors").stat().st_size


def test_they_replace_an_adapter_of_another_size(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    other = MaskAdapterForOpenVocabularySegmentation.from_pretrained(base_dir).eval()
    attach_adapter_weights(add_adapter(other, hidden_size=16), tmp_path / "adapter")
    assert torch.equal(predict(other), predict(trained))


def test_a_base_in_half_precision_is_recognized(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    loaded = load_with_adapter(tmp_path / "adapter", dtype=torch.bfloat16)
    assert loaded.adapter.fuse.weight.dtype == torch.bfloat16


def test_another_base_is_an_error_and_stays_as_it_is(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    torch.manual_seed(3)
    other = MaskAdapterForOpenVocabularySegmentation(tiny_models.segmenter_config(use_adapter=False))
    with pytest.raises(ValueError, match=f"another CLIP .* {base_dir}"):
        attach_adapter_weights(other, tmp_path / "adapter")
    assert other.adapter is None
    assert not other.config.use_adapter


def test_damaged_weights_are_an_error(trained, base_dir, tmp_path):
    save_adapter_weights(trained, tmp_path / "adapter", str(base_dir))
    path = tmp_path / "adapter" / ADAPTER_CONFIG_NAME
    description = json.loads(path.read_text())
    description["adapter"]["hidden_size"] = 24
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="do not fit its configuration"):
        load_with_adapter(tmp_path / "adapter")


def test_a_folder_without_weights_is_an_error(base_dir):
    with pytest.raises(FileNotFoundError, match="holds no adapter weights"):
        load_with_adapter(base_dir)


def test_a_model_without_an_adapter_has_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="no adapter"):
        save_adapter_weights(tiny_models.segmenter(use_adapter=False), tmp_path, "base")
    assert list(tmp_path.iterdir()) == []


def test_a_new_adapter_takes_only_the_adapters_fields():
    model = tiny_models.segmenter(use_adapter=False)
    with pytest.raises(ValueError, match="mask_pooling: no field of an adapter"):
        add_adapter(model, mask_pooling="area")
    with pytest.raises(ValueError, match="multiple of 4"):
        add_adapter(model, mask_channels=3)
    assert model.adapter is None
    assert model.config.mask_channels == 16
    assert not model.config.use_adapter
