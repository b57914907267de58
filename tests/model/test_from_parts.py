"""A model put together from its parts."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterModel
from hf_maskadapter.model.mask_embedding import geometric_ensemble
from support import tiny_generators, tiny_models

from_parts = MaskAdapterForOpenVocabularySegmentation.from_parts


@pytest.fixture(scope="module")
def segmenter():
    return tiny_models.segmenter()


@pytest.fixture(scope="module")
def vocabulary(segmenter):
    return segmenter.encode_vocabulary(["cat, kitten", "sky", "grass"], tiny_models.CharacterTokenizer())


def test_parts_of_a_model_make_the_same_model(segmenter, vocabulary):
    model = from_parts(
        segmenter.clip,
        segmenter.mask_generator,
        segmenter.adapter,
        void_embedding=segmenter.void_embedding,
    )
    assert model.clip is segmenter.clip
    assert model.config.num_output_maps == segmenter.config.num_output_maps
    with torch.no_grad():
        pixel_values = torch.randn(1, 3, 64, 64)
        expected, found = segmenter(pixel_values, vocabulary), model(pixel_values, vocabulary)
    torch.testing.assert_close(found.class_queries_logits, expected.class_queries_logits)


def test_every_parameter_is_there_and_finite():
    model = from_parts(tiny_models.clip(), tiny_generators.eomt(), "new", num_output_maps=3, hidden_size=24)
    assert isinstance(model.adapter, MaskAdapterModel)
    assert model.adapter.final.out_channels == 3
    assert not model.training
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.device.type == "cpu"
        assert tensor.isfinite().all()


def test_a_clip_of_transformers_is_wrapped():
    model = from_parts(tiny_models.TINY_CLIPS["clip"]().model)
    assert (model.config.clip_config.model_type, model.adapter) == ("vit_clip", None)
    with pytest.raises((ValueError, TypeError), match=r"DenseClipModel|wrap"):
        from_parts(tiny_generators.sam_model())


def test_without_adapter_masks_are_pooled(vocabulary):
    model = from_parts(tiny_models.clip(), tiny_models.generator())
    assert (model.adapter, model.config.mask_embedding) == (None, "pooling")
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64), vocabulary).class_queries_logits.isfinite().all()


def test_without_generator_masks_come_from_the_caller(vocabulary):
    model = from_parts(tiny_models.clip(), adapter=tiny_models.adapter())
    with pytest.raises(ValueError, match="no mask generator"):
        model(torch.randn(1, 3, 64, 64), vocabulary)


def test_void_is_as_probable_as_the_generator_says(vocabulary):
    model = from_parts(tiny_models.clip(), tiny_generators.mask2former(), tiny_models.adapter())
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 64), vocabulary)
    probabilities = outputs.class_queries_logits.exp()
    void = outputs.generator_output.void_probabilities
    torch.testing.assert_close(probabilities[..., -1], void, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones_like(void), atol=1e-5, rtol=1e-5)
    classes = outputs.out_vocabulary_logits[..., :-1].softmax(dim=-1) * (1 - void[..., None])
    torch.testing.assert_close(probabilities[..., :-1], classes, atol=1e-6, rtol=1e-5)


def test_no_in_vocabulary_branch_is_an_ensemble_of_weight_one(segmenter, vocabulary):
    """With alpha = beta = 1 the classes are the adapter's alone, whatever the in-vocabulary branch says of them."""
    torch.manual_seed(0)
    inside, outside = torch.randn(2, 1, 4, 4).unbind()
    alone = segmenter.ensemble(None, outside, vocabulary)
    both = geometric_ensemble(inside, outside, torch.ones(1, 1, 3))
    torch.testing.assert_close(both[..., :-1].softmax(dim=-1), alone[..., :-1].softmax(dim=-1), atol=1e-5, rtol=1e-4)
    void = inside.softmax(dim=-1)[..., -1]
    torch.testing.assert_close(segmenter.ensemble(None, outside, vocabulary, void_probabilities=void), both)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: (tiny_models.clip(), tiny_generators.sam_model()), "SamModel is no mask generator: wrap it"),
        (lambda: (tiny_models.clip(), None, tiny_models.generator()), 'must be a MaskAdapterModel, "new" or None'),
        (lambda: (tiny_models.clip(), None, tiny_models.adapter(embed_dim=8, clip_config=None)), "must equal"),
        (lambda: (tiny_models.clip(hidden_sizes=[8, 8, 8, 8]), tiny_models.generator()), "must equal the CLIP's"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match=message):
        from_parts(*parts())


def test_unknown_fields_and_text_transfers_are_refused():
    with pytest.raises(ValueError, match="num_maps: no field"):
        from_parts(tiny_models.clip(), num_maps=3)
    with pytest.raises(ValueError, match="convert a MAFT"):
        from_parts(tiny_models.clip(), text_transfer=True)
