"""What the panel remembers with the dataset, in FiftyOne's store: its choices, and removals that were predicted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import fiftyone.operators as foo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.samples import ungrouped
from fiftyone_ecif.plugin.panel.view import STORE, view_digest

PANEL = "ecif_panel"


def keep_choices(ctx: foo.ExecutionContext, choices: dict[str, Any]) -> None:
    """Remember the panel's choices for the next time it is opened; others stay as they are."""
    ctx.store(STORE).set("choices", kept_choices(ctx) | choices)


def kept_choices(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The panel's choices when it was last seen, as the store has them: nobody checked them."""
    kept = ctx.store(STORE).get("choices")
    return kept if isinstance(kept, dict) else {}


def open_panel(ctx: foo.ExecutionContext, tab: str, run_key: str) -> Any:
    """Open the panel beside the grid, at a tab and a run, and return the message to the App."""
    keep_choices(ctx, {"tab": tab, "run_key": run_key})
    return ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)


def keep_forecast(ctx: foo.ExecutionContext, run_key: str, view: SampleCollection, forecast: Any) -> None:
    """Remember a removal's forecast for the panel."""
    kept = {"of": _identity(ctx, run_key, view)} | asdict(forecast)
    ctx.store(STORE).set(f"forecast:{run_key}", kept)


def kept_forecast(ctx: foo.ExecutionContext, run_key: str, view: SampleCollection) -> dict[str, Any] | None:
    """The run's latest forecast, if it is about this view; else None."""
    kept = ctx.store(STORE).get(f"forecast:{run_key}")
    return kept if _is_forecast(kept) and kept["of"] == _identity(ctx, run_key, view) else None


def _is_forecast(kept: Any) -> bool:
    """Whether something in the store is a forecast: others can write there too."""
    if not isinstance(kept, dict) or not {"of", "removed", "predicted"} <= kept.keys():
        return False
    removed, predicted, errors = kept["removed"], kept["predicted"], kept.get("standard_error", {})
    if not isinstance(predicted, dict) or "target_loss" not in predicted or len(predicted) < 2:
        return False
    if not isinstance(errors, dict) or not errors.keys() <= predicted.keys():
        return False
    columns = removed, *predicted.values(), *errors.values()
    return all(_are_numbers(column) and len(column) == len(removed) for column in columns)


def _are_numbers(column: Any) -> bool:
    return isinstance(column, list) and len(column) > 0 and all(isinstance(each, (int, float)) for each in column)


def _identity(ctx: foo.ExecutionContext, run_key: str, view: SampleCollection) -> list[str]:
    """What a forecast is about. A run that replaces another differs from it by its time."""
    return [str(ctx.dataset.get_run_info(run_key).timestamp), view_digest(ungrouped(view).view())]
