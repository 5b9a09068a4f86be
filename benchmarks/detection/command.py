"""Which method finds the pairs whose caption is wrong? One cell: one data set, kind of noise, rate, regime and seed.

Run it with ``python -m benchmarks.detection --help``; ``make bench-detection`` runs the whole grid. What it measured:
docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.detection.cell import Cell
from benchmarks.detection.cell_data import CellSettings, cell_of_file, make_cell
from benchmarks.detection.figures import ALL_METHODS, MethodName, evidence, figures
from benchmarks.models.base_models import DATA
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table, figure_cell
from fiftyone_ecif.attribution import Settings

MODULE = "benchmarks.detection"
COLUMNS = ("auroc", "ap", "f1", "precision_at_1pct", "seconds")
ABOUT_THE_CELL = ("planted_rate", "noise_rate_estimate", "ece", "suggestion_accuracy")


@dataclass(frozen=True)
class Detection:
    """Measure which method finds the pairs whose caption is wrong, in one cell.

    Args:
        settings: which cell
        pairs: pairs of your own in place of --data: a CSV file with the columns filepath, caption, misaligned (0, 1 or
            empty) and, if captions name classes, label; without --model, they are scored by lite0-minilm, which was
            trained on drawings
        cell: inputs that an earlier run saved, in place of --data, to be measured again
        methods: which methods are measured
        json: the result is written to this file
    """

    settings: CellSettings = field(default_factory=CellSettings)
    pairs: Path | None = None
    cell: Path | None = None
    methods: tuple[MethodName, ...] = ALL_METHODS
    json: Path | None = None


def main() -> None:
    """Measure one cell, print its table, write its figures."""
    asked = ask(Detection, MODULE)
    measured = measure(cell_of(asked), asked.methods)
    table = method_table(measured)
    print(f"\n{table.console()}\n")
    for name in ABOUT_THE_CELL:
        if name in measured:
            print(f"{name:<20}{measured[name]:>8.3f}")
    settings = {name: measured.pop(name) for name in vars(CellSettings()) if name in measured}
    write_result(asked.json, MODULE, {**settings, "methods": asked.methods}, measured, {"methods": table})


def cell_of(asked: Detection) -> Cell:
    """The cell that was asked for: saved, from a CSV file, or from a known data set.

    Raises:
        SystemExit: if the options contradict one another
    """
    settings = asked.settings
    if asked.pairs and asked.cell:
        raise SystemExit("--pairs and --cell are two sources of pairs: choose one of them.")
    own_weights = ":" in (settings.model or "")
    if (settings.model is None) != (settings.checkpoint is None) and not own_weights:
        raise SystemExit(
            "--model and --checkpoint come together; only a model named local-dir:… or hf-hub:… has its own weights."
        )
    if settings.model or asked.pairs:
        settings = replace(settings, regime="given")
    if asked.cell:
        return Cell.load(asked.cell)
    if asked.pairs:
        return cell_of_file(replace(settings, data=asked.pairs.stem, noise="natural"), asked.pairs)
    if settings.data not in DATA:
        raise SystemExit(f"--data is one of {', '.join(DATA)}, not '{settings.data}'; --pairs takes a CSV file.")
    return make_cell(settings)


def measure(cell: Cell, methods: Sequence[str] = ALL_METHODS) -> dict[str, Any]:
    """Where the cell came from, and what the methods find in it.

    Args:
        cell: the inputs
        methods: out of :data:`~benchmarks.detection.figures.ALL_METHODS`

    Returns:
        the settings and the figures of :func:`~benchmarks.detection.figures.figures`, flat
    """
    found = evidence(cell, Settings(seed=int(cell.settings["seed"] or 0)), methods)
    planted = {} if cell.planted is None else {"planted_rate": float(cell.planted.mean())}
    return {**cell.settings, "pairs": len(cell.pairs), **planted, **figures(cell, found)}


def method_table(measured: dict[str, Any]) -> Table:
    """A row for each method that was measured."""
    return Table.of(
        {"": None, **dict.fromkeys(COLUMNS, 3)},
        [
            [method, *(figure_cell(measured, f"{column}.{method}") for column in COLUMNS)]
            for method in ALL_METHODS
            if f"seconds.{method}" in measured
        ],
    )
