"""A run's pairs as views, by score."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F

from fiftyone_ecif.dataset.arguments import PROBABILITY, SHARE, at_most
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, harmful, vague
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.detect import threshold_for
from fiftyone_ecif.notes import note


class RankedPairs(Run):
    """A run whose pairs can be asked for by what it found."""

    def misaligned(
        self, threshold: float | None = None, limit: int | None = None, *, precision: float | None = None
    ) -> fo.DatasetView:
        """The pairs, most suspicious first.

        Args:
            threshold: only pairs of at least this misalignment, 0 to 1
            limit: at most so many
            precision: in place of a threshold: as many pairs as there can be with this share of them wrong, by
                :meth:`suggested_threshold`

        Returns:
            a view sorted by misalignment, falling; empty, with a warning, where no threshold reaches the precision
        """
        if threshold is not None and precision is not None:
            raise ValueError("Pass a threshold or a precision, not both.")
        if threshold is not None:
            threshold = PROBABILITY("threshold", threshold)
        name = self._score_field("misalignment")
        view = everything(self.dataset).exists(name)
        if precision is not None:
            threshold = self.suggested_threshold(precision)
            if threshold is None:
                note(
                    f"No threshold is expected to reach a precision of {precision:.0%}: the most suspicious pair is "
                    f"wrong with a probability of {view.max(name) or 0:.0%}."
                )
                return view.select([])
        if threshold is not None:
            view = view.match(F(name) >= threshold)
        return self._limited(view.sort_by(name, reverse=True), limit)

    def vague(self, threshold: float | None = None, limit: int | None = None) -> fo.DatasetView:
        """The pairs, those first whose captions say the least.

        Args:
            threshold: only pairs of at least this vagueness, 0 to 1
            limit: at most so many

        Returns:
            a view sorted by vagueness, falling

        Raises:
            ValueError: if the run has none: it is on labels, or of an earlier version
        """
        return self._limited(vague(everything(self.dataset), self.run_key, threshold), limit)

    def suggested_threshold(self, precision: float = SUGGESTED_PRECISION) -> float | None:
        """The smallest misalignment at or above which a share of the pairs is expected to be wrong.

        The expected share is the mean of their misalignment. It is as good as these probabilities are calibrated
        (docs/detection.md).

        Args:
            precision: the least share, above 0 and up to 1

        Returns:
            a threshold for :meth:`misaligned` and ``tag_misaligned``; None where none reaches the precision
        """
        name = self._score_field("misalignment")
        numbers = everything(self.dataset).match({name: {"$gte": 0}})  # alone, whatever else is there
        scores = numbers.values(name)
        return threshold_for(np.array(scores, dtype=float), SHARE("precision", precision))

    def harmful(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would lower the target loss, most harmful first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a negative value, sorted by value, rising
        """
        return self._limited(harmful(self.dataset, self.run_key), limit)

    def valuable(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs whose removal would raise the target loss, most valuable first.

        Args:
            limit: at most so many

        Returns:
            a view of pairs with a positive value, sorted by value, falling
        """
        name = self._score_field("value")
        return self._limited(everything(self.dataset).match(F(name) > 0).sort_by(name, reverse=True), limit)

    def _score_field(self, suffix: str) -> str:
        return score_field(self.dataset, self.run_key, suffix)

    @staticmethod
    def _limited(view: fo.DatasetView, limit: int | None) -> fo.DatasetView:
        most = at_most(limit)
        return view if most is None else view.limit(most)
