"""The panel's pictures as Plotly data and layouts; numbers in, dictionaries out."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from fiftyone_ecif.dataset.summary import SURE, SURENESS_EDGES, MeasuredPrecision, Sureness

ORANGE, GREY, BLUE, GREEN = "#ff6d04", "#8a8f98", "#4a90d9", "#3fa66b"
LINES = (GREEN, BLUE, ORANGE, "#b07cc6", GREY)
HEIGHT, TALL = 260, 330
BELOW = {"orientation": "h", "x": 0, "y": -0.25}  # where a legend of several lines covers nothing
LEAST_SHOWN = 0.02  # half of the range of accuracies at least, lest noise looks like an effect
BLAMED = 12  # pairs in the graph
LONGEST_CAPTION = 36  # beside the grid on a small screen
ROLES = {"positive": ("to blame as a positive", BLUE), "negative": ("as a negative", ORANGE)}
FONT = {"size": 12}
Figure = tuple[list[dict[str, Any]], dict[str, Any]]
"""Plotly's traces and layout."""


def histogram_figure(pairs: Sequence[int], threshold: float) -> Figure:
    """Pairs by misalignment, the expected precision above each value, and the threshold."""
    counts, edges = np.array(pairs), np.linspace(0.0, 1.0, len(pairs) + 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    above = counts[::-1].cumsum()[::-1]
    precision = np.where(above > 0, (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1), np.nan)
    bars = {
        "type": "bar",
        "name": "pairs",
        "x": middles.tolist(),
        "y": counts.tolist(),
        "width": float(width),
        "marker": {"color": [ORANGE if each >= threshold else GREY for each in middles]},
        "customdata": [f"{left:.3g} to {right:.3g}" for left, right in itertools.pairwise(edges)],
        "hovertemplate": "%{customdata}: %{y:,} pairs<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "expected precision above",
        "x": edges[:-1].tolist(),
        "y": [None if np.isnan(each) else float(each) for each in precision],
        "yaxis": "y2",
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "above %{x:.2f}: %{y:.0%} expected wrong<extra></extra>",
    }
    layout = _layout("Misalignment probability", "Pairs") | {
        "dragmode": "select",
        "selectdirection": "h",
        "bargap": 0.05,
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.18},
        "shapes": [_mark(threshold)],
    }
    layout["xaxis"] |= {"range": [0, 1]}
    layout["yaxis2"] = {
        "overlaying": "y", "side": "right", "range": [0, 1.02], "tickformat": ".0%", "showgrid": False,
        "title": {"text": "Precision", "font": FONT},
    }  # fmt: skip
    layout["margin"]["r"] = 55
    return [bars, line], layout


def with_selection(layout: dict[str, Any], selected: Sequence[float] | None) -> dict[str, Any]:
    """A picture's layout with a range of its first axis marked; without one, as it is."""
    if selected is None:
        return layout
    low, high = selected
    area = {"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    area |= {"fillcolor": BLUE, "opacity": 0.25, "line": {"width": 0}}
    return layout | {"shapes": [*layout["shapes"], area]}


def precision_figure(measured: dict[str, MeasuredPrecision], threshold: float) -> Figure:
    """Measured precision against recall, by score, the run's misalignment first; and where the threshold stands."""
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{plain(name)} ({found.average:.3f})",
            "x": found.recall.tolist(),
            "y": found.precision.tolist(),
            "text": [f"{each:.3g}" for each in found.threshold],
            "line": {"color": color, "width": 2 if number else 3, "dash": "dot" if number else "solid"},
            "hovertemplate": "at %{text}: recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
        }
        for number, (color, (name, found)) in enumerate(zip(LINES, measured.items(), strict=False))
    ]
    own = next(iter(measured.values()))
    reached = np.flatnonzero(own.threshold >= threshold - 1e-9)
    if len(reached):
        row = reached[-1]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [float(own.recall[row])],
                "y": [float(own.precision[row])],
                "marker": {"color": GREEN, "size": 10},
                "showlegend": False,
                "hovertemplate": "at the threshold: recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
            }
        )
    layout = _layout("Recall", "Precision") | {"showlegend": True, "legend": BELOW}
    layout["height"] = TALL
    layout["xaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    layout["yaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    return traces, layout


def roles_figure(columns: dict[str, list]) -> Figure:
    """Each pair by what it does as a positive and as a negative, coloured by its misalignment."""
    points = {
        "type": "scattergl",
        "mode": "markers",
        "name": "pairs",
        "x": columns["positive"],
        "y": columns["negative"],
        "ids": columns["id"],
        "marker": {
            "color": columns["misalignment"],
            "colorscale": [[0, BLUE], [0.5, GREY], [1, ORANGE]],
            "cmin": 0,
            "cmax": 1,
            "size": 5,
            "showscale": True,
            "colorbar": {"title": {"text": "misalignment", "side": "right", "font": FONT}, "thickness": 10},
        },
        "hovertemplate": "positive %{x:.3g}, negative %{y:.3g} nats<extra></extra>",
    }
    layout = _layout("As a positive (nats)", "As a negative (nats)") | {"dragmode": "lasso", "showlegend": False}
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"exponentformat": "power", "zeroline": True, "zerolinewidth": 1, "zerolinecolor": GREY}
    return [points], layout


