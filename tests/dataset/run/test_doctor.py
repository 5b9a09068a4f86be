"""The doctor finds what crashes left, removes it when told to, and touches nothing else."""

import os
import time
import uuid

import fiftyone as fo
import pytest
import torch
from safetensors.torch import save_file

import fiftyone_ecif as ecif
from fiftyone_ecif import command_line
from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.dataset.run import store
from fiftyone_ecif.dataset.run.config import tensor_file, trace_folder
from fiftyone_ecif.dataset.run.database import database, database_mark
from fiftyone_ecif.dataset.run.doctor import OLD, examine
from fiftyone_ecif.dataset.run.lease import held, leases
from tests.support.prepared import columns, few_samples, write


def age(path, seconds=2 * OLD):
    os.utime(path, (time.time() - seconds,) * 2)


def lines(about, apply=False):
    return [line for line in examine(apply) if about in line]


def forget_record(dataset, key):
    """Take a run out of the database as a killed process of FiftyOne's may: its fields stay."""
    record = database().datasets.find_one({"_id": dataset._doc.id})["runs"][key]
    database().runs.delete_one({"_id": record})
    database().datasets.update_one({"_id": dataset._doc.id}, {"$unset": {f"runs.{key}": ""}})
    dataset.reload()


def test_fields_of_a_lost_run_are_removed_and_copies_and_others_stay():
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    write(dataset, "kept", columns(dataset))
    dataset.clone_sample_field("x_value", "backup_value")
    dataset.add_sample_field("x_failed", fo.BooleanField)  # somebody's, of a name that a run's field may have
    forget_record(dataset, "x")
    with pytest.raises(ValueError, match="no run 'x' owns"):
        write(dataset, "x", columns(dataset))
    found = {f"field x_{suffix} of dataset {dataset.name}, whose run is gone" for suffix in columns(dataset)}
    schema = set(dataset.get_field_schema())
    assert set(lines(dataset.name)) == found
    dataset.reload()
    assert set(dataset.get_field_schema()) == schema
    assert set(lines(dataset.name, apply=True)) == found
    dataset.reload()
    assert set(dataset.get_field_schema()) == schema - {f"x_{suffix}" for suffix in columns(dataset)}
    raw = list(database()[dataset._sample_collection_name].find())
    assert not [name for sample in raw for name in sample if name in ("x_value", "x_suggestion")]
    assert dataset.values("backup_value") == dataset.values("kept_value") == [0, 1, 2, 3, 4, 5]
    assert lines(dataset.name) == []


def test_files_of_deleted_datasets_are_removed_and_those_of_others_stay():
    dataset, deleted = few_samples(), few_samples()
    write(dataset, "x", columns(dataset))
    write(deleted, "x", columns(deleted))
    kept, gone = (tensor_file(each.get_run_info("x").config) for each in (dataset, deleted))
    traces = trace_folder(deleted.get_run_info("x").config)
    traces.mkdir()
    deleted.delete()
    part, foreign, plain = (
        cache_folder("runs") / f"{uuid.uuid4().hex}{end}" for end in (".part", *[".safetensors"] * 2)
    )
    part.write_bytes(b"half")
    save_file({"t": torch.zeros(1)}, foreign, {"database": "another"})
    save_file({"t": torch.zeros(1)}, plain)
    other = cache_folder("runs") / "notes.txt"
    other.write_text("mine")
    assert lines(gone.stem) == []  # it may be a run's that is being written
    for path in (kept, gone, traces, part, foreign, plain, other):
        age(path)
    assert len(lines(gone.stem)) == 1 and gone.exists() and traces.exists()
    assert len(lines(part.stem)) == 1 and not lines(kept.stem)
    examine(apply=True)
    assert [path.exists() for path in (gone, traces, part)] == [False] * 3
    assert [path.exists() for path in (kept, foreign, plain, other)] == [True] * 4
    for path in (foreign, plain, other):
        path.unlink()


def test_a_change_of_a_dead_job_is_undone_and_that_of_a_living_one_is_left(monkeypatch):
    dataset = few_samples()
    write(dataset, "x", columns(dataset))

    def examine_meanwhile(*arguments):
        for apply in (False, True):
            assert lines(dataset.name, apply) == lines(str(dataset._doc.id), apply) == []
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_save_record", examine_meanwhile)
    monkeypatch.setattr("fiftyone_ecif.dataset.run.journal.settle", lambda *_: None)  # as if the process were dead
    with pytest.raises(KeyboardInterrupt):
        write(dataset, "x", columns(dataset, base=9.0), overwrite=True)
    assert database()["ecif.journals"].find_one({"_id": dataset._doc.id}) is not None
    line = f"a half-written change of run x in dataset {dataset.name}"
    assert lines(dataset.name) == lines(dataset.name, apply=True) == [line]
    assert lines(dataset.name) == [] and ecif.list_runs(dataset) == ["x"]
    assert dataset.values("x_value") == [0, 1, 2, 3, 4, 5]
    assert not [name for name in database().list_collection_names() if name.startswith("ecif.staged.")]


def test_rights_of_dead_jobs_and_lost_stages_are_removed():
    name, stage = f"run of {uuid.uuid4().hex}", f"ecif.staged.{uuid.uuid4().hex}"
    with held(name, "busy", wait=0):
        assert not lines(name, apply=True) and leases().find_one({"_id": name})
        database()[stage].insert_one({"value": 1})
        leases().update_one({"_id": name}, {"$set": {"holder.started": "1"}})
        assert len(lines(name)) == len(lines(stage)) == 1 and leases().find_one({"_id": name})
        assert len(lines(name, apply=True)) == 1 and not leases().find_one({"_id": name})
    assert stage not in database().list_collection_names()


def test_the_command_says_what_it_would_do(capsys):
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    forget_record(dataset, "x")
    assert command_line.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"Found: field x_value of dataset {dataset.name}" in said and "doctor --apply removes this" in said
    assert command_line.main(["doctor", "--apply"]) == 0
    assert f"Removed: field x_value of dataset {dataset.name}" in capsys.readouterr().out
    assert command_line.main(["doctor"]) == 0
    assert f"dataset {dataset.name}" not in capsys.readouterr().out


def test_a_database_keeps_its_mark():
    assert database_mark() == database_mark() and len(database_mark()["database"]) == 32
