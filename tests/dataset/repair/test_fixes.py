"""Fixes change the text and nothing else, are recorded with it, and are taken back exactly."""

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif


@pytest.fixture
def results(embedded_dataset, stored):
    """A run "ecif" whose suggestions are right for the six swapped captions."""
    results = ecif.compute_influence(embedded_dataset, **stored)
    shown = [path.rsplit("/", 1)[1][3:-4].split("-") for path in embedded_dataset.values("filepath")]
    swapped = embedded_dataset.match(F("planted"))
    names = dict(zip(embedded_dataset.values("id"), shown, strict=True))
    suggestions = {
        id: fo.Classification(label="a {} {}".format(*names[id]), confidence=0.5 + 0.05 * number)
        for number, id in enumerate(swapped.values("id"))
    }
    embedded_dataset.set_field("ecif_suggestion", None).save()
    embedded_dataset.set_values("ecif_suggestion", suggestions, key_field="id")
    return results


def documents(dataset, without=("last_modified_at",)):
    return [
        {name: value for name, value in document.items() if name not in without}
        for document in dataset._sample_collection.find()
    ]


def test_a_fix_and_its_undo_leave_every_sample_as_it_was(results):
    dataset = results.dataset
    dataset.match(F("planted")).limit(2).tag_samples("misaligned")
    before = documents(dataset)
    report = ecif.apply_suggestions(dataset, "ecif", by="somebody")
    assert (report.changed, report.unchanged) == (6, {"without a suggestion": 54})
    assert dataset.match(F("planted")).values("caption") == dataset.match(F("planted")).values("ecif_suggestion.label")
    assert len(dataset.match_tags("misaligned")) == 0
    record = dataset.match(F("planted")).first()["caption_fixes"][0]
    assert (record.before, record.by, record.run_key, record.confidence) == (
        before[0]["caption"],
        "somebody",
        "ecif",
        0.5,
    )
    assert record.misalignment == before[0]["ecif_misalignment"]
    assert len(ecif.fixed(dataset)) == 6

    assert ecif.undo_fixes(dataset).changed == 6
    assert documents(dataset, ("last_modified_at", "caption_fixes")) == before
    assert len(ecif.fixed(dataset)) == 0
    assert str(ecif.undo_fixes(dataset)) == "0 changed"


def test_only_sure_suggestions_of_the_view_are_applied(results):
    dataset = results.dataset
    some = dataset.match(F("planted")).skip(1)
    report = ecif.apply_suggestions(some.select_fields("planted"), "ecif", min_confidence=0.6)
    assert report.changed == 4
    assert report.unchanged == {"less confident": 1}
    assert len(ecif.fixed(dataset)) == 4


def test_pairs_marked_as_fine_are_left_alone(results):
    dataset = results.dataset
    right = dataset.match(F("planted")).limit(2)
    assert ecif.tag_misaligned(dataset, "ecif", threshold=0.0) == 60
    assert ecif.mark_as_fine(right) == 2
    assert len(ecif.trusted(dataset)) == 2
    assert len(ecif.cleaned(dataset)) == 2
    assert ecif.tag_misaligned(dataset, "ecif", threshold=0.0) == 58
    assert len(right.match_tags("misaligned")) == 0
    assert ecif.apply_suggestions(dataset, "ecif").unchanged["marked as fine"] == 2
    assert not set(right.values("id")) & set(ecif.to_review(dataset, "ecif").values("id"))


def test_a_label_keeps_everything_but_its_name(embedded_dataset, stored):
    label = fo.Classification(label="circle", confidence=0.7, tags=["checked"], annotator="x")
    embedded_dataset.add_dynamic_sample_fields()
    sample = embedded_dataset.first()
    sample["ground_truth"] = label
    sample.save()
    ecif.compute_influence(embedded_dataset, **(stored | dict(text_field="ground_truth")))
    embedded_dataset.set_field("ecif_suggestion", fo.Classification(label="hexagon", confidence=0.9).to_dict()).save()
    assert ecif.apply_suggestions(embedded_dataset[:1], "ecif").changed == 1
    now = embedded_dataset.first()["ground_truth"]
    assert (now.label, now.id, now.confidence, now.tags, now.annotator) == ("hexagon", label.id, 0.7, ["checked"], "x")
    assert sample["ground_truth"].label == "hexagon"  # samples in memory follow
    ecif.undo_fixes(embedded_dataset)
    assert embedded_dataset.first()["ground_truth"].label == "circle"


def test_texts_edited_by_hand_are_never_overwritten_by_an_undo(results):
    dataset = results.dataset
    ecif.apply_suggestions(dataset, "ecif")
    edited = dataset.match(F("planted")).first()
    edited["caption"] = "written by hand"
    edited.save()
    report = ecif.undo_fixes(dataset)
    assert (report.changed, report.unchanged) == (5, {"edited by hand since": 1})
    assert dataset[edited.id].caption == "written by hand"


