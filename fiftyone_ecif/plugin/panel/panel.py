"""The panel “ECIF”: a run seen as pictures, its suspects reviewed one by one, and what removing pairs would do.

Here are its events. What a tab shows is computed by :mod:`fiftyone_ecif.plugin.panel.panel_content` when it is
needed, and laid out by :mod:`fiftyone_ecif.plugin.panel.panel_layout`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.fields import FIELDS, SCORE_FIELDS
from fiftyone_ecif.dataset.repair import fixes, review
from fiftyone_ecif.dataset.run.config import kept_traces
from fiftyone_ecif.plugin.forms import show_fields
from fiftyone_ecif.plugin.jobs import cancel_job, running_jobs
from fiftyone_ecif.plugin.panel import panel_content, panel_layout
from fiftyone_ecif.plugin.panel.answers import has_moved, in_few_words, is_following, is_new
from fiftyone_ecif.plugin.panel.choices import PANEL, keep_choices, kept_choices
from fiftyone_ecif.plugin.panel.view import base_view, looked_at, select, selection

SHOWN = ("run_key", "tab")
KEPT = (*SHOWN, "threshold", "truth", "remove", "trace")
"""What is chosen for all pages of a dataset's panel, and brought back by a reload; first what decides what is seen."""


def says_why(event: Callable[[EcifPanel, foo.ExecutionContext], None]) -> Callable:
    """An event that, where it cannot be done, says why in plain words."""

    @functools.wraps(event)
    def said(panel: EcifPanel, ctx: foo.ExecutionContext) -> None:
        try:
            event(panel, ctx)
        except ValueError as error:
            ctx.ops.notify(str(error), variant="error")
            panel.refresh(ctx)

    return said


