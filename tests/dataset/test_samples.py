"""Samples are counted, not guessed."""

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.samples import number_of, those


@pytest.fixture
def after_a_crash(monkeypatch):
    """What FiftyOne takes for the number of samples after its database was shut down uncleanly."""
    monkeypatch.setattr(fo.Dataset, "_estimated_count", lambda self, frames=False: 0)


def test_a_dataset_is_not_taken_for_empty_after_its_database_crashed(embedded_dataset, stored, after_a_crash):
    assert len(embedded_dataset) == 0 and number_of(embedded_dataset) == number_of(embedded_dataset.view()) == 60
    results = ecif.compute_influence(embedded_dataset, **(stored | {"rounds": 1}))
    assert results.health["pairs"] == 60
    report = ecif.apply_suggestions(embedded_dataset, "ecif")
    assert report.changed + sum(report.unchanged.values()) == 60
    assert results.trace(embedded_dataset, progress=False).query.endswith("samples")
    assert ecif.mark_as_fine(embedded_dataset) == 60


def test_an_empty_dataset_is_refused(stored):
    with pytest.raises(ValueError, match="samples is empty"):
        ecif.compute_influence(fo.Dataset(), **stored)


def test_ids_that_are_too_many_for_a_query_are_looked_up_in_the_whole(pair_dataset, monkeypatch):
    ids = pair_dataset.values("id")[5:9]
    assert those(pair_dataset.limit(2), ids).values("id") == ids
    monkeypatch.setattr("fiftyone_ecif.dataset.samples.READ_WHOLE", 3)
    assert those(pair_dataset.limit(2), ids).values("id") == pair_dataset.values("id")
