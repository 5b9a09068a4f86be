"""The tab “Health”: whether the numbers can be trusted."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np
import plotly.graph_objects as go

from fiftyone_ecif.dataset import summary
from fiftyone_ecif.plugin.descriptions import describe_run
from fiftyone_ecif.plugin.panel.figures import BLUE, GREY, HEIGHT, Figure, as_figure, axes
from fiftyone_ecif.plugin.panel.pieces import PLOT, where
from fiftyone_ecif.plugin.panel.tab import Tab


class HealthTab(Tab):
    """How reliable the signs of the values are, and how the run was made and went."""

    name = "health"
    label = "Health"
    help = "whether the numbers can be trusted."

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Count the pairs by how many standard errors their value is away from 0."""
        state = ctx.panel.state
        found = summary.sureness(base, state.run_key)
        state.sureness = None if found is None else {"sure": found.sure, "scored": found.scored}
        if found is not None:
            traces, state.spread_layout = sureness_figure(found)
            ctx.panel.set_data("spread", traces)

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        if state.sureness:
            sure, scored = state.sureness["sure"], state.sureness["scored"]
            root.md(
                f"**What a repeat would say:** the value of {sure:,} of {scored:,} pairs {where(ctx)} "
                f"({sure / scored:.0%}) is at least two standard errors away from 0, so that a run with another seed "
                "gives it the same sign.",
                name="spread_words",
            )
            root.plot("spread", layout=state.spread_layout, config=PLOT, height=HEIGHT)
        describe_run(ctx, root, state.run_key)


def sureness_figure(found: summary.Sureness) -> Figure:
    """Pairs by how many standard errors their value is away from 0.

    Args:
        found: their numbers, as :func:`~fiftyone_ecif.dataset.summary.sureness` returns them
    """
    edges = summary.SURENESS_EDGES
    bars = go.Bar(
        x=np.sqrt(edges[:-1] * edges[1:]).tolist(),
        width=(edges[1:] - edges[:-1]).tolist(),
        y=found.counts.tolist(),
        marker={"color": [GREY if edge < summary.SURE else BLUE for edge in edges[:-1]]},
        hovertemplate="%{x:.3g} standard errors: %{y:,} pairs<extra></extra>",
    )
    return as_figure(
        [bars], axes("Distance of the value from 0, in standard errors", "Pairs").update(xaxis={"type": "log"})
    )
