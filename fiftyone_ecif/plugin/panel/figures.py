"""What the tabs' figures have in common. A figure leaves here as plain dictionaries, which the panel's state can hold.

The figures are Plotly's graph objects, which check every name and value. They cost no import: FiftyOne imports Plotly
before it loads a plugin.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

ORANGE, GREY, BLUE, GREEN = "#ff6d04", "#8a8f98", "#4a90d9", "#3fa66b"
HEIGHT, TALL = 260, 330
FONT = {"size": 12}
ABOVE = {"orientation": "h", "x": 0, "y": 1.18}
BELOW = {"orientation": "h", "x": 0, "y": -0.25}
"""Where a legend covers nothing: of one line, and of several."""

Figure = tuple[list[dict[str, Any]], dict[str, Any]]
"""Plotly's traces and layout as plain dictionaries."""


def as_figure(traces: Iterable[Any], layout: go.Layout) -> Figure:
    """Traces and layout as plain dictionaries."""
    return [trace.to_plotly_json() for trace in traces], layout.to_plotly_json()


def axes(x: str, y: str) -> go.Layout:
    """The layout of a figure with these titles of its axes."""
    return go.Layout(
        height=HEIGHT,
        margin={"l": 60, "r": 15, "t": 25, "b": 45},
        xaxis={"title": {"text": x}},
        yaxis={"title": {"text": y}},
        showlegend=False,
    )


def mark(x: float) -> go.layout.Shape:
    """A dashed vertical line at a chosen value."""
    line = {"color": ORANGE, "width": 2, "dash": "dash"}
    return go.layout.Shape(type="line", x0=x, x1=x, y0=0, y1=1, yref="paper", line=line)


def plain(text: str) -> str:
    """A text that Plotly shows as it stands; it would take some HTML for markup."""
    return html.escape(text, quote=False)
