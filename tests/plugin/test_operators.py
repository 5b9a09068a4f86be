"""Executing the operators: what changes in the dataset, and what the App is told to do."""

import json

import fiftyone.operators as foo
import fiftyone.operators.delegated as food
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.forms import notice
from tests.support.operators import (
    COMPUTE,
    RUNS,
    SHOW,
    STORED,
    STORED_FIELDS,
    app_context,
    requests_of,
    shown_ids,
    stream_to_app,
)


def execute_in_app(operator, dataset, **params):
    """The messages that the App's stream would carry."""
    return list(stream_to_app(operator, app_context(operator, dataset, **params)))


def test_compute_scores_the_pairs_and_shows_the_most_suspicious_first(embedded_dataset):
    result = foo.get_operator(COMPUTE)(embedded_dataset, "caption", run_key="mine", **STORED_FIELDS)
    assert ecif.list_runs(embedded_dataset) == ["mine"]
    requests = requests_of(result)
    assert list(requests) == [
        "reload_dataset", "set_view", "set_active_fields", "open_panel", "show_output", "notify",
    ]  # fmt: skip
    assert shown_ids(embedded_dataset, requests) == ecif.load_results(embedded_dataset, "mine").misaligned().values(
        "id"
    )
    assert requests["set_active_fields"]["fields"] == ["caption", "mine_misalignment", "mine_suggestion"]
    assert "60 pairs" in requests["notify"]["message"]


def test_compute_streams_named_steps_to_the_app(embedded_dataset):
    messages = execute_in_app(COMPUTE, embedded_dataset, text_field="caption", run_key="mine", **STORED)
    progress = [message["params"] for message in messages if message["operator_uri"] == "set_progress"]
    assert progress
    assert all(0 <= each["progress"] <= 1 and each["label"] for each in progress)
    assert messages[-1]["operator_uri"] == "notify"


def test_compute_hands_the_form_on_to_the_sdk(embedded_dataset, monkeypatch):
    calls = []
    embedded_dataset.limit(9).tag_samples("trusted")
    embedded_dataset.save_view("checked", embedded_dataset.limit(4))
    monkeypatch.setattr(ecif, "compute_influence", lambda samples, **arguments: calls.append((samples, arguments)))
    monkeypatch.setattr("fiftyone_ecif.plugin.operators.compute.show_results", lambda ctx, results: iter(()))
    compute = foo.get_operator(COMPUTE)

    compute(
        embedded_dataset.limit(30), "ground_truth", templates="a {}\n\nthe {} \n", target="tag:trusted", device="cpu"
    )
    samples, arguments = calls.pop()
    assert len(samples) == 21  # the trusted ones are not scored
    assert arguments["templates"] == ["a {}", "the {}"]
    assert len(arguments["target"]) == 9
    assert arguments["device"] == "cpu"
    assert arguments["num_workers"] == 0

    left_over = "a {}"  # from a label field chosen before
    compute(embedded_dataset, "caption", templates=left_over, target="view:checked", rounds=2, seed=5, **STORED_FIELDS)
    samples, arguments = calls.pop()
    assert len(samples) == 56
    assert len(arguments["target"]) == 4
    assert (arguments["rounds"], arguments["seed"], arguments["text_field"]) == (2, 5, "caption")
    assert {name: arguments[name] for name in STORED_FIELDS} == STORED_FIELDS
    assert not {"model", "templates"} & set(arguments)

    rest = dict(damping=0.1, batch_size=8, evidence=True)
    compute(embedded_dataset, "caption", model="ecif-tiny", target="cross_fitted", **rest)
    _, arguments = calls.pop()
    assert (arguments["model"], arguments["target"]) == ("ecif-tiny", None)
    assert {name: arguments[name] for name in rest} == rest


def test_compute_with_a_model_reads_the_images(pair_dataset):
    foo.get_operator(COMPUTE)(pair_dataset, "caption", run_key="random", model="ecif-tiny", batch_size=20, rounds=1)
    assert pair_dataset.count("random_misalignment") == 60


