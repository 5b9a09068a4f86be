"""The operator that stops a running job."""

from __future__ import annotations

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Text
from fiftyone_ecif.plugin.forms import dropdown, given, notice, refuse
from fiftyone_ecif.plugin.jobs import cancel_job, running_jobs
from fiftyone_ecif.plugin.operator import EcifOperator


class CancelJob(EcifOperator):
    """Stops a job at its next step; the dataset stays as it was."""

    name = "cancel_job"
    label = "cancel a running job"
    description = "Stop a running job of ECIF, here or in a worker; the data stay as they were"
    icon = "cancel.svg"
    risk = "medium"
    submit = "Stop the job"

    def __call__(
        self, sample_collection: SampleCollection, job: str | None = None, delegate: bool = False
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset that the job works on
            job: its id; None: the first
            delegate: not supported, since the operator takes no time

        Returns:
            the result
        """
        return self.execute_on(sample_collection, delegate, job=job)

    def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
        """Ask which of the running jobs to stop."""
        jobs = {job.id: f"{job.title} ({job.label})" for job in running_jobs(ctx)}
        if jobs:
            inputs.enum("job", list(jobs), default=next(iter(jobs)), label="Job", view=dropdown(jobs))
            notice(inputs, "harmless", types.Notice, "The job stops at its next step.", "The data stay as they were.")
        else:
            refuse(inputs, "no_jobs", "No job is running on this dataset.")

    def execute(self, ctx: foo.ExecutionContext) -> None:
        """Leave a note that the job will find."""
        cancel_job(ctx, given(ctx, "job", Text()))
        ctx.ops.notify("ECIF: the job will stop at its next step", variant="info")
