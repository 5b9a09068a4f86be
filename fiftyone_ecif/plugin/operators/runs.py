"""The operator that shows, renames and deletes runs: a face over the SDK's functions for runs."""

from __future__ import annotations

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import checks
from fiftyone_ecif.dataset.arguments import Choice, Text
from fiftyone_ecif.dataset.fields import METHOD, PREFERENCE_METHOD, SHIFT_METHOD
from fiftyone_ecif.dataset.run.config import run_methods
from fiftyone_ecif.dataset.shift.request import MEASURES
from fiftyone_ecif.plugin.descriptions import describe_run
from fiftyone_ecif.plugin.forms import ALL_RUNS, chosen_run, given, invalidate, notice, passes, show_fields
from fiftyone_ecif.plugin.operator import GRID
from fiftyone_ecif.plugin.run_operator import RunOperator

ACTIONS = {"show": "Show its samples", "rename": "Rename", "delete": "Delete"}


class ManageRuns(RunOperator):
    """Describes how a run of any kind was made and how it went, and shows, renames or deletes it."""

    name = "manage_runs"
    label = "manage runs"
    description = "See how a run was made and how it went; show its samples, rename it or delete it"
    icon = "runs.svg"
    risk = "high"
    submit = ACTIONS["show"]
    place = GRID
    known = ALL_RUNS

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        action: str = "show",
        new_run_key: str | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            action: "show", "rename" or "delete"
            new_run_key: its new name, for "rename"
            delegate: not supported, since the operator takes no time

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, action=action, new_run_key=new_run_key)

    def submit_label(self, ctx: foo.ExecutionContext) -> str:
        asked = ctx.params.get("action", "show")
        return ACTIONS.get(asked, self.submit) if isinstance(asked, str) else self.submit

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for the action, and show below it what is known of the run."""
        action = _action(ctx)
        choices = types.RadioGroup(orientation="horizontal")
        for value, label in ACTIONS.items():
            choices.add_choice(value, label=label)
        inputs.enum("action", choices.values(), default="show", label="Action", view=choices)
        if action == "rename":
            _choose_new_name(ctx, inputs, run_key)
        if action == "delete":
            warning = f"This deletes the run {run_key!r} and its fields, and cannot be undone."
            notice(inputs, "warning", types.Warning, warning)
        describe_run(ctx, inputs, run_key)

    def execute(self, ctx: foo.ExecutionContext) -> None:
        """Do what was chosen, and let the App show its effect."""
        run_key, action = chosen_run(ctx, self.known), _action(ctx)
        if action == "rename":
            new_run_key = given(ctx, "new_run_key", Text())
            if new_run_key is None:
                raise ValueError("Name the run's new key.")
            ecif.rename_run(ctx.dataset, run_key, new_run_key)
            ctx.ops.clear_view()  # it may sort by a field of the old name
            self.announce_change(ctx, f"Renamed the run {run_key} to {new_run_key}")
        elif action == "delete":
            ecif.delete_run(ctx.dataset, run_key)
            ctx.ops.clear_view()  # it may sort by a field that is gone
            self.announce_change(ctx, f"Deleted the run {run_key} and its fields")
        else:
            SHOW[run_methods(ctx.dataset)[run_key]](ctx, run_key)


def show_misaligned(ctx: foo.ExecutionContext, run_key: str) -> None:
    """Show the pairs of a run, the most suspicious first."""
    ctx.ops.set_view(ecif.load_results(ctx.dataset, run_key).misaligned())
    show_fields(ctx, run_key)


def show_preferences(ctx: foo.ExecutionContext, run_key: str) -> None:
    """Show the samples with preference pairs."""
    ctx.ops.set_view(ecif.load_preferences(ctx.dataset, run_key).samples())


def show_shifted(ctx: foo.ExecutionContext, run_key: str) -> None:
    """Show the samples that carry the most of the riskiest shift."""
    results = ecif.load_shift(ctx.dataset, run_key)
    measures = [of for of, suffix in MEASURES.items() if suffix in results.fields]
    if not measures:
        raise ValueError(f"The fields of the run {results.run_key!r} were deleted. Compute the shift again.")
    ctx.ops.set_view(results.most_shifted(measures[0]))
    ctx.ops.set_active_fields([results.fields[name] for name in ("scenario", MEASURES[measures[0]])])


SHOW = {METHOD: show_misaligned, SHIFT_METHOD: show_shifted, PREFERENCE_METHOD: show_preferences}
"""What shows the samples of each kind of run."""


def _action(ctx: foo.ExecutionContext) -> str:
    return given(ctx, "action", Choice(ACTIONS), "show")


def _choose_new_name(ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
    field = inputs.str(
        "new_run_key", required=True, label="New run key", description="The run's fields are renamed with it"
    )
    new_run_key = given(ctx, "new_run_key", Text())
    if new_run_key == run_key:
        invalidate(field, "The run already has this name.")
    elif new_run_key:
        passes(field, checks.check_run_key, ctx.dataset, new_run_key, False)
