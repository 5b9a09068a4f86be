"""The view that the panel looks at: the App's, less what the panel itself put at its end.

Otherwise each choice on a picture would narrow the picture to what was chosen. Where samples are selected in the grid,
the panel looks at these alone.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo


def base_view(ctx: foo.ExecutionContext) -> fo.DatasetView:
    """The App's view without the panel's own selection."""
    stages = ctx.view._serialize()
    own = _own_length(ctx, stages)
    return fo.DatasetView._build(ctx.dataset, stages[: len(stages) - own]) if own else ctx.view


def looked_at(ctx: foo.ExecutionContext) -> fo.DatasetView:
    """What the panel is about: the selected samples where some are selected, else all of its view."""
    base = base_view(ctx)
    return base.select(ctx.selected) if ctx.selected else base


def select(ctx: foo.ExecutionContext, selected: fo.DatasetView, base: fo.DatasetView, what: dict[str, Any]) -> None:
    """Show a selection in the grid, and remember that it is the panel's.

    Args:
        ctx: of the panel
        selected: ``base`` with some stages more, of which :func:`looked_at` may be one
        base: what :func:`base_view` returned
        what: of what the selection is made, for the pictures
    """
    own = selected._serialize()[len(base._serialize()) :]
    seen = note_seen(ctx, grid_digest(selected, ctx.selected))  # the App need not say so
    ctx.panel.state.own = {"length": len(own), "digest": digest(own), "what": what, "seen": seen}
    ctx.ops.set_view(selected)


def note_seen(ctx: foo.ExecutionContext, grid: str) -> dict[str, str]:
    """Remember for which state of the grid the panel is drawn; returns it with a name that only this time has."""
    ctx.panel.state.seen = {"grid": grid, "time": uuid.uuid4().hex}
    return ctx.panel.state.seen


def selection(ctx: foo.ExecutionContext) -> dict[str, Any] | None:
    """What the panel's own selection is made of, which the App shows or soon will; None where there is none."""
    own, seen = ctx.panel.state.own, ctx.panel.state.seen
    shown = own and (own["seen"] == seen or _own_length(ctx, ctx.view._serialize()))
    return own["what"] if shown else None


def _own_length(ctx: foo.ExecutionContext, stages: list[dict]) -> int:
    """How many of the view's last stages are the panel's."""
    own = ctx.panel.state.own
    if not own or len(stages) < own["length"]:
        return 0
    last = stages[len(stages) - own["length"] :]
    return own["length"] if digest(last) == own["digest"] else 0


def grid_digest(view: fo.DatasetView, selected: list[str]) -> str:
    """What two states of the grid have in common if they show the same, with the same samples selected."""
    return " ".join([digest(view._serialize()), *sorted(selected)])


def digest(stages: list[dict]) -> str:
    """What two serialized views have in common if they are the same."""
    plain = [[stage["_cls"], stage["kwargs"]] for stage in stages]  # without the stages' own ids
    return hashlib.sha256(json.dumps(_as_in_javascript(plain), sort_keys=True, default=str).encode()).hexdigest()


def _as_in_javascript(value: Any) -> Any:
    """The value as it comes back from the App, where 1.0 is written 1."""
    if isinstance(value, dict):
        return {key: _as_in_javascript(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_in_javascript(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
