"""The open-vocabulary text classifier: a vocabulary encoded once, and mask embeddings compared with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .prompt_trees import PromptTreeEncoder
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


class TextStore(Protocol):
    """Keeps the embeddings of names beyond a model's life, such as a cache on disk."""

    def embed(
        self,
        clip: Any,
        tokenizer: Any,
        names: Sequence[str],
        templates: Sequence[str],
        compute: Callable[[], Tensor],
    ) -> Tensor:
        """The embeddings of names, as they are kept, else computed and kept.

        Args:
            clip: the CLIP whose text tower `compute` uses.
            tokenizer: the tokenizer that it uses.
            names: the names, each once.
            templates: the prompt templates.
            compute: makes the embeddings, `(num_names, projection_dim)`.
        """


def tokenize(
    tokenizer: Callable, prompts: Sequence[str], max_length: int, *, lower_case: bool = False
) -> list[list[int]]:
    """Token ids of prompts, start and end included, without padding.

    Args:
        tokenizer: Hugging Face tokenizer.
        prompts: texts as they are.
        max_length: number of tokens that the text tower reads.
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
    return [list(ids) for ids in input_ids]


def pad_tokens(input_ids: Sequence[Sequence[int]], length: int | None = None, padding: int | None = None) -> Tensor:
    """Token ids as a tensor, padded at the right.

    Args:
        input_ids: tokens of each prompt.
        length: the length to pad to; by default that of the longest prompt.
        padding: the token to pad with; by default each prompt's last one, the end token.
    """
    length = length or max(len(ids) for ids in input_ids)
    return torch.tensor([[*ids, *[ids[-1] if padding is None else padding] * (length - len(ids))] for ids in input_ids])


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
    input_ids = tokenize(tokenizer, prompts, max_length, lower_case=lower_case)
    return pad_tokens(input_ids, max_length, padding_id(tokenizer)) if pad_to_max_length else pad_tokens(input_ids)


def padding_id(tokenizer: Any) -> int:
    """The token that a tokenizer pads with; the end token if it has none of its own."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


@torch.no_grad()
def embed_names(
    text_encoder: Callable[[Tensor], Tensor],
    names: Sequence[str],
    tokenizer: Callable,
    *,
    max_length: int,
    device: torch.device,
    vocab_size: int | None = None,
    pad_to_max_length: bool = False,
    lower_case: bool = False,
    templates: Sequence[str] = PROMPT_TEMPLATES,
    batch_size: int = 256,
    tree_encoder: PromptTreeEncoder | None = None,
) -> Tensor:
    """Embeddings of names, each the mean over the prompt templates; memory is bounded by `batch_size` prompts.

    Prompts are normalised, averaged over the templates and normalised again (FC-CLIP, ViLD).

    Args:
        text_encoder: token ids `(num_prompts, length)` to embeddings `(num_prompts, dim)`.
        names: the names.
        tokenizer: Hugging Face tokenizer.
        max_length: number of tokens that the text tower reads.
        device: where the text tower is.
        vocab_size: number of tokens that the text tower knows; `None` leaves it unchecked.
        pad_to_max_length: see [`tokenize_prompts`].
        lower_case: likewise.
        templates: prompts with one `{}` each.
        batch_size: prompts encoded at a time.
        tree_encoder: used in place of `text_encoder` where prompts share so much that it pays.

    Returns:
        `(num_names, dim)`, fp32.

    Raises:
        ValueError: if a prompt is too long or has a token that the text tower does not know, a template has no `{}`, or
            there is no template.
    """
    check_templates(templates)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    input_ids = tokenize(tokenizer, prompts, max_length, lower_case=lower_case)
    highest = max(map(max, input_ids))
    if vocab_size is not None and highest >= vocab_size:
        raise ValueError(
            f"The tokenizer gives a token {highest}, but the text tower knows {vocab_size} tokens: use the tokenizer "
            "that the CLIP was trained with."
        )
    embeddings = None if tree_encoder is None else tree_encoder.encode(input_ids, batch_size)
    if embeddings is None:
        length, padding = (max_length, padding_id(tokenizer)) if pad_to_max_length else (None, None)
        order = sorted(range(len(prompts)), key=lambda number: len(input_ids[number]))  # little padding in a batch
        batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        parts = [
            text_encoder(pad_tokens([input_ids[number] for number in batch], length, padding).to(device))
            for batch in batches
        ]
        embeddings = torch.cat(parts)[torch.tensor(order).argsort().to(device)]
    embeddings = F.normalize(embeddings.float(), dim=-1).unflatten(0, (len(names), len(templates)))
    return F.normalize(embeddings.mean(dim=1), dim=-1)


def encode_vocabulary(
    text_encoder: Callable[[Tensor], Tensor],
    vocabulary: Vocabulary,
    tokenizer: Callable,
    *,
    training_vocabulary: Sequence[Sequence[str]] | None = None,
    **options: Any,
) -> EncodedVocabulary:
    """Encode every synonym with every template; a name that several classes share is encoded once.

    Args:
        text_encoder: token ids `(num_prompts, length)` to embeddings `(num_prompts, dim)`.
        vocabulary: the classes.
        tokenizer: Hugging Face tokenizer.
        training_vocabulary: synonyms of each class seen in training; `None` makes every class unseen.
        **options: of [`embed_names`].

    Raises:
        ValueError: see [`embed_names`].
    """
    names = distinct_names(vocabulary)
    return classify_names(
        vocabulary, names, embed_names(text_encoder, names, tokenizer, **options), training_vocabulary
    )


def distinct_names(vocabulary: Vocabulary) -> list[str]:
    """Every synonym of every class, each once, in the order in which they come first."""
    return list(dict.fromkeys(name for entry in vocabulary.classes for name in entry.synonyms))


def classify_names(
    vocabulary: Vocabulary,
    names: Sequence[str],
    embeddings: Tensor,
    training_vocabulary: Sequence[Sequence[str]] | None = None,
) -> EncodedVocabulary:
    """The encoded vocabulary, from the embeddings of its names.

    Args:
        vocabulary: the classes.
        names: every synonym once, see [`distinct_names`].
        embeddings: of the names, `(num_names, projection_dim)`.
        training_vocabulary: synonyms of each class seen in training; `None` makes every class unseen.
    """
    row_of = {name: row for row, name in enumerate(names)}
    synonyms = [(index, row_of[name]) for index, entry in enumerate(vocabulary.classes) for name in entry.synonyms]
    class_ids, rows = torch.tensor(synonyms, device=embeddings.device).unbind(dim=1)
    return EncodedVocabulary(
        text_embeds=embeddings[rows],
        class_ids=class_ids,
        seen_classes=torch.tensor(vocabulary.seen(training_vocabulary or []), device=embeddings.device),
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


__all__ = [
    "EncodedVocabulary",
    "TextStore",
    "classify_names",
    "distinct_names",
    "embed_names",
    "encode_vocabulary",
    "open_vocabulary_logits",
    "padding_id",
    "tokenize_prompts",
]
