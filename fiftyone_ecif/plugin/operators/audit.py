"""The operators of an audit: pairs drawn at random, and what the verdicts on them say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import COUNT, Flag
from fiftyone_ecif.plugin.forms import (
    choose_samples,
    chosen_run,
    chosen_samples,
    counted,
    given,
    notice,
    passes,
    refuse,
)
from fiftyone_ecif.plugin.run_operator import RunOperator

if TYPE_CHECKING:
    from fiftyone_ecif import NoiseRate

SIZE = 40
"""Pairs that are drawn if nobody says how many."""


class AuditSample(RunOperator):
    """Draws pairs at random for a review that says how many are wrong."""

    name = "audit_sample"
    label = "draw pairs for an audit"
    description = "Draw pairs at random, whose verdicts say how many of a run's pairs are wrong"
    icon = "fine.svg"
    risk = "medium"
    submit = "Draw"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        size: int | None = None,
        stratified: bool | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to draw from
            run_key: the run; None: the newest
            size: pairs to draw; None: 40
            stratified: whether suspicious and unsuspicious pairs are drawn apart; None: they are
            delegate: not supported, since the operator takes no time

        Returns:
            the result, whose ``result["pairs"]`` is the number of drawn pairs
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, size=size, stratified=stratified)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for samples, how many, and how."""
        choose_samples(ctx, inputs, "Draw from")
        field = inputs.int("size", min=1, default=SIZE, label="Pairs to draw")
        passes(field, _size, ctx)
        words = "Suspicious and unsuspicious pairs are drawn apart, so that fewer verdicts say as much"
        inputs.bool("stratified", default=True, label="Stratified", description=words)
        words = "Look through them in the panel's tab “Review”, in the order “Drawn at random for an audit”."
        notice(inputs, "what", types.Notice, words, "An earlier draw is replaced; verdicts on pairs of both count on.")

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Draw, and show what was drawn."""
        stratified = given(ctx, "stratified", Flag(), True)
        drawn = ecif.audit_sample(chosen_samples(ctx), chosen_run(ctx), _size(ctx), stratified)
        self.announce_change(ctx, f"Drew {counted(len(drawn), 'pair')}: judge them in the panel's tab “Review”")
        ctx.ops.set_view(drawn)
        return {"pairs": len(drawn)}


class Recalibrate(RunOperator):
    """Corrects a run's misalignment by the verdicts on the pairs that were drawn for an audit."""

    name = "recalibrate"
    label = "recalibrate by an audit"
    description = "Correct a run's misalignment by the verdicts on the pairs that were drawn for an audit"
    icon = "verify.svg"
    risk = "medium"
    submit = "Recalibrate"

    def __call__(
        self, sample_collection: SampleCollection, run_key: str | None = None, delegate: bool = False
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            delegate: not supported, since the operator takes no time

        Returns:
            the result: ``answered`` pairs, ``wrong`` ones of them, and the noise rate ``rate`` from ``low`` to ``high``
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Say what the verdicts say, or why they say nothing."""
        try:
            found = ecif.load_results(ctx.dataset, run_key).audit()
        except ValueError as error:
            refuse(inputs, "found", str(error))
            return
        words = "The order of the pairs stays. Computing the run again undoes it."
        notice(inputs, "found", types.Notice, in_words(found), words)

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, float]:
        """Recalibrate, and say what was found."""
        found = ecif.load_results(ctx.dataset, chosen_run(ctx)).recalibrate()
        self.announce_change(ctx, f"Recalibrated: {in_words(found)}")
        return vars(found)


def in_words(found: NoiseRate) -> str:
    """An audit's result."""
    share = f"{found.rate:.0%} of all pairs are wrong (90% interval: {found.low:.0%} to {found.high:.0%})"
    return f"Judged {counted(found.answered, 'pair')}, {found.wrong} of them wrong. Estimate: {share}."


def _size(ctx: foo.ExecutionContext) -> int:
    return given(ctx, "size", COUNT, SIZE, "The number of pairs")
