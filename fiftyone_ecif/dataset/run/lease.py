"""Rights that one job at a time holds: to write to a dataset, and to compute a run of some key.

A right is a document in the database with an owner and an expiry by the server's clock. Its owner renews it while it
works. The right of a job that was killed is free when it expires, or at once where it can be seen that the process is
gone.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, DuplicateKeyError, PyMongoError

from fiftyone_ecif.dataset.run.database import database

LASTS = 60.0
"""Seconds after which a right that is not renewed is free."""

RENEWED = 15.0
"""Seconds between renewals."""

LONGEST_WAIT = 1800.0
"""Seconds that a job waits for another one to end its writing. Writing a million samples takes a few minutes."""

LONGEST_PAUSE = 1.0
"""Seconds between two attempts, at most."""


class Busy(ValueError):
    """Another job holds the right; the message says which."""


class Lost(Busy):
    """Another job has taken this one's place."""


class Lease:
    """A right that this job holds.

    Args:
        name: of the right; the same for everybody who competes for it
    """

    def __init__(self, name: str) -> None:
        self.name, self.owner = name, uuid.uuid4().hex
        self._lost, self._ended = False, threading.Event()
        self._renewal = threading.Thread(target=self._renew, name=f"ecif-lease-{name}", daemon=True)

    def acquire(self) -> dict[str, Any] | None:
        """Take the right if it is free; returns None, or the document of the one that holds it."""
        held = self._attempt([])
        if held["owner"] != self.owner and _is_dead(held["holder"]):
            held = self._attempt([held["owner"]])
        if held["owner"] != self.owner:
            return held
        self._renewal.start()
        return None

    def _attempt(self, dead: list[str]) -> dict[str, Any]:
        """Take the right if it has expired or belongs to one of the dead; returns its document after that."""
        expired = {"$lte": [{"$ifNull": ["$expires", datetime(1970, 1, 1)]}, "$$NOW"]}
        free = {"$or": [expired, {"$in": ["$owner", dead]}]}
        ours = {"_id": self.name, "owner": self.owner, "holder": {"$literal": _this_process()}}
        ours |= {"since": "$$NOW", "expires": _expiry()}
        update = [{"$replaceWith": {"$cond": [free, ours, "$$ROOT"]}}]
        while True:
            with suppress(DuplicateKeyError):  # somebody else made the document in the same moment
                return leases().find_one_and_update(
                    {"_id": self.name}, update, upsert=True, return_document=ReturnDocument.AFTER
                )

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            # While the database is away nobody else can take the right either.
            with suppress(PyMongoError):
                mine = {"_id": self.name, "owner": self.owner}
                if not leases().update_one(mine, [{"$set": {"expires": _expiry()}}]).matched_count:
                    self._lost = True
                    return

    def check(self) -> None:
        """Raise :class:`Lost` if the right has passed to somebody else, after a standstill of this process."""
        if self._lost or not leases().find_one({"_id": self.name, "owner": self.owner}, {"_id": 1}):
            raise Lost("This process stood still for so long that another one took its place: call again.")

    def release(self) -> None:
        """Give the right back; where the database does not answer it expires by itself."""
        self._ended.set()
        leases().delete_one({"_id": self.name, "owner": self.owner})


@contextmanager
def held(name: str, refusal: str, wait: float) -> Iterator[Lease]:
    """Hold a right while the block runs.

    Args:
        name: of the right
        refusal: what to say where another job keeps it; the job is named after that
        wait: seconds to wait for it; 0 to be refused at once

    Yields:
        the right

    Raises:
        Busy: if another job keeps it
    """
    lease, pause, deadline = Lease(name), 0.02, time.monotonic() + wait
    while (other := lease.acquire()) is not None:
        if time.monotonic() >= deadline:
            raise Busy(f"{refusal} {_described(other)}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    try:
        yield lease
    except (ConnectionFailure, ConnectionError):
        lease._ended.set()  # a release would wait for the database once more
        raise
    finally:
        if not lease._ended.is_set():
            lease.release()


def leases() -> Collection:
    """The collection of the rights that are held."""
    return database()["ecif.leases"]


def is_free(document: dict[str, Any]) -> bool:
    """Whether a right that is on record can be taken: it has expired by the server's clock, or its process is gone."""
    expired = {"_id": document["_id"], "owner": document["owner"], "$expr": {"$lte": ["$expires", "$$NOW"]}}
    return _is_dead(document["holder"]) or leases().find_one(expired, {"_id": 1}) is not None


def _expiry() -> dict[str, Any]:
    return {"$add": ["$$NOW", int(1000 * LASTS)]}


def _described(document: dict[str, Any]) -> str:
    holder = document["holder"]
    return (
        f"It is process {holder['pid']} on {holder['host']}, since {document['since']:%Y-%m-%d %H:%M:%S} UTC. "
        f"If that process is dead, its place is free within {LASTS:.0f} seconds."
    )


def _this_process() -> dict[str, Any]:
    """What tells this process from any other, ``machine`` and ``started`` being None where the system does not say."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": _machine(), "started": _started(pid)}


def _machine() -> str | None:
    """The boot and the process namespace, within which a process id means one process; None off Linux."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the kernel's ticks; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a process is gone for certain; one of another machine never is."""
    if holder["machine"] is None or holder["machine"] != _machine():
        return False
    return _started(holder["pid"]) != holder["started"]
