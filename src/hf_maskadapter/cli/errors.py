"""How the command reports what the user can mend: in one line, with an exit status."""

from __future__ import annotations

import argparse
from typing import NoReturn

EXIT_OK, EXIT_SOME_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


class UserError(Exception):
    """Something that the user can mend: reported in one line, without a traceback."""


class Parser(argparse.ArgumentParser):
    """Reports mistakes in one line."""

    def error(self, message: str) -> NoReturn:
        """End the process with a line that names the mistake."""
        self.exit(EXIT_USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def one_line(error: BaseException) -> str:
    """An exception's message in one line; of a file's error, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
