"""Does a trace name the pairs that made a query fail, and does removing them mend it? With planted causes, and timed.

Run it with ``python -m benchmarks.tracing --help``. What it measured: docs/trace.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.fidelity.removal_problem import DataName
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table, figure_cell
from benchmarks.tracing.measure import measure
from benchmarks.tracing.rankings import METHODS
from benchmarks.tracing.timing import Figures, timings
from benchmarks.tracing.trace_problem import planted_problem
from fiftyone_ecif.attribution.objectives import RELATIVE_ANCHOR

MODULE = "benchmarks.tracing"
COLUMNS = {
    "any sufficient cause, of 10": "sufficient_cause_at_10",
    "precision at 10: the cause alone": "precision_at_10",
    "any planted": "planted_at_10",
    "recall at 100": "recall_at_100",
    "fix rate": "fix_rate",
    "margin, nats": "margin_change",
}


@dataclass(frozen=True)
class Tracing:
    """Trace queries that fail because of planted causes, and time traces.

    Args:
        data: data set
        pairs: training pairs
        queries: failing queries, spread over the planted causes; 0 traces none
        refits: queries whose fixes are refitted, at most
        anchor: δ, as a share of the largest curvature
        remove: pairs that a fix removes, the same number for every method
        seed: of data, training, planting and partitions
        timing_pairs: made-up pairs to take the seconds on; 0 takes them on the traced pairs alone
        timing_rounds: rounds of the run on the made-up pairs
        timing_device: where the made-up pairs are traced
        json: the result is written to this file
    """

    data: DataName = "fashion-mnist"
    pairs: int = 2_000
    queries: int = 24
    refits: int = 12
    anchor: float = RELATIVE_ANCHOR
    remove: int = 40
    seed: int = 0
    timing_pairs: int = 0
    timing_rounds: int = 4
    timing_device: str = "cpu"
    json: Path | None = None


def main() -> None:
    """Measure, print the tables, write the figures."""
    asked = ask(Tracing, MODULE)
    figures: Figures = {}
    if asked.queries:
        problem = planted_problem(asked.data, asked.pairs, asked.anchor, asked.seed)
        figures |= measure(problem, asked.queries, asked.remove, asked.seed, asked.refits)
    if asked.timing_pairs:
        figures |= timings(asked.timing_pairs, asked.timing_rounds, asked.seed, asked.timing_device)
    made = {"methods": method_table(figures)} if "fix_rate.ecif" in figures else {}
    print_figures(figures, made)
    write_result(asked.json, MODULE, vars(asked), figures, made)


def method_table(figures: Figures) -> Table:
    """A row for each method."""
    return Table.of(
        {"": None, **dict.fromkeys(COLUMNS, 2)},
        [
            [label, *(figure_cell(figures, f"{name}.{method}") for name in COLUMNS.values())]
            for method, label in METHODS.items()
        ],
    )


def print_figures(figures: Figures, made: dict[str, Table]) -> None:
    """The tables, and the figures that belong to no method."""
    for table in made.values():
        print(f"\n{table.console()}")
    print()
    for name, value in figures.items():
        if "." not in name and not name.endswith("_se"):
            error = figures.get(f"{name}_se")
            print(f"{name:<28}{value:.4g}" + (f" ± {error:.2g}" if error is not None else ""))
