"""Progress by step, as FiftyOne shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fiftyone as fo

from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.arguments import Reporter

ProgressChoice = bool | Callable[[str, int, int], None] | None
"""What callers pass as ``progress=``: whether bars are shown, None for FiftyOne's setting, or their own function."""


class StepBars:
    """One FiftyOne progress bar per step; a :data:`~fiftyone_ecif.core.Progress`.

    Args:
        progress: True, False, or None for FiftyOne's own setting
    """

    def __init__(self, progress: bool | None) -> None:
        self.progress, self.step = progress, ""
        self.bar: Any = None  # FiftyOne's bars carry no types

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            self.close()
            self.step = step
            self.bar = fo.ProgressBar(total=total, progress=self.progress, start_msg=f"{step}...", iters_str="steps")
            self.bar.__enter__()
        self.bar.set_iteration(done)

    def close(self) -> None:
        """End the bar that is open."""
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None


@contextmanager
def reporting(progress: ProgressChoice) -> Iterator[Progress]:
    """What a caller passed as ``progress=``, as a function of (step, done, total); its bar ends with the block."""
    progress = Reporter()("progress", progress)
    if callable(progress):
        yield progress
        return
    bars = StepBars(progress)
    try:
        yield bars
    finally:
        bars.close()
