#!/usr/bin/env python
"""Publish a model, an adapter, a data set or results on the Hub, in one commit.

python scripts/push_to_hub.py runs/stage2/model jane/my-segmenter --private
python scripts/push_to_hub.py runs/stage2/adapter jane/my-adapter --base_model jane/my-segmenter
python scripts/push_to_hub.py out/evaluation jane/my-segmenter
python scripts/push_to_hub.py prepared/ade20k_150 jane/ade20k --dry_run
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Publish a folder on the Hub in one commit: a saved model with processor, code (for "
        "trust_remote_code), card and figures; adapter weights; a data set of prepare_dataset.py; or results of "
        "evaluate.py. Log in first with `hf auth login`, or set HF_TOKEN."
    )
    parser.add_argument("folder", help="what to publish")
    parser.add_argument("repository", help="where to, as owner/name; made if it is not there")
    parser.add_argument(
        "--kind", choices=("model", "adapter", "dataset", "results"), help="by default what it looks like"
    )
    parser.add_argument("--subfolder", default="", help="where in the repository; results: evaluation/NAME")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="branch to commit to, made if it is not there (default: main)")
    parser.add_argument("--commit_message", help="the commit's first line")
    parser.add_argument("--card", type=Path, help="Markdown file in place of the folder's README.md")
    parser.add_argument("--base_model", help="an adapter's base model on the Hub, in place of the one that it names")
    parser.add_argument("--dry_run", action="store_true", help="only list what would be published; needs no network")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(parse_arguments(arguments))

    from hf_maskadapter.hub import push_folder_to_hub

    try:
        card = options.pop("card")
        text = None if card is None else card.read_text(encoding="utf-8")
        print(push_folder_to_hub(options.pop("folder"), options.pop("repository"), card=text, **options))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
