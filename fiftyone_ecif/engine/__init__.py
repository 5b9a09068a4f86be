"""Where work runs, and nothing else: in this process, or in the workers of a Ray cluster."""

from fiftyone_ecif.engine.workers import ENGINES, check_engine, engine_workers

__all__ = ["ENGINES", "check_engine", "engine_workers"]
