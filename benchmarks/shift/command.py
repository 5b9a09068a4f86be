"""The command: every scenario measured, and all of it as tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.report.command import ask
from benchmarks.report.results import write_result
from benchmarks.report.table import Cell, Table
from benchmarks.shift.corruptions import SEVERITIES
from benchmarks.shift.measure import Row, correlations, detection_auroc, estimator, measured, monotone
from benchmarks.shift.model import Model
from benchmarks.shift.scenarios import LOOK, Scenario, estimator_sets, made, natural
from benchmarks.shift.tasks import Task, tasks

MODULE = "benchmarks.shift"


@dataclass(frozen=True)
class Shift:
    """Does shift risk follow what a shift costs a model whose accuracy is known?

    Args:
        tasks: of benchmarks/shift/tasks.py
        severities: of made shifts, from 1 to 5
        seed: of the estimator
        json: the result is written to this file
    """

    tasks: tuple[str, ...] = ("emoji", "openclipart", "fashion-mnist")
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    json: Path | None = None


def main() -> None:
    """Measure and print."""
    asked = ask(Shift, MODULE)
    start = time.perf_counter()
    every = tasks(asked.tasks)
    model = Model(every)
    scenarios = [scenario for task in every for scenario in made(model, task, asked.severities)]
    scenarios += [scenario for task in every for scenario in natural(model, task)]
    club, fit = estimator(estimator_sets(model, every), asked.seed)
    rows = measured(scenarios, club)
    figures: dict[str, float] = {"scenarios": len(rows), "monotone_fraction": float(np.mean(monotone(rows)))}
    figures |= correlations(rows) | {f"estimator_{name}": value for name, value in asdict(fit).items()}
    tables = tables_of(rows)
    aurocs = detection(model, every, scenarios)
    strongest = [value for (_, _, severity), value in aurocs.items() if severity == max(asked.severities)]
    figures["detection_auroc_per_sample"] = float(np.mean(strongest))
    figures["detection_auroc_natural"] = float(np.mean([aurocs[key] for key in aurocs if not key[2]]))
    tables["detection"] = detection_table(aurocs, asked.severities)
    figures["seconds"] = time.perf_counter() - start
    for table in tables.values():
        print(table.console(), end="\n\n")
    print(figures)
    write_result(asked.json, MODULE, vars(asked), figures, tables)


def detection(model: Model, every: Sequence[Task], scenarios: Sequence[Scenario]) -> dict[tuple[str, str, int], float]:
    """AUROC of contributions by task, kind and severity, against the items that the model was fitted on."""
    references = {task.name: model.sees(task.reference) for task in every}
    return {
        (each.task, each.kind, each.severity): detection_auroc(references[each.task], each)
        for each in scenarios
        if len(each.before.image) == len(each.after.image) and each.kind != LOOK
    }


def tables_of(rows: Sequence[Row]) -> dict[str, Table]:
    """Scenarios by task and kind: mean over severities of made shifts; every natural one."""
    columns = {"shift": None, "severity": None, "images": 3, "queries": 3, "EMID": 4, "bound": 2, "accuracy lost": 3}
    found = {}
    for task in dict.fromkeys(row.task for row in rows):
        chosen = [row for row in rows if row.task == task and row.severity % 2]
        found[f"made {task}"] = Table.of(columns, [_cells(row) for row in chosen])
    found["natural"] = Table.of(columns, [_cells(row) for row in rows if not row.severity])
    by_group: list[list[Cell]] = [["all", len(rows), *correlations(rows).values()]]
    for task in dict.fromkeys(row.task for row in rows):
        chosen = [row for row in rows if row.task == task]
        by_group.append([task, len(chosen), *correlations(chosen).values()])
    natural_rows = [row for row in rows if not row.severity]
    by_group.append(["natural shifts", len(natural_rows), *correlations(natural_rows).values()])
    titles = {"scenarios of": None, "number": None, "bound ~ EMID": 2, "EMID ~ accuracy lost": 2}
    found["correlations"] = Table.of(
        titles | {"bound ~ accuracy lost": 2, "inputs ~ accuracy lost": 2},
        by_group,
    )
    return found


def _cells(row: Row) -> list[str | float]:
    severity = str(row.severity) if row.severity else ""
    return [row.kind, severity, row.image, row.query, row.emid, row.bound, row.lost]


def detection_table(aurocs: dict[tuple[str, str, int], float], severities: Sequence[int]) -> Table:
    """AUROC of the shifted half of a set: a line for each made shift, and the natural ones in the first column."""
    ladders = dict.fromkeys((task, kind) for task, kind, severity in aurocs if severity)
    rows: list[list[Cell]] = [
        [f"{task}: {kind}", None, *(aurocs[task, kind, each] for each in severities)] for task, kind in ladders
    ]
    empty = [None] * len(severities)
    rows += [[f"{task}: {kind}", value, *empty] for (task, kind, severity), value in aurocs.items() if not severity]
    return Table.of({"shift": None, "natural": 2} | {f"severity {each}": 2 for each in severities}, rows)
