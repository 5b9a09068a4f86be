"""Workers on a Ray cluster: what all parts need is sent once, and a part whose worker died is computed again."""

from __future__ import annotations

import io
import socket
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from torch import nn

from fiftyone_ecif.core import Objective, Progress, silent
from fiftyone_ecif.engine.ray_worker import Parcel, Pickler, Worker, unpack
from fiftyone_ecif.features import ArrayPairs, RawPairs, StoredPairs
from fiftyone_ecif.models import ContrastiveModel

KEPT = (Objective, StoredPairs, ArrayPairs, RawPairs, ContrastiveModel, nn.Module)
"""Classes of objects that are large and never change: workers receive each once and keep it."""

RETRIES = 3
"""How often a part is computed again if its worker died."""

AHEAD = 2
"""Parts per worker that may be finished before they are asked for."""

PATIENCE = 120
"""Seconds that workers may take to start."""

HEARTBEAT = 5.0
"""Seconds between two checks that the head of the cluster still answers."""


class RayWorkers:
    """Worker processes on a Ray cluster; a :class:`~fiftyone_ecif.core.Workers` and a context manager.

    The cluster is the one that this process is connected to, else the one that ``RAY_ADDRESS`` names, else one that Ray
    starts on this machine. Every node needs this package, and the images and the feature store under the same paths.

    Args:
        count: workers, each with a GPU or a CPU core of its own; None for all that are free
        device: "cuda" or "cpu"; None for GPUs where the cluster has any

    Raises:
        ValueError: if the cluster does not have that many GPUs or cores
        RuntimeError: if it has them, but is busy
    """

    def __init__(self, count: int | None = None, device: str | None = None) -> None:
        self.connected_here = not ray.is_initialized()
        if self.connected_here:
            ray.init(log_to_driver=False)
        resources = ray.cluster_resources()
        kind = "CPU" if device == "cpu" or (device is None and not resources.get("GPU")) else "GPU"
        room = int(resources.get(kind, 0))
        self.count = int(ray.available_resources().get(kind, 0)) if count is None else count
        if not 1 <= self.count <= room:
            self.__exit__()
            raise ValueError(
                f"The Ray cluster has {room} {kind}s, which are not enough or not free for {count or 'any'} workers: "
                "pass a smaller num_workers or another device, or wait for it."
            )
        self.head = ray.get_runtime_context().gcs_address
        self.last_answer = time.monotonic()
        options = dict(num_gpus=1) if kind == "GPU" else dict(num_cpus=1)
        worker = Worker.options(  # type: ignore[attr-defined]
            **options, max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        self.workers = [worker.remote("cuda" if kind == "GPU" else "cpu") for _ in range(self.count)]
        self._kept: dict[int, Any] = {}
        started, _ = ray.wait(
            [worker.__ray_ready__.remote() for worker in self.workers], num_returns=self.count, timeout=PATIENCE
        )
        if len(started) < self.count:
            self.__exit__()
            raise RuntimeError(
                f"Only {len(started)} of {self.count} workers started within {PATIENCE} s: the Ray cluster is busy. "
                "Wait for it, or pass a smaller num_workers."
            )

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        if not ray.is_initialized():  # the head was lost
            return
        for worker in getattr(self, "workers", []):
            ray.kill(worker)
        if self.connected_here:
            ray.shutdown()

    def map(
        self, function: Callable, parts: Sequence, *shared: Any, step: str = "", progress: Progress = silent
    ) -> Iterator[Any]:
        """See :class:`~fiftyone_ecif.core.Workers`.

        Raises:
            RuntimeError: if the head of the cluster is lost, or a worker dies again and again
        """
        task = ray.put(self._pack((function, shared)))
        idle, running = deque(self.workers), {}
        results: list[Any] = []
        given = 0
        while given < len(parts):
            while idle and len(results) < min(len(parts), given + AHEAD * self.count):
                worker = idle.popleft()
                result = worker.run.remote(task, self._pack(parts[len(results)]))
                running[result] = worker
                results.append(result)
            finished, _ = ray.wait(list(running), timeout=1.0)
            idle.extend(running.pop(result) for result in finished)
            self._check_head()
            progress(step, len(results) - len(running), len(parts))
            while given < len(results) and results[given] not in running:
                yield self._result(results[given])
                results[given] = None  # lets the cluster forget it
                given += 1

    def _result(self, reference: Any) -> Any:
        try:
            return unpack((ray.get(reference), {}), "cpu")
        except RayTaskError as error:
            raise error.cause from error  # the error of the worker, as if it had happened here
        except RayActorError as error:
            raise RuntimeError(
                f"A worker of the Ray cluster died {RETRIES + 1} times over the same part of the work, perhaps for "
                "want of memory: give it more, or use a smaller batch_size. Finished feature shards are kept."
            ) from error
        except RayError as error:
            raise RuntimeError(
                f"The Ray cluster lost a part of the work ({error}). Finished feature shards are kept: run it again."
            ) from error

    def _check_head(self) -> None:
        """Raise if the head is lost: Ray itself would wait for it and, after a minute, end this process."""
        if time.monotonic() - self.last_answer < HEARTBEAT:
            return
        host, _, port = self.head.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=HEARTBEAT).close()
        except OSError as error:
            ray.shutdown()
            raise RuntimeError(
                f"The head of the Ray cluster ({self.head}) does not answer any more. Finished feature shards are "
                "kept: start the cluster again and run the same call; it goes on from there."
            ) from error
        self.last_answer = time.monotonic()

    def _pack(self, value: Any) -> Parcel:
        """A value in the form that it is sent in, with references in place of the kept objects in it."""
        references: dict[str, Any] = {}

        def reference(kept: Any) -> str:
            if id(kept) not in self._kept:
                self._kept[id(kept)] = ray.put(self._pack(kept))
                weakref.finalize(kept, self._kept.pop, id(kept), None)
            found = self._kept[id(kept)]
            references[found.hex()] = found
            return found.hex()

        file = io.BytesIO()
        Pickler(file, value, KEPT, reference).dump(value)
        return file.getvalue(), references
