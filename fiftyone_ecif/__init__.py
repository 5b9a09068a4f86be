"""ECIF for FiftyOne: which image-text pairs help a contrastive model, which harm it, and which do not belong together.

The names are handed on lazily, so that ``fiftyone_ecif.core``, ``models`` and ``features`` import without FiftyOne.
"""

from importlib import import_module

_HOMES = {
    "compute_influence": "fiftyone_ecif.curation.influence",
    "refresh_run": "fiftyone_ecif.curation.influence",
    "InfluenceResults": "fiftyone_ecif.curation.results",
    "load_results": "fiftyone_ecif.curation.results",
    "Query": "fiftyone_ecif.curation.queries",
    "find_failures": "fiftyone_ecif.curation.failures",
    "list_runs": "fiftyone_ecif.curation.runs",
    "rename_run": "fiftyone_ecif.curation.runs",
    "delete_run": "fiftyone_ecif.curation.runs",
    "tag_misaligned": "fiftyone_ecif.curation.review",
    "mark_as_fine": "fiftyone_ecif.curation.review",
    "reject": "fiftyone_ecif.curation.review",
    "trusted": "fiftyone_ecif.curation.review",
    "to_review": "fiftyone_ecif.curation.review",
    "apply_suggestions": "fiftyone_ecif.curation.fixes",
    "undo_fixes": "fiftyone_ecif.curation.fixes",
    "fixed": "fiftyone_ecif.curation.fixes",
    "cleaned": "fiftyone_ecif.curation.export",
    "export_cleaned": "fiftyone_ecif.curation.export",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
