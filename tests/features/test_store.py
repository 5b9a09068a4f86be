"""A store holds whole shards of one model, or says what is wrong."""

import json
import threading
from pathlib import Path

import pytest
import torch

import fiftyone_ecif.features.embedding as embedding
from fiftyone_ecif.features import FeatureStore, embed_pairs
from fiftyone_ecif.models import wrap_model


@pytest.fixture
def written(model, rows, store, monkeypatch):
    """The folder of a store with three shards of four rows."""
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    embed_pairs(model, rows, store)
    model.counts()
    return FeatureStore(store, model.fingerprint).folder.here


def second(folder):
    """The file of its second shard."""
    return next(folder.glob("shard-00001-*.safetensors"))


@pytest.mark.parametrize("size", [0, 5, 200, 0.5, 0.99])
def test_truncated_shard_is_dropped_and_embedded_again(model, rows, store, written, size):
    before = embed_pairs(model, rows, store).gather(torch.arange(12))
    before = [half.clone() for half in before]
    shard = second(written)
    content = shard.read_bytes()
    shard.write_bytes(content[: size if isinstance(size, int) else int(size * len(content))])
    with pytest.warns(UserWarning, match="damaged feature shard"):
        pairs = embed_pairs(model, rows, store)
    assert model.counts() == (4, 4) and pairs.ids == [row.id for row in rows]
    for one, other in zip(pairs.gather(torch.arange(12)), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_half_written_shard_is_not_read(model, rows, store, written):
    second(written).rename(second(written).with_suffix(".safetensors.part"))
    assert len(embed_pairs(model, rows, store)) == 12
    assert model.counts() == (4, 4)


def test_only_whole_files_are_left(written):
    assert [path.name[:11] for path in sorted(written.iterdir()) if path.name != "write.lock"] == [
        "manifest.js",
        *(f"shard-{number:05d}" for number in range(3)),
    ]


def test_two_models_have_two_stores(model, rows, store, written):
    other = wrap_model(model.model, model.preprocess, model.tokenizer, name="other")
    embed_pairs(other, rows[:2], store)
    assert len(list(store.iterdir())) == 2
    assert len(embed_pairs(model, rows, store)) == 12 and model.counts() == (0, 0)


@pytest.mark.parametrize(("name", "value"), [("version", 0), ("fingerprint", "f" * 64), ("image_dim", 3)])
def test_store_of_another_kind_is_refused(model, rows, store, written, name, value):
    manifest = json.loads((written / "manifest.json").read_text())
    (written / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(ValueError, match=f"another {name}: delete it"):
        embed_pairs(model, rows, store)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1}'])
def test_damaged_manifest_is_refused(model, rows, store, written, content):
    (written / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="not a feature store's manifest: delete"):
        embed_pairs(model, rows, store)


def test_absent_store_is_a_clear_error(store):
    with pytest.raises(FileNotFoundError, match="embed the pairs first"):
        FeatureStore(store, "0" * 64)


def test_full_disk_is_said_and_keeps_what_was_written(model, rows, store, monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    write = Path.write_bytes

    def write_until_full(path, content):
        write(path, content[:100])
        if "00001" in str(path):
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError, match=r"cannot be written .*No space left on device.*it goes on from there"):
            embed_pairs(model, rows, store, batch_size=4)
    model.counts()
    assert not list(store.rglob("*.part"))
    assert len(embed_pairs(model, rows, store)) == 12 and model.counts() == (8, 8)


def test_shard_lost_after_it_was_found_is_said(model, rows, store, written):
    pairs = embed_pairs(model, rows, store)
    second(written).unlink()
    with pytest.raises(OSError, match=r"shard-00001-\w+.safetensors cannot be read any more.*Run it again"):
        pairs.gather(torch.arange(12))


def test_second_writer_is_turned_away(model, rows, store, written):
    raised = []

    def write():
        try:
            assert len(embed_pairs(model, rows, store)) == 12  # nothing is to be written
            embed_pairs(model, [rows[0]._replace(caption="new")], store)
        except RuntimeError as error:
            raised.append(str(error))

    with FeatureStore(store, model.fingerprint).writing():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(raised) == 1 and "Another process is writing" in raised[0]
    assert len(embed_pairs(model, rows, store)) == 12
