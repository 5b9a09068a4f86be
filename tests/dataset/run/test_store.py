"""A run is written as FiftyOne would write it, and nothing of anybody else's is touched."""

import fiftyone as fo
import pytest
import torch
from fiftyone.core.runs import RunConfig

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.checks import check_run_key
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.run import journal, store
from fiftyone_ecif.dataset.run.config import EcifConfig, tensor_file
from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.dataset.run.writing import writing
from tests.support.prepared import columns, few_samples, write


def declared(dataset, name):
    """A field as the database declares it, less when and whose it is."""
    fields = database().datasets.find_one({"_id": dataset._doc.id})["sample_fields"]

    def plain(field):
        return {k: v for k, v in field.items() if k not in ("created_at", "info", "name", "db_field", "fields")} | {
            "fields": [plain(part) | {"name": part["name"], "db_field": part["db_field"]} for part in field["fields"]]
        }

    return plain(next(field for field in fields if field["name"] == name))


@pytest.mark.parametrize("together", [4, 10_000])
def test_what_is_written_equals_what_fiftyone_writes_field_by_field(monkeypatch, together):
    monkeypatch.setattr(store, "TOGETHER", together)
    dataset = few_samples(9)
    held, before, values = dataset.first(), dataset.values("last_modified_at"), columns(dataset)
    write(dataset, "ours", values)
    for suffix, of in values.items():
        FIELDS[suffix].add_to(dataset, "theirs")
        dataset.set_values(f"theirs_{suffix}", of, key_field="id")
        FIELDS[suffix].index(dataset, "theirs")
        assert dataset.values(f"ours_{suffix}") == dataset.values(f"theirs_{suffix}")
        assert declared(dataset, f"ours_{suffix}") == declared(dataset, f"theirs_{suffix}")
    indexes = {name for name in dataset.list_indexes() if name.startswith(("ours", "theirs"))}
    assert indexes == {"ours_value", "ours_misalignment", "theirs_value", "theirs_misalignment"}
    assert held["ours_value"] == dataset.values("ours_value")[0]  # samples in memory know
    assert all(new > old for new, old in zip(dataset.values("last_modified_at"), before, strict=True))


def test_the_record_equals_one_that_fiftyone_saves():
    dataset = few_samples()
    view = dataset.limit(4)
    write(view, "ours", columns(view))
    config = EcifConfig(asked="this")
    view.register_run("theirs", config)
    dataset.save_run_results("theirs", dataset.init_run_results("theirs", health={"pairs": 4}), cache=False)
    ours, theirs = (database().runs.find_one({"_id": dataset._doc.runs[key].id}) for key in ("ours", "theirs"))
    del ours["config"]["tensors"]
    for each in (ours, theirs):
        for changing in ("_id", "key", "timestamp", "results"):
            del each[changing]
    assert ours == theirs
    loaded = [dataset.load_run_results(key, cache=False) for key in ("ours", "theirs")]
    assert loaded[0].health == loaded[1].health and loaded[0].samples == loaded[1].samples == view


def test_an_overwritten_run_leaves_nothing_of_the_first():
    dataset = few_samples()
    write(dataset, "x", columns(dataset, evidence=True))
    first = tensor_file(dataset.get_run_info("x").config)
    some = dataset.limit(2)
    write(some, "x", columns(some, base=100.0), overwrite=True)
    assert dataset.values("x_value") == [100.0, 101.0, None, None, None, None]
    raw = list(database()[dataset._sample_collection_name].find())
    assert not [name for sample in raw for name in sample if name.startswith("x_evidence")]
    assert [("x_value" in sample) for sample in raw] == [True, True, False, False, False, False]
    assert not dataset.has_sample_field("x_evidence_head")
    assert not first.exists() and tensor_file(dataset.get_run_info("x").config).exists()
    assert database().runs.count_documents({"_dataset_id": dataset._doc.id}) == 1


def test_names_that_could_be_in_the_way_belong_to_whoever_has_them():
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    dataset.set_values("x_replacement_value", [1.5] * 6)
    dataset.register_run("x_replacement", RunConfig(method="somebody's"))
    write(dataset, "x", columns(dataset, base=9.0), overwrite=True)
    with pytest.raises(ValueError, match="in use"):
        write(dataset, "x", columns(dataset))
    assert dataset.values("x_replacement_value") == [1.5] * 6 and dataset.list_runs() == ["x", "x_replacement"]
    assert dataset.get_run_info("x_replacement").config.method == "somebody's"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_field_that_somebody_adds_meanwhile_stays_theirs(monkeypatch, overwrite):
    dataset = few_samples()
    if overwrite:
        write(dataset, "x", columns(dataset))
    prepared = store._save_record

    def somebody_adds(*arguments):
        prepared(*arguments)
        dataset.add_sample_field("x_self_influence", fo.StringField)
        dataset.set_values("x_self_influence", ["mine"] * 6)

    monkeypatch.setattr(store, "_save_record", somebody_adds)
    before = dataset.values("x_value") if overwrite else None
    with pytest.raises(ValueError, match="'x_self_influence' that no run owns"):
        write(dataset, "x", columns(dataset) | {"self_influence": {}}, overwrite=overwrite)
    assert dataset.values("x_self_influence") == ["mine"] * 6
    assert ecif.list_runs(dataset) == (["x"] if overwrite else [])
    assert before is None or dataset.values("x_value") == before
    assert not [name for name in database().list_collection_names() if name.startswith("ecif.staged.")]


