"""A vocabulary, encoded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hf_maskadapter import ConvNextClipConfig, MaskAdapterConfig, MaskAdapterForOpenVocabularySegmentation
from lab.benchmarks.model_sizes import END_OF_TEXT, build_config

Inputs = Mapping[str, Any]


def _tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token for each word or mark, start and end; CLIP's makes 1.2 of a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    start, end = "<|startoftext|>", "<|endoftext|>"
    tokens = {word: number for number, word in enumerate(words)} | {start: END_OF_TEXT - 1, end: END_OF_TEXT}
    rules = Tokenizer(models.WordLevel(tokens, unk_token=words[0]))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, tokens[start]), (end, tokens[end])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=start, eos_token=end, pad_token=end)


def encode(inputs: Inputs, cached: bool = False) -> Callable[[], Tensor]:
    """Embeddings of all names; with `cached`, from the file of an earlier call, the text tower's checksum made anew."""
    clip = build_config(inputs["model_size"]).clip_config
    torch.manual_seed(0)
    small = ConvNextClipConfig(  # the image tower plays no part
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        projection_dim=clip.projection_dim,
        text_config=clip.text_config.to_dict(),
    )
    config = MaskAdapterConfig(clip_config=small, use_adapter=False)
    model = MaskAdapterForOpenVocabularySegmentation(config).eval()
    tokenizer = _tokenizer(inputs["words"])

    def call() -> Tensor:
        return model.encode_vocabulary(inputs["classes"], tokenizer).text_embeds

    if not cached:
        return call
    from hf_maskadapter.encoded_vocabularies import hashes
    from hf_maskadapter.encoded_vocabularies.cache import VocabularyCache

    model.text_store = VocabularyCache(tempfile.mkdtemp())
    call()

    def read() -> Tensor:
        hashes.forget()
        return call()

    return read
