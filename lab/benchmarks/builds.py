"""Builds of the package to compare: this checkout, and any other commit in a worktree and an environment of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_PLACES = ("hf_maskadapter.model.", "hf_maskadapter.", "hf_maskadapter.evaluation.", "hf_maskadapter.training.")


@dataclass(frozen=True)
class Build:
    """A build of the package, as another process runs it.

    Args:
        name: what tables call it.
        commit: of the repository, with a + if files differ from it.
        python: the interpreter.
        root: a checkout of the build, for what is not in the package.
        paths: what stands first on the module search path, before the laboratory.
    """

    name: str
    commit: str
    python: Path
    root: Path
    paths: tuple[Path, ...] = ()

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables for a process of this build.

        Args:
            threads: of PyTorch and the libraries below it; 0 leaves that to them.
        """
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (*self.paths, ROOT)))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.pop(name, None)
            if threads:
                environment[name] = str(threads)
        return environment


def this_build() -> Build:
    """The package that this process imports."""
    import hf_maskadapter

    package = Path(hf_maskadapter.__file__).parents[1]
    changed = _git("status", "--porcelain", "--untracked-files=no")
    commit = _git("rev-parse", "--short=7", "HEAD") + "+" * bool(changed)
    return Build("this build", commit, Path(sys.executable), ROOT, (package,))


def prepare_build(commit: str, folder: Path) -> Build:
    """Another commit's build: made, or found where it was made before.

    Its worktree and its virtual environment, with that commit's package installed, lie in a subfolder of `folder`. The
    libraries are those of this process's environment, so that builds are compared and not PyTorch's releases.

    Args:
        commit: anything that Git takes for one.
        folder: where builds are kept.

    Raises:
        ValueError: if there is no such commit, or its package cannot be installed.
    """
    try:
        short = _git("rev-parse", "--short=7", "--verify", "--quiet", f"{commit}^{{commit}}")
    except ValueError:
        raise ValueError(
            f"{commit!r} is no commit of {ROOT}: give a hash, a tag or a branch of this repository."
        ) from None
    place = folder.absolute() / short
    python = place / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    build = Build(short, short, python, place / "worktree")
    complete = place / "complete"
    if complete.exists():
        return build
    place.mkdir(parents=True, exist_ok=True)
    if not (build.root / ".git").exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--force", "--detach", str(build.root), short)
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place / "environment")])
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(build.root)])
    own = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(own, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    complete.touch()
    return build


def of_build(module: str, name: str) -> Any:
    """A name of the package wherever the running build has it.

    Args:
        module: the file's name without folders.
        name: the name in it.

    Raises:
        ImportError: if the build has no such name.
    """
    for place in _PLACES:
        try:
            return getattr(importlib.import_module(place + module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not (place + module).startswith(error.name):
                raise
        except AttributeError:
            continue
    raise ImportError(f"This build has no {name} in a module {module}.")


def _git(*arguments: str) -> str:
    return _run(["git", "-C", str(ROOT), *arguments])


def _run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        ValueError: if it fails; the message holds what it said.
    """
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"{' '.join(command)} failed: {(run.stderr or run.stdout).strip()}")
    return run.stdout.strip()


__all__ = ["ROOT", "Build", "of_build", "prepare_build", "this_build"]
