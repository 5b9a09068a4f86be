"""The classes that the records of version 0.1's runs name; FiftyOne finds them by this path."""

from fiftyone_ecif.dataset.run.config import Ecif, EcifConfig

__all__ = ["Ecif", "EcifConfig"]
