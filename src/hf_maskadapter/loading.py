"""Models by name: the embedded one, released ones that are fetched and converted once, folders, and the Hub's.

A released model is downloaded, verified and converted the first time it is asked for, and lies in the cache from then
on: no network, no conversion, weights mapped from disk.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hub.released_models import RELEASED, ReleasedModel

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from .conversion.released import RemoteFile
    from .model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from .model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline
    from .model.processing_maskadapter import MaskAdapterProcessor

MINIATURE = "miniature"
"""Name of the embedded model."""

MODEL_NAMES = (MINIATURE, *RELEASED)
"""The names that stand for a model."""

_FORM = 1
"""Counts changes of what a converted model looks like on disk: older ones in the cache are then made anew."""

_CONVERSION_MEMORY = 1.25
"""Bytes of memory that a conversion may need, for each byte of the checkpoint."""

_MARGIN = 200 * 2**20
"""Bytes that must stay free on the disk beside the model."""

_CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells what a container may use."""

Report = Callable[[str], None]


class ModelNameError(ValueError):
    """A name stands for no model; the message names the nearest ones."""


class ModelPreparationError(OSError):
    """A released model cannot be put into the cache; the message says why and what to do."""


def cache_folder() -> Path:
    """Where converted released models lie: `MASKADAPTER_CACHE`, else the folder `maskadapter` in `HF_HOME`."""
    from huggingface_hub import constants

    return Path(os.environ.get("MASKADAPTER_CACHE") or Path(constants.HF_HOME, "maskadapter"))


def keep_vocabularies(model: MaskAdapterForOpenVocabularySegmentation) -> None:
    """Have a model keep the vocabularies that it encodes on disk, and find them there again.

    They lie in the folder `vocabularies` of [`cache_folder`], or in the one that `MASKADAPTER_VOCABULARY_CACHE` names;
    `MASKADAPTER_VOCABULARY_CACHE=off` keeps none.
    """
    from .encoded_vocabularies.cache import VocabularyCache

    folder = os.environ.get("MASKADAPTER_VOCABULARY_CACHE") or str(cache_folder() / "vocabularies")
    model.text_store = None if folder == "off" else VocabularyCache(folder)


def folder_of(name: str) -> Path:
    """Where a released model lies once it is converted."""
    return cache_folder() / f"{name}-{_FORM}"


def is_prepared(name: str) -> bool:
    """Whether a named model is here already, so that loading it needs no network."""
    return name == MINIATURE or (folder_of(name) / "conversion.json").is_file()


