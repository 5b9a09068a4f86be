"""A run is about the pairs that it scored, whatever becomes of the view that they came from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fiftyone.core.odm.runs import RunDocument
from safetensors.torch import load_file, save_file

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.pairs import embedding_pairs
from fiftyone_ecif.dataset.rows import read_rows
from fiftyone_ecif.dataset.run.config import EcifConfig, tensor_file
from fiftyone_ecif.dataset.run.database import database
from fiftyone_ecif.dataset.run.snapshot import Snapshot
from fiftyone_ecif.models import load_model
from tests.support.hub import no_network  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def effect(results, view):
    """Target loss before and after a removal."""
    found = results.estimate_removal(view, progress=False)
    return found.before["target_loss"], found.predicted["target_loss"]


def test_a_snapshot_survives_being_packed(embedded_dataset):
    rows = read_rows(embedded_dataset, "caption", None, "clip_image", "clip_text")
    texts = ["", None, "ä € 🦔", "lone \ud800", *rows.texts[4:]]
    kept = Snapshot.of(replace(rows, texts=texts), embedding_pairs(rows))
    for prefix in ("", "target."):
        again = Snapshot.read(kept.tensors(prefix), prefix)
        assert (again.ids, again.texts) == (rows.ids, texts) and torch.equal(again.keys, kept.keys)
    assert Snapshot.read({}) is None
    assert len(set(kept.key_bytes())) == 60


def test_the_pairs_keep_their_order_though_the_view_would_now_give_another(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset.sort_by("caption"), **stored)
    some = embedded_dataset.select(embedded_dataset.values("id")[:6])
    before, ids = effect(results, some), results.ids
    ecif.apply_suggestions(embedded_dataset, "ecif")
    assert embedded_dataset.sort_by("caption").values("id") != ids
    assert results.samples.values("id") == ids
    assert ecif.load_results(embedded_dataset, "ecif").ids == ids
    assert effect(ecif.load_results(embedded_dataset, "ecif"), some) == pytest.approx(before)


def test_a_deleted_pair_is_said_though_the_view_fills_its_place(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset.limit(40), **stored)
    embedded_dataset.delete_samples(embedded_dataset.values("id")[3:4])
    assert len(results.samples) == 39
    with pytest.raises(ValueError, match="0 of its pairs have other embeddings now, 1 are gone"):
        effect(ecif.load_results(embedded_dataset, "ecif"), embedded_dataset.limit(5))


def test_a_run_of_tagged_pairs_stays_with_them(embedded_dataset, stored):
    ids = embedded_dataset.values("id")
    embedded_dataset.select(ids[:40]).tag_samples("train")
    results = ecif.compute_influence(embedded_dataset.match_tags("train"), **stored)
    some = embedded_dataset.select(ids[5:9])
    before = effect(results, some)
    embedded_dataset.select(ids[0]).untag_samples("train")
    embedded_dataset.select(ids[50]).tag_samples("train")
    assert effect(ecif.load_results(embedded_dataset, "ecif"), some) == pytest.approx(before)


def test_a_run_from_before_ids_were_kept_asks_its_view(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    some, path = embedded_dataset.limit(4), tensor_file(results.config)
    before = effect(results, some)
    kept = results.self_influence.clone(), results.misalignment.clone()  # may be views of the file that is replaced
    younger = ("ids", "keys", "texts", "text_lengths", "self_influence", "misalignment")
    save_file({name: value.clone() for name, value in load_file(path).items() if name not in younger}, path)
    again = ecif.load_results(embedded_dataset, "ecif")
    assert again.ids == embedded_dataset.values("id") and effect(again, some) == pytest.approx(before)
    torch.testing.assert_close((again.self_influence, again.misalignment), kept, check_dtype=False)
    embedded_dataset.delete_sample_field("ecif_self_influence")
    with pytest.raises(ValueError, match="from an earlier version"):
        _ = again.self_influence


def test_a_record_with_fewer_settings_has_their_defaults(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    before = effect(results, embedded_dataset.limit(4))
    document = RunDocument.objects(dataset_id=embedded_dataset._doc.id, key="ecif").first()
    for name in ("damping", "view_fingerprint", "engine", "device", "evidence", "num_workers", "computed_on"):
        del document.config[name]
    document.save()
    embedded_dataset.reload()
    again = ecif.load_results(embedded_dataset, "ecif")
    assert effect(again, embedded_dataset.limit(4)) == before and again.settings == results.settings
    assert again.suggest(embedded_dataset.limit(2)) is not None


def test_records_that_name_the_classes_of_version_0_1_still_open(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    document = RunDocument.objects(dataset_id=embedded_dataset._doc.id, key="ecif").first()
    document.config["cls"] = "fiftyone_ecif.curation.runs.EcifConfig"
    document.save()
    embedded_dataset.reload()
    config = embedded_dataset.get_run_info("ecif").config
    assert isinstance(config, EcifConfig) and config.text_field == results.config.text_field
    ecif.rename_run(embedded_dataset, "ecif", "renamed")
    assert embedded_dataset.has_sample_field("renamed_value")
    ecif.delete_run(embedded_dataset, "renamed")
    assert not [name for name in embedded_dataset.get_field_schema() if name.startswith("renamed")]


def test_the_target_is_read_in_the_order_of_its_ids(embedded_dataset, stored):
    train, target = embedded_dataset[:40], embedded_dataset[40:].sort_by("caption")
    results = ecif.compute_influence(train, target=target, **stored)
    rows = results.target_rows()
    assert rows.ids == target.values("id")
    assert results.target_pairs(rows).ids == rows.ids
    np.testing.assert_allclose(effect(results, train[:4])[0], results.health["target_loss"], rtol=1e-5)


def test_a_run_is_described_by_its_dataset_key_and_pairs(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    assert repr(results) == f"InfluenceResults({embedded_dataset.name!r}, 'ecif': 60 pairs)"


def test_embeddings_overwritten_in_place_are_said(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    vectors = embedded_dataset.values("clip_image")
    embedded_dataset.set_values("clip_image", [(2 * np.array(vector)).tolist() for vector in vectors[:7]] + vectors[7:])
    with pytest.raises(ValueError, match=r"7 of its pairs have other embeddings now, 0 are gone.*refresh_run"):
        effect(results, embedded_dataset.limit(4))
    with pytest.raises(ValueError, match="7 of its pairs have other embeddings now"):
        results.trace(embedded_dataset.first(), progress=False)
    refreshed = ecif.refresh_run(embedded_dataset, progress=False)
    effect(refreshed, embedded_dataset.limit(4))


def test_a_run_on_the_view_of_the_run_that_it_replaces_is_right(embedded_dataset, stored):
    first = ecif.compute_influence(embedded_dataset, **stored)
    suspects = first.misaligned()
    results = ecif.compute_influence(suspects, overwrite=True, **stored)
    some = embedded_dataset.limit(6)
    found = results.verify_removal(some, progress=False)
    assert found.predicted["target_loss"] == pytest.approx(found.measured["target_loss"], rel=0.05)
    assert effect(ecif.load_results(embedded_dataset, "ecif"), some) == effect(results, some)


def test_a_run_outlives_the_run_whose_view_it_scored(embedded_dataset, stored):
    first = ecif.compute_influence(embedded_dataset, run_key="first", **stored)
    results = ecif.compute_influence(first.misaligned(limit=50), run_key="second", **stored)
    ids, some = results.ids, first.misaligned(limit=4)
    before = effect(results, embedded_dataset.select(ids[:4]))
    del some
    for change in (
        lambda: ecif.rename_run(embedded_dataset, "first", "renamed"),
        lambda: ecif.delete_run(embedded_dataset, "renamed"),
    ):
        change()
        again = ecif.load_results(embedded_dataset, "second")
        assert again.ids == ids and effect(again, embedded_dataset.select(ids[:4])) == before
    assert ecif.refresh_run(embedded_dataset, "second", progress=False).ids == ids


def test_a_refresh_of_a_cleaned_set_keeps_its_pairs_though_they_were_tagged_since(embedded_dataset, stored):
    results = ecif.compute_influence(ecif.cleaned(embedded_dataset), **stored)
    ecif.tag_misaligned(embedded_dataset, "ecif", 0.3)
    assert embedded_dataset.count_sample_tags()
    assert ecif.refresh_run(embedded_dataset, progress=False).ids == results.ids


def test_a_refresh_of_a_whole_dataset_takes_new_samples_in(embedded_dataset, stored):
    copies = [sample.copy() for sample in embedded_dataset.limit(3)]
    ecif.compute_influence(embedded_dataset, **stored)
    embedded_dataset.add_samples(copies)
    assert len(ecif.refresh_run(embedded_dataset, progress=False).ids) == 63


def test_a_target_is_found_after_its_dataset_was_renamed_and_in_a_clone(embedded_dataset, stored):
    train, target = embedded_dataset[:40], embedded_dataset[40:]
    other = target.clone()
    own = ecif.compute_influence(train, target=target, run_key="own", **stored)
    foreign = ecif.compute_influence(train, target=other, run_key="foreign", **stored)
    some = train[:4]
    before = effect(own, some), effect(foreign, some)
    other.name = f"{other.name}-renamed"
    clone = embedded_dataset.clone()
    embedded_dataset.delete_samples(target)
    clones = [ecif.load_results(clone, key) for key in ("own", "foreign")]
    assert (effect(clones[0], clone[:4]), effect(clones[1], clone[:4])) == before
    assert clones[0].target_samples._dataset is clone and clones[1].target_samples._dataset.name == other.name
    with pytest.raises(ValueError, match="20 are gone"):
        effect(ecif.load_results(embedded_dataset, "own"), some)
    other.delete()
    with pytest.raises(ValueError, match="was deleted: compute the run again"):
        effect(ecif.load_results(embedded_dataset, "foreign"), some)


def test_with_a_model_estimates_stay_the_same_whatever_becomes_of_the_samples(pair_dataset, tmp_path):
    torch.manual_seed(0)
    model = load_model("ecif-tiny")
    quick = dict(model=model, rounds=1, batch_size=20, progress=False, num_workers=0)
    results = ecif.compute_influence(pair_dataset, "caption", **quick)
    ids = pair_dataset.values("id")
    some = pair_dataset.select(ids[10:16])
    before = effect(results, some)
    captions = pair_dataset.values("caption")
    pair_dataset.set_values("caption", [f"{caption}!" for caption in captions])
    pair_dataset.delete_samples(ids[0])
    moved = tmp_path / "moved.png"
    sample = pair_dataset[ids[5]]
    moved.write_bytes(Path(sample.filepath).read_bytes())
    sample.filepath = str(moved)
    sample.save()
    pair_dataset.rename_sample_field("caption", "text")
    again = ecif.load_results(pair_dataset, "ecif")
    assert effect(again, some) == pytest.approx(before)
    assert again.rows().texts == captions


def test_a_renamed_text_field_can_be_told_to_the_run(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    embedded_dataset.rename_sample_field("caption", "text")
    with pytest.raises(ValueError, match="no field 'caption'"):
        ecif.apply_suggestions(embedded_dataset, "ecif")
    with pytest.raises(ValueError, match="computed on captions, and 'ground_truth' holds labels"):
        results.change_text_field("ground_truth")
    with pytest.raises(ValueError, match=r"no field 'txt'\. Did you mean 'text'"):
        results.change_text_field("txt")
    results.change_text_field("text")
    assert ecif.load_results(embedded_dataset, "ecif").config.text_field == "text"
    assert ecif.apply_suggestions(embedded_dataset, "ecif").changed > 0
    assert ecif.refresh_run(embedded_dataset, progress=False).config.text_field == "text"


def test_a_runs_record_starts_no_download(pair_dataset, no_network):  # noqa: F811
    tiny = load_model("ecif-tiny")
    quick = dict(rounds=1, batch_size=20, progress=False, num_workers=0)
    config = ecif.compute_influence(pair_dataset, "caption", model=tiny, **quick).config
    config.load_arguments = {"name": "hf-hub:someone/huge", "pretrained": None}
    pair_dataset.update_run_config("ecif", config)
    results = ecif.load_results(pair_dataset, "ecif")
    for ask in (results.model, lambda: ecif.refresh_run(pair_dataset, "ecif", progress=False)):
        with pytest.raises(ValueError, match=r"downloads nothing.*load_model\('hf-hub:someone/huge'\)"):
            ask()
    assert not no_network


def test_a_run_whose_record_is_damaged_says_so_and_can_be_deleted(scored_dataset):
    record = scored_dataset._doc.runs["first"].id
    database().runs.update_one({"_id": record}, {"$set": {"config.rounds": "four"}})
    scored_dataset.reload()
    with pytest.raises(ValueError, match="record of run 'first' is damaged: rounds must be a whole number, not 'four'"):
        ecif.load_results(scored_dataset, "first")
    ecif.delete_run(scored_dataset, "first")
    assert ecif.list_runs(scored_dataset) == []
