"""The report of the paper's claims in miniature: every table as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.benchmarks.paper_settings import Settings
from lab.benchmarks.speed import figure_class
from lab.miniature.measuring import KINDS

GATES = {
    ("ground_truth_masks_accuracy", "base"): 6.0,
    ("ground_truth_masks_accuracy", "novel"): 4.0,
    ("ground_truth_masks_mean_iou", "all"): 12.0,
    ("generated_masks_mean_iou", "all"): 8.0,
    ("generated_masks_mean_iou", "novel"): 6.0,
}
"""Least difference between adapter and best pooling that the miniature is meant to show, in points."""

LEAST_RECALL = {"base": 90.0, "novel": 85.0}
"""Least share of the things that the generator is meant to find, in per cent."""

_FORMS = {"hard": "hard", "area": "area-weighted", "any": "any overlap"}

_NAMES = {
    **{f"pooling/{form}": f"pooling, {name}" for form, name in _FORMS.items()},
    **{f"pooling/{form}/own": f"pooling, {name}, its best ensemble" for form, name in _FORMS.items()},
    "crop": "crop",
    "adapter": "Mask-Adapter",
    "difference": "adapter − best pooling",
}

_TITLES = {
    "ground_truth_masks_accuracy": "ground-truth masks: masks right, %",
    "ground_truth_masks_mean_iou": "ground-truth masks: mIoU",
    "generated_masks_mean_iou": "generated masks, end to end: mIoU",
    "generated_masks_mean_iou_out_of_vocabulary": "generated masks, CLIP's branch alone: mIoU",
}

_SHIPPED = "Mask-Adapter as shipped"
_COLORS = {
    **{_NAMES[f"pooling/{form}"]: f"C{number}" for form, number in zip(_FORMS, (0, 9, 2), strict=True)},
    **{_NAMES[f"pooling/{form}/own"]: f"C{number}" for form, number in zip(_FORMS, (4, 6, 8), strict=True)},
    _NAMES["crop"]: "C7",
    _NAMES["adapter"]: "C3",
    _SHIPPED: "C1",
}
"""Matplotlib's colours of the ways that several panels show; others take the next one."""

Number = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Numbers with intervals for each kind of class.

    Args:
        title: what is measured, with its unit.
        rows: for each way its numbers, `value`, `low` and `high`, by kind.
        kinds: columns.
        differences: names of rows that are differences, which are signed and not drawn.
    """

    title: str
    rows: Mapping[str, Mapping[str, Number]]
    kinds: Sequence[str] = KINDS
    differences: Sequence[str] = field(default=(_NAMES["difference"],))

    def markdown(self) -> list[str]:
        """Its lines, with an empty one at the end."""
        lines = [f"| {self.title} | {' | '.join(self.kinds)} |", "|" + "---|" * (len(self.kinds) + 1)]
        for name, row in self.rows.items():
            cells = [_cell(row[kind], signed=name in self.differences) for kind in self.kinds]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return [*lines, ""]

    def draw(self, panel: Any) -> None:
        """Bars with their intervals on Matplotlib's axes."""
        rows = {name: row for name, row in self.rows.items() if name not in self.differences}
        for number, (name, row) in enumerate(rows.items()):
            heights = [row[kind]["value"] for kind in self.kinds]
            errors = [
                [max(row[kind]["value"] - row[kind]["low"], 0) for kind in self.kinds],
                [max(row[kind]["high"] - row[kind]["value"], 0) for kind in self.kinds],
            ]
            places = np.arange(len(self.kinds)) + (number - (len(rows) - 1) / 2) * 0.8 / len(rows)
            color = _COLORS.get(name, f"C{number}")
            panel.bar(places, heights, 0.8 / len(rows), yerr=errors, capsize=2, label=name, color=color)
        panel.set_xticks(range(len(self.kinds)), self.kinds)
        panel.set_title(self.title, fontsize=10)
        panel.set_ylim(0, 105)
        panel.grid(axis="y", alpha=0.3)
        panel.legend(fontsize=6, ncols=2, loc="lower left")


def _cell(number: Number, signed: bool = False) -> str:
    sign = "+z" if signed else ""
    deviation = f"{number.get('seed_deviation', 0.0):.1f}"
    deviation = "" if float(deviation) == 0 else f" ± {deviation}"
    return f"{number['value']:{sign}.1f}{deviation} ({number['low']:{sign}.1f} to {number['high']:{sign}.1f})"


def main_tables(main: Mapping[str, Any]) -> list[Table]:
    """Crop, pooling and adapter with true and generated masks."""
    tables = []
    for table, title in _TITLES.items():
        rows = {_NAMES[method]: row for method, row in main["seeds"][table].items()}
        tables.append(Table(title, rows | {_SHIPPED: main["shipped"][table]["adapter"]}))
    return tables


