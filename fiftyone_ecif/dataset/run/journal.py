"""A change of a dataset's runs, written down before it is made, so that a crash leaves it to be completed or undone.

What is new is prepared apart: values in a collection of their own, a record that nothing refers to, a file with a
random name. One update of the dataset's own document, which declares the fields and names the run's record, then makes
the change; MongoDB makes it whole or not at all. What follows from it can be repeated: values are moved to the samples,
and what was replaced is deleted. Whoever comes after a crash sees by the dataset's document which is left to do.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from bson import ObjectId
from fiftyone.core.odm.dataset import DatasetDocument
from gridfs import GridFS
from pymongo import WriteConcern
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure

from fiftyone_ecif.dataset.fields import ownership
from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.dataset.run.files import delete_files, is_name, trace_path
from fiftyone_ecif.dataset.run.label_colors import BLUE, color_of, with_label_colors
from fiftyone_ecif.dataset.run.lease import Busy, Lease, Lost

STAGES = "ecif.staged."
"""What the names of collections with prepared values begin with."""

DURABLE = WriteConcern(w="majority", j=True)
"""What files are written or deleted after must outlive a crash of the database."""

ATTEMPTS = 100
"""How often a change is tried where others declare fields at the same time."""


@dataclass(frozen=True)
class Change:
    """A change of a dataset's runs.

    Attributes:
        dataset_id: of the dataset
        number: of the change, since its dataset may have another one later
        samples: name of the collection with its samples
        before: the records of the runs that it is about, by key; absent keys are free
        after: the same when it is made
        added: declarations of fields, as the dataset's document has them
        removed: names of fields
        renamed: names of fields, old → new
        indexed: names of added fields with an index
        shown: names of other fields that the App shows beside the added ones
        stage: name of the collection with the added fields' values, by sample id
        born: what a run that is written has: what is deleted where the change is undone
        gone: what a run that ends has: what is deleted when the change is made
    """

    dataset_id: ObjectId
    samples: str
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    before: dict[str, ObjectId] = field(default_factory=dict)
    after: dict[str, ObjectId] = field(default_factory=dict)
    added: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    indexed: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    stage: str | None = None
    born: dict[str, Any] | None = None
    gone: dict[str, Any] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The change as its journal has it; a dataset has one at a time."""
        values = asdict(self)
        return {"_id": values.pop("dataset_id"), **values}

    @classmethod
    def of(cls, document: dict[str, Any]) -> Change:
        """The change of a journal."""
        return cls(dataset_id=document["_id"], **{name: value for name, value in document.items() if name != "_id"})


def journals() -> Collection:
    """The collection of the changes that are being made."""
    return database().get_collection("ecif.journals", write_concern=DURABLE)


def make(change: Change, lease: Lease, prepare: Callable[[], None] = lambda: None) -> None:
    """Make a change; if anything fails, it is undone or completed, now or by the next call.

    Args:
        change: the change
        lease: on the dataset, held by this job
        prepare: makes ``change.born`` and fills ``change.stage``

    Raises:
        ValueError: if the dataset has changed meanwhile so that it cannot be made
    """
    lease.check()
    journals().insert_one(change.document)
    try:
        prepare()
        lease.check()
        commit(change)
        finish(change, lease)
    except (ConnectionFailure, Lost):
        raise  # nothing can be mended now, or another job is at it
    except BaseException:
        settle(change, lease)
        raise


def settle(change: Change, lease: Lease) -> None:
    """Complete a change that was made, or undo what was prepared for one that was not.

    Args:
        change: the change
        lease: on the dataset, held by this job
    """
    if is_made(change):
        finish(change, lease)
    else:
        undo(change)


