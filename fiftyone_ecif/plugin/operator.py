"""What the package's operators have in common."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection


class EcifOperator(foo.Operator):
    """An operator with a button above the samples grid, callable from scripts.

    Class attributes:
        button: the text of its button
        icon: the file name of its icon in ``assets/``
    """

    button: str
    icon: str

    def resolve_placement(self, ctx: foo.ExecutionContext) -> types.Placement:
        """A button among the grid's further actions that opens the operator's form."""
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label=self.button, icon=f"/assets/{self.icon}", prompt=True),
        )

    def execute_on(self, samples: SampleCollection, delegate: bool, **params: Any) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            samples: a dataset, or the view that the App would show
            delegate: whether to queue the operation for a worker instead of running it here
            **params: the form's values; None stands for a value left out

        Returns:
            the result, or a task where an event loop is running, as in a notebook
        """
        kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
        given = {name: value for name, value in params.items() if value is not None}
        return foo.execute_operator(self.uri, {kind: samples}, params=given, request_delegation=delegate)
