"""A run's recurring errors, as a field and as views."""

from dataclasses import fields

import pytest

import fiftyone_ecif as ecif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PLANTED = range(0, 60, 5)


@pytest.fixture
def suspected(scored_dataset):
    """The run's pairs, whose planted ones come from one source; the run is sure of them."""
    sources = ["scans" if row in PLANTED else ["web", "camera", "archive"][row % 3] for row in range(60)]
    scored_dataset.set_values("source", sources)
    for row in (5, 10, 15):
        sample = scored_dataset[row : row + 1].first()
        sample.tags.append("misaligned")
        sample.save()
    return scored_dataset


def test_a_field_names_the_cause(suspected):
    results = ecif.load_results(suspected, "first")
    found = results.error_slices(fields=["source"], progress=False)
    (scans,) = [each for each in found if each.kind == "value"]
    planted = set(suspected.match({"planted": True}).values("id"))
    assert scans.name == "source: scans" and set(scans.sample_ids) == planted and len(scans) == 12
    assert scans.share > 0.5 and scans.expected_wrong == pytest.approx(12 * scans.share)
    scores = scans.view().values("first_misalignment")
    assert scores == sorted(scores, reverse=True) and len(scores) == 12
    assert suspected.match({"first_error_slice": "source: scans"}).values("id") == suspected.select(planted).values(
        "id"
    )


@pytest.mark.parametrize("verdict", [field.name for field in fields(ecif.Tags)])
def test_the_tags_of_verdicts_are_no_causes(suspected, verdict):
    ecif.set_tags(suspected, **{verdict: "judged so"})
    suspected.match({"planted": True}).tag_samples("judged so")
    found = ecif.load_results(suspected, "first").error_slices(progress=False)
    assert [each.name for each in found if each.kind == "value"] == []


def test_the_field_holds_what_was_found_last_and_goes_with_the_run(suspected):
    results = ecif.load_results(suspected, "first")
    results.error_slices(fields=["source"], progress=False)
    assert suspected.exists("first_error_slice").count() == 12
    results.error_slices(progress=False)
    assert suspected.match({"first_error_slice": "source: scans"}).count() == 0
    ecif.rename_run(suspected, "first", "second")
    assert suspected.has_sample_field("second_error_slice") and not suspected.has_sample_field("first_error_slice")
    ecif.delete_run(suspected, "second")
    assert not suspected.has_sample_field("second_error_slice")


def test_samples_that_were_deleted_are_left_out_of_the_view(suspected):
    results = ecif.load_results(suspected, "first")
    embeddings = {name: suspected.values(["id", name]) for name in ("image_embedding",)}
    assert embeddings
    (scans,) = [each for each in results.error_slices(fields=["source"], progress=False) if each.kind == "value"]
    suspected.delete_samples(scans.sample_ids[:3])
    assert len(scans.view()) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fields": ["sourse"]}, "no field 'sourse'"),
        ({"fields": [5]}, "list of texts"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_refused_in_words(suspected, arguments, words):
    with pytest.raises(ValueError, match=words):
        ecif.load_results(suspected, "first").error_slices(**arguments, progress=False)
    assert not suspected.has_sample_field("first_error_slice")
