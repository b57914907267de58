"""The miniature world: pictures of coloured, textured shapes on textured backgrounds, drawn from a seed alone.

Things are the 256 combinations of 8 colours, 4 textures and 8 shapes ("striped red star"); stuff is one of 6
backgrounds. A quarter of the combinations is *novel*: a CLIP may read about them in captions, but no mask that a mask
generator or an adapter is trained on shows one. Novelty of this kind is compositional, so there is a harder split too,
which withholds every combination with one value of an attribute (for example every heart).

A scene depends on its seed, its split and its [`SceneConfig`] only, so data sets need no files: [`SceneDataset`] is
map-style, [`load_scenes`] gives a Hugging Face data set, map-style or streaming. `SCENES.md` beside this file is the
data-set card.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

    from ..model.vocabulary import Vocabulary

COLORS: dict[str, float] = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.155,
    "green": 0.35,
    "cyan": 0.49,
    "blue": 0.63,
    "purple": 0.76,
    "pink": 0.89,
}
"""Hue of each colour, in turns."""

TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checked")
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
STUFF: tuple[str, ...] = ("sky", "grass", "brick", "sand", "water", "wood")
ATTRIBUTES: dict[str, tuple[str, ...]] = {"texture": TEXTURES, "color": tuple(COLORS), "shape": SHAPES}

SPLITS: tuple[str, ...] = ("train", "validation", "test")
"""`train` is what masks are learned from; `validation` is for choices; `test` is for results only."""

_NOVEL_MODULUS = 4
_SEED_ROOT = 2412_04533  # keeps scenes apart from pictures drawn for CLIP
_MIN_VISIBLE = 0.4


@dataclass(frozen=True, order=True)
class Combination:
    """A thing class: one value of each attribute."""

    texture: str
    color: str
    shape: str

    @property
    def name(self) -> str:
        """The class name, e.g. `"striped red star"`."""
        return f"{self.texture} {self.color} {self.shape}"

    @property
    def is_novel(self) -> bool:
        """Whether the combination belongs to the novel quarter.

        A Latin-square rule over the attributes' positions: each value of each attribute is in as many novel
        combinations as any other, and each occurs in base combinations.
        """
        indices = (TEXTURES.index(self.texture), list(COLORS).index(self.color), SHAPES.index(self.shape))
        return sum(indices) % _NOVEL_MODULUS == 0


COMBINATIONS: tuple[Combination, ...] = tuple(
    Combination(*values) for values in itertools.product(TEXTURES, COLORS, SHAPES)
)
THING_NAMES: tuple[str, ...] = tuple(combination.name for combination in COMBINATIONS)
CLASS_NAMES: tuple[str, ...] = THING_NAMES + STUFF
"""Names of all classes; a class's id is its position. Things come first."""

_CLASS_ID = {name: class_id for class_id, name in enumerate(CLASS_NAMES)}


def base_combinations(withheld: str | None = None) -> tuple[Combination, ...]:
    """Combinations that masks may be trained on.

    Args:
        withheld: a value of an attribute (e.g. `"heart"`); every combination with it is left out too.

    Raises:
        ValueError: if `withheld` is no value of any attribute.
    """
    if withheld is not None and not any(withheld in values for values in ATTRIBUTES.values()):
        raise ValueError(
            f"withheld={withheld!r} is no value of an attribute; choose one of "
            f"{', '.join(value for values in ATTRIBUTES.values() for value in values)}."
        )
    return tuple(
        combination
        for combination in COMBINATIONS
        if not combination.is_novel and withheld not in (combination.texture, combination.color, combination.shape)
    )


def novel_combinations(withheld: str | None = None) -> tuple[Combination, ...]:
    """The complement of [`base_combinations`]: combinations that no training mask shows."""
    base = set(base_combinations(withheld))
    return tuple(combination for combination in COMBINATIONS if combination not in base)


