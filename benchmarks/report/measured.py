"""Seconds, taken so that a busy machine does not decide what is compared."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch


class Measured:
    """Seconds of several pieces of work done in turn, by the clock and on the processor.

    Args:
        things: the work that is timed, by name
        repeats: how often each is timed, after one run that warms the caches
        device: the timing waits until its work is done
        between: called after each piece of work, and not timed
        processor: returns the processor seconds spent so far
    """

    def __init__(
        self,
        things: dict[str, Callable[[], object]],
        repeats: int,
        device: str = "cpu",
        between: Callable[[], object] = lambda: None,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self.clock: dict[str, np.ndarray] = {name: np.zeros(repeats) for name in things}
        self.processor: dict[str, np.ndarray] = {name: np.zeros(repeats) for name in things}
        for repeat in range(-1, repeats):  # the first time warms caches up and does not count
            for name, thing in things.items():
                clock, spent = time.perf_counter(), processor()
                thing()
                if torch.device(device).type == "cuda":
                    torch.cuda.synchronize()
                if repeat >= 0:
                    self.clock[name][repeat] = time.perf_counter() - clock
                    self.processor[name][repeat] = processor() - spent
                between()

    def seconds(self, name: str) -> float:
        """Median by the clock."""
        return float(np.median(self.clock[name]))

    def ratio(self, label: str, above: str, below: str) -> dict[str, float]:
        """Median over the repeats of one thing's seconds over another's, and of the processor's."""
        return {
            label: float(np.median(self.clock[above] / self.clock[below])),
            f"{label}_cpu": float(np.median(self.processor[above] / self.processor[below])),
        }