def _differ(state: Any, kept: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether a panel's state is not what was last chosen, as far as that is kept."""
    return any(kept[name] != state.get(name) for name in names if name in kept)


class EcifPanel(foo.Panel):
    """See, trust and repair what a run found."""

    @property
    def config(self) -> foo.PanelConfig:
        """Beside the samples grid, once."""
        return foo.PanelConfig(
            name=PANEL,
            label="ECIF",
            icon="/assets/compute.svg",
            category=foo.Categories.CURATE,
            surfaces="grid",
            allow_multiple=False,
            help_markdown=panel_layout.HELP,
        )

    # What FiftyOne calls

    def execute(self, ctx: foo.ExecutionContext) -> object:
        """Answer an event, unless it brings nothing new."""
        known = dict(ctx.panel_state)
        if not is_new(ctx):
            return None
        result = super().execute(ctx)
        if is_following(ctx) and _differ(ctx.panel.state, kept_choices(ctx), SHOWN):
            ctx.executor._requests.clear()  # meanwhile somebody chose something else, and the answer to that shows it
        in_few_words(ctx, known)
        return result

    def on_load(self, ctx: foo.ExecutionContext) -> None:
        """Begin where the dataset was left."""
        self._begin(ctx)
        self._show(ctx)

    def on_change_dataset(self, ctx: foo.ExecutionContext) -> None:
        """Begin anew on another dataset."""
        self.on_load(ctx)

    def on_change_ctx(self, ctx: foo.ExecutionContext) -> None:
        """Follow the view and the selected samples; what the panel itself put at the view's end changes no picture.

        The event knows the choices of the page that sends it, and when it did; a later choice counts, on whatever page.
        """
        moved, state, kept = has_moved(ctx), ctx.panel.state, kept_choices(ctx)
        if not moved and not _differ(state, kept, KEPT):
            return
        if _differ(state, kept, ("tab",)):
            state.turns = (state.turns or 0) + 1
        state.set(kept | ({"page": 0} if moved else {}))
        self._show(ctx)

    def render(self, ctx: foo.ExecutionContext) -> types.Property:
        """Lay out what the state says."""
        return panel_layout.layout(self, ctx)

    # Choices

    def choose_run(self, ctx: foo.ExecutionContext) -> None:
        """Another run."""
        new = {"run_key": ctx.params["value"], "page": 0, "remove": 0, "trace": None, "newest_trace": None}
        ctx.panel.state.set(new)
        self._show(ctx)

    def choose_tab(self, ctx: foo.ExecutionContext) -> None:
        """Another tab."""
        ctx.panel.state.tab = ctx.params["value"]
        self._show(ctx)

    def choose_threshold(self, ctx: foo.ExecutionContext) -> None:
        """Another threshold, where it is a probability."""
        value = ctx.params.get("value")
        if isinstance(value, (int, float)) and 0 <= value <= 1:
            ctx.panel.state.threshold = float(value)
            self._show(ctx)

    def choose_truth(self, ctx: foo.ExecutionContext) -> None:
        """What tells which pairs are really wrong."""
        ctx.panel.state.truth = ctx.params["value"]
        self._show(ctx)

    def choose_remove(self, ctx: foo.ExecutionContext) -> None:
        """How many of the most harmful pairs to think away."""
        value = ctx.params.get("value")
        if isinstance(value, (int, float)) and value >= 0:
            ctx.panel.state.remove = int(value)
            self._show(ctx)

    def choose_trace(self, ctx: foo.ExecutionContext) -> None:
        """Another of the run's traces."""
        ctx.panel.state.set({"trace": ctx.params["value"], "remove_traced": None})
        self._show(ctx)

    def choose_remove_traced(self, ctx: foo.ExecutionContext) -> None:
        """How many of the pairs that are most to blame to think away."""
        value = ctx.params.get("value")
        if isinstance(value, (int, float)) and value >= 1:
            ctx.panel.state.remove_traced = int(value)
            self._show(ctx)

    def refresh(self, ctx: foo.ExecutionContext) -> None:
        """Look again, for a job may be done."""
        self._show(ctx)

    # Selections on pictures

    def select_bars(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of the bars that were dragged over, the most suspicious first."""
        bars = [point["idx"] for point in ctx.params.get("data") or [] if point.get("trace_idx", 0) == 0]
        if bars:  # a click alone sends an empty selection
            self._select_range(ctx, min(bars) / summary.BINS, (max(bars) + 1) / summary.BINS)

    def click_bar(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of one bar."""
        if ctx.params.get("trace_idx", 0) == 0:
            bar = ctx.params["idx"]
            self._select_range(ctx, bar / summary.BINS, (bar + 1) / summary.BINS)

    def show_suspects(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs at or above the threshold."""
        self._select_range(ctx, ctx.panel.state.threshold, 1.0)

    def _select_range(self, ctx: foo.ExecutionContext, low: float, high: float) -> None:
        if selection(ctx) == {"range": [low, high]}:
            return  # Plotly says so once more when it is drawn anew
        run_key = ctx.panel.state.run_key
        name = FIELDS["misalignment"].name(run_key)
        inside = {"$gte": low} if high >= 1 else {"$gte": low, "$lt": high}
        chosen = looked_at(ctx).match({name: inside}).sort_by(name, reverse=True)
        select(ctx, chosen, base_view(ctx), {"range": [low, high]})
        show_fields(ctx, run_key)

    def select_points(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs inside the lasso."""
        ids = [point["id"] for point in ctx.params.get("data") or [] if point.get("id")]
        if ids:
            base = base_view(ctx)
            select(ctx, base.select(ids), base, {"points": len(ids)})
            show_fields(ctx, ctx.panel.state.run_key, "value")

    def click_curve(self, ctx: foo.ExecutionContext) -> None:
        """Think away as many pairs as the point stands for."""
        ctx.panel.state.remove = int(ctx.params.get("x") or 0)
        self._show(ctx)

    def show_harmful(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs that are thought away, the most harmful first."""
        state = ctx.panel.state
        chosen = review.harmful(looked_at(ctx), state.run_key).limit(max(1, state.remove))
        select(ctx, chosen, base_view(ctx), {"harmful": state.remove})
        show_fields(ctx, state.run_key, "value")

    def click_blamed(self, ctx: foo.ExecutionContext) -> None:
        """Open a pair of the trace."""
        if ctx.params.get("id"):
            ctx.ops.open_sample(id=ctx.params["id"])

    @says_why
    def show_blamed(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of the trace, most to blame first."""
        state, results = ctx.panel.state, ecif.load_results(ctx.dataset, ctx.panel.state.run_key)
        blamed = results.load_trace(state.trace).view(state.remove_traced)
        select(ctx, blamed, ctx.dataset.view(), {"trace": state.trace})  # the view may hold none of them
        show_fields(ctx, state.run_key, "value")

    @says_why
    def delete_trace(self, ctx: foo.ExecutionContext) -> None:
        """Forget the trace."""
        state = ctx.panel.state
        ecif.load_results(ctx.dataset, state.run_key).delete_trace(state.trace)
        state.set({"trace": None, "newest_trace": None})
        self._show(ctx)

    # Forms of operators, after which the panel looks again

    def compute(self, ctx: foo.ExecutionContext) -> None:
        """Compute a run."""
        self._prompt(ctx, "compute_influence")

    def find_failures(self, ctx: foo.ExecutionContext) -> None:
        """Find the queries that fail."""
        self._prompt(ctx, "find_failures", run_key=ctx.panel.state.run_key)

    def estimate(self, ctx: foo.ExecutionContext) -> None:
        """Estimate the removal of the pairs that the grid shows."""
        self._prompt(ctx, "estimate_removal", run_key=ctx.panel.state.run_key)

    def verify(self, ctx: foo.ExecutionContext) -> None:
        """Refit without the pairs that the grid shows."""
        self._prompt(ctx, "verify_removal", run_key=ctx.panel.state.run_key)

    def forecast(self, ctx: foo.ExecutionContext) -> None:
        """Predict loss and accuracy along the curve."""
        self._prompt(ctx, "forecast_removal", run_key=ctx.panel.state.run_key)

    def verify_trace(self, ctx: foo.ExecutionContext) -> None:
        """Refit without the pairs that are most to blame."""
        state = ctx.panel.state
        self._prompt(ctx, "verify_trace", run_key=state.run_key, trace=state.trace, n=state.remove_traced)

    def _prompt(self, ctx: foo.ExecutionContext, operator: str, **params: object) -> None:
        ctx.prompt(f"@ecif/ecif/{operator}", params=params, on_success=self.refresh)

    def clear_selection(self, ctx: foo.ExecutionContext) -> None:
        """Show the view again that the panel's selection was made in."""
        base = base_view(ctx)
        ctx.ops.set_view(base) if len(base._serialize()) else ctx.ops.clear_view()

    # Repairs

    @says_why
    def tag(self, ctx: foo.ExecutionContext) -> None:
        """Tag the pairs at or above the threshold."""
        state = ctx.panel.state
        tagged = ecif.tag_misaligned(looked_at(ctx), state.run_key, state.threshold)
        self._changed(ctx, f"Tagged {tagged:,} pairs as misaligned")

    @says_why
    def accept(self, ctx: foo.ExecutionContext) -> None:
        """Replace a card's caption by the suggestion."""
        report = ecif.apply_suggestions(self._card(ctx), ctx.panel.state.run_key, by=ctx.user_id)
        self._changed(ctx, "Replaced the caption" if report.changed else f"Nothing was replaced: {report}")

    @says_why
    def find(self, ctx: foo.ExecutionContext) -> None:
        """Compute a suggestion for a card that has none."""
        found = ecif.load_results(ctx.dataset, ctx.panel.state.run_key).suggest(self._card(ctx))
        self._changed(ctx, "Found a suggestion" if found else "No caption of the data set fits this image better")

    @says_why
    def fine(self, ctx: foo.ExecutionContext) -> None:
        """Mark a card's pair as fine."""
        ecif.mark_as_fine(self._card(ctx))
        self._changed(ctx, "Marked as fine")

    @says_why
    def reject(self, ctx: foo.ExecutionContext) -> None:
        """Mark a card's pair as wrong, and its suggestion too."""
        ecif.reject(self._card(ctx))
        self._changed(ctx, "Rejected: it is left out of the cleaned set")

    @says_why
    def undo(self, ctx: foo.ExecutionContext) -> None:
        """Take back what the latest action replaced."""
        report = ecif.undo_fixes(fixes.last_fixed(ctx.dataset))
        self._changed(ctx, f"Undo: {report}")

    def open_card(self, ctx: foo.ExecutionContext) -> None:
        """Open a card's sample."""
        ctx.ops.open_sample(id=ctx.params["id"])

    def next_page(self, ctx: foo.ExecutionContext) -> None:
        """The next cards."""
        ctx.panel.state.page += 1
        self._show(ctx)

    def previous_page(self, ctx: foo.ExecutionContext) -> None:
        """The cards before."""
        ctx.panel.state.page = max(0, ctx.panel.state.page - 1)
        self._show(ctx)

    def cancel(self, ctx: foo.ExecutionContext) -> None:
        """Stop a running job."""
        cancel_job(ctx, ctx.params["id"])
        ctx.ops.notify("ECIF: the job will stop at its next step", variant="info")

    def _card(self, ctx: foo.ExecutionContext) -> fo.DatasetView:
        card = ctx.dataset.select([ctx.params["id"]])
        if not card:
            raise ValueError("This sample was deleted meanwhile.")
        return card

    def _changed(self, ctx: foo.ExecutionContext, message: str) -> None:
        """Let the grid and the panel show a change of the data."""
        ctx.ops.reload_dataset()
        ctx.ops.notify(message, variant="success")
        self._show(ctx)

    # What the tabs show

    def _begin(self, ctx: foo.ExecutionContext) -> None:
        """Set the state that the events stand on."""
        first = {
            "tab": "suspects",
            "threshold": review.SUSPECTED,
            "truth": panel_layout.UNKNOWN,
            "remove": 0,
            "page": 0,
        }
        ctx.panel.state.set(first | kept_choices(ctx))

    def _show(self, ctx: foo.ExecutionContext) -> None:
        """Compute what the chosen tab shows, or say why there is nothing to see."""
        state = ctx.panel.state
        if state.tab is None:  # the App may send an event before the state of loading has come back to it
            self._begin(ctx)
        state.jobs = [{"id": job.id, "title": job.title, "label": job.label} for job in running_jobs(ctx)]
        state.problem = panel_layout.problem(ctx)
        runs = ecif.list_runs(ctx.dataset)
        if state.run_key not in runs:
            state.run_key = runs[-1] if runs else None
            keep_choices(ctx, {"run_key": state.run_key})
        if state.problem or not state.run_key:
            return
        fields = [field.name(state.run_key) for field in SCORE_FIELDS]
        gone = [name for name in fields if not ctx.dataset.has_sample_field(name)]
        if gone:
            state.problem = f"Field {gone[0]!r} was deleted: compute the run again."
            return
        if not is_following(ctx):
            keep_choices(ctx, {name: state.get(name) for name in KEPT})
        self._turn_to_new_trace(ctx)
        try:
            panel_content.CONTENT[state.tab](ctx, looked_at(ctx))
            state.set(panel_layout.filled_in(state))
        except ValueError as error:  # what was there a moment ago is gone: another page deleted it
            state.problem = str(error)

    def _turn_to_new_trace(self, ctx: foo.ExecutionContext) -> None:
        """Show a trace that was made since the last look."""
        state = ctx.panel.state
        newest = next(reversed(kept_traces(ctx.dataset, state.run_key)), "")
        if state.newest_trace is not None and newest not in ("", state.newest_trace):
            state.set({"tab": "trace", "turns": (state.turns or 0) + 1, "trace": newest, "remove_traced": None})
            keep_choices(ctx, {"tab": "trace", "trace": newest})
        state.newest_trace = newest
