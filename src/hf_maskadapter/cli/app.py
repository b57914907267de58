"""`maskadapter app`: the model in the browser, on this machine or as a Space."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..app.settings import DEFAULT_PORT, AppSettings
from ..data.options import option, option_group
from ..loading import MODEL_NAMES
from .errors import EXIT_OK
from .opening import refuse_exported, silence_transformers
from .options import Command, positive

_MEGA = 1_000_000


@dataclass(kw_only=True)
class ServerOptions:
    """Where the app listens, and its limits."""

    host: str = option("address to listen on; by default nobody but this machine reaches it", "127.0.0.1")
    port: int = option("port to listen on", DEFAULT_PORT)
    max_megapixels: int = option("millions of pixels of a picture; larger ones are refused", 25, parse=positive)
    max_megabytes: int = option("size of a picture's file", 50, parse=positive)
    max_waiting: int = option("requests that wait at most, while one is worked on", 16, parse=positive)


@dataclass(kw_only=True)
class AppOptions:
    """What the app offers."""

    model: str | None = option(
        "the model to begin with: a name (`maskadapter models`), a folder, or a name on the Hub; default: miniature. "
        "The page offers all that have a name",
        None,
        metavar="DIR_OR_ID",
    )
    device: str | None = option("cpu, cuda, cuda:1, mps; default: the first accelerator there is", None)
    server: ServerOptions = option_group(ServerOptions, "where it listens, and its limits")
    write_space: Path | None = option(
        "instead of serving the app, write a folder to publish as a Space on the Hub, which offers the model alone",
        None,
        metavar="DIR",
    )
    overwrite: bool = option("replace an earlier Space in the folder of --write-space", False)

    def __post_init__(self) -> None:
        if self.overwrite and self.write_space is None:
            raise ValueError("--overwrite belongs to --write-space DIR")


def run(options: AppOptions) -> int:
    """Serve the app until it is ended, or write a Space."""
    refuse_exported(options.model, "the app")
    first = options.model or MODEL_NAMES[0]
    server = options.server
    offered = (first,) if options.write_space is not None else tuple(dict.fromkeys((first, *MODEL_NAMES)))
    settings = AppSettings(
        models=offered,
        device=options.device,
        host=server.host,
        port=server.port,
        max_pixels=server.max_megapixels * _MEGA,
        max_upload_bytes=server.max_megabytes * _MEGA,
        max_waiting=server.max_waiting,
    )
    if options.write_space is not None:
        from ..app.space import write_space

        write_space(options.write_space, settings, overwrite=options.overwrite)
        print(f"{options.write_space}: written; try it with python {options.write_space / 'app.py'}")
        return EXIT_OK
    if find_spec("gradio") is None:  # before PyTorch is imported, which takes seconds
        raise ModuleNotFoundError("the app needs Gradio, which is not installed")
    silence_transformers()
    from ..app.launching import run_app

    run_app(settings)
    return EXIT_OK


COMMAND = Command(
    name="app",
    summary="the model in the browser: pictures, labels, segments and why",
    description="Serve a page on this machine: drop, paste or photograph a picture, type labels, see the named "
    "segments and why each has its name, compare the adapter with pooling, download masks. It listens to this machine "
    "alone and keeps no file. --write-space writes the same as a Space for the Hub.",
    options=AppOptions,
    run=run,
    extra="app",
)
