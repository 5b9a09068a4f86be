"""The tab “Trace”: the training pairs that are to blame for a failing query, and what removing them does to it."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import plotly.graph_objects as go

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import COUNT, Text
from fiftyone_ecif.dataset.repair import fixes
from fiftyone_ecif.dataset.run.config import kept_traces
from fiftyone_ecif.dataset.samples import everything
from fiftyone_ecif.plugin.descriptions import before_and_after
from fiftyone_ecif.plugin.forms import as_text, counted, dropdown, escaped, given, notice, show_fields
from fiftyone_ecif.plugin.panel.figures import BLUE, FONT, GREY, ORANGE, TALL, Figure, as_figure, plain
from fiftyone_ecif.plugin.panel.pieces import PLOT, image_address, picture, row
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event
from fiftyone_ecif.plugin.panel.view import select

FIRST_REMOVED = 10
LISTED_TRACES = 20
BLAMED = 12
"""Pairs in the graph."""

ROWS_THAT_FIT = 10
"""Pairs that the graph is tall enough for; each further one makes it taller."""

LONGEST_CAPTION = 36
"""Letters of a caption beside the grid on a small screen."""

ROLES = {"positive": ("to blame as a positive", BLUE), "negative": ("to blame as a negative", ORANGE)}


class TraceTab(Tab):
    """A graph of the query and the pairs that are to blame for it."""

    name = "trace"
    label = "Trace"
    help = "which pairs are to blame for a failing query."
    entries = (
        Entry("trace", Text(), "choose_trace", kept=True, begins_with="run"),
        Entry("remove_traced", COUNT, "choose_remove_traced"),
    )

    # Content

    def has_news(self, ctx: foo.ExecutionContext) -> bool:
        """Whether a trace of the run was made since the last look; it is then the one to show."""
        state = ctx.panel.state
        run = [ctx.dataset.name, state.run_key]
        newest = next(reversed(kept_traces(ctx.dataset, state.run_key)), "")
        before = state.newest_trace if isinstance(state.newest_trace, dict) else {}
        state.newest_trace = {"run": run, "key": newest}
        is_new = before.get("run") == run and newest not in ("", before.get("key"))
        if is_new:
            state.set({"trace": newest, "remove_traced": None})
        return is_new

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Open the chosen trace, and predict what removing its first pairs does."""
        state = ctx.panel.state
        keys = kept_traces(ctx.dataset, state.run_key)[: -LISTED_TRACES - 1 : -1]
        if not keys:
            state.set({"trace": None, "traces": {}, "blame": None})
            return
        results = ecif.load_results(ctx.dataset, state.run_key)
        known = state.traces or {}
        state.traces = {key: known.get(key) or results.load_trace(key).query for key in keys}
        if state.trace not in keys:
            state.trace = keys[0]
        opened = results.load_trace(state.trace)
        if not len(opened):
            state.blame = {"query": opened.query, "pairs": 0}
            return
        state.remove_traced = min(state.remove_traced or FIRST_REMOVED, len(opened))
        effect = opened.predicted_effect(state.remove_traced)
        traces, state.blamed_layout = blame_figure(opened.table(), state.remove_traced)
        ctx.panel.set_data("blamed", traces)
        state.blame = vars(effect) | {
            "query": opened.query,
            "kind": opened.kind,
            "pairs": len(opened),
            "notes": opened.notes,
            "asking": _asking(ctx.dataset, opened.sample_ids, results.config.text_field),
        }

    # Layout

    def fields(self, state: Any) -> dict[str, Any]:
        return {"actions": {"removed": state.remove_traced}, "kept": {_field(state): state.trace}}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        blame = state.blame
        if not blame:
            self._lay_out_beginning(root)
            return
        kept = row(root, "kept")
        labels = {key: f"{key}: {query}" for key, query in state.traces.items()}
        kept.enum(_field(state), list(labels), default=state.trace, view=dropdown(labels), on_change=self.choose_trace)
        kept.btn("delete", label="Delete", icon="delete", on_click=self.delete_trace, variant="outlined")
        if not blame["pairs"]:
            notice(root, "nothing", types.Notice, "No pair of the run is to blame for this query.")
            return
        self._lay_out_query(root, blame)
        for number, note in enumerate(blame["notes"]):
            notice(root, f"note_{number}", types.Notice, note)
        layout = state.blamed_layout
        root.plot("blamed", layout=layout, config=PLOT, height=layout["height"], on_click=self.panel.open_sample)
        self._lay_out_actions(root, state)

    def _lay_out_beginning(self, root: types.Object) -> None:
        root.md(
            "**No trace yet.** Find the queries that fail, open one of these samples, and choose *Trace a failing "
            "query (ECIF)* above it. This tab will show which training pairs are to blame.",
            name="empty",
        )
        root.btn(
            "failures", label="Find failing queries", icon="search", on_click=self.find_failures, variant="contained"
        )

    def _lay_out_query(self, root: types.Object, blame: dict[str, Any]) -> None:
        """Show the query, and what removing the pairs to blame would do to it."""
        frame = root.h_stack("query", gap=2, align_y="center", variant="outline", pad=1)
        asking = blame["asking"]
        if asking:
            picture(frame, asking["image"], "the query's image", self.panel.open_sample, {"id": asking["id"]})
        query = (asking["text"] or "(no caption)") if asking else blame["query"]
        frame.md(f"**{escaped(query)}**  \n{_effect(blame)}", name="effect")

    def _lay_out_actions(self, root: types.Object, state: Any) -> None:
        actions = row(root, "actions")
        actions.int(
            "removed", default=state.remove_traced, label="Pairs to remove", on_change=self.choose_remove_traced
        )
        actions.btn("show", label="Show pairs", icon="visibility", on_click=self.show_blamed, variant="contained")
        more = row(root, "asks")
        verify, find = self.verify_trace, self.find_failures
        more.btn("verify", label="Verify by refitting", icon="fact_check", on_click=verify, variant="outlined")
        more.btn("failures", label="Find failing queries", icon="search", on_click=find, variant="outlined")

    # Events

    @event
    def choose_trace(self, ctx: foo.ExecutionContext) -> None:
        """Choose another of the run's traces."""
        key = given(ctx, "value", Text())
        if key not in kept_traces(ctx.dataset, ctx.panel.state.run_key):
            raise ValueError("There is no such trace any more.")
        ctx.panel.state.set({"trace": key, "remove_traced": None})
        self.panel.show(ctx)

    @event
    def choose_remove_traced(self, ctx: foo.ExecutionContext) -> None:
        """Choose how many of the pairs that are most to blame to remove."""
        value = given(ctx, "value", COUNT)
        if value is not None:  # else the field was emptied, to write another value
            ctx.panel.state.remove_traced = value
            self.panel.show(ctx)

    @event
    def show_blamed(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of the trace, most to blame first."""
        state, results = ctx.panel.state, ecif.load_results(ctx.dataset, ctx.panel.state.run_key)
        blamed = results.load_trace(state.trace).view(state.remove_traced)
        select(ctx, blamed, ctx.dataset.view(), {"trace": state.trace})  # the current view may hold none of them
        show_fields(ctx, state.run_key, "value")

    @event
    def delete_trace(self, ctx: foo.ExecutionContext) -> None:
        """Delete the trace."""
        state = ctx.panel.state
        ecif.load_results(ctx.dataset, state.run_key).delete_trace(state.trace)
        state.set({"trace": None, "newest_trace": None})  # the newest of those left is no news
        self.panel.show(ctx)

    @event
    def find_failures(self, ctx: foo.ExecutionContext) -> None:
        """Find the queries that fail."""
        self.panel.prompt(ctx, "find_failures", run_key=ctx.panel.state.run_key)

    @event
    def verify_trace(self, ctx: foo.ExecutionContext) -> None:
        """Refit without the pairs that are most to blame."""
        state = ctx.panel.state
        self.panel.prompt(ctx, "verify_trace", run_key=state.run_key, trace=state.trace, n=state.remove_traced)


def _field(state: Any) -> str:
    """The name of the choice among traces; the App heeds a new default only in a field of a new name."""
    return f"trace_{state.trace}"


def _asking(dataset: fo.Dataset, sample_ids: list[str], text_field: str | None) -> dict[str, str | None] | None:
    """The sample that asks, if it is one alone; a query from outside the dataset has no picture."""
    found = everything(dataset).select(sample_ids) if len(sample_ids) == 1 else None
    if not found:
        return None
    text = fixes.text_path(dataset, text_field) if text_field else "id"
    (id,), (filepath,), (caption,) = found.values(["id", "filepath", text])
    return {"id": id, "image": image_address(filepath), "text": as_text(caption)}


def _effect(blame: dict[str, Any]) -> str:
    """What removing the pairs that are most to blame does to the query, predicted and measured."""
    before, predicted = before_and_after(blame["before"], blame["predicted"], blame["standard_error"], 3)
    words = (
        f"Without the {counted(blame['removed'], 'pair')} most to blame, the {blame['kind']} is predicted to go from "
        f"{before} to **{predicted}** nats"
    )
    if blame["measured"] is not None:
        words += f"; after refitting, it is **{blame['measured']:.3g}**"
    if blame["kind"] == "margin":
        words += ". A margin above 0 means a correct answer"
    return words + "."


# Figures


def blame_figure(pairs: list[dict[str, Any]], removed: int) -> Figure:
    """A query and the pairs that are most to blame for it, joined by lines as wide as the blame.

    Args:
        pairs: rows of a trace's table
        removed: how many of the first are removed; the others are pale
    """
    drawn = pairs[:BLAMED]
    middle = -(len(drawn) - 1) / 2
    traces = [*_lines(drawn, removed, middle), *_points(drawn), _query_point(middle)]
    hidden = {"visible": False, "fixedrange": True}
    layout = go.Layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.15},
        height=TALL + 20 * max(0, len(drawn) - ROWS_THAT_FIT),
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        xaxis=hidden | {"range": [-0.25, 3.4]},
        yaxis=hidden | {"range": [0.7 - len(drawn), 0.7]},
    )
    return as_figure(traces, layout)


def _lines(pairs: list[dict[str, Any]], removed: int, middle: float) -> list[go.Scatter]:
    """Lines from the query to each pair, as wide as the pair's blame."""
    largest = max(abs(pair["value"]) for pair in pairs)
    return [
        go.Scatter(
            mode="lines",
            x=[0, 1],
            y=[middle, -place],
            line={
                "color": ROLES[blamed_role(pair)][1],
                "width": 1 + 6 * abs(pair["value"]) / largest,
                "shape": "spline",
            },
            opacity=0.85 if place < removed else 0.3,
            hoverinfo="skip",
            showlegend=False,
        )
        for place, pair in enumerate(pairs)
    ]


def _points(pairs: list[dict[str, Any]]) -> list[go.Scatter]:
    """The pairs with their captions, by the role that they are more to blame for."""
    points = []
    for role, (name, color) in ROLES.items():
        mine = [(place, pair) for place, pair in enumerate(pairs) if blamed_role(pair) == role]
        if not mine:
            continue
        points.append(
            go.Scatter(
                mode="markers+text",
                name=name,
                x=[1] * len(mine),
                y=[-place for place, _ in mine],
                ids=[pair["id"] for _, pair in mine],
                text=[f"  {pair['value']:.2g}  {_caption(pair)}" for _, pair in mine],
                textposition="middle right",
                textfont=FONT,
                cliponaxis=False,
                marker={"color": color, "size": 11},
                customdata=[[pair["value_positive"], pair["value_negative"]] for _, pair in mine],
                hovertemplate="as a positive %{customdata[0]:.3g}, as a negative %{customdata[1]:.3g} nats"
                "<extra></extra>",
            )
        )
    return points


def _query_point(middle: float) -> go.Scatter:
    return go.Scatter(
        mode="markers+text",
        x=[0],
        y=[middle],
        text=["query"],
        textposition="bottom center",
        marker={"color": GREY, "size": 18},
        hoverinfo="skip",
        showlegend=False,
    )


def blamed_role(pair: dict[str, Any]) -> str:
    """The role in which a pair of a trace harms the query more."""
    return "positive" if pair["value_positive"] <= pair["value_negative"] else "negative"


def _caption(pair: dict[str, Any]) -> str:
    return plain(shorten(as_text(pair["text"]) or "(deleted)", LONGEST_CAPTION, placeholder=" …"))
