"""Who may write: one job at a time to a dataset, and one job at a time under a run key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import fiftyone as fo
from bson import ObjectId

from fiftyone_ecif.dataset.fields import ScoreField
from fiftyone_ecif.dataset.run import lease as leases
from fiftyone_ecif.dataset.run.database import database, plain_errors
from fiftyone_ecif.dataset.run.journal import Change, make, settle, unfinished
from fiftyone_ecif.dataset.run.lease import Busy, Lease, held
from fiftyone_ecif.dataset.run.reload import read_anew


@contextmanager
def writing(dataset: fo.Dataset) -> Iterator[Lease]:
    """Be the only job that changes the runs and the fields of a dataset, on its state as the database has it now.

    What a crash left half done is completed or undone first; other jobs' writing is waited for.

    Args:
        dataset: the dataset

    Yields:
        the right to write

    Raises:
        Busy: if another job writes for very long
        ConnectionError: if the database stops answering
    """
    refusal = f"Another job has been writing to dataset {dataset.name!r} for very long."
    with plain_errors("while a run was written"), held(lock_of(dataset._doc.id), refusal, leases.LONGEST_WAIT) as lease:
        if (change := unfinished(dataset._doc.id)) is not None:
            settle(change, lease)
        read_anew(dataset)
        yield lease


@contextmanager
def claimed(dataset: fo.Dataset, run_key: str) -> Iterator[None]:
    """Be the only job that computes a run of this key on a dataset.

    Args:
        dataset: the dataset
        run_key: the run's key

    Raises:
        Busy: if another job computes it
        ConnectionError: if the database stops answering
    """
    refusal = (
        f"Run {run_key!r} of dataset {dataset.name!r} is being computed by another job: wait for it, or choose another "
        "run key."
    )
    with plain_errors("while a run was computed"), held(f"run {dataset._doc.id} {run_key}", refusal, wait=0):
        up_to_date(dataset)
        yield


def up_to_date(dataset: fo.Dataset) -> None:
    """Complete or undo what a crash left half done, and see which runs other processes wrote, renamed or deleted.

    Args:
        dataset: the dataset
    """
    with plain_errors("while runs were listed"):
        if unfinished(dataset._doc.id) is not None:
            with suppress(Busy):  # not a crash, then, but a job at work
                recover(dataset._doc.id)
        found = database().datasets.find_one({"_id": dataset._doc.id}, {"runs": 1})
        known = {key: getattr(run, "id", None) for key, run in dataset._doc.runs.items()}
        if found is not None and found.get("runs", {}) != known:
            read_anew(dataset)


def change_runs(dataset: fo.Dataset, change: Change, lease: Lease, prepare: Callable[[], None] = lambda: None) -> None:
    """Make a change, and let the dataset and the samples in memory know it.

    Args:
        dataset: the dataset
        change: the change
        lease: by :func:`writing`
        prepare: as in :func:`~fiftyone_ecif.dataset.run.journal.make`

    Raises:
        ValueError: if it cannot be made
    """
    make(change, lease, prepare)
    for key in change.before:
        dataset._run_cache.pop(key, None)
    fo.Sample._purge_fields(dataset._sample_collection_name, [*change.removed, *change.renamed])
    read_anew(dataset)


def declare(dataset: fo.Dataset, run_key: str, fields: Sequence[ScoreField], tensors: str | None) -> None:
    """Declare those of a run's fields that are not there yet, with their indexes.

    Args:
        dataset: the dataset
        run_key: the run's key
        fields: the fields
        tensors: name of the run's tensors, by which the fields are known as its own; None for a run of another dataset

    Raises:
        Busy: if another job writes for very long
    """
    with writing(dataset):
        for each in fields:
            if not dataset.has_sample_field(each.name(run_key)):
                each.add_to(dataset, run_key, tensors)
                each.index(dataset, run_key)


def record_of(dataset: fo.Dataset, run_key: str) -> dict[str, Any]:
    """A run's record, as the database has it; raises a ValueError if it is gone."""
    record = database().runs.find_one({"_id": dataset._doc.runs[run_key].id})
    if record is None:
        raise ValueError(f"Run {run_key!r} has lost its record: delete it with dataset.delete_run({run_key!r}).")
    return record


def recover(dataset_id: ObjectId) -> bool:
    """Complete or undo a change that was begun by a job that is dead; returns whether there was one.

    Raises:
        Busy: if the job lives
    """
    with held(lock_of(dataset_id), "It is being made.", wait=0) as lease:
        change = unfinished(dataset_id)
        if change is not None:
            settle(change, lease)
    return change is not None


def lock_of(dataset_id: ObjectId) -> str:
    """The name of the right to write to a dataset."""
    return f"writing {dataset_id}"
