"""What FiftyOne runs to load the plugin, on every request: it only hands on the package's operators."""

import sys
from pathlib import Path

try:
    import fiftyone_ecif  # noqa: F401
except ModuleNotFoundError:  # downloaded as a plugin, not installed by pip: the package lies beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from fiftyone_ecif.plugin import register

__all__ = ["register"]
