"""Drawn scenes to try the app with, which need no picture of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PIL import Image

from ..data.scenes import STUFF, draw_scene, split_seed
from ..miniature.demonstration import default_vocabulary
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
        scene = draw_scene((*split_seed("test"), 1, seed))
        vocabulary = default_vocabulary(scene)
        vocabulary = vocabulary.with_things([name not in STUFF for name in vocabulary.names])
        picture = Image.fromarray(scene.picture).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        scenes.append(ExampleScene(scene.caption, picture, *labels_text(vocabulary)))
    return tuple(scenes)


__all__ = ["SCENE_SEEDS", "ExampleScene", "example_scenes"]