def test_a_failure_raises_in_scripts_and_speaks_plainly_in_the_app(embedded_dataset, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("the moon is full")

    monkeypatch.setattr(ecif, "compute_influence", fail)
    with pytest.raises(ExecutionError, match="the moon is full"):
        foo.get_operator(COMPUTE)(embedded_dataset, "caption", **STORED_FIELDS)
    *_, output, notification = execute_in_app(COMPUTE, embedded_dataset, text_field="caption", **STORED)
    assert "the moon is full" in json.dumps(output)
    assert notification["params"]["variant"] == "error"


def test_a_view_and_samples_that_change_during_a_run_do_no_harm(embedded_dataset, monkeypatch):
    embedded_dataset.set_values("kept", [row >= 6 for row in range(60)])
    view, compute = embedded_dataset.match({"kept": True}), ecif.compute_influence
    scored = view.values("id")
    deleted, left, edited = scored[:2], scored[2:5], scored[5]

    def meddled(samples, progress, **arguments):
        def meddle(step, done, total):  # as another page would, as soon as the run has begun
            embedded_dataset.delete_samples(deleted)
            embedded_dataset.select(left).set_field("kept", False).save()
            embedded_dataset.select(edited).set_field("caption", "another one").save()
            progress(step, done, total)

        return compute(samples, progress=meddle, **arguments)

    monkeypatch.setattr(ecif, "compute_influence", meddled)
    result = foo.get_operator(COMPUTE)(view, "caption", run_key="mine", **STORED_FIELDS)
    shown = shown_ids(embedded_dataset, requests_of(result))
    assert sorted(shown) == sorted(set(scored) - set(deleted))
    assert embedded_dataset.count("mine_value") == 52
    assert embedded_dataset[edited].caption == "another one"
    assert ecif.load_results(embedded_dataset, "mine").warnings is not None


def test_a_delegated_run_is_computed_by_the_worker(embedded_dataset):
    compute = foo.get_operator(COMPUTE)
    result = compute(embedded_dataset, "caption", run_key="later", delegate=True, **STORED_FIELDS)
    assert result.delegated
    assert ecif.list_runs(embedded_dataset) == []
    service = food.DelegatedOperationService()
    service.execute_queued_operations(dataset_name=embedded_dataset.name)
    operation = service.get(result.result["id"])
    assert operation.run_state == "completed", operation.result.error
    assert operation.status.label
    embedded_dataset.reload()
    assert ecif.list_runs(embedded_dataset) == ["later"]


def test_show_sets_the_view_and_the_fields(scored_dataset):
    result = foo.get_operator(SHOW)(scored_dataset, "first", limit=5)
    assert result.result == {"pairs": 5}
    requests = requests_of(result)
    expected = ecif.load_results(scored_dataset, "first").misaligned(limit=5)
    assert shown_ids(scored_dataset, requests) == expected.values("id")
    assert requests["set_active_fields"]["fields"] == ["caption", "first_misalignment", "first_suggestion"]
    middle = sorted(scored_dataset.values("first_misalignment"))[30]
    result = foo.get_operator(SHOW)(scored_dataset, threshold=middle)
    assert result.result == {"pairs": sum(value >= middle for value in scored_dataset.values("first_misalignment"))}


def test_manage_runs_shows_renames_and_deletes(scored_dataset):
    manage = foo.get_operator(RUNS)
    assert list(requests_of(manage(scored_dataset, "first"))) == ["set_view", "set_active_fields"]

    requests = requests_of(manage(scored_dataset, "first", action="rename", new_run_key="second"))
    assert list(requests) == ["clear_view", "reload_dataset", "notify"]
    assert ecif.list_runs(scored_dataset) == ["second"]
    assert scored_dataset.has_field("second_misalignment")
    assert not scored_dataset.has_field("first_misalignment")

    requests = requests_of(manage(scored_dataset, "second", action="delete"))
    assert list(requests) == ["clear_view", "reload_dataset", "notify"]
    assert ecif.list_runs(scored_dataset) == []
    assert not scored_dataset.has_field("second_misalignment")


def test_notices_escape_markdown():
    import fiftyone.operators.types as types

    inputs = types.Object()
    view = notice(inputs, "name", types.Warning, "a_b **c** [d](e) <f>\\").view
    assert view.label == r"a\_b \*\*c\*\* \[d\]\(e\) \<f\>\\"
