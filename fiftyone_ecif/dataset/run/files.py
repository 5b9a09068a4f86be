"""Where what a run keeps on disk lies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fiftyone_ecif.cache import cache_folder


def is_name(name: object) -> bool:
    """Whether a run's tensors can be called so: nothing else in a run's record becomes a path."""
    return isinstance(name, str) and re.fullmatch(r"[0-9a-f]{32}", name) is not None


def tensor_path(name: object) -> Path:
    """The file of a run's tensors on this machine.

    Args:
        name: as the run's record has it, which may come from anywhere

    Raises:
        ValueError: unless it is 32 hexadecimal digits
    """
    if not is_name(name):
        raise ValueError(
            f"The record of this run names its tensors {name!r}, which is no name that this package gives: "
            "it does not become a path. Delete the run and compute it again."
        )
    return cache_folder("runs") / f"{name}.safetensors"


def trace_path(name: object) -> Path:
    """The folder of what a run's traces share, and of the traces themselves; raises as :func:`tensor_path`."""
    return tensor_path(name).with_suffix(".traces")


def delete_files(name: str) -> None:
    """Delete a run's tensors and traces from this machine."""
    path = tensor_path(name)
    for file in (path, path.with_suffix(".part")):
        file.unlink(missing_ok=True)
    shutil.rmtree(trace_path(name), ignore_errors=True)
