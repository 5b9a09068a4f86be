"""What is not there is said: nothing is concluded from a score field that somebody deleted."""

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import summary

GONE = "Field 'first_{}' was deleted: compute run 'first' again"

ASKS = {
    "export": (
        "misalignment",
        lambda ds, path: ecif.export_cleaned(ds, str(path / "out"), "csv", "caption", True, "first", 0.5),
    ),
    "cleaned": ("misalignment", lambda ds, path: ecif.cleaned(ds, "first", 0.5)),
    "tag": ("misalignment", lambda ds, path: ecif.tag_misaligned(ds, "first")),
    "review": ("misalignment", lambda ds, path: ecif.to_review(ds, "first")),
    "misaligned": ("misalignment", lambda ds, path: ecif.load_results(ds, "first").misaligned()),
    "threshold": ("misalignment", lambda ds, path: ecif.load_results(ds, "first").suggested_threshold()),
    "harmful": ("value", lambda ds, path: ecif.load_results(ds, "first").harmful()),
    "valuable": ("value", lambda ds, path: ecif.load_results(ds, "first").valuable()),
    "forecast": ("value", lambda ds, path: ecif.load_results(ds, "first").forecast_removal(progress=False)),
    "apply": ("suggestion", lambda ds, path: ecif.apply_suggestions(ds, "first")),
    "suspicion": ("misalignment", lambda ds, path: summary.suspicion(ds, "first", 0.5)),
    "sureness": ("value_std", lambda ds, path: summary.sureness(ds, "first")),
    "curve": ("value", lambda ds, path: summary.value_curve(ds, "first")),
    "roles": ("value_negative", lambda ds, path: summary.roles_sample(ds, "first", 10)),
}


@pytest.mark.parametrize("name", ASKS)
def test_a_deleted_score_field_is_said(scored_dataset, tmp_path, name):
    suffix, ask = ASKS[name]
    scored_dataset.delete_sample_field(f"first_{suffix}")
    with pytest.raises(ValueError) as error:
        ask(scored_dataset, tmp_path)
    assert GONE.format(suffix) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_view_that_asks_for_a_deleted_score_is_refused_where_it_would_find_nothing_or_all(scored_dataset, tmp_path):
    results = ecif.load_results(scored_dataset, "first")
    least = scored_dataset.match(F("first_misalignment") < 0.5)  # everything, once the field is gone
    views = {"sorted": results.misaligned(), "least": least, "matched": scored_dataset.match({"first_misalignment": 0})}
    for name, view in views.items():
        scored_dataset.save_view(name, view)
    scored_dataset.delete_sample_field("first_misalignment")
    for name in views:
        view = scored_dataset.load_saved_view(name)
        for ask in (
            lambda: ecif.compute_influence(view, "caption", progress=False),  # noqa: B023
            lambda: ecif.cleaned(view),  # noqa: B023
            lambda: ecif.export_cleaned(view, str(tmp_path / "out"), "csv", "caption"),  # noqa: B023
            lambda: ecif.find_failures(view, "first", progress=False),  # noqa: B023
            lambda: results.estimate_removal(view, progress=False),  # noqa: B023
            lambda: ecif.apply_suggestions(view, "first"),  # noqa: B023
        ):
            with pytest.raises(ValueError, match="asks for the field 'first_misalignment', which was deleted"):
                ask()
    assert not list(tmp_path.iterdir())
    assert len(ecif.cleaned(scored_dataset.match(F("caption") != "first_gone_value").sort_by("first_value"))) == 60


@pytest.mark.parametrize("kind", [fo.StringField, fo.FloatField, fo.ListField])
def test_a_field_of_the_users_that_is_named_like_a_record_of_fixes_stays_as_it_is(scored_dataset, kind):
    scored_dataset.add_sample_field("caption_fixes", kind)
    values = {fo.StringField: "mine", fo.FloatField: 1.0, fo.ListField: ["mine"]}[kind]
    scored_dataset.set_values("caption_fixes", [values] * 60)
    captions = scored_dataset.values("caption")
    assert len(ecif.to_review(scored_dataset, "first")) == 60
    assert ecif.fixed(scored_dataset).values("id") == []
    assert ecif.undo_fixes(scored_dataset).changed == 0
    with pytest.raises(ValueError, match="a field 'caption_fixes' that is no record of fixes"):
        ecif.apply_suggestions(scored_dataset, "first")
    assert scored_dataset.values("caption") == captions
    assert scored_dataset.values("caption_fixes") == [values] * 60
    results = ecif.load_results(scored_dataset, "first")
    assert results.rows().texts == captions
