"""Traces: which pairs are to blame for a failing query, what they did, and what removing them would do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone as fo
import torch
from fiftyone.core.collections import SampleCollection
from fiftyone.core.sample import SampleView
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fiftyone_ecif.attribution.question import Question
from fiftyone_ecif.core.query_gradient import KINDS
from fiftyone_ecif.dataset.ask.query import Answer, Asked, Interpreter, Query
from fiftyone_ecif.dataset.ask.trace_study import ORDERS, Found
from fiftyone_ecif.dataset.progress import as_progress
from fiftyone_ecif.dataset.run.config import kept_trace_folder, kept_traces

if TYPE_CHECKING:
    from fiftyone_ecif.dataset.results import InfluenceResults

SHOWN = 3
"""Reasons that a message names."""

_TENSORS = ("feature", "rows", "right", "others")
_RECORDED = (
    "query", "kind", "ids", "value", "value_positive", "value_negative", "relative", "doubt", "target", "notes",
    "measured", "_by_round",
)  # fmt: skip


@dataclass(frozen=True)
class TraceEffect:
    """What removing the pairs that are most to blame does to the query.

    The figures are the margin, the best right answer's similarity less the best wrong one's in nats, which is above 0
    where the query is answered right; for traces of kind "loss" they are the query's loss in nats. Several queries,
    and the two heads of a cross-fitted run, are averaged.

    Attributes:
        removed: number of pairs
        before: with all pairs
        predicted: without them, by the sum of their values
        standard_error: of ``predicted``, from its spread over rounds of random batches; NaN with one round
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
        results: the run
        key: under which the trace is kept with the run
        query: in words
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

    results: InfluenceResults
    key: str
    query: str
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
    _questions: list[Question] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def view(self, limit: int | None = None) -> fo.DatasetView:
        """The pairs as a view, most to blame first; samples deleted since are left out."""
        ids = self.ids if limit is None else self.ids[: _count(limit)]
        return self.results.dataset.select(ids, ordered=True)

    def table(self) -> list[dict]:
        """One row per pair, most to blame first: id, text, value, both roles, relative influence and doubt."""
        name = self.results.config.text_field
        texts: dict[str, str | None] = {}
        if name is not None:
            view = self.view()
            labelled = isinstance(view.get_field(name), fo.EmbeddedDocumentField)
            texts = dict(zip(*view.values(["id", f"{name}.label" if labelled else name])))
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
        n = min(_count(n), len(self))
        heads = len(self.results.fitted)
        rounds = torch.tensor(self._by_round)[:, :n].sum(1) / heads
        error = rounds.std().item() / math.sqrt(len(rounds)) if len(rounds) > 1 else math.nan
        change = sum(self.value[:n]) / heads
        measured = None if n not in self.measured else self._shown(self.measured[n])
        return TraceEffect(n, self._shown(self.target), self._shown(self.target + change), error, measured)

    def verify(self, n: int, progress: bool | Callable | None = None) -> TraceEffect:
        """The same, and what really refitting the head without them gives; kept with the trace.

        Raises:
            ValueError: if the data has changed since the run
        """
        n = min(_count(n), len(self))
        report = as_progress(progress)
        study = self.results.trace_study()
        removed = torch.zeros(len(study.pairs), dtype=torch.bool)
        removed[[study.row[id] for id in self.ids[:n]]] = True
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
        path = trace_file(self.results, self.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata={"trace": json.dumps(record)})
        part.replace(path)


