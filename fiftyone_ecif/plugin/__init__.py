"""The package in the FiftyOne App: operators with their forms, and the panel. Each operator makes one SDK call.

Importing it brings in neither torch nor open_clip, since every process of the App loads it.
"""

from __future__ import annotations

from typing import Any

from fiftyone_ecif.plugin.operators.audit import AuditSample, Recalibrate
from fiftyone_ecif.plugin.operators.cancel import CancelJob
from fiftyone_ecif.plugin.operators.compute import ComputeInfluence
from fiftyone_ecif.plugin.operators.export import ExportCleaned
from fiftyone_ecif.plugin.operators.preferences import BuildPreferences, ExportPreferences
from fiftyone_ecif.plugin.operators.removal import EstimateRemoval, ExportCheckpoint, ForecastRemoval, VerifyRemoval
from fiftyone_ecif.plugin.operators.repair import ApplySuggestions, MarkAsFine, NameWrongWords, TagMisaligned, UndoFixes
from fiftyone_ecif.plugin.operators.runs import ManageRuns
from fiftyone_ecif.plugin.operators.shift import ComputeShift
from fiftyone_ecif.plugin.operators.show import ShowHarmful, ShowMisaligned, ShowVague, ShowValuable
from fiftyone_ecif.plugin.operators.slices import FindSlices
from fiftyone_ecif.plugin.operators.trace import FindFailures, TraceQuery, VerifyTrace
from fiftyone_ecif.plugin.panel.panel import EcifPanel
from fiftyone_ecif.plugin.requirements import missing_packages, unusable

NAME = "@ecif/ecif"
OPERATORS = (
    ComputeInfluence,
    ComputeShift,
    ShowMisaligned,
    ShowVague,
    ShowHarmful,
    ShowValuable,
    FindSlices,
    EstimateRemoval,
    ForecastRemoval,
    VerifyRemoval,
    FindFailures,
    TraceQuery,
    VerifyTrace,
    TagMisaligned,
    NameWrongWords,
    ApplySuggestions,
    MarkAsFine,
    UndoFixes,
    AuditSample,
    Recalibrate,
    ExportCleaned,
    ExportCheckpoint,
    BuildPreferences,
    ExportPreferences,
    ManageRuns,
    CancelJob,
)
PANELS = (EcifPanel,)

__all__ = ["NAME", "OPERATORS", "PANELS", "register"]


def register(plugin: Any) -> None:
    """Register every operator and panel; ``fiftyone.yml`` lists the same names."""
    missing = missing_packages()
    for operator in OPERATORS:
        plugin.register(unusable(operator, missing) if missing else operator)
    for panel in PANELS:
        plugin.register(panel)
