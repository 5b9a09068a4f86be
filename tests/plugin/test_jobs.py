"""Running jobs: every page sees them, and each can be cancelled by itself."""

import itertools
import json
import threading
import time

import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.background import BackgroundJob, Cancelled
from fiftyone_ecif.plugin.jobs import running_jobs
from tests.support.headless_panel import Panel
from tests.support.operators import COMPUTE, STORED, app_context, stream_to_app

CANCEL = "@ecif/ecif/cancel_job"


@pytest.fixture
def start_job(monkeypatch):
    """``start_job(dataset, run_key)``: a job that ends only when it is cancelled, as its context and its messages."""

    def never_ending(samples, progress, **arguments):
        for done in itertools.count():
            progress("Fit", done, done + 1)
            time.sleep(0.001)

    def start_job(dataset, run_key):
        ctx = app_context(COMPUTE, dataset, **STORED, run_key=run_key)
        messages = stream_to_app(COMPUTE, ctx)
        next(messages)
        return ctx, messages

    monkeypatch.setattr(ecif, "compute_influence", never_ending)
    return start_job


def test_work_nobody_waits_for_is_cancelled():
    reported, ended = threading.Event(), threading.Event()

    def work(progress):
        try:
            while True:
                progress("step", 1, 2)
                reported.set()
        finally:
            ended.set()

    job = BackgroundJob(work)
    assert reported.wait(10)
    updates = job.updates(interval=0.01)
    assert next(updates) == ("step", 1, 2)
    updates.close()  # as the App's server does when its page is gone
    assert ended.wait(10)
    with pytest.raises(Cancelled):
        job.result()


def test_a_running_job_is_listed_and_stops_when_it_is_cancelled(embedded_dataset, start_job):
    """As from another page: the job's stream is read while the cancelling operator runs."""
    ctx, messages = start_job(embedded_dataset, "mine")
    (job,) = running_jobs(ctx)
    assert "mine" in job.title
    foo.get_operator(CANCEL)(embedded_dataset)
    *_, output, notification = messages
    assert "Nothing was changed" in json.dumps(output)
    assert "was cancelled" in notification["params"]["message"]
    assert running_jobs(ctx) == []


def test_two_jobs_of_one_dataset_are_listed_and_cancelled_separately(scored_dataset, resolve_form, start_job):
    ctx, first = start_job(scored_dataset, "one")
    _, second = start_job(scored_dataset, "two")
    ids = {job.title: job.id for job in running_jobs(ctx)}
    one, two = (next(id for title, id in ids.items() if f"“{key}”" in title) for key in ("one", "two"))
    assert set(resolve_form(CANCEL, scored_dataset)["job"].type.values) == {one, two}
    panel = Panel(scored_dataset)
    assert {job["id"] for job in panel.state["jobs"]} == {one, two}
    assert {"job_0", "job_1"} <= set(panel.shown)

    panel.event("cancel", id=two)
    assert {next(first)["operator_uri"] for _ in range(3)} == {"set_progress"}  # it goes on while the other one stops
    *_, notification = second
    assert "“two” was cancelled" in notification["params"]["message"]
    assert [job.id for job in running_jobs(ctx)] == [one]

    foo.get_operator(CANCEL)(scored_dataset, job=one)
    *_, notification = first
    assert "“one” was cancelled" in notification["params"]["message"]
    assert running_jobs(ctx) == []
