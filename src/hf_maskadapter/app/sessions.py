"""What an app keeps of its open pages: the last result of each, in memory, and which files they uploaded."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .segmenting import Explanation, Method


@dataclass(frozen=True, eq=False)
class ShownResult:
    """What clicks on a result need.

    Args:
        picture: at the size that the page shows.
        explanations: of each segment.
        method: how masks were classified.
    """

    picture: Image.Image
    explanations: tuple[Explanation, ...]
    method: Method


class Sessions:
    """The open pages, by Gradio's session hashes.

    Args:
        limit: pages whose result is kept; the one that was used longest ago is forgotten first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[str, ShownResult] = OrderedDict()
        self._uploads: defaultdict[Path, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def keep(self, session: str, result: ShownResult) -> None:
        """Keep a page's result in place of its last one."""
        with self._lock:
            self._results[session] = result
            self._results.move_to_end(session)
            while len(self._results) > self._limit:
                self._results.popitem(last=False)

    def result(self, session: str) -> ShownResult:
        """A page's result.

        Raises:
            ValueError: if it is kept no more.
        """
        with self._lock:
            if session not in self._results:
                raise ValueError("This result is kept no more, since others came after it: segment the picture again.")
            self._results.move_to_end(session)
            return self._results[session]

    def uploaded(self, session: str, file: Path | None) -> None:
        """A page shows this uploaded picture, and no other one any more; `None` for none.

        Gradio keeps equal files once, so that a file is deleted when the last page that shows it is gone.
        """
        with self._lock:
            if file is not None:
                self._uploads[file].add(session)
            self._let_go(session, file)

    def forget(self, session: str) -> None:
        """Keep nothing more of a page, which was closed."""
        with self._lock:
            self._results.pop(session, None)
            self._let_go(session, None)

    def _let_go(self, session: str, kept: Path | None) -> None:
        for file in [file for file, owners in self._uploads.items() if session in owners and file != kept]:
            self._uploads[file].discard(session)
            if not self._uploads[file]:
                del self._uploads[file]
                with contextlib.suppress(OSError):
                    file.unlink()
                    file.parent.rmdir()


__all__ = ["Sessions", "ShownResult"]
