"""What `maskadapter annotate` does: pictures to records, alone or as one of several processes, and their assembly."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.opening import NamedPicture, PictureSource, open_pictures, pictures_of_paths
from ..data.samples import DataError
from ..distributed.parts import (
    Part,
    finished_parts,
    mark_finished,
    note_progress,
    part_lock,
    read_progress,
    whole_lock,
)
from ..distributed.threads import in_batches
from ..exchange import FORMATS, ExchangeError, ResultWriter
from ..exchange.embeddings import WithEmbeddings
from ..exchange.formats import ResultFormat, picture_name
from ..exchange.journals import JOURNAL, PARTS
from ..files import write_atomically
from ..model.pictures import as_viewer_shows
from ..model.vocabulary import Vocabulary
from .errors import EXIT_OK, EXIT_SOME_FAILED, UserError, one_line
from .segment import PICTURE_SUFFIXES
from .segmenting import Segmenting, Task, unit_size

if TYPE_CHECKING:
    from PIL import Image

    from ..model.segments import Segments
    from .annotate_options import AnnotateOptions

PURPOSE = "annotate"
IMAGES = "images"
_ASSEMBLING = 600.0  # seconds to wait for another process that looks whether it is the last one
_TELLING = 1.0  # seconds between two notes of how far this process is


@contextlib.contextmanager
def telling_mistakes() -> Iterator[None]:
    """Errors in data and results as what the user can mend."""
    try:
        yield
    except (DataError, ExchangeError) as error:
        raise UserError(one_line(error)) from error


def begin_anew(folder: Path) -> None:
    """Remove the journals of earlier runs, and with them all that they have finished."""
    with whole_lock(folder, PURPOSE):
        import shutil

        shutil.rmtree(folder / PARTS, ignore_errors=True)
        (folder / JOURNAL).write_bytes(b"")


class Annotating:
    """The work that the options of the command describe.

    Args:
        options: the command's.
        task: what kind of result.
        vocabulary: the classes.

    Raises:
        DataError: if the pictures cannot be found.
    """

    def __init__(self, options: AnnotateOptions, task: Task, vocabulary: Vocabulary) -> None:
        self.options, self.task, self.vocabulary = options, task, vocabulary
        self.folder = options.output
        self._unit_size = unit_size(options.result.batch_size)
        self._failed = 0

    def run_whole(self) -> int:
        """All pictures in this process; returns the exit status."""
        source = self._open_source()
        with whole_lock(self.folder, PURPOSE), self._writer(overwrite=self.options.overwrite) as writer:
            done, begin = len(writer.done), time.monotonic()
            self._segment(writer, source, None)
            seconds = time.monotonic() - begin
            written = writer.finish()
        self._tell(writer, len(writer.done) - done, done, seconds, written)
        return EXIT_SOME_FAILED if self._failed else EXIT_OK

    def run_part(self, part: Part, *, by_hand: bool = False, show_progress: bool = True) -> int:
        """The pictures of a part, and the assembly if all other parts have ended.

        Args:
            part: which.
            by_hand: whether this process was started alone, so that its exit status ends no other.
            show_progress: whether to show how far all parts are.

        Returns:
            The exit status. Of processes that a launcher started, which ends all if one fails, the last one alone tells
            that pictures could not be read.
        """
        if self.options.overwrite:
            raise UserError("--overwrite would remove what others have finished: remove the folder before they start")
        source = self._open_source()
        with part_lock(self.folder, part, PURPOSE):
            begin = time.monotonic()
            with self._writer(part=part) as writer:
                done = len(writer.done)
                bar = _SharedBar(self.folder, part, self._total(source), show_progress and part.index == 0)
                self._segment(writer, source, part, bar)
                now = len(writer.done) - done
            mark_finished(self.folder, part, now, self._failed)
        status = EXIT_SOME_FAILED if self._failed and by_hand else EXIT_OK
        if finished_parts(self.folder, part.of) is None:
            print(f"part {part.index} of {part.of}: {now} pictures segmented; the last part to end assembles them")
            return status
        with whole_lock(self.folder, PURPOSE, _ASSEMBLING):
            sums = finished_parts(self.folder, part.of)
            if sums is None:  # another one was last
                return status
            with self._writer() as writer:
                written = writer.finish()
        before = len(writer.done) - sums["pictures"]
        self._tell(writer, sums["pictures"], before, time.monotonic() - begin, written)
        return EXIT_SOME_FAILED if sums["failed"] else EXIT_OK

    def run_on_ray(self, num_workers: int | None, address: str | None) -> int:
        """All pictures by Ray's workers, while this process keeps the journal; returns the exit status.

        Args:
            num_workers: models that run at a time.
            address: of a running cluster.

        Raises:
            UserError: if Ray is not there, or something cannot be done on it.
        """
        from tqdm import tqdm

        from ..distributed.batch_segmenter import BatchSegmenter
        from ..distributed.ray_engine import RayError, segment_on_ray

        options = self.options
        model = options.model
        if model.revision or model.subfolder or model.mask_embedding:
            raise UserError(
                "--engine ray takes a model as it is: leave out --revision, --subfolder and --mask-embedding"
            )
        source = self._open_source()
        segmenter = BatchSegmenter(
            model.model or "miniature",
            self.vocabulary,
            task=self.task,
            batch_size=options.result.batch_size,
            threshold=options.result.threshold,
            overlap_threshold=options.result.overlap_threshold,
            device=model.device,
            dtype=None if model.dtype == "auto" else model.dtype,
        )
        with whole_lock(self.folder, PURPOSE), self._writer(overwrite=options.overwrite) as writer:
            done, begin = len(writer.done), time.monotonic()
            if next(self._units(source, writer.done, None), None) is not None:
                writer.begin()
                rows = partial(self.encoded_units, frozenset(writer.done))
                with tqdm(total=self._total(source), initial=done, unit="picture", disable=None) as bar:
                    try:
                        results = segment_on_ray(rows, segmenter, self.record_of, num_workers, address)
                        for place, record, error in results:
                            bar.update()
                            if error is not None:
                                self._failed += 1
                                tqdm.write(f"maskadapter annotate: {error}", file=sys.stderr)
                            elif record["file_name"] not in writer.done:
                                writer.claim(record["file_name"])
                                writer.note(record, place)
                    except RayError as error:
                        raise UserError(one_line(error)) from error
            seconds = time.monotonic() - begin
            written = writer.finish()
        self._tell(writer, len(writer.done) - done, done, seconds, written)
        return EXIT_SOME_FAILED if self._failed else EXIT_OK

    def encoded_units(self, done: frozenset[str], index: int, of: int) -> Iterator[list[tuple[int, str, Any, bool]]]:
        """Units of a part as other machines can take them: place, name, encoded picture, and whether it is done."""
        for unit in self._units(self._open_source(), set(done), Part(index, of)):
            encoded = []
            for item in unit:
                value = item.encoded
                if value is None:
                    with contextlib.suppress(DataError):
                        value = _as_png(item.read())
                encoded.append((item.place, self._file_name(item), value, self._file_name(item) in done))
            yield encoded

    def record_of(self, file_name: str, picture: Any, segments: Segments) -> dict[str, Any]:
        """What a worker writes of a picture's result, and the record that it returns."""
        if self.options.copy_pictures:
            _copy(picture, self.folder / IMAGES / file_name)
        return self._format().record(dataclasses.replace(segments, picture=file_name))

    def merge(self) -> int:
        """The assembly alone; returns the exit status.

        Raises:
            UserError: if nothing is there to assemble.
        """
        with whole_lock(self.folder, PURPOSE), self._writer() as writer:
            if not writer.done:
                raise UserError(f"{self.folder} holds no finished pictures to be assembled")
            written = writer.finish()
        self._tell(writer, 0, len(writer.done), 0.0, written)
        return EXIT_OK

    def _segment(self, writer: ResultWriter, source: PictureSource, part: Part | None, bar: Any = None) -> None:
        units = self._units(source, writer.done, part)
        first = next(units, None)
        if first is None:
            return
        options = self.options
        model = options.model
        if part is not None and part.local_index is not None and model.device is None:
            model = dataclasses.replace(model, device=_device_of(part.local_index))
        segmenting = Segmenting(PURPOSE, model, self.vocabulary, options.result, self.task)

        def claimed() -> Iterator[list[NamedPicture]]:
            for unit in itertools.chain([first], units):
                for item in unit:
                    if self._file_name(item) not in writer.done:
                        writer.claim(self._file_name(item))
                yield unit

        def record(item: NamedPicture, picture: Image.Image, segments: Segments) -> dict[str, Any] | None:
            file_name = self._file_name(item)
            if file_name in writer.done:  # it was only looked at as company of others in a batch
                return None
            if options.copy_pictures:
                _copy(picture, self.folder / IMAGES / file_name)
            return writer.format.record(dataclasses.replace(segments, picture=file_name))

        total, done = self._total(source), len(writer.done)
        for item, finished in segmenting.run(claimed(), _read, record, total=total, done=done, bar=bar):
            if finished is not None:
                writer.note(finished, item.place)
        self._failed = segmenting.failed

    def _units(self, source: PictureSource, done: set[str], part: Part | None) -> Iterator[list[NamedPicture]]:
        """Units of the source with pictures that are not done, in order; those of a part alone."""
        items: Iterable[NamedPicture] = itertools.islice(source, self.options.max_pictures)
        for number, unit in enumerate(in_batches(items, self._unit_size)):
            if (part is None or part.takes(number)) and any(self._file_name(item) not in done for item in unit):
                yield unit

    def _open_source(self) -> PictureSource:
        options = self.options
        dataset = options.dataset
        if dataset is None:
            paths = [Path(source) for source in options.sources]
            if len(paths) > 1 or paths[0].suffix.lower() in PICTURE_SUFFIXES:
                return pictures_of_paths(paths)
            dataset = options.sources[0]
        return open_pictures(dataset, options.source, split=options.split, num_scenes=options.max_pictures or 300)

    def _total(self, source: PictureSource) -> int | None:
        if self.options.max_pictures is None:
            return source.size
        return min(source.size or sys.maxsize, self.options.max_pictures)

    def _format(self) -> ResultFormat:
        options = self.options
        kind = FORMATS[str(options.format)]
        result_format = kind(self.folder, self.vocabulary, options.model.name, options.image_prefix)
        return WithEmbeddings(result_format) if options.embeddings else result_format

    def _writer(self, *, overwrite: bool = False, part: Part | None = None) -> ResultWriter:
        name = None if part is None else part.name
        return ResultWriter(self._format(), self._fingerprint(), overwrite=overwrite, part=name)

    def _fingerprint(self) -> dict[str, object]:
        """What makes the results, however many processes make them."""
        facts = dataclasses.asdict(self.options)
        model, result, source = facts.pop("model"), facts.pop("result"), facts.pop("source")
        for group, names in (
            (facts, ("format", "output", "max_pictures", "overwrite", "spread")),
            (model, ("device",)),
            (result, ("batch_size",)),
            (source, ("streaming", "cache_dir")),
        ):
            for name in names:
                del group[name]
        vocabulary = self.vocabulary.to_dict()
        return {**facts, **source, **model, **result, "task": self.task, "vocabulary": vocabulary}

    def _file_name(self, item: NamedPicture) -> str:
        """The picture's name in the results: its copy's, if it is copied, which is a PNG so that nothing is lost."""
        return picture_name(item.file_name, ".png") if self.options.copy_pictures else item.file_name

    def _tell(self, writer: ResultWriter, now: int, before: int, seconds: float, written: list[Path]) -> None:
        rate = f" ({now / seconds:.1f} pictures a second)" if now and seconds else ""
        earlier = f", {before} were done before" if before else ""
        print(f"{now} pictures segmented{earlier}: {', '.join(map(str, written))}{rate}")
        for line in writer.format.next_steps():
            print(line)


