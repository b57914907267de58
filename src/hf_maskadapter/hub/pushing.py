"""Upload to the Hub, everything in one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel, ProcessorMixin

from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from .adapter_weights import save_adapter_weights
from .cards import CARD_NAME
from .contents import REPLACED, Contents, Kind, add_results_card, collect
from .errors import HubError, hub_reason


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Attributes:
        repository: Owner and name.
        kind: What it is.
        sizes: Path in the repository → bytes, of everything that belongs to it.
        deleted: Files of an earlier version that the commit removes; unknown before a dry run is a real one.
        left_out: Files of the folder that stay at home.
        notes: What the user should know.
        commit_url: The commit's address; None for a dry run.
    """

    repository: str
    kind: Kind
    sizes: dict[str, int]
    deleted: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    commit_url: str | None

    def __str__(self) -> str:
        done = f"Published the {self.kind}: {self.commit_url}"
        lines = [done if self.commit_url else f"Would publish to {self.repository} ({self.kind}):"]
        lines += [f"  {size:>13,}  {path}" for path, size in self.sizes.items()]
        lines += [f"  {'removed':>13}  {path}" for path in self.deleted]
        lines += [f"  {'left out':>13}  {path}" for path in self.left_out]
        lines.append(f"{len(self.sizes)} files, {sum(self.sizes.values()):,} bytes, one commit")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def push_folder_to_hub(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    kind: Kind | None = None,
    subfolder: str = "",
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    card: str | None = None,
    base_model: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    dry_run: bool = False,
) -> Publication:
    """Publish a folder in one commit: a model with processor, code and card, an adapter, a data set, or results.

    An upload that was interrupted leaves the repository as it was; when it is repeated, files that had arrived are not
    sent again. Of an earlier model in the same place, weights and code that the new one does not have are removed.

    Args:
        folder: a saved model, adapter weights, a data set of `prepare_dataset`, or the output of `maskadapter
            evaluate`, whose numbers also go into the metadata of the repository's card.
        repository: `owner/name`; made if it is not there.
        kind: what the folder holds; by default what it looks like.
        subfolder: where in the repository it goes; results by default to `evaluation/NAME`.
        private: whether a new repository is private; by default as the owner's settings say.
        revision: branch to commit to; made from `main` if it is not there.
        commit_message: the commit's first line.
        card: Markdown in place of the folder's README.md or a generated card.
        base_model: of an adapter, in place of the one that it names.
        token: access token; by default the one of `hf auth login` or HF_TOKEN.
        endpoint: address of the Hub.
        dry_run: only tell what would be published, without the network.

    Raises:
        ValueError: if the folder or an option does not fit.
        HubError: if the Hub refuses or cannot be reached; the message says what to do.
    """
    folder = Path(folder)
    _check_name(repository)
    with tempfile.TemporaryDirectory() as staging:
        contents = collect(
            folder, Path(staging), repository, kind=kind, subfolder=subfolder, card=card, base_model=base_model
        )
        if dry_run:
            return _publication(repository, contents, (), None)
        api = HfApi(endpoint=endpoint, token=token)
        with _explaining(repository):
            prepare_repository(repository, contents.repo_type, private=private, revision=revision, api=api)
            if contents.kind == "results":
                add_results_card(contents, folder, _read_card(api, repository, revision), repository)
            deleted = _outdated(api, repository, contents, subfolder, revision)
            commit = api.create_commit(
                repository,
                [
                    *(CommitOperationAdd(path, source) for path, source in contents.files.items()),
                    *(CommitOperationDelete(path) for path in deleted),
                ],
                commit_message=commit_message or f"Upload {contents.kind}",
                repo_type=contents.repo_type,
                revision=revision,
            )
        return _publication(repository, contents, deleted, str(commit.commit_url))


def push_model_to_hub(
    model: PreTrainedModel, processor: ProcessorMixin | None, repository: str, **options: Any
) -> Publication:
    """Publish a model from memory with its processor, code and card.

    Args:
        model: a model of this package.
        processor: its processor.
        repository: `owner/name`.
        **options: of [`push_folder_to_hub`].
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
        return push_folder_to_hub(folder, repository, kind="model", **options)


def push_adapter_to_hub(
    model: MaskAdapterForOpenVocabularySegmentation,
    repository: str,
    base_model: str,
    base_revision: str | None = None,
    **options: Any,
) -> Publication:
    """Publish a model's adapter alone, to be loaded on top of its base model by `load_with_adapter(repository)`.

    Args:
        model: a model with an adapter.
        repository: `owner/name`.
        base_model: Hub name of a model with the same CLIP and mask generator.
        base_revision: its version.
        **options: of [`push_folder_to_hub`].
    """
    with tempfile.TemporaryDirectory() as folder:
        save_adapter_weights(model, folder, base_model, base_revision)
        return push_folder_to_hub(folder, repository, kind="adapter", **options)


def push_finished_work(folder: Path, repository: str, **options: Any) -> Publication:
    """Publish what a long run has saved, as [`push_folder_to_hub`]; if that fails, say how to do it without the run.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
    """
    try:
        return push_folder_to_hub(folder, repository, **options)
    except HubError as error:
        raise HubError(f"{error} {folder} is complete: maskadapter publish {folder} {repository}") from error


def prepare_repository(
    repository: str,
    repo_type: str = "model",
    *,
    private: bool | None = None,
    revision: str | None = None,
    api: HfApi | None = None,
) -> None:
    """Make a repository and a branch if they are not there; whoever calls this before a long work learns early.

    Args:
        repository: `owner/name`.
        repo_type: "model" or "dataset".
        private: whether a new repository is private.
        revision: branch.
        api: the client; by default one with the user's own token.

    Raises:
        HubError: if the Hub refuses or cannot be reached.
        ValueError: if that is no name of a repository.
    """
    _check_name(repository)
    api = api or HfApi()
    with _explaining(repository):
        api.create_repo(repository, repo_type=repo_type, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, repo_type=repo_type, exist_ok=True)


def _publication(repository: str, contents: Contents, deleted: tuple[str, ...], commit_url: str | None) -> Publication:
    left_out, notes = tuple(contents.left_out), tuple(contents.notes)
    return Publication(repository, contents.kind, contents.sizes(), deleted, left_out, notes, commit_url)


def _check_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
        is_valid = repository.count("/") == 1
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(f"{repository!r} is no name of a repository: expected owner/name, such as jane/my-segmenter.")


def _read_card(api: HfApi, repository: str, revision: str | None) -> str:
    try:
        path = hf_hub_download(repository, CARD_NAME, revision=revision, token=api.token, endpoint=api.endpoint)
    except RemoteEntryNotFoundError:
        return ""
    return Path(path).read_text(encoding="utf-8")


def _outdated(api: HfApi, repository: str, contents: Contents, subfolder: str, revision: str | None) -> tuple[str, ...]:
    if contents.kind not in ("model", "adapter"):
        return ()
    folder = subfolder.strip("/")
    there = api.list_repo_files(repository, revision=revision)
    return tuple(
        path
        for path in there
        if path.endswith(REPLACED) and path.rpartition("/")[0] == folder and path not in contents.files
    )


@contextmanager
def _explaining(repository: str) -> Iterator[None]:
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        reason = hub_reason(error)
        if reason is None:
            raise
        raise HubError(
            f"Cannot publish to {repository}: {reason}. Its files are as they were; publish again afterwards, what has "
            "been uploaded is not sent twice."
        ) from error


__all__ = [
    "Publication",
    "prepare_repository",
    "push_adapter_to_hub",
    "push_finished_work",
    "push_folder_to_hub",
    "push_model_to_hub",
]
