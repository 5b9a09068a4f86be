"""Two workers of a Ray cluster on this machine beside this process with as many threads.

On a machine that others use, run it with ``OMP_WAIT_POLICY=PASSIVE``: else threads that wait for one another spin.
"""

from __future__ import annotations

import os
import time

import psutil
import torch

from benchmarks.report.measured import Measured
from fiftyone_ecif.core import HERE, LOSSES, Head, Objective, Pairs, Progress, partitions
from fiftyone_ecif.engine import engine_workers

WORKERS = 2


def cluster_figures(pairs: Pairs, head: Head, batch: int, seed: int, repeats: int) -> dict[str, float]:
    """``ray_ratio``: a Gauss-Newton pass's seconds here over those on the workers, and the same of processor seconds.

    Args:
        pairs: a pass goes over them once
        head: at θ
        batch: B
        seed: of the partition
        repeats: of both

    Returns:
        the figures by name
    """
    direction = torch.randn(1, head.size, generator=torch.Generator().manual_seed(seed))
    rounds = partitions(len(pairs), batch, 1, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(min(WORKERS, os.cpu_count() or 1))
    try:
        with engine_workers("ray", WORKERS, "cpu") as workers:
            processes = [psutil.Process(number) for number in workers.map(_process, range(WORKERS))]

            def processor() -> float:
                spent = [process.cpu_times() for process in processes]
                return time.process_time() + sum(times.user + times.system for times in spent)

            here, there = (Objective(pairs, rounds, LOSSES["clip"], workers=where) for where in (HERE, workers))
            timed = Measured(
                {
                    "here": lambda: here.gauss_newton_product(head, direction),
                    "there": lambda: there.gauss_newton_product(head, direction),
                },
                repeats,
                processor=processor,
            )
    finally:
        torch.set_num_threads(threads)
    return timed.ratio("ray_ratio", "here", "there")


def _process(part: int, progress: Progress) -> int:
    return os.getpid()
