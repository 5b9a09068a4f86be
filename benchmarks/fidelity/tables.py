"""The fidelity benchmark's figures as tables."""

from __future__ import annotations

from benchmarks.fidelity.retraining import Figures
from benchmarks.report.table import Table, figure_cell

METHODS = {
    "exact": "ECIF exact",
    "singles": "ECIF exact, sum of singles",
    "first_order": "ECIF first order",
    "positive_only": "positive role only",
    "kfac": "ECIF exact, K-FAC alone",
    "tracin": "TracIn",
    "trak": "TRAK",
    "random": "random scores",
}
AGREEMENT = {
    "LDS": "lds", "random groups": "lds_random_groups", "Pearson": "pearson", "slope": "slope", "cosine": "cosine",
}  # fmt: skip
GAINS = {"LDS": "lds_gain", "random groups": "lds_random_groups_gain", "cosine": "cosine_gain"}
EDITS = {"prepared": ("edit", "removal"), "solved for": ("solved_edit", "solved_removal")}
"""Names that the figures of each kind of edited model begin or end with."""
REFITTED = {
    "leave-one-out, Pearson": "loo_pearson",
    "leave-one-out, slope": "loo_slope",
    "drift without removal (nats)": "drift",
    "typical change by a group (nats)": "typical_change",
    "rank correlation, values in float32": "rank_correlation_float32",
    "rank correlation, values in bfloat16": "rank_correlation_bfloat16",
    "a refit over a forecast (seconds)": "speedup",
    "seconds of the solve": "seconds_solve",
    "seconds of the inverse": "seconds_inverse",
    "seconds of the fit": "seconds_fit",
    "rank of the inverse": "inverse_rank",
    "relative residual of the inverse": "inverse_relative_residual",
    "anchor": "anchor_delta",
    "fitted τ": "fitted_logit_scale",
}
SIGNIFICANT = 3


def tables(figures: Figures, edits: int) -> dict[str, Table]:
    """All tables by name.

    Args:
        figures: of :func:`benchmarks.fidelity.measure.measure`
        edits: removals whose edited model was compared with a refitted one
    """
    return {
        "methods": _by_method(figures, list(METHODS), AGREEMENT),
        "gain over the positive role alone": _by_method(figures, ["exact", "first_order"], GAINS),
        "edits": edit_table(figures, edits),
        "besides": Table.of(
            {"": None, "figure": None},
            [
                [
                    title,
                    " ± ".join(f"{figures[part]:.{SIGNIFICANT}g}" for part in (name, f"{name}_se") if part in figures),
                ]
                for title, name in REFITTED.items()
                if name in figures
            ],
        ),
    }


def edit_table(figures: Figures, edits: int) -> Table:
    """Edited models against refitted ones, and the seconds that both take."""
    columns = {
        "": None, "groups": 0, "nats apart": 5, "the removal's own change": 4, "points apart": 2,
        "accuracy retrained (%)": 1, "seconds": 3, "times faster than a refit from θ̂": 1, "than one from θ0": 1,
    }  # fmt: skip
    return Table.of(
        columns,
        [
            [
                title,
                edits,
                figure_cell(figures, f"{prefix}_target_loss_error"),
                figures["removal_target_loss_change"],
                figure_cell(figures, f"{prefix}_accuracy_error"),
                figures["removal_accuracy_retrained"],
                figures[f"seconds_{name}"],
                figure_cell(figures, f"speedup_{name}"),
                figure_cell(figures, f"speedup_{name}_from_start"),
            ]
            for title, (name, prefix) in EDITS.items()
        ],
    )


def _by_method(figures: Figures, methods: list[str], columns: dict[str, str]) -> Table:
    return Table.of(
        {"": None, **dict.fromkeys(columns, 3)},
        [
            [METHODS[method], *(figure_cell(figures, f"{figure}_{method}") for figure in columns.values())]
            for method in methods
        ],
    )
