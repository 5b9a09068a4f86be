"""The operator that shows, renames and deletes runs: a face over the SDK's functions for runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import checks as validation
from fiftyone_ecif.dataset.run.config import stored_results
from fiftyone_ecif.plugin.forms import choose_run, chosen_run, invalidate, notice, passes, show_fields
from fiftyone_ecif.plugin.operator import GRID, EcifOperator

UNSHOWN_SETTINGS = ("cls", "method", "type")  # FiftyOne's own
SHOWN_REASONS = 10
ACTIONS = {"show": "Show its pairs", "rename": "Rename", "delete": "Delete"}


class ManageRuns(EcifOperator):
    """Tells how a run was made and how it went, and shows, renames or deletes it."""

    name = "manage_runs"
    label = "manage runs"
    description = "See how a run was made and how it went; show its pairs, rename it or delete it"
    icon = "runs.svg"
    submit = ACTIONS["show"]
    place = GRID

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
            delegate: not supported, for there is nothing to wait for

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, action=action, new_run_key=new_run_key)

    def submit_label(self, ctx: foo.ExecutionContext) -> str:
        return ACTIONS.get(ctx.params.get("action", "show"), self.submit)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Run and action, and below them what is known of the run."""
        run_key = choose_run(ctx, inputs)
        action = ctx.params.get("action", "show")
        if run_key is not None:
            choices = types.RadioGroup(orientation="horizontal")
            for value, label in ACTIONS.items():
                choices.add_choice(value, label=label)
            inputs.enum("action", choices.values(), default="show", label="Action", view=choices)
            if action == "rename":
                _choose_new_name(ctx, inputs, run_key)
            if action == "delete":
                warning = f"Deletes the run {run_key!r} and its fields. This cannot be undone."
                notice(inputs, "warning", types.Warning, warning)
            describe_run(ctx, inputs, run_key)

    def execute(self, ctx: foo.ExecutionContext) -> None:
        """Do the chosen action and let the App show its effect."""
        run_key, action = chosen_run(ctx), ctx.params.get("action", "show")
        if action == "rename":
            new_run_key = ctx.params["new_run_key"]
            ecif.rename_run(ctx.dataset, run_key, new_run_key)
            ctx.ops.clear_view()  # it may sort by a field of the old name
            ctx.ops.reload_dataset()
            ctx.ops.notify(f"Renamed the run {run_key} to {new_run_key}", variant="success")
        elif action == "delete":
            ecif.delete_run(ctx.dataset, run_key)
            ctx.ops.clear_view()  # it may sort by a field that is gone
            ctx.ops.reload_dataset()
            ctx.ops.notify(f"Deleted the run {run_key} and its fields", variant="success")
        else:
            ctx.ops.set_view(ecif.load_results(ctx.dataset, run_key).misaligned())
            show_fields(ctx, run_key)


def _choose_new_name(ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
    field = inputs.str("new_run_key", required=True, label="New run key", description="Its fields are renamed with it")
    new_run_key = ctx.params.get("new_run_key")
    if new_run_key == run_key:
        invalidate(field, "This is its name already.")
    elif new_run_key:
        passes(field, validation.check_run_key, ctx.dataset, new_run_key, False)


def describe_run(ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
    """What the user should know of the run, then tables of its settings, health and timings."""
    info, results = ctx.dataset.get_run_info(run_key), stored_results(ctx.dataset, run_key)
    for number, warning in enumerate(results.warnings):
        notice(inputs, f"warning_{number}", types.Warning, warning)
    reasons = Counter(results.skipped.values()).most_common()
    for number, (reason, count) in enumerate(reasons[:SHOWN_REASONS]):
        notice(inputs, f"skipped_{number}", types.Notice, f"Skipped {count:,}: {reason}")
    if len(reasons) > SHOWN_REASONS:
        rest = f"Skipped {sum(count for _, count in reasons[SHOWN_REASONS:]):,} more, for other reasons"
        notice(inputs, "skipped_rest", types.Notice, rest)
    settings = {name: value for name, value in info.config.serialize().items() if name not in UNSHOWN_SETTINGS}
    health = {name: value for name, value in results.health.items() if name != "skip_reasons"}
    _table(inputs, "health", "Health", health)
    _table(inputs, "settings", "Settings", {"computed": f"{info.timestamp:%Y-%m-%d %H:%M:%S}", **settings})
    _table(inputs, "timings", "Seconds per step", results.timings)


def _table(inputs: types.Object, name: str, label: str, values: Mapping[str, Any]) -> None:
    """Add a table of names and values, which the App shows as plain text; nothing where there are none."""
    rows = [{"name": key, "value": _written(value)} for key, value in values.items() if value is not None]
    if rows:
        table = types.TableView(read_only=True)
        table.add_column("name", label=label)
        table.add_column("value", label="")
        inputs.list(name, types.Object(), default=rows, view=table)


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_written(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_written, value))
    return str(value)
