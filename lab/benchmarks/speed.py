"""Time and memory of this package against a plain dense implementation of the published computation, in one run.

Every case is computed by all contenders in turn, round after round, and the results of the first round are compared.
Peak memory is measured in a fresh process for each contender, as the growth of the resident memory; on a GPU it is what
PyTorch allocated there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_maskadapter.cli.options import positive
from hf_maskadapter.data.options import option
from hf_maskadapter.model.cpu_mlp import packing_trials
from lab.benchmarks.process_memory import can_measure_peaks, peak_memory, release_freed_memory, run_in_fresh_process
from lab.benchmarks.realistic_inputs import read_segment_maps
from lab.benchmarks.speed_cases import CASES, DENSE, PACKAGE, Case, ModelSize, Setting, Workshop

if TYPE_CHECKING:
    import matplotlib.figure

Precision = Literal["fp32", "tf32", "bf16"]
Clock = Literal["wall", "cpu"]

_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
_LOOSER = {"fp32": 1.0, "tf32": 30.0, "bf16": 300.0}
_SECONDS_NOT_WARMED = 10.0
_JSON = "speed.json"
_AXES = {"size": "longer side, pixels", "num_masks": "masks", "num_classes": "classes"}


@dataclass(frozen=True)
class Options:
    """How to measure.

    Args:
        model_size: of CLIP and generator: `"large"`, `"base"`, or `"tiny"` for a trial.
        device: `"cpu"` or a CUDA device.
        precision: `"fp32"`, `"tf32"` (CUDA), or `"bf16"` (autocast).
        repeats: rounds after the one that warms up.
        clock: `"wall"`, or `"cpu"` for seconds of all threads, which a busy machine changes less.
        with_memory: whether to measure memory.
        annotations: folders of PNGs to draw masks from, see `read_segment_maps`.
    """

    model_size: ModelSize = option("of CLIP and generator", "large")
    device: str = option("cpu or cuda", "cpu")
    precision: Precision = option("fp32, tf32 or bf16", "fp32", flags=("--dtype", "--precision"))
    repeats: int = option("rounds", 3, parse=positive)
    clock: Clock = option("cpu: seconds of all threads, for a busy machine", "wall")
    with_memory: bool = option("whether to measure memory", True, flags=("--memory",))
    annotations: tuple[str, ...] | None = option(
        "folders of label or panoptic PNGs to draw masks from", None, metavar="DIR"
    )


@dataclass
class Measurement:
    """One case at one setting.

    Attributes:
        case: Its name.
        setting: Its size.
        seconds: Contender → median time of a call.
        faster: Median over rounds of the dense implementation's time divided by this package's in the same round.
        memory: Contender → peak memory above what was there before the call, in bytes; empty if not measured.
        flops: Contender → floating-point operations of matrix products, convolutions and attention; empty for training,
            where PyTorch's counter takes the backward pass of depthwise convolutions for that of full ones.
        calls: Contender → how often it ran.
        rounds: How many of these count.
        difference: How far the results of this package and the dense implementation are apart, as a fraction.
    """

    case: str
    setting: Setting
    seconds: dict[str, float]
    faster: float
    memory: dict[str, int]
    flops: dict[str, int]
    calls: dict[str, int]
    rounds: int
    difference: float


def _flops_of_packed_products() -> dict[Any, Callable[..., int]]:
    """Formulas for the products by packed weights that the package uses on a CPU, which PyTorch's counter lacks."""

    def flops(inputs: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return 2 * math.prod(out_shape) * inputs[-1]

    names = (("mkldnn", "_linear_pointwise"), ("mkl", "_mkl_linear"), ("onednn", "qlinear_pointwise"))
    packets = [getattr(getattr(torch.ops, room), name, None) for room, name in names]
    return {packet: flops for packet in packets if packet is not None}


def matmul_peak(device: torch.device, precision: Precision, clock: Clock = "wall") -> float:
    """Floating-point operations a second of the fastest of some large square matrix products."""
    side = 1024 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    with computing(precision, device):
        fastest = min(timed(lambda: matrix @ matrix, device, _CLOCKS[clock])[1] for _ in range(8))
    return 2 * side**3 / fastest


@contextlib.contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Computes in a precision, and restores PyTorch's switches afterwards."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def timed(call: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> tuple[Any, float]:
    """What a function returns, and how long it and what it started on the device took by a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, clock() - start


def measure(name: str, setting: Setting, case: Case, options: Options) -> Measurement:
    """Runs all contenders of a case in turn.

    A first round warms up; where it takes long, it counts as well.

    Raises:
        RuntimeError: This package and the dense implementation disagree.
    """
    device = torch.device(options.device)
    clock = _CLOCKS[options.clock]
    rounds: list[dict[str, float]] = []
    results: dict[str, Any] = {}
    flops: dict[str, int] = {}
    calls = dict.fromkeys(case.contenders, 0)
    for dtype in (torch.float32, torch.bfloat16):
        packing_trials(dtype)  # once a process, and nothing to be counted
    with computing(options.precision, device), torch.set_grad_enabled(case.needs_gradients):
        for number in range(options.repeats + 1):
            seconds = {}
            for contender, call in sorted(case.contenders.items(), reverse=number % 2 == 1):
                if number == 0:
                    with FlopCounterMode(display=False, custom_mapping=_flops_of_packed_products()) as counter:
                        results[contender], seconds[contender] = timed(call, device, clock)
                    flops[contender] = counter.get_total_flops()
                else:
                    _, seconds[contender] = timed(call, device, clock)
                calls[contender] += 1
            rounds.append(seconds)
            if number == 0:
                difference = case.difference(results[PACKAGE], results[DENSE])
                results.clear()
                if not difference <= case.tolerance * _LOOSER[options.precision]:
                    raise RuntimeError(
                        f"{name}: this package and the dense implementation disagree by {difference:.1e} of the "
                        f"largest value, more than {case.tolerance * _LOOSER[options.precision]:.1e}."
                    )
            if number + 1 == options.repeats and max(rounds[0].values()) > _SECONDS_NOT_WARMED:
                break
    counted = rounds if len(rounds) == options.repeats else rounds[1:]
    return Measurement(
        case=name,
        setting=setting,
        seconds={contender: statistics.median(one[contender] for one in counted) for contender in case.contenders},
        faster=statistics.median(one[DENSE] / one[PACKAGE] for one in counted),
        memory={},
        flops={} if case.needs_gradients else flops,
        calls=calls,
        rounds=len(counted),
        difference=difference,
    )


def measure_memory(name: str, setting: Setting, contender: str, options: Options) -> int:
    """Peak memory of one call above what was there before, in bytes; on CPU in a fresh process."""
    task = {"case": name, "setting": asdict(setting), "contender": contender, "options": asdict(options)}
    return run_in_fresh_process(__name__, task)


def _memory_of_one_call(task: dict[str, Any]) -> int:
    options = Options(**task["options"])
    device = torch.device(options.device)
    case = _workshop(options).build(task["case"], Setting(**task["setting"]))
    call = case.contenders[task["contender"]]
    with computing(options.precision, device), torch.set_grad_enabled(case.needs_gradients):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            call()
            return torch.cuda.max_memory_allocated(device) - before
        release_freed_memory()
        before = peak_memory(reset=True)
        call()
        return peak_memory() - before


def _workshop(options: Options) -> Workshop:
    folders = None if options.annotations is None else [Path(folder) for folder in options.annotations]
    return Workshop(read_segment_maps(folders), options.model_size, torch.device(options.device))


def settings_of(case: str, sizes: Sequence[int], masks: Sequence[int], classes: Sequence[int]) -> Iterable[Setting]:
    """The settings to measure a case at: the first value of each axis, then every other one with the rest as there."""
    center = Setting(sizes[0], masks[0], classes[0])
    settings = [center]
    for axis, values in (("size", sizes), ("num_masks", masks), ("num_classes", classes)):
        if axis in CASES[case].axes:
            settings += [replace(center, **{axis: value}) for value in values[1:]]
    return settings


def describe_machine(device: torch.device) -> dict[str, str]:
    """Machine and versions, for the report."""
    import transformers

    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    described = {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
    return described


def run(
    cases: Sequence[str] = tuple(CASES),
    sizes: Sequence[int] = (896,),
    masks: Sequence[int] = (250,),
    classes: Sequence[int] = (150, 847),
    options: Options | None = None,
    output_dir: Path | None = None,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> str:
    """Measures and returns the report as Markdown.

    Args:
        cases: Names out of `CASES`.
        sizes: Longer sides of the picture in pixels; the first is used where something else varies.
        masks: Numbers of masks, likewise.
        classes: Numbers of classes, likewise.
        options: How to measure.
        output_dir: Folder for ``speed.md``, ``speed.json``, and a plot for each axis with three values or more; it is
            created if need be. What it holds already is not measured again, and reported together with the new.
        log: Told what was measured.

    Raises:
        ImportError: A plot is wanted without Matplotlib.
        RuntimeError: Results disagree.
        ValueError: The folder holds measurements of another machine or with other options.
    """
    options = options or Options()
    if output_dir is not None and any(len(values) > 2 for values in (sizes, masks, classes)):
        figure_class()  # before hours of measuring, not after
    workshop = _workshop(options)
    device = torch.device(options.device)
    conditions = _conditions(options, workshop.maps.source, device)
    measurements: list[Measurement] = []
    peak = 0.0
    if output_dir is not None and (output_dir / _JSON).exists():
        measurements, peak = _read(output_dir / _JSON, conditions)
    there = {(one.case, one.setting) for one in measurements}
    wanted = [(name, setting) for name in cases for setting in settings_of(name, sizes, masks, classes)]
    missing = [one for one in wanted if one not in there]
    if missing:
        peak = max(peak, matmul_peak(device, options.precision, options.clock))
    for name, setting in missing:
        measurement = measure(name, setting, workshop.build(name, setting), options)
        if options.with_memory and (can_measure_peaks() or options.device != "cpu"):
            measurement.memory = {
                contender: measure_memory(name, setting, contender, options) for contender in (PACKAGE, DENSE)
            }
        measurements.append(measurement)
        log(_row(measurement))
        if output_dir is not None:
            _write(output_dir, measurements, conditions, peak)
    text = report(measurements, conditions, peak)
    if output_dir is not None:
        _write(output_dir, measurements, conditions, peak)
    return text


def _conditions(options: Options, source: str, device: torch.device) -> dict[str, Any]:
    """What measurements in one table have in common."""
    common = {name: value for name, value in asdict(options).items() if name not in ("repeats", "with_memory")}
    return common | {"masks_from": source, "machine": describe_machine(device)}


def _read(path: Path, conditions: dict[str, Any]) -> tuple[list[Measurement], float]:
    """The measurements in a folder and the peak that was measured with them."""
    content = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(conditions))
    if content["conditions"] != wanted:
        different = [name for name in wanted if content["conditions"].get(name) != wanted[name]]
        raise ValueError(
            f"{path} was measured with another {', '.join(different)}: give the same options on the same machine, or "
            "another --output-dir."
        )
    measurements = [Measurement(**one | {"setting": Setting(**one["setting"])}) for one in content["measurements"]]
    return measurements, content["matmul_peak"]


def _write(output_dir: Path, measurements: list[Measurement], conditions: dict[str, Any], peak: float) -> None:
    from hf_maskadapter.files import write_atomically, write_json, write_text

    output_dir.mkdir(parents=True, exist_ok=True)
    content = {
        "conditions": conditions,
        "matmul_peak": peak,
        "measurements": [asdict(measurement) for measurement in measurements],
    }
    write_json(output_dir / _JSON, content, indent=2)
    write_text(output_dir / "speed.md", report(measurements, conditions, peak) + "\n")
    for axis in _AXES:
        for name in dict.fromkeys(measurement.case for measurement in measurements):
            points = _longest_curve([measurement for measurement in measurements if measurement.case == name], axis)
            if len(points) > 2:
                save = partial(plot(points, axis).savefig, format="png")
                write_atomically(output_dir / f"{name}_{axis}.png", save)


def _longest_curve(measurements: list[Measurement], axis: str) -> list[Measurement]:
    """The most that differ in one axis only, by their place on it."""
    curves: dict[Setting, list[Measurement]] = {}
    for measurement in measurements:
        curves.setdefault(replace(measurement.setting, **{axis: 0}), []).append(measurement)
    longest = max(curves.values(), key=lambda curve: len(curve))
    return sorted(longest, key=lambda one: getattr(one.setting, axis))


def figure_class() -> type[matplotlib.figure.Figure]:
    """Matplotlib's figure, which draws without a screen.

    Raises:
        ImportError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need Matplotlib: pip install 'hf-maskadapter[benchmark]'.") from error
    return Figure


def plot(measurements: Sequence[Measurement], axis: str) -> matplotlib.figure.Figure:
    """Time of every contender of a case along an axis, one of the fields of [`Setting`]."""
    figure = figure_class()(figsize=(5, 3.5), dpi=120, layout="constrained")
    title = f"{measurements[0].case}, {_where(measurements[0], without=axis)}".removesuffix(", –")
    axes = figure.add_subplot(xlabel=_AXES[axis], ylabel="seconds", title=title)
    places = [getattr(measurement.setting, axis) for measurement in measurements]
    for contender in measurements[0].seconds:
        axes.plot(places, [measurement.seconds[contender] for measurement in measurements], "o-", label=contender)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _where(measurement: Measurement, without: str | None = None) -> str:
    setting = measurement.setting
    sizes = {
        "size": "×".join(map(str, setting.padded_size)),
        "num_masks": f"{setting.num_masks} masks",
        "num_classes": f"{setting.num_classes} classes",
    }
    return ", ".join(sizes[axis] for axis in CASES[measurement.case].axes if axis != without) or "–"


def _row(measurement: Measurement, peak: float | None = None) -> str:
    cells = [
        measurement.case,
        _where(measurement),
        _seconds(measurement.seconds[PACKAGE]),
        _seconds(measurement.seconds[DENSE]),
    ]
    cells.append(f"{measurement.faster:.1f}×")
    if measurement.memory:
        ours, others = measurement.memory[PACKAGE], measurement.memory[DENSE]
        cells += [f"{ours / 2**20:.0f} MiB", f"{others / 2**20:.0f} MiB", f"{others / max(ours, 1):.0f}×"]
    else:
        cells += ["–", "–", "–"]
    if peak is None or not measurement.flops:
        cells.append("–")
    else:
        rates = [measurement.flops[contender] / measurement.seconds[contender] for contender in (PACKAGE, DENSE)]
        cells.append(" / ".join(f"{rate / peak:.0%}" for rate in rates))
    cells += [str(measurement.rounds), f"{measurement.difference:.0e}"]
    return f"| {' | '.join(cells)} |"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def report(measurements: Sequence[Measurement], conditions: dict[str, Any], peak: float) -> str:
    """The measurements as Markdown.

    Args:
        measurements: in any order.
        conditions: what they have in common: options, `masks_from` and `machine`.
        peak: floating-point operations a second of large matrix products.
    """
    order = list(CASES)
    measurements = sorted(measurements, key=lambda one: (order.index(one.case), *asdict(one.setting).values()))
    clock = "wall time" if conditions["clock"] == "wall" else "CPU seconds of all threads"
    machine = ", ".join(f"{name} {value}" for name, value in conditions["machine"].items())
    lines = [
        f"{conditions['model_size']} model, random weights, {conditions['device']}, {conditions['precision']}; "
        f"medians, {clock}; masks from {conditions['masks_from']}, 30 % of them empty.",
        f"{machine}; matmul peak {peak / 1e9:.0f} GFLOP/s.",
        "",
        "| case | at | this package | dense | faster | peak memory | dense | less | of peak | rounds | differs by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(measurement, peak) for measurement in measurements),
    ]
    others = [
        f"| {one.case} | {_where(one)} | {contender} | {_seconds(seconds)} |"
        for one in measurements
        for contender, seconds in one.seconds.items()
        if contender not in (PACKAGE, DENSE)
    ]
    if others:
        lines += ["", "| case | at | for comparison | time |", "|---|---|---|---|", *others]
    names = dict.fromkeys(measurement.case for measurement in measurements)
    lines += ["", *(f"* {name}: {CASES[name].what}" for name in names)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(_memory_of_one_call(json.loads(sys.argv[1]))))
