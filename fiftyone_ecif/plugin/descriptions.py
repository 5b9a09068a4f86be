"""How figures and runs are put into words, in the operators' forms and in the panel alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset.run.config import stored_results
from fiftyone_ecif.plugin.forms import notice

FIGURES = {
    "target_loss": "Target loss (nats)",
    "recall_at_1": "Recall at 1",
    "recall_at_5": "Recall at 5",
    "zero_shot_accuracy": "Zero-shot accuracy",
}
"""What the figures of a removal are called."""

EXPLAINED = {
    "anchor": "The strength of the proximal term, which keeps the fitted head close to the given weights",
    "damping": "A constant added to the curvature before systems are solved with it",
    "rounds": "How many times the pairs were partitioned into random batches",
    "cg_relative_residual": "How far the solver stopped from the solution, relative to the right-hand side",
    "noise_rate": "The estimated share of misaligned pairs",
    "noise_interval": "The central 90 % interval of that share",
    "fits": "How many times the scope was fitted: once with a target, or once for each fold of each split into folds",
    "folds": "Into how many folds the pairs are split, of which each fit leaves one out",
    "fit_rounds": "On how many of the rounds of batches each fit is at rest",
    "ranking_stability": "The share of the most harmful pairs that both halves of the fits agree on (with a target, of "
    "the rounds); a repeat agrees on more",
}
"""What some names in a run's tables mean, shown as tooltips."""

UNSHOWN_SETTINGS = ("cls", "method", "type")
"""Entries of a run's settings that are FiftyOne's own."""

SHOWN_REASONS = 10

MOST_DECIMALS = 8

ERRORS_EXPLAINED = "± is two standard errors of the predicted change, by its spread over the run's fits."


def figure_name(name: str) -> str:
    """What a figure of a removal is called."""
    return FIGURES.get(name, name)


def before_and_after(before: float, after: float, error: float | None, digits: int = 4) -> tuple[str, str]:
    """Two figures with as many decimals as it takes to tell their difference, and the second with its error.

    Args:
        before: the figure now
        after: the predicted figure
        error: standard error of the difference; None or NaN where nothing tells of it
        digits: significant digits of the figures, at least
    """
    known = error is not None and math.isfinite(error)
    width = 2 * error if known and error else abs(after - before)
    decimals = max(_decimals(max(abs(before), abs(after)), digits), _decimals(width, 2))
    return f"{before:.{decimals}f}", with_error(f"{after:.{decimals}f}", error)


def _decimals(number: float, digits: int) -> int:
    """The decimals that show so many significant digits of a number; not more than anybody reads."""
    if not number or not math.isfinite(number):
        return 0
    return min(MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(abs(number)))))


def with_error(predicted: str, error: float | None, number: str = ".2g") -> str:
    """A predicted figure in words, with two standard errors of its change where they are known.

    Args:
        predicted: the figure
        error: the standard error; None or NaN where nothing tells of it
        number: how it is written
    """
    return predicted if error is None or math.isnan(error) else f"{predicted} ± {2 * error:{number}}"


def describe_run(ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
    """Add what the user should know of a run, then tables of its health, settings and timings."""
    info, results = ctx.dataset.get_run_info(run_key), stored_results(ctx.dataset, run_key)
    for number, warning in enumerate(results.warnings):
        notice(inputs, f"warning_{number}", types.Warning, warning)
    reasons = Counter(results.skipped.values()).most_common()
    for number, (reason, count) in enumerate(reasons[:SHOWN_REASONS]):
        notice(inputs, f"skipped_{number}", types.Notice, f"Skipped {count:,}: {reason}")
    if len(reasons) > SHOWN_REASONS:
        rest = f"Skipped {sum(count for _, count in reasons[SHOWN_REASONS:]):,} more, for other reasons"
        notice(inputs, "skipped_rest", types.Notice, rest)
    settings = {name: value for name, value in info.config.serialize().items() if name not in UNSHOWN_SETTINGS}
    health = {name: value for name, value in results.health.items() if name != "skip_reasons"}
    _table(inputs, "health", "Health", health)
    _table(inputs, "settings", "Settings", {"computed": f"{info.timestamp:%Y-%m-%d %H:%M:%S}", **settings})
    _table(inputs, "timings", "Seconds per step", results.timings)


def _table(inputs: types.Object, name: str, label: str, values: Mapping[str, Any]) -> None:
    """Add a table of names and values, which the App shows as plain text; nothing if there are none."""
    rows = [{"name": key, "value": _written(value)} for key, value in values.items() if value is not None]
    if rows:
        table = types.TableView(read_only=True)
        table.add_column("name", label=label)
        table.add_column("value", label="")
        for number, row in enumerate(rows):
            if row["name"] in EXPLAINED:
                table.add_tooltip(number, 0, EXPLAINED[row["name"]])  # in the first column
        inputs.list(name, types.Object(), default=rows, view=table)


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_written(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_written, value))
    return str(value)