def training_class_names(withheld: str | None = None) -> list[str]:
    """Names of the classes in training masks: base combinations, then stuff."""
    return [combination.name for combination in base_combinations(withheld)] + list(STUFF)


@dataclass(frozen=True)
class SceneConfig:
    """What a scene may hold. All lengths are in pixels.

    Args:
        size: side of the square picture.
        objects: least and greatest number of objects.
        radius: least and greatest radius of an object's circumscribed circle, about.
        backgrounds: least and greatest number of backgrounds.
        repeat_probability: probability that an object repeats the class of the one before it.
        noise: greatest standard deviation of the pixel noise, in units of the full range.
    """

    size: int = 192
    objects: tuple[int, int] = (3, 7)
    radius: tuple[float, float] = (17.0, 42.0)
    backgrounds: tuple[int, int] = (1, 2)
    repeat_probability: float = 0.2
    noise: float = 0.05


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        picture: (size, size, 3) uint8, RGB.
        panoptic_map: (size, size) int32, the id of each pixel's segment, 0 for void.
        segments_info: one dict a visible segment: `id`, `category_id` (position in `CLASS_NAMES`), `isthing`,
            `iscrowd`, `area` in pixels, `bbox` as x, y, width, height.
        caption: what is to be seen, e.g. `"a striped red star and a plain blue ring on grass"`.
        things: the visible things, in the order of `segments_info`.
        stuff: the visible backgrounds, likewise.
    """

    picture: np.ndarray
    panoptic_map: np.ndarray
    segments_info: list[dict[str, Any]]
    caption: str
    things: tuple[Combination, ...] = field(default=())
    stuff: tuple[str, ...] = field(default=())

    @property
    def semantic_map(self) -> np.ndarray:
        """(size, size) int32, the class id of each pixel, -1 for void."""
        lookup = np.full(int(self.panoptic_map.max()) + 1, -1, dtype=np.int32)
        for segment in self.segments_info:
            lookup[segment["id"]] = segment["category_id"]
        return lookup[self.panoptic_map]


def scene_masks(scene: Scene) -> tuple[Tensor, list[int]]:
    """(masks, size, size) bool of a scene's segments, and their class ids (positions in `CLASS_NAMES`)."""
    import torch

    ids = np.array([segment["id"] for segment in scene.segments_info], dtype=np.int32)
    masks = torch.from_numpy(scene.panoptic_map[None] == ids[:, None, None])
    return masks, [segment["category_id"] for segment in scene.segments_info]


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return y, x


