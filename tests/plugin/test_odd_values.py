"""Whatever scripts, pages and the database bring: an operator is refused in words, and the panel stays as it was."""

import inspect

import fiftyone as fo
import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.results import InfluenceResults
from fiftyone_ecif.dataset.rows import read_rows
from fiftyone_ecif.plugin import NAME, OPERATORS
from fiftyone_ecif.plugin.jobs import STORE as JOBS
from fiftyone_ecif.plugin.jobs import JobRecord, running_jobs
from fiftyone_ecif.plugin.panel import view
from fiftyone_ecif.plugin.panel.choices import kept_forecast
from fiftyone_ecif.plugin.panel.panel import ENTRIES, KEPT, EcifPanel
from fiftyone_ecif.plugin.panel.tabs import TABS
from fiftyone_ecif.plugin.run_operator import RunOperator
from tests.support.headless_panel import Panel
from tests.support.operators import COMPUTE, JUNK, STORED, app_context, attempt

NOT_ASKED = ("self", "sample_collection", "delegate")
SWITCHES = ("features", "advanced", "overwrite", "view_target", "custom_view_target")
"""Parameters that forms have besides those of the scripts."""

HEAVY = ("estimate_removal", "forecast_removal", "verify_removal", "edited_checkpoint", "trace", "error_slices")


def registered(kind):
    return foo.get_operator(f"{NAME}/{kind.name}")


@pytest.fixture
def without_mathematics(monkeypatch):
    """The results' long computations do nothing: what matters is what reaches them."""
    for name in HEAVY:
        monkeypatch.setattr(InfluenceResults, name, lambda *args, **kwargs: None)
    monkeypatch.setattr("fiftyone_ecif.plugin.operators.removal.keep_forecast", lambda *args: None)
    monkeypatch.setattr(ecif, "find_failures", lambda *args, **kwargs: None)
    monkeypatch.setattr(ecif, "compute_influence", lambda samples, target, progress, **kwargs: None)


def values_for(kind, tmp_path):
    """Parameters with which an operator has something to do."""
    return {
        "compute_influence": {"text_field": "caption", "run_key": "new", **STORED},
        "export_cleaned": {"folder": str(tmp_path / "out")},
        "export_checkpoint": {"path": str(tmp_path / "out.pt")},
        "manage_runs": {"action": "rename", "new_run_key": "second"},
    }.get(kind.name, {})


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.name)
def test_odd_parameters_are_refused_in_words(scored_dataset, without_mathematics, tmp_path, kind):
    good = values_for(kind, tmp_path)
    names = [name for name in inspect.signature(kind.__call__).parameters if name not in NOT_ASKED]
    for name in (*names, *(SWITCHES if kind.name == "compute_influence" else ())):
        for junk in JUNK if len(names) < 8 else JUNK[::3]:
            attempt(registered(kind), scored_dataset, **good | {name: junk, "unknown": junk, "advanced": True})
    attempt(registered(kind), scored_dataset, view_target="CUSTOM_VIEW_TARGET", custom_view_target="junk")


@pytest.mark.parametrize("run_key", ["gone", 5, ["first"], "x" * 100_000])
@pytest.mark.parametrize("kind", [kind for kind in OPERATORS if issubclass(kind, RunOperator)])
def test_an_unknown_run_is_said(scored_dataset, without_mathematics, tmp_path, kind, run_key):
    assert attempt(registered(kind), scored_dataset, **values_for(kind, tmp_path) | {"run_key": run_key})


DELETED = list(FIELDS)


@pytest.mark.parametrize("gone", [*DELETED, "text field", "text field renamed", "embeddings", "run", "results"])
def test_what_was_deleted_is_said_in_forms_and_by_execution(scored_dataset, without_mathematics, tmp_path, gone):
    renamed = {"text field renamed": {"caption": "texts"}}.get(gone, {})
    deleted = {"text field": ["caption"], "embeddings": ["image_embedding"]}
    deleted |= {suffix: [f"first_{suffix}"] for suffix in DELETED}
    if renamed:
        scored_dataset.rename_sample_fields(renamed)
    elif gone == "run":
        ecif.delete_run(scored_dataset, "first")
    elif gone == "results":
        scored_dataset._doc.runs["first"].results.delete()
        scored_dataset.reload()
    else:
        scored_dataset.delete_sample_fields(deleted[gone])
    for kind in OPERATORS:
        error = attempt(registered(kind), scored_dataset, **values_for(kind, tmp_path) | {"min_confidence": 0.1})
        needs = {"tag_misaligned": "misalignment", "show_harmful": "value", "apply_suggestions": "suggestion"}
        needs["show_vague"] = "vagueness"
        assert error or needs.get(kind.name) != gone
    panel = Panel(scored_dataset)
    for tab in TABS:
        panel.event("choose_tab", value=tab.name)


