"""Peak memory of a score pass, measured in a process of its own (Linux's /proc).

Run it with ``python -m benchmarks.speed.memory --help`` for as many pairs as there is disk for: 4 KB each at
512 numbers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

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


def main() -> None:
    """Write a store of so many pairs, score them all once, and print the memory that it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="N")
    parser.add_argument("--dim", type=int, default=512, help="of the shared space")
    parser.add_argument("--feature-dim", type=int, default=512, help="of the features of either tower")
    parser.add_argument("--batch", type=int, default=256, help="B")
    asked = parser.parse_args()
    from benchmarks.speed.made_up_store import write_made_up_store

    with tempfile.TemporaryDirectory() as name:
        write_made_up_store(Path(name), asked.pairs, asked.feature_dim)
        started = time.perf_counter()
        memory = peak_memory(Path(name), asked.pairs, asked.dim, asked.feature_dim, asked.batch)
    print(f"seconds of opening the store and scoring {time.perf_counter() - started:.1f}")
    for kind, low, high in (
        ("resident", memory.interpreter, memory.peak),
        ("anonymous", memory.interpreter_anonymous, memory.anonymous),
    ):
        print(f"{kind} GiB: {low / 2**30:.3f} before, {high / 2**30:.3f} at most, {(high - low) / 2**30:.3f} above")


def _score(sender: Connection, folder: Path, pairs: int, dim: int, feature_dim: int, batch: int) -> None:
    import torch

    from benchmarks.speed.made_up_store import fitting_head, open_made_up_store
    from fiftyone_ecif.core import LOSSES, Objective, influence, partitions

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
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


if __name__ == "__main__":
    main()
