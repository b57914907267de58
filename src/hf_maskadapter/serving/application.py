"""The FastAPI application of a service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.responses import JSONResponse, Response

from .. import __version__
from . import endpoints, label_studio
from .errors import ClientGoneError, RequestError
from .label_studio_options import LabelStudioOptions
from .middleware import Guard
from .schemas import component_schemas
from .service import Service
from .task_pictures import TaskPictures

ROUTERS = (endpoints.router, label_studio.router)
"""What the application answers, protocol by protocol."""

_DESCRIPTION = (
    "Open-vocabulary segmentation with Mask-Adapter: a picture and labels in, masks with labels out. Pictures come as "
    "uploads of a form, as Base64 in JSON, or as bare bytes. What goes wrong is told in one sentence, `detail`."
)
_CLIENT_HAS_GONE = 499


def create_application(service: Service, task_pictures: LabelStudioOptions | None = None) -> FastAPI:
    """The application, which starts and stops the service with itself.

    Args:
        service: what answers.
        task_pictures: where pictures of Label Studio's tasks may come from; by default the environment tells.
    """
    pictures = TaskPictures(task_pictures or LabelStudioOptions(), service.limits.request.upload_bytes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await pictures.close()
            await service.stop()

    application = FastAPI(
        title="hf-maskadapter", version=__version__, description=_DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    application.state.service = service
    application.state.task_pictures = pictures
    application.state.interfaces = label_studio.Interfaces(service.limits.queue.vocabularies)
    for router in ROUTERS:
        application.include_router(router)
    application.add_middleware(Guard, service=service)
    application.add_exception_handler(RequestError, _on_refusal)  # type: ignore[arg-type]
    application.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    application.add_exception_handler(ClientGoneError, _on_disconnect)
    application.openapi = lambda: _openapi(application, secured=service.api_key is not None)  # type: ignore[method-assign]
    return application


def _openapi(application: FastAPI, *, secured: bool) -> dict[str, Any]:
    if application.openapi_schema is None:
        schema = get_openapi(
            title=application.title,
            version=application.version,
            description=application.description,
            routes=application.routes,
        )
        components = schema.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | component_schemas()
        if secured:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        application.openapi_schema = schema
    return application.openapi_schema


async def _on_refusal(_: Request, error: RequestError) -> Response:
    content = json.dumps({"detail": error.sentence})  # in ASCII: a sentence may quote halves of characters
    return Response(content, error.status, error.headers, media_type="application/json")


async def _on_invalid(_: Request, error: RequestValidationError) -> Response:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if isinstance(part, int) or part.isidentifier())
    return JSONResponse({"detail": f"{where}: {problem['msg']}."}, 422)


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLIENT_HAS_GONE)


__all__ = ["ROUTERS", "create_application"]
