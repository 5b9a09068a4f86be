"""Do the numbers hold that somebody acts on? One cell: values, errors, probabilities, suggestions.

Run it with ``python -m benchmarks.act --help``; ``python -m benchmarks.act.grid`` runs many cells. What it measured:
docs/detection.md.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.act.probabilities import probability_figures
from benchmarks.act.suggestions import suggestion_figures
from benchmarks.act.values import value_figures
from benchmarks.data.noise import PlantedKind
from benchmarks.detection.cell import Cell
from benchmarks.detection.cell_data import CellSettings, make_cell
from benchmarks.detection.figures import judged
from benchmarks.models.base_models import DataName, RegimeName
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from fiftyone_ecif.attribution import Settings

MODULE = "benchmarks.act"

Family = Literal["probabilities", "suggestions", "values"]


@dataclass(frozen=True)
class Act:
    """Measure whether the numbers hold that somebody acts on, in one cell of pairs with planted noise.

    Args:
        data: emoji and openclipart have free captions, fashion-mnist and digits have labels
        noise: kind of noise that is planted
        rate: share of the pairs that get a planted caption
        regime: what the model has seen of the pairs
        seed: of data, noise, training and partitions
        captions: whether labels are scored as the captions that they were written as, in place of as labels
        cell: inputs that an earlier run saved, in place of --data
        figures: which are measured; values take two runs
        json: the result is written to this file
    """

    data: DataName = "emoji"
    noise: PlantedKind = "caption-swap"
    rate: float = 0.12
    regime: RegimeName = "pretrained"
    seed: int = 0
    captions: bool = False
    cell: Path | None = None
    figures: tuple[Family, ...] = ("probabilities", "suggestions", "values")
    json: Path | None = None


def main() -> None:
    """Measure one cell, print its figures, write them."""
    asked = ask(Act, MODULE)
    measured = measure(asked)
    for name, value in measured.items():
        print(f"{name:<28}{value:>8.3f}")
    write_result(asked.json, MODULE, vars(asked), measured)


def measure(asked: Act, progress: bool = True) -> dict[str, float]:
    """The figures of one cell: those of each family that was asked for, and the seconds that misalignment took."""
    cell = cell_of(asked, progress)
    settings = Settings(seed=int(cell.settings["seed"] or 0))
    started = time.perf_counter()
    found, fitted = judged(cell, settings)
    measured = {"seconds": time.perf_counter() - started}
    if "probabilities" in asked.figures:
        measured |= probability_figures(cell, found)
    if "suggestions" in asked.figures and not asked.captions:  # many captions of a class are right
        measured |= suggestion_figures(cell, found, fitted, settings)
    if "values" in asked.figures:
        measured |= value_figures(cell, (settings.seed, settings.seed + 1))
    return measured


def cell_of(asked: Act, progress: bool = True) -> Cell:
    """The cell that was asked for, without its classes where labels are to be scored as captions."""
    if asked.cell:
        cell = Cell.load(asked.cell)
    else:
        cell = make_cell(CellSettings(asked.data, asked.noise, asked.rate, asked.regime, asked.seed), progress)
    return replace(cell, classes=None) if asked.captions else cell
