"""Where a benchmark's figures go."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Write a flat JSON object, complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(figures, indent=2) + "\n")
    os.replace(part, path)


def write_asked(asked: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Write the figures, behind the options that they were asked for with, to ``asked.json`` if it is set."""
    if asked.json:
        write_json(asked.json, {**{name: value for name, value in vars(asked).items() if name != "json"}, **figures})
