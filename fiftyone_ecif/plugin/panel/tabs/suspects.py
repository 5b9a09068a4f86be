"""The tab “Suspects”: how likely the captions are wrong, and how right that is where the truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
import plotly.graph_objects as go

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.arguments import PROBABILITY, Choice, Text, WholeNumber
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.repair import review
from fiftyone_ecif.plugin.forms import counted, dropdown, given, plural, show_fields
from fiftyone_ecif.plugin.panel.figures import (
    ABOVE,
    BELOW,
    BLUE,
    FONT,
    GREEN,
    GREY,
    HEIGHT,
    ORANGE,
    TALL,
    Figure,
    as_figure,
    axes,
    mark,
    plain,
)
from fiftyone_ecif.plugin.panel.pieces import PLOT, Points, nothing_scored, row, where
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event
from fiftyone_ecif.plugin.panel.view import base_view, looked_at, select, selection

UNKNOWN = "unknown"
BAR = WholeNumber(0, summary.BINS - 1)
LINES = (GREEN, BLUE, ORANGE, "#b07cc6", GREY)


class SuspectsTab(Tab):
    """The histogram of misalignment, a threshold on it, and what the threshold gives."""

    name = "suspects"
    label = "Suspects"
    help = "how likely the captions are wrong; drag over the bars to see their pairs."
    entries = (
        Entry("threshold", PROBABILITY, "choose_threshold", kept=True, begins_with="dataset", first=review.SUSPECTED),
        Entry("truth", Text(), "choose_truth", kept=True, begins_with="dataset", first=UNKNOWN),
    )

    # Content

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Count the pairs by misalignment and, where the truth is known, measure precision and recall."""
        state = ctx.panel.state
        state.suspects = vars(summary.suspicion(base, state.run_key, state.threshold))
        traces, state.histogram_layout = histogram_figure(state.suspects["counts"], state.threshold)
        ctx.panel.set_data("histogram", traces)
        choices = summary.truth_choices(ctx.dataset)
        state.truths, state.measured = choices, None
        if state.truth in choices and (measured := summary.measured_precision(base, state.run_key, state.truth)):
            found = next(iter(measured.values()))
            state.measured = {"average": found.average, "wrong": found.wrong}
            traces, state.precision_layout = precision_figure(measured, state.threshold)
            ctx.panel.set_data("precision", traces)

    # Layout

    def fields(self, state: Any) -> dict[str, Any]:
        return {"actions": {"threshold": state.threshold}, "truths": {"truth": state.truth}}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        if not (state.suspects or {}).get("scored"):
            nothing_scored(root, ctx)
            return
        root.md(_facts(state, where(ctx)), name="facts")
        root.plot(
            "histogram",
            layout=with_selection(state.histogram_layout, _selected_range(ctx)),
            config=PLOT,
            height=HEIGHT,
            on_selected=self.select_bars,
            on_click=self.click_bar,
        )
        self._lay_out_actions(root, state)
        if ctx.dataset.has_sample_field(FIELDS["vagueness"].name(state.run_key)):
            vague = row(root, "vague")
            vague.btn("show_vague", label="Show what says little", icon="blur_on", on_click=self.show_vague)
        self._lay_out_truth(root, state)

    def _lay_out_actions(self, root: types.Object, state: Any) -> None:
        actions = row(root, "actions")
        actions.float("threshold", default=state.threshold, label="Threshold", on_change=self.choose_threshold)
        actions.btn("show", label="Show pairs", icon="visibility", on_click=self.show_suspects, variant="contained")
        more = row(root, "asks")
        more.btn("tag", label="Tag", icon="local_offer", on_click=self.tag, variant="outlined")
        suggested = state.suspects["suggested"]
        if suggested is not None and suggested != state.threshold:
            label, params = f"Use {suggested:g}", {"value": suggested}
            more.btn("suggested", label=label, on_click=self.choose_threshold, params=params, variant="outlined")

    def _lay_out_truth(self, root: types.Object, state: Any) -> None:
        choices = {UNKNOWN: "None"} | (state.truths or {})
        if len(choices) > 1:
            # The App writes a choice into the state, by the field's path, before it reports it: no entry may lie there.
            row(root, "truths").enum(
                "truth",
                list(choices),
                default=state.truth,
                label="Ground truth: which pairs are really wrong",
                view=dropdown(choices),
                on_change=self.choose_truth,
            )
        if state.measured:
            root.md(
                f"Measured on {counted(state.measured['wrong'], 'really wrong pair')}: the average precision is "
                f"**{state.measured['average']:.3f}**. The picture compares it with other scores.",
                name="measured_words",
            )
            root.plot("precision", layout=state.precision_layout, config=PLOT, height=TALL)

    # Events

    @event
    def choose_threshold(self, ctx: foo.ExecutionContext) -> None:
        """Choose another threshold, if it is a probability."""
        value = given(ctx, "value", PROBABILITY)
        if value is not None:  # else the field was emptied, to write another value
            ctx.panel.state.threshold = value
            self.panel.show(ctx)

    @event
    def choose_truth(self, ctx: foo.ExecutionContext) -> None:
        """Choose what tells which pairs are really wrong."""
        choices = {UNKNOWN: "None"} | summary.truth_choices(ctx.dataset)
        ctx.panel.state.truth = given(ctx, "value", Choice(choices), UNKNOWN)
        self.panel.show(ctx)

    @event
    def select_bars(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of the bars that were dragged over, the most suspicious first."""
        points = given(ctx, "data", Points(), [])
        bars = [BAR("idx", point.get("idx")) for point in points if point.get("trace_idx", 0) == 0]
        if bars:  # a click alone sends an empty selection
            _select_range(ctx, min(bars) / summary.BINS, (max(bars) + 1) / summary.BINS)

    @event
    def click_bar(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of one bar."""
        bar = given(ctx, "idx", BAR)
        if bar is not None and ctx.params.get("trace_idx", 0) == 0:
            _select_range(ctx, bar / summary.BINS, (bar + 1) / summary.BINS)

    @event
    def show_suspects(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs at or above the threshold."""
        _select_range(ctx, ctx.panel.state.threshold, 1.0)

    @event
    def show_vague(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs, those first whose captions say the least."""
        run_key = ctx.panel.state.run_key
        select(ctx, review.vague(looked_at(ctx), run_key), base_view(ctx), {"by": "vagueness"})
        show_fields(ctx, run_key, "vagueness")

    @event
    def tag(self, ctx: foo.ExecutionContext) -> None:
        """Tag the pairs at or above the threshold."""
        state = ctx.panel.state
        tagged = ecif.tag_misaligned(looked_at(ctx), state.run_key, state.threshold)
        self.panel.changed(ctx, f"Tagged {counted(tagged, 'pair')} as misaligned")


def _selected_range(ctx: foo.ExecutionContext) -> list[float] | None:
    """The range that the panel's own selection is made of; None if it is made of none."""
    found = (selection(ctx) or {}).get("range")
    is_range = isinstance(found, list) and len(found) == 2 and all(isinstance(each, (int, float)) for each in found)
    return found if is_range else None


def _select_range(ctx: foo.ExecutionContext, low: float, high: float) -> None:
    """Show the pairs whose misalignment lies in a range; the last range includes 1."""
    if selection(ctx) == {"range": [low, high]}:
        return  # Plotly reports a selection once more when it is drawn anew
    run_key = ctx.panel.state.run_key
    name = FIELDS["misalignment"].name(run_key)
    inside = {"$gte": low} if high >= 1 else {"$gte": low, "$lt": high}
    chosen = looked_at(ctx).match({name: inside}).sort_by(name, reverse=True)
    select(ctx, chosen, base_view(ctx), {"range": [low, high]})
    show_fields(ctx, run_key)


def _facts(state: Any, where: str) -> str:
    """What the probabilities say of all pairs, of those at or above the threshold, and of a better threshold."""
    facts, precision = state.suspects, f"{review.SUGGESTED_PRECISION:.0%}"
    words = (
        f"**{facts['scored']:,}** scored {plural(facts['scored'], 'pair')} {where}; about "
        f"**{facts['expected_wrong']:,.0f}** of their captions are expected to be wrong. "
        f"At or above {state.threshold:g}: **{counted(facts['count'], 'pair')}**"
    )
    if facts["expected_precision"] is not None:
        words += f", {facts['expected_precision']:.0%} of them expected to be wrong"
    if facts["suggested"] is None:
        return words + f". No threshold is expected to reach a precision of {precision}."
    return words + f". From {facts['suggested']:g} on, {precision} are expected to be wrong."


# Figures


def histogram_figure(pairs: Sequence[int], threshold: float) -> Figure:
    """Pairs by misalignment, the expected precision above each value, and the threshold.

    Args:
        pairs: their numbers in bins of equal width from 0 to 1, (B,)
        threshold: the value to mark
    """
    counts, edges = np.array(pairs), np.linspace(0.0, 1.0, len(pairs) + 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    above = counts[::-1].cumsum()[::-1]
    precision = np.where(above > 0, (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1), np.nan)
    bars = go.Bar(
        name="pairs",
        x=middles.tolist(),
        y=counts.tolist(),
        width=float(width),
        marker={"color": [ORANGE if each >= threshold else GREY for each in middles]},
        customdata=[f"{left:.3g} to {right:.3g}" for left, right in itertools.pairwise(edges)],
        hovertemplate="%{customdata}: %{y:,} pairs<extra></extra>",
    )
    line = go.Scatter(
        mode="lines",
        name="expected precision above",
        x=edges[:-1].tolist(),
        y=[None if np.isnan(each) else float(each) for each in precision],
        yaxis="y2",
        line={"color": BLUE, "width": 2},
        hovertemplate="at or above %{x:.2f}: %{y:.0%} expected to be wrong<extra></extra>",
    )
    layout = axes("Misalignment probability", "Pairs").update(
        dragmode="select", selectdirection="h", bargap=0.05, showlegend=True, legend=ABOVE, shapes=[mark(threshold)],
        xaxis={"range": [0, 1]}, margin={"r": 55},
        yaxis2={
            "overlaying": "y", "side": "right", "range": [0, 1.02], "tickformat": ".0%", "showgrid": False,
            "title": {"text": "Precision", "font": FONT},
        },
    )  # fmt: skip
    return as_figure([bars, line], layout)


def with_selection(layout: dict[str, Any], selected: Sequence[float] | None) -> dict[str, Any]:
    """A figure's layout with a range of its first axis marked; unchanged if nothing is selected."""
    if selected is None:
        return layout
    low, high = selected
    area = go.layout.Shape(
        type="rect", x0=low, x1=high, y0=0, y1=1, yref="paper", layer="below", fillcolor=BLUE, opacity=0.25,
        line={"width": 0},
    )  # fmt: skip
    return layout | {"shapes": [*layout["shapes"], area.to_plotly_json()]}


def precision_figure(measured: dict[str, summary.MeasuredPrecision], threshold: float) -> Figure:
    """Measured precision against recall, and where the threshold stands.

    Args:
        measured: curves by score, the run's misalignment first
        threshold: of the misalignment
    """
    traces = [
        go.Scatter(
            mode="lines",
            name=f"{plain(name)} ({found.average:.3f})",
            x=found.recall.tolist(),
            y=found.precision.tolist(),
            text=[f"{each:.3g}" for each in found.threshold],
            line={"color": color, "width": 2 if number else 3, "dash": "dot" if number else "solid"},
            hovertemplate="at %{text}: recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
        )
        for number, (color, (name, found)) in enumerate(zip(LINES, measured.items(), strict=False))
    ]
    own = next(iter(measured.values()))
    reached = np.flatnonzero(own.threshold >= threshold - 1e-9)
    if len(reached):
        last = reached[-1]
        traces.append(
            go.Scatter(
                mode="markers",
                x=[float(own.recall[last])],
                y=[float(own.precision[last])],
                marker={"color": GREEN, "size": 10},
                showlegend=False,
                hovertemplate="at the threshold: recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
            )
        )
    shares = {"range": [0, 1.02], "tickformat": ".0%"}
    layout = axes("Recall", "Precision").update(height=TALL, showlegend=True, legend=BELOW, xaxis=shares, yaxis=shares)
    return as_figure(traces, layout)
