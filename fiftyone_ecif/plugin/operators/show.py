"""The operators that show a run's pairs in the grid: faces over the views of its results."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import COUNT, PROBABILITY, SHARE_OF_PAIRS, Number
from fiftyone_ecif.plugin.forms import chosen_run, counted, given, refuse, say_count, show_fields
from fiftyone_ecif.plugin.operator import GRID
from fiftyone_ecif.plugin.run_operator import RunOperator


class ShowPairs(RunOperator):
    """Shows some of a run's pairs, sorted; subclasses say which.

    Class attributes:
        none: what to say if there are none
        field: the score to show on the thumbnails
    """

    none: str
    field: str

    submit = "Show"
    risk = "low"

    def pairs(self, ctx: foo.ExecutionContext, run_key: str) -> fo.DatasetView:
        """The view that the form asks for."""
        raise NotImplementedError

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        limit: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            limit: the most pairs to show; None: all
            delegate: not supported, since the operator takes no time

        Returns:
            the result, whose ``result["pairs"]`` is the number of pairs shown
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, limit=limit)

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Add what else the subclass lets the user choose."""

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for the limit and what the subclass adds, and say how many pairs these give."""
        self.choose_more(ctx, inputs)
        inputs.int("limit", min=1, label="Maximum number of pairs", description="Leave empty to show all")
        try:
            pairs = len(self.pairs(ctx, run_key))
        except ValueError as error:
            refuse(inputs, "pairs", str(error))
            return
        say_count(inputs, "pairs", pairs, f"{counted(pairs, 'pair')} will be shown", self.none)

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Set the view and the fields shown on the thumbnails."""
        run_key = chosen_run(ctx)
        view = self.pairs(ctx, run_key)
        ctx.ops.set_view(view)
        show_fields(ctx, run_key, self.field)
        return {"pairs": len(view)}


class ShowAbove(ShowPairs):
    """Shows the pairs at or above a threshold of some score, the highest first; subclasses say which.

    Class attributes:
        what: what the threshold is a minimum of
        kind: what the threshold may be
    """

    what: str
    kind: Number

    def above(self, results: Any, threshold: float | None, limit: int | None) -> fo.DatasetView:
        """The results' view of these pairs."""
        raise NotImplementedError

    def __call__(  # type: ignore[override]
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        threshold: float | None = None,
        limit: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            threshold: the minimum of the score, 0 to 1; None: any
            limit: the most pairs to show; None: all
            delegate: not supported, since the operator takes no time

        Returns:
            the result, whose ``result["pairs"]`` is the number of pairs shown
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, threshold=threshold, limit=limit)

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Add the threshold."""
        label, description = f"Minimum {self.what}", "0 shows every scored pair"
        inputs.float("threshold", min=0, max=1, default=0, label=label, description=description)

    def pairs(self, ctx: foo.ExecutionContext, run_key: str) -> fo.DatasetView:
        """The view that the form asks for."""
        threshold = given(ctx, "threshold", self.kind, None, f"The minimum {self.what}") or None
        return self.above(ecif.load_results(ctx.dataset, run_key), threshold, _limit(ctx))


class ShowMisaligned(ShowAbove):
    """Shows the pairs whose caption probably does not belong to the image, the most suspicious first."""

    name = "show_misaligned"
    label = "show misaligned pairs"
    description = "Show the pairs whose caption probably does not belong to the image, the most suspicious first"
    icon = "misaligned.svg"
    place = GRID
    none = "No pair reaches this threshold. Lower it to show some."
    field = "misalignment"
    what, kind = "probability of being misaligned", PROBABILITY

    def above(self, results: Any, threshold: float | None, limit: int | None) -> fo.DatasetView:
        """The suspects."""
        return results.misaligned(threshold=threshold, limit=limit)


class ShowVague(ShowAbove):
    """Shows the pairs whose caption hardly tells the image from others, those first that say the least."""

    name = "show_vague"
    label = "show captions that say little"
    description = "Show the pairs whose caption hardly tells its image from the others, those that say the least first"
    icon = "vague.svg"
    none = "No caption reaches this threshold. Lower it to show some."
    field = "vagueness"
    what, kind = "share of other pairs that say the same and look otherwise", SHARE_OF_PAIRS

    def above(self, results: Any, threshold: float | None, limit: int | None) -> fo.DatasetView:
        """The pairs by vagueness."""
        return results.vague(threshold=threshold, limit=limit)


class ShowHarmful(ShowPairs):
    """Shows the pairs whose removal would lower the target loss, the most harmful first."""

    name = "show_harmful"
    label = "show harmful pairs"
    description = "Show the pairs whose removal would lower the target loss, the most harmful first"
    icon = "harmful.svg"
    none = "No pair of this run is harmful."
    field = "value"

    def pairs(self, ctx: foo.ExecutionContext, run_key: str) -> fo.DatasetView:
        """The view that the form asks for."""
        return ecif.load_results(ctx.dataset, run_key).harmful(limit=_limit(ctx))


class ShowValuable(ShowPairs):
    """Shows the pairs whose removal would raise the target loss, the most valuable first."""

    name = "show_valuable"
    label = "show valuable pairs"
    description = "Show the pairs whose removal would raise the target loss, the most valuable first"
    icon = "valuable.svg"
    none = "No pair of this run is valuable."
    field = "value"

    def pairs(self, ctx: foo.ExecutionContext, run_key: str) -> fo.DatasetView:
        """The view that the form asks for."""
        return ecif.load_results(ctx.dataset, run_key).valuable(limit=_limit(ctx))


def _limit(ctx: foo.ExecutionContext) -> int | None:
    """How many pairs to show at most; None for all."""
    return given(ctx, "limit", COUNT, None, "The number of pairs")
