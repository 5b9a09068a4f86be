"""The jobs that are running on a dataset, each a note in FiftyOne's store, which every page, panel and worker sees.

FiftyOne's operators cannot be told to stop. A job therefore checks with every update whether somebody left a note that
cancels it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators.store import ExecutionStore

STORE = "ecif_jobs"
NOTED: dict[str, Any] = {"title": str, "label": str, "progress": (int, float)}
"""What a job's note says, and as what."""

SECONDS_TO_LIVE = 600
"""The time after which the note of a job that was killed vanishes."""


@dataclass(frozen=True)
class RunningJob:
    """A running job as it last reported.

    Attributes:
        id: what to cancel it by
        title: what it does
        label: the step that it is at
        progress: the share of that step that is done, 0 to 1
    """

    id: str
    title: str
    label: str
    progress: float


class JobRecord:
    """A job's note.

    Args:
        open_store: ``ctx.store``
        title: what the job does
    """

    def __init__(self, open_store: Callable[[str], ExecutionStore], title: str) -> None:
        self._store, self.id, self.title = open_store(STORE), uuid.uuid4().hex, title
        self.update("Starting", 0.0)

    def update(self, label: str, progress: float) -> None:
        """Note the step that the job is at."""
        note = {"title": self.title, "label": label, "progress": progress}
        self._store.set(f"job:{self.id}", note, ttl=SECONDS_TO_LIVE)

    def is_cancelled(self) -> bool:
        """Whether somebody asked for the job to stop."""
        return self._store.has(f"cancel:{self.id}")

    def end(self) -> None:
        """Remove the note."""
        self._store.delete(f"job:{self.id}")
        self._store.delete(f"cancel:{self.id}")


def running_jobs(ctx: foo.ExecutionContext) -> list[RunningJob]:
    """The jobs that are running on the dataset at the moment, here or in a worker."""
    store = ctx.store(STORE)
    ids = [key.partition(":")[2] for key in store.list_keys() if key.startswith("job:")]
    notes = {id: store.get(f"job:{id}") for id in ids}
    return [RunningJob(id, **note) for id, note in notes.items() if _is_note(note)]


def _is_note(value: Any) -> bool:
    """Whether something in the store is a job's note: others can write there too."""
    if not isinstance(value, dict) or value.keys() != NOTED.keys():
        return False
    return all(isinstance(value[name], kind) for name, kind in NOTED.items())


def cancel_job(ctx: foo.ExecutionContext, id: str | None) -> None:
    """Ask a job to stop. It does so at its next step, and leaves the dataset as it was.

    Args:
        ctx: of an operator or the panel
        id: of the job; None: the first

    Raises:
        ValueError: if no such job is running
    """
    running = [job.id for job in running_jobs(ctx)]
    if not running:
        raise ValueError("No job is running on this dataset.")
    id = running[0] if id is None else id
    if id not in running:
        raise ValueError("This job is not running any more.")
    ctx.store(STORE).set(f"cancel:{id}", True, ttl=SECONDS_TO_LIVE)