@lru_cache(maxsize=8)
def _upsampling(size: int, cells: int) -> np.ndarray:
    """(size, cells) matrix of linear interpolation."""
    position = np.linspace(0, cells - 1, size, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32)))


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """Standard normal noise to cut pieces from: drawing it anew would take a third of a scene's time."""
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def _noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    bank = _noise_bank()
    count = math.prod(shape)
    start = int(rng.integers(0, bank.size - count))
    return bank[start : start + count].reshape(shape)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) smooth noise in 0–1."""
    up = _upsampling(size, cells)
    return up @ rng.random((cells, cells), dtype=np.float32) @ up.T


def _blend(value: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    low_array, high_array = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return low_array + value[..., None] * (high_array - low_array)


def _sky(rng: np.random.Generator, size: int) -> np.ndarray:
    clouds = np.clip(2.5 * _smooth_noise(rng, size, max(3, size // 24)) - 1.0, 0, 1)
    return _blend(clouds, (0.50, 0.68, 0.86), (0.93, 0.95, 0.97))


def _grass(rng: np.random.Generator, size: int) -> np.ndarray:
    blades = np.repeat(_noise(rng, -(-size // 5), size), 5, axis=0)[:size]
    return _blend(np.clip(0.5 + 0.3 * blades, 0, 1), (0.16, 0.30, 0.10), (0.48, 0.58, 0.26))


def _brick(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    height = rng.uniform(8, 11)
    row = np.floor((y + rng.uniform(0, height)) / height)
    along = (x + rng.uniform(0, height) + (row % 2) * height) / (2 * height)
    across = (y + rng.uniform(0, 0.1)) / height
    mortar = ((along % 1) < 0.1) | (np.abs((across - np.floor(across)) - 0.5) > 0.42)
    tone = 0.25 * np.sin(37.0 * np.floor(along) + 71.0 * row) + 0.5
    return np.where(
        mortar[..., None], np.float32((0.72, 0.69, 0.65)), _blend(tone, (0.45, 0.20, 0.15), (0.68, 0.36, 0.28))
    )


def _sand(rng: np.random.Generator, size: int) -> np.ndarray:
    grain = 0.5 + 0.22 * _noise(rng, size, size) + 0.3 * (_smooth_noise(rng, size, 6) - 0.5)
    return _blend(np.clip(grain, 0, 1), (0.66, 0.57, 0.40), (0.93, 0.87, 0.70))


def _water(rng: np.random.Generator, size: int) -> np.ndarray:
    y, _ = _grid(size)
    swell = 6 * _smooth_noise(rng, size, max(3, size // 20))
    waves = np.sin(y * np.float32(rng.uniform(0.5, 0.8)) + swell + np.float32(rng.uniform(0, 6.3)))
    return _blend(0.5 + 0.5 * waves, (0.06, 0.20, 0.38), (0.28, 0.47, 0.60))


def _wood(rng: np.random.Generator, size: int) -> np.ndarray:
    _, x = _grid(size)
    grain = np.sin(x * np.float32(rng.uniform(0.7, 1.0)) + 9 * _smooth_noise(rng, size, max(3, size // 40)))
    streaks = np.repeat(_noise(rng, -(-size // 12), size), 12, axis=0)[:size]
    return _blend(np.clip(0.5 + 0.3 * grain + 0.12 * streaks, 0, 1), (0.32, 0.20, 0.11), (0.62, 0.44, 0.27))


_BACKGROUNDS = {"sky": _sky, "grass": _grass, "brick": _brick, "sand": _sand, "water": _water, "wood": _wood}


def _draw_background(rng: np.random.Generator, stuff: str, size: int) -> np.ndarray:
    picture = _BACKGROUNDS[stuff](rng, size)
    if stuff in ("sky", "sand", "grass"):
        return picture
    return np.swapaxes(picture, 0, 1) if rng.random() < 0.5 else picture


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """About the signed distance to a shape of unit size, negative inside."""
    if shape == "circle":
        return np.hypot(u, v) - 0.88
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.76
    if shape == "triangle":
        side = 0.8660254 * np.abs(u) - 0.5 * v
        return np.maximum(side, v) - 0.56
    if shape == "star":
        sector = 2 * math.pi / 5
        angle = np.abs((np.arctan2(v, u) % sector) - sector / 2)
        radius = np.hypot(u, v)
        inner = 0.45 * np.array((math.cos(sector / 2), math.sin(sector / 2)))
        normal = np.array((inner[1], 1.08 - inner[0]))
        normal /= np.linalg.norm(normal)
        tip = sector / 2 - angle  # 0 at a point of the star
        return radius * (np.cos(tip) * normal[0] + np.sin(tip) * normal[1]) - 1.08 * normal[0]
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 0.95, b - 0.32), np.maximum(b - 0.95, a - 0.32))
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.68) - 0.27
    if shape == "heart":
        a, b = 0.70710678 * (u + v) + 0.18, 0.70710678 * (v - u) + 0.18
        half = 0.54
        square = np.maximum(np.abs(a), np.abs(b)) - half
        lobes = np.minimum(np.hypot(a - half, b), np.hypot(a, b - half)) - half
        return np.minimum(square, lobes)
    u = u + 0.25
    return np.maximum(np.hypot(u, v) - 0.95, 0.80 - np.hypot(u - 0.55, v))


def _texture(rng: np.random.Generator, texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Share of the second tone at each pixel, or None if the texture has none."""
    if texture == "plain":
        return None
    angle = rng.uniform(0, math.pi)
    a = np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y
    b = np.float32(math.cos(angle)) * y - np.float32(math.sin(angle)) * x
    phase = rng.uniform(0, 2 * math.pi, 2).astype(np.float32)
    if texture == "striped":
        return np.clip(0.5 + 2.5 * np.sin(a * np.float32(2 * math.pi / rng.uniform(6.0, 8.0)) + phase[0]), 0, 1)
    if texture == "checked":
        frequency = np.float32(2 * math.pi / rng.uniform(16.0, 20.0))
        return np.clip(0.5 + 5 * np.sin(a * frequency + phase[0]) * np.sin(b * frequency + phase[1]), 0, 1)
    frequency = np.float32(2 * math.pi / rng.uniform(8.5, 11.0))
    return np.clip(2.2 * (np.cos(a * frequency + phase[0]) + np.cos(b * frequency + phase[1])) - 1.4, 0, 1)


