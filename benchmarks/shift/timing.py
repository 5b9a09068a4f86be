"""Seconds and memory of a shift of 100,000 rows of 768 numbers."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table
from fiftyone_ecif.shift import Comparison, top_directions

MODULE = "benchmarks.shift.timing"


@dataclass(frozen=True)
class Timing:
    """Time a divergence with every row's part and its directions, of rows that are made as they are read.

    Args:
        rows: of the two sets together
        dim: numbers of a row
        json: the result is written to this file
    """

    rows: int = 100_000
    dim: int = 768
    json: Path | None = None


class MadeUp:
    """Rows that are drawn anew whenever they are read, so that what memory grows by is the mathematics' own.

    Args:
        count: N
        dim: D
        shift: added to the first number
    """

    def __init__(self, count: int, dim: int, shift: float) -> None:
        self.count, self.dim, self.shift = count, dim, shift

    def __len__(self) -> int:
        return self.count

    def gather(self, index: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(index[0]))
        rows = torch.randn(len(index), self.dim, generator=generator)
        rows[:, 0] += self.shift
        return rows


def measure(asked: Timing) -> dict[str, float]:
    """Seconds of a comparison, and the megabytes that it made the process grow by."""
    pair = MadeUp(asked.rows // 2, asked.dim, 0.0), MadeUp(asked.rows // 2, asked.dim, 2.0)
    before, start = _peak(), time.perf_counter()
    comparison = Comparison.of(*pair)
    parts = [comparison.contributions(each, side) for side, each in enumerate(pair)]
    top_directions(comparison, *pair)
    seconds = time.perf_counter() - start
    assert len(parts[0]) == asked.rows // 2
    return {"seconds": seconds, "megabytes": _peak() - before, "threads": torch.get_num_threads()}


def _peak() -> float:
    """Largest resident memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Time it and print the figures."""
    asked = ask(Timing, MODULE)
    figures = measure(asked)
    columns: dict[str, int | None] = {"rows": None, "numbers of a row": None, "seconds": 1, "MB": 0, "threads": None}
    table = Table.of(columns, [[f"{asked.rows:,}", str(asked.dim), *figures.values()]])
    print(table.console())
    write_result(asked.json, MODULE, vars(asked), figures, {"time": table})


if __name__ == "__main__":
    main()
