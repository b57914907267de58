"""Drawn scenes to try the app with, which need no picture of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from PIL import Image

from ..data.scenes import COLORS, SHAPES, STUFF, Scene
from ..miniature.demonstration import demonstration_scene
from ..model.vocabulary import Vocabulary
from .labels import labels_text

SCENE_SEEDS = (1, 2, 3, 4)
"""Scenes of the test split, which the embedded model was not trained on: simply the first ones."""

_SIDE = 384


@dataclass(frozen=True)
class ExampleScene:
    """A scene and what to look for in it.

    Args:
        title: what it shows.
        picture: the scene.
        labels: what it shows, and as many things that it does not show.
        things: the countable ones among these.
    """

    title: str
    picture: Image.Image
    labels: str
    things: str


@cache
def example_scenes() -> tuple[ExampleScene, ...]:
    """The scenes, drawn when they are first asked for."""
    scenes = []
    for seed in SCENE_SEEDS:
        scene = demonstration_scene(seed)
        picture = Image.fromarray(scene.picture).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        scenes.append(ExampleScene(scene.caption, picture, *labels_text(_vocabulary(scene))))
    return tuple(scenes)


def _vocabulary(scene: Scene) -> Vocabulary:
    """What a scene shows, each thing once more with another colour and with another shape, and every background."""
    shown = list(dict.fromkeys(scene.things))
    names = [thing.name for thing in shown]
    for thing in shown:
        names.append(replace(thing, color=_next(thing.color, list(COLORS))).name)
        names.append(replace(thing, shape=_next(thing.shape, SHAPES)).name)
    names = list(dict.fromkeys([*names, *STUFF]))
    return Vocabulary.from_list([[name] for name in names], things=[name not in STUFF for name in names])


def _next(value: str, values: Sequence[str]) -> str:
    return values[(list(values).index(value) + 1) % len(values)]


__all__ = ["SCENE_SEEDS", "ExampleScene", "example_scenes"]
