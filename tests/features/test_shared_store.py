"""A store on shared storage is read and written by any machine, and what is damaged there is embedded again."""

import json
import pickle

import fsspec
import pytest
import torch

import fiftyone_ecif.features.embedding as embedding
from fiftyone_ecif.features import FeatureStore, embed_pairs, features_folder
from fiftyone_ecif.features.reading import Marks

EVERY = torch.arange(12)
SHARED = "memory://bucket/features"


@pytest.fixture
def storage():
    """The files of a storage that is emptied afterwards."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Be on a machine with copies of its own."""

    def be_on(name):
        monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / name))

    be_on("first")
    return be_on


@pytest.fixture
def written(model, rows, storage, machine, monkeypatch):
    """Three shards of four rows on shared storage, and their features."""
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    features = embed_pairs(model, rows, SHARED).gather(EVERY)
    model.counts()
    return features


def shards(storage):
    return sorted(storage.glob("/bucket/features/*/shard-*"))


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_shared_store_equals_one_on_disk(model, rows, storage, written, store):
    assert_same(embed_pairs(model, rows, f"file://{store}").gather(EVERY), written)
    assert len(list(store.glob("*/shard-*"))) == len(shards(storage)) == 3
    assert not [path for path in storage.find("/bucket") if path.endswith(".part")]


def test_another_machine_copies_and_computes_nothing(model, rows, written, machine, tmp_path):
    machine("second")
    pairs = embed_pairs(model, rows, SHARED)
    assert model.counts() == (0, 0)
    assert_same(pairs.gather(EVERY), written)
    assert len(list((tmp_path / "second").rglob("shard-*"))) == 3


def test_worker_on_another_machine_copies_what_it_reads(model, rows, written, machine, tmp_path):
    sent = pickle.dumps(embed_pairs(model, rows, SHARED))
    machine("worker")
    pairs = pickle.loads(sent)
    assert_same(pairs.gather(torch.tensor([5, 0])), [half[[5, 0]] for half in written])
    assert len(list((tmp_path / "worker").rglob("shard-*"))) == 2


def test_folder_with_signs_of_a_pattern_in_its_name(model, rows, tmp_path):
    for expected in ((12, 12), (0, 0)):
        assert len(embed_pairs(model, rows, tmp_path / "[a]*?")) == 12
        assert model.counts() == expected


def test_shards_are_copied_once(model, rows, storage, written, machine, monkeypatch):
    machine("second")
    FeatureStore(SHARED, model.fingerprint)
    monkeypatch.setattr(type(storage), "get", lambda *args: pytest.fail("copied again"))
    assert_same(embed_pairs(model, rows, SHARED).gather(EVERY), written)


@pytest.mark.parametrize(
    "damage", [lambda content, other: b"", lambda content, other: content[:-9], lambda *both: both[1]]
)
def test_shard_damaged_on_the_storage_is_embedded_again(model, rows, storage, written, machine, damage):
    other, name, _ = shards(storage)
    storage.pipe_file(name, damage(storage.cat_file(name), storage.cat_file(other)))
    machine("second")
    with pytest.warns(UserWarning, match="damaged feature shard memory://bucket/features/.*shard-00001"):
        pairs = embed_pairs(model, rows, SHARED)
    assert model.counts() == (4, 4) and len(shards(storage)) == 3 and name not in shards(storage)
    assert_same(pairs.gather(EVERY), written)


def test_storage_that_fails_is_no_damage(model, rows, storage, written, machine, monkeypatch):
    machine("second")

    def fail(*args):
        raise ConnectionError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "get", fail)
        with pytest.raises(ConnectionError, match="timed out"):
            embed_pairs(model, rows, SHARED)
    assert len(shards(storage)) == 3
    assert_same(embed_pairs(model, rows, SHARED).gather(EVERY), written)


def test_storage_that_is_full_is_said_and_keeps_what_was_written(model, rows, storage, machine, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    put = type(storage).put_file

    def put_until_full(self, path, target):
        if "00001" in target:
            raise OSError(28, "quota exceeded")
        put(self, path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "put_file", put_until_full)
        with pytest.raises(OSError, match=r"cannot be written to memory://.*quota exceeded.*it goes on from there"):
            embed_pairs(model, rows, SHARED, batch_size=4)
    model.counts()
    assert len(embed_pairs(model, rows, SHARED)) == 12 and model.counts() == (8, 8)


@pytest.mark.parametrize(("name", "value"), [("version", 0), ("fingerprint", "f" * 64)])
def test_shared_store_of_another_kind_is_refused(model, rows, storage, written, name, value):
    (path,) = storage.glob("/bucket/features/*/manifest.json")
    storage.pipe_file(path, json.dumps({**json.loads(storage.cat_file(path)), name: value}).encode())
    with pytest.raises(ValueError, match=f"memory://.* was written with another {name}: delete it"):
        embed_pairs(model, rows, SHARED)


def test_two_machines_at_once_are_told_and_lose_nothing(model, rows, storage, written, machine):
    new = [row._replace(caption=f"new {row.caption}") for row in rows[:8]]
    one = FeatureStore(SHARED, model.fingerprint)
    machine("second")
    with one.writing():
        embed_pairs(model, new[:4], SHARED)
        with pytest.warns(UserWarning, match="Another machine is writing"):
            one.append([bytes([n] * 16) for n in range(2)], torch.ones(2, one.image_dim), torch.ones(2, one.text_dim),
                       [Marks()] * 2)  # fmt: skip
    model.counts()
    assert len(embed_pairs(model, [*rows, *new], SHARED)) == 20 and model.counts()[1] == 4
    assert len(shards(storage)) == 6


def test_store_begun_anew_is_not_taken_for_the_old_one(model, rows, storage, written):
    storage.rm("/bucket", recursive=True)
    other = [row._replace(filepath=rows[0].filepath) for row in rows]
    pairs = embed_pairs(model, other, SHARED)
    assert_same(pairs.gather(EVERY)[:1], [written[0][:1].expand(12, -1)])


def test_storage_that_is_not_known_is_said(model, rows):
    with pytest.raises(ValueError, match=r"cannot be kept in nowhere://bucket/.*not known"):
        embed_pairs(model, rows, "nowhere://bucket")


def test_the_environment_names_where_features_are(monkeypatch, tmp_path):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    monkeypatch.delenv("FIFTYONE_ECIF_FEATURES", raising=False)
    assert features_folder() == str(tmp_path / "features")
    monkeypatch.setenv("FIFTYONE_ECIF_FEATURES", SHARED)
    assert features_folder() == SHARED
