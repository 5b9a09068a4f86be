"""Work in a thread of its own, whose progress a generator operator hands on to the App meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]


class Cancelled(Exception):
    """Raised inside the work when nobody reads its progress any more."""


class BackgroundJob(Generic[Result]):
    """A function that runs in a thread and reports its progress.

    Args:
        work: takes ``progress(step, done, total)`` as its only argument; a call of it raises :class:`Cancelled` once
            the job is cancelled
    """

    def __init__(self, work: Callable[[Progress], Result]) -> None:
        self._latest: tuple[str, int, int] | None = None
        self._cancelled = threading.Event()
        executor = ThreadPoolExecutor(1, thread_name_prefix="ecif")
        self._future = executor.submit(work, self._report)
        executor.shutdown(wait=False)

    def _report(self, step: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        self._latest = (step, done, total)

    def updates(self, interval: float) -> Iterator[tuple[str, int, int]]:
        """The latest progress, every ``interval`` seconds where it changed, until the work ends.

        Leaving the loop early, as the App does when its page is closed, cancels the work.

        Args:
            interval: seconds between two looks

        Yields:
            (step, done, total)
        """
        shown = None
        try:
            while not self._future.done():
                wait([self._future], timeout=interval)
                if self._latest is not None and self._latest != shown:
                    shown = self._latest
                    yield shown
        finally:
            self._cancelled.set()

    def result(self) -> Result:
        """What the work returned; raises what the work raised."""
        return self._future.result()
