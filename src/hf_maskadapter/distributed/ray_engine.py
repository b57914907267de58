"""Ray Data reads pictures, a pool of actors segments them, and results come back one by one."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..model.pictures import read_picture
from .batch_segmenter import BatchSegmenter
from .processes import usable_cores

Unit = list[tuple[int, str, Any, bool]]
"""Pictures of one unit: place, name, what is decoded, and whether it is finished and only company in a batch."""

_STORE = 512 * 2**20  # bytes of objects in Ray's store at a time
_BLOCK = 8 * 2**20  # bytes of pictures that are read as one object
_UNITS = 4  # that an actor gets at a time
_READER, _ACTOR = 0.1, 0.9  # cores that a reader and an actor ask for, so that readers find room beside actors


class RayError(RuntimeError):
    """Ray cannot be started or reached, or its work failed; the message says why."""


class _Actor:
    """Segments units and makes records of them; each actor loads the model once."""

    def __init__(self, segmenter: BatchSegmenter, record: Callable[[str, Any, Any], dict[str, Any]]) -> None:
        self._segmenter, self._record = segmenter, record

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        results: list[tuple[int, dict[str, Any] | None, str | None]] = []
        for packed in batch["unit"]:
            results += self._results(pickle.loads(packed))
        return {"result": [json.dumps(result).encode() for result in results]}

    def _results(self, unit: Unit) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
        pictures: list[Any] = []
        errors: list[str | None] = []
        for _, name, encoded, _ in unit:
            try:
                pictures.append(read_picture(encoded))
                errors.append(None)
            except (ValueError, OSError, TypeError) as error:
                pictures.append(None)
                errors.append(f"{name}: {error}")
        readable = [picture for picture in pictures if picture is not None]
        found = iter(self._segmenter.segment(readable) if readable else [])
        for (place, name, _, is_done), picture, problem in zip(unit, pictures, errors, strict=True):
            if problem is not None:
                yield place, None, problem
                continue
            segments = next(found)
            if not is_done:
                yield place, self._record(name, picture, segments), None


def segment_on_ray(
    units: Callable[[int, int], Iterable[Unit]],
    segmenter: BatchSegmenter,
    record: Callable[[str, Any, Any], dict[str, Any]],
    num_workers: int | None = None,
    address: str | None = None,
) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    """Segment pictures on Ray; what a dead worker had in hand is done again.

    Args:
        units: gives the units of a part, by its number and how many there are; is called in readers.
        segmenter: goes to each worker, which loads the model once.
        record: makes a record of a picture's name, the picture and its segments; is called in workers.
        num_workers: models that run at a time; by default one a GPU, else one a core.
        address: of a running cluster; by default Ray is started on this machine and ended again. A Ray that this
            process has started already is used as it is.

    Yields:
        Place, record and `None`; or place, `None` and what is wrong with the picture. In no certain order.

    Raises:
        RayError: if Ray cannot be started, or the work failed.
    """
    import pyarrow
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Units(Datasource):
        """Units of pictures, each a row."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *arguments: Any, **keywords: Any) -> list[ReadTask]:  # noqa: ARG002
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)

            def reader(index: int) -> Callable[[], Iterator[pyarrow.Table]]:
                def read() -> Iterator[pyarrow.Table]:
                    for unit in units(index, parallelism):
                        yield pyarrow.table({"unit": [pickle.dumps(unit)]})

                return read

            return [ReadTask(reader(index), unknown) for index in range(parallelism)]

    with _running(ray, address):
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        workers = num_workers or gpus or int(resources.get("CPU", 1))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context.target_max_block_size = _BLOCK
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=_STORE
        )
        try:
            pictures = ray.data.read_datasource(Units(), override_num_blocks=workers, num_cpus=_READER)
            results = pictures.map_batches(
                _Actor,
                fn_constructor_args=(segmenter, record),
                batch_size=_UNITS,
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=_ACTOR,
                num_gpus=min(1.0, gpus / workers) if gpus else None,
            )
            for row in results.iter_rows():
                place, made, error = json.loads(row["result"])
                yield place, made, error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RayError(f"Ray could not finish: {reason} Give the command again to go on.") from error


@contextlib.contextmanager
def _running(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"num_cpus": usable_cores(), "include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise RayError(f"Ray cannot be used {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


__all__ = ["RayError", "segment_on_ray"]
