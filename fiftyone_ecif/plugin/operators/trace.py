"""The operators about failing queries: which there are, and which training pairs are to blame for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.run.config import kept_traces
from fiftyone_ecif.plugin.background import in_background, show_output
from fiftyone_ecif.plugin.forms import (
    choose_run,
    choose_samples,
    chosen_run,
    chosen_samples,
    compare_cost,
    dropdown,
    invalidate,
    notice,
    refuse,
    show_fields,
)
from fiftyone_ecif.plugin.operator import MODAL, EcifOperator
from fiftyone_ecif.plugin.panel.choices import keep_choices, open_panel

DIRECTIONS = {"image_to_text": "The image looks for its text", "text_to_image": "The text looks for its image"}
BLAMED = 20
SHOWN = 10
VERIFIED = 10


class FindFailures(EcifOperator):
    """Marks the samples that a run's model answers wrong, and shows them."""

    name = "find_failures"
    label = "find failing queries"
    description = "Find the samples whose image or text retrieves a wrong answer, the worst first"
    icon = "failures.svg"
    submit = "Find"
    streams = delegable = True

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
            delegate: whether to queue it for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, direction=direction)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Run, samples and direction."""
        if choose_run(ctx, inputs) is not None:
            choose_samples(ctx, inputs, "Ask about")
            _choose_direction(inputs)

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Ask, and show the failing samples, the worst first."""
        run_key, samples, direction = chosen_run(ctx), chosen_samples(ctx), _direction(ctx)
        failing = yield from in_background(
            ctx,
            "Finding failing queries",
            lambda progress: ecif.find_failures(samples, run_key, direction, progress=progress),
        )
        if failing is None or ctx.delegated:
            return
        yield ctx.ops.reload_dataset()
        yield ctx.ops.set_view(failing)
        text_field = ctx.dataset.get_run_info(run_key).config.text_field
        shown = [text_field, f"{run_key}_rank", f"{run_key}_margin"]
        yield ctx.ops.set_active_fields([name for name in shown if name])
        count, total = len(failing), len(samples)
        outputs = types.Object()
        text = f"{count:,} of {total:,} samples fail"
        notice(outputs, "count", types.Success, text, "The worst come first; open one and trace it.")
        yield show_output(ctx, outputs)


class TraceQuery(EcifOperator):
    """Shows the training pairs that are most to blame for a failing query."""

    name = "trace_query"
    label = "trace a failing query"
    description = "Show the training pairs that are to blame for a query's failure, and what removing them would do"
    icon = "trace.svg"
    submit = "Trace"
    place = MODAL
    streams = delegable = True

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
                of the one sample that the text should have found
            run_key: the run; None: the newest
            text: a text from outside that fails to find the sample
            direction: "image_to_text" or "text_to_image"; with ``text`` always the latter
            k: the most pairs to blame
            delegate: whether to queue it for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, text=text, direction=direction, k=k)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Run, query and direction."""
        run_key = choose_run(ctx, inputs)
        if run_key is not None:
            samples = choose_samples(ctx, inputs, "Trace")
            text = inputs.str(
                "text",
                label="Text from outside",
                description="That should find the sample, and does not. Left empty: the samples themselves ask",
            )
            if not ctx.params.get("text"):
                _choose_direction(inputs)
            elif len(samples) != 1:
                invalidate(text, "Choose the one sample that this text should find.")
            inputs.int("k", default=BLAMED, min=1, label="Most pairs to show")
            compare_cost(ctx, inputs, run_key, "solve")
            if len(samples) == 0:
                refuse(inputs, "nothing", "There is no sample to ask about.")

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Trace, then show the pairs, most to blame first."""
        run_key, samples, text = chosen_run(ctx), chosen_samples(ctx), ctx.params.get("text")
        direction, k = _direction(ctx), ctx.params.get("k", BLAMED)
        results = ecif.load_results(ctx.dataset, run_key)
        query: Any = samples
        if text:
            from fiftyone_ecif.dataset.ask.query import Query  # brings torch

            query = Query(text=text, right=samples.first().id)
        elif len(samples) == 1:
            query = samples.first().id
        found = yield from in_background(
            ctx,
            "Tracing a query",
            lambda progress: results.trace(query, k=k, direction=direction, progress=progress),
        )
        if found is None or ctx.delegated:
            return
        from_sample = bool(ctx.current_sample)
        if from_sample:
            yield ctx.ops.close_sample()
        yield ctx.ops.set_view(found.view())
        yield show_fields(ctx, run_key, "value")
        if from_sample:  # the App refuses to open a panel of the grid from there; one that is open turns to the trace
            keep_choices(ctx, {"tab": "trace", "run_key": run_key})
        else:
            yield open_panel(ctx, "trace", run_key)
        yield _show_trace(ctx, found)


class VerifyTrace(EcifOperator):
    """Refits the head without the pairs that are most to blame for a query."""

    name = "verify_trace"
    label = "verify a trace by refitting"
    description = "Refit the head without the pairs that are most to blame for a query, and ask the query again"
    icon = "verify.svg"
    submit = "Refit"
    streams = delegable = True

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
            delegate: whether to queue it for a worker

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, trace=trace, n=n)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Run, trace and number of pairs."""
        run_key = choose_run(ctx, inputs)
        if run_key is not None:
            keys = kept_traces(ctx.dataset, run_key)[::-1]
            if keys:
                inputs.enum("trace", keys, default=keys[0], label="Trace", view=dropdown(keys))
                inputs.int("n", default=VERIFIED, min=1, label="Pairs to remove", description="Most to blame first")
                compare_cost(ctx, inputs, run_key, "fit")
            else:
                refuse(inputs, "no_traces", "This run has no trace yet.", "Start with “ECIF: trace a failing query”.")

    def execute(self, ctx: foo.ExecutionContext) -> Iterator[Any]:
        """Refit, and show the prediction beside what was measured."""
        results = ecif.load_results(ctx.dataset, chosen_run(ctx))
        opened = results.load_trace(ctx.params.get("trace") or results.list_traces()[-1])
        n = ctx.params.get("n", VERIFIED)
        effect = yield from in_background(
            ctx, "Verifying a trace", lambda progress: opened.verify(n, progress=progress)
        )
        if effect is None or ctx.delegated:
            return
        outputs = types.Object()
        words = f"Without {effect.removed:,} pairs the {opened.kind} goes from {effect.before:.4g} to "
        words += f"{effect.measured:.4g} nats; predicted were {effect.predicted:.4g}."
        notice(outputs, "effect", types.Success, opened.query, words)
        yield show_output(ctx, outputs)


def _choose_direction(inputs: types.Object) -> None:
    inputs.enum("direction", list(DIRECTIONS), default="image_to_text", label="Direction", view=dropdown(DIRECTIONS))


def _direction(ctx: foo.ExecutionContext) -> str:
    return ctx.params.get("direction", "image_to_text")


def _show_trace(ctx: foo.ExecutionContext, found: Any) -> Any:
    """The pairs as a table, and what removing them would do to the query."""
    outputs = types.Object()
    effect = found.predicted_effect(len(found))
    notice(
        outputs,
        "effect",
        types.Success,
        f"{found.query}: {len(found):,} pairs to blame",
        f"Without them, its {found.kind} is predicted to go from {effect.before:.4g} to {effect.predicted:.4g} nats.",
    )
    for number, note in enumerate(found.notes):
        notice(outputs, f"note_{number}", types.Warning, note)
    table = types.TableView(read_only=True)
    labels = {"text": "Pair", "value": "Value (nats)", "roles": "Positive, negative", "doubt": "Doubt"}
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
