"""How well predicted outcomes of training agree with real ones: LDS, its standard error, and the ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.report.statistics import rank_correlation
from benchmarks.retraining.outcomes import Outcomes

RESAMPLES = 300
OURS = "ecif_early_averaged"
"""The method whose lead over the others is told."""


def predicted(scores: Tensor, members: Tensor) -> Tensor:
    """What training on some pairs comes to, up to a constant: less the sum of what their removal would add.

    Args:
        scores: (..., N), predicted change of a loss if each pair were removed
        members: (G, N), 0 or 1

    Returns:
        (..., G)
    """
    return -(scores.double() @ members.double().T)


def figures(
    scores: Mapping[str, Tensor], outcomes: Outcomes, queries: Sequence[int], planted: np.ndarray
) -> dict[str, float]:
    """LDS of each method, for the mean loss and over queries, and the ceiling.

    Truth is the mean over seeds. Standard errors are bootstrapped over halves and seeds together, and over queries as
    well where there are several; leads over other methods with the same draws on both sides.

    Args:
        scores: (1 + Q, N) of each method, for the mean loss and for each query's
        outcomes: of the halves
        queries: the target pairs whose losses were asked for
        planted: bool (N,), whose caption is wrong

    Returns:
        ``lds_mean.<method>``, ``lds_query.<method>``, ``lead_mean.<method>``, ``lead_query.<method>`` (of OURS
        over it), ``ceiling`` and ``ceiling_query``, each with its standard error under ``…_se``; ``auroc.<method>``:
        how well harm for the mean loss tells wrong captions from right ones
    """
    names = list(scores)
    foreseen = predicted(torch.stack(list(scores.values())), outcomes.members(len(planted))).numpy()
    measured = np.concatenate([outcomes.losses.mean(2, keepdim=True), outcomes.losses[:, :, queries]], axis=2)
    rng = np.random.default_rng(0)
    seeds, halves, asked = measured.shape

    def agreement(seeds: np.ndarray, halves: np.ndarray, queries: np.ndarray) -> dict[str, float]:
        """LDS and leads on some seeds, halves and queries."""
        truth = np.broadcast_to(measured[seeds].mean(0)[halves].T, (len(names), asked, len(halves)))
        correlations = rank_correlation(foreseen[:, :, halves], truth)
        found: dict[str, float] = {}
        for kind, values in (("mean", correlations[:, 0]), ("query", correlations[:, queries].mean(1))):
            found |= {f"lds_{kind}.{name}": float(value) for name, value in zip(names, values)}
            if OURS in names:
                leads = values[names.index(OURS)] - values
                found |= {f"lead_{kind}.{name}": float(lead) for name, lead in zip(names, leads) if name != OURS}
        return found

    whole = agreement(np.arange(seeds), np.arange(halves), np.arange(1, asked))
    drawn = [
        agreement(
            rng.integers(seeds, size=(seeds,)),
            rng.integers(halves, size=(halves,)),
            rng.integers(1, asked, size=(asked - 1,)),
        )
        for _ in range(RESAMPLES)
    ]
    result = {}
    for name, value in (whole | ceilings(measured)).items():
        result[name] = float(value)
        over = [draw[name] for draw in drawn if name in draw]
        if over:
            result[f"{name}_se"] = float(np.std(over, ddof=1))
    result |= {f"auroc.{name}": float(roc_auc_score(planted, -found[0].numpy())) for name, found in scores.items()}
    return result | _ceiling_errors(measured, rng)


def ceilings(measured: np.ndarray, halves: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Rank correlation of one seed's outcomes (R, G, 1 + Q) with another's, mean over pairs of seeds."""
    chosen = measured[:, halves].transpose(0, 2, 1)
    first, second = np.triu_indices(len(chosen), k=1)
    between = rank_correlation(chosen[first], chosen[second])  # (pairs of seeds, 1 + Q)
    return {"ceiling": float(between[:, 0].mean()), "ceiling_query": float(between[:, 1:].mean())}


def _ceiling_errors(measured: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Standard errors of the ceilings, over halves."""
    count = measured.shape[1]
    drawn = [ceilings(measured, rng.integers(count, size=(count,))) for _ in range(RESAMPLES)]
    return {f"{name}_se": float(np.std([draw[name] for draw in drawn], ddof=1)) for name in drawn[0]}
