"""Traces: which pairs are to blame for a failing query, what they did, and what removing them would do."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fiftyone as fo
import torch
from fiftyone.core.collections import SampleCollection
from fiftyone.core.sample import SampleView
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fiftyone_ecif.attribution.question import Question
from fiftyone_ecif.core import Progress
from fiftyone_ecif.core.query_gradient import KINDS
from fiftyone_ecif.dataset.arguments import COUNT
from fiftyone_ecif.dataset.ask.query import Answer, Asked, Interpreter, Query
from fiftyone_ecif.dataset.ask.trace_study import ORDERS, TRACED, Found, TraceStudy
from fiftyone_ecif.dataset.checks import check_flat
from fiftyone_ecif.dataset.progress import ProgressChoice, reporting
from fiftyone_ecif.dataset.run.config import kept_trace_folder, kept_traces
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.samples import everything, number_of
from fiftyone_ecif.dataset.texts import text_path

SHOWN = 3
"""Reasons that a message names."""

_TENSORS = ("feature", "rows", "right", "others")
_RECORDED = (
    "query", "sample_ids", "kind", "ids", "value", "value_positive", "value_negative", "relative", "doubt", "target",
    "notes", "measured", "_by_round", "_by_head",
)  # fmt: skip


@dataclass(frozen=True)
class TraceEffect:
    """What removing the pairs that are most to blame does to the query.

    The figures are the margin, the best right answer's similarity less the best wrong one's in nats, which is above 0
    where the query is answered right; for traces of kind "loss" they are the query's loss in nats. Several queries,
    and the two heads of a cross-fitted run that are traced, are averaged.

    Attributes:
        removed: number of pairs
        before: with all pairs
        predicted: without them, by the sum of their values
        standard_error: of ``predicted``, from its spread over rounds of random batches and over the two heads of a
            cross-fitted run; NaN with one round and one head
        measured: after really refitting without them, drift subtracted; None if nobody verified it
    """

    removed: int
    before: float
    predicted: float
    standard_error: float
    measured: float | None = None


@dataclass
class Trace:
    """The pairs that are most to blame for a query, most first.

    Attributes:
        run: the run
        key: under which the trace is kept with the run
        query: in words
        sample_ids: the samples that ask; empty for a query from outside
        kind: "margin" or "loss"
        ids: the pairs' sample ids, (k,)
        value: predicted change of the query's loss (kind "margin": of its negative margin), in nats, if the pair were
            removed. Negative: the pair harms the query
        value_positive: the part that the pair has as a positive
        value_negative: the part that it has as a negative of others
        relative: ``value`` over the size of the step that removing the pair causes
        doubt: 0 to 1, how likely the pair's text is wrong, says a head that was not fitted on the pair. The order is by
            ``relative`` times ``doubt``, shared with similar pairs, unless another was asked for
        target: the query's loss, or negative margin, with all pairs
        notes: what the user should know, in plain words
        measured: like ``target``, after really refitting without the first n pairs, by n: what was verified
    """

    run: Run
    key: str
    query: str
    sample_ids: list[str]
    kind: str
    ids: list[str]
    value: list[float]
    value_positive: list[float]
    value_negative: list[float]
    relative: list[float]
    doubt: list[float]
    target: float
    notes: list[str] = field(default_factory=list)
    measured: dict[int, float] = field(default_factory=dict)
    _by_round: list[list[float]] = field(default_factory=list, repr=False)
    _by_head: list[list[float]] = field(default_factory=list, repr=False)
    _questions: list[Question] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def view(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs as a view, most to blame first; samples deleted since are left out."""
        ids = self.ids if limit is None else self.ids[: COUNT("limit", limit)]
        return everything(self.run.dataset).select(ids, ordered=True)

    def table(self) -> list[dict]:
        """One row per pair, most to blame first: id, text, value, both roles, relative influence and doubt."""
        name = self.run.config.text_field
        texts: dict[str, str | None] = {}
        if name is not None:
            view = self.view()
            texts = dict(zip(*view.values(["id", text_path(view, name)])))
        return [
            dict(
                id=id, text=texts.get(id), value=value, value_positive=positive, value_negative=negative,
                relative=relative, doubt=doubt,
            )
            for id, value, positive, negative, relative, doubt in zip(
                self.ids, self.value, self.value_positive, self.value_negative, self.relative, self.doubt
            )
        ]  # fmt: skip

    def predicted_effect(self, n: int) -> TraceEffect:
        """What becomes of the query if the n pairs that are most to blame are removed: at once, without refitting."""
        n = min(COUNT("n", n), len(self))
        heads = min(TRACED, len(self.run.fitted))
        rounds = torch.tensor(self._by_round)[:, :n].sum(1) / heads
        by_head = torch.tensor(self._by_head)[:, :n].sum(1) if self._by_head else torch.zeros(0)
        known = [part.std().item() / math.sqrt(len(part)) for part in (rounds, by_head) if len(part) > 1]
        error = math.hypot(*known) if known else math.nan
        change = rounds.mean().item()
        measured = None if n not in self.measured else self._shown(self.measured[n])
        return TraceEffect(n, self._shown(self.target), self._shown(self.target + change), error, measured)

    def verify(self, n: int, progress: ProgressChoice = None) -> TraceEffect:
        """The same, and what really refitting the head without them gives; kept with the trace.

        Raises:
            ValueError: if the data has changed since the run
        """
        n = min(COUNT("n", n), len(self))
        study = TraceStudy(self.run)
        removed = torch.zeros(len(study.pairs), dtype=torch.bool)
        removed[[study.row[id] for id in self.ids[:n]]] = True
        with reporting(progress) as report:
            self.measured[n] = study.measured(self._questions, self.kind, removed, report)
        self.save()
        return self.predicted_effect(n)

    def _shown(self, target: float) -> float:
        return -target if self.kind == "margin" else target

    def save(self) -> None:
        """Keep the trace with its run; done by ``InfluenceResults.trace``."""
        record = {name: getattr(self, name) for name in _RECORDED}
        record["asks"] = [question.asks for question in self._questions]
        tensors: dict[str, Tensor] = {}
        for number, question in enumerate(self._questions):
            tensors |= {f"{number}.{name}": getattr(question, name).contiguous() for name in _TENSORS}
        path = trace_file(self.run, self.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata={"trace": json.dumps(record)})
        part.replace(path)


