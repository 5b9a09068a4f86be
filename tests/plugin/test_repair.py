"""Each operator does what the SDK's call does, with the same parameters, and says in numbers what it did."""

import inspect

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone import ViewField as F
from fiftyone.operators.executor import ExecutionError

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin import NAME, OPERATORS
from fiftyone_ecif.plugin.forms import counted, duration, escaped
from tests.support.operators import refusals, requests_of, shown_ids


def operator(name):
    return foo.get_operator(f"{NAME}/{name}")


@pytest.fixture
def suspects(scored_dataset):
    """Three pairs of the run "first" with suggestions of rising confidence."""
    view = scored_dataset.match(F("planted")).limit(3)
    scored_dataset.set_field("first_suggestion", None).save()
    labels = [fo.Classification(label=f"better {n}", confidence=0.3 * n + 0.01) for n in (1, 2, 3)]
    scored_dataset.set_values("first_suggestion", dict(zip(view.values("id"), labels)), key_field="id")
    return view


REVEALED = {
    "compute_influence": [
        {"advanced": True, "text_field": "ground_truth", "run_key": "first"},
        {"features": "embeddings"},
        {"model": "hf-hub:somebody/some-model"},
    ],
    "build_preferences": [{"image_weakened": True}, {"suspects_run": "first", "run_key": "first"}],
    "compute_shift": [{"advanced": True, "run_key": "first"}, {"features": "embeddings"}],
    "manage_runs": [{"action": "rename"}],
    "export_cleaned": [{"run_key": "first"}],
}
"""What to choose in a form so that it asks for all it can ask for."""


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.name)
def test_what_a_script_can_pass_the_form_asks_for_under_the_same_name(resolve_form, scored_dataset, suspects, kind):
    ecif.apply_suggestions(suspects[:1], "first")
    scored_dataset.limit(1).tag_samples("reference")
    if kind.name == "export_preferences":
        ecif.build_preferences(scored_dataset, chosen_field="caption", negatives=("fixed",), progress=False)
    if kind.name == "verify_trace":
        ecif.load_results(scored_dataset, "first").trace(suspects.first().id, k=3)
    parameters = set(inspect.signature(kind.__call__).parameters) - {"self", "sample_collection", "delegate"}
    asked = set()
    for choices in REVEALED.get(kind.name, [{}]):
        asked |= set(resolve_form(f"{NAME}/{kind.name}", scored_dataset, **choices))
    without = {"no_jobs": "job", "no_model": "path"}  # this run has no running job and no model
    assert parameters <= asked | {without[name] for name in asked & set(without)}


@pytest.mark.parametrize("name", ["show_harmful", "show_valuable"])
def test_harmful_and_valuable_pairs_are_shown_in_order(scored_dataset, name):
    scored_dataset.set_values("first_value", [number - 30.5 for number in range(60)])
    result = operator(name)(scored_dataset, limit=4)
    requests = requests_of(result)
    method = getattr(ecif.load_results(scored_dataset, "first"), name.removeprefix("show_"))
    assert shown_ids(scored_dataset, requests) == method(limit=4).values("id")
    assert "first_value" in requests["set_active_fields"]["fields"]


def test_suggestions_are_applied_and_undone(scored_dataset, suspects):
    before = suspects.values("caption")
    result = operator("apply_suggestions")(suspects, "first", min_confidence=0.5)
    assert result.result == {"changed": 2, "unchanged": {"less confident": 1}}
    assert suspects.values("caption") == [before[0], "better 2", "better 3"]
    result = operator("undo_fixes")(scored_dataset)
    assert result.result["changed"] == 2
    assert suspects.values("caption") == before


def test_only_sure_suggestions_are_applied_unless_others_are_asked_for(resolve_form, scored_dataset, suspects):
    before = suspects.values("caption")
    inputs = resolve_form(f"{NAME}/apply_suggestions", scored_dataset)
    assert inputs["min_confidence"].default == 0.9
    counts, words = (text.replace("\\", "") for text in (inputs["count"].view.label, inputs["count"].view.description))
    assert counts == "1 sample will change"
    assert "1 from 0.9, 1 from 0.75, 2 from 0.5, 3 from 0.25, 3 suggestions in all" in words and "undo fixes" in words
    refused = refusals(resolve_form(f"{NAME}/apply_suggestions", scored_dataset, min_confidence=0.95))["count"]
    assert "1 from 0.9, 1 from 0.75" in refused
    result = operator("apply_suggestions")(scored_dataset, "first")
    assert result.result["changed"] == 1 and "undo fixes" in requests_of(result)["notify"]["message"]
    assert suspects.values("caption") == [*before[:2], "better 3"]


def test_pairs_are_drawn_for_an_audit_and_recalibrate(resolve_form, scored_dataset):
    inputs = resolve_form(f"{NAME}/recalibrate", scored_dataset)
    assert inputs["found"].invalid and "audit_sample" in inputs["found"].error_message
    result = operator("audit_sample")(scored_dataset, "first", size=10, stratified=False)
    assert result.result == {"pairs": 10}
    drawn = shown_ids(scored_dataset, requests_of(result))
    assert len(drawn) == 10 and set(scored_dataset.values("first_audit.stratum")) == {0, None}
    ecif.reject(scored_dataset.select(drawn[0]))
    ecif.mark_as_fine(scored_dataset.select(drawn[1:]))
    inputs = resolve_form(f"{NAME}/recalibrate", scored_dataset)
    assert "Judged 10 pairs, 1 of them wrong" in inputs["found"].view.label.replace("\\", "")
    result = operator("recalibrate")(scored_dataset, "first").result
    assert (result["answered"], result["wrong"], result["rate"]) == (10, 1, pytest.approx(0.1))


