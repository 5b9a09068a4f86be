"""The panel's pictures as Plotly data and layouts; numbers in, dictionaries out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fiftyone_ecif.curation.summary import MeasuredPrecision

ORANGE, GREY, BLUE, GREEN = "#ff6d04", "#8a8f98", "#4a90d9", "#3fa66b"
HEIGHT = 260
FONT = {"size": 12}
Figure = tuple[list[dict[str, Any]], dict[str, Any]]
"""Plotly's traces and layout."""


def histogram_figure(
    counts: np.ndarray, edges: np.ndarray, threshold: float, selected: tuple[float, float] | None
) -> Figure:
    """Counts by misalignment, the expected precision above each value, and the threshold; a selection is coloured."""
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    low, high = selected or (threshold, 1.0)
    inside = (middles >= low) & (middles <= high)
    above = counts[::-1].cumsum()[::-1]
    precision = np.where(above > 0, (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1), np.nan)
    bars = {
        "type": "bar",
        "name": "pairs",
        "x": middles.tolist(),
        "y": counts.tolist(),
        "width": float(width),
        "marker": {"color": [ORANGE if each else GREY for each in inside]},
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
        "shapes": [
            {
                "type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper",
                "line": {"color": ORANGE, "width": 2, "dash": "dash"},
            }
        ],
    }  # fmt: skip
    layout["xaxis"] |= {"range": [0, 1]}
    layout["yaxis2"] = {
        "overlaying": "y", "side": "right", "range": [0, 1.02], "tickformat": ".0%", "showgrid": False,
        "title": {"text": "Precision", "font": FONT},
    }  # fmt: skip
    layout["margin"]["r"] = 55
    return [bars, line], layout


def precision_figure(measured: MeasuredPrecision, threshold: float) -> Figure:
    """Measured precision against recall, and where the threshold stands."""
    curve = {
        "type": "scatter",
        "mode": "lines",
        "name": "measured",
        "x": measured.recall.tolist(),
        "y": measured.precision.tolist(),
        "text": [f"threshold {each:.3f}" for each in measured.threshold],
        "line": {"color": GREEN, "width": 2},
        "hovertemplate": "%{text}<br>recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
    }
    traces = [curve]
    reached = np.flatnonzero(measured.threshold >= threshold - 1e-9)
    if len(reached):
        row = reached[-1]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "threshold",
                "x": [float(measured.recall[row])],
                "y": [float(measured.precision[row])],
                "marker": {"color": ORANGE, "size": 10},
                "hovertemplate": "at the threshold: recall %{x:.1%}, precision %{y:.1%}<extra></extra>",
            }
        )
    layout = _layout("Recall", "Precision")
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


def removal_figure(counts: np.ndarray, changes: np.ndarray, chosen: int) -> Figure:
    """Predicted change of the target loss by the number of removed pairs."""
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "predicted",
        "x": counts.tolist(),
        "y": changes.tolist(),
        "marker": {"size": 5},
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "without the %{x:,} most harmful: %{y:.4g} nats<extra></extra>",
    }
    layout = _layout("Most harmful pairs removed", "Loss change (nats)")
    layout["yaxis"] |= {"exponentformat": "power"}
    layout["shapes"] = [
        {
            "type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": ORANGE, "width": 2, "dash": "dash"},
        }
    ]  # fmt: skip
    return [curve], layout


def _layout(x: str, y: str) -> dict[str, Any]:
    return {
        "height": HEIGHT,
        "margin": {"l": 60, "r": 15, "t": 25, "b": 45},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "showlegend": False,
    }