def make_traces(
    study: TraceStudy,
    query: str | fo.Sample | SampleCollection | Query | list,
    k: int,
    kind: str,
    order: str,
    direction: str,
    right: Answer,
    wrong: Answer,
    key: str | None,
    report: Progress,
) -> Trace | list[Trace]:
    """See ``InfluenceResults.trace``; ``study`` is of the run."""
    for name, value, known in (("kind", kind, KINDS), ("order", order, ORDERS)):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}.")
    queries = query if isinstance(query, list) else [query]
    keys = _keys(study.run, key, len(queries) if isinstance(query, list) else None)
    interpreter = Interpreter(study, report)
    asking = [_asked(interpreter, one, direction, right, wrong) for one in queries]
    questions = [[asked.question for asked in one.failing] for one in asking]
    excluded = [set().union(*(asked.own for asked in one.failing)) for one in asking]
    found = study.trace(questions, kind, k, order, excluded, report) if asking else []
    traces = []
    for name, one, group, result in zip(keys, asking, questions, found, strict=True):
        traces.append(_trace(study, name, kind, one, group, result))
        traces[-1].save()
    return traces if isinstance(query, list) else traces[0]


def _keys(run: Run, key: str | None, several: int | None) -> list[str]:
    """The keys to keep traces under: the one that was asked for, with a number each where there are several.

    Raises:
        ValueError: if it cannot name a trace
    """
    if key is not None:
        chosen = [key] if several is None else [f"{key}-{number}" for number in range(1, several + 1)]
        for each in chosen:
            if trace_file(run, each).exists():
                raise ValueError(
                    f"Run {run.run_key!r} has a trace {each!r} already: choose another key, or forget that trace with "
                    f"results.delete_trace({each!r})."
                )
        return chosen
    taken = set(list_traces(run))
    free: list[str] = []
    number = len(taken)
    while len(free) < (several or 1):
        number += 1
        if f"trace-{number}" not in taken:
            free.append(f"trace-{number}")
    return free if several is None or several else []


class _Asking(NamedTuple):
    """What one query asks: its failing questions, the query in words, the samples that ask, and what is to be said."""

    failing: list[Asked]
    name: str
    sample_ids: list[str]
    notes: list[str]


def _asked(interpreter: Interpreter, query: Any, direction: str, right: Answer, wrong: Answer) -> _Asking:
    """The failing questions of one query.

    Raises:
        ValueError: if it cannot be asked about, or nothing of it fails
    """
    reasons: dict[str, str] = {}
    if isinstance(query, Query):
        asked = [interpreter.outside(query)]
        name, compared = asked[0].name, wrong is not None or query.wrong is not None
    else:
        samples = _as_view(interpreter.study.run, query)
        asked, reasons = interpreter.samples(samples, direction, right, wrong)
        name, compared = f"{number_of(samples)} samples", wrong is not None
        if reasons and number_of(samples) == 1:
            raise ValueError(f"Sample {samples.first().id} cannot be traced: {next(iter(reasons.values()))}")
    failing = [one for one in asked if one.margin < 0 or compared]
    if not failing:
        raise ValueError(_nothing_fails(asked, reasons))
    notes = []
    if len(failing) < len(asked):
        notes.append(f"{len(asked) - len(failing)} of {len(asked)} samples are answered right and were left out.")
    if reasons:
        notes.append(f"{len(reasons)} samples were left out: {_some(reasons)}")
    own = set().union(*(one.own for one in failing))
    if own:
        notes.append(
            "The query is itself a training pair: it is left out of its own trace."
            if len(failing) == 1
            else f"{len(own)} of the queries are themselves training pairs: they are left out of the trace."
        )
    sample_ids = [one.sample_id for one in failing if one.sample_id is not None]
    return _Asking(failing, name if len(failing) > 1 else failing[0].name, sample_ids, notes)