def is_made(change: Change) -> bool:
    """Whether the dataset's document has the change."""
    document = database().datasets.find_one({"_id": change.dataset_id}, {"runs": 1, "sample_fields.name": 1})
    if document is None:
        return False
    if not change.before and not change.after:
        return not any(each["name"] in change.removed for each in document["sample_fields"])
    runs = document.get("runs", {})
    ended = [runs.get(key) != record for key, record in change.before.items() if key not in change.after]
    return all(ended) and all(runs.get(key) == record for key, record in change.after.items())


def commit(change: Change) -> None:
    """Declare the fields and name the run's record, in one update that no other writer can fall into.

    Raises:
        ValueError: if the dataset is gone, or its runs or fields are not those that the change is about
    """
    datasets = database().get_collection("datasets", write_concern=DURABLE)
    runs: dict[str, Any] = {f"runs.{key}": record for key, record in change.before.items()}
    runs |= {f"runs.{key}": {"$exists": False} for key in change.after if key not in change.before}
    update: dict[str, Any] = {"$currentDate": {"last_modified_at": True}}
    if ended := {f"runs.{key}": "" for key in change.before if key not in change.after}:
        update["$unset"] = ended
    for _ in range(ATTEMPTS):
        found = datasets.find_one({"_id": change.dataset_id} | runs, {"sample_fields": 1})
        if found is None:
            raise ValueError("The dataset was deleted meanwhile, or its runs were changed: nothing was written.")
        fields = _changed_fields(found["sample_fields"], change)
        update["$set"] = {"sample_fields": fields} | {f"runs.{key}": record for key, record in change.after.items()}
        # Someone who declares a field in between is not overwritten: the schema must still be the one that was read.
        if datasets.update_one(found | runs, update).matched_count:
            return
    raise Busy("Others change the dataset's fields all the time: call again when they have ended.")


def _changed_fields(fields: list[dict[str, Any]], change: Change) -> list[dict[str, Any]]:
    """A dataset's declared fields after a change.

    Raises:
        ValueError: if a field is read-only, or somebody else's has a name that is needed
    """
    there = {each["name"]: each for each in fields}
    for name in (*change.removed, *change.renamed):
        if there.get(name, {}).get("read_only"):
            raise ValueError(f"Field {name!r} is read-only, so its run cannot change: set its read_only to False.")
    for name in (*(each["name"] for each in change.added), *change.renamed.values()):
        if name in there and name not in change.removed:
            raise ValueError(f"The dataset has a field {name!r} that no run owns: choose another run key.")
    left = []
    for each in fields:
        name = each["name"]
        if name in change.renamed:
            new, info = change.renamed[name], each.get("info") or {}
            owned = ownership(new, info["ecif_run"]) if "ecif_run" in info else info
            left.append(each | {"name": new, "db_field": new, "info": {**info, **owned} or None})
        elif name not in change.removed:
            left.append(each)
    return left + change.added


def finish(change: Change, lease: Lease) -> None:
    """Do what follows from a change that was made; may be repeated.

    Args:
        change: the change
        lease: on the dataset, held by this job

    Raises:
        Lost: if another job has taken this one's place, and does it instead
    """
    added = [each["name"] for each in change.added]
    ended = [name for name in change.removed if name not in added]
    samples = database()[change.samples]
    lease.check()
    if change.stage is not None:
        _move_values(change.stage, change.samples, added, ended)
    elif ended:
        samples.update_many(with_any(ended), [{"$unset": ended}, {"$set": {"last_modified_at": "$$NOW"}}])
    if change.renamed:
        update = {"$rename": change.renamed, "$currentDate": {"last_modified_at": True}}
        samples.update_many(with_any(change.renamed), update)
        for key, record in change.after.items():
            database().runs.update_one({"_id": record}, {"$set": {"key": key}})
    lease.check()
    _follow_in_app(change, added, ended)
    _follow_in_indexes(samples, ended, change.renamed)
    for name in change.indexed:
        samples.create_index(name)
    _delete(change.gone, change.dataset_id)
    _close(change)


def undo(change: Change) -> None:
    """Delete what was prepared for a change that was not made; may be repeated."""
    _delete(change.born, change.dataset_id)
    _close(change)


