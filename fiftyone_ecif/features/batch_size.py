"""The batch size at which a model's towers run fastest on a device, found by trial and then remembered."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from fiftyone_ecif.cache import cache_folder

USUAL = {"cpu": 64, "cuda": 256}
"""The batch sizes that are used without a trial."""

WORTH_TRIAL = 4096
"""The number of images from which a trial pays, which itself takes some hundred."""

GAIN = 1.05
"""How much faster a batch of twice the size must be to be worth its memory, as a factor."""

LARGEST = 4096
"""The largest batch size that is tried."""


def fastest_batch_size(model: str, device: torch.device, forward: Callable[[int], object], images: int) -> int:
    """The batch size to use.

    Args:
        model: the model's fingerprint
        device: the device that the model runs on
        forward: runs the image tower on that many images, and returns when it is done
        images: how many images there are; a few are not worth a trial

    Returns:
        the batch size remembered for this model and device; without one, the size found by a trial; for a few images,
        the usual size
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device.type} {torch.get_num_threads()} threads"
    path = cache_folder("batch-sizes") / f"{model[:16]} {name}.txt".replace(" ", "-").replace("/", "-")
    with suppress(OSError, ValueError):  # it was not found yet, or what is there is damaged
        return int(path.read_text())
    if images < WORTH_TRIAL:
        return USUAL.get(device.type, 64)
    size = _by_trial(forward, smallest=USUAL.get(device.type, 64) // 4)
    part = path.with_suffix(f".{os.getpid()}.part")  # processes of several GPUs try at the same time
    part.write_text(str(size))
    part.replace(path)
    return size


def _by_trial(forward: Callable[[int], object], smallest: int) -> int:
    """The size from which doubling gains nothing, or runs out of memory."""
    forward(smallest)  # the first call is slower than later ones
    best, fastest, size = smallest, 0.0, smallest
    while size <= LARGEST:
        start = time.perf_counter()
        try:
            forward(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()  # what the attempt has taken is for others, too
            break
        speed = size / (time.perf_counter() - start)
        if speed < GAIN * fastest:
            break
        best, fastest, size = size, speed, 2 * size
    return best
