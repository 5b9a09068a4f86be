"""The last step of a shift run: its fields, its record and its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import fiftyone as fo
import torch
from torch import Tensor

from fiftyone_ecif.dataset.run.config import ShiftConfig
from fiftyone_ecif.dataset.run.store import Columns, write_run
from fiftyone_ecif.dataset.samples import those
from fiftyone_ecif.dataset.shift.embed import Encoders
from fiftyone_ecif.dataset.shift.estimate import Judge
from fiftyone_ecif.dataset.shift.read import Taken, overlap
from fiftyone_ecif.dataset.shift.request import MEASURES, ShiftRequest
from fiftyone_ecif.dataset.shift.results import ESTIMATOR, REFERENCE
from fiftyone_ecif.shift import Assessment, Direction, Estimate


@dataclass(frozen=True)
class Computed:
    """Everything that a run has found out, before it is written.

    Attributes:
        taken: the snapshot
        ids: of the compared samples of each set
        found: by scenario
        used: the encoders
        judge: the estimator; None without responses
    """

    taken: Taken
    ids: dict[str, list[str]]
    found: dict[str, Assessment]
    used: Encoders
    judge: Judge | None


def record(
    dataset: fo.Dataset,
    request: ShiftRequest,
    computed: Computed,
    notes: list[str],
    timings: Mapping[str, float],
) -> None:
    """Write the run's fields, its record and its tensors, or nothing at all."""
    everything = computed.taken.usable()
    there = set(those(dataset, everything).values("id"))
    if not there & set(everything):
        raise ValueError("All samples were deleted while the shift was computed: there is nothing to write it to.")
    judge = computed.judge
    first = next(iter(computed.found.values())).answers
    kept = dict(
        scenarios=[_scenario(name, computed) for name in computed.found],
        reference=dict(
            count=len(computed.ids[REFERENCE]),
            emi=None if first is None else asdict(first.emi[0]),
            answers=None if first is None else asdict(first.answers[0]),
        ),
        estimator_fit=None if judge is None or judge.fit is None else asdict(judge.fit),
        health=dict(
            samples=len(everything),
            skipped=len(computed.taken.skipped),
            skip_reasons=[[reason, count] for reason, count in Counter(computed.taken.skipped.values()).most_common()],
            in_reference_too=[[name, count] for name, count in overlap(computed.taken).items()],
        ),
        timings=dict(timings),
        warnings=notes,
        skipped=computed.taken.skipped,
    )
    asked = request.stored() | ({} if judge is None else {"bounded": judge.club.bounded})
    config = ShiftConfig(**asked, scenarios=list(computed.found), **computed.used.titles)
    columns = {
        suffix: {id: value for id, value in column.items() if id in there}
        for suffix, column in _columns(computed).items()
    }
    write_run(dataset, request.run_key, config, columns, kept, _tensors(computed), request.overwrite)


def _scenario(name: str, computed: Computed) -> dict[str, Any]:
    """A scenario as its record keeps it."""
    found, ids = computed.found[name], (computed.ids[REFERENCE], computed.ids[name])
    kept: dict[str, Any] = dict(name=name, count=len(ids[1]))
    for role in ("image", "query"):
        shift = found.inputs.get(role)
        kept[role] = None if shift is None else asdict(shift.divergence)
        kept[f"{role}_directions"] = [] if shift is None else [_direction(each, ids) for each in shift.directions]
    answers = found.answers
    estimates: dict[str, Estimate | None] = dict.fromkeys(("emi", "emid", "bound", "entropy_bound"))
    if answers is not None:
        estimates = dict(
            emi=answers.emi[1], emid=answers.emid, bound=answers.bound, entropy_bound=answers.entropy_bound
        )
    kept |= {key: None if value is None else asdict(value) for key, value in estimates.items()}
    return kept | dict(answers=None if answers is None else asdict(answers.answers[1]))


def _direction(direction: Direction, ids: tuple[list[str], list[str]]) -> dict[str, Any]:
    named = [ids[direction.side][row] for row in direction.rows]
    return dict(reference_mass=direction.masses[0], scenario_mass=direction.masses[1], sample_ids=named)


def _columns(computed: Computed) -> Columns:
    """The values of the run's fields. A sample of several sets has those of the first scenario that it is in."""
    columns: Columns = {"scenario": {}}
    for role, suffix in MEASURES.items():
        parts = {name: _parts(found, role) for name, found in computed.found.items()}
        if any(pair is None for pair in parts.values()):
            continue
        reference = torch.stack([pair[0] for pair in parts.values() if pair is not None]).mean(0)
        columns[suffix] = _values(computed.ids[REFERENCE], reference)
        for name in reversed(computed.found):
            pair = parts[name]
            assert pair is not None
            columns[suffix] |= _values(computed.ids[name], pair[1])
    for name in (REFERENCE, *reversed(computed.found)):
        columns["scenario"] |= dict.fromkeys(computed.ids[name], name)
    return columns


def _parts(found: Assessment, role: str) -> tuple[Tensor, Tensor] | None:
    """What each sample of the reference, and of a scenario, adds to one of :data:`MEASURES`."""
    if role == "emi":
        return None if found.answers is None else found.answers.rows
    return found.inputs[role].contributions if role in found.inputs else None


def _values(ids: list[str], values: Tensor) -> dict[str, object]:
    """Values by sample id; None where there is no finite one."""
    finite = values.isfinite().tolist()
    return {id: value if fine else None for id, value, fine in zip(ids, values.tolist(), finite, strict=True)}


def _tensors(computed: Computed) -> dict[str, Tensor]:
    """What is kept on disk: the estimator, and the directions."""
    tensors: dict[str, Tensor] = {}
    if computed.judge is not None:
        state = computed.judge.club.state_dict()
        tensors |= {f"{ESTIMATOR}{name}": value for name, value in state.items()}
    for number, found in enumerate(computed.found.values()):
        for role, shift in found.inputs.items():
            if shift.directions:
                tensors[f"directions.{number}.{role}"] = torch.stack([each.vector for each in shift.directions])
    return tensors
