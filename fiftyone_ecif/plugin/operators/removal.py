"""The operators that ask what a model would be without some pairs: faces over the results' removal methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import AbsolutePath
from fiftyone_ecif.dataset.checks import score_field
from fiftyone_ecif.dataset.repair import review
from fiftyone_ecif.dataset.samples import everything, ungrouped
from fiftyone_ecif.plugin.background import Progress, show_output
from fiftyone_ecif.plugin.descriptions import ERRORS_EXPLAINED, before_and_after, figure_name, with_error
from fiftyone_ecif.plugin.forms import (
    choose_samples,
    chosen_run,
    chosen_samples,
    compare_cost,
    counted,
    given,
    notice,
    passes,
    refuse,
    say_count,
)
from fiftyone_ecif.plugin.operator import GRID
from fiftyone_ecif.plugin.panel.choices import keep_forecast
from fiftyone_ecif.plugin.run_operator import RunJob


class RemovalOperator(RunJob):
    """Asks what removing pairs would do; subclasses say how.

    Class attributes:
        like: the step of the run that takes about as long
    """

    like = "solve"

    def __call__(
        self, sample_collection: SampleCollection, run_key: str | None = None, delegate: bool = False
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to remove
            run_key: the run; None: the newest
            delegate: whether to queue the work for a worker

        Returns:
            the result, whose output is shown in the App
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key)

    def ask(self, ctx: foo.ExecutionContext, results: Any, samples: SampleCollection, progress: Progress) -> Any:
        """Ask the results about removing the samples."""
        raise NotImplementedError

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Add what else the subclass lets the user choose."""

    def count(self, ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, run_key: str) -> None:
        """Say how many pairs are removed, or refuse."""
        name = score_field(ctx.dataset, run_key, "value")
        scored, removed = everything(ctx.dataset).count(name), ungrouped(samples).count(name)
        if removed == 0:
            refuse(inputs, "count", "None of these samples was scored in this run.")
        elif removed == scored:
            reason = "These are all the pairs of the run."
            refuse(inputs, "count", reason, "Select some of them, or open a view of some.")
        else:
            text = f"{removed:,} of the run's {scored:,} pairs are assumed to be removed"
            notice(inputs, "count", types.Notice, text, "The dataset itself stays as it is.")

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        samples = choose_samples(ctx, inputs, "Remove")
        self.count(ctx, inputs, samples, run_key)
        self.choose_more(ctx, inputs, run_key)
        compare_cost(ctx, inputs, run_key, self.like)

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        results, samples = ecif.load_results(ctx.dataset, chosen_run(ctx)), chosen_samples(ctx)
        return lambda progress: self.ask(ctx, results, samples, progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        yield _show_effect(ctx, result)


class EstimateRemoval(RemovalOperator):
    """Predicts the target's figures without some pairs, without training."""

    name = "estimate_removal"
    label = "estimate the effect of removing pairs"
    description = "Predict the target's loss and recall without some pairs, in closed form"
    icon = "estimate.svg"
    place = GRID
    submit = "Estimate"
    risk = "low"
    title = "Estimating a removal"

    def ask(self, ctx: foo.ExecutionContext, results: Any, samples: SampleCollection, progress: Progress) -> Any:
        return results.estimate_removal(samples, progress=progress)


class ForecastRemoval(RemovalOperator):
    """Predicts the target's figures as more and more of the harmful pairs are removed, and keeps them for the panel."""

    name = "forecast_removal"
    label = "what if the most harmful pairs were removed"
    description = "Predict the target's loss and accuracy as more and more harmful pairs are removed, for the panel"
    icon = "estimate.svg"
    submit = "Predict"
    risk = "low"
    title = "Predicting removals"

    def count(self, ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, run_key: str) -> None:
        """Say how many pairs harm, or refuse."""
        harmful = review.harmful(samples, run_key).count()
        text = f"{harmful:,} of these pairs are harmful"
        none = "None of these samples was scored as harmful in this run."
        say_count(inputs, "count", harmful, text, none, "The most harmful are removed first.")

    def ask(self, ctx: foo.ExecutionContext, results: Any, samples: SampleCollection, progress: Progress) -> Any:
        forecast = results.forecast_removal(samples, progress=progress)
        keep_forecast(ctx, results.run_key, samples, forecast)
        return forecast

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Show the figures by the number of removed pairs as a table."""
        outputs = types.Object()
        table = types.TableView(read_only=True)
        table.add_column("removed", label="Pairs removed")
        for name in result.predicted:
            table.add_column(name, label=figure_name(name))
        errors = result.standard_error
        rows = [
            {"removed": f"{count:,}"}
            | {
                name: with_error(f"{values[row]:.5g}", errors[name][row] if errors else None)
                for name, values in result.predicted.items()
            }
            for row, count in enumerate(result.removed)
        ]
        outputs.list("figures", types.Object(), view=table)
        if errors:
            notice(outputs, "errors", types.Notice, ERRORS_EXPLAINED)
        yield show_output(ctx, outputs, {"figures": rows})


class VerifyRemoval(RemovalOperator):
    """Refits the head without some pairs, and compares the result with the prediction."""

    name = "verify_removal"
    label = "verify a removal by refitting"
    description = "Refit the head without some pairs, and compare the target's figures with the predicted ones"
    icon = "verify.svg"
    submit = "Refit"
    risk = "medium"
    title = "Verifying a removal"
    like = "fit"

    def ask(self, ctx: foo.ExecutionContext, results: Any, samples: SampleCollection, progress: Progress) -> Any:
        return results.verify_removal(samples, progress=progress)


class ExportCheckpoint(RemovalOperator):
    """Writes the model without the influence of some pairs."""

    name = "export_checkpoint"
    label = "export the edited checkpoint"
    description = "Write an open_clip checkpoint from which the influence of some pairs is removed in closed form"
    icon = "checkpoint.svg"
    submit = "Export"
    risk = "high"
    title = "Editing a checkpoint"

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
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, path=path)

    def choose_more(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Add the checkpoint's path."""
        if ctx.dataset.get_run_info(run_key).config.model is None:
            refuse(inputs, "no_model", "This run used stored embeddings, so there is no model to edit.")
            return
        field = inputs.str(
            "path",
            required=True,
            label="File",
            description="A path on the machine that the App's server runs on, ending in .pt or .safetensors",
        )
        if ctx.params.get("path"):
            passes(field, _checked_path, ctx)

    def ask(self, ctx: foo.ExecutionContext, results: Any, samples: SampleCollection, progress: Progress) -> Any:
        return results.edited_checkpoint(samples, _checked_path(ctx), progress=progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Say where the checkpoint is, and how to load it."""
        outputs = types.Object()
        model = ctx.dataset.get_run_info(chosen_run(ctx)).config.model
        how = f"Load it with open_clip.create_model_and_transforms({model!r}, pretrained={result!r})."
        notice(outputs, "written", types.Success, f"Wrote {result}", how)
        yield show_output(ctx, outputs)


def _checked_path(ctx: foo.ExecutionContext) -> str:
    """Where the checkpoint is to be written; raises a ValueError if it cannot be written there."""
    place = given(ctx, "path", AbsolutePath())
    if place is None:
        raise ValueError("Name the file to write.")
    if not place.name.endswith((".pt", ".safetensors")):
        raise ValueError("The name must end in .pt or .safetensors.")
    if place.exists():
        raise ValueError("This file already exists.")
    if not place.parent.is_dir():
        raise ValueError("There is no such folder.")
    return str(place)


def _show_effect(ctx: foo.ExecutionContext, effect: Any) -> Any:
    """Show the figures of a removal as a table."""
    outputs = types.Object()
    table = types.TableView(read_only=True)
    columns = {"figure": f"Without {counted(effect.removed, 'pair')}", "before": "Now", "predicted": "Predicted"}
    if effect.measured is not None:
        columns["measured"] = "Measured"
    for key, label in columns.items():
        table.add_column(key, label=label)
    errors = effect.standard_error
    rows = []
    for name, figure in effect.before.items():
        before, predicted = before_and_after(figure, effect.predicted[name], errors.get(name), 5)
        measured = {} if effect.measured is None else {"measured": f"{effect.measured[name]:.5g}"}
        rows.append({"figure": figure_name(name), "before": before, "predicted": predicted} | measured)
    outputs.list("figures", types.Object(), view=table)
    if errors:
        notice(outputs, "errors", types.Notice, ERRORS_EXPLAINED)
    for number, warning in enumerate(effect.warnings):
        notice(outputs, f"warning_{number}", types.Warning, warning)
    return show_output(ctx, outputs, {"figures": rows})
