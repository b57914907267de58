"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported; no test needs the network
os.environ.setdefault("MASKADAPTER_VOCABULARY_CACHE", "off")  # nor what another one left

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background of a shell: Ctrl-C is tested all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one may be slow
hypothesis.settings.load_profile("any machine")

if "PYTEST_XDIST_WORKER" in os.environ:  # one core for each worker
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> Path:
    """Folder of a complete tiny segmenter with random weights: model, image processor and tokenizer."""
    from hf_maskadapter import (
        MaskAdapterForOpenVocabularySegmentation,
        MaskAdapterImageProcessorPil,
        MaskAdapterProcessor,
    )
    from support import tiny_models

    tokenizer = tiny_models.byte_level_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text_config = (
        tiny_models.TEXT_CONFIG | special | {"pad_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    )
    config = tiny_models.segmenter_config(
        clip_config=tiny_models.clip_config(text_config=text_config), overlap_threshold=0.1
    )
    folder = tmp_path_factory.mktemp("tiny_model")
    tiny_models.build(MaskAdapterForOpenVocabularySegmentation, config).save_pretrained(folder)
    image_processor = MaskAdapterImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    MaskAdapterProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def picture() -> Image.Image:
    """A small picture with some structure: three differently coloured regions and noise."""
    pixels = np.random.default_rng(0).integers(0, 40, (60, 90, 3))
    pixels[:20] += (90, 140, 210)
    pixels[20:, :45] += (60, 150, 60)
    pixels[30:50, 50:80] += (200, 60, 40)
    return Image.fromarray(pixels.astype(np.uint8))
