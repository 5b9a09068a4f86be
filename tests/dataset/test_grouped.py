"""A run on a slice of a grouped dataset is found by everything, whichever slice FiftyOne looks at."""

import numpy as np
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.samples import everything, number_of, ungrouped
from tests.support.grouped import as_slice

STORED = dict(
    text_field="caption", image_embeddings="image_embedding", text_embeddings="text_embedding", progress=False
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def grouped_once(scored_once):
    """The scored pairs as slices "left" beside images and beside videos, with a run "first" of their own."""
    beside = [as_slice(scored_once, "first", other) for other in ("{}", "/nowhere/clip.mp4")]
    for dataset, rounds in zip(beside, (4, 1), strict=True):
        ecif.compute_influence(dataset.select_group_slices("left"), run_key="first", rounds=rounds, **STORED)
    return beside


@pytest.fixture
def grouped(grouped_once):
    """The pairs as a slice beside images, to change."""
    return grouped_once[0].clone()


def by_file(view):
    """What tells the pairs of two datasets to be the same."""
    return view.values("filepath")


def test_what_a_run_found_is_as_on_a_dataset_of_its_own(grouped, scored_dataset):
    assert grouped.group_slice == "right" and grouped.media_type == "group"
    results, alone = (ecif.load_results(dataset, "first") for dataset in (grouped, scored_dataset))
    for samples in (grouped.select_group_slices("left"), scored_dataset):
        samples.set_values("first_value", [1.0, *samples.values("first_value")[1:]])
    for name in ("misaligned", "harmful", "valuable"):
        assert by_file(getattr(results, name)()) == by_file(getattr(alone, name)()) != []
    assert results.suggested_threshold(0.5) == alone.suggested_threshold(0.5) is not None
    assert by_file(results.samples) == by_file(alone.samples)
    assert summary.suspicion(grouped, "first", 0.5) == summary.suspicion(scored_dataset, "first", 0.5)
    np.testing.assert_array_equal(summary.value_curve(grouped, "first"), summary.value_curve(scored_dataset, "first"))
    expected = alone.estimate_removal(scored_dataset[:5], progress=False).predicted
    assert results.estimate_removal(grouped.select_group_slices("left")[:5], progress=False).predicted == expected
    assert results.verify_removal(grouped.limit(5), progress=False).predicted == expected
    expected = alone.forecast_removal(points=2, progress=False)
    assert results.forecast_removal(grouped, points=2, progress=False) == expected


def test_failing_queries_of_a_slice_are_found_and_traced(grouped, scored_dataset):
    left = grouped.select_group_slices("left")
    results, alone = (ecif.load_results(dataset, "first") for dataset in (grouped, scored_dataset))
    failing, expected = (ecif.find_failures(view, "first", progress=False) for view in (left, scored_dataset))
    assert by_file(failing) == by_file(expected) != []
    traces = results.trace([failing.first().id, failing.first(), failing.limit(1)], progress=False)
    blamed = by_file(alone.trace(expected.first(), progress=False).view())
    for trace in traces:
        assert by_file(trace.view()) == blamed and trace.table()[0]["text"] is not None
    with pytest.raises(ValueError, match="grouped collection: choose the slice"):
        ecif.find_failures(grouped, "first", progress=False)
    with pytest.raises(ValueError, match="grouped collection: choose the slice"):
        results.trace(grouped, progress=False)


@pytest.mark.parametrize("beside, whole", [("images", False), ("images", True), ("videos", True)])
def test_a_slice_is_repaired(grouped_once, tmp_path, beside, whole):
    dataset = grouped_once[beside == "videos"].clone()
    left = dataset.select_group_slices("left")
    results, samples, captions = ecif.load_results(dataset, "first"), dataset if whole else left, left.values("caption")
    assert set(results.suggest(samples)) >= set(left.exists("first_suggestion").values("id"))
    tagged = ecif.tag_misaligned(samples, "first", 0.3)
    assert 0 < tagged == left.count_sample_tags()["misaligned"]
    assert number_of(ecif.cleaned(left)) == 60 - tagged
    report = ecif.apply_suggestions(samples, "first")
    assert report.changed > 0 and left.values("caption") != captions
    assert len(ecif.fixed(samples)) == report.changed
    assert len(ecif.to_review(samples, "first")) == 60 - report.changed
    assert ecif.undo_fixes(samples).changed == report.changed and left.values("caption") == captions
    ecif.mark_as_fine(results.misaligned(limit=2))
    ecif.reject(results.misaligned(limit=4).skip(2))
    assert everything(dataset).count_sample_tags()["trusted"] == len(ecif.trusted(samples)) == 2
    assert len(ecif.to_review(samples, "first")) == 56
    assert ecif.export_cleaned(left, str(tmp_path / "out"), "csv", "caption") == len(ecif.cleaned(left))


def test_which_slice_is_meant_is_for_the_user_to_say(grouped, tmp_path):
    for ask in (
        lambda: ecif.compute_influence(grouped, **STORED),
        lambda: ecif.cleaned(grouped, "first", 0.5),
        lambda: ecif.export_cleaned(grouped, str(tmp_path / "out"), "csv", "caption"),
    ):
        with pytest.raises(ValueError, match="grouped collection: choose the slice that holds the images"):
            ask()
    assert not list(tmp_path.iterdir()) and ecif.list_runs(grouped) == ["first"]


@pytest.mark.parametrize("shown", ["left", "right"])
def test_a_run_of_a_slice_is_kept_whatever_slice_is_active(grouped, shown):
    ids = ecif.load_results(grouped, "first").ids
    grouped.group_slice = shown
    assert ecif.load_results(grouped, "first").misaligned().count("id") == 60
    assert ecif.refresh_run(grouped, "first", progress=False).ids == ids
    ecif.rename_run(grouped, "first", "renamed")
    assert ecif.load_results(grouped, "renamed").misaligned().count("id") == 60
    ecif.delete_run(grouped, "renamed")
    assert not [name for name in grouped.get_field_schema() if name.startswith(("first", "renamed"))]


def test_a_part_of_a_slice_can_be_the_target_of_the_rest(grouped):
    left = grouped.select_group_slices("left")
    results = ecif.compute_influence(left[:40], target=left[40:], rounds=1, **STORED)
    assert results.target_samples.values("id") == left[40:].values("id")
    again = ecif.refresh_run(grouped, progress=False)
    assert len(again.ids) == 40 and again.health["target_pairs"] == 20


def test_groups_made_by_a_view_are_taken_apart(scored_dataset):
    groups = scored_dataset.group_by("caption")
    assert sorted(ungrouped(groups).values("id")) == sorted(scored_dataset.values("id"))
    assert ecif.tag_misaligned(groups, "first", 0.0) == 60
