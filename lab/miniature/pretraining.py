"""The miniature's CLIP: its tokenizer, its configuration, its curriculum of captions, and its zero-shot test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTokenizer

from hf_maskadapter.data.scenes import ATTRIBUTES, COMBINATIONS, STUFF, Combination, Scene, SceneConfig, draw_scene
from hf_maskadapter.model.configuration_clips import ConvNextClipConfig
from hf_maskadapter.model.modeling_clip_convnext import ConvNextClipModel
from hf_maskadapter.model.vocabulary import PROMPT_TEMPLATES

IMAGE_MEAN = (122.7709383, 116.7460125, 104.09373615)
IMAGE_STD = (68.5005327, 66.6321579, 70.32316305)
CONTEXT_LENGTH = 77

_TRAIN_STREAM, _TEST_STREAM = 11, 13
_FIRST_CAPTIONS: tuple[str, ...] = ("shape", "texture")
"""What captions name in the first phase: the attributes that need fine visual evidence, without colour's easy one."""

_FIRST_PHASE_ACCURACY = 0.7
"""Running batch accuracy at which the first phase ends."""

_CAPTIONS = ("shape", "color", "texture", "texture color shape", "stuff")
"""What the captions of a picture of one object name, one caption each."""

_CAPTIONS_OF_SEVERAL = ("texture color shape", "texture color shape stuff", "stuff")
_LEAST_PHASE = 30

_LARGE = SceneConfig(size=64, objects=(1, 1), radius=(20.0, 31.0), backgrounds=(1, 1))
_SINGLE = SceneConfig(size=64, objects=(1, 1), radius=(16.0, 31.0), backgrounds=(1, 2))
_MOSTLY_STUFF = SceneConfig(size=64, objects=(0, 1), radius=(14.0, 26.0), backgrounds=(1, 1))
_SEVERAL = SceneConfig(size=96, objects=(1, 3), radius=(15.0, 34.0), backgrounds=(1, 2), repeat_probability=0.0)


def _words() -> list[str]:
    texts = [value for values in ATTRIBUTES.values() for value in values]
    texts += [*STUFF, *(template.replace("{}", " ") for template in PROMPT_TEMPLATES)]
    texts += ["an and on the of in with shape object thing background texture colour color picture drawing"]
    return sorted({word.strip(".,").lower() for text in texts for word in text.split()} - {""})


def _learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first, until each word is one token."""
    splits = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for split in splits for pair in pairwise(split))
        if not pairs:
            return merges
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for split in splits:
            position = 0
            while position < len(split) - 1:
                if (split[position], split[position + 1]) == merge:
                    split[position : position + 2] = ["".join(merge)]
                position += 1


def _byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a small vocabulary: each word of the world is a token, other text falls to bytes."""
    merges = _learn_merges(_words())
    characters = _byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += [token for token in dict.fromkeys(map("".join, merges)) if token not in set(tokens)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=CONTEXT_LENGTH
    )


def build_clip_config(tokenizer: CLIPTokenizer) -> ConvNextClipConfig:
    """1.4 million parameters; strides 4, 8, 16; batch norm, overlapping stem, kernels 7/5/3 for dense features."""
    return ConvNextClipConfig(
        text_config=CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        stem="overlap",
        patch_size=4,
        hidden_sizes=[32, 64, 160],
        depths=[1, 2, 4],
        kernel_sizes=[7, 5, 3],
        norm="batch",
        norm_eps=1e-5,
        layer_scale_init_value=0.5,
        projection_dim=128,
        projection_hidden_dim=None,
        image_size=64,
        logit_scale_init_value=math.log(40.0),
    )


