"""A worker of a Ray cluster, and the form that work is sent in. It imports little, since it starts often."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import ray
import torch
from cachetools import LRUCache
from ray.cloudpickle import CloudPickler
from torch import Tensor, nn

from fiftyone_ecif.core import silent

HELD = 32
"""Kept objects that a worker holds at a time: those that it used last."""

Parcel = tuple[bytes, dict[str, Any]]
"""A pickled value, and the references to the kept objects in it by name."""


@ray.remote
class Worker:
    """One process of the cluster, with a device of its own."""

    def __init__(self, device: str) -> None:
        self.device = device
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())

    def run(self, task: Parcel, part: Parcel) -> bytes:
        """Apply a function to a part and to what all parts share; returns the result as :class:`Pickler` writes it."""
        function, shared = unpack(task, self.device)
        file = io.BytesIO()
        result = function(unpack(part, self.device), *shared, silent)
        Pickler(file, result).dump(result)
        return file.getvalue()


class Pickler(CloudPickler):
    """Pickles floating-point tensors as arrays, so that they land on the receiver's device, and kept objects by name.

    Integer tensors are indices and stay on the CPU.

    Args:
        file: to write to
        whole: the value that is pickled
        kept: classes whose objects are kept
        reference: the name under which the receiver finds a kept object
    """

    def __init__(
        self,
        file: io.BytesIO,
        whole: Any,
        kept: tuple[type, ...] = (),
        reference: Callable[[Any], str] = repr,
    ) -> None:
        super().__init__(file)
        self.whole, self.reference = whole, reference
        # A module is sent with everything in it.
        self.kept = () if isinstance(whole, nn.Module) else kept

    def persistent_id(self, value: Any) -> tuple[str, Any] | None:
        if type(value) is Tensor and value.dtype in (torch.float32, torch.float64):
            return "tensor", value.detach().cpu().numpy()
        if isinstance(value, self.kept) and value is not self.whole:
            return "kept", self.reference(value)
        return None


class Unpickler(pickle.Unpickler):
    """Reads what :class:`Pickler` wrote."""

    def __init__(self, file: io.BytesIO, references: dict[str, Any], device: str) -> None:
        super().__init__(file)
        self.references, self.device = references, device

    def persistent_load(self, found: tuple[str, Any]) -> Any:
        kind, content = found
        if kind == "tensor":
            return torch.from_numpy(content).to(self.device)
        if content not in _held:
            value = unpack(ray.get(self.references[content]), self.device)
            _held[content] = value.to(self.device) if isinstance(value, nn.Module) else value
        return _held[content]


_held: LRUCache[str, Any] = LRUCache(HELD)
"""The kept objects of a worker, by the names of their references."""


def unpack(parcel: Parcel, device: str) -> Any:
    """The value in a parcel, its floating-point tensors on the device."""
    content, references = parcel
    return Unpickler(io.BytesIO(content), references, device).load()
