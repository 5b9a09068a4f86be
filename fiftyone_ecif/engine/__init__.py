"""Where work runs."""

from fiftyone_ecif.engine.local import compute
from fiftyone_ecif.engine.settings import FoldReport, InfluenceOutcome, PairScores, Settings

__all__ = ["FoldReport", "InfluenceOutcome", "PairScores", "Settings", "compute"]
