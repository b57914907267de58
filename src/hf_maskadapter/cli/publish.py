"""`maskadapter publish`: a model, an adapter, a data set or results to the Hub, in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.options import option
from .errors import EXIT_OK
from .options import Command


@dataclass(kw_only=True)
class PublishOptions:
    """What is published, and where."""

    folder: str = option("what to publish", metavar="FOLDER", positional=True)
    repository: str = option("where to, as owner/name; made if it is not there", metavar="REPOSITORY", positional=True)
    kind: Literal["model", "adapter", "dataset", "results"] | None = option(
        "what it is (default: what it looks like)", None
    )
    subfolder: str = option("where in the repository (default for results: evaluation/NAME)", "", metavar="DIR")
    private: bool = option("make a new repository private (default: as the owner's settings say)", False)
    revision: str | None = option("branch to commit to, made if it is not there (default: main)", None, metavar="NAME")
    commit_message: str | None = option("the commit's first line", None)
    card: Path | None = option("Markdown file in place of the folder's README.md", None, metavar="FILE")
    base_model: str | None = option(
        "an adapter's base model on the Hub, in place of the one that it names", None, metavar="NAME"
    )
    dry_run: bool = option("only list what would be published; needs no network", False)


def run(options: PublishOptions) -> int:
    """Publish, and say what and where."""
    from ..hub import push_folder_to_hub

    publication = push_folder_to_hub(
        options.folder,
        options.repository,
        kind=options.kind,
        subfolder=options.subfolder,
        private=options.private or None,
        revision=options.revision,
        commit_message=options.commit_message,
        card=None if options.card is None else options.card.read_text(encoding="utf-8"),
        base_model=options.base_model,
        dry_run=options.dry_run,
    )
    print(publication)
    return EXIT_OK


COMMAND = Command(
    name="publish",
    summary="publish a model, an adapter, a data set or results on the Hub",
    description="Publish a folder on the Hub in one commit: a saved model with processor, code (for "
    "trust_remote_code), card and figures; adapter weights; a data set of maskadapter prepare; or results of "
    "maskadapter evaluate. Log in first with `hf auth login`, or set HF_TOKEN.",
    options=PublishOptions,
    run=run,
)