def normalize_pictures(pictures: Sequence[np.ndarray]) -> Tensor:
    """(height, width, 3) uint8 pictures of one size to (batch, 3, height, width) float32, channels last."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def caption(things: Sequence[Combination], stuff: Sequence[str], kind: str) -> str:
    """A caption that names the attributes in `kind` only, words of an object in class-name order."""
    wanted = kind.split()
    backgrounds = " and ".join(stuff)
    phrases = [
        " ".join(getattr(thing, word) for word in ("texture", "color", "shape") if word in wanted) for thing in things
    ]
    phrases = [phrase for phrase in phrases if phrase]
    if not phrases:
        return backgrounds
    listed = " and ".join(phrases)
    return f"{listed} on {backgrounds}" if "stuff" in wanted else listed


class Curriculum:
    """Batches of pictures with several captions each, a function of the step and of what the CLIP has learned.

    First big single objects with two captions of one word, the shape and the texture, until the running batch accuracy
    passes 0.7. After that pictures of one object, each with five captions: its shape, its colour, its texture, all
    three, and the background; each position of the batch's captions has one prompt template. Every tenth batch shows
    backgrounds, half of them bare. In the second half of the steps two batches of five are pictures of up to three
    objects. Captions that name one attribute alone are part of what this CLIP learns from.

    Args:
        tokenizer: of the captions.
        batch_size: pictures a batch and process.
        max_steps: length of the training.
        rank: number of this process; each sees pictures of its own, with the same kinds of captions.
    """

    def __init__(self, tokenizer: CLIPTokenizer, batch_size: int, max_steps: int, rank: int = 0):
        self.tokenizer, self.batch_size, self.max_steps, self.rank = tokenizer, batch_size, max_steps, rank

    def __call__(self, step: int, memory: MutableMapping[str, Any]) -> dict[str, Tensor]:
        """The batch of a step, as [`hf_maskadapter.training.clip_stage.ContrastivePretraining`] takes it.

        Args:
            step: the step.
            memory: the stage's, with the running `accuracy`; remembers where the first phase ended.
        """
        rng = np.random.default_rng((_TRAIN_STREAM, step))
        kinds: tuple[str, ...]
        choice = rng.random()
        if not self._is_past_first_phase(step, memory):
            kinds, config = _FIRST_CAPTIONS, _LARGE
        elif step > 0.45 * self.max_steps and choice < 0.4:
            kinds, config = _CAPTIONS_OF_SEVERAL, _SEVERAL
        elif choice > 0.9:
            kinds, config = ("texture color shape", "stuff"), _MOSTLY_STUFF
        else:
            kinds, config = _CAPTIONS, _SINGLE
        scenes = [draw_scene((_TRAIN_STREAM, step, self.rank, index), config) for index in range(self.batch_size)]
        captions = []
        for kind in kinds:
            plain = config is _LARGE or rng.random() < 0.3
            template = "{}" if plain else PROMPT_TEMPLATES[int(rng.integers(len(PROMPT_TEMPLATES)))]
            captions += [template.format(caption(scene.things, scene.stuff, kind)) for scene in scenes]
        input_ids = tokenize(self.tokenizer, captions).unflatten(0, (len(kinds), self.batch_size))
        return {"pixel_values": normalize_pictures([scene.picture for scene in scenes]), "input_ids": input_ids}

    @staticmethod
    def _is_past_first_phase(step: int, memory: MutableMapping[str, Any]) -> bool:
        if "end_of_first_phase" not in memory:
            if step < _LEAST_PHASE or memory["accuracy"] <= _FIRST_PHASE_ACCURACY:
                return False
            memory["end_of_first_phase"] = step
            memory["accuracy"] = 0.0
        return True


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids, padded to the longest text."""
    return tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def encode_names(
    model: ConvNextClipModel,
    tokenizer: CLIPTokenizer,
    names: Sequence[str],
    templates: Sequence[str] = PROMPT_TEMPLATES,
) -> Tensor:
    """(names, dim) normalised embeddings, averaged over templates."""
    total = torch.zeros(len(names), model.config.projection_dim)
    for template in templates:
        ids = tokenize(tokenizer, [template.format(name) for name in names])
        total += F.normalize(model.get_text_features(ids).float(), dim=-1)
    return F.normalize(total, dim=-1)


def draw_single_objects(count: int) -> list[Scene]:
    """Held-out pictures of one object each, every combination about equally often."""
    return [
        draw_scene((_TEST_STREAM, index), _SINGLE, [COMBINATIONS[index * 37 % len(COMBINATIONS)]])
        for index in range(count)
    ]


@torch.no_grad()
def zero_shot_accuracy(model: ConvNextClipModel, tokenizer: CLIPTokenizer, count: int = 1024) -> dict[str, float]:
    """Zero-shot accuracy on single objects: of each attribute, of all three at once, and of stuff, for base and novel.

    An attribute is told from its bare word ("striped"); `joint` is the choice among all 256 class names.
    """
    was_training = model.training
    model.eval()
    scenes = [scene for scene in draw_single_objects(count) if scene.things]
    embeds = torch.cat(
        [
            F.normalize(model.get_image_features(normalize_pictures([s.picture for s in scenes[i : i + 128]])), dim=-1)
            for i in range(0, len(scenes), 128)
        ]
    )
    novel = torch.tensor([scene.things[0].is_novel for scene in scenes])
    results: dict[str, float] = {}
    candidates = {**ATTRIBUTES, "joint": tuple(combination.name for combination in COMBINATIONS)}
    for attribute, names in candidates.items():
        truth = [s.things[0].name if attribute == "joint" else getattr(s.things[0], attribute) for s in scenes]
        predicted = (embeds @ encode_names(model, tokenizer, names).T).argmax(dim=1)
        right = (predicted == torch.tensor([names.index(name) for name in truth])).float()
        results[f"{attribute}/base"] = right[~novel].mean().item()
        results[f"{attribute}/novel"] = right[novel].mean().item()
    model.train(was_training)
    return results
