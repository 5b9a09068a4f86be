"""What the App and the panel need to tell each other, and no more.

The App reports every change of what it shows, and a field's value when it first shows the field. Whatever an answer
contains makes it draw the panel again, which is what takes a browser longest, and a change of the panel's state makes
it load its whole page anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import fiftyone.operators as foo

from fiftyone_ecif.plugin.panel.view import grid_digest, looked_at, view_digest

LOADING, FOLLOWING = "on_load", "on_change_ctx"
"""The events by which the panel first sees the grid, and follows it: the latter is the one that the App sends least."""

VIEWS = ("set_view", "clear_view")
PATCHES = {"patch_panel_state": "state", "patch_panel_data": "data"}
DRAW = "show_panel_output"
"""What an answer asks of the App: to change the grid's view, to change the panel's state and data, and to draw it."""

TIMES_TOLD = 4
"""How often a change of the grid is news: each page reports it for the same panel, and each draws its own."""


@dataclass(frozen=True)
class Look:
    """What a panel was last told of the grid.

    Attributes:
        grid: what the App shows
        pairs: which of these pairs the panel is about
        moved: whether the panel was about others before
        told: how often it was told
    """

    grid: str
    pairs: str
    moved: bool
    told: int


_looks: dict[str, Look] = {}
"""The latest look by panel."""


def is_new(ctx: foo.ExecutionContext, chosen: str | None) -> bool:
    """Whether an event says what the panel does not know yet.

    Args:
        ctx: of the panel
        chosen: the entry of the panel's state that the event chooses; None if it chooses none
    """
    event, state = ctx.params.get("__method__"), ctx.panel.state
    if chosen is not None and state.tab is not None:
        return ctx.params.get("value") != state.get(chosen)
    if event not in (LOADING, FOLLOWING):
        return True
    grid, before = grid_digest(ctx.view, ctx.selected), _looks.get(ctx.panel.id)
    if event == LOADING or before is None or grid != before.grid:
        pairs = view_digest(looked_at(ctx))
        told = TIMES_TOLD if event == LOADING else 1  # when it loads, a page draws at once
        _looks[ctx.panel.id] = Look(grid, pairs, before is None or pairs != before.pairs, told)
        return True
    _looks[ctx.panel.id] = replace(before, told=before.told + 1)
    return before.told < TIMES_TOLD


def is_following(ctx: foo.ExecutionContext) -> bool:
    """Whether the event is that the grid changed."""
    return ctx.params.get("__method__") == FOLLOWING


def has_moved(ctx: foo.ExecutionContext) -> bool:
    """Whether the latest change of the grid changed what the panel is about; the panel's own selection does not."""
    return _looks[ctx.panel.id].moved


def in_few_words(ctx: foo.ExecutionContext, known: dict[str, Any]) -> None:
    """Make an event's answer one patch of what is new in the panel's state, and one of its data.

    If the answer changes the view, nothing is drawn: the grid comes first, and the panel follows when the App reports
    that it shows the new view.

    Args:
        ctx: of the panel; its answer is shortened
        known: the panel's state as the App sent it
    """
    answer = ctx.executor._requests
    patches: dict[str, dict[str, Any]] = {uri: {} for uri in PATCHES}
    for request in answer:
        if request.operator_uri in PATCHES:
            patches[request.operator_uri] |= request.params[PATCHES[request.operator_uri]]
    state, data = patches.values()
    drawn = [request for request in answer if request.operator_uri == DRAW]
    answer[:] = [request for request in answer if request.operator_uri not in (*PATCHES, DRAW)]
    new = {name: value for name, value in state.items() if value != known.get(name)}
    if any(request.operator_uri in VIEWS for request in answer):
        return
    if not (answer or new or data or (drawn and is_following(ctx))):
        return
    if new:
        ctx.ops.patch_panel_state(new)
    if data:
        ctx.ops.patch_panel_data(data)
    answer += drawn
