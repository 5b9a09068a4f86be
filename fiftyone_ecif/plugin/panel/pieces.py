"""Pieces that the layouts of several tabs are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset.arguments import shown
from fiftyone_ecif.plugin.forms import notice
from fiftyone_ecif.plugin.panel.tab import Handler
from fiftyone_ecif.plugin.panel.view import selection

PLOT = {"displayModeBar": False}
"""Plotly's settings: its tool bar would cover the legend, and a double click resets the axes."""


@dataclass(frozen=True)
class Points:
    """What Plotly reports of the points that were selected in a picture."""

    def __call__(self, name: str, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(point, dict) for point in value):
            raise ValueError(f"{name} must be a list of points, not {shown(value)}.")
        return value


def row(parent: types.Object, name: str, gap: int = 2, **options: Any) -> types.Object:
    """Lay things out side by side.

    The App breaks no lines, so a row must fit a panel beside the grid on a small screen.
    """
    return parent.h_stack(name, gap=gap, align_y="center", **options)


def where(ctx: foo.ExecutionContext) -> str:
    """Which pairs the panel is about: not only those that its own selection shows."""
    if ctx.selected:
        return "selected"
    return "in view before the panel's selection" if selection(ctx) else "in view"


def nothing_scored(root: types.Object, ctx: foo.ExecutionContext) -> None:
    """Say that the panel is about no pair of the run."""
    notice(root, "nothing", types.Notice, f"None of the pairs {where(ctx)} has a score in this run.")


def image_address(filepath: str) -> str:
    """Where the App's server serves an image."""
    return f"/media?filepath={quote(filepath)}"


def picture(frame: types.Object, image: str, alt: str, on_click: Handler, params: dict[str, Any]) -> None:
    """Add a small image that can be clicked.

    Args:
        frame: where to add it
        image: its address
        alt: what it shows, for those who cannot see it
        on_click: the handler of a click
        params: what the handler is told
    """
    view = types.ImageView(height="96px", width="96px", alt=alt, operator=on_click, params=params)
    frame.define_property("image", types.String(), default=image, view=view)
