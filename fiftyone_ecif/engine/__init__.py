"""Where work runs."""

from fiftyone_ecif.engine.cross_fit import CrossFit, cross_fit, label_beliefs, plausible_pairings
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
from fiftyone_ecif.engine.workers import ENGINES, check_engine, engine_workers

__all__ = [
    "ENGINES",
    "Attributed",
    "CrossFit",
    "FittedPairs",
    "FoldReport",
    "InfluenceOutcome",
    "PairScores",
    "RemovalEffect",
    "Settings",
    "check_engine",
    "compute",
    "cross_fit",
    "engine_workers",
    "estimate_removal",
    "label_beliefs",
    "mean_effect",
    "plausible_pairings",
    "recall",
    "verify_removal",
]
