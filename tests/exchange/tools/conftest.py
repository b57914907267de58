"""Other tools, called in the environment that MASKADAPTER_TOOLS names."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_maskadapter.model.vocabulary import Vocabulary

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tool() -> Callable[..., Any]:
    """Calls a function of `tool.py` there."""
    python = os.environ.get("MASKADAPTER_TOOLS")
    if not python:
        pytest.skip(
            "MASKADAPTER_TOOLS must name the Python of an environment with datumaro, label-studio-sdk and supervision: "
            "python -m venv ENV && ENV/bin/pip install -r tests/exchange/tools/requirements.txt, then ENV/bin/python"
        )

    def run(call: str, **arguments: Any) -> Any:
        arguments = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [python, HERE / "tool.py"],
            input=json.dumps({"call": call, **arguments}),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.from_list(["sky", "cat", "dog"], things=[False, True, True])
