"""The figures of retraining as a table."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report.table import Table, figure_cell

TITLES = {
    "ecif": "ECIF as a run computes it",
    "first_order": "ECIF first order",
    "positive_only": "positive role only",
    "ekfac": "ECIF by EK-FAC alone",
    "tracin": "TracIn over checkpoints",
    "tracin_both_roles": "TracIn over checkpoints with both roles",
    "trak": "TRAK with one model",
    "trak_averaged": "TRAK with four models",
    "random": "random scores",
    "ecif_anchor_by_evidence": "ECIF with an anchor by evidence",
    "ecif_averaged": "ECIF averaged over four heads",
    "ecif_early": "ECIF at an early-stopped head",
    "ecif_early_averaged": "ECIF at four early-stopped heads",
    "ecif_halves": "ECIF at four early-stopped heads of halves",
    "segments": "SOURCE-like segments",
    "metagradient": "metagradient of an early-stopped training",
    "metagradient_averaged": "metagradients of four early-stopped trainings",
}


def tables(figures: Mapping[str, float]) -> dict[str, Table]:
    """All tables by name."""
    columns = {"LDS": "lds_mean", "LDS of queries": "lds_query", "AUROC": "auroc"}
    rows = [
        [title, *(figure_cell(figures, f"{figure}.{name}") for figure in columns.values())]
        for name, title in TITLES.items()
        if f"lds_mean.{name}" in figures
    ]
    rows.append(
        ["one seed against another", figure_cell(figures, "ceiling"), figure_cell(figures, "ceiling_query"), None]
    )
    return {"methods": Table.of({"": None, "LDS": 2, "LDS of queries": 2, "AUROC": 2}, rows)}
