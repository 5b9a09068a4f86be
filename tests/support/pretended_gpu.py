"""A CUDA device that is pretended: tensors that say they are on it, whose numbers a CPU computes.

torch's ``FakeTensorMode`` finds tensors that meet on two devices, but has no numbers and, without a GPU, no gradients:
nothing whose course depends on them can run under it, no solver, no fit, no comparison of results. Here every operation
runs on the CPU, and is refused where a GPU would refuse it: like a GPU, the device takes CPU indices and CPU scalars,
and nothing else. What it does not have is a GPU's rounding, memory and order of execution.

To torch the tensors are on its "meta" device, which is the only one that it has everywhere; ``device`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda", 0)

aten = torch.ops.aten
CROSSING = {aten._to_copy, aten.copy_, aten._local_scalar_dense, aten.set_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._unsafe_index_put}
TO_HOST = {aten._local_scalar_dense, aten.is_pinned, aten._fused_sdp_choice, aten.equal}
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.matmul, aten.linear, aten.convolution, aten.mv}
"""What autocast computes in its dtype."""


class PretendedTensor(torch.Tensor):
    """A tensor on the pretended device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __repr__(self) -> str:
        return f"PretendedTensor({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.held.numpy(force=True)

    def __array__(self, *arguments: Any, **named: Any) -> Any:
        return self.numpy()

    # torch swaps a module's parameters for tensors that have these two, in place of changing their data.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *rest: Any) -> PretendedTensor:
        return PretendedTensor(inner["held"])

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to say so at every operation takes longer than the operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Generator(torch.Generator):
    """A generator that may be of the pretended device; torch hands operations another object for the same state."""

    pretended: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        change = cls.pretended.add if torch.device(device).type == "cuda" else cls.pretended.discard
        change(made._cdata)
        return made


class _Autocast:
    """``torch.autocast``, for products of matrices without gradients."""

    dtype: torch.dtype | None = None

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        self.wanted = dtype if enabled and device_type == "cuda" else None

    def __enter__(self) -> None:
        self.before, _Autocast.dtype = _Autocast.dtype, self.wanted

    def __exit__(self, *error: object) -> None:
        _Autocast.dtype = self.before


@contextmanager
def pretended_gpu(monkeypatch: Any) -> Iterator[torch.device]:
    """Have torch find one CUDA device in the block, which is pretended.

    Args:
        monkeypatch: pytest's fixture, whose changes are undone after the block
    """
    torch._C._ensureCUDADeviceGuardSet()  # as FakeTensorMode does; it changes nothing where there is a GPU
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(
            torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=8 << 30, name="none")
        )
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "none")
        for nothing_to_do in ("synchronize", "empty_cache"):
            patch.setattr(torch.cuda, nothing_to_do, lambda *_: None)
        patch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "autocast", _Autocast)
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") is made on the CPU and copied
        try:
            with _Pretending():
                yield DEVICE
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what a GPU would compute, or refuse it as a GPU would."""
    packet = func._overloadpacket
    flat = [*_values(args), *_values(kwargs.values())]
    on_device = any(isinstance(value, PretendedTensor) for value in flat)
    if on_device and packet not in CROSSING:
        _check_devices(packet, args, flat)
    goes_to_device = _goes_to_device(packet, args, kwargs, on_device)
    for value in flat:
        if isinstance(value, torch._C.Generator) and (value._cdata in _Generator.pretended) != goes_to_device:
            raise RuntimeError(f"{packet} expected a generator of {DEVICE if goes_to_device else 'the CPU'}.")
    held = [_held(value) for value in args]
    named = {name: _held(value) for name, value in kwargs.items()}
    if on_device and packet in PRODUCTS and _Autocast.dtype is not None:
        held = [_in_autocast_dtype(value) for value in held]
    if named.get("device") is not None:
        named["device"] = torch.device("cpu")
    if packet is aten._efficientzerotensor:  # forward-mode derivatives have zeros without memory
        func = aten.zeros.default
    found = func(*held, **named)
    if not goes_to_device:
        return found
    changed = func._schema.returns and func._schema.returns[0].alias_info
    if changed and changed.is_write:  # an operation in place, or into out=, returns the tensor that it changed
        return kwargs.get("out", args[0])
    return [_wrapped(value) for value in found] if isinstance(found, (list, tuple)) else _wrapped(found)


def _values(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _held(value: Any) -> Any:
    if isinstance(value, PretendedTensor):
        return value.held
    return [_held(each) for each in value] if isinstance(value, (list, tuple)) else value


def _wrapped(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, torch.Tensor) else value


def _goes_to_device(packet: Any, args: Any, kwargs: dict[str, Any], on_device: bool) -> bool:
    if packet in TO_HOST:
        return False
    if packet is aten.copy_:
        return isinstance(args[0], PretendedTensor)
    asked = kwargs.get("device")
    return on_device if asked is None else torch.device(asked).type in ("cuda", "meta")


def _in_autocast_dtype(value: Any) -> Any:
    return value.to(_Autocast.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _check_devices(packet: Any, args: Any, flat: list[Any]) -> None:
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    if packet in INDEXED and isinstance(args[0], PretendedTensor):
        tensors = [args[0], *(value for value in args[2:] if isinstance(value, torch.Tensor))]
    strangers = [value for value in tensors if not isinstance(value, PretendedTensor) and value.dim() > 0]
    if strangers:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {packet} found some on {DEVICE} and one of shape "
            f"{tuple(strangers[0].shape)} on the CPU."
        )
