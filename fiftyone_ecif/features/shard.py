"""A shard: some pairs' features in one safetensors file, read row by row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


class Shard:
    """The rows of one file.

    Rows are read and not memory-mapped: a page that was looked at in a mapping counts as this process's memory until
    the system wants it back, so that a pass over all shards would seem to hold them all.

    Args:
        path: of the file

    Raises:
        OSError: if it cannot be opened
        SafetensorError: if it is cut short or no such file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt"):  # checks the header against the file's length
            pass
        with open(path, "rb") as file:  # the format: 8 bytes of length, JSON of that length, the tensors
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        self._starts = {
            name: 8 + length + about["data_offsets"][0] for name, about in header.items() if name != "__metadata__"
        }

    def read(self, rows: Sequence[int], at: Sequence[int], **halves: Tensor) -> None:
        """Copy rows of its matrices into rows of others.

        Args:
            rows: in the file
            at: rows of ``halves``, as many
            halves: by the matrices' names, (..., F) of the file's dtype and width, on the CPU

        Raises:
            OSError: if the file is gone or was cut short
        """
        with open(self.path, "rb", buffering=0) as file:
            for name, half in halves.items():
                lines, start = half.numpy(), self._starts[name]
                width = lines.strides[0]
                for row, place in zip(rows, at, strict=True):
                    if _read_at(file, start + row * width, lines[place].data) != width:
                        raise OSError("it was cut short")

    def whole(self, name: str) -> Tensor:
        """One of its tensors."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name)


def _read_at(file: FileIO, start: int, into: memoryview) -> int:
    """Fill a buffer from a place in a file; the bytes read."""
    if hasattr(os, "preadv"):  # one call of the system in place of two
        return os.preadv(file.fileno(), [into], start)
    file.seek(start)
    return file.readinto(into)
