"""A vocabulary's text embeddings, without PyTorch: `encode_vocabulary`'s rules with NumPy and tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..model.vocabulary import Vocabulary
from .manifest import TOKENIZER, Settings

_PROMPTS_AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """A vocabulary's embeddings.

    Args:
        text_embeds: normalised embedding of each synonym, the mean over the templates, `(num_synonyms, embed_dim)`.
        class_ids: class that each synonym belongs to, ascending, `(num_synonyms,)` int64.
        seen_classes: classes that share a name with the training vocabulary, `(num_classes,)` bool.
    """

    text_embeds: np.ndarray
    class_ids: np.ndarray
    seen_classes: np.ndarray


class TextEncoder:
    """Encodes vocabularies.

    Args:
        folder: the exported model's, which holds the tokenizer.
        settings: how names become prompts, and prompts tokens.
        run: token ids `(num_prompts, length)` to normalised embeddings `(num_prompts, embed_dim)`.
    """

    def __init__(self, folder: Path, settings: Settings, run: Callable[[np.ndarray], np.ndarray]):
        self.folder, self.settings, self._run = folder, settings, run
        self._tokenizer: Tokenizer | None = None

    def tokenize(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids, padded at the right, `(num_prompts, length)` int64.

        Raises:
            ValueError: if a prompt is longer than the text tower reads, or has a token that it does not know.
        """
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        settings = self.settings
        texts = [prompt.lower() if settings.lower_case else prompt for prompt in prompts]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        for prompt, ids in zip(prompts, rows, strict=True):
            if len(ids) > settings.context_length:
                raise ValueError(
                    f"The prompt {prompt!r} has {len(ids)} tokens, but the text tower reads at most "
                    f"{settings.context_length}: shorten the class name."
                )
        highest = max(map(max, rows))
        if highest >= settings.vocab_size:
            raise ValueError(
                f"The tokenizer gives a token {highest}, but the text tower knows {settings.vocab_size} tokens: use "
                "the tokenizer that the CLIP was trained with."
            )
        length = settings.context_length if settings.pads_text else max(map(len, rows))
        padded = [ids + [settings.padding_id if settings.pads_text else ids[-1]] * (length - len(ids)) for ids in rows]
        return np.array(padded, dtype=np.int64)

    def encode(self, vocabulary: Vocabulary) -> EncodedTexts:
        """Encode every synonym with every template; a name that several classes share is encoded once.

        Raises:
            ValueError: as [`TextEncoder.tokenize`].
        """
        templates = self.settings.prompt_templates
        synonyms = [(index, name) for index, entry in enumerate(vocabulary.classes) for name in entry.synonyms]
        names = list(dict.fromkeys(name for _, name in synonyms))
        prompts = [template.replace("{}", name) for name in names for template in templates]
        by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # little padding in a batch
        embeddings = np.empty((len(prompts), self.settings.embed_dim), np.float32)
        for start in range(0, len(prompts), _PROMPTS_AT_A_TIME):
            places = by_length[start : start + _PROMPTS_AT_A_TIME]
            embeddings[places] = self._run(self.tokenize([prompts[number] for number in places]))
        means = embeddings.reshape(len(names), len(templates), -1).mean(axis=1)
        row_of = {name: row for row, name in enumerate(names)}
        return EncodedTexts(
            normalize(means)[[row_of[name] for _, name in synonyms]],
            np.array([index for index, _ in synonyms], np.int64),
            np.array(vocabulary.seen(self.settings.training_vocabulary or []), bool),
        )


def normalize(values: np.ndarray) -> np.ndarray:
    """Values divided by their norm along the last dimension."""
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


__all__ = ["EncodedTexts", "TextEncoder", "normalize"]
