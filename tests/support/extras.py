"""Packages that only an extra brings: tests that need them are left out where they are missing, unless all must run."""

import importlib
import os
import shutil

import pytest

#: Set where nothing may be left out: what is missing is then a failure, since a test that never runs proves nothing.
REQUIRED = os.environ.get("MASKADAPTER_REQUIRE_EXTRAS") == "1"


def needs_extra(extra: str, *modules: str) -> None:
    """Skip the calling module unless all `modules` of `extra` can be imported; fail instead where all are required."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            _miss(f"{module} is not installed ({error}): pip install -c constraints.txt -e '.[{extra}]'")


def needs_program(program: str, advice: str) -> None:
    """Skip the calling module unless `program` is on the PATH; fail instead where all is required."""
    if shutil.which(program) is None:
        _miss(f"{program} is not on the PATH: {advice}")


def _miss(reason: str) -> None:
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