def remove_model(name: str) -> int:
    """Delete a released model, and what an unfinished download left, from the cache.

    Returns:
        The bytes that this freed.

    Raises:
        ModelNameError: if there is no released model of that name.
    """
    if name not in RELEASED:
        raise ModelNameError(f"There is no released model {name!r} to remove; there are {', '.join(RELEASED)}.")
    with _only_one(name, print_to_stderr):
        freed = 0
        for folder in (folder_of(name), _download_folder(name)):
            freed += bytes_of(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder; 0 if there is no such folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def print_to_stderr(line: str) -> None:
    """Print a line about what is being done to standard error."""
    print(line, file=sys.stderr, flush=True)


def find_model(
    model: str | os.PathLike[str] = MINIATURE,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    report: Report = print_to_stderr,
) -> str:
    """What `from_pretrained` takes for a model: a name is turned into its folder, after preparing it where needed.

    Args:
        model: a name (see `MODEL_NAMES`) or the preset of a released model, a folder, or a Hub id. Names win over
            folders and over Hub ids without a slash.
        tokenizer: CLIP's `bpe_simple_vocab_16e6.txt.gz`, or a folder or Hub id with its tokenizer, for the first use of
            a released model where the Hub has none.
        token: access token for the Hub.
        report: takes each line about what is being done.

    Raises:
        ModelNameError: if it is none of these.
        ModelPreparationError: if a released model cannot be prepared.
    """
    text = os.fspath(model)
    if text == MINIATURE:
        from .miniature import checkpoint_path

        return str(checkpoint_path())
    released = RELEASED.get(text) or next((entry for entry in RELEASED.values() if entry.preset == text), None)
    if released is not None:
        return str(prepare_released(released, tokenizer=tokenizer, token=token, report=report))
    check_name(text)
    return text  # a folder or a name on the Hub: whether there is one is told where it is opened


def check_name(text: str) -> None:
    """Find out, without asking the Hub, whether a text can stand for a model.

    Args:
        text: see [`find_model`].

    Raises:
        ModelNameError: if not.
    """
    if os.path.isdir(text) or text in MODEL_NAMES or any(text == entry.preset for entry in RELEASED.values()):
        return
    if text.startswith((".", "/", "~")):
        raise ModelNameError(f"there is no model folder {text}")
    if "/" in text or os.sep in text:
        return
    close = difflib.get_close_matches(text.lower(), MODEL_NAMES, n=2, cutoff=0.4)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ModelNameError(
        f"There is no model {text!r}: it is no name of a model, no folder and no name on the Hub (owner/name).{hint} "
        f"The names are {', '.join(MODEL_NAMES)}; `maskadapter models` tells about them."
    )


def load_model(
    model: str | os.PathLike[str] = MINIATURE,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    report: Report = print_to_stderr,
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """A segmenter in evaluation mode, and its processor.

    Args:
        model: see [`find_model`].
        device: where to put the model; by default it stays on the CPU.
        dtype: of the weights; by default that of the files. `"int8"` computes the MLPs of the ConvNeXt blocks in 8-bit
            integers, on the CPU, see [`use_int8`].
        tokenizer: see [`find_model`].
        token: access token for the Hub.
        report: takes each line about what is being done the first time.

    Raises:
        ModelNameError: if there is no such model.
        ModelPreparationError: if a released model cannot be prepared.
        OSError: if a folder or repository holds no such model.
    """
    if _is_int8(dtype):
        _require_cpu(device)
    loaded, processor = _load(model, dtype, tokenizer, token, report)
    if device is not None:
        loaded = loaded.to(device)
    _warn_if_slow(loaded)
    return loaded, processor


def _load(
    model: str | os.PathLike[str],
    dtype: Any,
    tokenizer: str | os.PathLike[str] | None,
    token: str | bool | None,
    report: Report,
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """Model and processor, on the CPU."""
    from .model.cpu_mlp import use_int8
    from .model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from .model.processing_maskadapter import MaskAdapterProcessor

    place = find_model(model, tokenizer=tokenizer, token=token, report=report)
    options: dict[str, Any] = {"token": token, "local_files_only": os.path.isdir(place)}
    of_weights = {} if dtype is None else {"dtype": "float32" if _is_int8(dtype) else dtype}
    loaded = MaskAdapterForOpenVocabularySegmentation.from_pretrained(place, **options, **of_weights).eval()
    if _is_int8(dtype):
        use_int8(loaded)
    keep_vocabularies(loaded)
    return loaded, MaskAdapterProcessor.from_pretrained(place, **options)


def _warn_if_slow(model: MaskAdapterForOpenVocabularySegmentation) -> None:
    from .model.cpu_mlp import why_slow

    reason = why_slow(model)
    if reason is not None:
        warnings.warn(reason, stacklevel=3)


def _is_int8(dtype: Any) -> bool:
    return str(dtype) in ("int8", "torch.int8")


def _require_cpu(device: Any) -> None:
    """Refuse 8-bit integers on an accelerator, before anything is loaded.

    Raises:
        ValueError: if the device is none or not a CPU.
    """
    import torch

    if device is None:
        return
    number_of_cpu = -1  # in Transformers' pipelines
    if device == number_of_cpu or (not isinstance(device, int) and torch.device(device).type == "cpu"):
        return
    raise ValueError(f"int8 is for CPUs, and the device is {device}: use dtype=torch.bfloat16 there, or device='cpu'.")


def load_segmenter(
    model: str | os.PathLike[str] = MINIATURE,
    *,
    device: str | torch.device | int | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    report: Report = print_to_stderr,
) -> ZeroShotImageSegmentationPipeline:
    """A ready pipeline: `load_segmenter("fcclip-large")("photo.jpg", candidate_labels=["cat", "sofa"])`.

    Args:
        model: see [`find_model`].
        device: as Transformers' pipelines take it; by default the first accelerator, else the CPU.
        dtype: of the weights; by default that of the files. `"int8"` computes the MLPs of the ConvNeXt blocks in 8-bit
            integers, on the CPU, see [`use_int8`].
        tokenizer: see [`find_model`].
        token: access token for the Hub.
        report: takes each line about what is being done the first time.

    Raises:
        ModelNameError: if there is no such model.
        ModelPreparationError: if a released model cannot be prepared.
        OSError: if a folder or repository holds no such model.
    """
    from .model.pipeline_zero_shot_image_segmentation import ZeroShotImageSegmentationPipeline

    if _is_int8(dtype):
        _require_cpu(device)
        device = "cpu"
    loaded, processor = _load(model, dtype, tokenizer, token, report)
    pipeline = ZeroShotImageSegmentationPipeline(model=loaded, processor=processor, device=device)
    _warn_if_slow(pipeline.model)
    return pipeline


def prepare_released(
    model: ReleasedModel,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    report: Report = print_to_stderr,
) -> Path:
    """Download, verify and convert a released model, once; two processes that ask at the same time do it once.

    Args:
        model: an entry of `RELEASED`.
        tokenizer: see [`find_model`].
        token: access token for the Hub.
        report: takes each line about what is being done.

    Returns:
        The folder of the converted model.

    Raises:
        ModelPreparationError: if that fails. What was downloaded is kept for the next try.
    """
    if is_prepared(model.name):
        return folder_of(model.name)
    try:
        with _only_one(model.name, report):
            if not is_prepared(model.name):
                _prepare(model, tokenizer, token, report)
    except ModelPreparationError:
        raise
    except (OSError, ValueError) as error:
        raise ModelPreparationError(f"The model {model.name} could not be prepared: {error}") from error
    return folder_of(model.name)


def _prepare(
    model: ReleasedModel, tokenizer: str | os.PathLike[str] | None, token: str | bool | None, report: Report
) -> None:
    from huggingface_hub.utils import tqdm

    from .conversion.convert import STAGES, convert_checkpoint
    from .conversion.released import download, find_release

    folder = folder_of(model.name)
    report(
        f"{model.title} ({model.license}) is fetched once: {_gigabytes(model.download_bytes)} to download, then it "
        f"lies converted in {folder}"
    )
    file = find_release(model, token)
    _require_disk(model, file)
    _require_memory(model, file)
    clip_tokenizer = _clip_tokenizer(model, tokenizer, token)
    checkpoint = download(file, _download_folder(model.name), token)
    report(f"Converting {file.path} ({_gigabytes(file.size)}): {', '.join(STAGES)} …")
    with tqdm(total=len(STAGES), unit="stage", disable=None, leave=False) as bar:  # none where there is no terminal

        def show(stage: str) -> None:
            bar.set_description(stage, refresh=False)
            bar.update(STAGES.index(stage) - bar.n)
            bar.refresh()

        convert_checkpoint(
            checkpoint,
            folder,
            preset=model.preset,
            tokenizer=clip_tokenizer,
            overwrite=folder.is_dir(),
            on_stage=show,
        )
    shutil.rmtree(_download_folder(model.name), ignore_errors=True)
    report(f"Ready: {folder} ({_gigabytes(bytes_of(folder))}). maskadapter models --remove {model.name} frees the room")


def _clip_tokenizer(
    model: ReleasedModel, tokenizer: str | os.PathLike[str] | None, token: str | bool | None
) -> PreTrainedTokenizerBase:
    """CLIP's tokenizer, before anything large is fetched."""
    from .conversion.convert import read_tokenizer

    found = read_tokenizer(tokenizer, try_hub=True, token=token)
    if found is None:
        raise ModelPreparationError(
            f"CLIP's tokenizer, without which {model.name} reads no labels, cannot be had from the Hub. Get "
            "bpe_simple_vocab_16e6.txt.gz from CLIP's or OpenCLIP's source code, and give it once: maskadapter models "
            f"--fetch {model.name} --tokenizer bpe_simple_vocab_16e6.txt.gz"
        )
    return found


def _download_folder(name: str) -> Path:
    return cache_folder() / f".{name}.download"


@contextlib.contextmanager
def _only_one(name: str, report: Report) -> Iterator[None]:
    """Let one process at a time prepare or remove a model; the others wait and say so."""
    from filelock import FileLock, Timeout

    cache_folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_folder() / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"Another process is preparing {name}: waiting for it …")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _require_disk(model: ReleasedModel, file: RemoteFile) -> None:
    """Refuse before the download if download and converted model do not fit on the disk."""
    downloaded = bytes_of(_download_folder(model.name))
    needed = max(file.size - downloaded, 0) + 4 * model.num_parameters + _MARGIN
    free = shutil.disk_usage(cache_folder()).free
    if free < needed:
        raise ModelPreparationError(
            f"{model.name} needs {_gigabytes(needed)} in {cache_folder()} while it is converted, and there are "
            f"{_gigabytes(free)} free. Make room, or name another folder in MASKADAPTER_CACHE."
        )


def _require_memory(model: ReleasedModel, file: RemoteFile) -> None:
    """Refuse before the download if there is too little memory to convert, where the system tells."""
    free, needed = available_memory(), int(_CONVERSION_MEMORY * file.size)
    if free is not None and free < needed:
        raise ModelPreparationError(
            f"Converting {model.name} may need {_gigabytes(needed)} of memory, and {_gigabytes(free)} are free. Close "
            "other programs, or convert it on another machine (maskadapter convert) and copy the folder."
        )


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping; `None` where the system does not tell (only Linux does).

    A container's own limit counts, too; what it uses to cache files can be had.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        found.append(1024 * _table("/proc/meminfo")["MemAvailable:"])
    with contextlib.suppress(OSError, ValueError, KeyError):  # no container, no such file, or no limit ("max")
        limit = int((_CONTAINER / "memory.max").read_text("ascii"))
        used = int((_CONTAINER / "memory.current").read_text("ascii"))
        found.append(max(limit - used + _table(_CONTAINER / "memory.stat")["inactive_file"], 0))
    return min(found, default=None)


def _table(path: str | Path) -> dict[str, int]:
    """Names and numbers of a file of the system's with a pair a line."""
    return {words[0]: int(words[1]) for line in Path(path).read_text("ascii").splitlines() if (words := line.split())}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


@dataclass(frozen=True)
class ModelFacts:
    """What the list of models tells about one.

    Args:
        name: what to call it wherever a model is taken.
        title: what it is.
        num_parameters: of the whole model.
        download_bytes: of the first use; 0 for the embedded model.
        disk_bytes: what it takes from then on, about.
        memory_bytes: of its weights in fp32, which are mapped from disk.
        license: in one line.
        preset: the preset that converts it; `None` for the embedded model.
        is_here: whether it needs no download any more.
    """

    name: str
    title: str
    num_parameters: int
    download_bytes: int
    disk_bytes: int
    memory_bytes: int
    license: str
    preset: str | None
    is_here: bool


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _count_weights(path: Path) -> tuple[int, int]:
    """Parameters in a safetensors file, without batch norms' statistics, and bytes of all of it, read from its head."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = {name: entry for name, entry in head.items() if name != "__metadata__"}
    return (
        sum(math.prod(entry["shape"]) for name, entry in tensors.items() if not name.endswith(_STATISTICS)),
        max(entry["data_offsets"][1] for entry in tensors.values()),
    )


def list_models() -> list[ModelFacts]:
    """Facts about every model that has a name."""
    from .miniature import checkpoint_path

    folder = checkpoint_path()
    num_parameters, weight_bytes = _count_weights(folder / "model.safetensors")
    miniature = ModelFacts(
        MINIATURE,
        "the embedded model of a drawn world; it knows coloured, textured shapes and nothing else",
        num_parameters,
        0,
        bytes_of(folder),
        weight_bytes,
        "Apache-2.0",
        None,
        True,
    )
    return [
        miniature,
        *(
            ModelFacts(
                model.name,
                model.title,
                model.num_parameters,
                model.download_bytes,
                4 * model.num_parameters + 4_000_000,
                4 * model.num_parameters,
                model.license,
                model.preset,
                is_prepared(model.name),
            )
            for model in RELEASED.values()
        ),
    ]


__all__ = [
    "MINIATURE",
    "MODEL_NAMES",
    "ModelFacts",
    "ModelNameError",
    "ModelPreparationError",
    "available_memory",
    "cache_folder",
    "check_name",
    "find_model",
    "is_prepared",
    "list_models",
    "load_model",
    "load_segmenter",
    "prepare_released",
    "remove_model",
]