def ablation_tables(results: Mapping[str, Any], settings: Settings) -> list[Table]:
    """Stages, numbers of maps, masks of other sources and the withheld value, as far as they were measured."""
    accuracy = _TITLES["ground_truth_masks_accuracy"]
    tables = []
    if "stages" in results:
        for table in ("ground_truth_masks_accuracy", "generated_masks_mean_iou"):
            rows = {name: row[table]["adapter"] for name, row in results["stages"].items()}
            reference, *others = rows
            changes = {f"{name} − {reference}": results["stages"][name][table]["difference"] for name in others}
            tables.append(Table(_TITLES[table], rows | changes, differences=tuple(changes)))
    if "maps" in results:
        rows = {f"K = {number}": row["adapter"] for number, row in results["maps"].items()}
        tables.append(Table(f"{accuracy} ({settings.ablation_steps} steps of stage 1)", rows))
    for source, methods in results.get("sources", {}).items():
        tables.append(Table(f"{source}: masks right, %", {_NAMES[method]: row for method, row in methods.items()}))
    if "withheld" in results:
        rows, differences = {}, []
        for name, methods in results["withheld"].items():
            rows |= {f"{_NAMES[method]}, trained on {name}": methods[method] for method in ("adapter", "difference")}
            differences.append(f"{_NAMES['difference']}, trained on {name}")
        title = "masks of the withheld shape: right, % (stage 1 only)"
        tables.append(Table(title, rows, ("base", "novel", "all"), differences))
    return tables


def summary(main: Mapping[str, Any]) -> list[str]:
    """Markdown lines: best pooling against adapter, with the difference and its interval."""
    lines = ["| best pooling → adapter | base things | novel things | stuff | all |", "|---|---|---|---|---|"]
    for table, title in _TITLES.items():
        methods = main["seeds"][table]
        cells = []
        for kind in KINDS:
            difference = methods["difference"][kind]
            after = methods["adapter"][kind]["value"]
            change = "{value:+z.1f}, {low:+z.1f} to {high:+z.1f}".format_map(difference)
            cells.append(f"{after - difference['value']:.1f} → {after:.1f} ({change})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return [*lines, ""]


def gates(main: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What the miniature is meant to show: name, measured, least, and whether that is met."""
    zero_shot = {name: value for name, value in main["clip_zero_shot"].items() if not name.startswith("joint")}
    measured = [
        (
            f"CLIP zero-shot, %, lowest ({min(zero_shot, key=zero_shot.__getitem__)})",
            100 * min(zero_shot.values()),
            90.0,
        ),
        *(
            (f"generated masks: recall, %, {kind}", 100 * main["generator"][f"recall/{kind}"], least)
            for kind, least in LEAST_RECALL.items()
        ),
    ]
    differences = [
        (f"{_TITLES[table]}, {kind}, adapter − best pooling", main["seeds"][table]["difference"][kind]["value"], least)
        for (table, kind), least in GATES.items()
    ]
    return [
        *((name, f"{value:.1f}", f"{least:.0f}", value >= least) for name, value, least in measured),
        *((name, f"{value:+.1f}", f"{least:+.0f}", value >= least) for name, value, least in differences),
    ]


def report(results: Mapping[str, Any], settings: Settings) -> str:
    """All tables as Markdown."""
    lines = [
        f"{settings.scenes} test scenes; 95 % intervals over scenes in brackets. Adapters' numbers are means over "
        f"{settings.seeds} training seeds, ± the standard deviation between those unless it is 0.0. Adapters, unless "
        f"said otherwise: {settings.steps} steps of stage 1, then {settings.mixed_steps} of stage 2, of "
        f"{settings.batch_size} scenes each.",
        "",
    ]
    if "main" in results:
        main = results["main"]
        lines += summary(main)
        for table in main_tables(main):
            lines += table.markdown()
        lines += ["| meant to show | measured | at least |  |", "|---|---|---|---|"]
        for name, value, least, is_met in gates(main):
            lines.append(f"| {name} | {value} | {least} | {'met' if is_met else '**not met**'} |")
        zero_shot = ", ".join(f"{name} {100 * value:.1f}" for name, value in main["clip_zero_shot"].items())
        recall = ", ".join(f"{name} {value:.3f}" for name, value in main["generator"].items())
        lines += ["", f"CLIP zero-shot on single objects, %: {zero_shot}.", f"Generator: {recall}.", ""]
    for table in ablation_tables(results, settings):
        lines += table.markdown()
    return "\n".join(lines).rstrip()


def plot(tables: Sequence[Table]) -> Any:
    """A Matplotlib figure with one panel of bars a table."""
    rows = -(-len(tables) // 2)
    figure = figure_class()(figsize=(11, 3.25 * rows), dpi=110, layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).flat
    for table, panel in zip(tables, panels, strict=False):
        table.draw(panel)
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    return figure
