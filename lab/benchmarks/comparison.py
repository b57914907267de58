"""This build beside another one, and beside the published way: every contender a process, in turn, round after round.

What is compared stands in `lab.benchmarks.rows`. A ratio is taken within each round, so that what slows the machine for
a while slows all contenders, and the table tells how wide the rounds' ratios lie.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_maskadapter.cli.options import positive
from hf_maskadapter.data.options import option
from lab.benchmarks.builds import Build, prepare_build, this_build
from lab.benchmarks.contender import Contender, Cost
from lab.benchmarks.rows.catalogue import CASES, row_names
from lab.benchmarks.rows.definitions import Case, Scale
from lab.benchmarks.speed import describe_machine

BASELINE = "baseline"
OPPONENT = "opponent"
JSON, MARKDOWN = "comparison.json", "comparison.md"
BUILDS = Path.home() / ".cache" / "hf-maskadapter" / "builds"

_SECONDS_NOT_WARMED = 10.0


@dataclass(frozen=True)
class Options:
    """How to compare.

    Args:
        opponent_rounds: rounds in which the published way takes part; it is slow.
        builds_dir: where other commits' worktrees and environments are kept.
    """

    opponent_rounds: int = option("rounds in which the slow published way takes part", 3, parse=positive)
    builds_dir: Path = option("where worktrees and environments of other commits are kept", BUILDS, metavar="DIR")


@dataclass
class Measurement:
    """A row.

    Attributes:
        row: Its name.
        case: The case's.
        build: This build's commit, with a + if files differed from it.
        seconds: Contender → seconds of each counted round, `None` where it did not take part. `"row"` is this build's,
            `"baseline"` the other one's, `"opponent"` the published way's; others are reported beside.
        memory: Contender → memory of the first computation above what was there before, in bytes.
        differences: Contender → how far its result is from the baseline's, or the first contender's there is.
    """

    row: str
    case: str
    build: str
    seconds: dict[str, list[float | None]]
    memory: dict[str, int]
    differences: dict[str, float] = field(default_factory=dict)

    def ratios(self, other: str, contender: str = "row") -> list[float]:
        """How many times faster than another contender one was, in each round with both."""
        pairs = zip(self.seconds.get(other, []), self.seconds[contender], strict=False)
        return [theirs / own for theirs, own in pairs if theirs is not None and own is not None]


def compare(
    rows: Sequence[str],
    baseline: str,
    repeats: int = 3,
    options: Options | None = None,
    output_dir: Path | None = None,
    scale: Scale | None = None,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> str:
    """Measures and returns the report as Markdown.

    Args:
        rows: names of rows of `CASES`; none for all.
        baseline: the commit to compare with.
        repeats: rounds that count.
        options: how to measure.
        output_dir: folder for the report and its numbers. Rows that it holds of the same baseline on the same machine
            stay, unless they are measured anew.
        scale: how large the inputs are.
        log: told what was measured.

    Raises:
        RuntimeError: results disagree, or a contender fails.
        ValueError: there is no such row or commit, or the folder holds numbers of others.
    """
    options = options or Options()
    scale = scale or Scale()
    wanted = chosen_rows(rows)
    builds = {"this": this_build(), BASELINE: prepare_build(baseline, options.builds_dir)}
    conditions = {
        "baseline": builds[BASELINE].commit,
        "scale": asdict(scale),
        "machine": describe_machine(torch.device("cpu")),
    }
    known = {} if output_dir is None else _read(output_dir, conditions)
    for name, of_case in wanted.items():
        for measurement in measure(name, CASES[name], of_case, scale, builds, repeats, options):
            known[measurement.row] = measurement
            log(_line(measurement))
        if output_dir is not None:
            _write(output_dir, known, conditions)
    return report(known.values(), conditions)


def chosen_rows(names: Iterable[str]) -> dict[str, list[str]]:
    """Case → those of its rows that were asked for, all if none was.

    Raises:
        ValueError: there is no row of a name.
    """
    names = list(names) or row_names()
    unknown = sorted(set(names) - set(row_names()))
    if unknown:
        raise ValueError(f"There is no row {', '.join(unknown)}; there are {', '.join(row_names())}.")
    chosen = {name: [row for row in case.rows if row in names] for name, case in CASES.items()}
    return {name: rows for name, rows in chosen.items() if rows}


def measure(
    name: str,
    case: Case,
    rows: Sequence[str],
    scale: Scale,
    builds: Mapping[str, Build],
    repeats: int,
    options: Options,
) -> list[Measurement]:
    """Runs a case's contenders in turn.

    A first round warms up; where it takes long, it counts as well.

    Raises:
        RuntimeError: a row's result is farther from the baseline's than the row allows, or a contender fails.
    """
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        torch.save(case.draw(scale), folder / "inputs")
        contenders: dict[str, Contender] = {}

        def start(contender: str, build: str, function: str, settings: Mapping[str, Any]) -> None:
            process = Contender(builds[build], function, settings, folder / "inputs", case.threads)
            contenders[contender] = stack.enter_context(process)

        if case.has_baseline:
            start(BASELINE, BASELINE, case.compute, {})
        for row in rows:
            start(row, "this", case.compute, case.rows[row].options)
        if case.opponent is not None:
            start(OPPONENT, "this", case.opponent, {})
        for beside, function in case.beside.items():
            start(beside, "this", function, {})

        paths = {contender: folder / f"result {place}" for place, contender in enumerate(contenders)}
        costs: list[dict[str, Cost]] = []
        is_warmed = False
        while len(costs) < repeats + is_warmed:
            order = list(contenders) if len(costs) % 2 == 0 else list(reversed(contenders))
            if len(costs) - is_warmed >= options.opponent_rounds:
                order = [contender for contender in order if contender != OPPONENT]
            costs.append({each: contenders[each].run(None if costs else paths[each]) for each in order})
            if len(costs) == 1:
                differences = _differences(name, case, rows, paths)
                is_warmed = all(cost.wall < _SECONDS_NOT_WARMED for cost in costs[0].values())
    return [
        _measurement(name, case, row, rows, costs[int(is_warmed) :], costs[0], differences, builds["this"].commit)
        for row in rows
    ]


def _measurement(
    name: str,
    case: Case,
    row: str,
    rows: Sequence[str],
    counted: Sequence[Mapping[str, Cost]],
    first: Mapping[str, Cost],
    differences: Mapping[str, float],
    build: str,
) -> Measurement:
    contenders = {"row": row} | {contender: contender for contender in first if contender not in rows}
    return Measurement(
        row=row,
        case=name,
        build=build,
        seconds={
            contender: [round(getattr(one[key], case.clock), 6) if key in one else None for one in counted]
            for contender, key in contenders.items()
        },
        memory={contender: first[key].memory for contender, key in contenders.items()},
        differences={contender: differences[key] for contender, key in contenders.items()},
    )


def _differences(name: str, case: Case, rows: Sequence[str], paths: Mapping[str, Path]) -> dict[str, float]:
    results = {contender: torch.load(path) for contender, path in paths.items()}
    right: str = case.right if case.right is not None else next(iter(results))
    differences = {contender: float(case.difference(result, results[right])) for contender, result in results.items()}
    for row in rows:
        if not differences[row] <= case.rows[row].tolerance:
            raise RuntimeError(
                f"{name}: the result of row {row} differs by {differences[row]:.1e} from that of {right}, "
                f"more than {case.rows[row].tolerance:.1e}."
            )
    return differences


def _read(output_dir: Path, conditions: Mapping[str, Any]) -> dict[str, Measurement]:
    path = output_dir / JSON
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    different = [name for name, value in json.loads(json.dumps(conditions)).items() if content.get(name) != value]
    if different:
        raise ValueError(
            f"{path} was measured with another {', '.join(different)}: give another --output-dir, or remove it."
        )
    return {one["row"]: Measurement(**one) for one in content["rows"] if one["row"] in row_names()}


def _write(output_dir: Path, measurements: Mapping[str, Measurement], conditions: Mapping[str, Any]) -> None:
    from hf_maskadapter.files import write_json, write_text

    output_dir.mkdir(parents=True, exist_ok=True)
    rows = [asdict(one) for one in _in_order(measurements.values())]
    write_json(output_dir / JSON, {**conditions, "rows": rows}, indent=1)
    write_text(output_dir / MARKDOWN, report(measurements.values(), conditions) + "\n")


def _in_order(measurements: Iterable[Measurement]) -> list[Measurement]:
    order = row_names()
    return sorted(measurements, key=lambda one: order.index(one.row))


def report(measurements: Iterable[Measurement], conditions: Mapping[str, Any]) -> str:
    """The measurements as Markdown.

    Args:
        measurements: in any order.
        conditions: `baseline` commit, `scale` and `machine`.
    """
    machine = ", ".join(f"{name} {value}" for name, value in conditions["machine"].items())
    scale = Scale(**conditions["scale"])
    height, width = scale.setting.padded_size
    measurements = _in_order(measurements)
    builds = " and ".join(dict.fromkeys(one.build for one in measurements))
    lines = [
        f"Build {builds} against {conditions['baseline']}; {scale.model_size} model, random weights, "
        f"{height}×{width} pixels, {scale.num_masks} masks, 30 % of them empty, {scale.num_classes} classes.",
        f"{machine}.",
        "",
        *table(measurements, conditions["baseline"]),
    ]
    besides = [
        f"| {CASES[one.case].rows[one.row].what} | {contender} | {_spread(one.ratios(contender))} | "
        f"{one.differences.get(contender, float('nan')):.1e} |"
        for one in measurements
        for contender in CASES[one.case].beside
        if contender in one.seconds
    ]
    if besides:
        lines += ["", "| what | reported beside | faster than it | it differs by |", "|---|---|---|---|", *besides]
    return "\n".join(lines)


def table(measurements: Iterable[Measurement], baseline: str) -> list[str]:
    """The lines of the table, for the report and for the documentation.

    Args:
        measurements: in the order of lines.
        baseline: the other build's name.
    """
    return [
        f"| what | seconds | {baseline} | faster, rounds | aim | published way | faster, rounds | "
        f"memory | of {baseline}'s | of the published way's | differs by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_line, measurements),
    ]


def _line(measurement: Measurement) -> str:
    case = CASES[measurement.case]
    row = case.rows[measurement.row]
    own, memory = measurement.seconds["row"], measurement.memory["row"]
    cells = [row.what, _seconds(own)]
    cells += [_seconds(measurement.seconds.get(BASELINE, [])), _spread(measurement.ratios(BASELINE))]
    cells.append("–" if row.aim is None else f"{row.aim:g}×")
    cells += [_seconds(measurement.seconds.get(OPPONENT, [])), _spread(measurement.ratios(OPPONENT))]
    cells.append(f"{memory / 2**20:.0f} MiB")
    for other in (BASELINE, OPPONENT):
        cells.append(f"{memory / measurement.memory[other]:.2f}" if measurement.memory.get(other) else "–")
    cells.append(f"{measurement.differences['row']:.0e}")
    return f"| {' | '.join(cells)} |"


def _seconds(rounds: Iterable[float | None]) -> str:
    counted = [seconds for seconds in rounds if seconds is not None]
    if not counted:
        return "–"
    middle = statistics.median(counted)
    return f"{middle:.2f} s" if middle >= 1 else f"{1e3 * middle:.1f} ms"


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"
    middle = f"{statistics.median(ratios):.2f}×"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"


__all__ = ["BUILDS", "Measurement", "Options", "chosen_rows", "compare", "measure", "report", "table"]