class _SharedBar:
    """Tells other processes how far this one is, and shows how far all are in one of them."""

    def __init__(self, folder: Path, part: Part, total: int | None, is_shown: bool) -> None:
        from tqdm import tqdm

        self._folder, self._part, self._total = folder, part, total
        self._done = 0
        self._told = 0.0
        self._bar = tqdm(total=total, unit="picture", disable=None if is_shown else True)

    def __enter__(self) -> _SharedBar:
        note_progress(self._folder, self._part, 0, self._total)
        return self

    def __exit__(self, *exception: object) -> None:
        note_progress(self._folder, self._part, self._done, self._total)
        self._bar.close()

    def update(self) -> None:
        """Count a picture."""
        self._done += 1
        now = time.monotonic()
        if now - self._told < _TELLING:
            return
        self._told = now
        note_progress(self._folder, self._part, self._done, self._total)
        if not self._bar.disable:
            self._bar.n = read_progress(self._folder, self._part.of)[0]
            self._bar.refresh()


def _device_of(local_index: int) -> str | None:
    """The GPU of a process of several on a machine, if there are GPUs."""
    import torch

    return f"cuda:{local_index % torch.cuda.device_count()}" if torch.cuda.is_available() else None


def _read(item: NamedPicture) -> Image.Image:
    try:
        return as_viewer_shows(item.read())
    except DataError as error:
        raise UserError(one_line(error)) from error


def _as_png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _copy(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(picture.save, format="PNG"))


__all__ = ["Annotating", "begin_anew", "telling_mistakes"]
