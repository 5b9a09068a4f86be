"""The operator that exports the cleaned set: a face over :func:`fiftyone_ecif.export_cleaned`."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import Choice, Flag, Text
from fiftyone_ecif.dataset.checks import text_fields
from fiftyone_ecif.dataset.repair.export import FORMATS, check_export, cleaned
from fiftyone_ecif.dataset.repair.review import SUSPECTED
from fiftyone_ecif.dataset.samples import number_of
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.plugin.forms import (
    choose_samples,
    chosen_samples,
    chosen_threshold,
    counted,
    dropdown,
    given,
    one_slice,
    passes,
    say_count,
)
from fiftyone_ecif.plugin.operator import GRID, EcifOperator

DEFAULT_FORMAT = "csv"

TAGGED = "tagged pairs"
"""What stands for no run in the form; a run's key has no space."""


class ExportCleaned(EcifOperator):
    """Writes the dataset without the pairs that were tagged and, if the user wishes, without a run's suspects."""

    name = "export_cleaned"
    label = "export the cleaned set"
    description = "Export the samples that are not tagged as misaligned, rejected or empty"
    icon = "export.svg"
    risk = "high"
    submit = "Export"
    place = GRID
    delegable = True

    def __call__(
        self,
        sample_collection: SampleCollection,
        folder: str,
        format: str | None = None,
        text_field: str | None = None,
        copy_images: bool | None = None,
        run_key: str | None = None,
        threshold: float | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to export, before the cleaning
            folder: where to write them; must not exist, or be empty
            format: "csv", "folders" or "fiftyone"
            text_field: captions or labels
            copy_images: whether the images are copied, or referred to by their present paths
            run_key: a run whose suspects are left out too
            threshold: the minimum misalignment of a suspect; None: 0.5
            delegate: whether to queue the work for a worker

        Returns:
            the result, whose ``result["exported"]`` is the number of samples
        """
        return self.execute_on(
            sample_collection,
            delegate,
            folder=folder,
            format=format,
            text_field=text_field,
            copy_images=copy_images,
            run_key=run_key,
            threshold=threshold,
        )

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask for samples, what to leave out, format and folder, and say how many samples are left."""
        samples = one_slice(choose_samples(ctx, inputs, "Export"))
        _choose_suspects(ctx, inputs, samples)
        format = given(ctx, "format", Choice(FORMATS), DEFAULT_FORMAT)
        inputs.enum("format", list(FORMATS), default=DEFAULT_FORMAT, label="Format", view=dropdown(FORMATS))
        fields = text_fields(ctx.dataset)
        if format != "fiftyone" and fields:
            label = "Captions or labels"
            inputs.enum("text_field", fields, default=fields[0], label=label, view=dropdown(fields))
        inputs.bool("copy_images", default=True, label="Copy the images", view=types.CheckboxView())
        folder = inputs.str(
            "folder", required=True, label="Folder", description="A path on the machine that the App's server runs on"
        )
        if given(ctx, "folder", Text()):
            arguments = _arguments(ctx)
            passes(folder, check_export, samples, arguments["folder"], arguments["format"], arguments["text_field"])

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Export, and say how many."""
        arguments = _arguments(ctx)
        exported = ecif.export_cleaned(one_slice(chosen_samples(ctx)), **arguments)
        ctx.ops.notify(f"Exported {counted(exported, 'sample')} to {arguments['folder']}", variant="success")
        return {"exported": exported}


def _choose_suspects(ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection) -> None:
    """Add what to leave out, and say how many samples are left."""
    tags = tags_of(ctx.dataset)
    runs = {TAGGED: f"Pairs tagged “{tags.misaligned}”, “{tags.rejected}” or “{tags.empty}”"}
    runs |= {key: f"Tagged pairs, and the suspects of run “{key}”" for key in ecif.list_runs(ctx.dataset)[::-1]}
    inputs.enum("run_key", list(runs), default=TAGGED, label="Leave out", view=dropdown(runs))
    run_key, threshold = _suspects_of(ctx), None
    if run_key:
        field = inputs.float("threshold", default=SUSPECTED, label="Minimum probability of being misaligned")
        if not passes(field, chosen_threshold, ctx):
            return
        threshold = chosen_threshold(ctx)
    total, left = number_of(samples), len(cleaned(samples, run_key, threshold))
    none = "No sample is left to export: all of them are tagged or suspected."
    say_count(inputs, "count", left, f"{left:,} of {total:,} samples will be exported", none)


def _suspects_of(ctx: foo.ExecutionContext) -> str | None:
    """The run whose suspects are left out too, if there is one."""
    run_key = given(ctx, "run_key", Text())
    return None if run_key == TAGGED else run_key


def _arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The form's values as arguments of :func:`fiftyone_ecif.export_cleaned`."""
    fields, folder, run_key = text_fields(ctx.dataset), given(ctx, "folder", Text()), _suspects_of(ctx)
    if folder is None:
        raise ValueError("Name the folder to export to.")
    arguments = {
        "folder": folder,
        "format": given(ctx, "format", Choice(FORMATS), DEFAULT_FORMAT),
        "text_field": given(ctx, "text_field", Text(), fields[0] if fields else None),
        "copy_images": given(ctx, "copy_images", Flag(), True),
    }
    if run_key:
        arguments |= {"run_key": run_key, "threshold": chosen_threshold(ctx)}
    return arguments
