import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, CLIPTokenizer

from hf_maskadapter import MaskAdapterImageProcessorPil, MaskAdapterProcessor, Vocabulary
from hf_maskadapter.model import post_processing_maskadapter as post_processing
from hf_maskadapter.model.vocabulary import PROMPT_TEMPLATES

CONTEXT_LENGTH = 77


def byte_level_tokenizer(**changes):
    """A CLIP tokenizer without merges: one token for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    arguments = {"model_max_length": CONTEXT_LENGTH} | changes
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], **arguments)


def image_processor():
    return MaskAdapterImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})


@pytest.fixture
def processor():
    return MaskAdapterProcessor(image_processor(), byte_level_tokenizer())


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


# Tokenizing


def test_tokenize_pads_with_the_end_token_to_the_context_length(processor):
    input_ids = processor.tokenize(["a cat", "dog"])
    start, end = processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id
    assert input_ids.shape == (2, CONTEXT_LENGTH)
    assert input_ids.dtype == torch.long
    for row, ids in zip(input_ids.tolist(), processor.tokenizer(["a cat", "dog"])["input_ids"], strict=True):
        assert row[0] == start
        assert row == ids + [end] * (CONTEXT_LENGTH - len(ids))


def test_tokenize_takes_one_prompt(processor):
    assert torch.equal(processor.tokenize("a cat"), processor.tokenize(["a cat"]))


def test_tokenize_accepts_a_prompt_that_just_fits(processor):
    input_ids = processor.tokenize("x" * (CONTEXT_LENGTH - 2))
    assert (input_ids == processor.tokenizer.eos_token_id).sum() == 1


def test_tokenize_never_cuts_a_prompt(processor, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    prompt = "x" * (CONTEXT_LENGTH - 1)
    with pytest.raises(ValueError, match=rf"'{prompt}'.* 78 tokens.* 77"):
        processor.tokenize(["a cat", prompt])
    assert not caplog.records


def test_an_overlong_class_name_is_named(processor):
    name = "incomprehensibilities" * 4
    with pytest.raises(ValueError, match=name):
        processor(text=["cat", name])


def test_tokenize_refuses_an_empty_list(processor):
    with pytest.raises(ValueError, match="no prompt"):
        processor.tokenize([])


def test_a_tokenizer_without_a_known_length_is_read_as_clips():
    processor = MaskAdapterProcessor(image_processor(), byte_level_tokenizer(model_max_length=None))
    assert processor.context_length == CONTEXT_LENGTH


# Calling


def test_a_picture_gives_the_image_processors_features(processor, image):
    features = processor(images=image, return_tensors="pt")
    expected = processor.image_processor(image, return_tensors="pt")
    assert set(features) == set(expected) >= {"pixel_values", "pixel_mask"}
    assert all(torch.equal(features[name], expected[name]) for name in expected)


def test_image_arguments_reach_the_image_processor(processor, image):
    small = processor(images=image, size={"shortest_edge": 32, "longest_edge": 64}, return_tensors="pt")
    assert small["pixel_values"].shape[-2:] == (32, 64)  # 32 x 48, padded to a multiple of 32


def test_maps_and_masks_reach_the_image_processor(processor, image):
    masks = np.zeros((3, 40, 60), dtype=bool)
    masks[1, :20] = True
    features = processor(images=image, masks=[masks], return_tensors="pt")
    assert features["masks"].shape[1] == 3
    assert features["masks"].sum() > 0
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[:20] = 2
    features = processor(images=image, segmentation_maps=labels, return_tensors="pt")
    assert sorted(features["class_labels"][0].tolist()) == [0, 2]


def test_a_vocabulary_gives_tokens_of_every_prompt(processor):
    features = processor(text=["cat, kitten", "dog"])
    prompts, class_ids = Vocabulary.from_list(["cat, kitten", "dog"]).prompts(PROMPT_TEMPLATES)
    assert torch.equal(features["input_ids"], processor.tokenize(prompts))
    assert features["class_ids"].tolist() == class_ids == [0, 0, 1]


def test_pictures_and_a_vocabulary_together(processor, image):
    features = processor(images=image, text="cat, dog", return_tensors="pt")
    assert {"pixel_values", "pixel_mask", "input_ids", "class_ids"} <= set(features)
    assert features["class_ids"].tolist() == [0, 1]


def test_tokens_come_as_numpy_arrays_on_request(processor):
    features = processor(text=["cat"], return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in features.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give images, text"),
        ({"text": ["cat"], "masks": [np.zeros((1, 4, 4))]}, "masks need the images"),
        ({"text": ["cat"], "size": {"shortest_edge": 32}}, "size.* no images"),
    ],
)
def test_arguments_without_their_pictures_are_refused(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


# Templates


def test_the_templates_are_the_published_ones_by_default(processor):
    assert processor.prompt_templates == list(PROMPT_TEMPLATES)


def test_a_template_without_a_place_for_the_name_is_refused():
    with pytest.raises(ValueError, match=r"needs one '\{\}'"):
        MaskAdapterProcessor(image_processor(), byte_level_tokenizer(), prompt_templates=["a photo."])


# Results


@pytest.mark.parametrize("task", ["semantic", "panoptic", "instance"])
def test_results_come_from_the_post_processing_functions(processor, task):
    name = f"post_process_{task}_segmentation"
    assert getattr(processor, name) is getattr(post_processing, name)


# Saving and loading


def test_save_and_load_keeps_every_setting(tmp_path, image):
    templates = ["a {}.", "the {}"]
    processor = MaskAdapterProcessor(image_processor(), byte_level_tokenizer(), prompt_templates=templates)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["prompt_templates"] == templates
    for loaded in (AutoProcessor.from_pretrained(tmp_path), MaskAdapterProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MaskAdapterProcessor
        assert loaded.prompt_templates == templates
        assert loaded.context_length == CONTEXT_LENGTH
        assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
        before, after = (p(images=image, text=["cat"], return_tensors="pt") for p in (processor, loaded))
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_templates_can_be_given_when_loading(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path, prompt_templates=["a {}."]).prompt_templates == ["a {}."]


def test_the_saved_tokenizer_loads_by_itself(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("cat") == processor.tokenizer("cat")


@pytest.mark.parametrize("first", ["hf_maskadapter", "transformers"])
def test_auto_processor_knows_the_class_in_a_fresh_process(processor, tmp_path, first):
    processor.save_pretrained(tmp_path)
    program = (
        f"import {first}\nimport hf_maskadapter\nfrom transformers import AutoProcessor\n"
        f"print(type(AutoProcessor.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["MaskAdapterProcessor"]
