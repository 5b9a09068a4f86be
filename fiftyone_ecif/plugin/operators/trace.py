"""The operators about failing queries: which queries fail, and which training pairs are to blame for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import COUNT, Choice, Text
from fiftyone_ecif.dataset.run.config import kept_traces
from fiftyone_ecif.dataset.samples import number_of
from fiftyone_ecif.plugin.background import Progress, show_output
from fiftyone_ecif.plugin.descriptions import before_and_after
from fiftyone_ecif.plugin.forms import (
    choose_samples,
    chosen_run,
    chosen_samples,
    compare_cost,
    counted,
    dropdown,
    given,
    invalidate,
    notice,
    one_slice,
    passes,
    refuse,
    show_fields,
)
from fiftyone_ecif.plugin.operator import MODAL
from fiftyone_ecif.plugin.panel.choices import keep_choices, open_panel
from fiftyone_ecif.plugin.run_operator import RunJob

DIRECTIONS = {
    "image_to_text": "Image to text: the image retrieves a text",
    "text_to_image": "Text to image: the text retrieves an image",
}
NO_TRACE = ("This run has no trace yet.", "Use “ECIF: trace a failing query” first.")
BLAMED = 20
SHOWN = 10
VERIFIED = 10


class FindFailures(RunJob):
    """Marks the samples that a run's model answers wrongly, and shows them."""

    name = "find_failures"
    label = "find failing queries"
    description = "Find the samples whose image or text retrieves a wrong answer, the worst first"
    icon = "failures.svg"
    risk = "medium"
    submit = "Find"
    title = "Finding failing queries"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        direction: str | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the samples to ask about
            run_key: the run; None: the newest
            direction: "image_to_text" or "text_to_image"
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, direction=direction)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for samples and direction."""
        choose_samples(ctx, inputs, "Ask about")
        _choose_direction(inputs)

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        run_key, samples, direction = chosen_run(ctx), one_slice(chosen_samples(ctx)), _direction(ctx)
        return lambda progress: ecif.find_failures(samples, run_key, direction, progress=progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Show the failing samples, the worst first."""
        run_key = chosen_run(ctx)
        yield ctx.ops.reload_dataset()
        yield ctx.ops.set_view(result)
        text_field = ctx.dataset.get_run_info(run_key).config.text_field
        shown = [text_field, f"{run_key}_rank", f"{run_key}_margin"]
        yield ctx.ops.set_active_fields([name for name in shown if name])
        outputs = types.Object()
        text = f"{len(result):,} of {number_of(one_slice(chosen_samples(ctx))):,} samples fail"
        notice(outputs, "count", types.Success, text, "The worst come first. Open one of them to trace it.")
        yield show_output(ctx, outputs)


class TraceQuery(RunJob):
    """Shows the training pairs that are most to blame for a failing query."""

    name = "trace_query"
    label = "trace a failing query"
    description = "Show which training pairs are to blame for a query's failure, and what removing them would do"
    icon = "trace.svg"
    risk = "medium"
    submit = "Trace"
    place = MODAL
    title = "Tracing a query"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        text: str | None = None,
        direction: str | None = None,
        k: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: a view of the failing sample; of several, which are traced together; or, with ``text``,
                of the one sample that the text should have retrieved
            run_key: the run; None: the newest
            text: a text from outside the dataset that fails to retrieve the sample
            direction: "image_to_text" or "text_to_image"; with ``text`` always the latter
            k: the maximum number of pairs to show
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, text=text, direction=direction, k=k)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for query, direction and number of pairs."""
        samples = one_slice(choose_samples(ctx, inputs, "Trace"))
        text = inputs.str(
            "text",
            label="Text from outside the dataset",
            description="A text that fails to retrieve the chosen sample. Leave empty to trace the samples themselves",
        )
        if not given(ctx, "text", Text()):
            _choose_direction(inputs)
        elif number_of(samples) != 1:
            invalidate(text, "Choose the one sample that this text should retrieve.")
        most = inputs.int("k", default=BLAMED, min=1, label="Maximum number of pairs")
        passes(most, given, ctx, "k", COUNT, BLAMED, "The number of pairs")
        compare_cost(ctx, inputs, run_key, "solve")
        if number_of(samples) == 0:
            refuse(inputs, "nothing", "There is no sample to trace.")

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        run_key, samples, text = chosen_run(ctx), one_slice(chosen_samples(ctx)), given(ctx, "text", Text())
        direction, k = _direction(ctx), given(ctx, "k", COUNT, BLAMED)
        results = ecif.load_results(ctx.dataset, run_key)
        query: Any = samples
        if text:
            from fiftyone_ecif.dataset.ask.query import Query  # brings torch

            if number_of(samples) != 1:
                raise ValueError("Choose the one sample that this text should retrieve.")
            query = Query(text=text, right=samples.first().id)
        elif number_of(samples) == 1:
            query = samples.first().id
        return lambda progress: results.trace(query, k=k, direction=direction, progress=progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Show the pairs, most to blame first, in the grid and in the panel."""
        run_key, from_sample = chosen_run(ctx), bool(ctx.current_sample)
        if from_sample:
            yield ctx.ops.close_sample()
        yield ctx.ops.set_view(result.view())
        yield show_fields(ctx, run_key, "value")
        if from_sample:  # the App opens no panel from an open sample; one that is open already turns to the trace
            keep_choices(ctx, {"tab": "trace", "run_key": run_key})
        else:
            yield open_panel(ctx, "trace", run_key)
        yield _show_trace(ctx, result)


