"""`maskadapter serve`: the model as a service over HTTP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..data.options import option, option_group
from ..serving.label_studio_options import LabelStudioOptions
from ..serving.limits import QueueOptions, RequestLimits, ServiceLimits
from .errors import EXIT_OK
from .opening import load_segmenter, refuse_exported
from .options import Command, ModelOptions


@dataclass(kw_only=True)
class ServedModelOptions(ModelOptions):
    """The model that answers; nothing of what clients ask for lies on disk unless that is wanted."""

    vocabulary_cache: bool = option("keep the encoded labels of clients on disk for the next start", False)


@dataclass(kw_only=True)
class AddressOptions:
    """Where the service is found, and by whom."""

    host: str = option("interface to listen at; the default one is reached from this machine alone", "127.0.0.1")
    port: int = option("port to listen at, 0 for any free one", 8000)
    api_key_file: Path | None = option(
        "file with the key that clients must send; by default the environment variable MASKADAPTER_API_KEY, if there "
        "is one",
        None,
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port must lie between 0 and 65535, got {self.port}")


@dataclass(kw_only=True)
class ServeOptions:
    """Which model is served, where, and within which limits."""

    model: ServedModelOptions = option_group(ServedModelOptions, "model")
    address: AddressOptions = option_group(AddressOptions, "where")
    request: RequestLimits = option_group(RequestLimits, "limits of a request")
    queue: QueueOptions = option_group(QueueOptions, "limits of all requests together")
    label_studio: LabelStudioOptions = option_group(LabelStudioOptions, "pictures of Label Studio's tasks")


def run(options: ServeOptions) -> int:
    """Serve until the process is told to end.

    Raises:
        Terminated, KeyboardInterrupt: after what was accepted is answered.
    """
    refuse_exported(options.model.model, "the service")
    from ..serving.application import create_application
    from ..serving.running import bind, is_loopback, read_key, run_application
    from ..serving.service import Service

    key = read_key(options.address.api_key_file)
    if key is None and not is_loopback(options.address.host):
        print(
            f"maskadapter serve: warning: whoever reaches {options.address.host} may use this service: set a key "
            "(MASKADAPTER_API_KEY or --api-key-file), or leave out --host",
            file=sys.stderr,
        )
    bind(options.address.host, options.address.port).close()  # a taken port is told before the model is loaded
    service = Service(
        load_segmenter(options.model),
        _name(options.model),
        ServiceLimits(request=options.request, queue=options.queue),
        mask_embedding=options.model.mask_embedding,
        api_key=key,
    )
    with bind(options.address.host, options.address.port) as bound:
        run_application(create_application(service, options.label_studio), service, bound)
    return EXIT_OK


def _name(model: ModelOptions) -> str:
    """What answers call the model: its name, but no path of this machine."""
    from ..loading import MINIATURE

    if model.model is None:
        return MINIATURE
    return Path(model.model).resolve().name if Path(model.model).is_dir() else model.model


COMMAND = Command(
    name="serve",
    summary="answer pictures and labels over HTTP",
    description="Serve the model over HTTP: POST /v1/segment takes a picture and labels and answers masks, POST "
    "/v1/classify labels masks of your own; GET /v1/models, /healthz, /metrics and /docs tell about it. Label Studio "
    "takes it as a machine learning backend. The service is "
    "reached from this machine alone unless --host says otherwise. SIGTERM and Ctrl-C end it after every accepted "
    "request is answered, with status 143 and 130.",
    options=ServeOptions,
    run=run,
    extra="serve",
)
