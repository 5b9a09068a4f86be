"""Rows are one snapshot: what is read together stays together."""

from datetime import datetime, timedelta, timezone

import fiftyone as fo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.rows import read_rows
from fiftyone_ecif.dataset.texts import before_fixes


def test_rows_hold_what_the_samples_hold_in_their_order(embedded_dataset):
    embedded_dataset.limit(2).tag_samples("trusted")
    view = embedded_dataset.sort_by("caption", reverse=True)
    rows = read_rows(view, "caption", image_embeddings="clip_image", text_embeddings="clip_text")
    assert rows.ids == view.values("id") and rows.filepaths == view.values("filepath")
    assert rows.texts == rows.captions() == view.values("caption") and not rows.labelled
    assert [list(vector) for vector in rows.image_embeddings] == [list(each) for each in view.values("clip_image")]
    trusted = set(embedded_dataset.match_tags("trusted").values("id"))
    assert {id for id, marked in zip(rows.ids, rows.trusted, strict=True) if marked} == trusted


def test_they_are_read_with_one_query(embedded_dataset, monkeypatch):
    asked = []
    plain = fo.Dataset.aggregate
    monkeypatch.setattr(
        fo.Dataset, "aggregate", lambda self, aggregations: asked.append(aggregations) or plain(self, aggregations)
    )
    read_rows(embedded_dataset, "caption", image_embeddings="clip_image", text_embeddings="clip_text")
    assert len(asked) == 1


def test_some_rows_are_taken_in_the_order_that_is_asked_for(embedded_dataset):
    rows = read_rows(embedded_dataset, "caption")
    some = rows.of([rows.ids[5], "not there", rows.ids[2]])
    assert some.ids == [rows.ids[5], rows.ids[2]] and some.texts == [rows.texts[5], rows.texts[2]]
    assert some.trusted == [False, False] and some.image_embeddings is None


def test_labels_go_into_one_template_each_and_always_the_same(pair_dataset):
    rows = read_rows(pair_dataset, "ground_truth", ["a {}", "one {}"])
    assert rows.labelled and rows.texts == pair_dataset.values("ground_truth.label")
    captions = rows.captions()
    assert {caption.split()[0] for caption in captions} == {"a", "one"}
    assert captions == read_rows(pair_dataset, "ground_truth", ["a {}", "one {}"]).captions()
    assert rows.of(rows.ids[:3]).captions() == captions[:3]
    assert read_rows(pair_dataset, "ground_truth").captions()[0].startswith("a photo of a ")
    with pytest.raises(ValueError, match=r"has no \{\}"):
        read_rows(pair_dataset, "ground_truth", ["a photo"])


def test_fixes_after_the_moment_are_undone_and_earlier_ones_kept(scored_dataset):
    def now():
        return datetime.now(timezone.utc).replace(tzinfo=None)

    first = read_rows(scored_dataset, "caption")
    before = now()
    ecif.apply_suggestions(scored_dataset, "first")
    fixed = read_rows(scored_dataset, "caption")
    assert fixed.texts != first.texts
    assert read_rows(scored_dataset, "caption", moment=before).texts == first.texts
    assert read_rows(scored_dataset, "caption", moment=now() + timedelta(seconds=1)).texts == fixed.texts


def test_times_with_and_without_a_zone_are_compared():
    """FiftyOne gives times with a zone where ``fo.config.timezone`` names one."""
    moment = datetime(2026, 1, 1, 12)
    later, earlier = (moment + timedelta(minutes=step) for step in (1, -1))
    aware = [time.replace(tzinfo=timezone.utc).astimezone(timezone(timedelta(hours=5))) for time in (earlier, later)]
    for times in ([earlier, later], aware):
        assert before_fixes("now", times, ["first", "second"], moment) == "second"
        assert before_fixes("now", times, ["first", "second"], moment.replace(tzinfo=timezone.utc)) == "second"
        assert before_fixes("now", times[:1], ["first"], moment) == "now"
    assert before_fixes("now", None, None, moment) == "now"
