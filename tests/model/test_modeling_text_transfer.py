"""MAFT+'s transfer: texts that look at the picture first."""

import pytest
import torch

from support import tiny_models


@pytest.mark.parametrize("panoptic", [False, True])
def test_text_transfer_adapts_the_texts_of_each_picture_and_void_with_them(panoptic):
    changes = {"text_transfer": True, "text_transfer_heads": 2, "text_transfer_panoptic": panoptic}
    model = tiny_models.segmenter(**changes)
    vocabulary = model.encode_vocabulary(["cat", "dog"], tiny_models.CharacterTokenizer())
    features = torch.randn(2, tiny_models.EMBED_DIM, 2, 3)
    with torch.no_grad():
        adapted, void = model.adapt_texts(vocabulary, model.get_void_embeds(), features)
        alone, void_alone = model.adapt_texts(vocabulary, model.get_void_embeds(), features[1:])
        output = model(torch.randn(2, 3, 64, 96), vocabulary)
    assert adapted.text_embeds.shape == (2, 2, tiny_models.EMBED_DIM)
    assert void.shape == (2, 1, tiny_models.EMBED_DIM)
    assert not torch.allclose(adapted.text_embeds[0], adapted.text_embeds[1])
    torch.testing.assert_close(adapted.text_embeds[1:], alone.text_embeds)
    torch.testing.assert_close(void[1:], void_alone)
    assert output.class_queries_logits.shape == (2, 6, 3)
