"""What runs of every kind keep about themselves, read when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import fiftyone as fo
from fiftyone.core.runs import RunResults

from fiftyone_ecif.dataset.run.config import stored_results


class StoredRun:
    """A run on the data set that it was computed on.

    Args:
        dataset: the data set
        run_key: the run's key
    """

    def __init__(self, dataset: fo.Dataset, run_key: str) -> None:
        self.dataset, self.run_key = dataset, run_key

    @property
    def health(self) -> dict[str, Any]:
        """Whether to trust the numbers: what was computed, and what was left out by reason.

        Of scores also the solver's residual, the gradient at rest and the stability of the ranking; of a shift the
        samples of several sets.
        """
        return self._stored.health

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per step."""
        return self._stored.timings

    @property
    def warnings(self) -> list[str]:
        """What the user should know, in plain words."""
        return self._stored.warnings

    @property
    def skipped(self) -> dict[str, str]:
        """Reason by sample id, for those that were left out."""
        return self._stored.skipped

    @cached_property
    def _stored(self) -> RunResults:
        return stored_results(self.dataset, self.run_key)
