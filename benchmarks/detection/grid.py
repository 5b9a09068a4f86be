"""The whole grid of detection cells, in two worker processes; what is finished is not measured again.

Run it with ``make bench-detection``, or ``python -m benchmarks.detection.grid --help``.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from benchmarks.data.noise import PlantedKind
from benchmarks.detection.cell_data import CellSettings, make_base_model, make_cell
from benchmarks.detection.command import measure
from benchmarks.detection.figures import ALL_METHODS, CLASS_METHODS, OWN_FIGURES, MethodName
from benchmarks.detection.tables import tables
from benchmarks.models.base_models import REGIMES, DataName, RegimeName
from benchmarks.report.command import ask
from benchmarks.report.results import write_json, write_result
from fiftyone_ecif.features import cache_folder

NOISE: dict[str, tuple[PlantedKind, ...]] = {
    "fashion-mnist": ("uniform", "confusable", "caption-swap"),
    "digits": ("uniform", "confusable", "caption-swap"),
    "openclipart": ("caption-swap", "confusable", "same-category"),
    "emoji": ("caption-swap", "confusable", "same-category"),
}
"""Kinds of noise by data: among free captions a uniform swap is a caption swap; data with classes has no categories."""
FREE_CAPTIONS = ("openclipart", "emoji")
"""Data without classes."""
MODULE = "benchmarks.detection.grid"


@dataclass(frozen=True)
class DetectionGrid:
    """Measure the cells of the detection grid that are not finished, and make its tables.

    Args:
        data: data sets
        noise: kinds of noise
        rates: shares of the pairs that get a planted caption
        regimes: what the model has seen of the pairs
        seeds: of data, noise, training and partitions
        quick: measure only the cells with 20 % noise and seed 0
        again: methods to measure once more where they have been measured
        workers: processes of one thread each
        folder: the figures of each cell lie in a file here; in the cache by default
        json: the tables are written to this file
    """

    data: tuple[DataName, ...] = get_args(DataName)
    noise: tuple[PlantedKind, ...] = get_args(PlantedKind)
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    regimes: tuple[RegimeName, ...] = REGIMES
    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False
    again: tuple[MethodName, ...] = ()
    workers: int = 2
    folder: Path | None = None
    json: Path | None = None


def main() -> None:
    """Measure the cells that are not finished, print an overview, write the tables."""
    asked = ask(DetectionGrid, MODULE)
    folder = asked.folder or cache_folder("detection-results")
    folder.mkdir(parents=True, exist_ok=True)
    cells = grid(asked)
    run(cells, folder, asked.again, asked.workers)
    results = [json.loads(path.read_text()) for path in map(folder.joinpath, map(result_name, cells)) if path.exists()]
    made = tables(results)
    print(f"AUROC / average precision of {len(results)} cells, whose figures are in {folder}:\n")
    print(made["overview"].console())
    write_result(asked.json, MODULE, vars(asked), {"cells": len(results)}, made)


def grid(asked: DetectionGrid) -> list[CellSettings]:
    """The cells, the first seed's first, so that an unfinished grid is a whole one of fewer seeds."""
    rates, seeds = ((0.2,), (0,)) if asked.quick else (asked.rates, asked.seeds)
    return [
        CellSettings(name, kind, rate, regime, seed)
        for seed, name, rate, regime in itertools.product(seeds, asked.data, rates, asked.regimes)
        for kind in NOISE[name]
        if kind in asked.noise
    ]


def run(cells: Sequence[CellSettings], folder: Path, again: Sequence[str] = (), workers: int = 2) -> None:
    """Measure what is missing, in worker processes of one thread each.

    Args:
        cells: which
        folder: where each cell's figures are, or go
        again: methods whose figures count as missing
        workers: how many

    Raises:
        RuntimeError: at the end, if cells could not be measured
    """
    todo = [cell for cell in cells if missing_methods(cell, folder, again)]
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers inherit it
    failed = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        # A base model serves many cells: one worker must train it before several ask for it.
        bases = sorted({(cell.data, cell.seed) for cell in todo})
        for _ in tqdm(pool.map(make_base_model, *zip(*bases)) if bases else (), total=len(bases), desc="base models"):
            pass
        work = {pool.submit(run_cell, cell, folder, again): cell for cell in todo}
        try:
            for done in tqdm(as_completed(work), total=len(work), desc="cells", unit="cell"):
                if error := done.exception():
                    failed.append(f"{work[done].name}: {error}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # or the pool would first finish what it was given
            raise
    if failed:
        raise RuntimeError(f"{len(failed)} cells could not be measured:\n" + "\n".join(failed))


def run_cell(cell: CellSettings, folder: Path, again: Sequence[str] = ()) -> None:
    """Measure the methods that are missing, and keep the figures of the others."""
    path = folder / result_name(cell)
    before = json.loads(path.read_text()) if path.exists() else {}
    methods = missing_methods(cell, folder, again)
    if "ecif" in methods:
        before = {name: value for name, value in before.items() if name not in OWN_FIGURES}
    write_json(path, before | measure(make_cell(cell, progress=False), methods))


def missing_methods(cell: CellSettings, folder: Path, again: Sequence[str] = ()) -> list[str]:
    """Methods that a cell has no figures of, and those to be measured again."""
    path = folder / result_name(cell)
    measured = json.loads(path.read_text()) if path.exists() else {}
    methods = [name for name in ALL_METHODS if name not in CLASS_METHODS or cell.data not in FREE_CAPTIONS]
    return [name for name in methods if name in again or f"seconds.{name}" not in measured]


def result_name(cell: CellSettings) -> str:
    """The file of a cell's figures."""
    return f"{cell.name}.json"


if __name__ == "__main__":
    main()
