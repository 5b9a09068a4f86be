"""The operators that ask what a model would be without some pairs: faces over the results' removal methods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.repair import review
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import (
    choose_run,
    choose_samples,
    chosen_run,
    chosen_samples,
    compare_cost,
    invalidate,
    notice,
    refuse,
)
from fiftyone_ecif.plugin.operator import GRID, EcifOperator
from fiftyone_ecif.plugin.panel.choices import keep_forecast

FIGURES = {
    "target_loss": "Target loss (nats)",
    "recall_at_1": "Recall at 1",
    "recall_at_5": "Recall at 5",
    "zero_shot_accuracy": "Zero-shot accuracy",
}


def figure_name(name: str) -> str:
    """What a figure of a removal is called."""
    return FIGURES.get(name, name)


class RemovalOperator(EcifOperator):
    """Asks something about removing pairs; subclasses say what.

    Class attributes:
        like: the step of the run that takes about as long
    """

    like = "solve"

    streams = delegable = True

    def __call__(
        self, sample_collection: SampleCollection, run_key: str | None = None, delegate: bool = False
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to remove
            run_key: the run; None: the newest
            delegate: whether to queue it for a worker

        Returns:
            the result, whose output is shown in the App
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key)

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Add what else the subclass lets one choose."""

    def count(self, ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, run_key: str) -> None:
        """Say how many pairs are removed, or refuse."""
        name = FIELDS["value"].name(run_key)
        scored, removed = ctx.dataset.count(name), samples.count(name)
        if removed == 0:
            refuse(inputs, "count", "None of these samples was scored in this run.")
        elif removed == scored:
            reason = "These are all the pairs of the run."
            refuse(inputs, "count", reason, "Select some of them, or open a view of some.")
        else:
            notice(inputs, "count", types.Notice, f"{removed:,} of {scored:,} pairs are thought away")

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Run and samples, and how many of these the run has scored."""
        run_key = choose_run(ctx, inputs)
        if run_key is not None:
            samples = choose_samples(ctx, inputs, "Remove")
            self.count(ctx, inputs, samples, run_key)
            self.choose_more(ctx, inputs, run_key)
            compare_cost(ctx, inputs, run_key, self.like)


class EstimateRemoval(RemovalOperator):
    """Predicts the target loss without some pairs, without training."""

    name = "estimate_removal"
    label = "estimate the effect of removing pairs"
    description = "Predict the target's loss and recall without some pairs, in closed form"
    icon = "estimate.svg"
    place = GRID
    submit = "Estimate"

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Estimate, and show the figures."""
        results, samples = ecif.load_results(ctx.dataset, chosen_run(ctx)), chosen_samples(ctx)
        effect = yield from in_background(
            ctx, "Estimating a removal", lambda progress: results.estimate_removal(samples, progress=progress)
        )
        if effect is not None and not ctx.delegated:
            yield show_effect(ctx, effect)


class ForecastRemoval(RemovalOperator):
    """Predicts the target along the way, as ever more harmful pairs are removed."""

    name = "forecast_removal"
    label = "what if the most harmful pairs were removed"
    description = "Predict the target's loss and accuracy as ever more harmful pairs are removed; the panel draws it"
    icon = "estimate.svg"
    submit = "Predict"

    def count(self, ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, run_key: str) -> None:
        """Say how many pairs harm, or refuse."""
        harmful = review.harmful(samples, run_key).count()
        if harmful:
            notice(inputs, "count", types.Notice, f"{harmful:,} of these pairs harm", "The most harmful go first.")
        else:
            refuse(inputs, "count", "None of these samples was scored as harmful in this run.")

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Predict, keep the curve for the panel, and show its figures."""
        run_key, samples = chosen_run(ctx), chosen_samples(ctx)
        results = ecif.load_results(ctx.dataset, run_key)
        forecast = yield from in_background(
            ctx, "Predicting removals", lambda progress: results.forecast_removal(samples, progress=progress)
        )
        if forecast is None:
            return
        keep_forecast(ctx, run_key, samples, forecast)
        if not ctx.delegated:
            yield _show_forecast(ctx, forecast)


def _show_forecast(ctx: foo.ExecutionContext, forecast: Any) -> Any:
    """Show the figures by the number of removed pairs as a table."""
    outputs = types.Object()
    table = types.TableView(read_only=True)
    table.add_column("removed", label="Pairs removed")
    for name in forecast.predicted:
        table.add_column(name, label=figure_name(name))
    rows = [
        {"removed": f"{count:,}"} | {name: f"{values[row]:.5g}" for name, values in forecast.predicted.items()}
        for row, count in enumerate(forecast.removed)
    ]
    outputs.list("figures", types.Object(), view=table)
    return show_output(ctx, outputs, {"figures": rows})


class VerifyRemoval(RemovalOperator):
    """Refits the head without some pairs, to hold the prediction against it."""

    name = "verify_removal"
    label = "verify a removal by refitting"
    description = "Refit the head without some pairs, and compare the target's figures with the predicted ones"
    icon = "verify.svg"
    submit = "Refit"
    like = "fit"

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Refit, and show the figures beside the predicted ones."""
        results, samples = ecif.load_results(ctx.dataset, chosen_run(ctx)), chosen_samples(ctx)
        effect = yield from in_background(
            ctx, "Verifying a removal", lambda progress: results.verify_removal(samples, progress=progress)
        )
        if effect is not None and not ctx.delegated:
            yield show_effect(ctx, effect)


