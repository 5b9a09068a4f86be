"""What a process that works for long keeps: memory, open files, threads and connections after many runs and traces.

Run it with ``python -m benchmarks.speed.growth --help``. Each kind of work is repeated, and what the process holds is
looked at after the first repetitions and at the end. Beside a run's growth stands that of FiftyOne's own writing of the
same fields, without this package.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Cell, Table
from tests.conftest import own_fiftyone

MODULE = "benchmarks.speed.growth"
AT_ONCE = 10
"""Operators that are executed at the same moment."""
ASKED_AT_ONCE: tuple[tuple[str, dict[str, float]], ...] = (
    ("show_misaligned", {}),
    ("show_harmful", {}),
    ("tag_misaligned", {"threshold": 0.0}),
)
"""Which, in turn, with what they are told: of so few pairs none may reach the usual threshold."""
SECONDS_TO_SETTLE = 10.0
KINDS = {
    "bare": "FiftyOne's own writing of the same fields",
    "run": "a run that replaces the last one",
    "trace": "a trace, kept with its run",
    "operators": f"{AT_ONCE} operators at the same moment",
}
"""What a table calls each kind of work."""


class Held(NamedTuple):
    """What this process holds.

    Attributes:
        memory: resident, in bytes, after the interpreter and the allocator have given back what they can
        files: open handles, sockets included
        threads: their number
        connections: of the database server, those of other processes included
    """

    memory: int
    files: int
    threads: int
    connections: int


def held() -> Held:
    """What this process holds, once threads that are ending have ended (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    last, deadline = _counts(), time.monotonic() + SECONDS_TO_SETTLE
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := _counts()) == last:
            break
        last = now
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(pages * os.sysconf("SC_PAGE_SIZE"), *last)


def _counts() -> tuple[int, int, int]:
    from fiftyone_ecif.dataset.run.database import database

    connections = database().command("serverStatus")["connections"]["current"]
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), connections


def repeated(work: Callable[[], object], first: int, times: int) -> tuple[Held, Held]:
    """Do some work many times; returns what is held after the first times, and at the end."""
    for _ in range(first):
        work()
    early = held()
    for _ in range(times - first):
        work()
    return early, held()


def dataset_with_vectors(pairs: int) -> Any:
    """Made-up samples without media, whose captions and embeddings agree; a tenth of them swapped."""
    import fiftyone as fo

    random = np.random.default_rng(0)
    shown = random.normal(size=(pairs, 16))
    said = shown + 0.3 * random.normal(size=shown.shape)
    swapped = np.arange(0, pairs, 10)
    said[swapped] = said[np.roll(swapped, 1)]
    dataset = fo.Dataset()
    dataset.add_samples(
        [
            fo.Sample(filepath=f"/made-up/{row}.jpg", caption=f"caption {row}", shown=shown[row], said=said[row])
            for row in range(pairs)
        ],
        progress=False,
    )
    return dataset


class Work:
    """One repetition of each kind, by the names of :data:`KINDS`.

    Args:
        pairs: of the datasets
    """

    def __init__(self, pairs: int) -> None:
        import fiftyone_ecif as ecif

        self.ecif, self.dataset = ecif, dataset_with_vectors(pairs)
        self.run()
        self.results = ecif.load_results(self.dataset, "run")
        self.failing = ecif.find_failures(self.dataset, "run", progress=False).first().id

    def bare(self) -> None:
        """What a run writes, by FiftyOne's own functions."""
        from fiftyone_ecif.dataset.fields import SCORE_FIELDS

        for field in SCORE_FIELDS[:-1]:
            self.dataset.set_values(f"bare_{field.suffix}", [0.5] * len(self.dataset), progress=False)
        self.dataset.reload()

    def run(self) -> None:
        """Score all pairs again."""
        fields = dict(image_embeddings="shown", text_embeddings="said")
        self.ecif.compute_influence(
            self.dataset, "caption", run_key="run", overwrite=True, rounds=1, batch_size=50, progress=False, **fields
        )

    def trace(self) -> None:
        """Trace a sample that is answered wrong, by a run that is opened anew."""
        results = self.ecif.load_results(self.dataset, "run")
        results.trace(self.failing, k=10, progress=False)

    def operators(self) -> None:
        """Look at the run in threads that all begin at once."""
        import fiftyone.operators as foo

        begin = threading.Barrier(AT_ONCE)

        def execute(number: int) -> None:
            begin.wait()
            name, more = ASKED_AT_ONCE[number % len(ASKED_AT_ONCE)]
            params = {"run_key": "run", **more}
            foo.execute_operator(f"@ecif/ecif/{name}", {"dataset": self.dataset}, params=params).raise_exceptions()

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(execute, range(AT_ONCE)))


@dataclass(frozen=True)
class Growth:
    """Measure what a process keeps after many runs, traces and operators.

    Args:
        times: repetitions of each kind of work
        first: repetitions after which the process is looked at first
        pairs: of the dataset
        json: the result is written to this file
    """

    times: int = 100
    first: int = 20
    pairs: int = 100
    json: Path | None = None


def main() -> None:
    """Measure, print, write."""
    asked = ask(Growth, MODULE)
    own_fiftyone()
    found = measure(asked.pairs, asked.first, asked.times)
    table = growth_table(found)
    print(table.console())
    figures = {
        f"{kind}_{name}_{when}": value
        for kind, both in found.items()
        for when, looked in zip(("early", "late"), both, strict=True)
        for name, value in looked._asdict().items()
    }
    write_result(asked.json, MODULE, vars(asked), figures, {"growth": table})


def measure(pairs: int, first: int, times: int) -> dict[str, tuple[Held, Held]]:
    """What is held early and late, by kind of work, one kind after the other in this process."""
    import warnings

    warnings.simplefilter("ignore", UserWarning)
    work = Work(pairs)
    return {kind: repeated(getattr(work, kind), first, times) for kind in KINDS}


def growth_table(found: dict[str, tuple[Held, Held]]) -> Table:
    """Growth of each kind of work: memory in MiB and percent, and the other numbers before and after."""
    rows: list[list[Cell]] = []
    for kind, (early, late) in found.items():
        memory = late.memory - early.memory
        counts = [f"{a} → {b}" for a, b in zip(early[1:], late[1:], strict=True)]
        rows.append([KINDS[kind], early.memory / 2**20, memory / 2**20, f"{memory / early.memory:.1%}", *counts])
    columns = {"work": None, "memory, MiB": 0, "grown by": 1, "share": None}
    return Table.of(columns | dict.fromkeys(["open files", "threads", "connections"]), rows)


if __name__ == "__main__":
    main()
