"""The whole grid of detection cells, in two worker processes; what is finished is not measured again.

Run it with ``make bench-detection``, or ``python -m benchmarks.detection.grid --help``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from benchmarks.detection.__main__ import measure
from benchmarks.detection.cell_data import CellSettings, make_base_model, make_cell
from benchmarks.detection.figures import ALL_METHODS, CLASS_METHODS, OWN_FIGURES
from benchmarks.detection.tables import write_tables
from benchmarks.models.base_models import REGIMES
from benchmarks.report.json_file import write_json
from fiftyone_ecif.features import cache_folder

NOISE = {
    "fashion-mnist": ("uniform", "confusable", "caption-swap"),
    "digits": ("uniform", "confusable", "caption-swap"),
    "openclipart": ("caption-swap", "confusable"),
}
"""Kinds of noise by data: among free captions a uniform swap is a caption swap."""
FREE_CAPTIONS = ("openclipart",)
"""Data without classes."""
RATES = (0.05, 0.1, 0.2, 0.4)
SEEDS = (0, 1, 2)
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "detection.md"


def main() -> None:
    """Measure the cells that are not finished, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=sorted(NOISE), default=list(NOISE))
    parser.add_argument("--noise", nargs="+", default=["uniform", "confusable", "caption-swap"])
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=REGIMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="of these cells only those with 20 %% noise and seed 0")
    parser.add_argument("--again", nargs="+", choices=ALL_METHODS, default=(), help="methods to measure once more")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--folder", type=Path, help="one JSON file per cell (default: in the cache)")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the tables go, between their markers")
    options = parser.parse_args()
    folder = options.folder or cache_folder("detection-results")
    folder.mkdir(parents=True, exist_ok=True)
    rates, seeds = ((0.2,), (0,)) if options.quick else (options.rates, options.seeds)
    cells = grid(options.data, options.noise, rates, options.regimes, seeds)
    run(cells, folder, options.again, options.workers)
    results = [json.loads(path.read_text()) for path in map(folder.joinpath, map(result_name, cells)) if path.exists()]
    write_tables(results, options.document)
    print(f"The tables of {len(results)} cells are in {options.document}; their figures in {folder}.")


def grid(
    data: Sequence[str], noise: Sequence[str], rates: Sequence[float], regimes: Sequence[str], seeds: Sequence[int]
) -> list[CellSettings]:
    """The cells, the first seed's first, so that an unfinished grid is a whole one of fewer seeds."""
    return [
        CellSettings(name, kind, rate, regime, seed)
        for seed, name, rate, regime in itertools.product(seeds, data, rates, regimes)
        for kind in NOISE[name]
        if kind in noise
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
