"""From views of a data set to the shift between them, in five steps: read, embed, estimate, assess, record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.arguments import Samples
from fiftyone_ecif.dataset.checks import check_run_key
from fiftyone_ecif.dataset.compute.influence import Timings
from fiftyone_ecif.dataset.compute.signature import takes
from fiftyone_ecif.dataset.fields import SHIFT_METHOD
from fiftyone_ecif.dataset.progress import reporting
from fiftyone_ecif.dataset.run.writing import claimed
from fiftyone_ecif.dataset.shift.embed import Source, embed, encoders, side_of
from fiftyone_ecif.dataset.shift.estimate import Judge, judge
from fiftyone_ecif.dataset.shift.notes import notes_on
from fiftyone_ecif.dataset.shift.read import named_sets, read
from fiftyone_ecif.dataset.shift.record import Computed, record
from fiftyone_ecif.dataset.shift.request import ShiftRequest
from fiftyone_ecif.dataset.shift.results import REFERENCE, ShiftResults, load_shift
from fiftyone_ecif.notes import collecting_notes, warn
from fiftyone_ecif.shift import Assessment, Plan, assess


@takes(ShiftRequest, "reference_view", "other_view")
def compute_shift(  # noqa: D417 - put in below
    reference_view: SampleCollection,
    other_view: SampleCollection | Mapping[str, SampleCollection],
    request: ShiftRequest,
) -> ShiftResults:
    """How far other sets of samples are from a reference set, which samples carry the shift, and what it may cost.

    Writes the sample fields of :data:`~fiftyone_ecif.dataset.fields.SHIFT_FIELDS` and registers a FiftyOne custom run.
    docs/shift.md says what each number means. A run that fails or is interrupted leaves the dataset as it was.

    Args:
        reference_view: Dataset or view of what the model was trained on, or serves well
        other_view: Dataset or view that is compared with it, of the same dataset; or a dictionary of views by the names
            of their scenarios
        {parameters}

    Returns:
        :class:`~fiftyone_ecif.dataset.shift.results.ShiftResults`

    Raises:
        ValueError: for anything that cannot work, before anything is computed where it can be known
    """
    Samples()("reference_view", reference_view)
    sets = named_sets(reference_view, other_view)
    dataset, timings = reference_view._dataset, Timings()
    with claimed(dataset, request.run_key), reporting(request.progress) as report:
        check_run_key(dataset, request.run_key, request.overwrite, SHIFT_METHOD)
        with timings.of("total"), collecting_notes() as said:
            taken = read(sets, request.text_fields, request.vectors)
            with timings.of("embed"):
                used = encoders(request)
                sources = embed(taken, request.roles, used, report)
            with timings.of("estimator"):
                judged_by = judge(taken.usable(), sources, request, report)
            ids = {name: [id for id in chosen if id not in taken.skipped] for name, chosen in taken.sets.items()}
            with timings.of("assess"):
                found = assess_all(ids, sources, judged_by, request, report)
        computed = Computed(taken, ids, found, used, judged_by)
        notes = [*said, *notes_on(computed)]
        for each in notes:
            warn(each)
        record(dataset, request, computed, notes, timings.seconds)
    return load_shift(dataset, request.run_key)


def assess_all(
    ids: Mapping[str, list[str]],
    sources: Mapping[str, Source],
    judged_by: Judge | None,
    request: ShiftRequest,
    report: Progress,
) -> dict[str, Assessment]:
    """The assessment of every scenario against the reference, by its name."""
    training = frozenset() if judged_by is None else judged_by.training
    sides = {
        name: side_of(chosen, sources, torch.tensor([id in training for id in chosen])) for name, chosen in ids.items()
    }
    first = sides.pop(REFERENCE)
    widest = max(vectors.dim for vectors in first.vectors.values())
    found = {}
    for name, second in sides.items():
        plan = Plan.of((len(first), len(second)), widest, request.resamples, request.seed)
        club = None if judged_by is None else judged_by.club

        def of_scenario(step: str, done: int, total: int, name: str = name) -> None:
            report(f"{name}: {step}", done, total)

        found[name] = assess(first, second, plan, club, request.weighting, request.entropy, of_scenario)
    return found
