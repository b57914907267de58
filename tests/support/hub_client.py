"""Fresh Python processes that talk to a `LocalHub`, without the seconds that importing PyTorch takes each time.

One helper process imports PyTorch and Transformers, nothing of the package, and forks a child for each piece of code.
What `huggingface_hub` reads from the environment when it is imported is read again in the child.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "hf_maskadapter"


@dataclass
class Finished:
    """How a piece of code ended; `result` is what it left in the variable `result`."""

    status: int
    stdout: str
    stderr: str
    result: Any

    def expect_success(self) -> Any:
        """The result.

        Raises:
            AssertionError: if the code failed, with what it printed.
        """
        assert self.status == 0, f"{self.stdout}\n{self.stderr}"
        return self.result


class HubClient:
    """Runs code in fresh processes.

    Args:
        endpoint: the Hub's address.
        folder: for what the processes leave behind.
    """

    def __init__(self, endpoint: str, folder: Path):
        self.endpoint, self.folder = endpoint, folder
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "HF_HOME": str(folder / "nobody"),
        }
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
            environment.pop(name, None)
        self._helper = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(
        self,
        code: str,
        *arguments: Any,
        home: Path | str = "home",
        token: str | None = None,
        offline: bool = False,
        package: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a process and return its id; `wait` for it before the next one.

        Args:
            code: Python; `arguments` holds the arguments, and `result` is handed back.
            *arguments: anything that JSON can express.
            home: `HF_HOME`, by name: processes with the same one share a cache.
            token: access token.
            offline: whether `HF_HUB_OFFLINE` is set.
            package: whether the package can be imported.
            environment: further environment variables.
        """
        variables = {"HF_HOME": str(self.folder / home), **(environment or {})}
        variables |= {"HF_TOKEN": token} if token else {}
        variables |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        self._output = tempfile.mkdtemp(dir=self.folder)
        task = {
            "code": code,
            "arguments": [str(value) if isinstance(value, Path) else value for value in arguments],
            "environment": variables,
            "package": package,
            "output": self._output,
        }
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(task) + "\n")
        self._helper.stdin.flush()
        return int(self._helper.stdout.readline())

    def wait(self) -> Finished:
        """Wait for the process that was started last."""
        assert self._helper.stdout is not None
        status = int(self._helper.stdout.readline())
        output = Path(self._output)
        result = output / "result.json"
        return Finished(
            status,
            (output / "stdout").read_text(),
            (output / "stderr").read_text(),
            json.loads(result.read_text()) if result.exists() else None,
        )

    def run(self, code: str, *arguments: Any, **options: Any) -> Finished:
        """Run code to its end, see `start`."""
        self.start(code, *arguments, **options)
        return self.wait()

    def close(self) -> None:
        """End the helper process."""
        self._helper.kill()
        self._helper.communicate()


def _serve() -> None:
    """The helper process: fork a child for each line of standard input."""
    import torch

    torch.set_num_threads(1)
    for module in (
        "datasets",
        "huggingface_hub.hf_api",
        "jinja2",
        "transformers.dynamic_module_utils",
        "transformers.models.auto.modeling_auto",
        "transformers.models.clip.modeling_clip",
        "transformers.models.clip.tokenization_clip",
        "transformers.models.convnext.modeling_convnext",
        "transformers.models.mask2former.modeling_mask2former",
        "transformers.pipelines",
    ):
        importlib.import_module(module)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = _run(task)
            os._exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(task: dict[str, Any]) -> int:
    """The child process."""
    output = Path(task["output"])
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(output)
    os.environ.update(task["environment"])
    import datasets
    from huggingface_hub import constants
    from transformers import dynamic_module_utils

    importlib.reload(constants)
    datasets.config.HF_DATASETS_CACHE = Path(constants.HF_HOME, "datasets")
    dynamic_module_utils.HF_MODULES_CACHE = os.path.join(constants.HF_HOME, "modules")
    if not task["package"]:
        sys.modules[PACKAGE] = None  # type: ignore[assignment]  # as if it were not installed
    namespace: dict[str, Any] = {"arguments": task["arguments"], "result": None, "__name__": "__main__"}
    status = 0
    try:
        exec(compile(task["code"], "client code", "exec"), namespace)
        (output / "result.json").write_text(json.dumps(namespace["result"]))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve()