def _nothing_fails(asked: list[Asked], reasons: dict[str, str]) -> str:
    """Why there is nothing to trace, and what to do."""
    if len(asked) == 1:
        return (
            f"The {asked[0].name} does not fail: its right answer leads by {asked[0].margin:.2f}. To compare it "
            "with a given answer all the same, pass that one as wrong=."
        )
    why = f"; {len(reasons)} cannot be asked about: {_some(reasons)}" if reasons else ""
    return f"None of these {len(asked) + len(reasons)} samples fails{why}."


def _some(reasons: dict[str, str]) -> str:
    """A few of the reasons, each once."""
    return "; ".join(sorted(set(reasons.values()))[:SHOWN])


def _as_view(run: Run, query: Any) -> SampleCollection:
    """A sample, its id or a collection, as a collection."""
    if isinstance(query, SampleCollection):
        check_flat(query, "The view to trace")
        if number_of(query) == 0:
            raise ValueError("The view to trace is empty: there is no failing query in it.")
        return query
    is_sample = isinstance(query, (fo.Sample, SampleView))
    id = query.id if is_sample else query
    if not isinstance(id, str):
        raise ValueError(
            f"A query is a sample, its id, a view, a Query or a list of these, not {type(query).__name__}."
        )
    dataset = query.dataset if is_sample and query.in_dataset else run.dataset
    try:
        view = everything(dataset).select(id)
        found = number_of(view)
    except Exception:  # FiftyOne hands on whatever the database says of a string that is no id
        found = 0
    if not found:
        raise ValueError(
            f"There is no sample {id!r} in dataset {run.dataset.name!r}: it was deleted, or is of another dataset."
        )
    return view


def _trace(study: TraceStudy, key: str, kind: str, asking: _Asking, questions: list[Question], found: Found) -> Trace:
    ids = study.pairs.ids
    return Trace(
        study.run,
        key,
        asking.name,
        asking.sample_ids,
        kind,
        [ids[row] for row in found.rows.tolist()],
        found.value.tolist(),
        found.positive.tolist(),
        found.negative.tolist(),
        found.relative.tolist(),
        found.doubt.tolist(),
        found.target,
        asking.notes,
        _by_round=found.by_round.tolist(),
        _by_head=found.by_head.tolist(),
        _questions=questions,
    )


def trace_file(run: Run, key: str) -> Path:
    """Where a trace of a run is kept."""
    if not isinstance(key, str) or not key.replace("-", "_").isidentifier():
        raise ValueError(f"Trace key {key!r} cannot be used: take letters, digits, dashes and underscores.")
    return kept_trace_folder(run.dataset, run.run_key) / f"{key}.safetensors"


def list_traces(run: Run) -> list[str]:
    """Keys of the traces that are kept with a run, oldest first."""
    return kept_traces(run.dataset, run.run_key)


def load_trace(run: Run, key: str) -> Trace:
    """Open a trace.

    Raises:
        ValueError: if the run has none of this key, or another version of this package kept it
    """
    path = _existing(run, key)
    with safe_open(path, framework="pt") as file:
        record = {"sample_ids": [], "_by_head": []} | json.loads(
            file.metadata()["trace"]
        )  # traces kept before these were
        expected = {f"{number}.{name}" for number in range(len(record.get("asks", ()))) for name in _TENSORS}
        if record.keys() != {*_RECORDED, "asks"} or set(file.keys()) != expected:
            raise ValueError(
                f"Trace {key!r} was kept by another version of fiftyone-ecif and cannot be read: trace the query again "
                f"(results.delete_trace({key!r}) forgets this one)."
            )
        record["measured"] = {int(n): target for n, target in record["measured"].items()}  # JSON's keys are texts
        questions = [
            Question(
                **{name: file.get_tensor(f"{number}.{name}") for name in _TENSORS},
                asks=asks,
            )
            for number, asks in enumerate(record.pop("asks"))
        ]
    return Trace(run, key, _questions=questions, **record)


def delete_trace(run: Run, key: str) -> None:
    """Forget a trace.

    Raises:
        ValueError: if the run has none of this key
    """
    _existing(run, key).unlink()


def _existing(run: Run, key: str) -> Path:
    path = trace_file(run, key)
    if not path.exists():
        keys = list_traces(run)
        there = f"its traces are {', '.join(keys)}" if keys else "it has none"
        raise ValueError(f"Run {run.run_key!r} has no trace {key!r}: {there}.")
    return path
