"""Which method finds the pairs whose caption is wrong? One cell: one data set, kind of noise, rate, regime and seed.

Run it with ``python -m benchmarks.detection --help``; ``make bench-detection`` runs the whole grid. What it measured:
docs/detection.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data.noise import KINDS
from benchmarks.detection.cell import Cell
from benchmarks.detection.cell_data import CellSettings, cell_of_file, make_cell
from benchmarks.detection.figures import ALL_METHODS, evidence, figures
from benchmarks.models.base_models import DATA, REGIMES
from benchmarks.report.json_file import write_json
from fiftyone_ecif.attribution import Settings

COLUMNS = ("auroc", "ap", "f1", "precision_at_1pct", "seconds")


def main() -> None:
    """Measure one cell, print its table, write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = CellSettings()
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", choices=sorted(DATA), default=default.data)
    source.add_argument(
        "--pairs",
        type=Path,
        help="CSV with columns filepath, caption, misaligned (0, 1 or empty) and, if captions name classes, label",
    )
    source.add_argument("--cell", type=Path, help="inputs that an earlier run saved, to be measured again")
    parser.add_argument("--noise", choices=KINDS, default=default.noise, help="what is planted in --data")
    parser.add_argument("--rate", type=float, default=default.rate, help="share of the pairs that it is planted in")
    parser.add_argument("--regime", choices=REGIMES, default=default.regime, help="what the model has seen")
    parser.add_argument("--seed", type=int, default=default.seed, help="of data, noise, training and partitions")
    parser.add_argument("--trusted", type=int, default=default.trusted, help="pairs of --data known to be right")
    parser.add_argument("--model", help="open_clip's name of a model to use instead of the regime's")
    parser.add_argument("--checkpoint", help="its tag, or the path of its weights")
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS, default=ALL_METHODS)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = vars(parser.parse_args())
    methods, path, file, saved = (arguments.pop(name) for name in ("methods", "json", "pairs", "cell"))
    if (arguments["model"] is None) != (arguments["checkpoint"] is None):
        parser.error("--model and --checkpoint come together.")
    if arguments["model"]:
        arguments["regime"] = "given"
    if saved:
        cell = Cell.load(saved)
    elif file:
        cell = cell_of_file(CellSettings(**arguments | {"data": file.stem, "noise": "natural"}), file)
    else:
        cell = make_cell(CellSettings(**arguments))
    measured = measure(cell, methods)
    print_table(measured)
    if path:
        write_json(path, measured)


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


def print_table(measured: dict[str, Any]) -> None:
    """The figures for people."""
    print(f"\n{'':<20}" + "".join(f"{name:>18}" for name in COLUMNS))
    for method in ALL_METHODS:
        if f"seconds.{method}" in measured:
            cells = [measured.get(f"{column}.{method}") for column in COLUMNS]
            print(f"{method:<20}" + "".join(f"{'' if cell is None else f'{cell:.3f}':>18}" for cell in cells))
    for name in ("planted_rate", "noise_rate_estimate", "ece", "suggestion_accuracy"):
        if name in measured:
            print(f"{name:<20}{measured[name]:>18.3f}")


if __name__ == "__main__":
    main()
