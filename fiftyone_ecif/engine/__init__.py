"""Where work runs."""

from fiftyone_ecif.engine.local import compute
from fiftyone_ecif.engine.removal import (
    FittedPairs,
    RemovalEffect,
    estimate_removal,
    mean_effect,
    recall,
    verify_removal,
)
from fiftyone_ecif.engine.settings import Attributed, FoldReport, InfluenceOutcome, PairScores, Settings

__all__ = [
    "Attributed",
    "FittedPairs",
    "FoldReport",
    "InfluenceOutcome",
    "PairScores",
    "RemovalEffect",
    "Settings",
    "compute",
    "estimate_removal",
    "mean_effect",
    "recall",
    "verify_removal",
]
