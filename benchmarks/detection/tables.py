"""The detection grid's figures as tables: mean ± standard error over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.detection.figures import ALL_METHODS
from benchmarks.report.table import Cell, Table, figure_of

Result = dict[str, Any]
"""One cell's settings and figures."""

Figure = Callable[[Result], float | None]
BY_SETTING = ("data", "regime", "noise")
BY_RATE = (*BY_SETTING, "rate")
RATIO_DIGITS = 1


def tables(results: Sequence[Result]) -> dict[str, Table]:
    """All tables by name: AUROC and average precision over rates and at every rate, the package's own, an overview.

    Methods for class labels have empty cells on free captions.
    """
    methods = [name for name in ALL_METHODS if any(f"auroc.{name}" in result for result in results)]
    found = {
        "auroc": method_table(results, BY_SETTING, "auroc", methods),
        "ap": method_table(results, BY_SETTING, "ap", methods),
        "own": own_table(results, BY_SETTING),
        "auroc_by_rate": method_table(results, BY_RATE, "auroc", methods),
        "ap_by_rate": method_table(results, BY_RATE, "ap", methods),
    }
    return found | {"overview": overview(found["auroc"], found["ap"], len(BY_SETTING))}


def method_table(results: Sequence[Result], keys: Sequence[str], figure: str, methods: Sequence[str]) -> Table:
    """A row for each combination of settings and for the mean of each data set, a column for each method."""
    rows: list[list[Cell]] = []
    for group, members in grouped(results, keys):
        rows.append([*map(_setting, group), *(over_seeds(members, figure, name) for name in methods)])
    for data in dict.fromkeys(result["data"] for result in results):
        members = [result for result in results if result["data"] == data]
        cells = [over_seeds(members, figure, name) for name in methods]
        rows.append([f"{data}, all", *[None] * (len(keys) - 1), *cells])
    return Table.of({**dict.fromkeys(keys), **dict.fromkeys(methods, 3)}, rows, best_in_row=True)


def own_table(results: Sequence[Result], keys: Sequence[str]) -> Table:
    """What only the package's run states, and what it costs."""
    columns: dict[str, Figure] = {
        "ECE": lambda result: result.get("ece"),
        "noise rate error": lambda result: _difference(result, "noise_rate_estimate", "planted_rate"),
        "right suggestions": lambda result: result.get("suggestion_accuracy"),
        "cost / LEMoN": lambda result: _ratio(result, "seconds.ecif", "seconds.lemon"),
    }
    rows: list[list[Cell]] = [
        [*map(_setting, group), *(mean_over_seeds(members, figure) for figure in columns.values())]
        for group, members in grouped(results, keys)
    ]
    everything = [mean_over_seeds(results, figure) for figure in columns.values()]
    digits = {**dict.fromkeys(columns, 3), "cost / LEMoN": RATIO_DIGITS}
    return Table.of({**dict.fromkeys(keys), **digits}, [*rows, ["all", *[None] * (len(keys) - 1), *everything]])


def overview(auroc: Table, precision: Table, keys: int) -> Table:
    """AUROC and average precision of the package, the best baseline and the CLIP score, in the mean of each data set.

    Args:
        auroc: of :func:`method_table`
        precision: likewise, the same rows
        keys: how many columns of theirs are settings
    """
    methods = list(auroc.columns[keys:])
    data, by_method = [], []
    for first, second in zip(auroc.rows, precision.rows):
        if str(first[0]).endswith(", all"):
            data.append(str(first[0]).removesuffix(", all"))
            pairs = zip(methods, map(figure_of, first[keys:]), map(figure_of, second[keys:]))
            by_method.append({name: (area, mean) for name, area, mean in pairs if area is not None})
    baselines = [max((name for name in found if name != "ecif"), key=found.__getitem__) for found in by_method]

    def cell(found: dict[str, tuple], name: str) -> str:
        return " / ".join(f"{value:.3f}" for value in found[name]) if name in found else ""

    return Table.of(
        dict.fromkeys(["", *data]),
        [
            ["ecif", *(cell(found, "ecif") for found in by_method)],
            ["best baseline by AUROC", *(f"{cell(found, best)} ({best})" for found, best in zip(by_method, baselines))],
            ["clip_score", *(cell(found, "clip_score") for found in by_method)],
        ],
    )


def grouped(results: Sequence[Result], keys: Sequence[str]) -> Iterable[tuple[tuple, list[Result]]]:
    """The results that agree in some settings, in the order in which these first occur."""
    groups: dict[tuple, list[Result]] = {}
    for result in sorted(results, key=lambda result: (str(result["data"]), str(result["regime"]))):
        groups.setdefault(tuple(result[key] for key in keys), []).append(result)
    return groups.items()


def over_seeds(results: Sequence[Result], figure: str, method: str) -> list[float | None] | None:
    """Mean and standard error of a method's figure over seeds; None where it has none."""
    return mean_over_seeds(results, lambda result: result.get(f"{figure}.{method}"))


def mean_over_seeds(results: Sequence[Result], figure: Figure) -> list[float | None] | None:
    """Mean over seeds of a figure's mean in each seed, and the standard error over seeds (None with one seed)."""
    values: dict[int, list[float]] = {}
    for result in results:
        value = figure(result)
        if value is not None:
            values.setdefault(result["seed"], []).append(value)
    means = np.array([np.mean(of_seed) for of_seed in values.values()])
    if not len(means):
        return None
    return [float(means.mean()), float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else None]


def _setting(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, float) else str(value)


def _difference(result: Result, first: str, second: str) -> float | None:
    return result[first] - result[second] if first in result and second in result else None


def _ratio(result: Result, above: str, below: str) -> float | None:
    return result[above] / result[below] if above in result and below in result else None
