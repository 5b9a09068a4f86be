"""The batch size at which a model's towers run fastest on a device: found by trial, then remembered."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from fiftyone_ecif.cache import cache_folder

USUAL = {"cpu": 64, "cuda": 256}

WORTH_TRIAL = 4096
"""Images from which on a trial, which takes some hundred, pays."""

GAIN = 1.05
"""A batch of twice the size is worth its memory if it is faster by this factor."""

LARGEST = 4096


def fastest_batch_size(model: str, device: torch.device, forward: Callable[[int], object], images: int) -> int:
    """The batch size to use.

    Args:
        model: its fingerprint
        device: where it runs
        forward: runs the image tower on so many images, and waits for it
        images: how many there are; a few are not worth a trial

    Returns:
        what was remembered for this model and device, else what is found now, else what is usual
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} {torch.get_num_threads()} threads"
    path = cache_folder("batch-sizes") / f"{model[:16]} {name}.txt".replace(" ", "-").replace("/", "-")
    if path.exists():
        return int(path.read_text())
    if images < WORTH_TRIAL:
        return USUAL.get(device.type, 64)
    size = _by_trial(forward, smallest=USUAL.get(device.type, 64) // 4)
    part = path.with_suffix(".part")
    part.write_text(str(size))
    part.replace(path)
    return size


def _by_trial(forward: Callable[[int], object], smallest: int) -> int:
    """The size after which doubling gains nothing, or there is no memory."""
    forward(smallest)  # the first call also sets things up
    best, fastest, size = smallest, 0.0, smallest
    while size <= LARGEST:
        start = time.perf_counter()
        try:
            forward(size)
        except torch.OutOfMemoryError:
            break
        speed = size / (time.perf_counter() - start)
        if speed < GAIN * fastest:
            break
        best, fastest, size = size, speed, 2 * size
    return best
