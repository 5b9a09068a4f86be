"""What FiftyOne runs to load the plugin, on every request: it only hands on the package's operators."""

import importlib.util
import sys
from pathlib import Path

package = importlib.util.find_spec("fiftyone_ecif")
# Downloaded as a plugin, not installed by pip: the package lies beside this file. A folder of that name without the
# package's own file is what an editable install leaves of the wheel's extra files, and no package either.
if package is None or package.origin is None:
    sys.path.append(str(Path(__file__).resolve().parent))

from fiftyone_ecif.plugin import register  # noqa: E402

__all__ = ["register"]
