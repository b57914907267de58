"""`maskadapter demo`: the embedded model on a drawn scene, beside plain mask pooling and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.options import option
from ..files import write_atomically
from .errors import EXIT_OK, UserError, one_line
from .opening import silence_transformers
from .options import Command, names_as_classes
from .segment import OVERLAY_SUFFIXES

_PANEL_SIZE = 576
_HEAT_MAPS = 3


@dataclass(kw_only=True)
class DemoOptions:
    """Which scene, what to look for, and where the picture goes."""

    output: Path = option("picture file to write", metavar="FILE")
    seed: int = option("of the scene", 0)
    labels: str | None = option(
        'class names separated by commas, such as "striped red star, grass"; default: all 262 of the drawn world, '
        "whatever the scene shows",
        None,
        metavar="NAMES",
    )
    model: str | None = option("a miniature of your own; default: the embedded one", None, metavar="DIR")


def run(options: DemoOptions) -> int:
    """Draw, segment, and write the picture."""
    if options.output.suffix.lower() not in OVERLAY_SUFFIXES:
        raise UserError(f"--output {options.output} must end in one of {', '.join(OVERLAY_SUFFIXES)}")
    if options.seed < 0:
        raise UserError(f"--seed must not be negative, got {options.seed}")
    silence_transformers()
    from PIL import Image

    from ..miniature import load_miniature
    from ..miniature.demonstration import demonstrate
    from ..model.vocabulary import Vocabulary

    vocabulary = None if options.labels is None else Vocabulary.from_list(names_as_classes(options.labels))
    segmenter, processor = load_miniature(options.model)
    demonstration = demonstrate(
        segmenter, processor, options.seed, vocabulary, panel_size=_PANEL_SIZE, heat_maps=_HEAT_MAPS
    )
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        kind = Image.registered_extensions()[options.output.suffix.lower()]
        write_atomically(options.output, lambda file: demonstration.picture.save(file, format=kind))
    except OSError as error:
        raise UserError(f"cannot write {options.output}: {one_line(error)}") from error
    scores = demonstration.scores()
    print(f"Given the true masks (the picture shows results with generated ones{scores and ': ' + scores}):")
    for line in demonstration.lines:
        print(line)
    print(f"{options.output}: written")
    return EXIT_OK


COMMAND = Command(
    name="demo",
    summary="draw a scene and segment it with the embedded model",
    description="Draw a scene of coloured, textured shapes from a seed, segment it with the embedded model and labels "
    "of your choice, and write one picture: input, truth, mask pooling and Mask-Adapter side by side, and where the "
    "adapter looks. Nothing is downloaded.",
    options=DemoOptions,
    run=run,
)
