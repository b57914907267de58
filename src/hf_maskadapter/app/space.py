"""The app as a Space for the Hub: a folder that runs as it is, with the package in it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement

from .. import __version__
from ..files import replacing_folder
from ..loading import check_name
from .settings import AppSettings

_DISTRIBUTION = "hf-maskadapter"
_PACKAGE = Path(__file__).parents[1]

_APP = '''"""The Space's app; the package that it runs lies beside it. Run here: python app.py"""

import contextlib
import os

from hf_maskadapter.app.launching import run_app
from hf_maskadapter.app.settings import AppSettings

SETTINGS = AppSettings(
    models={models!r},  # what visitors choose from; see hf_maskadapter.loading.MODEL_NAMES
    host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),  # a Space sets it to all of the machine's addresses
    port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    max_pixels={max_pixels},
    max_upload_bytes={max_upload_bytes},
    max_waiting={max_waiting},
)

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run_app(SETTINGS)
'''

_README = """# Mask-Adapter

Say what to look for in a picture, and see the named segments and why each has its name. The model is {models}, with
[Mask-Adapter](https://arxiv.org/abs/2412.04533). Pictures and results are not kept.

`app.py` has the models and limits, `requirements.txt` what it needs, `hf_maskadapter` the package, version {version}.
"""


class SpaceError(ValueError):
    """A Space cannot be written there; the message says why and what to do."""


def write_space(folder: Path, settings: AppSettings, *, overwrite: bool = False) -> None:
    """Write a Space: `README.md` with its metadata, `app.py`, `requirements.txt`, and the package itself.

    Args:
        folder: where to; it appears complete or not at all.
        settings: the models that it offers, and its limits. Where it listens is the Space's to say.
        overwrite: whether an earlier Space in the folder is replaced.

    Raises:
        ModelNameError: if there cannot be a model of a name.
        SpaceError: if the folder holds something that may not be replaced, or a model is a folder of this machine.
        ModuleNotFoundError: if the package or one that it needs is not installed.
        OSError: if a file cannot be written; the folder is then as it was.
    """
    folder = Path(folder)
    for model in settings.models:
        check_name(model)
        if Path(model).is_dir():
            raise SpaceError(
                f"The model {model} is a folder of this machine, which the Space would not have: publish it "
                "(maskadapter publish) and name it on the Hub."
            )
    _check_folder(folder, overwrite)
    requirements = space_requirements()
    with replacing_folder(folder) as unfinished:
        shutil.copytree(_PACKAGE, unfinished / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        limits = {name: getattr(settings, name) for name in ("max_pixels", "max_upload_bytes", "max_waiting")}
        (unfinished / "app.py").write_text(_APP.format(models=settings.models, **limits), encoding="utf-8")
        (unfinished / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (unfinished / "README.md").write_text(_readme(settings.models), encoding="utf-8")


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise SpaceError(f"{folder} is a file: name a folder to write.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise SpaceError(
            f"The folder {folder} is not empty: name another one, or replace the Space in it (--overwrite)."
        )
    if not (folder / "app.py").is_file() or not (folder / _PACKAGE.name).is_dir():
        raise SpaceError(f"The folder {folder} is not empty and holds no Space of this command: it is not replaced.")
    if (folder / ".git").exists():
        raise SpaceError(
            f"The folder {folder} is a Git repository, whose history would be lost: write to another folder, and copy "
            "the files from there."
        )


def _readme(models: tuple[str, ...]) -> str:
    metadata = {
        "title": "Mask-Adapter",
        "emoji": "🧩",
        "colorFrom": "indigo",
        "colorTo": "blue",
        "sdk": "gradio",
        "sdk_version": importlib.metadata.version("gradio"),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "app_file": "app.py",
        "license": "apache-2.0",
        "short_description": "Named segments for any words, and why",
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n{_README.format(models=', '.join(models), version=__version__)}"


def space_requirements() -> list[str]:
    """What the package and the app need, each at the version that is installed here.

    Raises:
        ModuleNotFoundError: if the package or one that it needs is not installed.
    """
    pinned = []
    for line in _declared():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "app"}):
            pinned.append(f"{requirement.name}=={_public_version(requirement.name)}")
    return sorted(set(pinned), key=str.lower)


def _declared() -> list[str]:
    try:
        return importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"{_DISTRIBUTION} is not installed, so that it is not known what it needs: pip install it first"
        ) from error


def _public_version(name: str) -> str:
    """A version without what tells builds of it apart, such as PyTorch's for CPUs."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"{name}, which the Space needs, is not installed") from error
    return re.sub(r"\+.*", "", version)


__all__ = ["SpaceError", "space_requirements", "write_space"]