@pytest.mark.parametrize("event", sorted(EcifPanel().events))
def test_an_event_with_odd_parameters_leaves_the_panel_as_it_was(scored_dataset, event):
    panel = Panel(scored_dataset)
    names = [entry.name for entry in ENTRIES]
    plain = ("next_page", "previous_page", "show_suspects", "show_harmful", "tag", "undo", "audit")
    without_parameters = event in plain
    for junk in (-1, "junk", {"$gt": ""}) if not without_parameters else (None,):
        before = {name: panel.state.get(name) for name in names}
        panel.event(event, value=junk, id=junk, data=junk, idx=junk, x=junk, trace_idx=junk if event == "" else 0)
        after = {name: panel.state.get(name) for name in names}
        if not without_parameters:
            assert after == before
        refused = panel.requests.get("notify", {}).get("variant") == "error"
        takes = event.startswith("choose_") or event in ("accept", "find", "fine", "reject", "cancel", "open_sample")
        assert refused or not takes
    assert "show_panel_output" in panel.event("refresh").requests or panel.requests == {}


@pytest.mark.parametrize("method", ["junk", "execute", "config", "__init__"])
def test_what_is_no_event_is_not_called(scored_dataset, method):
    assert "no event" in Panel(scored_dataset).event(method).requests["notify"]["message"]


def store(dataset, name):
    return app_context(COMPUTE, dataset).store(name)


@pytest.mark.parametrize("name", [*KEPT, None])
def test_a_choice_in_the_store_that_cannot_be_is_left_out(scored_dataset, name):
    sound = {key: value for key, value in Panel(scored_dataset).state.items() if key in KEPT}
    for junk in (-1, "junk", ["a"], None):
        store(scored_dataset, view.STORE).set("choices", junk if name is None else {name: junk, "else": junk})
        panel = Panel(scored_dataset)
        assert "histogram" in panel.shown or panel.state["tab"] != "suspects"
        found = {key: panel.state[key] for key in sound}
        if name not in ("truth", "trace"):  # any text may stand there: a field or a trace that may come
            assert found == sound
        panel.event("choose_tab", value="review").event("choose_tab", value="suspects")


def test_an_unknown_tab_in_a_pages_state_is_the_first(scored_dataset):
    panel = Panel(scored_dataset)
    panel.state |= {"tab": "unknown", "threshold": "junk", "page": -3}
    panel.event("refresh")
    assert (panel.state["tab"], panel.state["threshold"], panel.state["page"]) == ("suspects", 0.5, 0)


def test_other_records_in_the_store_that_cannot_be_are_none(scored_dataset):
    ctx = app_context(COMPUTE, scored_dataset)
    JobRecord(ctx.store, "Computing")
    panel = Panel(scored_dataset).event("show_suspects")
    for junk in (5, "junk", ["a"], {"title": 5}, {"title": 5, "label": [], "progress": "x"}, {"length": "x"}):
        store(scored_dataset, JOBS).set("job:junk", junk)
        store(scored_dataset, view.STORE).set("forecast:first", junk)
        store(scored_dataset, view.STORE).set(view.OWN, junk)
        assert [job.title for job in running_jobs(ctx)] == ["Computing"]
        assert kept_forecast(ctx, "first", scored_dataset) is None
        panel.event("refresh")
        Panel(scored_dataset).event("choose_tab", value="influence").event("choose_tab", value="suspects")


def test_captions_and_labels_that_are_no_texts_are_skipped_and_shown(scored_dataset, without_mathematics, tmp_path):
    samples, odd = scored_dataset._sample_collection, [5, 2.5, True, None, ["a"], {"a": 1}]
    ids = [sample["_id"] for sample in samples.find({}, {"_id": 1}).limit(len(odd))]
    for id, value in zip(ids, odd, strict=True):
        change = {"caption": value, "ground_truth.label": value, "first_suggestion": {"label": value, "_cls": "x"}}
        samples.update_one({"_id": id}, {"$set": change | {"first_misalignment": 1.0}})
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    assert len(panel.state["cards"]) == 4
    for kind in OPERATORS:
        attempt(registered(kind), scored_dataset, **values_for(kind, tmp_path))
    folders = {"folder": str(tmp_path / "folders"), "format": "folders", "text_field": "ground_truth"}
    assert "cannot name an image folder" in str(
        attempt(foo.get_operator(f"{NAME}/export_cleaned"), scored_dataset, **folders)
    )


@pytest.mark.parametrize("text_field", ["caption", "ground_truth"])
def test_raw_values_that_are_no_texts_are_skipped_with_their_reason(embedded_dataset, text_field):
    path = {"caption": "caption", "ground_truth": "ground_truth.label"}[text_field]
    ids = embedded_dataset.values("_id")[:4]
    for id, value in zip(ids, (5, True, ["a"], {"a": 1}), strict=True):
        embedded_dataset._sample_collection.update_one({"_id": id}, {"$set": {path: value}})
    assert read_rows(embedded_dataset, text_field).captions()[:4] == [5, True, ["a"], {"a": 1}]
    fields = {"image_embeddings": "image_embedding", "text_embeddings": "text_embedding"}
    results = ecif.compute_influence(
        embedded_dataset, text_field, run_key="odd", rounds=1, batch_size=20, progress=False, **fields
    )
    reasons = {results.skipped[str(id)] for id in ids}
    assert len(results.skipped) == 4 and all("is not a text but" in reason for reason in reasons)
    assert isinstance(fo.load_dataset(embedded_dataset.name), fo.Dataset)
