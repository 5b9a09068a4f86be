"""The tab “Shift”: how far each scenario is from the reference, and which samples and directions carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import plotly.graph_objects as go

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import Choice, Text, WholeNumber
from fiftyone_ecif.dataset.fields import SHIFT_FIELDS, SHIFT_METHOD
from fiftyone_ecif.dataset.shift.request import MEASURES
from fiftyone_ecif.plugin.forms import dropdown, escaped, given, notice
from fiftyone_ecif.plugin.panel.figures import ABOVE, BLUE, GREY, HEIGHT, ORANGE, Figure, as_figure, axes, plain
from fiftyone_ecif.plugin.panel.pieces import PLOT, image_address, picture, row
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event
from fiftyone_ecif.plugin.panel.view import base_view, looked_at, select

if TYPE_CHECKING:
    from fiftyone_ecif import ShiftResults, ShiftScenario
    from fiftyone_ecif.dataset.shift.results import ShiftDirection
    from fiftyone_ecif.shift import Divergence, Estimate

LABELS = {"image": "Images", "query": "Queries", "emi": "Responses that lost the most"}
"""What the samples can be ordered by."""

PICTURES = 4
"""Samples that are shown of each order and direction."""

DIRECTIONS = 3
"""Directions that are shown, the ones in which the sets differ most."""

SURE = 0.05
"""The p-value up to which sets are said to differ."""

DRAWN = 12
"""Scenarios that the picture shows, the riskiest."""


class Shown(TypedDict):
    """A sample as the tab shows it."""

    id: str
    image: str


class ShiftTab(Tab):
    """A shift run's scenarios by their risk, then one of them: its most shifted samples and its directions."""

    name = "shift"
    label = "Shift"
    help = "how far other samples are from a reference, and which of them carry the shift."
    method = SHIFT_METHOD
    entries = (
        Entry("scenario", Text(), "choose_scenario", begins_with="run"),
        Entry("measure", Choice(MEASURES), "choose_measure", begins_with="run"),
    )

    # Content

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Read the scenarios, and the samples of the chosen one that are looked at."""
        state = ctx.panel.state
        results = ecif.load_shift(ctx.dataset, state.run_key)
        names = [each.name for each in results.scenarios]
        if state.scenario not in names:
            state.scenario = names[0]
        scenario = results.scenario(state.scenario)
        measures = [of for of, suffix in MEASURES.items() if suffix in results.fields]
        if state.measure not in measures:
            state.measure = next(iter(measures), None)
        state.shift = {
            "reference": results.reference_count,
            "rows": [_row(each) for each in results.scenarios],
            "words": _in_words(scenario),
            "measures": measures,
            "warnings": results.warnings,
            "samples": _shown(_most_shifted(ctx, results).limit(PICTURES)) if state.measure else [],
            "directions": [_direction(ctx, of, each) for of, each in _directions(scenario)],
        }
        traces, state.shift_layout = divergence_figure(results.scenarios[:DRAWN])
        ctx.panel.set_data("divergences", traces)

    # Layout

    def fields(self, state: Any) -> dict[str, Any]:
        return {"chosen": {"scenario": state.scenario, "measure": state.measure}}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        shift = state.shift
        if not shift:  # the state of a page may name the tab and know nothing of its content
            return
        for number, warning in enumerate(shift["warnings"]):
            notice(root, f"warning_{number}", types.Warning, warning)
        root.plot("divergences", layout=state.shift_layout, config=PLOT, height=HEIGHT)
        _lay_out_table(root, shift["rows"])
        chosen = row(root, "chosen")
        names = [each["name"] for each in shift["rows"]]
        chosen.enum(
            "scenario",
            names,
            default=state.scenario,
            label="Scenario",
            view=dropdown(names),
            on_change=self.choose_scenario,
        )
        root.md(shift["words"], name="words")
        if state.measure:
            labels = {of: LABELS[of] for of in shift["measures"]}
            chosen.enum(
                "measure",
                list(labels),
                default=state.measure,
                label="Most shifted by",
                view=dropdown(labels),
                on_change=self.choose_measure,
            )
            self._lay_out_samples(root, "most", "**The samples that carry the most of it**", shift["samples"])
            show = self.show_shifted
            row(root, "actions").btn(
                "show", label="Show in the grid", icon="visibility", on_click=show, variant="contained"
            )
        for number, each in enumerate(shift["directions"]):
            self._lay_out_samples(root, f"direction_{number}", each["words"], each["samples"])
            params = {"row": number}
            row(root, f"direction_actions_{number}").btn(
                "show", label="Show", icon="visibility", on_click=self.show_direction, params=params, variant="outlined"
            )

    def _lay_out_samples(self, root: types.Object, name: str, words: str, samples: list[Shown]) -> None:
        root.md(words if samples else f"{words}: none of them is in view.", name=f"{name}_words")
        line = row(root, name)
        for number, each in enumerate(samples):
            frame = line.v_stack(f"sample_{number}")
            picture(frame, each["image"], "the sample's image", self.panel.open_sample, {"id": each["id"]})

    # Events

    @event
    def choose_scenario(self, ctx: foo.ExecutionContext) -> None:
        """Look at another scenario."""
        name = given(ctx, "value", Text())
        ecif.load_shift(ctx.dataset, ctx.panel.state.run_key).scenario(name)
        ctx.panel.state.scenario = name
        self.panel.show(ctx)

    @event
    def choose_measure(self, ctx: foo.ExecutionContext) -> None:
        """Order the samples by another part of the shift."""
        ctx.panel.state.measure = Choice(MEASURES)("The measure", ctx.params.get("value"))
        self.panel.show(ctx)

    @event
    def show_shifted(self, ctx: foo.ExecutionContext) -> None:
        """Show the scenario's samples in the grid, those first that carry the most of the shift."""
        state = ctx.panel.state
        results = ecif.load_shift(ctx.dataset, state.run_key)
        select(ctx, _most_shifted(ctx, results), base_view(ctx), {"scenario": state.scenario})
        ctx.ops.set_active_fields([results.fields[name] for name in ("scenario", MEASURES[state.measure])])

    @event
    def show_direction(self, ctx: foo.ExecutionContext) -> None:
        """Show the samples that lie farthest along a direction."""
        state, number = ctx.panel.state, given(ctx, "row", WholeNumber())
        scenario = ecif.load_shift(ctx.dataset, state.run_key).scenario(state.scenario)
        found = _directions(scenario)
        if number is None or number >= len(found):
            raise ValueError("There is no such direction any more.")
        chosen = looked_at(ctx).select(found[number][1].sample_ids, ordered=True)
        select(ctx, chosen, base_view(ctx), {"scenario": state.scenario})