def test_the_form_previews_the_changes_as_plain_cells(resolve_form, scored_dataset, suspects):
    inputs = resolve_form(f"{NAME}/apply_suggestions", scored_dataset, min_confidence=0)
    assert [row["after"][:8] for row in inputs["changes"].default] == ["better 3", "better 2", "better 1"]
    assert "3 samples will change" in inputs["count"].view.label
    inputs = resolve_form(f"{NAME}/apply_suggestions", scored_dataset, min_confidence=1.0)
    assert list(refusals(inputs)) == ["count"]
    field = scored_dataset.get_field("caption")
    field.read_only = True
    field.save()
    assert "read-only" in refusals(resolve_form(f"{NAME}/apply_suggestions", scored_dataset))["not_writable"]


def test_one_thing_is_not_counted_as_several(resolve_form, scored_dataset, suspects):
    worst = scored_dataset.sort_by("first_misalignment", reverse=True)[:1]
    assert resolve_form(f"{NAME}/mark_as_fine", worst)["count"].view.label.startswith("1 pair will")
    threshold = worst.first()["first_misalignment"]
    requests = requests_of(operator("tag_misaligned")(worst, "first", threshold=threshold))
    assert requests["notify"]["message"] == "Tagged 1 pair as misaligned"
    assert (counted(1, "pair"), counted(0, "pair"), counted(1200, "slice")) == ("1 pair", "0 pairs", "1,200 slices")


def test_the_export_form_says_what_it_leaves_out(resolve_form, scored_dataset, suspects, tmp_path):
    inputs = resolve_form(f"{NAME}/export_cleaned", scored_dataset)
    chosen = inputs["run_key"].default
    assert chosen and chosen in [choice.value for choice in inputs["run_key"].view.choices]  # an empty one looks empty
    result = operator("export_cleaned")(scored_dataset, str(tmp_path / "clean"), run_key=chosen, text_field="caption")
    assert result.result == {"exported": 60}


def test_pairs_are_tagged_and_marked_as_fine(resolve_form, scored_dataset, suspects):
    threshold = min(suspects.values("first_misalignment"))
    expected = len(scored_dataset.match(F("first_misalignment") >= threshold))
    assert operator("tag_misaligned")(scored_dataset, threshold=threshold).result == {"tagged": expected}
    assert operator("mark_as_fine")(suspects).result == {"marked": 3}
    assert len(scored_dataset.match_tags("misaligned")) == expected - 3
    assert list(refusals(resolve_form(f"{NAME}/tag_misaligned", scored_dataset, threshold=7))) == ["threshold"]


@pytest.mark.parametrize("name", ["estimate_removal", "verify_removal"])
def test_the_effect_of_removing_pairs_is_shown(scored_dataset, suspects, name):
    requests = requests_of(operator(name)(suspects, "first"))
    rows = {row["figure"]: row for row in requests["show_output"]["results"]["figures"]}
    effect = getattr(ecif.load_results(scored_dataset, "first"), name)(suspects, progress=False)
    predicted, error = rows["Target loss (nats)"]["predicted"].split(" ± ")
    assert float(predicted) == pytest.approx(effect.predicted["target_loss"], abs=float(error) / 10)
    assert float(error) == pytest.approx(2 * effect.standard_error["target_loss"], rel=0.1)
    assert ("measured" in rows["Target loss (nats)"]) == (name == "verify_removal")


def test_a_refit_is_compared_with_the_runs_own(resolve_form, suspects):
    took = ecif.load_results(suspects._dataset, "first").timings["fit"]
    words = f"This takes about as long as the run's step “fit”, which took {duration(took)}."
    assert resolve_form(f"{NAME}/verify_removal", suspects)["cost"].view.label == escaped(words)


def test_removals_that_make_no_sense_are_refused(resolve_form, scored_dataset):
    form = f"{NAME}/estimate_removal"
    assert "all the pairs" in refusals(resolve_form(form, scored_dataset))["count"]
    form = f"{NAME}/export_checkpoint"
    assert "stored embeddings" in refusals(resolve_form(form, scored_dataset.limit(3)))["no_model"]


def test_the_cleaned_set_is_exported(scored_dataset, suspects, tmp_path, resolve_form):
    operator("tag_misaligned")(suspects, threshold=0.0)
    folder = str(tmp_path / "clean")
    assert operator("export_cleaned")(scored_dataset, folder, text_field="caption").result == {"exported": 57}
    with pytest.raises(ExecutionError, match="choose another folder"):
        operator("export_cleaned")(scored_dataset, folder)
    inputs = resolve_form(f"{NAME}/export_cleaned", scored_dataset, run_key="first", threshold=0.0)
    assert list(refusals(inputs)) == ["count"]


def test_an_edited_checkpoint_is_exported(pair_dataset, tmp_path):
    import torch

    from fiftyone_ecif.models import load_model

    torch.manual_seed(0)
    load_model("ecif-tiny").save_checkpoint(tmp_path / "base.pt")
    ecif.compute_influence(
        pair_dataset, "caption", model="ecif-tiny", pretrained=str(tmp_path / "base.pt"), rounds=2, batch_size=20,
        num_workers=0, progress=False,
    )  # fmt: skip
    with pytest.raises(ExecutionError, match="must end in"):
        operator("export_checkpoint")(pair_dataset.limit(3), str(tmp_path / "edited.txt"))
    operator("export_checkpoint")(pair_dataset.limit(3), str(tmp_path / "edited.pt"))
    assert (tmp_path / "edited.pt").is_file()
