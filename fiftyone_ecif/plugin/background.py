"""Work that is done in a thread of its own, while a generator operator passes its progress on to the App."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.plugin.forms import notice
from fiftyone_ecif.plugin.jobs import JobRecord

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 0.3
SECONDS_BETWEEN_DELEGATED_UPDATES = 3.0  # each is a write to the database

Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]


class Cancelled(Exception):
    """Raised inside the work when it was cancelled."""


class BackgroundJob(Generic[Result]):
    """A function that runs in a thread and reports its progress.

    Args:
        work: takes ``progress(step, done, total)`` as its only argument; calling it raises :class:`Cancelled` once
            the job is cancelled
        is_cancelled: asked with every update
    """

    def __init__(self, work: Callable[[Progress], Result], is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self._latest: tuple[str, int, int] | None = None
        self._is_cancelled, self._cancelled = is_cancelled, threading.Event()
        executor = ThreadPoolExecutor(1, thread_name_prefix="ecif")
        self._future = executor.submit(work, self._report)
        executor.shutdown(wait=False)

    def _report(self, step: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        self._latest = (step, done, total)

    def updates(self, interval: float) -> Iterator[tuple[str, int, int]]:
        """The latest progress whenever it changed, until the work ends.

        Leaving the loop early, as the App does when its page is closed, cancels the work.

        Args:
            interval: seconds between two looks at the progress

        Yields:
            (step, done, total)
        """
        shown = None
        try:
            while not self._future.done():
                wait([self._future], timeout=interval)
                if self._is_cancelled():
                    self._cancelled.set()
                if self._latest is not None and self._latest != shown:
                    shown = self._latest
                    yield shown
        finally:
            self._cancelled.set()

    def result(self) -> Result:
        """What the work returned; raises what the work raised."""
        return self._future.result()


def in_background(
    ctx: foo.ExecutionContext, title: str, work: Callable[[Progress], Result]
) -> Generator[Any, None, Result | None]:
    """Do the work in a thread, and tell the App how far it is; the panel and an operator can cancel it.

    Args:
        ctx: of the operator
        title: what the work is, for the list of running jobs
        work: as for :class:`BackgroundJob`

    Yields:
        messages to the App

    Returns:
        what ``work`` returned; None if it failed or was cancelled, which the App then says. If no App is there to say
        it, the error itself is raised.
    """
    record = JobRecord(ctx.store, title)
    job = BackgroundJob(work, record.is_cancelled)
    interval = SECONDS_BETWEEN_DELEGATED_UPDATES if ctx.delegated else SECONDS_BETWEEN_UPDATES
    try:
        for step, done, total in job.updates(interval):
            label, fraction = f"{step}: {done:,} of {total:,}", done / max(total, 1)
            record.update(label, fraction)
            if ctx.delegated:
                ctx.set_progress(progress=fraction, label=label)
            else:
                yield ctx.ops.set_progress(progress=fraction, label=label)
        return job.result()
    except Exception as error:
        if ctx.delegated or ctx.spaces is None:  # no App is there to show it: the caller gets the error itself
            raise
        yield from _say_why(ctx, title, error)
        return None
    finally:
        record.end()


def _say_why(ctx: foo.ExecutionContext, title: str, error: Exception) -> Iterator[Any]:
    """Show an error's own words in place of the progress. A stream that breaks off would show nothing."""
    outputs = types.Object()
    if isinstance(error, Cancelled):
        notice(outputs, "reason", types.Notice, "Cancelled.", "Nothing was changed.")
        yield show_output(ctx, outputs)
        yield ctx.ops.notify(f"ECIF: {title} was cancelled", variant="info")
        return
    logger.error("%s failed", title, exc_info=error)
    notice(outputs, "reason", types.Error, str(error) or repr(error), "Nothing was changed.")
    yield show_output(ctx, outputs)
    yield ctx.ops.notify(f"ECIF: {title} failed", variant="error")


def show_output(ctx: foo.ExecutionContext, outputs: types.Object, values: dict[str, Any] | None = None) -> Any:
    """Show outputs in the dialog that showed the progress."""
    return ctx.ops.show_output(types.Property(outputs).to_json(), values or {})
