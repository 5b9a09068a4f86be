"""The engines by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from fiftyone_ecif.core import HERE, Workers

ENGINES = ("local", "ray")


def check_engine(engine: str) -> None:
    """Raise unless the engine can be used here; cheap.

    Raises:
        ValueError: if there is no such engine, or it is not installed
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}.")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError("engine='ray' needs Ray: pip install 'fiftyone-ecif[ray]', on every node.")


@contextmanager
def engine_workers(engine: str, num_workers: int | None = None, device: str | None = None) -> Iterator[Workers]:
    """The workers of an engine, for as long as the block lasts.

    Args:
        engine: "local" for this process, "ray" for a Ray cluster
        num_workers: of the cluster; None for all
        device: of the cluster's workers; None for GPUs where it has any

    Raises:
        ValueError: if the engine cannot be used here, or the cluster is too small
        RuntimeError: if the cluster is busy
    """
    check_engine(engine)
    if engine == "local":
        yield HERE
        return
    from fiftyone_ecif.engine.ray import RayWorkers

    with RayWorkers(num_workers, device) as workers:
        yield workers
