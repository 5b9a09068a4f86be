"""The fidelity benchmark over a grid of regimes, one setting varied at a time: the tables of docs/fidelity.md.

``python -m benchmarks.fidelity.sensitivity --help`` lists the settings that can be varied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm
from tyro.conf import Positional

from benchmarks.fidelity.measure import measure
from benchmarks.fidelity.removal_problem import PROBLEMS, REGIMES, NotAtRest, Regime, ScopeName
from benchmarks.fidelity.retraining import Figures
from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Table, figure_cell

MODULE = "benchmarks.fidelity.sensitivity"
TableName = Literal[
    "seed", "data", "anchor", "weak-anchor", "damping", "rounds", "batch-size", "logit-scale", "captions",
    "rank", "lora-anchor", "lora-logit-scale",
]  # fmt: skip

BASES: dict[ScopeName, Regime] = {
    "head": replace(REGIMES["head"], pairs=1_000, subsets=20),
    "lora": replace(REGIMES["lora"], subsets=12, singles=4, edits=2),
}
"""The regime of each scope that its tables vary."""

CAPTIONS: dict[str, Any] = {
    "data": "openclipart", "model": "lite0-minilm", "base_pairs": 2_400, "pairs": 600, "batch_size": 200,
    "subsets": 12, "singles": 4, "edits": 2,
}  # fmt: skip
"""Free captions and pretrained towers; few pairs, since their head has 640,000 parameters."""

TABLES: dict[ScopeName, dict[TableName, list[dict[str, Any]]]] = {
    "head": {
        "seed": [{"seed": seed} for seed in range(3)],
        "data": [{"data": data} for data in ("fashion-mnist", "digits")],
        "anchor": [{"anchor": anchor} for anchor in (0.03, 0.05, 0.1, 0.3, 1.0)],
        "weak-anchor": [
            {"anchor": anchor, "seed": seed, "subsets": 80, "singles": 4, "edits": 2}
            for anchor in (0.03, 0.02, 0.01)
            for seed in (0, 1)
        ],
        "damping": [{"damping": damping} for damping in (0.0, 0.01, 0.1, 1.0)],
        "rounds": [{"rounds": rounds} for rounds in (1, 2, 4)],
        "batch-size": [{"batch_size": batch_size} for batch_size in (16, 64, 256)],
        "logit-scale": [
            {"batch_size": batch_size, "logit_scale": scale}
            for batch_size in (16, 256)
            for scale in (15.0, 30.0, 60.0, 100.0)
        ],
        "captions": [{**CAPTIONS, "seed": seed} for seed in range(3)],
    },
    "lora": {
        "rank": [{"rank": rank} for rank in (1, 4, 16)],
        "lora-anchor": [{"anchor": anchor} for anchor in (0.03, 0.1, 1.0)],
        "lora-logit-scale": [{"logit_scale": scale} for scale in (30.0, 60.0)],
    },
}
"""What each table varies, by scope."""
SCOPES: dict[TableName, ScopeName] = {name: scope for scope, tables in TABLES.items() for name in tables}
SHORT = {
    "exact": "exact", "first order": "first_order", "positive only": "positive_only", "K-FAC": "kfac",
    "TracIn": "tracin", "TRAK": "trak",
}  # fmt: skip
"""Methods that the table shows, as it calls them."""

COLUMNS = {
    **{f"LDS {title}": f"lds_{name}" for title, name in SHORT.items()},
    **{f"random groups {title}": f"lds_random_groups_{name}" for title, name in SHORT.items()},
    "slope exact": "slope_exact",
    "slope K-FAC": "slope_kfac",
    "leave-one-out": "loo_pearson",
    **{f"cosine {title}": f"cosine_{SHORT[title]}" for title in ("exact", "first order", "positive only")},
    "edit over refit": "speedup_edit",
    "fitted τ": "fitted_logit_scale",
}
DIGITS = {"edit over refit": 0, "fitted τ": 0}
"""Decimal places of columns that have other than three."""


@dataclass(frozen=True)
class Sensitivity:
    """Run the fidelity benchmark over a grid of regimes, one setting varied at a time.

    Args:
        tables: which settings are varied; all of them when none is named
        json: the result is written to this file
        json_lines: the figures of every run are appended to this file, a line each, as they come; a run that is in it
            already is not measured again
    """

    tables: Positional[tuple[TableName, ...]] = ()
    json: Path | None = None
    json_lines: Path | None = None


def main() -> None:
    """Run the chosen tables, print them as one, write it."""
    asked = ask(Sensitivity, MODULE)
    runs = measure_tables(asked)
    table = regime_table(runs)
    print(f"\n{table.console()}")
    figures = dict(runs)
    bases = {str(SCOPES[name]): asdict(BASES[SCOPES[name]]) for name in asked.tables or SCOPES}
    write_result(asked.json, MODULE, {"tables": asked.tables, **bases}, figures, {"regimes": table})


def measure_tables(asked: Sensitivity) -> list[tuple[str, Figures]]:
    """Run every regime of the chosen tables; one that does not come to rest is reported and left out.

    Returns:
        what is varied, in words, and the figures, of each run
    """
    runs = []
    for name in asked.tables or SCOPES:
        scope, table = SCOPES[name], TABLES[SCOPES[name]][name]
        told = [setting for setting in table[0] if len({varied[setting] for varied in table}) > 1]
        for varied in tqdm(table, desc=name, unit="run"):
            regime = replace(BASES[scope], **varied)
            settings = {"table": name, "scope": scope, **asdict(regime)}
            label = ", ".join(f"{setting} {varied[setting]}" for setting in told)
            figures = measured_before(asked.json_lines, settings)
            if figures is None:
                try:
                    figures = measure(PROBLEMS[scope](regime, progress=False), regime, progress=False)
                except NotAtRest as error:
                    print(f"{label}: {error}")
                    continue
                if asked.json_lines:
                    with asked.json_lines.open("a") as file:
                        file.write(json.dumps(settings | figures) + "\n")
            runs.append((label, figures))
    return runs


def measured_before(lines: Path | None, settings: Mapping[str, Any]) -> Figures | None:
    """The figures of a run with these settings, if a file of lines has them."""
    if lines is None or not lines.exists():
        return None
    for line in map(json.loads, lines.read_text().splitlines()):
        if settings.items() <= line.items():
            return {name: value for name, value in line.items() if name not in settings}
    return None


def regime_table(runs: Sequence[tuple[str, Figures]]) -> Table:
    """A row for each run, what it varies first."""
    return Table.of(
        {"varied": None, **{title: DIGITS.get(title, 3) for title in COLUMNS}},
        [[label, *(figure_cell(figures, name) for name in COLUMNS.values())] for label, figures in runs],
    )


if __name__ == "__main__":
    main()
