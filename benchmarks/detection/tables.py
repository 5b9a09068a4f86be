"""The detection grid's figures as tables of a document."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.figures import ALL_METHODS

BEGIN, END = "<!-- detection grid: begin -->", "<!-- detection grid: end -->"

Result = dict[str, Any]
"""One cell's settings and figures."""

Figure = Callable[[Result], float | None]


def write_tables(results: Sequence[Result], document: Path) -> None:
    """Put the tables between the document's markers, all or nothing.

    Args:
        results: of the cells
        document: a Markdown file with both markers

    Raises:
        ValueError: if a marker is missing
    """
    text = document.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{document} lacks the lines {BEGIN} and {END}, between which the tables go.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    part = document.with_name(document.name + ".part")
    part.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}")
    os.replace(part, document)


def tables(results: Sequence[Result]) -> str:
    """All tables in Markdown: AUROC and average precision over rates, what is the package's own, and every rate."""
    if not results:
        return "Nothing has been measured yet."
    seeds = ", ".join(map(str, sorted({result["seed"] for result in results})))
    methods = [name for name in ALL_METHODS if any(f"auroc.{name}" in result for result in results)]
    by_setting = ("data", "regime", "noise")
    sections = [
        f"{len(results)} cells; seeds {seeds}. Mean ± standard error over seeds; the best of a row is bold. Methods "
        "for class labels have no figures on free captions.",
        "AUROC, mean over noise rates:",
        method_table(results, by_setting, "auroc", methods),
        "Average precision, mean over noise rates:",
        method_table(results, by_setting, "ap", methods),
        "`ecif` itself: expected calibration error, estimated minus planted noise rate, share of suspected swaps whose "
        "suggestion names the right class, and its seconds over LEMoN's, both from the tower features on:",
        own_table(results, by_setting),
        "<details><summary>Every noise rate</summary>\n\nAUROC:",
        method_table(results, (*by_setting, "rate"), "auroc", methods),
        "Average precision:",
        method_table(results, (*by_setting, "rate"), "ap", methods) + "\n\n</details>",
    ]
    return "\n\n".join(sections)


def method_table(results: Sequence[Result], keys: Sequence[str], figure: str, methods: Sequence[str]) -> str:
    """A row per combination of settings and a column per method, with averages over the rows of each data set."""
    rows = []
    for group, members in grouped(results, keys):
        rows.append([*map(_setting, group), *marked([over_seeds(members, figure, name) for name in methods])])
    for data in [*dict.fromkeys(result["data"] for result in results)]:
        members = [result for result in results if result["data"] == data]
        cells = marked([over_seeds(members, figure, name) for name in methods])
        rows.append([f"**{data}, all**", *[""] * (len(keys) - 1), *cells])
    return markdown([*keys, *methods], rows)


def own_table(results: Sequence[Result], keys: Sequence[str]) -> str:
    """What only the package's run states, and what it costs."""
    columns: dict[str, Figure] = {
        "ECE": lambda result: result.get("ece"),
        "noise rate error": lambda result: _difference(result, "noise_rate_estimate", "planted_rate"),
        "right suggestions": lambda result: result.get("suggestion_accuracy"),
        "cost / LEMoN": lambda result: _ratio(result, "seconds.ecif", "seconds.lemon"),
    }
    rows = [
        [*map(_setting, group), *(_cell(mean_over_seeds(members, figure)) for figure in columns.values())]
        for group, members in grouped(results, keys)
    ]
    everything = [_cell(mean_over_seeds(results, figure)) for figure in columns.values()]
    return markdown([*keys, *columns], [*rows, ["**all**", *[""] * (len(keys) - 1), *everything]])


def grouped(results: Sequence[Result], keys: Sequence[str]) -> Iterable[tuple[tuple, list[Result]]]:
    """The results that agree in some settings, in the order in which these first occur."""
    groups: dict[tuple, list[Result]] = {}
    for result in sorted(results, key=lambda result: (str(result["data"]), str(result["regime"]))):
        groups.setdefault(tuple(result[key] for key in keys), []).append(result)
    return groups.items()


def over_seeds(results: Sequence[Result], figure: str, method: str) -> tuple[float, float] | None:
    """Mean and standard error of a method's figure over seeds; None where it has none."""
    return mean_over_seeds(results, lambda result: result.get(f"{figure}.{method}"))


def mean_over_seeds(results: Sequence[Result], figure: Figure) -> tuple[float, float] | None:
    """Mean over seeds of a figure's mean in each seed, and the standard error over seeds (nan with one seed)."""
    values: dict[int, list[float]] = {}
    for result in results:
        value = figure(result)
        if value is not None:
            values.setdefault(result["seed"], []).append(value)
    means = np.array([np.mean(of_seed) for of_seed in values.values()])
    if not len(means):
        return None
    return float(means.mean()), float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else float("nan")


def marked(figures: Sequence[tuple[float, float] | None]) -> list[str]:
    """Cells of a row, the largest mean in bold."""
    best = max((figure[0] for figure in figures if figure), default=0.0)
    cells = [_cell(figure) for figure in figures]
    return [f"**{cell}**" if figure and figure[0] == best else cell for figure, cell in zip(figures, cells)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(figure: tuple[float, float] | None) -> str:
    if figure is None:
        return ""
    mean, error = (f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}" for value in figure)
    return mean if error == "nan" else f"{mean} ± {error}"


def _setting(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, float) else str(value)


def _difference(result: Result, first: str, second: str) -> float | None:
    return result[first] - result[second] if first in result and second in result else None


def _ratio(result: Result, above: str, below: str) -> float | None:
    return result[above] / result[below] if above in result and below in result else None