def _most_shifted(ctx: foo.ExecutionContext, results: ShiftResults) -> fo.DatasetView:
    """The samples that are looked at, of the chosen scenario, by the chosen measure."""
    scenario, measure = ctx.panel.state.scenario, ctx.panel.state.measure
    if measure is None or MEASURES[measure] not in results.fields:
        raise ValueError(f"The run {results.run_key!r} has no field to order samples by: it was deleted.")
    field = results.fields[MEASURES[measure]]
    found = looked_at(ctx).match({SHIFT_FIELDS["scenario"].name(results.run_key): scenario})
    return found.exists(field).sort_by(field, reverse=measure != "emi")


def _shown(view: fo.DatasetView) -> list[Shown]:
    found = zip(*view.values(["id", "filepath"]), strict=True)
    return [Shown(id=id, image=image_address(filepath)) for id, filepath in found]


def _directions(scenario: ShiftScenario) -> list[tuple[str, ShiftDirection]]:
    """The directions that are shown, each with what differs in it."""
    named = [("images", each) for each in scenario.image_directions[:DIRECTIONS]]
    return named or [("queries", each) for each in scenario.query_directions[:DIRECTIONS]]


def _direction(ctx: foo.ExecutionContext, of: str, direction: ShiftDirection) -> dict[str, Any]:
    less, more = sorted((direction.reference_mass, direction.scenario_mass))
    where = "the scenario" if direction.more_in_scenario else "the reference"
    words = f"**More in {where}:** a direction of the {of} with {more:.1%} of its mass, against {less:.1%}"
    return {"words": words, "samples": _shown(looked_at(ctx).select(direction.sample_ids[:PICTURES], ordered=True))}


