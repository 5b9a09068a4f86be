"""The tab “Slices”: recurring errors, with what their pairs have in common, and a way to see each."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset import summary
from fiftyone_ecif.dataset.arguments import WholeNumber
from fiftyone_ecif.dataset.fields import FIELDS, SLICE_FIELD
from fiftyone_ecif.plugin.forms import counted, escaped, given, notice, show_fields
from fiftyone_ecif.plugin.panel.pieces import row
from fiftyone_ecif.plugin.panel.tab import Tab, event
from fiftyone_ecif.plugin.panel.view import base_view, looked_at, select

LISTED = 20
"""Slices in the list, the ones with the most suspicion."""


class SlicesTab(Tab):
    """A list of the slices that were found last, by name, with their pairs and their mean misalignment."""

    name = "slices"
    label = "Slices"
    help = "errors that recur, by what their pairs have in common."

    # Content

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Count the pairs of each slice among those that the panel is about."""
        state = ctx.panel.state
        found = summary.slices(base, state.run_key)
        state.slices = None if found is None else [vars(each) for each in found[:LISTED]]

    # Layout

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        if not state.slices:
            words = "**No slices yet.**" if state.slices is None else "**No slice was found** among these pairs."
            root.md(
                f"{words} Groups of suspects often share a cause: a caption template, a folder, a tag, two exchanged "
                "words. This looks for them.",
                name="empty",
            )
        else:
            self._lay_out_list(root, state.slices)
        find = self.find_slices
        row(root, "actions").btn("find", label="Find slices", icon="search", on_click=find, variant="contained")

    def _lay_out_list(self, root: types.Object, slices: list[dict[str, Any]]) -> None:
        for number, each in enumerate(slices):
            line = row(root, f"slice_{number}")
            show, params = self.show_slice, {"row": number}
            line.btn("show", label="Show", icon="visibility", on_click=show, params=params, variant="outlined")
            facts = f"{counted(each['pairs'], 'pair')}, mean misalignment {each['misalignment']:.0%}"
            line.md(f"{escaped(each['name'])}  \n{facts}", name="facts")
        notice(root, "not_all", types.Notice, "Not every pair of a slice is wrong; the most suspicious come first.")

    # Events

    @event
    def show_slice(self, ctx: foo.ExecutionContext) -> None:
        """Show the pairs of a slice, the most suspicious first."""
        number = given(ctx, "row", WholeNumber())
        run_key, slices = ctx.panel.state.run_key, ctx.panel.state.slices
        if number is None or not isinstance(slices, list) or number >= len(slices):
            raise ValueError("There is no such slice any more.")
        name, score = SLICE_FIELD.name(run_key), FIELDS["misalignment"].name(run_key)
        chosen = looked_at(ctx).match({name: slices[number]["name"]}).sort_by(score, reverse=True)
        select(ctx, chosen, base_view(ctx), {"slice": slices[number]["name"]})
        show_fields(ctx, run_key)

    @event
    def find_slices(self, ctx: foo.ExecutionContext) -> None:
        """Look for recurring errors."""
        self.panel.prompt(ctx, "find_slices", run_key=ctx.panel.state.run_key)
