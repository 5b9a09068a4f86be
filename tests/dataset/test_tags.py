"""The tags of verdicts have the names that a dataset's team gives them."""

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("names", [("bad", "good", "no", "void"), ("$filepath", "$$ROOT", "$literal", "$tags")])
def test_every_verdict_goes_by_the_chosen_names(scored_dataset, tmp_path, names):
    misaligned, trusted, rejected, empty = names
    own = {"misaligned": 3, "trusted": 3, "rejected": 3, "empty_caption": 3}  # these mean something else here
    scored_dataset[:3].tag_samples(list(own))
    ecif.set_tags(scored_dataset, misaligned=misaligned, trusted=trusted, rejected=rejected, empty=empty)

    def tags():
        found = scored_dataset.count_sample_tags()
        assert {name: found.pop(name) for name in own} == own
        return found

    assert ecif.tag_misaligned(scored_dataset, "first", 0.0) == 60 and tags() == {misaligned: 60}
    changed = ecif.apply_suggestions(scored_dataset, "first").changed
    assert changed > 0 and tags() == {misaligned: 60 - changed}
    assert ecif.undo_fixes(scored_dataset).changed == changed and tags() == {misaligned: 60}
    ecif.mark_as_fine(scored_dataset.exists("first_suggestion").limit(2))
    ecif.reject(scored_dataset.exists("first_suggestion", bool=False).limit(5))
    assert tags() == {misaligned: 58, trusted: 2, rejected: 5}
    assert len(ecif.trusted(scored_dataset)) == 2
    assert len(ecif.to_review(scored_dataset, "first")) == 53
    assert ecif.tag_misaligned(scored_dataset, "first", 0.0) == 58
    report = ecif.apply_suggestions(scored_dataset, "first")
    assert report.unchanged["marked as fine"] == 2
    assert ecif.export_cleaned(scored_dataset, str(tmp_path / "out"), "csv", "caption") == 2 + report.changed
    assert {f"tag:{name}" for name in own} <= set(summary.truth_choices(scored_dataset))
    assert f"tag:{trusted}" not in summary.truth_choices(scored_dataset)
    ecif.mark_as_empty(ecif.trusted(scored_dataset).limit(1))
    assert (tags()[trusted], tags()[empty], len(ecif.to_review(scored_dataset, "first"))) == (1, 1, 53 - report.changed)


def test_a_run_says_how_many_pairs_it_was_told_are_right_and_by_which_tag(embedded_dataset, stored):
    first = ecif.compute_influence(embedded_dataset, **stored)
    assert not [words for words in first.warnings if "tag" in words] and first.health["trusted"] == {"trusted": 0}
    embedded_dataset[:4].tag_samples("trusted")
    told = ecif.refresh_run(embedded_dataset, progress=False)
    (words,) = [words for words in told.warnings if "tag" in words]
    assert words.startswith("4 of the pairs carry the sample tag 'trusted'") and "set_tags" in words
    assert told.health["trusted"] == {"trusted": 4}
    ecif.set_tags(embedded_dataset, trusted="checked by us")
    again = ecif.refresh_run(embedded_dataset, progress=False)
    assert again.health["trusted"] == {"checked by us": 0}
    assert again.misaligned().values("ecif_misalignment") == first.misaligned().values("ecif_misalignment")


def test_the_names_stay_with_the_dataset_and_its_clones():
    dataset = fo.Dataset()
    dataset.add_sample(fo.Sample(filepath="/nowhere/1.png"))
    dataset.info["mine"] = 1
    dataset.save()
    assert ecif.tags_of(dataset) == ecif.Tags("misaligned", "trusted", "rejected")
    ecif.set_tags(dataset, trusted="good")
    chosen = ecif.set_tags(dataset.view(), rejected="no")
    assert chosen == ecif.Tags("misaligned", "good", "no")
    assert ecif.tags_of(dataset.clone()) == ecif.tags_of(dataset) == chosen
    assert dataset.info["mine"] == 1
    dataset.info["ecif_tags"] = {"trusted": 3, "other": "x", "rejected": "no"}
    dataset.save()
    assert ecif.tags_of(dataset) == ecif.Tags(rejected="no")


@pytest.mark.parametrize("names", [dict(trusted=""), dict(trusted=" "), dict(trusted="rejected"), dict(trusted=3)])
def test_names_that_cannot_serve_are_refused(names):
    dataset = fo.Dataset()
    with pytest.raises(ValueError):
        ecif.set_tags(dataset, **names)
    assert ecif.tags_of(dataset) == ecif.Tags()