def make_traces(
    results: InfluenceResults,
    query: str | fo.Sample | SampleCollection | Query | list,
    k: int,
    kind: str,
    order: str,
    direction: str,
    right: Answer,
    wrong: Answer,
    key: str | None,
    progress: bool | Callable | None,
) -> Trace | list[Trace]:
    """See ``InfluenceResults.trace``."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}.")
    _count(k, "k")
    report = as_progress(progress)
    interpreter = Interpreter(results.trace_study(), report)
    several = isinstance(query, list)
    groups, names, notes = [], [], []
    for one in query if isinstance(query, list) else [query]:
        asked, name, said = _asked(results, interpreter, one, direction, right, wrong)
        groups.append(asked)
        names.append(name)
        notes.append(said)
    questions = [[one.question for one in asked] for asked in groups]
    excluded = [set().union(*(one.own for one in asked)) for asked in groups]
    found = results.trace_study().trace(questions, kind, k, order, excluded, report) if groups else []
    traces = []
    for name, result, said, group in zip(names, found, notes, questions):
        traces.append(_trace(results, key if not several else None, name, kind, result, said, group))
        traces[-1].save()
    return traces if several else traces[0]


def _asked(
    results: InfluenceResults, interpreter: Interpreter, query, direction: str, right: Answer, wrong: Answer
) -> tuple[list[Asked], str, list[str]]:
    """The failing questions of one query, the query in words, and what is to be said about it."""
    reasons: dict[str, str] = {}
    if isinstance(query, Query):
        asked, name = [interpreter.outside(query)], ""
    else:
        samples = _as_view(results, query)
        asked, reasons = interpreter.samples(samples, direction, right, wrong)
        name = f"{len(samples)} samples"
        if len(samples) == 1 and reasons:
            raise ValueError(f"Sample {samples.first().id} cannot be traced: {next(iter(reasons.values()))}")
    failing = [one for one in asked if one.margin < 0 or (wrong is not None or getattr(query, "wrong", None))]
    notes = []
    if not failing:
        if len(asked) == 1:
            raise ValueError(
                f"The {asked[0].name} does not fail: its right answer leads by {asked[0].margin:.2f}. To compare it "
                "with a given answer all the same, pass that one as wrong=."
            )
        why = f"; {len(reasons)} cannot be asked about: {_some(reasons)}" if reasons else ""
        raise ValueError(f"None of these {len(asked) + len(reasons)} samples fails{why}.")
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
    return failing, name if len(failing) > 1 else failing[0].name, notes


def _some(reasons: dict[str, str]) -> str:
    """A few of the reasons, each once."""
    return "; ".join(sorted(set(reasons.values()))[:SHOWN])


def _as_view(results: InfluenceResults, query) -> SampleCollection:
    """A sample, its id or a collection, as a collection."""
    if isinstance(query, SampleCollection):
        if len(query) == 0:
            raise ValueError("The view to trace is empty: there is no failing query in it.")
        return query
    is_sample = isinstance(query, (fo.Sample, SampleView))
    id = query.id if is_sample else query
    if not isinstance(id, str):
        raise ValueError(f"A query is a sample, its id, a view or a Query, not {type(query).__name__}.")
    dataset = query.dataset if is_sample and query.in_dataset else results.dataset
    try:
        view = dataset.select(id)
        found = len(view)
    except Exception:  # FiftyOne hands on whatever the database says of a string that is no id
        found = 0
    if not found:
        raise ValueError(
            f"There is no sample {id!r} in dataset {results.dataset.name!r}: it was deleted, or is of another dataset."
        )
    return view


def _trace(
    results: InfluenceResults,
    key: str | None,
    name: str,
    kind: str,
    found: Found,
    notes: list[str],
    questions: list[Question],
) -> Trace:
    ids = results.trace_study().pairs.ids
    return Trace(
        results,
        key or _free_key(results),
        name,
        kind,
        [ids[row] for row in found.rows.tolist()],
        found.value.tolist(),
        found.positive.tolist(),
        found.negative.tolist(),
        found.relative.tolist(),
        found.doubt.tolist(),
        found.target,
        notes,
        _by_round=found.by_round.tolist(),
        _questions=questions,
    )


def trace_file(results: InfluenceResults, key: str) -> Path:
    """Where a trace of a run is kept."""
    if not key.replace("-", "_").isidentifier():
        raise ValueError(f"Trace key {key!r} cannot be used: take letters, digits, dashes and underscores.")
    return kept_trace_folder(results.dataset, results.run_key) / f"{key}.safetensors"


def list_traces(results: InfluenceResults) -> list[str]:
    """Keys of the traces that are kept with a run, oldest first."""
    return kept_traces(results.dataset, results.run_key)


def load_trace(results: InfluenceResults, key: str) -> Trace:
    """Open a trace.

    Raises:
        ValueError: if the run has none of this key, or another version of this package kept it
    """
    path = _existing(results, key)
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["trace"])
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
    return Trace(results, key, _questions=questions, **record)


def delete_trace(results: InfluenceResults, key: str) -> None:
    """Forget a trace.

    Raises:
        ValueError: if the run has none of this key
    """
    _existing(results, key).unlink()


def _existing(results: InfluenceResults, key: str) -> Path:
    path = trace_file(results, key)
    if not path.exists():
        keys = list_traces(results)
        there = f"its traces are {', '.join(keys)}" if keys else "it has none"
        raise ValueError(f"Run {results.run_key!r} has no trace {key!r}: {there}.")
    return path


def _free_key(results: InfluenceResults) -> str:
    taken = set(list_traces(results))
    number = len(taken) + 1
    while f"trace-{number}" in taken:
        number += 1
    return f"trace-{number}"


def _count(number: int, name: str = "n") -> int:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}.")
    return number
