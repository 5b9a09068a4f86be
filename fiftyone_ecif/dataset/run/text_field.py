"""Where a run finds its texts, after their field was renamed."""

from __future__ import annotations

from fiftyone_ecif.dataset.checks import check_text_field, is_classification_field
from fiftyone_ecif.dataset.run.run import Run


def move_text_field(run: Run, text_field: str) -> None:
    """See ``InfluenceResults.change_text_field``."""
    config = run.config
    if config.text_field is None:
        raise ValueError(f"Run {run.run_key!r} was computed without captions or labels.")
    check_text_field(run.dataset, text_field)
    labelled = is_classification_field(run.dataset, text_field)
    if labelled != run.rows().labelled:
        held, holds = ("captions", "labels") if labelled else ("labels", "captions")
        raise ValueError(f"Run {run.run_key!r} was computed on {held}, and {text_field!r} holds {holds}.")
    config.text_field = text_field
    run.dataset.update_run_config(run.run_key, config)
