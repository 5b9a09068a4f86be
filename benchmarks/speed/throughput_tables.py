"""The throughput benchmark's figures as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.report.table import Table


class Mark(NamedTuple):
    """A figure in words, and the mark that it should meet."""

    label: str
    mark: str = ""


MARKS = {
    "epoch_ratio": Mark("`epoch_ratio`: the score pass over an epoch of training", "≤ 1.5"),
    "solve_epochs": Mark("`solve_epochs`: curvature and solve, residual 1e-3", "≤ 20"),
    "gemm_fraction": Mark("`gemm_fraction`", "≥ .5"),
    "half_ratio": Mark("`half_ratio`: the score pass in bfloat16 over float32"),
    "half_rank_correlation": Mark("`half_rank_correlation`", "≥ .99"),
    "rss_ratio_4x": Mark("`rss_ratio_4x` (a quarter of the pairs → all)", "≤ 1.1"),
    "time_exponent": Mark("`time_exponent`", "≤ 1.05"),
    "embed_ratio": Mark("`embed_ratio`", "≥ .9"),
    "write_ratio": Mark("`write_ratio`: a run's fields over `set_values` of the same", "≤ 1.1"),
    "resume_waste": Mark("`resume_waste`: the most of four kills, in shards", "≤ 1"),
    "ray_ratio": Mark("`ray_ratio`: two workers' throughput over this process's with two threads", "≥ .85"),
    "pairs_per_second_scores": Mark("`pairs_per_second_scores`"),
    "peak_rss_gib": Mark("`peak_rss_gib`"),
    "peak_rss_gib_above_interpreter": Mark("`peak_rss_gib_above_interpreter`"),
    "bytes_per_pair": Mark("`bytes_per_pair` on disk"),
}
SIGNIFICANT = 4
"""Digits of a figure."""


def tables(figures: Mapping[str, float], scope: str) -> dict[str, Table]:
    """The figures with their marks; of a scope inside the towers those of its own passes, without marks.

    Args:
        figures: of :func:`benchmarks.speed.throughput.measure`; ``…_cpu`` is the same by processor seconds
        scope: whose they are
    """
    if scope != "head":
        return {"steps": Table.of({"": None, "measured": None}, [[name, _text(figures, name)] for name in figures])}
    marks = [
        [words.label, _text(figures, name), _text(figures, f"{name}_cpu"), words.mark]
        for name, words in MARKS.items()
        if name in figures
    ]
    shown = {*MARKS, *(f"{name}_cpu" for name in MARKS)}
    rest = [[name, _text(figures, name)] for name in figures if name not in shown]
    return {
        "marks": Table.of(dict.fromkeys(["", "measured", "CPU", "mark"]), marks),
        "besides": Table.of(dict.fromkeys(["", "measured"]), rest),
    }


def _text(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.{SIGNIFICANT}g}" if name in figures else ""
