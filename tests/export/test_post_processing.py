"""NumPy's post-processing against the one in PyTorch, on random outputs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_maskadapter import Vocabulary, VocabularyClass
from hf_maskadapter.export.post_processing import (
    PictureMasks,
    Thresholds,
    find_segments,
    label_map,
    pooling_weights,
    resize_masks,
)
from hf_maskadapter.model import mask_embedding
from hf_maskadapter.model.post_processing_maskadapter import post_process_semantic_segmentation, segment

VOCABULARY = Vocabulary(tuple(VocabularyClass(name, (name,), name < "d") for name in "abcdef"))
SIZES = [((40, 64), (40, 56), (75, 101)), ((64, 32), (61, 32), (120, 63)), ((32, 32), (32, 32), (32, 32))]


def random_outputs(padded, image, seed=0, num_masks=9):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_masks, 3, 4, generator=generator) * 6
    masks = torch.nn.functional.interpolate(coarse[None], size=(padded[0] // 4, padded[1] // 4), mode="bicubic")[0]
    return SimpleNamespace(
        class_queries_logits=torch.randn(1, num_masks, len(VOCABULARY) + 1, generator=generator) * 2,
        masks_queries_logits=masks[None],
        image_sizes=torch.tensor([image]),
        padded_size=torch.tensor(padded),
        mask_embeddings=torch.randn(1, num_masks, 5, generator=generator),
    )


def numpy_inputs(outputs, padded, image, wanted):
    masks = outputs.masks_queries_logits[0].numpy()
    return outputs.class_queries_logits[0].numpy(), PictureMasks(masks, padded, image, wanted, np.arange(len(masks)))


@pytest.mark.parametrize(("padded", "image", "wanted"), SIZES)
def test_label_maps_are_those_of_pytorch(padded, image, wanted):
    outputs = random_outputs(padded, image)
    expected = post_process_semantic_segmentation(outputs, [wanted])[0].numpy()
    assert (label_map(*numpy_inputs(outputs, padded, image, wanted)) == expected).mean() >= 0.999


@pytest.mark.parametrize("task", ["panoptic", "instance"])
@pytest.mark.parametrize(("padded", "image", "wanted"), SIZES)
def test_segments_are_those_of_pytorch(task, padded, image, wanted):
    outputs = random_outputs(padded, image, seed=3)
    (expected,) = segment(
        outputs, task, VOCABULARY, [wanted], threshold=0.05, overlap_mask_area_threshold=0.5, top_k=12
    )
    class_logits, masks = numpy_inputs(outputs, padded, image, wanted)
    embeddings = torch.nn.functional.normalize(outputs.mask_embeddings[0], dim=-1).numpy()
    found = find_segments(class_logits, masks, embeddings, task, VOCABULARY, Thresholds(0.05, 0.5, 12))
    assert len(found) == len(expected) > 0
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(
        np.stack([one.embedding for one in found]), np.stack([one.embedding for one in expected]), atol=1e-6
    )
    assert (found.masks == expected.masks).mean() >= 0.999


def test_a_label_map_without_masks_is_of_the_first_class():
    masks = PictureMasks(np.zeros((0, 8, 8), np.float32), (32, 32), (32, 32), (20, 30), np.arange(0))
    assert (label_map(np.zeros((0, 7), np.float32), masks) == np.zeros((20, 30))).all()


@pytest.mark.parametrize("form", ["hard", "area", "any"])
@pytest.mark.parametrize("size", [(5, 7), (10, 15), (24, 24)])
def test_pooling_weights_are_those_of_pytorch(form, size):
    masks = torch.rand(4, 24, 30, generator=torch.Generator().manual_seed(0))
    expected = mask_embedding.pooling_weights(masks[None], size, form)[0].numpy()
    np.testing.assert_allclose(pooling_weights(masks.numpy(), size, form, 0.5), expected, atol=1e-6)


def test_masks_are_resized_as_by_pytorch():
    masks = torch.rand(2, 12, 17, generator=torch.Generator().manual_seed(0))
    expected = mask_embedding.resize_masks(masks[None], (31, 8))[0].numpy()
    np.testing.assert_allclose(resize_masks(masks.numpy(), (31, 8)), expected, atol=1e-6)