class ExportCheckpoint(RemovalOperator):
    """Writes the model without the influence of some pairs."""

    name = "export_checkpoint"
    label = "export the edited checkpoint"
    description = "Write an open_clip checkpoint with the influence of some pairs removed in closed form"
    icon = "checkpoint.svg"
    submit = "Export"

    def __call__(  # type: ignore[override]
        self,
        sample_collection: SampleCollection,
        path: str,
        run_key: str | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples whose influence is removed
            path: of the checkpoint; ends in .pt or .safetensors
            run_key: the run; None: the newest
            delegate: whether to queue it for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, path=path)

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """The path."""
        if ctx.dataset.get_run_info(run_key).config.model is None:
            refuse(inputs, "no_model", "This run used stored embeddings: there is no model to edit.")
            return
        field = inputs.str(
            "path",
            required=True,
            label="File",
            description="On the machine that the App's server runs on; ends in .pt or .safetensors",
        )
        path = ctx.params.get("path")
        if path and not path.endswith((".pt", ".safetensors")):
            invalidate(field, "The name must end in .pt or .safetensors.")
        elif path and not Path(path).expanduser().is_absolute():
            invalidate(field, "Begin with / or ~.")
        elif path and Path(path).expanduser().exists():
            invalidate(field, "There is such a file already.")
        elif path and not Path(path).expanduser().parent.is_dir():
            invalidate(field, "There is no such folder.")

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Write it, and say where and how to load it."""
        results, samples = ecif.load_results(ctx.dataset, chosen_run(ctx)), chosen_samples(ctx)
        path, model = str(Path(ctx.params["path"]).expanduser()), results.config.model
        written = yield from in_background(
            ctx,
            "Editing a checkpoint",
            lambda progress: results.edited_checkpoint(samples, path, progress=progress),
        )
        if written is not None and not ctx.delegated:
            outputs = types.Object()
            how = f"open_clip.create_model_and_transforms({model!r}, pretrained={path!r}) loads it."
            notice(outputs, "written", types.Success, f"Wrote {path}", how)
            yield show_output(ctx, outputs)


def show_effect(ctx: foo.ExecutionContext, effect: Any) -> Any:
    """Show the figures of a removal as a table."""
    outputs = types.Object()
    table = types.TableView(read_only=True)
    columns = {"figure": f"Without {effect.removed:,} pairs", "before": "Now", "predicted": "Predicted"}
    if effect.measured is not None:
        columns["measured"] = "Measured"
    for key, label in columns.items():
        table.add_column(key, label=label)
    rows = [
        {"figure": figure_name(name), "before": f"{before:.5g}", "predicted": f"{effect.predicted[name]:.5g}"}
        | ({} if effect.measured is None else {"measured": f"{effect.measured[name]:.5g}"})
        for name, before in effect.before.items()
    ]
    outputs.list("figures", types.Object(), view=table)
    for number, warning in enumerate(effect.warnings):
        notice(outputs, f"warning_{number}", types.Warning, warning)
    return show_output(ctx, outputs, {"figures": rows})
