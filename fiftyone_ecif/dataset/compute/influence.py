"""From a data set to scores on its samples, in five steps: read, embed, detect, attribute, record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import check_enough, compute
from fiftyone_ecif.dataset.checks import check_collection, check_run_key
from fiftyone_ecif.dataset.compute.detect import detect
from fiftyone_ecif.dataset.compute.embed import embed, read
from fiftyone_ecif.dataset.compute.record import Computed, record
from fiftyone_ecif.dataset.compute.request import RunRequest
from fiftyone_ecif.dataset.compute.signature import takes
from fiftyone_ecif.dataset.device import device_here, if_here
from fiftyone_ecif.dataset.parameters import DEFAULT_MODEL
from fiftyone_ecif.dataset.progress import ProgressChoice, reporting
from fiftyone_ecif.dataset.results import InfluenceResults, load_results
from fiftyone_ecif.dataset.run.writing import claimed
from fiftyone_ecif.engine import check_engine, engine_workers
from fiftyone_ecif.models import ContrastiveModel
from fiftyone_ecif.notes import collecting_notes, warn


@takes(RunRequest, "samples")
def compute_influence(samples: SampleCollection, request: RunRequest) -> InfluenceResults:  # noqa: D417 - put in below
    """Score every image-text pair by what removing it would do to a target loss, and by how likely it is misaligned.

    Writes the sample fields of :data:`~fiftyone_ecif.dataset.fields.SCORE_FIELDS` and registers a FiftyOne custom run.
    A run that fails or is interrupted leaves the dataset as it was.

    Args:
        samples: Dataset or view with the training pairs
        {parameters}

    Returns:
        :class:`~fiftyone_ecif.dataset.results.InfluenceResults`

    Raises:
        ValueError: for anything that cannot work, before anything is computed where it can be known
    """
    return run(samples, request)


def refresh_run(
    dataset: SampleCollection,
    run_key: str = "ecif",
    progress: ProgressChoice = None,
    model: ContrastiveModel | None = None,
) -> InfluenceResults:
    """Compute a run again as its samples are now, as it was asked for; only what changed is embedded.

    Deleted samples are left out, and the run's kept traces are forgotten: they speak of what was.

    Args:
        dataset: a Dataset or view
        run_key: the run's key
        progress: as in :func:`compute_influence`
        model: the run's, where it was made in memory; None to load it again

    Returns:
        the run that replaces it

    Raises:
        ValueError: if there is no such run, or its model's weights or its target's dataset are gone
    """
    results = load_results(dataset, run_key)
    if model is not None:
        results.use_model(model)
    used = DEFAULT_MODEL[0] if results.config.model is None else results.model()
    device = if_here(results.config.engine, results.config.device)
    more = dict(target=results.target_samples, run_key=run_key, model=used, overwrite=True, progress=progress)
    return run(results.samples, RunRequest.again(results.config, device=device, **more))


def run(samples: SampleCollection, request: RunRequest) -> InfluenceResults:
    """Compute what is asked for: one snapshot of the samples is read, and everything else stands on it.

    Args:
        samples: Dataset or view with the training pairs
        request: what is asked for

    Returns:
        :class:`~fiftyone_ecif.dataset.results.InfluenceResults`

    Raises:
        ValueError: for anything that cannot work
    """
    check_collection(samples)
    with claimed(samples._dataset, request.run_key), reporting(request.progress) as report:
        device, settings, timings = check_request(samples, request), request.settings(), Timings()
        with timings.of("total"), collecting_notes() as said:
            taken = read(samples, request)
            with engine_workers(request.engine, request.num_workers, request.device) as workers:
                with timings.of("embed"):
                    embedded = embed(taken, request, device, report, workers)
                check_enough(embedded.attributed)
                with timings.of("misalignment"):
                    judged = detect(embedded, request, device, report)
                outcome = compute(
                    embedded.attributed, embedded.source.loss, settings, device, report, workers,
                    believed=judged.believed,
                )  # fmt: skip
            timings.seconds.update(outcome.timings)
        computed = Computed(taken, embedded, outcome, judged)
        notes = [*said, *computed.notes(samples, request)]
        for each in notes:
            warn(each)
        report("Write", 0, 1)
        record(samples, request, device, computed, notes, timings.seconds)
        report("Write", 1, 1)
    return load_results(samples._dataset, request.run_key)


class Timings:
    """Seconds per step, by the clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Take the block's time."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start


def check_request(samples: SampleCollection, request: RunRequest) -> str:
    """Refuse what cannot work, as far as it can be known; returns the device that this process computes on.

    Raises:
        ValueError: with the reason and what to do
    """
    if request.target is not None:
        check_collection(request.target, "target")
    check_run_key(samples, request.run_key, request.overwrite)
    check_engine(request.engine, request.num_workers, request.device)
    return device_here(request.engine, request.device)
