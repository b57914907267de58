"""`maskadapter convert`: released checkpoints to models of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.options import option
from .errors import EXIT_OK
from .opening import silence_transformers
from .options import Command


@dataclass(kw_only=True)
class ConvertOptions:
    """Which checkpoint, what completes it, and where the model goes."""

    source: str = option(
        "local file, or a file on the Hub: owner/name:path/in/repository", metavar="SOURCE", positional=True
    )
    output: Path = option("folder to write: it appears complete or not at all", metavar="DIR")
    preset: str | None = option(
        "the released model, which tells what the weights cannot; default: the one that the weights look like",
        None,
        metavar="NAME",
    )
    config: Path | None = option("the same as settings in a file, for other models", None, metavar="JSON")
    generator_from: str | None = option(
        "FC-CLIP checkpoint that completes a warm-up checkpoint with its mask generator and void embedding",
        None,
        metavar="SOURCE",
    )
    tokenizer: str | None = option(
        "CLIP's bpe_simple_vocab_16e6.txt.gz, or a tokenizer's folder or name on the Hub; default: CLIP's, if the Hub "
        "can be reached",
        None,
        metavar="FILE_OR_ID",
    )
    revision: str | None = option("branch, tag or commit of sources on the Hub", None, metavar="NAME")
    overwrite: bool = option("replace the model in the output folder", False)


def run(options: ConvertOptions) -> int:
    """Convert, and print the report."""
    silence_transformers()
    from ..conversion import convert_checkpoint

    conversion = convert_checkpoint(
        options.source,
        options.output,
        preset=options.preset,
        config=options.config,
        generator_from=options.generator_from,
        tokenizer=options.tokenizer,
        overwrite=options.overwrite,
        revision=options.revision,
    )
    print(conversion.report)
    return EXIT_OK


COMMAND = Command(
    name="convert",
    summary="convert a released checkpoint to a model of this package",
    description="Convert a released OpenCLIP ConvNeXt, FC-CLIP or Mask-Adapter checkpoint. Every weight is used or "
    "named in the report, which is printed and saved with the model.",
    options=ConvertOptions,
    run=run,
)
