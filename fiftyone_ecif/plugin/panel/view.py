"""The view that the panel looks at: the App's, without what the panel itself put at its end.

Otherwise each choice on a picture would narrow the picture to what was chosen. If samples are selected in the grid, the
panel looks at these alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo

from fiftyone_ecif.dataset.samples import ungrouped

STORE, OWN = "ecif_panel", "selection"


def base_view(ctx: foo.ExecutionContext) -> fo.DatasetView:
    """The App's view without the panel's own selection."""
    stages = ctx.view._serialize()
    own = _own(ctx, stages)
    return fo.DatasetView._build(ctx.dataset, stages[: len(stages) - own["length"]]) if own else ctx.view


def looked_at(ctx: foo.ExecutionContext) -> fo.DatasetView:
    """What the panel is about: the selected samples if some are selected, else all of its view."""
    base = ungrouped(base_view(ctx))
    return base.select(ctx.selected) if ctx.selected else base


def select(ctx: foo.ExecutionContext, selected: fo.DatasetView, base: fo.DatasetView, what: dict[str, Any]) -> None:
    """Show a selection in the grid, and remember that it is the panel's; the panel follows when the App has shown it.

    What is remembered lies in FiftyOne's store, since a change of the panel's state makes the App load the whole page
    anew before it changes the grid.

    Args:
        ctx: of the panel
        selected: ``base`` with some more stages, of which :func:`looked_at` may have added some
        base: what :func:`base_view` returned
        what: what the selection is made of, for the pictures
    """
    own = selected._serialize()[len(base._serialize()) :]
    before = _own(ctx, ctx.view._serialize())
    fields = before.get("fields") if before else ctx.active_fields
    ctx.store(STORE).set(OWN, {"length": len(own), "digest": digest(own), "what": what, "fields": fields})
    ctx.ops.set_view(selected)


def selection(ctx: foo.ExecutionContext) -> dict[str, Any] | None:
    """What the panel's own selection is made of, if the App shows it; None if it shows none."""
    own = _own(ctx, ctx.view._serialize())
    return own["what"] if own else None


def fields_before(ctx: foo.ExecutionContext) -> list[str]:
    """What the thumbnails showed before the panel's own selection; nothing if it shows none."""
    fields = (_own(ctx, ctx.view._serialize()) or {}).get("fields")
    return [name for name in fields if isinstance(name, str)] if isinstance(fields, list) else []


def _own(ctx: foo.ExecutionContext, stages: list[dict]) -> dict[str, Any] | None:
    """The panel's selection, if the view ends with it."""
    own: Any = ctx.store(STORE).get(OWN) if stages else None
    if not _is_selection(own) or len(stages) < own["length"]:
        return None
    return own if digest(stages[len(stages) - own["length"] :]) == own["digest"] else None


def _is_selection(own: Any) -> bool:
    """Whether something in the store is a selection of the panel's: others can write there too."""
    if not isinstance(own, dict) or not {"length", "digest", "what"} <= own.keys():
        return False
    return isinstance(own["length"], int) and own["length"] > 0 and isinstance(own["what"], dict)


def grid_digest(view: fo.DatasetView, selected: list[str]) -> str:
    """A digest that two states of the grid share if they show the same, with the same samples selected."""
    return " ".join([view_digest(view), *sorted(selected)])


def view_digest(view: fo.DatasetView) -> str:
    """A digest that two views share if they are the same."""
    return digest(view._serialize())


def digest(stages: list[dict]) -> str:
    """A digest that two serialized views share if they are the same."""
    plain = [[stage["_cls"], stage["kwargs"]] for stage in stages]  # without the stages' own ids
    return hashlib.sha256(json.dumps(_as_in_javascript(plain), sort_keys=True, default=str).encode()).hexdigest()


def _as_in_javascript(value: Any) -> Any:
    """The value as it comes back from the App, which writes 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _as_in_javascript(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_in_javascript(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
