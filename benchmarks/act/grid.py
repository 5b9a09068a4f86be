"""Many cells of ``benchmarks.act``: what is finished is not measured again.

Run it with ``python -m benchmarks.act.grid --json FILE``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from benchmarks.act.command import Act, Family, measure
from benchmarks.data.noise import PlantedKind
from benchmarks.detection.grid import NOISE
from benchmarks.models.base_models import DataName
from benchmarks.report.command import ask
from benchmarks.report.results import write_json, write_result
from benchmarks.report.table import Cell as Figure
from benchmarks.report.table import Table
from fiftyone_ecif.features import cache_folder

MODULE = "benchmarks.act.grid"
SHOWN = {
    "rate_off": "noise rate off", "rate_covered": "interval holds it", "ece": "ECE",
    "precision_at_half": "wrong at p ≥ ½", "expected_at_half": "expected", "precision_at_90": "wrong at 90 %",
    "suggestions_right": "suggestion right", "suggestions_right_in_five": "in five", "confident_right": "right at .9",
    "right_captions_replaced": "right ones replaced", "value_auroc": "AUROC of −value",
    "value_rank_between_seeds": "rank between seeds", "sign_flips": "opposite signs",
    "beyond_two_errors": "beyond two errors",
}  # fmt: skip
"""Figures of the table, and what it calls them."""


@dataclass(frozen=True)
class ActGrid:
    """Measure whether the numbers hold that somebody acts on, over many cells.

    Args:
        data: data sets
        noise: kinds of noise
        rates: shares of the pairs that get a planted caption
        seeds: of data, noise, training and partitions
        figures: which are measured
        captions: whether labels are scored as the captions that they were written as
        folder: the figures of each cell lie in a file here; in the cache by default
        json: the tables are written to this file
    """

    data: tuple[DataName, ...] = ("emoji", "openclipart", "fashion-mnist")
    noise: tuple[PlantedKind, ...] = get_args(PlantedKind)
    rates: tuple[float, ...] = (0.0, 0.05, 0.12, 0.2, 0.3, 0.4)
    seeds: tuple[int, ...] = (0, 1)
    figures: tuple[Family, ...] = ("probabilities", "suggestions")
    captions: bool = True
    folder: Path | None = None
    json: Path | None = None


def main() -> None:
    """Measure the cells that are not finished, print the means, write the table."""
    asked = ask(ActGrid, MODULE)
    folder = asked.folder or cache_folder("act-results")
    folder.mkdir(parents=True, exist_ok=True)
    results = [(cell, measured(cell, folder, asked.figures)) for cell in tqdm(cells(asked), unit="cell")]
    made = table(results)
    print(made.console())
    write_result(asked.json, MODULE, vars(asked), marks([figures for _, figures in results]), {"act": made})


def cells(asked: ActGrid) -> list[Act]:
    """The cells, the first seed's first; without noise, its kind does not matter."""
    return [
        Act(name, noise, rate, seed=seed, captions=asked.captions and name not in ("emoji", "openclipart"))
        for seed, name, rate in itertools.product(asked.seeds, asked.data, asked.rates)
        for noise in kinds(name, rate)
        if noise in asked.noise
    ]


def kinds(name: DataName, rate: float) -> Sequence[PlantedKind]:
    """The kinds of noise that are planted in a data set."""
    return NOISE[name] if rate else NOISE[name][:1]


def measured(cell: Act, folder: Path, families: Sequence[Family]) -> dict[str, float]:
    """A cell's figures, out of its file; families that it lacks are measured together and added to it."""
    path = folder / f"{cell.data}-{cell.noise}-{cell.rate:g}-seed{cell.seed}{'-captions' * cell.captions}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"families": [], "figures": {}}
    if missing := [family for family in families if family not in kept["families"]]:
        figures = kept["figures"] | measure(replace(cell, figures=tuple(missing)), progress=False)
        kept = {"families": [*kept["families"], *missing], "figures": figures}
        write_json(path, kept)
    return kept["figures"]


def marks(results: Sequence[dict[str, float]]) -> dict[str, float]:
    """Over cells: the share whose noise rate is within four points, and so on, and the means of the others."""

    def over(name: str) -> np.ndarray:
        return np.array([figures[name] for figures in results if name in figures])

    half = [
        abs(figures["precision_at_half"] - figures["expected_at_half"])
        for figures in results
        if "precision_at_half" in figures
    ]
    found = {
        "cells": len(results),
        "rate_within_4_points": np.mean(abs(over("rate_off")) <= 0.04),
        "rate_covered": over("rate_covered").mean(),
        "ece_at_most_5_points": np.mean(over("ece") <= 0.05),
        "half_within_8_points": np.mean(np.array(half) <= 0.08),
        "precision_at_90_at_least_85": np.mean(over("precision_at_90") >= 0.85),
    }
    return {name: float(value) for name, value in found.items()}


def table(results: Sequence[tuple[Act, dict[str, float]]]) -> Table:
    """Means over seeds, a row for each data set, kind of noise and rate."""
    rows: dict[tuple[str, str, float], list[dict[str, float]]] = {}
    for cell, figures in results:
        rows.setdefault((cell.data, cell.noise, cell.rate), []).append(figures)
    shown = [name for name in SHOWN if any(name in figures for _, figures in results)]
    body: list[list[Figure]] = [[*key, *(_mean(found, name) for name in shown)] for key, found in rows.items()]
    columns = {"data": None, "noise": None, "rate": 2} | {SHOWN[name]: 3 for name in shown}
    return Table.of(columns, body)


def _mean(found: Sequence[dict[str, float]], name: str) -> float | None:
    values = [figures[name] for figures in found if name in figures]
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    main()
