"""The operators that show a run's pairs in the grid: faces over the views of its results."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.forms import choose_run, chosen_run, notice, refuse, show_fields
from fiftyone_ecif.plugin.operator import EcifOperator


class ShowMisaligned(EcifOperator):
    """Shows the pairs whose caption probably does not belong to the image, the most suspicious first."""

    button = "Show misaligned pairs (ECIF)"
    icon = "misaligned.svg"

    @property
    def config(self) -> foo.OperatorConfig:
        """Immediate: it only sets the view."""
        return foo.OperatorConfig(
            name="show_misaligned",
            label="ECIF: show misaligned pairs",
            description="Show the pairs whose caption probably does not belong to the image, the most suspicious first",
            icon=f"/assets/{self.icon}",
            dynamic=True,
        )

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        threshold: float | None = None,
        limit: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            threshold: the least probability of being misaligned, 0 to 1; None: any
            limit: the most pairs to show; None: all
            delegate: not supported, for there is nothing to wait for

        Returns:
            the result, whose ``result["pairs"]`` is the number of pairs shown
        """
        return self.execute_on(sample_collection, delegate, run_key=run_key, threshold=threshold, limit=limit)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        """Run, threshold, limit, and how many pairs these give."""
        inputs = types.Object()
        run_key = choose_run(ctx, inputs)
        if run_key is not None:
            inputs.float(
                "threshold",
                min=0,
                max=1,
                default=0,
                label="Least probability of being misaligned",
                description="0 shows every scored pair",
            )
            inputs.int("limit", min=1, label="Most pairs to show", description="Left empty: all of them")
            pairs = len(misaligned_pairs(ctx, run_key))
            if pairs:
                notice(inputs, "pairs", types.Notice, f"{pairs:,} pairs")
            else:
                refuse(inputs, "pairs", "No pair is that suspicious.", "Lower the threshold.")
        return types.Property(inputs, view=types.PromptView(label="Show misaligned pairs", submit_button_label="Show"))

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, int]:
        """Set the view and the fields shown on the thumbnails."""
        run_key = chosen_run(ctx)
        view = misaligned_pairs(ctx, run_key)
        ctx.ops.set_view(view)
        show_fields(ctx, run_key)
        return {"pairs": len(view)}


def misaligned_pairs(ctx: foo.ExecutionContext, run_key: str) -> fo.DatasetView:
    """The view that the form asks for."""
    return ecif.load_results(ctx.dataset, run_key).misaligned(
        threshold=ctx.params.get("threshold") or None, limit=ctx.params.get("limit")
    )
