"""A run is about the pairs that it scored, whatever becomes of the view that they came from."""

import numpy as np
import pytest
from fiftyone.core.odm.runs import RunDocument
from safetensors.torch import load_file, save_file

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.run.config import EcifConfig, tensor_file
from fiftyone_ecif.dataset.run.store import as_tensor, ids_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def effect(results, view):
    """Target loss before and after a removal."""
    found = results.estimate_removal(view, progress=False)
    return found.before["target_loss"], found.predicted["target_loss"]


def test_ids_survive_being_packed(embedded_dataset):
    ids = embedded_dataset.values("id")
    assert ids_of(as_tensor(ids)) == ids and as_tensor(ids).shape == (60, 12)
    assert ids_of(as_tensor([])) == []


def test_the_pairs_keep_their_order_though_the_view_would_now_give_another(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset.sort_by("caption"), **stored)
    some = embedded_dataset.select(embedded_dataset.values("id")[:6])
    before, ids = effect(results, some), results.ids
    ecif.apply_suggestions(embedded_dataset, "ecif")
    assert results.samples.values("id") != ids
    assert ecif.load_results(embedded_dataset, "ecif").ids == ids
    assert effect(ecif.load_results(embedded_dataset, "ecif"), some) == pytest.approx(before)


def test_a_deleted_pair_is_said_though_the_view_fills_its_place(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset.limit(40), **stored)
    embedded_dataset.delete_samples(embedded_dataset.values("id")[3:4])
    assert len(results.samples) == 40
    with pytest.raises(ValueError, match="0 of its pairs have another image or text now, 1 are gone"):
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
    save_file({name: value.clone() for name, value in load_file(path).items() if name != "ids"}, path)
    again = ecif.load_results(embedded_dataset, "ecif")
    assert again.ids == embedded_dataset.values("id") and effect(again, some) == pytest.approx(before)


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
