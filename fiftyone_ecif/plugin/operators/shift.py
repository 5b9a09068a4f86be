"""The operator that computes a shift: a face over :func:`fiftyone_ecif.compute_shift`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.shift.request import ASKED, ShiftRequest
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import notice
from fiftyone_ecif.plugin.operator import GRID, EcifOperator
from fiftyone_ecif.plugin.operators.request_form import takes_form
from fiftyone_ecif.plugin.operators.shift_form import REST, reference, scenarios, sdk_arguments, shift_form
from fiftyone_ecif.plugin.panel.choices import open_panel


class ComputeShift(EcifOperator):
    """Compares sets of samples with a reference, then shows them, the riskiest first."""

    name = "compute_shift"
    label = "compute shift risk"
    description = "Find how far other samples are from a reference, and which of them carry the shift"
    icon = "shift.svg"
    submit = "Compute"
    risk = "high"
    place = GRID
    streams = delegable = True

    @takes_form(ShiftRequest, ASKED)
    def __call__(  # noqa: D417 - put in by takes_form
        self,
        sample_collection: SampleCollection,
        reference: str,
        others: str = REST,
        image_embeddings: str | None = None,
        query_embeddings: str | None = None,
        response_embeddings: str | None = None,
        reference_embeddings: str | None = None,
        delegate: bool = False,
        **parameters: Any,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script, with the form's parameters.

        Args:
            sample_collection: what the other samples are taken from
            reference: "view:<saved view>" or "tag:<sample tag>"
            others: "rest" for all other samples, "views" for each other saved view, "values:<field>" for each value of
                a field; or a view or tag, named as the reference is
            image_embeddings: field with vectors of the images, in place of an encoder
            query_embeddings: likewise of the queries
            response_embeddings: likewise of the responses
            reference_embeddings: likewise of the references
            {parameters}
            delegate: whether to queue the run for a worker

        Returns:
            the result, or a task where an event loop is running
        """
        stored = {
            "image_embeddings": image_embeddings,
            "query_embeddings": query_embeddings,
            "response_embeddings": response_embeddings,
            "reference_embeddings": reference_embeddings,
        }
        features = "embeddings" if any(stored.values()) else "model"
        asked = {"reference": reference, "others": others, "advanced": True, "features": features}
        return self.execute_on(sample_collection, delegate, **asked, **stored, **parameters)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for the sets, and for what is compared of them."""
        shift_form(ctx, inputs)

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Compute in a thread, telling the App how far it is; then show the result."""
        first, others, arguments = reference(ctx), scenarios(ctx), sdk_arguments(ctx)
        results = yield from in_background(
            ctx,
            f"Computing shift risk “{arguments['run_key']}”",
            lambda progress: ecif.compute_shift(first, others, progress=progress, **arguments),
        )
        if results is not None and not ctx.delegated:
            yield from show_shift(ctx, results)


def show_shift(ctx: foo.ExecutionContext, results: Any) -> Iterator[Any]:
    """Open the run in the panel, and say what was done."""
    yield ctx.ops.reload_dataset()
    yield open_panel(ctx, "shift", results.run_key)
    count, riskiest = len(results.scenarios), results.scenarios[0]
    outputs = types.Object()
    label = f"Compared {count:,} {'set' if count == 1 else 'sets'} of samples with the reference"
    notice(outputs, "compared", types.Success, label, f"The riskiest is {riskiest.name}." if count > 1 else "")
    for number, warning in enumerate(results.warnings):
        notice(outputs, f"warning_{number}", types.Warning, warning)
    yield show_output(ctx, outputs)
    message = f"ECIF compared {count:,} {'set' if count == 1 else 'sets'}; warnings: {len(results.warnings)}"
    yield ctx.ops.notify(message, variant="warning" if results.warnings else "success")
