"""Pairs drawn for an audit, the verdicts on them, and what a run makes of these."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif


def judge(view):
    """The verdicts of somebody who knows which captions were swapped."""
    wrong = view.match(F("planted"))
    ecif.reject(wrong)
    ecif.mark_as_fine(view.match(~F("planted")))
    return len(wrong)


def test_a_draw_is_kept_and_extended_and_its_pairs_stand_for_all(scored_dataset):
    first = ecif.audit_sample(scored_dataset, "first", 10).values("id")
    large = ecif.audit_sample(scored_dataset, "first", 25)
    second = large.values("id")
    assert len(second) == 25 and set(second) == set(scored_dataset.exists("first_audit").values("id"))
    assert sum(large.values("first_audit.weight")) == pytest.approx(60)
    again = ecif.audit_sample(scored_dataset, "first", 10).values("id")
    assert again == [id for id in second if id in again] and len(again) == 10  # a larger draw holds the smaller one
    assert first == again
    assert len(ecif.audit_sample(scored_dataset.limit(7), "first", 40)) == 7
    assert set(ecif.audit_sample(scored_dataset, "first", 9, stratified=False).values("first_audit.stratum")) == {0}


def test_an_audit_of_all_pairs_counts_the_wrong_ones(scored_dataset):
    wrong = judge(ecif.audit_sample(scored_dataset, "first", 60))
    found = ecif.load_results(scored_dataset, "first").audit()
    assert (found.answered, found.wrong, found.rate) == (60, wrong, pytest.approx(wrong / 60))
    assert found.low == found.high == found.rate


def test_each_kind_of_verdict_counts_and_those_taken_back_do_not(scored_dataset):
    results = ecif.load_results(scored_dataset, "first")
    with pytest.raises(ValueError, match=r"ecif\.audit_sample"):
        results.audit()
    drawn = ecif.audit_sample(scored_dataset, "first", 20, stratified=False)
    with pytest.raises(ValueError, match="None of the drawn pairs has been judged"):
        results.audit()
    fixed, rejected, empty, fine = drawn.values("id")[:4]
    scored_dataset.set_values("first_suggestion", {fixed: fo.Classification(label="x", confidence=1.0)}, key_field="id")
    ecif.apply_suggestions(scored_dataset.select(fixed), "first")
    ecif.mark_as_fine(scored_dataset.select(fixed))  # as it is now; it was wrong
    ecif.reject(scored_dataset.select(rejected))
    ecif.mark_as_empty(scored_dataset.select(empty))
    ecif.mark_as_fine(scored_dataset.select(fine))
    outside = set(scored_dataset.values("id")) - set(drawn.values("id"))
    ecif.reject(scored_dataset.select(list(outside)))  # a suspect that nobody drew says nothing of the others
    found = results.audit()
    assert (found.answered, found.wrong, found.rate) == (4, 2, 0.5)
    assert found.low < 0.5 < found.high
    ecif.undo_fixes(scored_dataset.select(fixed))
    scored_dataset.select(rejected).untag_samples("rejected")
    assert (results.audit().answered, results.audit().wrong) == (3, 0)


def test_recalibrated_probabilities_keep_their_order_and_are_written_whole(scored_dataset):
    results = ecif.load_results(scored_dataset, "first")
    before, health = np.array(scored_dataset.values("first_misalignment")), results.health
    judge(ecif.audit_sample(scored_dataset, "first", 40))
    found = results.recalibrate()
    after = np.array(scored_dataset.values("first_misalignment"))
    assert (np.diff(after[np.argsort(before)]) >= 0).all() and np.abs(after - before).max() > 0.01
    assert abs(after.mean() - scored_dataset.match(F("planted")).count() / 60) < abs(before.mean() - 0.2) + 0.02
    scored_dataset.clear_cache()
    written = ecif.load_results(scored_dataset, "first")
    assert written.health["noise_rate"] == pytest.approx(after.mean())
    low, high = written.health["noise_interval"]
    assert low == min(found.low, after.mean()) and high == max(found.high, after.mean())
    assert written.health["audit"]["rate"] == found.rate and written.health["audit"]["slope"] > 0
    assert written.health["pairs"] == health["pairs"] and written.warnings == results.warnings
    results.recalibrate()  # from the probabilities as they were computed
    assert np.array(scored_dataset.values("first_misalignment")) == pytest.approx(after)


def test_a_deleted_or_renamed_run_takes_its_draw_with_it(scored_dataset):
    judge(ecif.audit_sample(scored_dataset, "first", 10))
    ecif.load_results(scored_dataset, "first").recalibrate()
    ecif.rename_run(scored_dataset, "first", "second")
    assert ecif.load_results(scored_dataset, "second").audit().answered == 10
    ecif.delete_run(scored_dataset, "second")
    assert not scored_dataset.has_sample_field("second_audit")


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [("size", 0, "size"), ("size", 2.5, "size"), ("stratified", "no", "stratified"), ("run_key", "x", "no ECIF")],
)
def test_what_cannot_be_drawn_is_refused(scored_dataset, argument, value, words):
    with pytest.raises(ValueError, match=words):
        ecif.audit_sample(scored_dataset, **({"run_key": "first"} | {argument: value}))


def test_a_review_of_the_draw_shows_what_waits_for_a_verdict_in_random_order(scored_dataset):
    with pytest.raises(ValueError, match=r"ecif\.audit_sample"):
        ecif.to_review(scored_dataset, "first", "audit")
    drawn = ecif.audit_sample(scored_dataset, "first", 12).values("id")
    ecif.mark_as_fine(scored_dataset.select(drawn[3]))
    assert ecif.to_review(scored_dataset, "first", "audit").values("id") == drawn[:3] + drawn[4:]
