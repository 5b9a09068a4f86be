"""What the panel's tabs show: computed in the database, kept in the panel's state (words) and data (pictures).

Where a field changes, the App writes the pictures' data into the state: their layouts have names of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from bson import ObjectId

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.repair import fixes, review
from fiftyone_ecif.dataset.run.config import kept_traces
from fiftyone_ecif.plugin.panel import figures
from fiftyone_ecif.plugin.panel.choices import kept_forecast

CARDS = 4
SCATTERED = 3000
FIRST_REMOVED = 10  # at first, a tenth of the harmful pairs is thought away
FIRST_REMOVED_TRACED = 10
LISTED_TRACES = 20


def suspects(ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
    """How likely the captions are wrong; and how right that is, where the truth is known."""
    state = ctx.panel.state
    state.suspects = vars(summary.suspicion(base, state.run_key, state.threshold))
    traces, state.histogram_layout = figures.histogram_figure(state.suspects["counts"], state.threshold)
    ctx.panel.set_data("histogram", traces)
    choices = summary.truth_choices(ctx.dataset)
    state.truths, state.measured = choices, None
    if state.truth in choices and (measured := summary.measured_precision(base, state.run_key, state.truth)):
        found = next(iter(measured.values()))
        state.measured = {"average": found.average, "wrong": found.wrong}
        traces, state.precision_layout = figures.precision_figure(measured, state.threshold)
        ctx.panel.set_data("precision", traces)


def cards(ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
    """The most suspicious pairs, one page of them."""
    state = ctx.panel.state
    config = ctx.dataset.get_run_info(state.run_key).config
    waiting = review.to_review(base, state.run_key)
    total = len(waiting)
    state.page = min(state.page or 0, max(0, (total - 1) // CARDS))
    suggestion, misalignment = (FIELDS[name].name(state.run_key) for name in ("suggestion", "misalignment"))
    columns = ["id", "filepath", misalignment, f"{suggestion}.label", f"{suggestion}.confidence"]
    text = fixes.text_path(ctx.dataset, config.text_field) if config.text_field else "id"
    shown = waiting.skip(state.page * CARDS).limit(CARDS)
    state.waiting, state.last_fixed = total, len(fixes.last_fixed(ctx.dataset))
    state.cards = [
        {
            "id": id,
            "image": picture(filepath),
            "text": caption,
            "misalignment": probability,
            "suggestion": label,
            "confidence": confidence,
        }
        for id, filepath, probability, label, confidence, caption in zip(*shown.values([*columns, text]), strict=True)
    ]


def picture(filepath: str) -> str:
    """Where the App's server gives the image."""
    return f"/media?filepath={quote(filepath)}"


def influence(ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
    """What the pairs do in either role, and what removing the most harmful ones would do."""
    state = ctx.panel.state
    columns = summary.roles_sample(base, state.run_key, SCATTERED)
    traces, state.roles_layout = figures.roles_figure(columns)
    ctx.panel.set_data("roles", traces)
    counts, changes = summary.value_curve(base, state.run_key)
    harmful = int(counts[-1])
    state.remove = min(state.remove or -(-harmful // FIRST_REMOVED), harmful)
    forecast = kept_forecast(ctx, state.run_key, base)
    traces, state.removal_layout = figures.removal_figure(counts, changes, state.remove, forecast)
    ctx.panel.set_data("removal", traces)
    state.influence = {
        "drawn": len(columns["id"]),
        "harmful": harmful,
        "change": float(np.interp(state.remove, counts, changes)),
        "predicted": _at(forecast, state.remove),
    }


def _at(forecast: dict[str, Any] | None, removed: int) -> dict[str, list[float]] | None:
    """Each figure before, and predicted at a number of removed pairs; None where there is no prediction."""
    if forecast is None or removed > forecast["removed"][-1]:
        return None
    return {
        name: [values[0], float(np.interp(removed, forecast["removed"], values))]
        for name, values in forecast["predicted"].items()
    }


def trace(ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
    """The pairs to blame for a query, and what removing them does to it."""
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
    state.remove_traced = min(state.remove_traced or FIRST_REMOVED_TRACED, len(opened))
    effect = opened.predicted_effect(state.remove_traced)
    traces, state.blamed_layout = figures.blame_figure(opened.table(), state.remove_traced)
    ctx.panel.set_data("blamed", traces)
    state.blame = vars(effect) | {
        "query": opened.query,
        "kind": opened.kind,
        "pairs": len(opened),
        "notes": opened.notes,
        "asking": _asking(ctx.dataset, opened.query, results.config.text_field),
    }


def _asking(dataset: fo.Dataset, query: str, text_field: str | None) -> dict[str, str | None] | None:
    """The sample that asks, if one of the dataset does: a query from outside has no picture here."""
    kind, _, id = query.partition(" ")
    found = dataset.select(id) if kind == "sample" and ObjectId.is_valid(id) else None
    if not found:
        return None
    (filepath,), (text,) = found.values(["filepath", fixes.text_path(dataset, text_field) if text_field else "id"])
    return {"id": id, "image": picture(filepath), "text": text}


def health(ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
    """How sure the signs of the values are."""
    state = ctx.panel.state
    rounds = ctx.dataset.get_run_info(state.run_key).config.rounds
    found = summary.sureness(base, state.run_key, rounds)
    state.sureness = None if found is None else {"sure": found.sure, "scored": found.scored}
    if found is not None:
        traces, state.spread_layout = figures.sureness_figure(found)
        ctx.panel.set_data("spread", traces)


CONTENT: dict[str, Callable[..., None]] = {
    "suspects": suspects,
    "review": cards,
    "influence": influence,
    "trace": trace,
    "health": health,
}
"""By tab."""
