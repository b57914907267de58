"""Universal segmenters of Transformers as class-agnostic mask generators."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import (
    AutoModel,
    EomtImageProcessorPil,
    Mask2FormerImageProcessorPil,
    MaskFormerImageProcessorPil,
    OneFormerImageProcessorPil,
)

from hf_maskadapter import (
    MaskAdapterForOpenVocabularySegmentation,
    UniversalMaskGenerator,
    UniversalMaskGeneratorConfig,
)
from support import tiny_generators, tiny_models

ONEFORMER = {"class_info_file": None, "num_labels": 4, "metadata": {"class_names": [], "thing_ids": []}}


def pixels_of(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


@pytest.fixture(scope="module")
def generator():
    return tiny_generators.mask2former()


@pytest.mark.parametrize(
    ("build", "processor", "extra"),
    [
        (tiny_generators.mask2former, Mask2FormerImageProcessorPil(size=tiny_generators.SIZE), {}),
        (tiny_generators.maskformer, MaskFormerImageProcessorPil(size=tiny_generators.SIZE, size_divisor=32), {}),
        (
            tiny_generators.oneformer,
            OneFormerImageProcessorPil(size=tiny_generators.SIZE, **ONEFORMER),
            {"task_inputs": ["panoptic"]},
        ),
        (
            tiny_generators.eomt,
            EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True),
            {},
        ),
    ],
)
def test_prepares_a_picture_as_its_own_image_processor_does(build, processor, extra, picture):
    prepared, _ = build().prepare(pixels_of(picture))
    expected = processor([picture], **extra, return_tensors="pt")["pixel_values"][0]
    assert prepared.shape == expected.shape
    level = 1 / (255 * min(processor.image_std))
    assert (prepared - expected).abs().max() <= 1.01 * level


def test_oneformer_is_told_its_task():
    tokens = tiny_generators.oneformer().config.task_input_ids
    text = "the task is panoptic"
    assert tokens == [ord(character) for character in text] + [0] * (77 - len(text))


def test_oneformer_without_its_tokenizer_is_an_error():
    with pytest.raises(ValueError, match="give its OneFormerProcessor"):
        UniversalMaskGenerator.from_segmenter(
            tiny_generators.oneformer().segmenter, OneFormerImageProcessorPil(**ONEFORMER)
        )


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="ConvNextClipModel is no universal segmenter"):
        UniversalMaskGenerator.from_segmenter(tiny_models.clip(), Mask2FormerImageProcessorPil())


def test_masks_are_those_of_the_segmenter_on_the_picture_alone(generator, picture):
    pixels = pixels_of(picture)
    padded = (64, 96)
    output = generator([pixels], padded)
    prepared, used = generator.prepare(pixels)
    assert used == (1.0, 1.0)
    with torch.no_grad():
        expected = generator.segmenter(pixel_values=prepared[None])
    cell = output.masks_queries_logits[0, :, 5, 7]  # its centre is at pixel (22, 30) of 60 × 90
    height, width = expected.masks_queries_logits.shape[-2:]
    row, column = 22 / 60 * height - 0.5, 30 / 90 * width - 0.5
    top, left = int(row), int(column)
    around = expected.masks_queries_logits[0, :, top : top + 2, left : left + 2]
    rows = torch.lerp(around[:, 0], around[:, 1], row - top)
    torch.testing.assert_close(cell, torch.lerp(rows[:, 0], rows[:, 1], column - left), rtol=1e-4, atol=1e-4)
    void = expected.class_queries_logits.softmax(dim=-1)[..., -1]
    torch.testing.assert_close(output.void_probabilities, void)


@pytest.mark.parametrize("name", ["mask2former", "oneformer", "eomt"])
def test_a_picture_gets_the_same_masks_alone_and_among_others(name, picture):
    generator = tiny_generators.TINY_GENERATORS[name]()
    pictures = [pixels_of(picture), pixels_of(picture)[:, :40, :50]]
    together = generator(pictures, (64, 96))
    for index, one in enumerate(pictures):
        alone = generator([one], (64, 96))
        torch.testing.assert_close(
            together.masks_queries_logits[index], alone.masks_queries_logits[0], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(together.void_probabilities[index], alone.void_probabilities[0])


def test_void_scores_can_be_left_out(generator, picture):
    fields = {"use_void_scores": False}
    quiet = UniversalMaskGenerator.from_segmenter(generator.segmenter, Mask2FormerImageProcessorPil(), **fields)
    assert quiet([pixels_of(picture)], (64, 96)).void_probabilities is None


def test_loads_by_itself_through_auto_model(generator, tmp_path, picture):
    generator.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    expected = generator([pixels_of(picture)], (64, 96)).masks_queries_logits
    torch.testing.assert_close(loaded.eval()([pixels_of(picture)], (64, 96)).masks_queries_logits, expected)


def test_keeps_single_precision_in_a_half_precision_model(generator, tmp_path):
    model = MaskAdapterForOpenVocabularySegmentation.from_parts(tiny_models.clip(), generator)
    model.save_pretrained(tmp_path)
    loaded = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.clip.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in loaded.mask_generator.parameters()} == {torch.float32}
    vocabulary = loaded.encode_vocabulary(["cat", "sky"], tiny_models.CharacterTokenizer())
    with torch.no_grad():
        outputs = loaded.eval()(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16), vocabulary)
    assert outputs.class_queries_logits.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"max_height": 3}}, "size must hold"),
        ({"pad_size": {"height": 3}}, "pad_size must hold"),
        ({"mask_stride": 0}, "must be at least 1"),
        ({"segmenter_config": {"model_type": "oneformer"}}, "OneFormer needs task_input_ids"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        UniversalMaskGeneratorConfig(**fields)


def test_a_picture_larger_than_the_padding_is_an_error(generator, picture):
    fields = {"size": None, "pad_size": {"height": 32, "width": 32}}
    small = UniversalMaskGenerator.from_segmenter(generator.segmenter, Mask2FormerImageProcessorPil(), **fields)
    with pytest.raises(ValueError, match="does not fit the mask generator's pad_size"):
        small([pixels_of(picture)], (64, 96))
