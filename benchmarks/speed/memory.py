"""Peak memory of a score pass, measured in a process of its own (Linux's /proc).

Run it with ``python -m benchmarks.speed.memory --help`` for as many pairs as there is disk for: 4 KB each at
512 numbers.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table
from benchmarks.speed.made_up_store import fitting_head, open_made_up_store, write_made_up_store
from fiftyone_ecif.core import LOSSES, Objective, influence, partitions

MODULE = "benchmarks.speed.memory"
GIB = 2**30

EVERY = 0.02
"""Seconds between two looks at the anonymous memory: the kernel keeps a peak of the resident memory alone."""


class Memory(NamedTuple):
    """Bytes: resident memory holds pages of mapped files, anonymous memory does not.

    Attributes:
        interpreter: resident with everything imported and nothing opened
        peak: largest resident memory
        interpreter_anonymous: anonymous with everything imported
        anonymous: largest anonymous memory
    """

    interpreter: int
    peak: int
    interpreter_anonymous: int
    anonymous: int


def peak_memory(folder: Path, pairs: int, dim: int, feature_dim: int, batch: int) -> Memory:
    """Open a made-up store and score its first N pairs in one round, in a child process.

    Args:
        folder: of the store
        pairs: N
        dim: D
        feature_dim: F
        batch: B

    Returns:
        :class:`Memory`
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_score, args=(sender, folder, pairs, dim, feature_dim, batch))
    child.start()
    sender.close()
    try:
        return Memory(*receiver.recv())
    finally:
        child.join()


@dataclass(frozen=True)
class MemoryOfScores:
    """Write a store of made-up pairs, score them all once, and measure the memory that it takes.

    Args:
        pairs: N; a pair takes 4 KB of disk at 512 numbers
        dim: dimension of the shared space
        feature_dim: dimension of the features of either tower
        batch: B
        json: the result is written to this file
    """

    pairs: int = 1_000_000
    dim: int = 512
    feature_dim: int = 512
    batch: int = 256
    json: Path | None = None


def main() -> None:
    """Measure, print, write."""
    asked = ask(MemoryOfScores, MODULE)
    with tempfile.TemporaryDirectory() as name:
        write_made_up_store(Path(name), asked.pairs, asked.feature_dim)
        started = time.perf_counter()
        memory = peak_memory(Path(name), asked.pairs, asked.dim, asked.feature_dim, asked.batch)
        seconds = time.perf_counter() - started
    table = memory_table(memory)
    print(f"seconds of opening the store and scoring: {seconds:.1f}\n{table.console()}")
    write_result(asked.json, MODULE, vars(asked), {"seconds": seconds, **memory._asdict()}, {"memory": table})


def memory_table(memory: Memory) -> Table:
    """GiB before the store is opened, at most, and the difference."""
    kinds = {
        "resident": (memory.interpreter, memory.peak),
        "anonymous": (memory.interpreter_anonymous, memory.anonymous),
    }
    return Table.of(
        {"GiB": None, "before": 3, "at most": 3, "above": 3},
        [[kind, low / GIB, high / GIB, (high - low) / GIB] for kind, (low, high) in kinds.items()],
    )


def _score(sender: Connection, folder: Path, pairs: int, dim: int, feature_dim: int, batch: int) -> None:
    torch.ones(64, 64) @ torch.ones(64, 64)  # the libraries' own buffers
    interpreter, interpreter_anonymous = _status("VmRSS"), _status("RssAnon")
    largest, done = [interpreter_anonymous], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            largest[0] = max(largest[0], _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    head = fitting_head(dim, feature_dim)
    opened = open_made_up_store(folder, pairs, feature_dim)
    objective = Objective(opened, partitions(pairs, batch, 1, 0), LOSSES["clip"])
    influence(objective, head, torch.randn(1, head.size))
    done.set()
    watcher.join()
    sender.send((interpreter, _status("VmHWM"), interpreter_anonymous, largest[0]))


def _status(name: str) -> int:
    """One of the sizes in this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


if __name__ == "__main__":
    main()
