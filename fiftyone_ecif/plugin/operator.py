"""What the package's operators have in common."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.plugin.forms import refuse

GRID = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
MODAL = types.Places.SAMPLES_VIEWER_ACTIONS


class EcifOperator(foo.Operator):
    """An operator with a form, callable from scripts.

    Class attributes:
        name: after ``@ecif/ecif/``
        label: in the operator browser, after "ECIF:"
        description: one sentence
        icon: its file's name in ``assets/``
        submit: the text of the form's button
        place: where its button stands. ``GRID``: above the grid; ``MODAL``: beside the open sample, and above the grid
            while samples are selected there; None: nowhere
        risk: what it can do to the data; FiftyOne tells agents, from 1.16 on. "low": it looks; "medium": it computes
            for long, or adds what can be taken off again; "high": it rewrites or deletes data, or writes files
        streams: whether it reports progress, and so executes as a generator
        delegable: whether it can be left to a worker
    """

    name: str
    label: str
    description: str
    icon: str
    submit: str
    risk: str
    place: types.Places | None = None
    streams = False
    delegable = False

    @property
    def config(self) -> foo.OperatorConfig:
        """What the class attributes say, for FiftyOne."""
        return foo.OperatorConfig(
            name=self.name,
            label=f"ECIF: {self.label}",
            description=self.description,
            icon=f"/assets/{self.icon}",
            dynamic=True,
            execute_as_generator=self.streams,
            allow_immediate_execution=True,
            allow_delegated_execution=self.delegable,
            risk_level=self.risk,  # before 1.16, FiftyOne takes it and makes nothing of it
        )

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Add what the user may choose, what that will do and, if it cannot be done, why."""
        raise NotImplementedError

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        """The operator's form; whatever it cannot go on with refuses it, in words."""
        inputs = types.Object()
        try:
            self.form(ctx, inputs)
        except ValueError as error:
            refuse(inputs, "refused", str(error))
        view = types.PromptView(label=self.config.label, submit_button_label=self.submit_label(ctx))
        return types.Property(inputs, view=view)

    def submit_label(self, ctx: foo.ExecutionContext) -> str:
        """The text of the form's button, which may depend on what was chosen."""
        return self.submit

    def resolve_placement(self, ctx: foo.ExecutionContext) -> types.Placement | None:
        """A button that opens the operator's form."""
        if self.place is None:
            return None
        place = GRID if ctx.selected and not ctx.current_sample else self.place
        label = f"{self.label[0].upper()}{self.label[1:]} (ECIF)"
        return types.Placement(place, types.Button(label=label, icon=f"/assets/{self.icon}", prompt=True))

    def execute_on(self, samples: SampleCollection, delegate: bool, **params: Any) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            samples: a dataset, or the view that the App would show
            delegate: whether to queue the operation for a worker instead of running it here
            **params: the form's values; None stands for a value that is left out

        Returns:
            the result; a task if an event loop is running, as in a notebook
        """
        kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
        given = {name: value for name, value in params.items() if value is not None}
        return foo.execute_operator(self.uri, {kind: samples}, params=given, request_delegation=delegate)

    def announce_change(self, ctx: foo.ExecutionContext, message: str, variant: str = "success") -> None:
        """Let the App show a change of the data, and say what was changed.

        Args:
            ctx: of the operator
            message: what was changed
            variant: "success", "info", "warning" or "error"
        """
        ctx.ops.reload_dataset()
        ctx.ops.notify(message, variant=variant)
