"""One run of a few minutes on a GPU: pictures a second, share of the measured peak, memory, and whether results agree.

Masks are drawn from annotations (`realistic_inputs`), since the sparse adapter's work depends on them; the generator
computes everything, too. On a CPU it runs for a trial, with a tiny model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hf_maskadapter.model.modeling_mask_generator import MaskGeneratorOutput
from lab.benchmarks.process_memory import peak_memory
from lab.benchmarks.realistic_inputs import draw_class_scores, draw_masks, read_segment_maps
from lab.benchmarks.rows.definitions import Scale
from lab.benchmarks.speed import Precision, computing, describe_machine, matmul_peak, timed
from lab.benchmarks.speed_cases import DrawnMasks, Workshop, largest_difference

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
BATCH_SIZES = (1, 16)
JSON, MARKDOWN = "gpu.json", "gpu.md"

_CALLS = 5
_LARGEST_DIFFERENCE = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 1e-1}


@dataclass
class Result:
    """One precision at one batch size.

    Attributes:
        precision: `"fp32"`, `"tf32"` or `"bf16"` (autocast).
        batch_size: pictures at a time.
        pictures_per_second: the median call's, from pixels to masks and class scores.
        share_of_peak: of the floating-point operations a second of large matrix products in that precision.
        memory: peak above what was there before, in bytes.
        sparse_difference: largest difference of the sparse adapter's maps from the dense ones in single precision, as a
            fraction of the largest value.
        sparse_faster: how many times faster the sparse adapter was than the dense one.
    """

    precision: Precision
    batch_size: int
    pictures_per_second: float
    share_of_peak: float
    memory: int
    sparse_difference: float
    sparse_faster: float


def run(
    device_name: str = "cuda",
    scale: Scale | None = None,
    minutes: float = 6.0,
    output_dir: Path | None = None,
    log: Callable[[str], None] = print,
) -> str:
    """Measures what fits into the time, the most important first, and returns the report as Markdown.

    Args:
        device_name: a CUDA device, or `"cpu"` for a trial.
        scale: how large inputs are.
        minutes: after which nothing more is begun.
        output_dir: folder for the report and its numbers, written after every result.
        log: told each result.

    Raises:
        RuntimeError: the sparse adapter's maps are farther from the dense ones than the precision allows.
        ValueError: there is no such device.
    """
    device, scale, start = torch.device(device_name), scale or Scale(), time.monotonic()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU here: install a CUDA build of it, or give --device cpu for a trial.")
    workshop = Workshop(read_segment_maps(), scale.model_size, device)
    results: list[Result] = []
    left_out: list[str] = []
    for batch_size in BATCH_SIZES:
        for precision in PRECISIONS:
            if time.monotonic() - start > 60 * minutes:
                left_out.append(f"{precision} with {batch_size}")
                continue
            results.append(measure(workshop, scale, precision, batch_size))
            log(_line(results[-1]))
            text = report(results, scale, describe_machine(device), left_out)
            if output_dir is not None:
                _write(output_dir, results, text)
    text = report(results, scale, describe_machine(device), left_out)
    if output_dir is not None:
        _write(output_dir, results, text)
    return text


@torch.no_grad()
def measure(workshop: Workshop, scale: Scale, precision: Precision, batch_size: int) -> Result:
    """One precision at one batch size."""
    device, setting = workshop.device, scale.setting
    model = workshop.segmenter(scale.num_masks)
    masks = draw_masks(workshop.maps.maps[0], setting.mask_size, scale.num_masks)
    scores = draw_class_scores(masks.segments, scale.num_classes)
    logits = masks.logits.expand(batch_size, -1, -1, -1).to(device)
    drawn = MaskGeneratorOutput(
        masks_queries_logits=logits, in_vocabulary_logits=scores.expand(batch_size, -1, -1).to(device)
    )
    vocabulary = workshop.vocabulary(scale.num_classes)
    torch.manual_seed(4)
    pixels = torch.randn(batch_size, 3, *setting.padded_size, device=device)
    generator: Any = model.mask_generator
    model.mask_generator = DrawnMasks(generator, drawn)
    try:
        with computing(precision, device):
            with FlopCounterMode(display=False) as counter:
                before = _memory(device, reset=True)
                model(pixels, vocabulary)
                memory = _memory(device) - before
            seconds = _median_time(lambda: model(pixels, vocabulary), device)
    finally:
        model.mask_generator = generator
    difference, faster = _compare_adapters(workshop, scale, logits > 0, precision)
    peak = matmul_peak(device, precision)
    return Result(
        precision,
        batch_size,
        batch_size / seconds,
        counter.get_total_flops() / seconds / peak,
        memory,
        difference,
        faster,
    )


def _compare_adapters(workshop: Workshop, scale: Scale, masks: Tensor, precision: Precision) -> tuple[float, float]:
    adapter: Any = workshop.segmenter(scale.num_masks).adapter
    _, projected = workshop.features(scale.setting)
    one = masks[:1]

    def maps(implementation: str) -> Tensor:
        return adapter.get_activation_maps(projected, one, implementation)

    with computing("fp32", workshop.device):
        right = maps("dense").float()
    with computing(precision, workshop.device):
        difference = largest_difference(maps("sparse"), right)
        seconds = {name: _median_time(partial(maps, name), workshop.device) for name in ("sparse", "dense")}
    if not difference <= _LARGEST_DIFFERENCE[precision]:
        raise RuntimeError(f"The sparse adapter in {precision} differs from the dense one by {difference:.1e}.")
    return difference, seconds["dense"] / seconds["sparse"]


def _median_time(call: Callable[[], Any], device: torch.device) -> float:
    call()
    return sorted(timed(call, device, time.perf_counter)[1] for _ in range(_CALLS))[_CALLS // 2]


def _memory(device: torch.device, reset: bool = False) -> int:
    if device.type != "cuda":
        return peak_memory(reset=reset)
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return torch.cuda.max_memory_allocated(device)


def report(results: list[Result], scale: Scale, machine: dict[str, str], left_out: list[str]) -> str:
    """The results as Markdown.

    Args:
        results: in the order of lines.
        scale: how large inputs were.
        machine: what they were measured on.
        left_out: what the time did not suffice for.
    """
    height, width = scale.setting.padded_size
    lines = [
        f"{scale.model_size} model, random weights, {height}×{width} pixels, {scale.num_masks} masks, "
        f"{scale.num_classes} classes.",
        ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        "",
        "| precision | pictures at a time | pictures a second | of the matmul peak | peak memory | "
        "sparse adapter faster | it differs by |",
        "|---|---|---|---|---|---|---|",
        *map(_line, results),
    ]
    if left_out:
        lines += ["", f"There was no time for {', '.join(left_out)} pictures."]
    return "\n".join(lines)


def _line(one: Result) -> str:
    return (
        f"| {one.precision} | {one.batch_size} | {one.pictures_per_second:.2f} | {one.share_of_peak:.0%} | "
        f"{one.memory / 2**20:.0f} MiB | {one.sparse_faster:.1f}× | {one.sparse_difference:.0e} |"
    )


def _write(output_dir: Path, results: list[Result], text: str) -> None:
    from hf_maskadapter.files import write_json, write_text

    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / JSON, [asdict(one) for one in results], indent=1)
    write_text(output_dir / MARKDOWN, text + "\n")


__all__ = ["BATCH_SIZES", "PRECISIONS", "Result", "measure", "report", "run"]