def removal_figure(counts: np.ndarray, changes: np.ndarray, chosen: int, forecast: dict[str, Any] | None) -> Figure:
    """What becomes of the target by the number of removed pairs.

    Args:
        counts: numbers of removed pairs
        changes: of the target's loss, to first order, in nats
        chosen: the number that is marked
        forecast: ``removed`` and ``predicted`` of a RemovalCurve; None where there is none
    """
    traces = [_line("sum of the values", counts.tolist(), changes.tolist(), GREY if forecast else BLUE)]
    layout = _layout("Most harmful pairs removed", "Loss change (nats)") | {"shapes": [_mark(chosen)]}
    layout["yaxis"] |= {"exponentformat": "power"}
    if forecast is not None:
        removed, predicted = forecast["removed"], dict(forecast["predicted"])
        loss = predicted.pop("target_loss")
        traces.append(_line("predicted loss", removed, [each - loss[0] for each in loss], BLUE))
        name, shares = next(iter(predicted.items()))
        traces.append(_line(name.replace("_", " "), removed, shares, GREEN) | {"yaxis": "y2"})
        layout |= {"showlegend": True, "legend": BELOW, "height": TALL}
        layout["xaxis"] |= {"range": [0, 1.03 * max(removed[-1], chosen)]}
        middle, half = (max(shares) + min(shares)) / 2, (max(shares) - min(shares)) / 2
        half = max(1.2 * half, LEAST_SHOWN)
        layout["yaxis2"] = {
            "overlaying": "y", "side": "right", "tickformat": ".0%", "showgrid": False, "automargin": True,
            "range": [middle - half, middle + half],
        }  # fmt: skip
    return traces, layout


def _line(name: str, x: list, y: list, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "marker": {"size": 5},
        "line": {"color": color, "width": 2},
        "hovertemplate": "without the %{x:,} most harmful: %{y:.4g}<extra></extra>",
    }


def _mark(x: float) -> dict[str, Any]:
    """A dashed line at a choice."""
    line = {"color": ORANGE, "width": 2, "dash": "dash"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def blame_figure(pairs: list[dict[str, Any]], removed: int) -> Figure:
    """A query and the pairs that are most to blame for it, joined by lines as wide as the blame.

    Args:
        pairs: rows of a trace's table
        removed: how many of the first are thought away; the others are pale
    """
    drawn = pairs[:BLAMED]
    largest = max(abs(row["value"]) for row in drawn)
    traces: list[dict[str, Any]] = []
    for role, (name, color) in ROLES.items():
        mine = [(place, row) for place, row in enumerate(drawn) if blamed_role(row) == role]
        if not mine:
            continue
        for place, row in mine:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [0, 1],
                    "y": [-(len(drawn) - 1) / 2, -place],
                    "line": {"color": color, "width": 1 + 6 * abs(row["value"]) / largest, "shape": "spline"},
                    "opacity": 0.85 if place < removed else 0.3,
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": name,
                "x": [1] * len(mine),
                "y": [-place for place, _ in mine],
                "ids": [row["id"] for _, row in mine],
                "text": [f"  {row['value']:.2g}  {_caption(row)}" for _, row in mine],
                "textposition": "middle right",
                "textfont": FONT,
                "cliponaxis": False,
                "marker": {"color": color, "size": 11},
                "customdata": [[row["value_positive"], row["value_negative"]] for _, row in mine],
                "hovertemplate": "as a positive %{customdata[0]:.3g}, as a negative %{customdata[1]:.3g} nats"
                "<extra></extra>",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [0],
            "y": [-(len(drawn) - 1) / 2],
            "text": ["query"],
            "textposition": "bottom center",
            "marker": {"color": GREY, "size": 18},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    layout = _layout("", "") | {"showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1.15}}
    hidden = {"visible": False, "fixedrange": True}
    layout |= {
        "height": TALL + 20 * max(0, len(drawn) - 10),
        "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
        "xaxis": hidden | {"range": [-0.25, 3.4]},
        "yaxis": hidden | {"range": [0.7 - len(drawn), 0.7]},
    }
    return traces, layout


def blamed_role(row: dict[str, Any]) -> str:
    """The role in which a pair of a trace harms the query more."""
    return "positive" if row["value_positive"] <= row["value_negative"] else "negative"


def _caption(row: dict[str, Any]) -> str:
    return plain(shorten(row["text"] or "(deleted)", LONGEST_CAPTION, placeholder=" …"))


def plain(text: str) -> str:
    """A text that Plotly shows as it stands, for it takes some HTML."""
    return html.escape(text, quote=False)


def sureness_figure(found: Sureness) -> Figure:
    """Pairs by how many standard errors their value is away from 0."""
    edges = SURENESS_EDGES
    bars = {
        "type": "bar",
        "x": np.sqrt(edges[:-1] * edges[1:]).tolist(),
        "width": (edges[1:] - edges[:-1]).tolist(),
        "y": found.counts.tolist(),
        "marker": {"color": [GREY if edge < SURE else BLUE for edge in edges[:-1]]},
        "hovertemplate": "%{x:.3g} standard errors: %{y:,} pairs<extra></extra>",
    }
    layout = _layout("Size of the value in standard errors", "Pairs")
    layout["xaxis"] |= {"type": "log"}
    return [bars], layout


def _layout(x: str, y: str) -> dict[str, Any]:
    return {
        "height": HEIGHT,
        "margin": {"l": 60, "r": 15, "t": 25, "b": 45},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "showlegend": False,
    }