def _hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    k = (np.array((5.0, 3.0, 1.0)) + 6 * hue) % 6
    return (value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def _draw_object(
    rng: np.random.Generator, combination: Combination, center: tuple[float, float], radius: float, canvas: np.ndarray
) -> tuple[slice, slice, np.ndarray]:
    """Paint an object onto `canvas`; return its box and the mask of pixels it covers there."""
    size = canvas.shape[0]
    reach = radius * 1.15
    top, bottom = max(0, int(center[0] - reach)), min(size, int(center[0] + reach) + 2)
    left, right = max(0, int(center[1] - reach)), min(size, int(center[1] + reach) + 2)
    y, x = _grid(size)
    y, x = y[top:bottom, left:right] - np.float32(center[0]), x[top:bottom, left:right] - np.float32(center[1])
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = np.float32(math.cos(angle) / radius), np.float32(math.sin(angle) / radius)
    distance = _signed_distance(combination.shape, cos * x + sin * y, cos * y - sin * x) * np.float32(radius)
    coverage = np.clip(0.5 - distance, 0, 1).astype(np.float32)

    hue = COLORS[combination.color] + rng.uniform(-0.018, 0.018)
    color = _hsv_to_rgb(hue % 1, rng.uniform(0.78, 1.0), rng.uniform(0.72, 1.0))
    tone = _texture(rng, combination.texture, x, y)
    if tone is None:
        paint = color[None, None]
    else:
        second = np.full(3, rng.uniform(0.88, 1.0) if rng.random() < 0.5 else rng.uniform(0.0, 0.14), np.float32)
        paint = color + tone[..., None] * (second - color)
    box = canvas[top:bottom, left:right]
    box += coverage[..., None] * (paint - box)
    return slice(top, bottom), slice(left, right), coverage > 0.5


def _place(
    rng: np.random.Generator, placed: list[tuple[float, float, float]], radius: float, size: int
) -> tuple[float, float]:
    """A centre that overlaps the placed circles a little at most, if one is found soon."""
    margin = min(0.75 * radius, 0.5 * size)
    best, best_clearance = (size / 2, size / 2), -math.inf
    for candidate in rng.uniform(margin, size - margin, (8, 2)).tolist():
        clearance = min(
            (math.hypot(candidate[0] - y, candidate[1] - x) - 0.8 * (radius + other) for y, x, other in placed),
            default=1.0,
        )
        if clearance > best_clearance:
            best, best_clearance = (candidate[0], candidate[1]), clearance
        if clearance > 0:
            break
    return best


def describe(things: Sequence[Combination], stuff: Sequence[str]) -> str:
    """A caption that names everything, e.g. `"a striped red star and a plain blue ring on grass"`."""
    phrases = [f"{'an' if combination.name[0] in 'aeiou' else 'a'} {combination.name}" for combination in things]
    backgrounds = " and ".join(stuff)
    if not phrases:
        return backgrounds
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"{listed} on {backgrounds}" if stuff else listed


def draw_scene(
    seed: int | Sequence[int],
    config: SceneConfig | None = None,
    combinations: Sequence[Combination] = COMBINATIONS,
) -> Scene:
    """Draw a scene.

    Args:
        seed: an integer or a sequence of integers; equal seeds draw equal scenes.
        config: what the scene may hold.
        combinations: the things it may show, all equally probable.
    """
    config = config or SceneConfig()
    rng = np.random.default_rng(seed)
    size = config.size

    number = int(rng.integers(config.backgrounds[0], config.backgrounds[1] + 1))
    stuff = [STUFF[index] for index in rng.choice(len(STUFF), number, replace=False)]
    canvas = np.ascontiguousarray(_draw_background(rng, stuff[0], size), dtype=np.float32)
    panoptic_map = np.ones((size, size), dtype=np.int32)
    for index, name in enumerate(stuff[1:], start=2):
        y, x = _grid(size)
        angle, bend = rng.uniform(0, 2 * math.pi), rng.uniform(2, 8)
        across = (x - size / 2) * np.float32(math.cos(angle)) + (y - size / 2) * np.float32(math.sin(angle))
        along = (y - size / 2) * np.float32(math.cos(angle)) - (x - size / 2) * np.float32(math.sin(angle))
        side = across + np.float32(bend) * np.sin(along * np.float32(rng.uniform(3, 8) / size)) > rng.uniform(
            -0.22 * size, 0.22 * size
        )
        np.copyto(canvas, _draw_background(rng, name, size), where=side[..., None])
        panoptic_map[side] = index

    things: list[Combination] = []
    circles: list[tuple[float, float, float]] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(config.objects[0], config.objects[1] + 1))):
        if things and rng.random() < config.repeat_probability:
            combination = things[-1]
        else:
            combination = combinations[int(rng.integers(len(combinations)))]
        radius = float(rng.uniform(*config.radius))
        center = _place(rng, circles, radius, size)
        rows, columns, covered = _draw_object(rng, combination, center, radius, canvas)
        things.append(combination)
        circles.append((*center, radius))
        areas.append(int(covered.sum()))
        panoptic_map[rows, columns][covered] = len(stuff) + len(things)

    canvas *= np.float32(rng.uniform(0.88, 1.06))
    canvas += np.float32(rng.uniform(0.1, 1.0) * config.noise) * _noise(rng, size, size, 3)
    np.clip(canvas, 0, 1, out=canvas)
    picture = (canvas * 255 + np.float32(0.5)).astype(np.uint8)

    visible = np.bincount(panoptic_map.ravel(), minlength=len(stuff) + len(things) + 1)
    hidden = [
        number
        for number, area in enumerate(areas, start=len(stuff) + 1)
        if visible[number] < max(1.0, _MIN_VISIBLE * area)
    ]
    if hidden:
        panoptic_map[np.isin(panoptic_map, hidden)] = 0
    kept_things = tuple(t for number, t in enumerate(things, start=len(stuff) + 1) if number not in hidden)
    kept_stuff = tuple(name for number, name in enumerate(stuff, start=1) if visible[number])
    segments_info = []
    for number, name in enumerate([*stuff, *(combination.name for combination in things)], start=1):
        if number in hidden or not visible[number]:
            continue
        ys, xs = np.nonzero(panoptic_map == number)
        top, left = int(ys.min()), int(xs.min())
        segments_info.append(
            {
                "id": number,
                "category_id": _CLASS_ID[name],
                "isthing": int(number > len(stuff)),
                "iscrowd": 0,
                "area": int(visible[number]),
                "bbox": [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1],
            }
        )
    return Scene(picture, panoptic_map, segments_info, describe(kept_things, kept_stuff), kept_things, kept_stuff)


