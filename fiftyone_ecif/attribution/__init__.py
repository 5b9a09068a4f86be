"""The mathematics of a run over stored features: fit, solve, scores, removals and traces."""

from fiftyone_ecif.attribution.refit import (
    FittedPairs,
    RemovalEffect,
    estimate_removal,
    mean_effect,
    recall,
    verify_removal,
)
from fiftyone_ecif.attribution.score import check_enough, compute
from fiftyone_ecif.attribution.settings import Attributed, FoldReport, InfluenceOutcome, PairScores, Settings

__all__ = [
    "Attributed",
    "FittedPairs",
    "FoldReport",
    "InfluenceOutcome",
    "PairScores",
    "RemovalEffect",
    "Settings",
    "check_enough",
    "compute",
    "estimate_removal",
    "mean_effect",
    "recall",
    "verify_removal",
]
