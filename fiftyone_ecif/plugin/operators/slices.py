"""The operator about recurring errors: groups of suspected pairs that share a cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import COUNT, Texts
from fiftyone_ecif.dataset.checks import check_field
from fiftyone_ecif.plugin.background import Progress
from fiftyone_ecif.plugin.forms import chosen_run, counted, given, notice, passes
from fiftyone_ecif.plugin.panel.choices import open_panel
from fiftyone_ecif.plugin.run_operator import RunJob
from fiftyone_ecif.plugin.sample_sets import naming_fields

if TYPE_CHECKING:
    from fiftyone_ecif import ErrorSlice

LIMIT = 20


class FindSlices(RunJob):
    """Finds groups of pairs that share an error, and lists them in the panel."""

    name = "find_slices"
    label = "find recurring errors"
    description = "Find groups of suspected pairs that share a cause: a caption template, a folder, exchanged words"
    icon = "misaligned.svg"
    risk = "medium"
    submit = "Find"
    title = "Finding recurring errors"

    def __call__(
        self,
        sample_collection: SampleCollection,
        run_key: str | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        delegate: bool = False,
    ) -> foo.ExecutionResult:
        """Execute the operator from a script.

        Args:
            sample_collection: the dataset of the run
            run_key: the run; None: the newest
            fields: of the samples, whose values may be a cause; None: the tags
            limit: slices at most; None: 20
            delegate: whether to queue the work for a worker

        Returns:
            the result
        """
        named = None if fields is None else list(fields)
        return self.execute_on(sample_collection, delegate, run_key=run_key, fields=named, limit=limit)

    def run_form(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Ask which fields may name a cause, and how many slices are wanted."""
        view = types.AutocompleteView(allow_user_input=False, allow_duplicates=False)
        for name in naming_fields(ctx.dataset):
            view.add_choice(name, label=name)
        field = inputs.list(
            "fields",
            types.String(),
            default=["tags"],
            label="Fields that may name a cause",
            description="Such as a source, an annotator or a category",
            view=view,
        )
        inputs.int("limit", min=1, default=LIMIT, label="Maximum number of slices")
        passes(field, lambda: [check_field(ctx.dataset, name) for name in _fields(ctx)])
        notice(
            inputs,
            "what",
            types.Notice,
            "Words of the captions, folders and looks are always tried.",
            "Each pair gets the name of its slice in a field of the run.",
        )

    def work(self, ctx: foo.ExecutionContext) -> Callable[[Progress], list[ErrorSlice]]:
        """Find the slices."""
        results = ecif.load_results(ctx.dataset, chosen_run(ctx))
        fields, limit = _fields(ctx), given(ctx, "limit", COUNT, LIMIT, "The number of slices")
        return lambda progress: results.error_slices(fields, limit, progress)

    def show(self, ctx: foo.ExecutionContext, result: list[ErrorSlice]) -> Iterator[Any]:
        """Open the list in the panel."""
        run_key = chosen_run(ctx)
        yield ctx.ops.reload_dataset()
        yield ctx.ops.set_progress(progress=1, label=counted(len(result), "slice"))
        yield ctx.ops.notify(
            f"ECIF: {counted(len(result), 'slice')} of recurring errors", variant="success" if result else "info"
        )
        yield open_panel(ctx, "slices", run_key)


def _fields(ctx: foo.ExecutionContext) -> list[str]:
    return given(ctx, "fields", Texts(), ["tags"], "The fields")
