"""The evaluation loop: every sample of a data set once, on any number of processes, resumable."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from ..data.loaders import outlive_a_signal
from ..data.loading import SegmentationStream
from ..data.samples import DataError, SegmentationSample
from ..data.sampling import shard_indices
from ..files import write_atomically
from ..model.prefetching import Prefetched, prefetching_pays
from .counts import MethodCounts, count_sample, sample_score, summarize
from .functional.mean_iou import mean_iou
from .predictors import NO_CLASS, EvaluationItem, Predictor
from .progress import Progress, ProgressStore
from .report import class_map, fingerprint, picture_of

_PENDING_BATCHES = 4  # samples of several sizes that wait for company, in batches
_SECONDS_BETWEEN_RUNNING_RESULTS = 2.0


class EvaluationStopped(KeyboardInterrupt):
    """An evaluation ended before its result, since it was told to."""


@dataclass
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        methods: Name of each method → ``metrics``, ``per_class`` and ``confusions``, see `summarize`.
        num_samples: Samples evaluated.
        seconds: Time of this run.
        num_resumed: Samples among them that earlier runs had counted.
        worst: ``sample_id``, ``index`` and ``score`` (see `sample_score`) of the worst samples, worst first.
        pictures: Files with pictures of the worst samples.
    """

    methods: dict[str, dict[str, Any]]
    num_samples: int
    seconds: float
    num_resumed: int
    worst: list[dict[str, Any]]
    pictures: list[Path]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the first method."""
        return next(iter(self.methods.values()))["metrics"]


def evaluate_model(
    predictor: Predictor,
    dataset: Any,
    *,
    accelerator: Accelerator | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    max_samples: int | None = None,
    num_worst: int = 0,
    output_dir: Path | str | None = None,
    save_every: int = 50,
    show_progress: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> EvaluationResult:
    """Evaluates a model on a data set; to be called by every process, and the result is the same in each.

    A batch holds pictures of one prepared size only, so that padding changes nothing. Sums in another order may still
    differ in the last bit: only ``batch_size=1`` gives the very same numbers on any number of processes.

    Args:
        predictor: Model, preprocessing and post-processing.
        dataset: A `SegmentationDataset`, `SegmentationStream`, or any sequence of `SegmentationSample` with the
            attributes ``vocabulary``, ``has_instances`` and ``name``.
        accelerator: Tells processes and device; default: a new one.
        batch_size: Pictures at a time on each process.
        num_workers: Processes that read and prepare pictures.
        max_samples: Evaluate the first so many samples only.
        num_worst: Number of worst pictures to find.
        output_dir: Folder for progress, with which an interrupted evaluation goes on when it is called again, and for
            pictures of the worst samples. None keeps nothing.
        save_every: Samples that a process counts between two states of progress.
        show_progress: Whether to show a progress bar with the running mean IoU.
        should_stop: Asked before each batch; once it says yes on a process, that one reads no further samples.

    Raises:
        EvaluationStopped: On all processes, if ``should_stop`` said yes on one of them.
        DataError: A sample cannot be read, its annotation does not fit the vocabulary, or a prediction does not fit the
            annotation; the message names the sample and its file.
        ValueError: Tasks, classes and data set do not fit together.
        ProgressError: ``output_dir`` holds the progress of another evaluation.
    """
    _check(predictor, dataset)
    accelerator = accelerator or Accelerator()
    start = time.perf_counter()
    predictor.to(accelerator.device)
    store = _open_store(predictor, dataset, accelerator, max_samples, num_worst, output_dir)
    before = store.load() if store is not None else Progress()
    own = Progress(counts=_empty_counts(predictor))
    items = _items(predictor, dataset, accelerator, set(before.done), max_samples, num_workers)
    bar = tqdm(
        Prefetched(items) if prefetching_pays(accelerator.device) else items,
        total=None if isinstance(dataset, SegmentationStream) else len(items.dataset),  # type: ignore[arg-type]
        desc=_description(accelerator),
        unit="picture",
        disable=not (show_progress and accelerator.is_main_process),
    )
    running = _RunningResult(bar, predictor)
    saved, is_stopped = 0, False
    try:
        with bar, torch.inference_mode(), accelerator.autocast():
            for batch in _batches(bar, batch_size):
                if should_stop is not None and should_stop():
                    is_stopped = True
                    break
                _count(predictor, batch, own, num_worst)
                running.show(own)
                if store is not None and len(own.done) - saved >= save_every:
                    store.save(accelerator.process_index, own)
                    saved = len(own.done)
    except Exception:
        if store is not None:  # when a bad sample is mended, or memory freed, it goes on from here
            store.save(accelerator.process_index, own)
        raise
    if store is not None:
        store.save(accelerator.process_index, own)

    total = before
    of_processes = [(own, is_stopped)]
    if accelerator.num_processes > 1:
        of_processes = gather_object(of_processes)
    for progress, _ in of_processes:
        total.add(progress)
    if any(is_stopped for _, is_stopped in of_processes):
        raise EvaluationStopped(f"The evaluation was stopped after {len(total.done)} samples.")
    _check_complete(total, dataset, max_samples)
    worst = total.scores[:num_worst]
    pictures = []
    if output_dir is not None and worst and not isinstance(dataset, SegmentationStream):
        pictures = _draw_worst(predictor, dataset, worst, accelerator, Path(output_dir) / "worst")
    methods = {
        name: summarize(counts, predictor.vocabulary, predictor.seen_classes) for name, counts in total.counts.items()
    }
    accelerator.wait_for_everyone()
    return EvaluationResult(
        methods=methods,
        num_samples=len(total.done),
        seconds=time.perf_counter() - start,
        num_resumed=len(total.done) - _number_counted(own, accelerator),
        worst=[{"sample_id": sample_id, "index": index, "score": score} for score, index, sample_id in worst],
        pictures=pictures,
    )


def _check(predictor: Predictor, dataset: Any) -> None:
    if predictor.vocabulary.names != dataset.vocabulary.names:
        raise ValueError(
            f"The model is asked for {len(predictor.vocabulary)} classes ({', '.join(predictor.vocabulary.names[:3])}, "
            f"...), but {dataset.name} has {len(dataset.vocabulary)} ({', '.join(dataset.vocabulary.names[:3])}, ...): "
            "they must be the same."
        )
    wanting = [task for task in predictor.tasks if task != "semantic"]
    if wanting and not dataset.has_instances:
        raise ValueError(
            f"{dataset.name} has label maps, which do not tell objects of one class apart: {' and '.join(wanting)} "
            "results cannot be measured on it, only semantic ones."
        )
    if not predictor.tasks:
        raise ValueError("Say what to evaluate: semantic, panoptic, instance, or several of them.")
    names = [method.name for method in predictor.methods]
    if len(set(names)) != len(names):
        raise ValueError(f"A method is given twice: {', '.join(names)}.")


def _open_store(
    predictor: Predictor,
    dataset: Any,
    accelerator: Accelerator,
    max_samples: int | None,
    num_worst: int,
    output_dir: Path | str | None,
) -> ProgressStore | None:
    if output_dir is None:
        return None
    store = ProgressStore(Path(output_dir) / "progress", fingerprint(predictor, dataset, max_samples, num_worst))
    failure: list[Exception] = []
    if accelerator.is_main_process:
        try:
            store.begin()
        except Exception as error:  # so that the other processes do not wait for ever
            failure.append(error)
    failures = gather_object(failure) if accelerator.num_processes > 1 else failure
    if failures:
        raise failures[0]
    return store


def _empty_counts(predictor: Predictor) -> dict[str, MethodCounts]:
    with_segments = getattr(predictor, "masks", None) == "annotation"
    return {
        method.name: MethodCounts.empty(predictor.tasks, len(predictor.vocabulary), with_segments)
        for method in predictor.methods
    }


class _Items(Dataset):
    """Samples of a data set with a length, read and prepared; an error is returned, so that it arrives as it is."""

    def __init__(self, predictor: Predictor, dataset: Any, indices: Sequence[int]):
        self.prepare, self.source, self.indices = predictor.prepare, dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> EvaluationItem | Exception:
        index = self.indices[position]
        return _read(index, lambda: self.source[index], self.prepare, self.source.name)


class _StreamItems(IterableDataset):
    """The same of a stream; a process passes over the samples that others evaluate."""

    def __init__(self, predictor: Predictor, stream: SegmentationStream, positions: Iterable[int], own: slice):
        self.prepare, self.source, self.positions, self.own = predictor.prepare, stream, positions, own

    def __iter__(self) -> Iterator[EvaluationItem | Exception]:
        worker = torch.utils.data.get_worker_info()
        assert worker is None or worker.num_workers == 1
        wanted = iter(itertools.islice(self.positions, self.own.start, None, self.own.step))
        following = next(wanted, None)
        for position, row in enumerate(self.source.rows()):
            if following is None:
                return
            if position != following:
                continue
            following = next(wanted, None)
            yield _read(position, partial(self.source.reader, row, position), self.prepare, self.source.name)


def _read(
    index: int, read: Callable[[], SegmentationSample], prepare: Callable[[SegmentationSample], Any], name: str
) -> EvaluationItem | Exception:
    try:
        sample = read()
        return EvaluationItem(index, sample, *prepare(sample))
    except DataError as error:
        return error
    except (ValueError, TypeError, OSError) as error:
        return DataError(f"{name}, sample number {index}: {error}")


def _items(
    predictor: Predictor,
    dataset: Any,
    accelerator: Accelerator,
    done: set[int],
    max_samples: int | None,
    num_workers: int,
) -> DataLoader:
    """What this process is to evaluate: of the samples not done before, every n-th."""
    processes = accelerator.num_processes, accelerator.process_index
    source: Any
    if isinstance(dataset, SegmentationStream):
        positions = _Remaining(done, max_samples)
        source = _StreamItems(predictor, dataset, positions, slice(processes[1], None, processes[0]))
        num_workers = min(num_workers, 1)
    else:
        number = len(dataset) if max_samples is None else min(max_samples, len(dataset))
        remaining = [index for index in range(number) if index not in done]
        source = _Items(predictor, dataset, [remaining[place] for place in shard_indices(len(remaining), *processes)])
    pin_memory = accelerator.device.type == "cuda"
    return DataLoader(
        source,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        worker_init_fn=outlive_a_signal,
    )


@dataclass
class _Remaining:
    """Positions in a stream that are not done, ascending."""

    done: set[int]
    limit: int | None

    def __iter__(self) -> Iterator[int]:
        positions = itertools.count() if self.limit is None else range(self.limit)
        return (position for position in positions if position not in self.done)


def _unchanged(item: Any) -> Any:
    return item


def _batches(items: Iterable[EvaluationItem | Exception], batch_size: int) -> Iterator[list[EvaluationItem]]:
    """Batches of items of one group; incomplete ones when too many wait, and at the end."""
    waiting: dict[tuple[int, ...], list[EvaluationItem]] = {}
    for item in items:
        if isinstance(item, Exception):
            raise item
        group = waiting.setdefault(item.group, [])
        group.append(item)
        if len(group) == batch_size:
            yield waiting.pop(item.group)
        elif sum(map(len, waiting.values())) >= _PENDING_BATCHES * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _count(predictor: Predictor, batch: list[EvaluationItem], own: Progress, num_worst: int) -> None:
    predictions = predictor.predict(batch)
    for position, item in enumerate(batch):
        try:
            counts = {
                method: count_sample(
                    of_method[position], item.sample, item.index, predictor.vocabulary, predictor.tasks
                )
                for method, of_method in predictions.items()
            }
        except (ValueError, TypeError) as error:
            raise DataError(f"Sample {item.sample.sample_id!r} ({item.sample.file_name}): {error}") from error
        score = sample_score(counts[predictor.methods[0].name], len(predictor.vocabulary)) if num_worst else math.nan
        for method, of_method in counts.items():
            own.counts[method].add(of_method)
        own.done.append(item.index)
        if not math.isnan(score):
            own.scores = sorted([*own.scores, (score, item.index, item.sample.sample_id)])[:num_worst]


class _RunningResult:
    """Shows the mean IoU so far beside the progress bar, not more often than it is worth."""

    def __init__(self, bar: tqdm, predictor: Predictor):
        self.bar, self.method, self.num_classes = bar, predictor.methods[0].name, len(predictor.vocabulary)
        self.shown = -math.inf

    def show(self, progress: Progress) -> None:
        counts = progress.counts[self.method].semantic
        now = time.perf_counter()
        if self.bar.disable or counts is None or now - self.shown < _SECONDS_BETWEEN_RUNNING_RESULTS:
            return
        self.shown = now
        self.bar.set_postfix_str(f"mIoU {100 * mean_iou(counts, self.num_classes, NO_CLASS)['mean_iou']:.1f}")


def _description(accelerator: Accelerator) -> str:
    number = accelerator.num_processes
    return "Evaluating" if number == 1 else f"Evaluating (process 1 of {number})"


def _check_complete(total: Progress, dataset: Any, max_samples: int | None) -> None:
    if isinstance(dataset, SegmentationStream):
        if not total.done:
            raise DataError(f"{dataset.name}: the data set is empty.")
        return
    expected = len(dataset) if max_samples is None else min(max_samples, len(dataset))
    if len(total.done) != expected:
        raise RuntimeError(f"{len(total.done)} samples were counted instead of {expected}.")


def _number_counted(own: Progress, accelerator: Accelerator) -> int:
    counted = [len(own.done)]
    return sum(gather_object(counted)) if accelerator.num_processes > 1 else counted[0]


def _draw_worst(
    predictor: Predictor, dataset: Any, worst: list[tuple[float, int, str]], accelerator: Accelerator, folder: Path
) -> list[Path]:
    """Predicts the worst samples once more and draws them, each process its share."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for place in range(accelerator.process_index, len(worst), accelerator.num_processes):
        score, index, sample_id = worst[place]
        sample = dataset[index]
        item = EvaluationItem(index, sample, *predictor.prepare(sample))
        with torch.inference_mode(), accelerator.autocast():
            predictions = {name: of_method[0] for name, of_method in predictor.predict([item]).items()}
        maps = {name: class_map(prediction) for name, prediction in predictions.items()}
        path = folder / f"{place + 1:02d}_{round(100 * score):03d}_{_as_file_name(sample_id)}.jpg"
        painted = picture_of(sample, maps, predictor.vocabulary)
        write_atomically(path, partial(painted.save, format="JPEG", quality=90))
        files.append(path)
    return sorted(gather_object(files) if accelerator.num_processes > 1 else files)


def _as_file_name(sample_id: str) -> str:
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in sample_id)[-80:]


__all__ = ["EvaluationResult", "EvaluationStopped", "evaluate_model"]
