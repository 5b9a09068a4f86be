"""Where what is computed or downloaded once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder inside ``$FIFTYONE_ECIF_CACHE`` (default ``~/.cache/fiftyone-ecif``), created if missing.

    Args:
        name: of the folder

    Returns:
        its path
    """
    root = os.environ.get("FIFTYONE_ECIF_CACHE") or Path.home() / ".cache" / "fiftyone-ecif"
    folder = Path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
