"""Seconds of writing a run beside FiftyOne's own ``set_values`` of the same fields."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import torch

from benchmarks.report.measured import Measured
from fiftyone_ecif.attribution import InfluenceOutcome, PairScores
from fiftyone_ecif.dataset.fields import SCORE_FIELDS
from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.dataset.run.store import score_columns, write_run
from fiftyone_ecif.detect import Misalignment


def writing_figures(count: int, repeats: int) -> dict[str, float]:
    """``write_ratio``: seconds of a run's writing over those of ``set_values`` of the same values and indexes.

    Args:
        count: samples
        repeats: of both

    Returns:
        the figures by name
    """
    dataset = fo.Dataset()
    try:
        dataset.add_samples([fo.Sample(filepath=f"/made-up/{row}.jpg") for row in range(count)], progress=False)
        ids = dataset.values("id")
        scores = PairScores(*torch.randn(5, count, generator=torch.Generator().manual_seed(0)))
        found = Misalignment(np.random.default_rng(0).random(count), 0.0, (0.0, 0.0), {})
        outcome = InfluenceOutcome(scores, [], torch.zeros(1, 1), [])
        # A tenth of the pairs get a suggestion.
        suggestions = {id: fo.Classification(label="a better caption", confidence=0.5) for id in ids[::10]}

        def ours() -> None:
            columns = score_columns(outcome, found, ids, suggestions)
            write_run(dataset, "ours", EcifConfig(), columns, {}, {"none": torch.zeros(1)}, overwrite=False)

        def plain() -> None:
            columns = score_columns(outcome, found, ids, suggestions)
            for field in SCORE_FIELDS:
                field.add_to(dataset, "plain")
                dataset.set_values(field.name("plain"), [columns[field.suffix].get(id) for id in ids])
                field.index(dataset, "plain")

        def clear() -> None:
            for key in dataset.list_runs():
                dataset.delete_run(key)
            dataset.delete_sample_fields([name for name in dataset.get_field_schema() if name.startswith("plain_")])

        timed = Measured({"ours": ours, "plain": plain}, repeats, between=clear)
        return {
            "written_pairs_per_second": count / timed.seconds("ours"),
            **timed.ratio("write_ratio", "ours", "plain"),
        }
    finally:
        dataset.delete()
