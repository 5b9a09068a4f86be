"""A run's recurring errors: groups of suspected pairs that share a cause, as a field and as views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import fiftyone as fo
from torch import Tensor

from fiftyone_ecif.core import embeddings_under
from fiftyone_ecif.dataset.ask.text_tower import text_embeddings
from fiftyone_ecif.dataset.checks import check_field
from fiftyone_ecif.dataset.fields import SLICE_FIELD
from fiftyone_ecif.dataset.progress import Progress
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.run.writing import declare
from fiftyone_ecif.dataset.samples import everything, those
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.detect.error_slices import JudgedPairs, find_error_slices
from fiftyone_ecif.notes import note

LONGEST_NAME = 200
"""Letters of a slice's name."""


@dataclass(frozen=True)
class ErrorSlice:
    """Pairs that probably share an error.

    Attributes:
        name: what they have in common: "image from the archive …", a folder, "cat ↔ dog"
        kind: a key of :data:`~fiftyone_ecif.detect.error_slices.KINDS`
        sample_ids: of the pairs
        share: of them, expected to be wrong, 0 to 1
        evidence: nats that they are more than chance
        run: whose pairs they are
    """

    name: str
    kind: str
    sample_ids: list[str]
    share: float
    evidence: float
    run: Run

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __repr__(self) -> str:
        return f"ErrorSlice({self.name!r}, {self.kind}: {len(self)} pairs, {self.expected_wrong:.0f} of them wrong)"

    @property
    def expected_wrong(self) -> float:
        """How many of the pairs are expected to be wrong."""
        return self.share * len(self)

    def view(self) -> fo.DatasetView:
        """The pairs that are still there, the most suspicious first."""
        found = everything(self.run.dataset).select(self.sample_ids)
        return found.sort_by(self.run.fields["misalignment"], reverse=True)


def error_slices(run: Run, fields: Sequence[str], limit: int, report: Progress) -> list[ErrorSlice]:
    """See ``InfluenceResults.error_slices``."""
    rows = run.rows()
    if rows.texts is None:
        raise ValueError(f"Run {run.run_key!r} was computed without captions or labels: it has no texts to group.")
    report("Reading pairs", 0, 2)
    pairs = run.pairs(rows)
    image, text = embeddings_under(pairs, run.given_head)
    judged = JudgedPairs(
        run.misalignment.double().numpy(),
        image,
        text,
        run.given_head.logit_scale.exp().item(),
        [str(caption or "") for caption in rows.captions()],
        rows.filepaths,
        {name: _values(run, name) for name in fields},
        _embed(run),
    )
    report("Looking for recurring errors", 1, 2)
    found = [
        ErrorSlice(_short(each.name), each.kind, [pairs.ids[row] for row in each.rows], each.share, each.evidence, run)
        for each in find_error_slices(judged, limit)
    ]
    _write(run, found)
    report("Looking for recurring errors", 2, 2)
    return found


def _values(run: Run, field: str) -> list[Any]:
    """What a field says of each of the run's pairs: texts, lists of them, or None."""
    check_field(run.dataset, field)
    ours = set(asdict(tags_of(run.dataset)).values()) if field == "tags" else set()  # what suspicion led to, no cause
    by_id = dict(zip(*those(run.dataset, run.ids).values(["id", field]), strict=True))
    return [_words(by_id.get(id), ours) for id in run.ids]


def _words(value: Any, ours: set[str]) -> str | list[str] | None:
    """A field's value as texts; None for what is no name of anything."""
    if isinstance(value, (list, tuple, set)):
        return [str(each) for each in value if isinstance(each, (str, bool, int)) and each not in ours]
    if isinstance(value, fo.Classification):
        value = value.label
    return str(value) if isinstance(value, (str, bool, int)) else None


def _embed(run: Run) -> Callable[[list[str]], Tensor] | None:
    """The run's model as a function of texts; None where there is none."""
    if run.config.model is None:
        return None
    try:
        model = run.model()
    except ValueError as error:
        note(f"Exchanged words are not looked for, since the run's model cannot be loaded: {error}")
        return None
    return partial(text_embeddings, model, run.given_head)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


def _write(run: Run, found: Sequence[ErrorSlice]) -> None:
    """Put each pair's slice into the run's field, and nothing where it is in none."""
    name = SLICE_FIELD.name(run.run_key)
    declare(run.dataset, run.run_key, [SLICE_FIELD], run.config.tensors)
    values: dict[str, str | None] = dict.fromkeys(everything(run.dataset).exists(name).values("id"))
    values |= {id: each.name for each in found for id in each.sample_ids}
    there = set(those(run.dataset, list(values)).values("id"))
    run.dataset.set_values(name, {id: value for id, value in values.items() if id in there}, key_field="id")