def test_a_field_of_another_process_is_kept_though_this_one_has_not_seen_it():
    dataset = few_samples()
    other = {"name": "theirs", "db_field": "theirs", "ftype": "fiftyone.core.fields.FloatField", "fields": []}
    database().datasets.update_one({"_id": dataset._doc.id}, {"$push": {"sample_fields": other}})
    assert not dataset.has_sample_field("theirs")
    write(dataset, "x", columns(dataset))
    dataset.reload()
    assert dataset.has_sample_field("theirs") and dataset.has_sample_field("x_value")


def test_a_field_that_falls_between_reading_and_writing_the_schema_is_kept(monkeypatch):
    dataset, computed, reads = few_samples(), journal._changed_fields, []

    def somebody_is_faster(fields, change):
        reads.append(len(fields))
        if len(reads) == 1:
            other = {"name": "theirs", "db_field": "theirs", "ftype": "fiftyone.core.fields.FloatField", "fields": []}
            database().datasets.update_one({"_id": dataset._doc.id}, {"$push": {"sample_fields": other}})
        return computed(fields, change)

    monkeypatch.setattr(journal, "_changed_fields", somebody_is_faster)
    write(dataset, "x", columns(dataset))
    assert dataset.has_sample_field("theirs") and dataset.has_sample_field("x_value") and len(reads) == 2


def test_read_only_fields_are_refused_by_name_and_stay():
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    field = dataset.get_field("x_value")
    field.read_only = True
    field.save()
    before = dataset.values("x_value")
    for call in (
        lambda: check_run_key(dataset, "x", overwrite=True),  # before anything is computed
        lambda: write(dataset, "x", columns(dataset, base=5.0), overwrite=True),
        lambda: ecif.rename_run(dataset, "x", "y"),
        lambda: ecif.delete_run(dataset, "x"),
    ):
        with pytest.raises(ValueError, match="'x_value' is read-only"):
            call()
        assert ecif.list_runs(dataset) == ["x"] and dataset.values("x_value") == before
    assert database()["ecif.journals"].count_documents({}) == 0


def test_fields_that_cannot_be_removed_keep_their_values():
    dataset = few_samples()
    dataset.add_sample_field("locked", fo.FloatField, read_only=True)
    dataset.set_values("quality", [0.5] * 6)
    samples = database()[dataset._sample_collection_name]
    samples.update_many({}, {"$set": {"locked": 1.5}})
    change = journal.Change(dataset._doc.id, dataset._sample_collection_name, removed=["quality", "locked"])
    with writing(dataset) as lease, pytest.raises(ValueError, match="'locked' is read-only"):
        journal.make(change, lease)
    assert dataset.values("quality") == [0.5] * 6 and dataset.values("locked") == [1.5] * 6
    assert journal.unfinished(dataset._doc.id) is None


def test_a_record_from_elsewhere_makes_no_path_and_can_be_deleted(tmp_path):
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    runs = tensor_file(dataset.get_run_info("x").config).parent
    victim, folder = runs.parent / "victim.safetensors", runs.parent / "victim.traces"
    victim.write_bytes(b"theirs")
    folder.mkdir(exist_ok=True)
    for bad in ("../victim", str(runs.parent / "victim"), None, 3, "A" * 32, "a" * 32 + "\n"):
        record = dataset._doc.runs["x"].id
        database().runs.update_one({"_id": record}, {"$set": {"config.tensors": bad}})
        dataset.reload()
        with pytest.raises(ValueError, match="does not become a path"):
            tensor_file(dataset.get_run_info("x").config)
    database().runs.update_one({"_id": record}, {"$set": {"config.tensors": "../victim"}})
    dataset.reload()
    ecif.delete_run(dataset, "x")
    assert victim.read_bytes() == b"theirs" and folder.exists() and ecif.list_runs(dataset) == []


@pytest.mark.parametrize("with_fiftyone", [False, True])
def test_a_clone_keeps_the_tensors_that_it_shares(with_fiftyone):
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    clone = dataset.clone()
    tensors = tensor_file(dataset.get_run_info("x").config)
    delete = fo.Dataset.delete_run if with_fiftyone else ecif.delete_run
    delete(dataset, "x")
    assert tensors.exists() and ecif.list_runs(clone) == ["x"] and not dataset.has_sample_field("x_value")
    delete(clone, "x")
    assert not tensors.exists()


def test_a_renamed_run_takes_fields_indexes_and_app_settings_along():
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    values = dataset.values("x_value")
    dataset.create_index([("x_value", 1), ("caption", -1)])
    dataset.app_config.sidebar_groups = [fo.SidebarGroupDocument(name="mine", paths=["x_value", "caption"])]
    dataset.save()
    ecif.rename_run(dataset, "x", "y")
    assert database().runs.find_one({"_id": dataset._doc.runs["y"].id})["key"] == "y"
    assert dataset.values("y_value") == values and dataset.app_config.sidebar_groups[0].paths == ["y_value", "caption"]
    assert {"y_value", "y_misalignment", "y_value_1_caption_-1"} <= set(dataset.list_indexes())
    assert not [name for name in dataset.list_indexes() if name.startswith("x_")]
    ecif.delete_run(dataset, "y")
    assert dataset.app_config.sidebar_groups[0].paths == ["caption"]
    assert not [name for name in dataset.list_indexes() if name.startswith("y_")]


def test_a_session_sees_what_another_process_did_to_the_runs():
    dataset = few_samples()
    write(dataset, "x", columns(dataset))
    stale = dataset._doc.copy()
    ecif.rename_run(dataset, "x", "y")
    dataset._doc.runs = stale.runs
    assert ecif.list_runs(dataset) == ["y"]


def test_tensors_survive_being_written():
    dataset = few_samples()
    write(dataset, "x", columns(dataset), tensors={"t": torch.arange(3)})
    assert store.load_tensors(dataset.get_run_info("x").config)["t"].tolist() == [0, 1, 2]
