"""A shard: the features of some pairs in one safetensors file, which is read row by row."""

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

    Rows are read and not memory-mapped. A page of a mapping counts as this process's memory until the system takes it
    back, so that a pass over all shards would seem to hold them all.

    Args:
        path: path of the file

    Attributes:
        rows: how many it holds
        names: of its tensors

    Raises:
        OSError: if the file cannot be opened
        SafetensorError: if the file is cut short or is not a safetensors file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt"):  # checks the header against the file's length
            pass
        with open(path, "rb") as file:  # the format: 8 bytes of length, JSON of that length, the tensors
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        self.rows: int = header["keys"]["shape"][0]
        self._starts = {
            name: 8 + length + about["data_offsets"][0] for name, about in header.items() if name != "__metadata__"
        }
        self.names = self._starts.keys()

    def read(self, rows: Sequence[int], at: Sequence[int], **matrices: Tensor) -> None:
        """Copy rows of the file's matrices into rows of other matrices.

        Args:
            rows: rows in the file
            at: as many rows of ``matrices``
            matrices: by their names in the file, (..., F), of the file's dtype and width, on the CPU

        Raises:
            OSError: if the file no longer exists or was cut short
        """
        with open(self.path, "rb", buffering=0) as file:
            for name, matrix in matrices.items():
                lines, start = matrix.numpy(), self._starts[name]
                width = lines.strides[0]
                for row, place in zip(rows, at, strict=True):
                    if _read_at(file, start + row * width, lines[place].data) != width:
                        raise OSError("it was cut short")

    def whole(self, name: str) -> Tensor:
        """The tensor of that name."""
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


def _read_at(file: FileIO, start: int, into: memoryview) -> int:
    """Fill a buffer from a position in a file; returns the number of bytes read."""
    if hasattr(os, "preadv"):  # one system call in place of two
        return os.preadv(file.fileno(), [into], start)
    file.seek(start)
    return file.readinto(into)
