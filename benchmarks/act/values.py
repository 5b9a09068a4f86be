"""Whether values rank wrong pairs as harmful, and whether a repeat with another seed stays within their errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.detection.cell import Cell
from benchmarks.detection.figures import judged
from fiftyone_ecif.attribution import Attributed, PairScores, Settings, compute
from fiftyone_ecif.core import Pairs

ERRORS = 2.0
"""Standard errors of the difference of two repeats that few pairs may differ by."""


def value_figures(cell: Cell, seeds: tuple[int, int] = (0, 1), target: Pairs | None = None) -> dict[str, float]:
    """Score a cell's pairs twice, as ``compute_influence`` does, and compare.

    Args:
        cell: with planted captions
        seeds: of the two repeats
        target: trusted pairs; None to cross-fit

    Returns:
        ``value_auroc``, that wrong pairs have the lower value, mean over the repeats, NaN where nobody knows them or
        none is wrong; ``value_rank_between_seeds``, Spearman's; ``sign_flips``, the share of pairs with opposite signs;
        ``beyond_two_errors``, the share that differs by more than two standard errors of the difference
    """
    first, second = (scored(cell, seed, target) for seed in seeds)
    values = [each.value.double().numpy() for each in (first, second)]
    error = np.hypot(*(each.value_std.double().numpy() for each in (first, second)))
    return dict(
        value_auroc=float(np.mean([_auroc(cell.planted, value) for value in values])),
        value_rank_between_seeds=float(spearmanr(*values).statistic),
        sign_flips=float(np.mean(np.sign(values[0]) != np.sign(values[1]))),
        beyond_two_errors=float(np.mean(abs(values[0] - values[1]) > ERRORS * error)),
    )


def scored(cell: Cell, seed: int, target: Pairs | None = None) -> PairScores:
    """The scores of a cell's pairs, as a run of the package gives them: misalignment first, then values."""
    # Self-influence is not looked at: one probe is the least that it takes.
    settings, attributed = Settings(seed=seed), replace(Attributed.of_head(cell.head, cell.pairs, target), probes=1)
    believed = None
    if target is None:
        probability = torch.from_numpy(judged(cell, settings)[0].probability)
        believed = attributed.split(seed).believed(probability)
    return compute(attributed, cell.loss, settings, believed=believed).scores


def _auroc(planted: np.ndarray | None, value: np.ndarray) -> float:
    if planted is None or not planted.any():
        return float("nan")
    return float(roc_auc_score(planted, -value))