def _row(scenario: ShiftScenario) -> dict[str, str]:
    """A scenario's line of the table; what was not compared is empty."""
    parts = {"image": _divergence(scenario.image), "query": _divergence(scenario.query)}
    rest = {name: _written(getattr(scenario, name)) for name in ("emid", "bound")}
    return {"name": scenario.name, "count": f"{scenario.count:,}"} | parts | rest


def _divergence(found: Divergence | None) -> str:
    if found is None:
        return ""
    tested = "" if found.p_value is None else f" (p = {found.p_value:.2g})"
    return _written(found.debiased or found.estimate) + tested


def _written(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.3f}"


def _with_interval(found: Estimate | None) -> str:
    if found is None or found.low is None:
        return _written(found)
    return f"{_written(found)} ({found.low:.3f} to {found.high:.3f})"


COLUMNS = {
    "name": "Scenario", "count": "Samples", "image": "Images", "query": "Queries", "emid": "EMID", "bound": "Bound",
}  # fmt: skip
"""Columns of the table; one is left out that no scenario has."""


def _lay_out_table(root: types.Object, rows: list[dict[str, str]]) -> None:
    table = types.TableView(read_only=True)
    for name, label in COLUMNS.items():
        if any(each[name] for each in rows):
            table.add_column(name, label=label)
    root.list("scenarios", types.Object(), default=rows, view=table)


def _in_words(scenario: ShiftScenario) -> str:
    """Whether there is a shift at all, and what the answers lost, in sentences."""
    tested = {"images": scenario.image, "queries": scenario.query}
    p_values = {of: each.p_value for of, each in tested.items() if each is not None and each.p_value is not None}
    words = f"**{escaped(scenario.name)}**: "
    if not p_values:
        words += "no permutation test was made."
    else:
        of, least = min(p_values.items(), key=lambda each: each[1])
        found = "differ from" if least <= SURE else "do not differ more than by chance from"
        words += f"its {of} {found} the reference's (p = {least:.2g})."
    if scenario.emid is not None:
        words += (
            f" Its responses lost {_with_interval(scenario.emid)} of relevance (EMID, in arbitrary units: it ranks "
            f"scenarios of this run), and the bound, which ranks them too, is {_with_interval(scenario.bound)}."
        )
    return words


def divergence_figure(scenarios: list[ShiftScenario]) -> Figure:
    """Bars of each scenario's divergences from the reference, with their intervals, the riskiest above.

    Args:
        scenarios: of a run, the riskiest first
    """
    bars = []
    for of, colour in (("image", BLUE), ("query", ORANGE)):
        found = [(each.name, getattr(each, of)) for each in scenarios]
        values = [(name, each.debiased or each.estimate) for name, each in found if each is not None]
        if values:
            bars.append(_bars(LABELS[of], colour, values))
    layout = axes("Divergence from the reference (nats)", "")
    height = HEIGHT + 18 * max(0, len(scenarios) - 4)
    layout.update(height=height, showlegend=len(bars) > 1, legend=ABOVE)
    layout.update(yaxis={"autorange": "reversed", "automargin": True, "type": "category"})
    return as_figure(bars, layout)


def _bars(label: str, colour: str, values: list[tuple[str, Estimate]]) -> go.Bar:
    known = all(each.low is not None and each.high is not None for _, each in values)
    error = {
        "type": "data",
        "symmetric": False,
        "array": [(each.high or 0.0) - each.value for _, each in values],
        "arrayminus": [each.value - (each.low or 0.0) for _, each in values],
        "visible": known,
        "color": GREY,
    }
    return go.Bar(
        orientation="h",
        name=label,
        y=[plain(name) for name, _ in values],
        x=[each.value for _, each in values],
        error_x=error,
        marker={"color": colour},
        hovertemplate="%{y}: %{x:.3f} nats<extra></extra>",
    )
