"""What went wrong with the Hub, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # the HTTP library that the Hub's client uses

_LOG_IN = "log in with `hf auth login`, or give a token (HF_TOKEN)"
_REFUSED = f"it refused the access token, which is wrong or has expired: {_LOG_IN}"
_NO_TOKEN = f"it wants to know who you are: {_LOG_IN}"
_UNREACHABLE = "the Hub cannot be reached"
_CHECK = "Check the connection, and that HF_HUB_OFFLINE is not set"


class HubError(OSError):
    """Reading from or writing to the Hub failed; the message says why and what to do."""


def hub_reason(error: BaseException) -> str | None:
    """Why a request to the Hub failed, and what to do about it.

    Args:
        error: an exception of `huggingface_hub`, or one that was raised because of it, as Transformers does.

    Returns:
        A clause for after a colon, without a full stop at its end; `None` if the Hub has nothing to do with it.
    """
    if type(error) is ValueError:  # the client's own words about a mistake, though the Hub may have noticed it
        return None
    seen: BaseException | None = error
    while seen is not None:
        reason = _reason(seen)
        if reason is not None:
            return reason
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _reason(error: BaseException) -> str | None:
    if isinstance(error, HubError):
        return str(error).rstrip(".")
    if isinstance(error, GatedRepoError):
        return f"access to it must be requested on its page on the Hub; then {_LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or it is private. Check the name; for a private one {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision. Check the branch, tag or commit"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return f"{_UNREACHABLE}, and the file is not in the local cache. {_CHECK}"
    if isinstance(error, LocalTokenNotFoundError):
        return _NO_TOKEN
    if isinstance(error, EntryNotFoundError):
        return "the repository has no such file"
    if isinstance(error, HFValidationError):
        return f"that is no repository name (owner/name): {_first_line(error)}"
    if isinstance(error, HfHubHTTPError):
        return _reason_of_status(error)
    if isinstance(error, httpx.TransportError):
        return f"{_UNREACHABLE} ({_first_line(error)}). {_CHECK}"
    return None


def _reason_of_status(error: HfHubHTTPError) -> str:
    status = getattr(error.response, "status_code", 0)
    headers = getattr(error.response, "headers", {})
    if status == 401:
        return _REFUSED if "credentials" in (headers.get("X-Error-Message") or "") else _NO_TOKEN
    if status == 403:
        return (
            "your token may not do that there. Check the owner's name, and use a token with write permission "
            "(https://huggingface.co/settings/tokens)"
        )
    if status == 429 or status >= 500:
        return f"the Hub cannot answer now (status {status}: {_first_line(error)}). Try again later"
    return (error.server_message or "").strip().rstrip(".") or _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")


@contextmanager
def explaining(what: str, repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn the Hub's errors inside the block into one that says what could not be done, why, and what to do.

    Args:
        what: what the block does, for "Cannot {what} {repository}".
        repository: name of a repository, or of a folder that turned out not to be there.
        revision: the version asked for.

    Raises:
        HubError: in place of errors that come from the Hub; all others pass.
    """
    try:
        yield
    except Exception as error:
        reason = hub_reason(error)
        if reason is None:
            raise
        where = repository + (f" at {revision}" if revision else "")
        raise HubError(f"Cannot {what} {where}, which is no folder here: {reason}.") from error


__all__ = ["HubError", "explaining", "hub_reason"]