def split_combinations(split: str, withheld: str | None = None) -> tuple[Combination, ...]:
    """The things that scenes of a split show: base combinations in `train`, all in the others.

    Raises:
        ValueError: if the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}.")
    return base_combinations(withheld) if split == "train" else COMBINATIONS


def split_seed(split: str) -> tuple[int, int]:
    """First numbers of the seeds of a split's scenes; no two splits share a scene.

    Raises:
        ValueError: if the split is unknown.
    """
    split_combinations(split)
    return _SEED_ROOT, SPLITS.index(split)


def scene_vocabulary() -> Vocabulary:
    """All classes of the world, in the order of `CLASS_NAMES`, with their kind."""
    from ..model.vocabulary import Vocabulary, VocabularyClass

    return Vocabulary(
        classes=tuple(VocabularyClass(name, (name,), name not in STUFF) for name in CLASS_NAMES),
    )


class SceneDataset:
    """Map-style data set of scenes that are drawn when they are asked for.

    Args:
        split: one of `SPLITS`.
        num_scenes: its length.
        config: what scenes may hold.
        withheld: with `split="train"`, see [`base_combinations`].
        seed: another seed gives other scenes of the same split.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        split: str = "train",
        num_scenes: int = 5000,
        config: SceneConfig | None = None,
        withheld: str | None = None,
        seed: int = 0,
    ):
        if num_scenes < 1:
            raise ValueError(f"num_scenes must be at least 1, got {num_scenes}.")
        self.split, self.num_scenes, self.config, self.seed = split, num_scenes, config or SceneConfig(), seed
        self.combinations = split_combinations(split, withheld)

    def __len__(self) -> int:
        return self.num_scenes

    def scene(self, index: int) -> Scene:
        """Draw a scene.

        Raises:
            IndexError: if there is no such scene.
        """
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"The data set has {self.num_scenes} scenes, there is no number {index}.")
        return draw_scene((*split_seed(self.split), self.seed, index), self.config, self.combinations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A row as panoptic data sets have it: the scene's name, pictures, `segments_info` and caption."""
        scene = self.scene(index)
        ids = scene.panoptic_map
        colors = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        return {
            "image_id": f"{self.split}-{self.seed}-{index}",
            "image": Image.fromarray(scene.picture),
            "panoptic_map": Image.fromarray(colors),
            "segments_info": scene.segments_info,
            "caption": scene.caption,
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(self.num_scenes))


def _rows(shards: list[int], num_shards: int, **arguments: Any) -> Iterator[dict[str, Any]]:
    dataset = SceneDataset(**arguments)
    for shard in shards:
        for index in range(shard, len(dataset), num_shards):
            yield dataset[index]


def load_scenes(
    split: str = "train",
    num_scenes: int = 5000,
    streaming: bool = False,
    withheld: str | None = None,
    seed: int = 0,
    num_shards: int = 16,
) -> datasets.Dataset | datasets.IterableDataset:
    """The miniature world as a Hugging Face data set; see [`SceneDataset`] for its rows.

    Args:
        split: see [`SceneDataset`].
        num_scenes: see [`SceneDataset`].
        streaming: draw scenes while iterating instead of writing them to the data set cache first.
        withheld: see [`SceneDataset`].
        seed: see [`SceneDataset`].
        num_shards: shards of a streamed data set, for several workers or processes.
    """
    import datasets

    arguments = {"split": split, "num_scenes": num_scenes, "withheld": withheld, "seed": seed}
    split_combinations(split, withheld)
    segment = {name: datasets.Value("int64") for name in ("id", "category_id", "isthing", "iscrowd", "area")}
    features = datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "panoptic_map": datasets.Image(),
            "segments_info": datasets.List({**segment, "bbox": datasets.List(datasets.Value("int64"))}),
            "caption": datasets.Value("string"),
        }
    )
    if streaming:
        num_shards = min(num_shards, num_scenes)
        return datasets.IterableDataset.from_generator(
            _rows,
            features=features,
            gen_kwargs={"shards": list(range(num_shards)), "num_shards": num_shards, **arguments},
        )
    return datasets.Dataset.from_generator(
        _rows, features=features, gen_kwargs={"shards": [0], "num_shards": 1, **arguments}
    )
