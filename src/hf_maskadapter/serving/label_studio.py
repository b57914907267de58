"""Label Studio's protocol for machine learning backends: it asks for predictions while people annotate.

Spoken by Label Studio's `ml/api_connector.py` and answered by its own `label_studio_ml/api.py` as here. Nothing is
trained: its notes about annotations are taken and forgotten.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Any, cast, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..exchange.errors import ExchangeError
from ..exchange.label_studio_predictions import BrushControl, predict_for, read_brush_control
from .accepting import answer_in_time, service_of
from .admission import Place
from .descriptions import PREDICT, SETUP, WEBHOOK
from .errors import RequestError
from .service import Settings, Task
from .task_pictures import TaskPictures

_JSON = "application/json"
_DEFAULT_TASK: Task = "panoptic"
_SETTINGS = ("task", "things", "score_threshold")

router = APIRouter(tags=["Label Studio"])


class Interfaces:
    """The labeling interfaces that `/setup` brought, by project: for requests for predictions that bring none.

    Args:
        capacity: how many are kept, the last used ones.
    """

    def __init__(self, capacity: int):
        self._capacity, self._kept = capacity, OrderedDict[str, str]()

    def put(self, project: str, config: str) -> None:
        """Keep a project's interface."""
        self._kept[project] = config
        self._kept.move_to_end(project)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def get(self, project: str) -> str | None:
        """A project's interface, `None` if it is not there."""
        if project in self._kept:
            self._kept.move_to_end(project)
        return self._kept.get(project)


@router.get("/health", summary="Whether the backend is there")
async def health() -> dict[str, str]:
    """Answers at once, however long the queue is."""
    return {"status": "UP", "model_class": "MaskAdapter"}


@router.post("/setup", summary="Connect a project", response_model=None, **SETUP)
async def setup(request: Request) -> Response:
    """Check the project's labeling interface, keep it, and tell the model's version."""
    service = service_of(request)

    async def handle(body: bytes, _: Place) -> Response:
        asked = _read(body)
        config = asked.get("schema")
        if not isinstance(config, str):
            raise RequestError(422, "schema: the labeling interface's XML is missing.")
        _settings(_control(config))
        _interfaces(request).put(_project(asked), config)
        return _answer({"model_version": service.name})

    return await answer_in_time(request, handle)


@router.post("/predict", summary="Pre-annotate tasks", response_model=None, **PREDICT)
async def predict(request: Request) -> Response:
    """Segment the tasks' pictures with the interface's labels; regions are brush masks."""
    service = service_of(request)

    async def handle(body: bytes, _: Place) -> Response:
        asked = _read(body)
        tasks, parameters = asked.get("tasks"), asked.get("params")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise RequestError(422, "tasks: expected a list of Label Studio's tasks.")
        context = parameters.get("context") if isinstance(parameters, dict) else None
        if isinstance(context, dict) and context.get("result"):
            raise RequestError(
                422, "Interactive predictions from drawn points or boxes are not given: switch them off in the project."
            )
        config = asked.get("label_config") or _interfaces(request).get(_project(asked))
        if not isinstance(config, str):
            raise RequestError(422, "label_config: the labeling interface's XML is missing.")
        control = _control(config)
        settings, things = _settings(control)
        results: list[dict[str, Any]] = []
        for first in range(0, len(tasks), service.limits.queue.batch_size):  # so many are computed together
            batch = tasks[first : first + service.limits.queue.batch_size]
            found = await asyncio.gather(
                *(_predicted(request, task, number, control, settings, things)
                  for number, task in enumerate(batch, start=first + 1)),
                return_exceptions=True,
            )  # fmt: skip
            for result in found:
                if isinstance(result, BaseException):
                    raise result
                results.append(result)
        return Response(await service.run(_encoded, {"results": results}), media_type=_JSON)

    return await answer_in_time(request, handle)


@router.post("/webhook", summary="Take note of annotations", response_model=None, **WEBHOOK)
async def webhook(request: Request) -> Response:
    """Label Studio tells of annotations, from which nothing is learned here."""

    async def handle(body: bytes, _: Place) -> Response:
        _read(body)
        return _answer({"status": "ok", "result": None})

    return await answer_in_time(request, handle)


async def _predicted(
    request: Request, task: dict[str, Any], number: int, control: BrushControl, settings: Settings, things: list[str]
) -> dict[str, Any]:
    """The prediction for one task."""
    service = service_of(request)
    name = f"Task {task.get('id', number)}"
    data = task.get("data")
    address = data.get(control.data_key) if isinstance(data, dict) else None
    if not isinstance(address, str) or not address:
        raise RequestError(422, f"{name}: its data have no picture's address under {control.data_key!r}.")
    try:
        content = await _pictures(request).read(address)
        with service.admission.place() as place:
            answer = await service.segment(content, control.synonyms, place, things=things or None, settings=settings)
    except RequestError as error:
        raise RequestError(error.status, f"{name}: {error.sentence}", error.retry_after) from error
    return await service.run(predict_for, control, answer.segments, service.name)


def _read(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "The body is no JSON.") from error
    if not isinstance(asked, dict):
        raise RequestError(422, "The body must be an object.")
    return asked


def _control(config: str) -> BrushControl:
    try:
        return read_brush_control(config)
    except ExchangeError as error:
        raise RequestError(422, str(error)) from error


def _settings(control: BrushControl) -> tuple[Settings, list[str]]:
    """How to segment, and the names of the countable classes, from the control's attributes `model_...`."""
    unknown = sorted(set(control.settings) - set(_SETTINGS))
    if unknown:
        raise RequestError(
            422,
            f"The labeling interface's BrushLabels has the attribute model_{unknown[0]}; there are "
            f"{', '.join(f'model_{name}' for name in _SETTINGS)}.",
        )
    task = control.settings.get("task", _DEFAULT_TASK)
    if task not in get_args(Task):
        raise RequestError(422, f"model_task must be one of {', '.join(get_args(Task))}, got {task!r}.")
    threshold = None
    if "score_threshold" in control.settings:
        try:
            threshold = float(control.settings["score_threshold"])
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            raise RequestError(422, "model_score_threshold must be a number from 0 to 1.")
    texts = [name.strip() for name in control.settings.get("things", "").split(",") if name.strip()]
    unnamed = [name for name in texts if name not in control.results]
    if unnamed:
        raise RequestError(422, f"model_things holds {unnamed[0]!r}, which is no label of the interface.")
    things = [control.synonyms[control.results.index(name)][0] for name in texts]
    return Settings(task=cast(Task, task), threshold=threshold), things


def _project(asked: dict[str, Any]) -> str:
    """The project's number; Label Studio adds the time at which it was made."""
    return str(asked.get("project")).partition(".")[0]


def _pictures(request: Request) -> TaskPictures:
    return request.app.state.task_pictures


def _interfaces(request: Request) -> Interfaces:
    return request.app.state.interfaces


def _encoded(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _answer(content: dict[str, Any]) -> Response:
    return Response(_encoded(content), media_type=_JSON)


__all__ = ["Interfaces", "router"]
