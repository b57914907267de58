"""Many prompts in one pass of a causal text tower, with the beginnings that they share computed once.

A token of a causal tower depends on those before it alone. So the prompts of a vocabulary, which begin with the same
few templates, form a tree: sorted by their tokens, each goes on where it leaves the one before. A row of the batch
holds the tree of as many prompts as fit, and a token sees its ancestors and itself. Results are those of the prompts
one by one but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_PAYS = 0.7
"""Share of the padded prompts' tokens up to which a tree is worth its mask."""


class PromptTrees(NamedTuple):
    """Rows of a batch, each with the tree of some prompts.

    Args:
        input_ids: tokens, parents before their children, padded with any token, `(num_rows, length)`.
        position_ids: place of each in its prompts, of the same shape.
        ancestors: whether a token, the row of the matrix, sees another one, `(num_rows, length, length)`.
        ends: row and column of each prompt's last token, `(num_prompts, 2)`.
    """

    input_ids: Tensor
    position_ids: Tensor
    ancestors: Tensor
    ends: Tensor


class _Row:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.path: list[int] = []

    def shared(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's tokens are on the path to the last one."""
        count = 0
        while count < min(len(self.path), len(prompt)) and self.tokens[self.path[count]] == prompt[count]:
            count += 1
        return count

    def add(self, prompt: Sequence[int]) -> int:
        """Put a prompt into the tree.

        Returns:
            The column of its last token.
        """
        del self.path[self.shared(prompt) :]
        for token in prompt[len(self.path) :]:
            self.parents.append(self.path[-1] if self.path else -1)
            self.depths.append(len(self.path))
            self.path.append(len(self.tokens))
            self.tokens.append(token)
        return self.path[-1]


def plant(prompts: Sequence[Sequence[int]], length: int) -> PromptTrees:
    """Trees of prompts, as many as rows of some length need.

    Args:
        prompts: tokens of each, none longer than a row, best sorted.
        length: tokens in a row.
    """
    rows, ends = [_Row()], []
    for prompt in prompts:
        if len(rows[-1].tokens) + len(prompt) - rows[-1].shared(prompt) > length:
            rows.append(_Row())
        ends.append((len(rows) - 1, rows[-1].add(prompt)))
    length = max(len(row.tokens) for row in rows)
    input_ids, position_ids = (np.zeros((len(rows), length), np.int64) for _ in range(2))
    ancestors = np.broadcast_to(np.eye(length, dtype=bool), (len(rows), length, length)).copy()
    for number, row in enumerate(rows):
        input_ids[number, : len(row.tokens)] = row.tokens
        position_ids[number, : len(row.tokens)] = row.depths
        for column, parent in enumerate(row.parents):
            if parent >= 0:
                ancestors[number, column] |= ancestors[number, parent]
    return PromptTrees(
        torch.from_numpy(input_ids),
        torch.from_numpy(position_ids),
        torch.from_numpy(ancestors),
        torch.tensor(ends),
    )


class PromptTreeEncoder:
    """Encodes prompts as trees, where the text tower is one that can.

    Args:
        tower: Transformers' text tower of a CLIP, causal, with a norm behind its last layer.
        projection: from its width to the space shared with pictures.
    """

    def __init__(self, tower: nn.Module, projection: nn.Module) -> None:
        self._tower, self._projection = tower, projection
        self._length = tower.config.max_position_embeddings

    @property
    def can_encode(self) -> bool:
        """Whether the tower's attention takes a mask for each row."""
        return self._tower.config._attn_implementation in ("sdpa", "eager")

    def end(self, prompt: Sequence[int]) -> int:
        """Where the token is whose state stands for the prompt, as Transformers finds it."""
        end_token = self._tower.config.eos_token_id
        if end_token == 2:  # configurations that are older than the tokenizer's end token in them
            return prompt.index(max(prompt))
        return prompt.index(end_token) if end_token in prompt else 0

    def encode(self, prompts: Sequence[Sequence[int]], batch_size: int) -> Tensor | None:
        """Embeddings of prompts, `(num_prompts, projection_dim)`, not normalised.

        Args:
            prompts: token ids, with start and end token.
            batch_size: how many prompts' tokens, unshared, a pass may hold.

        Returns:
            `None` if the prompts share too little for this to pay, or the tower cannot.
        """
        if not self.can_encode:
            return None
        read = [list(prompt[: self.end(prompt) + 1]) for prompt in prompts]
        order = sorted(range(len(read)), key=read.__getitem__)
        batches = [
            plant([read[number] for number in order[start : start + batch_size]], self._length)
            for start in range(0, len(order), batch_size)
        ]
        if sum(trees.input_ids.numel() for trees in batches) > _PAYS * _padded_tokens(read, batch_size):
            return None
        embeddings = torch.cat(list(self._embed(batches)))
        return embeddings[torch.tensor(order).argsort().to(embeddings.device)]

    def _embed(self, batches: Sequence[PromptTrees]) -> Iterator[Tensor]:
        weight = self._projection.weight
        for trees in batches:
            mask = trees.ancestors.to(weight.device)
            if self._tower.config._attn_implementation == "eager":  # which adds it
                hidden = torch.zeros(mask.shape, dtype=weight.dtype, device=mask.device)
                mask = hidden.masked_fill_(~mask, torch.finfo(weight.dtype).min)
            states = self._tower(
                input_ids=trees.input_ids.to(weight.device),
                position_ids=trees.position_ids.to(weight.device),
                attention_mask=mask[:, None],
            ).last_hidden_state
            rows, columns = trees.ends.to(weight.device).unbind(dim=1)
            yield self._projection(states[rows, columns])


def _padded_tokens(prompts: Sequence[Sequence[int]], batch_size: int) -> int:
    lengths = sorted(map(len, prompts))
    return sum(
        max(batch) * len(batch)
        for batch in (lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size))
    )


__all__ = ["PromptTreeEncoder", "PromptTrees", "plant"]
