"""`maskadapter convert`: released checkpoints to models of this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.options import option
from .errors import EXIT_OK, UserError
from .opening import silence_transformers
from .options import Command


@dataclass(kw_only=True)
class ConvertOptions:
    """Which checkpoint, what completes it, and where the model goes."""

    source: str = option(
        "local file, or a file on the Hub: owner/name:path/in/repository; owner/name alone lists the files that are "
        "there, and the presets that fit them",
        metavar="SOURCE",
        positional=True,
    )
    output: Path | None = option("folder to write: it appears complete or not at all", None, metavar="DIR")
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

    def __post_init__(self) -> None:
        if self.output is None and "/" not in self.source:  # no repository, whose files could be listed
            raise ValueError("--output DIR is needed: where the model goes")


def run(options: ConvertOptions) -> int:
    """Convert, and print the report; or list what could be converted."""
    silence_transformers()
    from ..conversion import convert_checkpoint
    from ..conversion.reading import repository_of

    repository = repository_of(options.source)
    if repository is not None:
        name, revision = repository
        _list_repository(name, options.revision or revision, will_convert=options.output is not None)
        return EXIT_OK
    if options.output is None:
        raise UserError("say where the model goes: --output DIR")
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


def _list_repository(repository: str, revision: str | None, *, will_convert: bool) -> None:
    """Print the checkpoints of a Hub repository with the presets that fit.

    Raises:
        UserError: if it has none, or if a file should have been converted.
    """
    from ..conversion.released import list_checkpoints, presets_of_remote

    files = list_checkpoints(repository, revision)
    if not files:
        raise UserError(f"the Hub repository {repository} holds no checkpoint, nor is there a file of that name here")
    if will_convert:
        names = ", ".join(f"{repository}:{file.path}" for file in files)
        raise UserError(f"{repository} is a repository on the Hub: name a file in it ({names})")
    command = None
    for file in files:
        presets = [preset.name for preset in presets_of_remote(file)]
        print(f"{repository}:{file.path}  {file.size / 1e6:,.1f} MB")
        for preset in presets:
            print(f"    --preset {preset}")
        if not presets:
            print("    no layout and sizes of a released model")
        elif command is None:
            at = "" if revision is None else f" --revision {revision}"
            command = f"maskadapter convert {repository}:{file.path}{at} --preset {presets[0]} --output DIR"
    if command is not None:
        print(f"\nFor example: {command}")


COMMAND = Command(
    name="convert",
    summary="convert a released checkpoint to a model of this package",
    description="Convert a released OpenCLIP ConvNeXt, FC-CLIP or Mask-Adapter checkpoint. Every weight is used or "
    "named in the report, which is printed and saved with the model. A Hub repository without a file is listed.",
    options=ConvertOptions,
    run=run,
)
