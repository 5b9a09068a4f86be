"""ECIF for FiftyOne: which image-text pairs help a contrastive model, which harm it, and which do not belong together.

The names are handed on lazily, so that ``fiftyone_ecif.core``, ``models`` and ``features`` import without FiftyOne.
"""

from importlib import import_module

_HOMES = {
    "compute_influence": "fiftyone_ecif.dataset.compute.influence",
    "refresh_run": "fiftyone_ecif.dataset.compute.influence",
    "InfluenceResults": "fiftyone_ecif.dataset.results",
    "load_results": "fiftyone_ecif.dataset.results",
    "Query": "fiftyone_ecif.dataset.ask.query",
    "find_failures": "fiftyone_ecif.dataset.ask.failures",
    "list_runs": "fiftyone_ecif.dataset.run.config",
    "rename_run": "fiftyone_ecif.dataset.run.config",
    "delete_run": "fiftyone_ecif.dataset.run.config",
    "tag_misaligned": "fiftyone_ecif.dataset.repair.review",
    "mark_as_fine": "fiftyone_ecif.dataset.repair.review",
    "reject": "fiftyone_ecif.dataset.repair.review",
    "trusted": "fiftyone_ecif.dataset.repair.review",
    "to_review": "fiftyone_ecif.dataset.repair.review",
    "apply_suggestions": "fiftyone_ecif.dataset.repair.fixes",
    "undo_fixes": "fiftyone_ecif.dataset.repair.fixes",
    "fixed": "fiftyone_ecif.dataset.repair.fixes",
    "cleaned": "fiftyone_ecif.dataset.repair.export",
    "export_cleaned": "fiftyone_ecif.dataset.repair.export",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
