"""The engines by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fiftyone_ecif.core import HERE, Workers

ENGINES = ("local", "ray")


@contextmanager
def engine_workers(engine: str, num_workers: int | None = None, device: str | None = None) -> Iterator[Workers]:
    """The workers of an engine, for as long as the block lasts.

    Args:
        engine: "local" for this process, "ray" for a Ray cluster
        num_workers: of the cluster; None for all
        device: of the cluster's workers; None for GPUs where it has any

    Raises:
        ValueError: if there is no such engine, or the cluster is too small
        ImportError: if Ray is asked for and not installed
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}.")
    if engine == "local":
        yield HERE
        return
    try:
        from fiftyone_ecif.engine.ray import RayWorkers
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'fiftyone-ecif[ray]', on every node.") from error
    with RayWorkers(num_workers, device) as workers:
        yield workers
