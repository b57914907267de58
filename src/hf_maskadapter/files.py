"""Files and folders that appear complete or not at all, JSON, and one writer for each folder.

Files and folders are written under a temporary name beside their own, then renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"
"""Name of the file in a folder that tells who writes to it."""


class FolderInUseError(OSError):
    """Another run writes to the folder; the message says which, and what to do."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], sync: bool = False) -> None:
    """Write a file under a temporary name in its folder and rename it.

    Args:
        path: the file, replaced if it exists. Its folder must exist.
        write: writes the content to the open temporary file.
        sync: wait until the content is on the disk, so that not even a power cut leaves an empty file.

    Raises:
        OSError: if the file cannot be written; an earlier one of its name stays as it was.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            write(file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, sync: bool = False) -> None:
    """Write a text file in UTF-8, complete or not at all; `sync` as for [`write_atomically`].

    Raises:
        OSError: if the file cannot be written.
    """
    write_atomically(path, lambda file: file.write(text.encode()), sync)


def write_json(path: Path, content: Any, indent: int | None = None, sync: bool = False) -> None:
    """Write a JSON file, complete or not at all; `sync` as for [`write_atomically`].

    Raises:
        OSError: if the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n", sync)


def write_json_lists(file: IO[bytes], head: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """Write a JSON object whose lists are made while they are written, one entry a line.

    Args:
        file: the open file.
        head: keys and values that come first.
        lists: keys and entries of the lists.
    """
    text = json.dumps(head, ensure_ascii=False)[1:-1]
    file.write(("{" + text).encode())
    separator = ", " if text else ""
    for key, entries in lists.items():
        file.write(f"{separator}{json.dumps(key)}: ".encode())
        write_json_list(file, entries)
        separator = ", "
    file.write(b"}\n")


def write_json_list(file: IO[bytes], entries: Iterable[Any]) -> None:
    """Write a JSON list whose entries are made while they are written, one a line."""
    file.write(b"[")
    separator = "\n"
    for entry in entries:
        file.write((separator + json.dumps(entry, ensure_ascii=False, separators=(",", ":"))).encode())
        separator = ",\n"
    file.write(b"\n]")


def read_json(path: Path, error_type: type[ValueError] = ValueError) -> Any:
    """The content of a JSON file.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.
        error_type: what is raised if it cannot be read.

    Raises:
        ValueError: if it is not there or no JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise error_type(f"{path} cannot be read as JSON: {error}.") from error


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when the block ends, and is removed if it fails.

    Folders above it that are missing are made, and removed again if the block fails.

    Raises:
        OSError: if a file cannot be written; the message names the folder. The old folder is then as it was.
        FolderInUseError: if another run is writing the same folder.
    """
    missing_parents = [parent for parent in folder.absolute().parents if not parent.exists()]
    unfinished = temporary_name(folder)
    try:
        unfinished.mkdir(parents=True)
        with _lock(folder.with_name(f".{folder.name}{LOCK}"), folder, "write it"):
            yield unfinished
            _exchange(unfinished, folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        for parent in missing_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        from safetensors import SafetensorError

        if isinstance(error, OSError | SafetensorError) and not isinstance(error, FolderInUseError):
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"Cannot write {folder}: {reason}. Nothing was left behind.") from error
        raise


def _exchange(unfinished: Path, folder: Path) -> None:
    replaced = temporary_name(folder, "replaced")
    if folder.exists():
        folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def temporary_name(path: Path, kind: str = "unfinished") -> Path:
    """A hidden name beside a file or folder that no other process uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{kind}")


@contextlib.contextmanager
def folder_lock(folder: str | os.PathLike[str], purpose: str) -> Iterator[Path]:
    """Be the only run that writes to a folder, which is made if need be and removed again if it stays empty.

    The operating system holds the lock and lets go of it when the process ends, however it ends: a lock whose owner has
    died is taken over. On a network file system it holds between machines if the file system passes locks on to its
    server (NFS, Lustre mounted with `flock`), and otherwise among the processes of one machine. Where a file system
    knows no locks at all, the file `.lock` itself is the lock: it is taken over if its owner's process is gone from
    this machine, and has to be removed by hand if that ran on another.

    Args:
        folder: the folder.
        purpose: what the owner does, for the message that another run gets, such as "train".

    Raises:
        FolderInUseError: if another run holds the lock; the message names its host, process and purpose.
        OSError: if the folder cannot be written to.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(folder / LOCK, folder, purpose):
            yield folder
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _lock(path: Path, folder: Path, purpose: str) -> Iterator[None]:
    from filelock import FileLock, SoftFileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"{folder} is in use: {_owner(path)}. Wait until it has ended, end it, or choose another folder."
        ) from None
    try:
        # Where the file system knows no locks, the file itself is one, and filelock writes into it whose it is.
        if not isinstance(lock, SoftFileLock):
            with contextlib.suppress(OSError):  # where the system lets nobody write to a locked file
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n{purpose}\n", encoding="utf-8")
        yield
    finally:
        # While it is held: another run that has opened the file meanwhile sees that it is gone, and makes a new one.
        path.unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    """Who holds a lock, as a message says it: its process, its host, and what it does, each in a line."""
    try:
        process, host, *purpose = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "another run writes to it"
    doing = f" ({purpose[0]})" if purpose and not purpose[0].isdigit() else ""
    return f"process {process} on {host} writes to it{doing}"


__all__ = [
    "FolderInUseError",
    "folder_lock",
    "read_json",
    "replacing_folder",
    "temporary_name",
    "write_atomically",
    "write_json",
    "write_json_list",
    "write_json_lists",
    "write_text",
]
