"""Finding the queries that fail: misclassified images and failed retrievals, as fields and a view."""

from __future__ import annotations

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Choice, Samples, checked
from fiftyone_ecif.dataset.ask.query import DIRECTIONS, Interpreter
from fiftyone_ecif.dataset.ask.trace_study import TraceStudy
from fiftyone_ecif.dataset.checks import check_flat
from fiftyone_ecif.dataset.fields import FAILURE_FIELDS
from fiftyone_ecif.dataset.progress import ProgressChoice, reporting
from fiftyone_ecif.dataset.run.run import Run
from fiftyone_ecif.dataset.run.writing import declare


@checked(samples=Samples(), direction=Choice(DIRECTIONS), run_dataset=Samples())
def find_failures(
    samples: SampleCollection,
    run_key: str = "ecif",
    direction: str = "image_to_text",
    run_dataset: fo.Dataset | None = None,
    progress: ProgressChoice = None,
) -> fo.DatasetView:
    """Mark the samples that a run's model answers wrong, and return them as a view.

    A sample's image looks for its text among the run's distinct texts, or its text for its image among the run's
    images. An answer is right if it has the sample's label or, without labels, its caption. Writes the fields
    ``<run_key>_failed``, ``<run_key>_rank`` and ``<run_key>_margin``.

    Args:
        samples: Dataset or view; it need not have been scored, but needs the run's text field
        run_key: the run's key
        direction: "image_to_text" or "text_to_image"
        run_dataset: the dataset that the run is of; None for that of ``samples``
        progress: as in ``compute_influence``

    Returns:
        the failing samples, the worst margin first

    Raises:
        ValueError: if there is no such run, or nothing can be asked about
    """
    check_flat(samples)
    study = TraceStudy(Run((samples if run_dataset is None else run_dataset)._dataset, run_key))
    with reporting(progress) as report:
        asked, reasons = Interpreter(study, report).samples(samples, direction, None, None)
    if not asked:
        raise ValueError(f"Nothing can be asked about these samples: {next(iter(reasons.values()), 'there are none')}")
    ids = [str(one.sample_id) for one in asked]
    columns: dict[str, list] = {
        "failed": [one.margin < 0 for one in asked],
        "rank": [one.rank for one in asked],
        "margin": [one.margin for one in asked],
    }
    dataset = samples._dataset
    declare(dataset, run_key, FAILURE_FIELDS, study.run.config.tensors if dataset is study.run.dataset else None)
    for kept in FAILURE_FIELDS:
        dataset.set_values(kept.name(run_key), dict(zip(ids, columns[kept.suffix])), key_field="id")
    failed = f"{run_key}_failed"
    return samples.select(ids).match(F(failed)).sort_by(f"{run_key}_margin")
