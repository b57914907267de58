"""The addresses of the service: segment, classify, and what there is to know about it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..loading import list_models
from ..model.post_processing_maskadapter import TASKS
from ..model.vocabulary import label_sets
from .accepting import answer_in_time, service_of
from .admission import Place
from .descriptions import CLASSIFY, INFORMATION_PROBLEMS, SEGMENT
from .pictures import FORMATS
from .reading import mask_entries, read_classify_request, read_segment_request
from .results import as_id_map, as_json, as_painted
from .schemas import ServedModel, ServedModels
from .service import Answer, Service, Settings

_JSON, _PNG = "application/json", "image/png"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter()


@router.post("/v1/segment", summary="Segment a picture", response_model=None, **SEGMENT)
async def segment(request: Request) -> Response:
    """Find what the labels name in a picture. Pictures that wait are computed together."""
    service = service_of(request)

    async def handle(body: bytes, place: Place) -> Response:
        read = await service.run(read_segment_request, *_sent(request), body, service.limits.request)
        fields = read.fields
        settings = Settings(fields.task, fields.threshold, fields.overlap_threshold, fields.mask_embedding)
        answer = await service.segment(read.image, fields.labels, place, things=fields.things, settings=settings)
        return await _response(service, request, answer, fields.format)

    return await answer_in_time(request, handle)


@router.post("/v1/classify", summary="Classify masks of your own", response_model=None, **CLASSIFY)
async def classify(request: Request) -> Response:
    """Give each of a picture's masks the label that fits best. No masks are generated."""
    service = service_of(request)

    async def handle(body: bytes, place: Place) -> Response:
        read = await service.run(read_classify_request, *_sent(request), body, service.limits.request)
        masks = await service.run(mask_entries, read, service.limits.request)
        settings = Settings(mask_embedding=read.fields.mask_embedding)
        answer = await service.segment(read.image, read.fields.labels, place, settings=settings, masks=masks)
        return await _response(service, request, answer, read.fields.format)

    return await answer_in_time(request, handle)


@router.get("/v1/models", summary="The model, and what requests may hold", responses=INFORMATION_PROBLEMS)
async def models(request: Request) -> ServedModels:
    """Which model answers, which label sets it knows by name, and the limits."""
    service = service_of(request)
    facts = next((facts for facts in list_models() if facts.name == service.name), None)
    model = service.segmenter.model
    ways = ["pooling", "crop"] if model.adapter is None else ["adapter", "pooling", "crop"]
    limits = service.limits.request
    return ServedModels(
        models=[
            ServedModel(
                name=service.name,
                title=None if facts is None else facts.title,
                license=None if facts is None else facts.license,
                num_parameters=model.num_parameters(),
                mask_embeddings=ways,
            )
        ],
        tasks=list(TASKS),
        label_sets=list(label_sets()),
        picture_formats=list(FORMATS),
        limits={
            "upload_bytes": limits.upload_bytes,
            "pixels": limits.pixels,
            "labels": limits.max_labels,
            "masks": limits.max_masks,
            "seconds": limits.time_limit,
        },
    )


@router.head("/healthz", include_in_schema=False)  # Starlette's routes answer it by themselves, FastAPI's do not
@router.get("/healthz", summary="Whether the service is there")
async def healthz() -> dict[str, str]:
    """Answers at once, however long the queue is."""
    return {"status": "ok"}


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response, responses=INFORMATION_PROBLEMS)
async def metrics(request: Request) -> Response:
    """Requests, batches, waiting, memory, in Prometheus' text form."""
    return Response(service_of(request).metrics.text(), media_type=_METRICS)


def _sent(request: Request) -> tuple[str, list[tuple[str, str]]]:
    return request.headers.get("content-type", ""), request.query_params.multi_items()


async def _response(service: Service, request: Request, answer: Answer, wanted: str | None) -> Response:
    if wanted is None:
        accepted = request.headers.get("accept", "")
        wanted = "png" if _PNG in accepted and _JSON not in accepted and "*/*" not in accepted else "json"
    content: Any
    if wanted == "json":
        content, media_type = await service.run(as_json, answer, service.name), _JSON
    else:
        content, media_type = await service.run(as_id_map if wanted == "png" else as_painted, answer), _PNG
    return Response(content, media_type=media_type)


__all__ = ["router"]
