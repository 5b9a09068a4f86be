"""Feature stores are listed, and removed only where they are chosen, whole, ours and used by nobody."""

import os
import time

import pytest
import torch

from fiftyone_ecif import command_line
from fiftyone_ecif.features import FeatureStore, embed_pairs
from fiftyone_ecif.features.housekeeping import stored_features
from fiftyone_ecif.models import ViewAveraged, wrap_model


@pytest.fixture
def folder(model, rows, tmp_path, monkeypatch):
    """A folder with the features of a model, not used for ten days, and of its views, not used for two."""
    folder = tmp_path / "features"
    monkeypatch.setenv("FIFTYONE_ECIF_FEATURES", str(folder))
    named = wrap_model(model.model, model.preprocess, model.tokenizer, name="tiny", pretrained="random")
    for each, days in ((named, 10), (ViewAveraged(named), 2)):
        embed_pairs(each, rows[:days], folder)
        unused_for(FeatureStore(folder, each.fingerprint).folder.here, days)
    return folder


def unused_for(store, days):
    moment = time.time() - days * 24 * 3600
    for path in store.iterdir():
        os.utime(path, (moment, moment))


def command(capsys, *arguments):
    status = command_line.main(["features", *arguments])
    return status, "".join(capsys.readouterr())


def names(folder):
    return [store.folder.name for store in stored_features(folder)]


def test_stores_are_listed_with_model_rows_size_and_last_use(folder, capsys):
    old, new = stored_features(folder)
    assert (old.model, old.rows, new.model, new.rows) == (
        "tiny random", 10, "tiny random, mild views of the images", 2,
    )  # fmt: skip
    assert old.size == sum(path.stat().st_size for path in old.folder.iterdir())
    status, said = command(capsys)
    assert status == 0 and said.splitlines() == [str(old), str(new)]
    assert f"{old.folder.name}: tiny random, 10 pairs, 0.0 MB, last used 10 days ago" in said


@pytest.mark.parametrize("how", ["name", "digits", "age"])
def test_what_is_chosen_is_removed_when_that_is_asked_for(folder, capsys, how):
    old, new = names(folder)
    choice = {"name": ("--prune", old), "digits": ("--prune", old[9:15]), "age": ("--older-than", "5")}[how]
    status, said = command(capsys, *choice)
    assert status == 0 and f"Would remove: {old}" in said and "Nothing was removed." in said
    assert names(folder) == [old, new]
    status, said = command(capsys, *choice, "--apply")
    assert status == 0 and f"Removed: {old}" in said and f"Stays: {new}" in said
    assert [path.name for path in folder.iterdir()] == [new]


def test_a_store_that_was_read_within_the_hour_stays(folder, model, rows, capsys):
    old, _ = stored_features(folder)
    fingerprint = wrap_model(
        model.model, model.preprocess, model.tokenizer, name="tiny", pretrained="random"
    ).fingerprint
    store = FeatureStore(folder, fingerprint)
    assert stored_features(folder)[-1].in_use
    status, said = command(capsys, "--prune", old.folder.name, "--apply")
    assert status == 0 and "Stays, since a job read it within the last hour" in said
    assert len(store.pairs(rows[:10]).gather(torch.arange(10))[0]) == 10


def test_reading_pairs_marks_their_store_as_used(folder, model, rows, monkeypatch):
    old, _ = stored_features(folder)
    fingerprint = wrap_model(
        model.model, model.preprocess, model.tokenizer, name="tiny", pretrained="random"
    ).fingerprint
    pairs = FeatureStore(folder, fingerprint).pairs(rows[:10])
    unused_for(old.folder, 10)
    pairs.gather(torch.arange(3))  # within the same minute
    assert not stored_features(folder)[0].in_use
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    pairs.gather(torch.arange(3))
    assert stored_features(folder)[-1].folder == old.folder and stored_features(folder)[-1].in_use


def test_a_store_that_is_written_to_stays(folder, capsys):
    old, _ = stored_features(folder)
    manifest = (old.folder / "manifest.json").read_text()
    store = FeatureStore(folder, manifest.split('"fingerprint": "')[1][:64])
    with store.writing():
        unused_for(old.folder, 10)
        _, said = command(capsys, "--older-than", "5", "--apply")
    assert "Stays, since a job is writing to it" in said and old.folder.name in names(folder)


def test_what_is_not_ours_stays(folder, capsys):
    old, new = stored_features(folder)
    (old.folder / "notes.txt").write_text("mine")
    unused_for(old.folder, 10)
    other = folder / "features-0123456789abcdef"
    other.mkdir()
    (other / "manifest.json").write_text('{"fingerprint": "of something else"}')
    unused_for(other, 10)
    _, said = command(capsys, "--older-than", "0", "--apply")
    assert "there are other files in it: notes.txt" in said
    assert {path.name for path in folder.iterdir()} == {old.folder.name, other.name}
    assert len(list(old.folder.glob("shard-*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prune", "zz"), "'zz' is the name of no feature stores"),
        (("--prune", ""), "'' is the name of no feature stores"),
        (("--prune", "features-"), "'features-' is the name of no feature stores"),
        (("--apply",), "nothing is chosen"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(folder, capsys, arguments, message):
    before = names(folder)
    status, said = command(capsys, *arguments)
    assert status == 1 and message in said and names(folder) == before


def test_shared_storage_is_left_to_its_own_tools(monkeypatch, capsys):
    monkeypatch.setenv("FIFTYONE_ECIF_FEATURES", "memory://bucket/features")
    status, said = command(capsys, "--older-than", "5", "--apply")
    assert status == 1 and "the storage's own tools" in said


def test_an_empty_folder_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FIFTYONE_ECIF_FEATURES", str(tmp_path / "none"))
    assert command(capsys) == (0, f"There are no features in {tmp_path / 'none'}.\n")


def test_a_store_from_before_models_were_named_gets_its_name_when_it_is_written(folder, model, rows):
    old, _ = stored_features(folder)
    manifest = old.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model": "tiny random",', ""))
    assert "unknown model" in {store.model for store in stored_features(folder)}
    named = wrap_model(model.model, model.preprocess, model.tokenizer, name="tiny", pretrained="random")
    assert len(embed_pairs(named, rows, folder)) == 12
    assert "tiny random" in {store.model for store in stored_features(folder)}