def test_fixes_of_several_runs_are_taken_back_one_after_the_other(results, stored):
    dataset = results.dataset
    planted = dataset.match(F("planted"))
    texts = [planted.values("caption")]
    ecif.apply_suggestions(dataset, "ecif")
    texts.append(planted.values("caption"))
    ecif.compute_influence(dataset, **(stored | dict(run_key="second")))
    dataset.set_field("second_suggestion", fo.Classification(label="again", confidence=1.0).to_dict()).save()
    ecif.apply_suggestions(planted, "second")
    assert set(planted.values("caption")) == {"again"}
    for expected in reversed(texts):
        ecif.undo_fixes(dataset)
        assert planted.values("caption") == expected


def test_what_cannot_be_written_is_refused_with_the_reason(results):
    dataset = results.dataset
    field = dataset.get_field("caption")
    field.read_only = True
    field.save()
    with pytest.raises(ValueError, match="read-only"):
        ecif.apply_suggestions(dataset, "ecif")
    assert not dataset.has_field("caption_fixes")
    with pytest.raises(ValueError, match="no ECIF run 'other'"):
        ecif.apply_suggestions(dataset, "other")
    with pytest.raises(ValueError, match="probability"):
        ecif.tag_misaligned(dataset, "ecif", threshold=3)


def test_one_of_several_candidates_is_chosen(results):
    dataset = results.dataset
    one, other, *_ = ids = dataset.match(F("planted")).values("id")
    lists = {id: [fo.Classification(label=text, confidence=0.25) for text in ("x", f"of {id}")] for id in ids}
    candidates = {id: fo.Classifications(classifications=labels) for id, labels in lists.items()}
    dataset.set_values("ecif_candidates", candidates, key_field="id")
    before = dataset[other].caption
    report = ecif.choose_suggestion(dataset.select([one, other]), "ecif", f"of {one}", by="somebody")
    assert (report.changed, report.unchanged) == (1, {"without this candidate": 1})
    fixed = dataset[one]
    assert (fixed.caption, fixed["ecif_suggestion"].label) == (f"of {one}", f"of {one}")
    assert (fixed.caption_fixes[0].by, fixed.caption_fixes[0].confidence) == ("somebody", 0.25)
    assert dataset[other].caption == before
    assert ecif.undo_fixes(dataset).changed == 1 and dataset[one].caption != f"of {one}"
    dataset.delete_sample_field("ecif_candidates")
    with pytest.raises(ValueError, match="earlier versions"):
        ecif.choose_suggestion(dataset, "ecif", "x")


def test_suggestions_are_computed_where_the_run_stored_none(results):
    dataset = results.dataset
    dataset.set_field("ecif_suggestion", None).save()
    swapped = dataset.match(F("planted"))
    found = results.suggest(swapped)
    kind = {id: path.rsplit("/", 1)[1][3:-4].split("-") for id, path in zip(*swapped.values(["id", "filepath"]))}
    right = [all(word in found[id].label for word in kind[id]) for id in kind if id in found]
    assert len(right) >= 5 and sum(right) >= 5
    assert swapped.exists("ecif_suggestion").count() == len(found)
    assert results.suggest(swapped) == found  # now as stored


def test_a_runs_features_are_found_after_its_pairs_were_fixed(pair_dataset):
    """Otherwise the first accepted suggestion would end all questions about the run."""
    arguments = dict(model="ecif-tiny", rounds=1, batch_size=20, num_workers=0, progress=False)
    results = ecif.compute_influence(pair_dataset, "caption", **arguments)
    label = fo.Classification(label="quite another caption", confidence=1.0).to_dict()
    pair_dataset.set_field("ecif_suggestion", label).save()
    ids = results.pairs().ids
    ecif.apply_suggestions(pair_dataset[:3], "ecif")
    assert ecif.load_results(pair_dataset, "ecif").pairs().ids == ids
    assert results.estimate_removal(pair_dataset[:3], progress=False).removed == 3


@pytest.mark.parametrize("format", ["csv", "folders", "fiftyone"])
def test_the_cleaned_set_is_exported_whole(results, tmp_path, format):
    dataset = results.dataset
    dataset.match(F("planted")).tag_samples("misaligned")
    ecif.apply_suggestions(dataset, "ecif", min_confidence=0.7)  # mends two of the six
    folder = tmp_path / "clean"
    field = "ground_truth" if format == "folders" else "caption"
    assert ecif.export_cleaned(dataset, str(folder), format, field) == 56
    assert len([path for path in folder.rglob("*.png") if path.is_file()]) == 56
    if format == "csv":
        lines = (folder / "labels.csv").read_text().splitlines()
        assert sorted(lines[0].split(",")) == ["caption", "filepath"] and len(lines) == 57
    with pytest.raises(ValueError, match="choose another folder"):
        ecif.export_cleaned(dataset, str(folder), format, field)
    assert not (tmp_path / "clean.part").exists()


def test_suspects_above_a_threshold_are_left_out_of_the_cleaned_set(results):
    dataset = results.dataset
    suspects = results.misaligned(threshold=0.5)
    ecif.mark_as_fine(suspects[:1])
    assert len(ecif.cleaned(dataset, "ecif", 0.5)) == 61 - len(suspects)
    with pytest.raises(ValueError, match="go together"):
        ecif.cleaned(dataset, "ecif")
