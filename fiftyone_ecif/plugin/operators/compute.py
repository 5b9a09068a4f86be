"""The operator that computes influence: a face over :func:`fiftyone_ecif.compute_influence`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import Text
from fiftyone_ecif.dataset.checks import is_classification_field, text_fields
from fiftyone_ecif.dataset.compute.request import ASKED, RunRequest
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import counted, given, notice, one_slice, show_fields, target_view
from fiftyone_ecif.plugin.operator import GRID, EcifOperator
from fiftyone_ecif.plugin.operators.compute_form import RUN_KEY, compute_form, trusted_pairs
from fiftyone_ecif.plugin.operators.model_form import model_arguments, uses_embeddings
from fiftyone_ecif.plugin.operators.request_form import AUTO, proposed_run_key, takes_form
from fiftyone_ecif.plugin.panel.choices import open_panel
from fiftyone_ecif.plugin.sample_sets import without

OF_MODELS, OF_EMBEDDINGS = ("model", "pretrained", "preprocess"), ("image_embeddings", "text_embeddings")
"""The parameters of either source of features."""


class ComputeInfluence(EcifOperator):
    """Scores the pairs, then shows them, the most suspicious first."""

    name = "compute_influence"
    label = "compute influence"
    description = "Find the pairs that harm a CLIP-style model, and the captions that do not belong to their images"
    icon = "compute.svg"
    submit = "Compute"
    risk = "high"
    place = GRID
    streams = delegable = True

    @takes_form(RunRequest, ASKED)
    def __call__(  # noqa: D417 - put in by takes_form
        self, sample_collection: SampleCollection, text_field: str, delegate: bool = False, **parameters: Any
    ) -> foo.ExecutionResult:
        """Execute the operator from a script, with the form's parameters.

        The target is named as "view:<saved view>" or "tag:<sample tag>", and its samples are not scored. Templates
        stand one per line. None leaves a parameter to the form.

        Args:
            sample_collection: the training pairs
            {parameters}
            delegate: whether to queue the run for a worker

        Returns:
            the result, or a task where an event loop is running
        """
        stored = parameters.get("image_embeddings") or parameters.get("text_embeddings")
        features = "embeddings" if stored else "model"
        asked = {"text_field": text_field, "advanced": True, "features": features}
        return self.execute_on(sample_collection, delegate, **asked, **parameters)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for everything that can be chosen, guessed from the data and checked while the user types."""
        compute_form(ctx, inputs)

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Compute in a thread, telling the App how far it is; then show the result."""
        samples, target, arguments = one_slice(target_view(ctx)), trusted_pairs(ctx), sdk_arguments(ctx)
        if target is not None:
            samples = without(samples, target)
        results = yield from in_background(
            ctx,
            f"Computing influence “{arguments['run_key']}”",
            lambda progress: ecif.compute_influence(samples, target=target, progress=progress, **arguments),
        )
        if results is not None and not ctx.delegated:
            yield from show_results(ctx, results)


def sdk_arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The form's values as arguments of :func:`fiftyone_ecif.compute_influence`, but for samples and target."""
    embeddings = uses_embeddings(ctx)
    left_out = {"target", "templates", *OF_MODELS, *(() if embeddings else OF_EMBEDDINGS)}
    asked = {name: given(ctx, name, each.kind) for name, each in ASKED.items() if name not in left_out}
    arguments = {name: value for name, value in asked.items() if value is not None}
    arguments |= {} if embeddings else model_arguments(ctx)
    arguments.setdefault("text_field", next(iter(text_fields(ctx.dataset)), None))
    arguments.setdefault("run_key", proposed_run_key(ctx.dataset, RUN_KEY))
    templates = given(ctx, "templates", Text())
    if templates is not None and is_classification_field(ctx.dataset, arguments["text_field"]):
        arguments["templates"] = [line.strip() for line in templates.splitlines() if line.strip()]
    if arguments.get("device") == AUTO:
        del arguments["device"]
    if not ctx.delegated and arguments.get("engine") != "ray":
        arguments["num_workers"] = 0  # the App's server must not fork
    return arguments


def show_results(ctx: foo.ExecutionContext, results: Any) -> Iterator[Any]:
    """Reload the grid, sort it by suspicion, show scores on the thumbnails, and say what was done."""
    view = results.misaligned()
    yield ctx.ops.reload_dataset()
    yield ctx.ops.set_view(view)
    yield show_fields(ctx, results.run_key)
    yield open_panel(ctx, "suspects", results.run_key)
    scored, skipped = len(view), len(results.skipped)
    outputs = types.Object()
    notice(outputs, "scored", types.Success, f"Scored {counted(scored, 'pair')}", "The most suspicious come first.")
    for number, warning in enumerate(results.warnings):
        notice(outputs, f"warning_{number}", types.Warning, warning)
    yield show_output(ctx, outputs)
    message = f"ECIF scored {counted(scored, 'pair')} and skipped {skipped:,}; warnings: {len(results.warnings)}"
    yield ctx.ops.notify(message, variant="warning" if results.warnings else "success")
