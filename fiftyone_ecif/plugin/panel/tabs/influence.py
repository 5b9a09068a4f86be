"""The tab “Influence”: what the pairs do in either role, and what removing the most harmful ones would do."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
import plotly.graph_objects as go

from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.arguments import MOST, Number, SampleId, WholeNumber
from fiftyone_ecif.dataset.repair import review
from fiftyone_ecif.dataset.samples import ungrouped
from fiftyone_ecif.plugin.descriptions import ERRORS_EXPLAINED, before_and_after, figure_name, with_error
from fiftyone_ecif.plugin.forms import counted, escaped, given, notice, show_fields
from fiftyone_ecif.plugin.panel.choices import kept_forecast
from fiftyone_ecif.plugin.panel.figures import (
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
)
from fiftyone_ecif.plugin.panel.pieces import PLOT, Points, nothing_scored, row, where
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event
from fiftyone_ecif.plugin.panel.view import base_view, looked_at, select

SCATTERED = 3000
"""Pairs that are drawn at most."""

FIRST_REMOVED = 10
"""At first, one in so many harmful pairs is removed."""

LEAST_SHOWN = 0.02
"""Half of the range of accuracies is at least this, so that noise does not look like an effect."""


class InfluenceTab(Tab):
    """A scatter plot of the pairs' two roles, and a curve of removals."""

    name = "influence"
    label = "Influence"
    help = "what the pairs do to the target loss, and what removing the most harmful ones would do."
    entries = (Entry("remove", WholeNumber(), "choose_remove", kept=True, begins_with="run", first=0),)

    # Content

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Draw a sample of the pairs by their roles, and what the target does as harmful pairs are removed."""
        state = ctx.panel.state
        columns = summary.roles_sample(base, state.run_key, SCATTERED)
        traces, state.roles_layout = roles_figure(columns)
        ctx.panel.set_data("roles", traces)
        counts, changes = summary.value_curve(base, state.run_key)
        harmful = int(counts[-1])
        state.remove = min(state.remove or -(-harmful // FIRST_REMOVED), harmful)
        forecast = kept_forecast(ctx, state.run_key, base)
        traces, state.removal_layout = removal_figure(counts, changes, state.remove, forecast)
        ctx.panel.set_data("removal", traces)
        disagreement = summary.disagreement(base, state.run_key)
        state.influence = {
            "drawn": len(columns["id"]),
            "harmful": harmful,
            "change": float(np.interp(state.remove, counts, changes)),
            "predicted": _forecast_at(forecast, state.remove),
            "suspected": disagreement.suspected,
            "helpful_suspects": disagreement.helpful,
        }

    # Layout

    def fields(self, state: Any) -> dict[str, Any]:
        return {"actions": {"remove": state.remove}}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        facts = state.influence or {}
        if not facts.get("drawn"):
            nothing_scored(root, ctx)
            return
        target = ctx.dataset.get_run_info(state.run_key).config.target
        loss = f"the loss on {target}" if target else "the loss on the believed pairs that a fit has not seen"
        root.md(
            f"What removing a pair would do to {escaped(loss)}: a pair with a positive value helps, one with a "
            f"negative value harms. {counted(facts['drawn'], 'pair')} drawn; draw a lasso around some to see them.",
            name="judged",
        )
        root.plot("roles", layout=state.roles_layout, config=PLOT, height=HEIGHT, on_selected=self.select_points)
        if facts.get("helpful_suspects"):
            root.md(_disagreement(facts), name="disagreement")
        if not facts["harmful"]:
            notice(root, "harmless", types.Notice, f"No pair {where(ctx)} is harmful.")
            return
        root.md(_what_if(state), name="what_if")
        layout = state.removal_layout
        root.plot("removal", layout=layout, config=PLOT, height=layout["height"], on_click=self.click_curve)
        self._lay_out_actions(root, state)

    def _lay_out_actions(self, root: types.Object, state: Any) -> None:
        actions = row(root, "actions")
        actions.int("remove", default=state.remove, label="Pairs to remove", on_change=self.choose_remove)
        actions.btn("show", label="Show pairs", icon="visibility", on_click=self.show_harmful, variant="contained")
        more = row(root, "asks")
        more.btn("forecast", label="Predict", icon="show_chart", on_click=self.forecast, variant="outlined")
        more.btn("estimate", label="Estimate", icon="calculate", on_click=self.estimate, variant="outlined")
        more.btn("verify", label="Verify by refitting", icon="fact_check", on_click=self.verify, variant="outlined")

    # Events

    @event
    def select_points(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs inside the lasso."""
        points = given(ctx, "data", Points(), [])
        ids = [SampleId()("id", point["id"]) for point in points if point.get("id")]
        if ids:
            base = base_view(ctx)
            select(ctx, ungrouped(base).select(ids), base, {"points": len(ids)})
            show_fields(ctx, ctx.panel.state.run_key, "value")

    @event
    def choose_remove(self, ctx: foo.ExecutionContext) -> None:
        """Choose how many of the most harmful pairs to remove."""
        value = given(ctx, "value", WholeNumber())
        if value is not None:  # else the field was emptied, to write another value
            ctx.panel.state.remove = value
            self.panel.show(ctx)

    @event
    def click_curve(self, ctx: foo.ExecutionContext) -> None:
        """Choose to remove as many pairs as the point of the curve stands for."""
        ctx.panel.state.remove = int(given(ctx, "x", Number(0, MOST), 0))
        self.panel.show(ctx)

    @event
    def show_harmful(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs to remove, the most harmful first."""
        state = ctx.panel.state
        chosen = review.harmful(looked_at(ctx), state.run_key).limit(max(1, state.remove or 0))
        select(ctx, chosen, base_view(ctx), {"harmful": state.remove})
        show_fields(ctx, state.run_key, "value")

    @event
    def forecast(self, ctx: foo.ExecutionContext) -> None:
        """Predict loss and accuracy along the curve."""
        self.panel.prompt(ctx, "forecast_removal", run_key=ctx.panel.state.run_key)

    @event
    def estimate(self, ctx: foo.ExecutionContext) -> None:
        """Estimate the removal of the pairs that the grid shows."""
        self.panel.prompt(ctx, "estimate_removal", run_key=ctx.panel.state.run_key)

    @event
    def verify(self, ctx: foo.ExecutionContext) -> None:
        """Refit without the pairs that the grid shows."""
        self.panel.prompt(ctx, "verify_removal", run_key=ctx.panel.state.run_key)


def _forecast_at(forecast: dict[str, Any] | None, removed: int) -> dict[str, list[float | None]] | None:
    """Each figure before, predicted at a number of removed pairs, and its standard error, None where it is unknown.

    None if there is no prediction.
    """
    if forecast is None or removed > forecast["removed"][-1]:
        return None

    def at(values: list[float] | None) -> float | None:
        return None if values is None else float(np.interp(removed, forecast["removed"], values))

    errors = forecast.get("standard_error", {})
    return {name: [each[0], at(each), at(errors.get(name))] for name, each in forecast["predicted"].items()}


def _disagreement(facts: dict[str, Any]) -> str:
    """What it means that some suspects have a positive value."""
    return (
        f"**{facts['helpful_suspects']:,} of the {facts['suspected']:,} suspected pairs have a positive value:** their "
        "captions are likely wrong, and yet removing them is predicted to raise the target loss. The two scores ask "
        "different things, and both err: a wrong caption can help as a negative of others, and a target that holds "
        "wrong captions itself, or few pairs, is a noisy judge. Look at these pairs, and go by misalignment."
    )


def _what_if(state: Any) -> str:
    """What removing the chosen number of pairs would do, as far as it is known."""
    facts = state.influence
    words = f"**What if** the {state.remove:,} most harmful pairs, of {facts['harmful']:,} harmful ones, were removed? "
    predicted = dict(facts["predicted"] or {})
    if not predicted:
        return words + (
            f"To first order, the target loss would change by **{facts['change']:.3g} nats**. "
            "*Predict* computes loss and accuracy in closed form."
        )
    before, after, error = predicted.pop("target_loss")
    now, predicted_loss = before_and_after(before, after, error)
    words += f"The target loss is predicted to go from {now} to **{predicted_loss} nats**"
    for name, (start, end, wide) in predicted.items():
        words += f", {figure_name(name).lower()} from {start:.1%} to **{with_error(f'{end:.1%}', wide, '.1%')}**"
    words += "."
    if error is not None:
        words += f" {ERRORS_EXPLAINED}"
    if after > before:
        words += (
            " The loss rises although each pair alone is predicted to lower it: so many pairs together are more than "
            "the sum of their values, or the target is noisy. Remove fewer, or *verify by refitting*."
        )
    return words


# Figures


def roles_figure(columns: dict[str, list]) -> Figure:
    """Each pair by what it does as a positive and as a negative, coloured by its misalignment.

    Args:
        columns: as :func:`~fiftyone_ecif.dataset.summary.roles_sample` returns them
    """
    points = go.Scattergl(
        mode="markers",
        name="pairs",
        x=columns["positive"],
        y=columns["negative"],
        ids=columns["id"],
        marker={
            "color": columns["misalignment"],
            "colorscale": [[0, BLUE], [0.5, GREY], [1, ORANGE]],
            "cmin": 0,
            "cmax": 1,
            "size": 5,
            "showscale": True,
            "colorbar": {"title": {"text": "misalignment", "side": "right", "font": FONT}, "thickness": 10},
        },
        hovertemplate="positive %{x:.3g}, negative %{y:.3g} nats<extra></extra>",
    )
    axis = {"exponentformat": "power", "zeroline": True, "zerolinewidth": 1, "zerolinecolor": GREY}
    layout = axes("As a positive (nats)", "As a negative (nats)")
    return as_figure([points], layout.update(dragmode="lasso", xaxis=axis, yaxis=axis))


def removal_figure(counts: np.ndarray, changes: np.ndarray, chosen: int, forecast: dict[str, Any] | None) -> Figure:
    """What becomes of the target by the number of removed pairs.

    Args:
        counts: numbers of removed pairs, (P,)
        changes: of the target's loss, to first order, in nats, (P,)
        chosen: the number that is marked
        forecast: ``removed`` and ``predicted`` of a RemovalCurve; None if there is none
    """
    layout = axes("Most harmful pairs removed", "Loss change (nats)").update(
        shapes=[mark(chosen)], yaxis={"exponentformat": "power"}
    )
    if forecast is None:
        return as_figure([_line("sum of the values", counts.tolist(), changes.tolist(), BLUE)], layout)
    removed, predicted = forecast["removed"], dict(forecast["predicted"])
    loss = predicted.pop("target_loss")
    name, shares = next(iter(predicted.items()))
    traces = [
        _line("sum of the values", counts.tolist(), changes.tolist(), GREY),
        _line("predicted loss", removed, [each - loss[0] for each in loss], BLUE),
        _line(figure_name(name).lower(), removed, shares, GREEN).update(yaxis="y2"),
    ]
    middle, half = (max(shares) + min(shares)) / 2, (max(shares) - min(shares)) / 2
    half = max(1.2 * half, LEAST_SHOWN)
    layout.update(
        showlegend=True, legend=BELOW, height=TALL, xaxis={"range": [0, 1.03 * max(removed[-1], chosen)]},
        yaxis2={
            "overlaying": "y", "side": "right", "tickformat": ".0%", "showgrid": False, "automargin": True,
            "range": [middle - half, middle + half],
        },
    )  # fmt: skip
    return as_figure(traces, layout)


def _line(name: str, x: list, y: list, color: str) -> go.Scatter:
    return go.Scatter(
        mode="lines+markers",
        name=name,
        x=x,
        y=y,
        marker={"size": 5},
        line={"color": color, "width": 2},
        hovertemplate="without the %{x:,} most harmful pairs: %{y:.4g}<extra></extra>",
    )
