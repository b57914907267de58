"""The open-vocabulary text classifier: a vocabulary encoded once, and mask embeddings compared with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .vocabulary import PROMPT_TEMPLATES, Vocabulary, check_templates


@dataclass
class EncodedVocabulary(ModelOutput):
    """Text embeddings of a vocabulary, made by `encode_vocabulary` and reused for every picture.

    Args:
        text_embeds (`torch.FloatTensor` of shape `(num_synonyms, projection_dim)`):
            Normalised embedding of each synonym, the mean over the prompt templates.
        class_ids (`torch.LongTensor` of shape `(num_synonyms,)`):
            Class that each synonym belongs to, ascending.
        seen_classes (`torch.BoolTensor` of shape `(num_classes,)`):
            Classes that share a name with the training vocabulary.
    """

    text_embeds: torch.FloatTensor | None = None
    class_ids: torch.LongTensor | None = None
    seen_classes: torch.BoolTensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, without void."""
        return self.seen_classes.shape[0]

    def to(self, *args, **kwargs) -> EncodedVocabulary:
        """Move to a device, and the embeddings to a dtype if one is given; arguments as of `torch.Tensor.to`."""
        text_embeds = self.text_embeds.to(*args, **kwargs)
        return EncodedVocabulary(
            text_embeds=text_embeds,
            class_ids=self.class_ids.to(text_embeds.device),
            seen_classes=self.seen_classes.to(text_embeds.device),
        )


def tokenize_prompts(
    tokenizer: Callable,
    prompts: Sequence[str],
    max_length: int,
    *,
    pad_to_max_length: bool = False,
    lower_case: bool = False,
) -> Tensor:
    """Token ids of prompts, padded at the right, `(num_prompts, length)`.

    Args:
        tokenizer: Hugging Face tokenizer; on which side it would pad itself plays no part.
        prompts: texts as they are.
        max_length: number of tokens that the text tower reads.
        pad_to_max_length: whether to pad to `max_length` with the tokenizer's padding token, which some text towers
            read, too (SigLIP); else padding goes to the longest prompt and repeats the end token, behind which a CLIP's
            text tower reads nothing.
        lower_case: whether to make prompts lower-case first.

    Raises:
        ValueError: if a prompt is longer than the text tower reads; it is never cut silently.
    """
    texts = [prompt.lower() if lower_case else prompt for prompt in prompts]
    input_ids = tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
    for prompt, ids in zip(prompts, input_ids, strict=True):
        if len(ids) > max_length:
            raise ValueError(
                f"The prompt {prompt!r} has {len(ids)} tokens, but the text tower reads at most {max_length}: shorten "
                "the class name."
            )
    length = max_length if pad_to_max_length else max(len(ids) for ids in input_ids)
    paddings = [padding_id(tokenizer) if pad_to_max_length else ids[-1] for ids in input_ids]
    return torch.tensor(
        [list(ids) + [padding] * (length - len(ids)) for ids, padding in zip(input_ids, paddings, strict=True)]
    )


def padding_id(tokenizer: Any) -> int:
    """The token that a tokenizer pads with; the end token if it has none of its own."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@torch.no_grad()
def encode_vocabulary(
    text_encoder: Callable[[Tensor], Tensor],
    vocabulary: Vocabulary,
    tokenizer: Callable,
    *,
    max_length: int,
    device: torch.device,
    vocab_size: int | None = None,
    pad_to_max_length: bool = False,
    lower_case: bool = False,
    templates: Sequence[str] = PROMPT_TEMPLATES,
    training_vocabulary: Sequence[Sequence[str]] | None = None,
    batch_size: int = 256,
) -> EncodedVocabulary:
    """Encode every synonym with every template; memory is bounded by `batch_size` prompts.

    Embeddings are normalised, averaged over the templates and normalised again (FC-CLIP, ViLD). A name that several
    classes share is encoded once.

    Args:
        text_encoder: token ids `(num_prompts, length)` to embeddings `(num_prompts, dim)`.
        vocabulary: the classes.
        tokenizer: Hugging Face tokenizer.
        max_length: number of tokens that the text tower reads.
        device: where the text tower is.
        vocab_size: number of tokens that the text tower knows; `None` leaves it unchecked.
        pad_to_max_length: see [`tokenize_prompts`].
        lower_case: likewise.
        templates: prompts with one `{}` each.
        training_vocabulary: synonyms of each class seen in training; `None` makes every class unseen.
        batch_size: prompts encoded at a time.

    Raises:
        ValueError: if a prompt is too long or has a token that the text tower does not know, a template has no `{}`, or
            there is no template.
    """
    check_templates(templates)
    synonyms = [(index, name) for index, entry in enumerate(vocabulary.classes) for name in entry.synonyms]
    names = list(dict.fromkeys(name for _, name in synonyms))
    prompts = [template.replace("{}", name) for name in names for template in templates]
    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # little padding in a batch
    embeddings = []
    for start in range(0, len(prompts), batch_size):
        input_ids = tokenize_prompts(
            tokenizer,
            [prompts[number] for number in by_length[start : start + batch_size]],
            max_length,
            pad_to_max_length=pad_to_max_length,
            lower_case=lower_case,
        )
        highest = int(input_ids.max())
        if vocab_size is not None and highest >= vocab_size:
            raise ValueError(
                f"The tokenizer gives a token {highest}, but the text tower knows {vocab_size} tokens: use the "
                "tokenizer that the CLIP was trained with."
            )
        embeddings.append(F.normalize(text_encoder(input_ids.to(device)).float(), dim=-1))
    places = torch.tensor(by_length).argsort().to(device)
    means = torch.cat(embeddings)[places].unflatten(0, (len(names), len(templates))).mean(dim=1)
    row_of = {name: row for row, name in enumerate(names)}
    rows = torch.tensor([row_of[name] for _, name in synonyms], device=means.device)
    return EncodedVocabulary(
        text_embeds=F.normalize(means, dim=-1)[rows],
        class_ids=torch.tensor([index for index, _ in synonyms], device=means.device),
        seen_classes=torch.tensor(vocabulary.seen(training_vocabulary or []), device=means.device),
    )


def open_vocabulary_logits(
    embeddings: Tensor, vocabulary: EncodedVocabulary, void_embeds: Tensor | None, scale: Tensor
) -> Tensor:
    """Scaled cosines with each class's texts, the maximum over its synonyms, void last.

    Args:
        embeddings: mask embeddings, `(batch_size, num_masks, dim)`, not normalised.
        vocabulary: the encoded vocabulary.
        void_embeds: normalised embedding of void, `(1, dim)`; `None` leaves void out.
        scale: factor between cosines and logits, a scalar.

    Returns:
        `(batch_size, num_masks, num_classes + 1)`, or `num_classes` without void.
    """
    # Cosines in half precision would be off by up to 0.4 after scaling: as much as classes are apart.
    embeddings = scale * F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)
    synonym_logits = embeddings @ vocabulary.text_embeds.to(embeddings.dtype).transpose(-1, -2)
    # Gradients are shared with the initial values where those equal the maximum, so they must be values that cannot.
    lowest = synonym_logits.new_full((*synonym_logits.shape[:-1], vocabulary.num_classes), float("-inf"))
    logits = lowest.scatter_reduce(-1, vocabulary.class_ids.expand_as(synonym_logits), synonym_logits, "amax")
    if void_embeds is None:
        return logits
    return torch.cat([logits, embeddings @ void_embeds.to(embeddings.dtype).transpose(-1, -2)], dim=-1)


__all__ = ["EncodedVocabulary", "encode_vocabulary", "open_vocabulary_logits", "padding_id", "tokenize_prompts"]
