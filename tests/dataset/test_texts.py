"""Tags, captions and labels are data: what looks like a field or an operator of MongoDB is none."""

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.repair import fixes

LIKE_MONGODBS = ["$", "$filepath", "$$NOW", "$caption", "{$gt: ''}"]


@pytest.mark.parametrize("tag", LIKE_MONGODBS)
def test_a_tag_may_look_like_a_field(scored_dataset, tag):
    tagged = scored_dataset.limit(7)
    tagged.tag_samples(tag)
    scored_dataset._sample_collection.update_one({"_id": scored_dataset.last()._id}, {"$set": {"tags": None}})
    assert f"tag:{tag}" in summary.truth_choices(scored_dataset)
    own = next(iter(summary.measured_precision(scored_dataset, "first", f"tag:{tag}").values()))
    assert own.wrong == 7
    scored_dataset.set_values("first_suggestion", [fo.Classification(label="new", confidence=1.0)] * 60)
    ecif.set_tags(scored_dataset, trusted=tag)
    assert len(fixes.applicable(scored_dataset, "first")) == 53
    ecif.set_tags(scored_dataset, trusted="trusted", misaligned=tag)
    assert ecif.apply_suggestions(scored_dataset, "first").changed == 60
    assert not scored_dataset.match_tags(tag)
    assert ecif.undo_fixes(scored_dataset).changed == 60
    assert tagged.values("tags") == [[tag]] * 7 and len(scored_dataset.match_tags(tag)) == 7


@pytest.mark.parametrize("text_field", ["caption", "ground_truth"])
def test_captions_and_labels_may_look_like_fields(embedded_dataset, stored, text_field):
    path = {"caption": "caption", "ground_truth": "ground_truth.label"}[text_field]
    texts = [LIKE_MONGODBS[row % len(LIKE_MONGODBS)] for row in range(60)]
    embedded_dataset.set_values(path, texts)
    results = ecif.compute_influence(embedded_dataset, run_key="odd", **stored | {"text_field": text_field})
    assert results.rows().texts == texts
    suggested = [fo.Classification(label=LIKE_MONGODBS[(row + 1) % 5], confidence=1.0) for row in range(60)]
    embedded_dataset.set_values("odd_suggestion", suggested)
    assert ecif.apply_suggestions(embedded_dataset, "odd").changed == 60
    assert embedded_dataset.values(path) == [label.label for label in suggested]
    assert [fix[0].before for fix in embedded_dataset.values(f"{text_field}_fixes")] == texts
    assert len(fixes.last_fixed(embedded_dataset)) == 60
    assert ecif.undo_fixes(embedded_dataset).changed == 60
    assert embedded_dataset.values(path) == texts


def test_a_suggestion_that_is_no_text_is_not_applied(scored_dataset):
    for id, label in zip(scored_dataset.values("_id")[:2], (5, {"$gt": ""}), strict=True):
        change = {"first_suggestion": {"_cls": "Classification", "label": label, "confidence": 1.0}}
        scored_dataset._sample_collection.update_one({"_id": id}, {"$set": change})
    before = scored_dataset.limit(2).values("caption")
    assert ecif.apply_suggestions(scored_dataset.limit(2), "first").unchanged == {"without a suggestion": 2}
    assert scored_dataset.limit(2).values("caption") == before
