"""Where work runs."""

from fiftyone_ecif.engine.workers import ENGINES, check_engine, engine_workers

__all__ = ["ENGINES", "check_engine", "engine_workers"]
