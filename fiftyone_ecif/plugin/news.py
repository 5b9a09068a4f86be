"""Which events bring the panel anything new: the App sends each change of its view three times, and all fields' values.

Drawing the panel is what takes a browser longest, so that each event which is answered for nothing is felt.
"""

from __future__ import annotations

import fiftyone.operators as foo

from fiftyone_ecif.plugin.base_view import grid_digest, note_seen

CHOICES = {
    "choose_run": "run_key",
    "choose_tab": "tab",
    "choose_threshold": "threshold",
    "choose_truth": "truth",
    "choose_remove": "remove",
    "choose_trace": "trace",
    "choose_remove_traced": "remove_traced",
}
"""What of the panel's state an event chooses."""

LOADING = "on_load"
FOLLOWING = ("on_change_view", "on_change_selected")
"""The events by which the panel follows the grid."""

_answered: dict[str, tuple[dict[str, str], str]] = {}
"""By panel: what it was drawn for, as the App knew, and the grid of the last event that was answered."""


def is_new(ctx: foo.ExecutionContext) -> bool:
    """Whether the event says what the panel does not know yet, and is not just being told in another thread."""
    event, state = ctx.params.get("__method__"), ctx.panel.state
    if event in CHOICES and state.tab is not None:
        return ctx.params.get("value") != state.get(CHOICES[event])
    if event not in (LOADING, *FOLLOWING):
        return True
    before, now = state.seen or {}, grid_digest(ctx.view, ctx.selected)
    if event in FOLLOWING and (now == before.get("grid") or _answered.get(ctx.panel.id) == (before, now)):
        return False
    _answered[ctx.panel.id] = (before, now)
    note_seen(ctx, now)
    return True