class VerifyTrace(RunJob):
    """Refits the head without the pairs that are most to blame for a query."""

    name = "verify_trace"
    label = "verify a trace by refitting"
    description = "Refit the head without the pairs that are most to blame for a query, and ask the query again"
    icon = "verify.svg"
    risk = "medium"
    submit = "Refit"
    title = "Verifying a trace"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        trace: str | None = None,
        n: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            trace: the trace's key; None: the newest
            n: how many of the first pairs to remove
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, trace=trace, n=n)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask for trace and number of pairs."""
        keys = kept_traces(ctx.dataset, run_key)[::-1]
        if not keys:
            refuse(inputs, "no_traces", *NO_TRACE)
            return
        inputs.enum("trace", keys, default=keys[0], label="Trace", view=dropdown(keys))
        description = "Those that are most to blame are removed first"
        field = inputs.int("n", default=VERIFIED, min=1, label="Pairs to remove", description=description)
        passes(field, given, ctx, "n", COUNT, VERIFIED, "The number of pairs")
        compare_cost(ctx, inputs, run_key, "fit")

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], Any]:
        opened, n = _opened_trace(ctx), given(ctx, "n", COUNT, VERIFIED)
        return lambda progress: opened.verify(n, progress=progress)

    def show(self, ctx: foo.ExecutionContext, result: Any) -> Iterator[Any]:
        """Show the prediction beside what was measured."""
        opened, outputs = _opened_trace(ctx), types.Object()
        before, predicted = before_and_after(result.before, result.predicted, result.standard_error)
        words = (
            f"Without {counted(result.removed, 'pair')}, the {opened.kind} goes from {before} to "
            f"{result.measured:.4g} nats; the prediction was {predicted} nats."
        )
        notice(outputs, "effect", types.Success, opened.query, words)
        yield show_output(ctx, outputs)


def _opened_trace(ctx: foo.ExecutionContext) -> Any:
    """The trace that the form names; the newest if it names none."""
    results = ecif.load_results(ctx.dataset, chosen_run(ctx))
    key = given(ctx, "trace", Text())
    if key is None:
        keys = results.list_traces()
        if not keys:
            raise ValueError(" ".join(NO_TRACE))
        key = keys[-1]
    return results.load_trace(key)


def _choose_direction(inputs: types.Object) -> None:
    inputs.enum("direction", list(DIRECTIONS), default="image_to_text", label="Direction", view=dropdown(DIRECTIONS))


def _direction(ctx: foo.ExecutionContext) -> str:
    return given(ctx, "direction", Choice(DIRECTIONS), "image_to_text")


def _show_trace(ctx: foo.ExecutionContext, found: Any) -> Any:
    """Show the pairs as a table, and what removing them would do to the query."""
    outputs = types.Object()
    effect = found.predicted_effect(len(found))
    before, predicted = before_and_after(effect.before, effect.predicted, effect.standard_error)
    notice(
        outputs,
        "effect",
        types.Success,
        f"{found.query}: {counted(len(found), 'pair')} to blame",
        f"Without them, the {found.kind} is predicted to go from {before} to {predicted} nats.",
    )
    for number, note in enumerate(found.notes):
        notice(outputs, f"note_{number}", types.Warning, note)
    table = types.TableView(read_only=True)
    labels = {"text": "Pair", "value": "Value (nats)", "roles": "Positive, negative", "doubt": "Probability wrong"}
    for key, label in labels.items():
        table.add_column(key, label=label)
    rows = [
        {
            "text": row["text"] or row["id"],
            "value": f"{row['value']:.3g}",
            "roles": f"{row['value_positive']:.3g}, {row['value_negative']:.3g}",
            "doubt": f"{row['doubt']:.2f}",
        }
        for row in found.table()[:SHOWN]
    ]
    outputs.list("pairs", types.Object(), view=table)
    return show_output(ctx, outputs, {"pairs": rows})
