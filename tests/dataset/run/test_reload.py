"""Views and samples that were made before a run is written, renamed or deleted go on to work."""

import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.run.reload import read_anew
from tests.support.prepared import columns, few_samples, write


@pytest.fixture
def dataset():
    return few_samples()


def test_a_view_and_a_sample_from_before_see_every_run_that_comes_goes_or_is_renamed(dataset):
    view, sample = dataset.limit(3), dataset.first()
    assert view.first().caption == "text 0"  # a view remembers how it made its first sample
    for number, key in enumerate(("one", "two", "three")):
        write(dataset, key, columns(dataset, base=float(number)))
        for seen in (view.first(), dataset.first(), sample):
            assert seen[f"{key}_value"] == number
    ecif.rename_run(dataset, "one", "uno")
    for seen in (view.first(), dataset.first(), sample):
        assert seen["uno_value"] == 0 and not seen.has_field("one_value")
    ecif.delete_run(dataset, "two")
    for seen in (view.first(), dataset.first(), sample):
        assert not seen.has_field("two_value") and seen["three_value"] == 2


def test_a_view_from_before_the_tags_were_named_sees_the_runs_that_come(dataset):
    view = dataset.limit(3)
    view.first()
    ecif.set_tags(dataset, trusted="checked")
    assert dataset.info["ecif_tags"]["trusted"] == "checked"
    write(dataset, "one", columns(dataset))
    assert view.first()["one_value"] == 0


def test_fields_that_another_session_adds_changes_and_deletes_are_seen(dataset):
    import fiftyone as fo

    dataset.add_sample_field("old", fo.StringField)
    view = dataset.limit(3)
    view.first()
    other = fo.Dataset.__new__(fo.Dataset)  # what another process would have
    fo.Dataset.__init__(other, name=dataset.name, _create=False, _virtual=True)
    other.delete_sample_field("old")
    other.add_sample_field("new", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    other.set_values("new", [fo.Classification(label="here")] * len(other))
    other.add_sample_field("new.note", fo.StringField, description="said later")
    read_anew(dataset)
    assert not dataset.has_sample_field("old") and view.first().new.label == "here"
    assert dataset.get_field("new.note").description == "said later"
    assert dataset.get_field_schema().keys() == other.get_field_schema().keys()
