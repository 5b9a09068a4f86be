"""What the App shows if packages are missing that this one needs, as after a download without an install."""

from __future__ import annotations

import importlib.util

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.plugin.forms import refuse
from fiftyone_ecif.plugin.operator import EcifOperator

REQUIRED = {
    "torch": "torch",
    "open_clip": "open_clip_torch",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "filelock": "filelock",
    "tqdm": "tqdm",
}
"""The package to install, by the name of its module."""

HOW_TO_INSTALL = "Run “fiftyone plugins requirements @ecif/ecif --install” and restart the App."


def missing_packages() -> list[str]:
    """The packages that are not installed."""
    return [package for module, package in REQUIRED.items() if importlib.util.find_spec(module) is None]


def missing_words(packages: list[str]) -> str:
    """What is missing, in a sentence."""
    return f"Python packages are missing: {', '.join(packages)}."


def unusable(operator: type[EcifOperator], packages: list[str]) -> type[EcifOperator]:
    """The operator as it is listed if packages are missing: its form says which, and how to install them."""

    class Unusable(operator):  # type: ignore[valid-type, misc]
        label = f"{operator.label} (cannot run: {', '.join(packages)} missing)"
        description = f"{missing_words(packages)} {HOW_TO_INSTALL}"

        def form(self, ctx: foo.ExecutionContext, inputs: types.Object) -> None:
            refuse(inputs, "missing_packages", missing_words(packages), HOW_TO_INSTALL)

    return Unusable