def _close(change: Change) -> None:
    if change.stage is not None:
        database().drop_collection(change.stage)
    journals().delete_one({"_id": change.dataset_id, "number": change.number})


def _move_values(stage: str, samples: str, added: list[str], ended: list[str]) -> None:
    """Move the prepared values to their samples, in one command that each sample takes whole."""
    moved: list[dict] = [{"$set": {name: f"$$new.{name}" for name in added} | {"last_modified_at": "$$NOW"}}]
    if ended:
        moved.append({"$unset": ended})
    into = {"into": samples, "on": "_id", "whenMatched": moved, "whenNotMatched": "discard"}
    database()[stage].aggregate([{"$merge": into}])


def with_any(names: Iterable[str]) -> dict[str, Any]:
    """The samples that have a value, or None, in any of these fields."""
    return {"$or": [{name: {"$exists": True}} for name in names]}


def _follow_in_app(change: Change, added: list[str], ended: list[str]) -> None:
    """Take the App's sidebar, colours and annotation settings along."""
    if not (added or ended or change.renamed):
        return
    document = DatasetDocument.objects(id=change.dataset_id).first()
    if document is None:
        return
    document.app_config._rename_paths(list(change.renamed), list(change.renamed.values()))
    document.app_config._delete_paths(ended)
    colors = {name: color_of(name) for name in added} | dict.fromkeys(change.shown, BLUE)
    scheme = document.app_config.color_scheme
    document.app_config.color_scheme = with_label_colors(scheme, colors, ended, change.renamed)
    for name in (*ended, *change.renamed):
        if name in document.label_schemas:
            schema = document.label_schemas.pop(name)
            if name in change.renamed:
                document.label_schemas[change.renamed[name]] = schema
    active = [change.renamed.get(name, name) for name in document.active_label_schemas if name not in ended]
    if active != list(document.active_label_schemas):
        document.active_label_schemas = active
    document.save()


def _follow_in_indexes(samples: Collection, ended: list[str], renamed: dict[str, str]) -> None:
    """Drop the indexes of fields that ended, and rename those of renamed ones."""
    if not (ended or renamed):
        return
    for name, about in samples.index_information().items():
        roots = [path.split(".")[0] for path, _ in about["key"]]
        if any(root in renamed for root in roots):
            keys = [
                (renamed.get(root, root) + path[len(root) :], order)
                for root, (path, order) in zip(roots, about["key"], strict=True)
            ]
            samples.create_index(keys, unique=about.get("unique", False))
        if any(root in renamed or root in ended for root in roots):
            samples.drop_index(name)


def belongings(record: dict[str, Any]) -> dict[str, Any]:
    """What a run has besides its fields, by its record in the database."""
    return {"run": record["_id"], "results": record.get("results"), "tensors": record.get("config", {}).get("tensors")}


def _delete(having: dict[str, Any] | None, dataset_id: ObjectId) -> None:
    """Delete what a run has besides its fields."""
    if having is None:
        return
    delete_unshared_files(having, dataset_id)
    if having["results"] is not None:
        GridFS(database()).delete(having["results"])
    database().runs.delete_one({"_id": having["run"]})


def delete_unshared_files(having: dict[str, Any], dataset_id: ObjectId) -> None:
    """Delete a run's traces on its dataset, and its tensors where no clone of the dataset needs them."""
    tensors = having["tensors"]
    if not is_name(tensors):
        return
    shutil.rmtree(trace_path(tensors) / str(dataset_id), ignore_errors=True)
    if not database().runs.find_one({"config.tensors": tensors, "_id": {"$ne": having["run"]}}, {"_id": 1}):
        delete_files(tensors)


def unfinished(dataset_id: ObjectId) -> Change | None:
    """The change of a dataset that was begun and not ended, by a job that writes or by one that was killed."""
    document = journals().find_one({"_id": dataset_id})
    return None if document is None else Change.of(document)
