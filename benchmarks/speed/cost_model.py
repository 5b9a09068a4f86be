"""What a run costs, by arithmetic over measured epochs: seconds, memory, disk and dollars (docs/scale.md).

Run it with ``python -m benchmarks.speed.cost_model --help``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

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


def main() -> None:
    """Print one machine's estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=float, default=1e9)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--dims", type=int, nargs=3, default=(512, 768, 512), help="D, F_image, F_text")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--tower-flop", type=float, default=400e12, help="per second and device")
    parser.add_argument("--product-flop", type=float, default=40e12, help="per second and device")
    parser.add_argument("--read-bytes", type=float, default=2e9, help="per second and device")
    parser.add_argument("--dollars", type=float, default=2.5, help="per hour and device")
    asked = parser.parse_args()
    machine = Machine(asked.devices, asked.tower_flop, asked.product_flop, asked.read_bytes, asked.dollars)
    cost = run_cost(int(asked.pairs), asked.model, tuple(asked.dims), asked.batch, machine)
    for name, value in vars(cost).items():
        print(f"{name:<20}{value:.4g}")


if __name__ == "__main__":
    main()
