"""The engines by name, and their workers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

from fiftyone_ecif.core import HERE, Workers

ENGINES = ("local", "ray")

WORKER_DEVICE = r"cpu|cuda(:\d+)?"
"""Devices of the workers of a Ray cluster. An index has no effect: the cluster gives each worker a GPU of its own."""


def check_engine(engine: str, num_workers: int | None = None, device: str | None = None) -> None:
    """Raise unless the engine can be used here with these arguments; it takes no time and connects to nothing.

    Args:
        engine: as for :func:`engine_workers`
        num_workers: likewise
        device: likewise

    Raises:
        ValueError: if there is no such engine, it is not installed, or it has no such workers
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}.")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("engine='ray' needs Ray: pip install 'fiftyone-ecif[ray]', on every node.")
    if engine == "local":
        return
    if num_workers is not None and (not isinstance(num_workers, Integral) or num_workers < 1):
        raise ValueError(
            "With engine='ray', num_workers must be a whole number of at least 1, or None for all workers that the "
            f"cluster has room for, not {num_workers!r}."
        )
    if device is not None and not (isinstance(device, str) and re.fullmatch(WORKER_DEVICE, device)):
        raise ValueError(
            f"With engine='ray', device must be 'cpu' or 'cuda', or None for GPUs where the cluster has any, not "
            f"{device!r}."
        )


@contextmanager
def engine_workers(engine: str, num_workers: int | None = None, device: str | None = None) -> Iterator[Workers]:
    """The workers of an engine, for as long as the block lasts.

    Args:
        engine: "local" for this process, "ray" for a Ray cluster
        num_workers: workers of the cluster, at least 1; None for all that it has room for; not used by "local"
        device: of the workers of the cluster, "cpu" or "cuda"; None for GPUs where it has any; not used by "local"

    Raises:
        ValueError: if the engine cannot be used here with these arguments, or the cluster is too small
        RuntimeError: if the cluster is busy
    """
    check_engine(engine, num_workers, device)
    if engine == "local":
        yield HERE
        return
    from fiftyone_ecif.engine.ray import RayWorkers

    with RayWorkers(num_workers, device) as workers:
        yield workers
