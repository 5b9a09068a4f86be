"""The device that this process computes on."""

from __future__ import annotations

import torch


def device_here(engine: str, device: str | None) -> str:
    """The device of this process for a run.

    Args:
        engine: "local", or "ray", whose workers have devices of their own
        device: what was asked for; None for a GPU where there is one

    Returns:
        a device that torch has here

    Raises:
        ValueError: if the one that was asked for is not there
    """
    if engine == "ray":
        return "cpu"
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not one that torch knows: try 'cpu' or 'cuda'.") from error
    if kind.type == "meta":
        raise ValueError("device 'meta' computes nothing: try 'cpu' or 'cuda'.")
    seen = torch.cuda.device_count()
    if kind.type == "cuda" and (kind.index or 0) >= seen:
        there = ", ".join(f"cuda:{index}" for index in range(seen)) or "no CUDA device"
        raise ValueError(
            f"device {device!r} was asked for, but torch sees {there} here: use one that is there, or 'cpu'."
        )
    return device


def if_here(engine: str, device: str | None) -> str | None:
    """The device that a run asked for before, perhaps on another machine; None, which lets torch choose, if it is gone.

    Args:
        engine: as in :func:`device_here`
        device: what the run asked for
    """
    try:
        device_here(engine, device)
    except ValueError:
        return None
    return device
