"""What a run costs, by arithmetic over measured epochs: seconds, memory, disk and dollars (docs/scale.md).

Run it with ``python -m benchmarks.speed.cost_model --help``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table
from fiftyone_ecif.dataset.compute.cost import (
    EFFICIENCY,
    EPOCH_EFFICIENCY,
    FLOAT_BYTES,
    PAIR_BYTES,
    PROCESS_BYTES,
    embedding_cost,
    epoch_flop,
    epochs,
    product_speed,
)

MODULE = "benchmarks.speed.cost_model"


@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Args:
        devices: how many
        tower_flop: of one, per second, in the towers' precision, as a plain product reaches it
        product_flop: of one, per second, in the precision of the head's products
        read_bytes: of one, per second, from where features lie
        dollars: of one, per hour
    """

    devices: int
    tower_flop: float
    product_flop: float
    read_bytes: float
    dollars: float


@dataclass(frozen=True)
class RunCost:
    """Seconds of the towers and of everything after them, bytes in memory and on disk, and dollars."""

    tower_seconds: float
    score_seconds: float
    memory_bytes: float
    disk_bytes: float
    dollars: float


def run_cost(pairs: int, model: str, dims: tuple[int, int, int], batch: int, machine: Machine) -> RunCost:
    """Estimate a run.

    An epoch takes as long as its products or as the reading of its features, whichever is longer.

    Args:
        pairs: N
        model: open_clip's name
        dims: D, F_image, F_text
        batch: B
        machine: where

    Returns:
        :class:`RunCost`

    Raises:
        ValueError: for a model whose cost is not known beforehand
    """
    embedding = embedding_cost(1, model)
    if embedding is None:
        raise ValueError(f"The cost of {model} is not known beforehand.")
    tower_flop = embedding.seconds * EFFICIENCY * product_speed()
    tower_seconds = pairs * tower_flop / (EFFICIENCY * machine.tower_flop * machine.devices)
    disk = pairs * (dims[1] + dims[2]) * FLOAT_BYTES
    products = pairs * epoch_flop(dims, batch) / (EPOCH_EFFICIENCY * machine.product_flop * machine.devices)
    score_seconds = epochs(pairs) * max(products, disk / (machine.read_bytes * machine.devices))
    hours = (tower_seconds + score_seconds) / 3600
    return RunCost(
        tower_seconds,
        score_seconds,
        PROCESS_BYTES + pairs * PAIR_BYTES,
        disk,
        hours * machine.devices * machine.dollars,
    )


@dataclass(frozen=True)
class CostModel:
    """Estimate what a run costs: seconds, memory, disk and dollars.

    Args:
        pairs: N
        model: open_clip's name
        dims: D, F_image and F_text
        batch: B
        devices: how many
        tower_flop: of one device, per second, in the towers' precision, as a plain product reaches it
        product_flop: of one device, per second, in the precision of the head's products
        read_bytes: of one device, per second, from where features lie
        dollars: of one device, per hour
        json: the result is written to this file
    """

    pairs: float = 1e9
    model: str = "ViT-B-32"
    dims: tuple[int, int, int] = (512, 768, 512)
    batch: int = 256
    devices: int = 8
    tower_flop: float = 400e12
    product_flop: float = 40e12
    read_bytes: float = 2e9
    dollars: float = 2.5
    json: Path | None = None


def main() -> None:
    """Print one machine's estimate, and write it."""
    asked = ask(CostModel, MODULE)
    machine = Machine(asked.devices, asked.tower_flop, asked.product_flop, asked.read_bytes, asked.dollars)
    figures = vars(run_cost(int(asked.pairs), asked.model, asked.dims, asked.batch, machine))
    table = Table.of({"": None, f"{asked.devices} devices": None}, [[name, f"{figures[name]:.4g}"] for name in figures])
    print(table.console())
    write_result(asked.json, MODULE, vars(asked), figures, {"clusters": table})


if __name__ == "__main__":
    main()
