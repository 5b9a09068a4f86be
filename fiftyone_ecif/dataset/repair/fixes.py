"""Repairing the data: texts replaced by a run's suggestions, and put back.

Next to a text field stands a list of what was done to it, ``<text_field>_fixes``; a fix and its record are one change
of the sample in the database, so that there is never one without the other.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection
from fiftyone.core.expressions import ViewExpression
from pymongo import UpdateOne

from fiftyone_ecif.dataset.arguments import PROBABILITY, Samples, Text, checked
from fiftyone_ecif.dataset.checks import check_collection, check_field, score_field
from fiftyone_ecif.dataset.run.config import check_run
from fiftyone_ecif.dataset.run.writing import writing
from fiftyone_ecif.dataset.samples import everything, number_of, ungrouped
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import fixes_field, has_fixes, has_tag, literally, text_path

FIX_FIELDS = {
    "before": (fo.StringField, "The text before the fix"),
    "after": (fo.StringField, "The text that the fix put there"),
    "run_key": (fo.StringField, "The run that suggested it"),
    "by": (fo.StringField, "Who accepted it"),
    "at": (fo.DateTimeField, "When, in UTC; fixes of one action share it"),
    "misalignment": (fo.FloatField, "The pair's misalignment in that run"),
    "confidence": (fo.FloatField, "The suggestion's confidence"),
    "tagged": (fo.BooleanField, "Whether the fix took the tag of misaligned pairs off"),
}
"""What is recorded of each fix."""

CHUNK = 100_000
"""Sample ids that one database query names."""


@dataclass(frozen=True)
class FixReport:
    """What an action did.

    Attributes:
        changed: samples whose text was changed
        unchanged: number of the other samples by the reason why not
    """

    changed: int
    unchanged: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = "".join(f"; {count:,} {reason}" for reason, count in self.unchanged.items())
        return f"{self.changed:,} changed{reasons}"


@checked(samples=Samples(), by=Text())
def apply_suggestions(
    samples: SampleCollection, run_key: str, min_confidence: float = 0.0, by: str | None = None
) -> FixReport:
    """Replace captions or labels by what a run suggests for them; :func:`undo_fixes` puts the old ones back.

    Every fix is recorded on its sample in ``<text_field>_fixes``. A label keeps everything but its ``label``: its id,
    confidence, tags and attributes. A fix takes the tag "misaligned" off. Pairs marked as fine are left alone, and so
    are those whose text somebody changes meanwhile.

    Args:
        samples: Dataset or view; only those with a suggestion change
        run_key: the run
        min_confidence: the least confidence of a suggestion, 0 to 1
        by: who is to be recorded; None for the name of the system's user

    Returns:
        :class:`FixReport`

    Raises:
        ValueError: if there is no such run, or its text field cannot be written
    """
    dataset, left, unchanged = samples._dataset, _plain(samples), {}
    for reason, applies in _reasons_against(samples, run_key, min_confidence).items():
        before = number_of(left)
        left = left.match(~applies)
        if (after := number_of(left)) < before:
            unchanged[reason] = before - after
    text_field = dataset.get_run_info(run_key).config.text_field
    path, (suggestion, misalignment) = writable_text(dataset, text_field), _score_fields(dataset, run_key)
    misaligned = tags_of(dataset).misaligned
    columns = ["id", path, f"{suggestion}.label", f"{suggestion}.confidence", misalignment, "tags"]
    action = {"run_key": run_key, "by": by or _user(), "at": datetime.now(timezone.utc).replace(tzinfo=None)}
    writes, ids = [], []
    for id, text, label, confidence, suspicion, tags in zip(*left.values(columns), strict=True):
        scores = {"misalignment": suspicion, "confidence": confidence, "tagged": misaligned in (tags or ())}
        record = {"_cls": "DynamicEmbeddedDocument", "before": text, "after": label} | action | scores
        # A text that somebody changes meanwhile is not found under what it was.
        update = _replacement(path, text_field, record, misaligned)
        writes.append(UpdateOne({"_id": ObjectId(id), path: {"$eq": text}}, update))
        ids.append(id)
    changed = 0
    if writes:
        _declare(dataset, text_field)
        try:
            changed = dataset._sample_collection.bulk_write(writes, ordered=False).modified_count
        finally:
            fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=ids)
    if changed < len(writes):
        unchanged["changed meanwhile"] = len(writes) - changed
    return FixReport(changed, unchanged)


@checked(samples=Samples(), text=Text(), by=Text())
def choose_suggestion(samples: SampleCollection, run_key: str, text: str, by: str | None = None) -> FixReport:
    """Replace captions or labels by one of the candidates that a run found for them, which becomes the suggestion.

    Everything else is as in :func:`apply_suggestions`.

    Args:
        samples: Dataset or view; only those that have the text among their candidates change
        run_key: the run
        text: the candidate
        by: who is to be recorded; None for the name of the system's user

    Returns:
        :class:`FixReport`

    Raises:
        ValueError: if there is no such run, it has no candidates, or its text field cannot be written
    """
    _reasons_against(samples, run_key, 0.0)
    dataset, stored = samples._dataset, f"{score_field(samples, run_key, 'candidates')}.classifications"
    plain = _plain(samples)
    chosen = plain.match(F(stored).map(F("label")).contains([text]))
    labels = {
        id: next(label for label in candidates if label.label == text)
        for id, candidates in zip(*chosen.values(["id", stored]), strict=True)
    }
    report, others = FixReport(0), number_of(plain) - len(labels)
    if labels:
        dataset.set_values(score_field(samples, run_key, "suggestion"), labels, key_field="id")
        report = apply_suggestions(everything(dataset).select(list(labels)), run_key, by=by)
    return FixReport(report.changed, report.unchanged | ({"without this candidate": others} if others else {}))


@checked(samples=Samples())
def applicable(samples: SampleCollection, run_key: str, min_confidence: float = 0.0) -> fo.DatasetView:
    """The samples that :func:`apply_suggestions` would change.

    Args:
        samples: Dataset or view
        run_key: the run
        min_confidence: the least confidence of a suggestion, 0 to 1

    Returns:
        a view

    Raises:
        ValueError: as :func:`apply_suggestions`
    """
    return _plain(samples).match(~F.any(list(_reasons_against(samples, run_key, min_confidence).values())))


def _reasons_against(samples: SampleCollection, run_key: str, min_confidence: float) -> dict[str, ViewExpression]:
    """Why a suggestion is not applied to a sample, in words and as what the database can tell; checks the request."""
    dataset = samples._dataset
    check_run(dataset, run_key)
    check_collection(ungrouped(samples))
    text_field = dataset.get_run_info(run_key).config.text_field
    if text_field is None:
        raise ValueError(f"Run {run_key!r} was computed without captions or labels: there is nothing to replace.")
    min_confidence = PROBABILITY("min_confidence", min_confidence)
    path, (suggestion, _) = writable_text(dataset, text_field), _score_fields(dataset, run_key)
    return {
        "without a suggestion": ~F(f"{suggestion}.label").is_string(),
        "less confident": F(f"{suggestion}.confidence") < min_confidence,
        "marked as fine": ViewExpression(has_tag(tags_of(dataset).trusted)),
        "as suggested already": F(path) == F(f"{suggestion}.label"),
    }


def _score_fields(dataset: fo.Dataset, run_key: str) -> tuple[str, str]:
    return score_field(dataset, run_key, "suggestion"), score_field(dataset, run_key, "misalignment")


@checked(samples=Samples(), text_field=Text())
def undo_fixes(samples: SampleCollection, text_field: str | None = None) -> FixReport:
    """Take back the latest fix of each sample; called again, the one before it.

    Args:
        samples: Dataset or view
        text_field: whose fixes; None: of every text field

    Returns:
        :class:`FixReport`; texts that were edited by hand after the fix stay as they are

    Raises:
        ValueError: if a text field cannot be written
    """
    dataset, changed, edited = samples._dataset, 0, 0
    tag = tags_of(dataset).misaligned
    for name in [text_field] if text_field else fixed_fields(dataset):
        if not has_fixes(dataset, name):
            continue
        path, record = writable_text(dataset, name), fixes_field(name)
        last = f"${record}.after"
        for ids in _chunks(_plain(samples).match(F(record).length() > 0).values("id")):
            found = {"_id": {"$in": [ObjectId(id) for id in ids]}, "$expr": {"$eq": [f"${path}", {"$last": last}]}}
            try:
                undone = dataset._sample_collection.update_many(found, _restoration(path, record, tag)).modified_count
            finally:
                fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=ids)
            changed += undone
            edited += len(ids) - undone
    return FixReport(changed, {"edited by hand since": edited} if edited else {})


@checked(samples=Samples(), text_field=Text())
def fixed(samples: SampleCollection, text_field: str | None = None) -> fo.DatasetView:
    """The samples with fixes that were not undone.

    Args:
        samples: Dataset or view
        text_field: whose fixes; None: of any text field

    Returns:
        a view
    """
    names = [text_field] if text_field else fixed_fields(samples._dataset)
    present = [fixes_field(name) for name in names if has_fixes(samples, name)]
    samples = ungrouped(samples)
    return samples.match(F.any([F(name).length() > 0 for name in present])) if present else samples.limit(0)


def last_fixed(samples: SampleCollection) -> fo.DatasetView:
    """The samples that the latest action fixed, and that were not undone since."""
    samples, fields = ungrouped(samples), [fixes_field(name) for name in fixed_fields(samples._dataset)]
    times = [(samples.bounds(f"{name}.at")[1], name) for name in fields]
    times = [(time, name) for time, name in times if time is not None]
    if not times:
        return samples.limit(0)
    time, name = max(times)
    return samples.match(F(f"{name}.at")[-1] == time)


def fixed_fields(dataset: SampleCollection) -> list[str]:
    """The text fields that have a record of fixes."""
    schema = dataset._dataset.get_field_schema(ftype=fo.ListField)
    return [known.info["text_field"] for known in schema.values() if "text_field" in (known.info or {})]


def writable_text(samples: SampleCollection, text_field: str) -> str:
    """The path of a caption, or of a label within its field.

    Raises:
        ValueError: if the field is gone or read-only
    """
    path = text_path(samples, text_field)
    for name in dict.fromkeys((text_field, path)):
        if check_field(samples._dataset, name).read_only:
            raise ValueError(f"Field {name!r} is read-only: it cannot be fixed. Set its read_only to False first.")
    return path


def _declare(dataset: fo.Dataset, text_field: str) -> None:
    """Declare the record of fixes, if it is not there yet."""
    name = fixes_field(text_field)
    with writing(dataset):
        if dataset.has_sample_field(name) and not has_fixes(dataset, text_field):
            raise ValueError(
                f"The dataset has a field {name!r} that is no record of fixes: rename it, so that fixes of "
                f"{text_field!r} can be recorded under that name."
            )
        if not dataset.has_sample_field(name):
            dataset.add_sample_field(
                name,
                fo.ListField,
                subfield=fo.EmbeddedDocumentField,
                embedded_doc_type=fo.DynamicEmbeddedDocument,
                description=f"What ECIF's fixes did to {text_field}, oldest first",
                info={"text_field": text_field},
            )
        for part, (kind, description) in FIX_FIELDS.items():
            dataset.add_sample_field(f"{name}.{part}", kind, description=description)


def _replacement(path: str, text_field: str, record: dict[str, Any], tag: str) -> list[dict]:
    """The update that replaces a text, records it, and takes the tag off that the record says it had."""
    name = fixes_field(text_field)
    change = {
        path: literally(record["after"]),
        name: {"$concatArrays": [{"$ifNull": [f"${name}", []]}, [literally(record)]]},
        "last_modified_at": "$$NOW",
    }
    if record["tagged"]:
        change["tags"] = {"$filter": {"input": "$tags", "cond": {"$ne": ["$$this", literally(tag)]}}}
    return [{"$set": change}]


def _restoration(path: str, name: str, tag: str) -> list[dict]:
    """The update that puts the text before the last fix back, and the tag that the fix took off."""
    retagged = {"$concatArrays": [{"$ifNull": ["$tags", []]}, [literally(tag)]]}
    wanted = {"$and": [{"$last": f"${name}.tagged"}, {"$not": has_tag(tag)}]}
    earlier = {"$slice": [f"${name}", 0, {"$subtract": [{"$size": f"${name}"}, 1]}]}
    return [
        {
            "$set": {
                path: {"$last": f"${name}.before"},
                "tags": {"$cond": [wanted, retagged, "$tags"]},
                name: {"$cond": [{"$eq": [{"$size": f"${name}"}, 1]}, [], earlier]},
                "last_modified_at": "$$NOW",
            }
        }
    ]


def _plain(samples: SampleCollection) -> SampleCollection:
    """The same samples as the database has them, whatever fields the view leaves out or changes."""
    samples = ungrouped(samples)
    return samples if isinstance(samples, fo.Dataset) else everything(samples).select(samples.values("id"))


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
