"""How the panel is laid out. Words from the data are shown as they stand, never as markup."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset import checks as validation
from fiftyone_ecif.dataset.repair import review
from fiftyone_ecif.plugin.forms import dropdown, escaped, notice
from fiftyone_ecif.plugin.operators.removal import figure_name
from fiftyone_ecif.plugin.operators.runs import describe_run
from fiftyone_ecif.plugin.panel.figures import HEIGHT, TALL, with_selection
from fiftyone_ecif.plugin.panel.view import selection
from fiftyone_ecif.plugin.requirements import HOW_TO_INSTALL, missing_packages, missing_words

if TYPE_CHECKING:
    from fiftyone_ecif.plugin.panel.panel import EcifPanel

UNKNOWN = "unknown"
TABS = {
    "suspects": "Suspects",
    "review": "Review",
    "influence": "Influence",
    "trace": "Trace",
    "health": "Health",
}
HELP = """Scores of a run of **ECIF: compute influence**.

*Suspects*: how likely captions are wrong; drag over the bars to see the pairs.
*Review*: the most suspicious pairs one by one.
*Influence*: what pairs do to the target loss, and what removing the most harmful ones would do.
*Trace*: which pairs are to blame for a failing query.
*Health*: whether to trust the numbers."""
SUGGESTED_THRESHOLD = f"{review.SUGGESTED_PRECISION:.0%} are expected from"
NO_THRESHOLD = f"No threshold is expected to reach a precision of {review.SUGGESTED_PRECISION:.0%}."
MILLISECONDS_BETWEEN_LOOKS = 2000
PLOT = {"displayModeBar": False}  # it would cover the legend; a double click resets the axes


def problem(ctx: foo.ExecutionContext) -> str | None:
    """Why nothing can be shown of this dataset; None if something can."""
    missing = missing_packages()
    if missing:
        return f"{missing_words(missing)} {HOW_TO_INSTALL}"
    if ecif.list_runs(ctx.dataset):
        return None
    try:
        validation.check_collection(ctx.dataset, "This dataset")
    except ValueError as error:
        return str(error)
    if not validation.text_fields(ctx.dataset):
        return "This dataset has no captions: add a string field with a caption, or a Classification field."
    return None


def layout(panel: EcifPanel, ctx: foo.ExecutionContext) -> types.Property:
    """The panel as its state says."""
    root, state = types.Object(), ctx.panel.state
    _jobs(panel, root, state)
    runs = ecif.list_runs(ctx.dataset)
    if not state.run_key or not runs:
        _empty(panel, root, state)
        return types.Property(root)
    _menu(panel, root, ctx, runs)
    tabs = types.TabsView(variant="fullWidth")
    for name, label in TABS.items():
        tabs.add_choice(name, label=label)
    # The App's tabs and dropdowns heed a new default only where they are new themselves, hence under another name.
    root.enum(f"tab_{state.turns or 0}", tabs.values(), default=state.tab, view=tabs, on_change=panel.choose_tab)
    if state.problem:
        notice(root, "problem_words", types.Warning, state.problem)
    else:
        LAYOUTS[state.tab](panel, root, ctx)
    return types.Property(root)


def filled_in(state: Any) -> dict[str, Any]:
    """What the fields of the layout hold, by the names that the App keeps them under in the panel's state.

    Where it finds nothing there, it puts their defaults in and tells each as a choice.
    """
    choices = {
        "suspects": {"actions": {"threshold": state.threshold}},
        "influence": {"actions": {"remove": state.remove}},
        "trace": {"actions": {"removed": state.remove_traced}, "kept": {_trace_name(state): state.trace}},
    }
    return {"menu": {"run": state.run_key}} | choices.get(state.tab, {})


def _trace_name(state: Any) -> str:
    return f"trace_{state.trace}"


def _jobs(panel: EcifPanel, root: types.Object, state: Any) -> None:
    """What is running, with a way to stop it."""
    for number, job in enumerate(state.jobs or []):
        row = root.h_stack(f"job_{number}", gap=2, align_y="center")
        row.md(f"**Running:** {escaped(job['title'])}: {escaped(job['label'])}", name="text")
        row.btn("cancel", label="Cancel", on_click=panel.cancel, params={"id": job["id"]}, variant="outlined")
    if state.jobs:
        timer = types.TimerView(interval=MILLISECONDS_BETWEEN_LOOKS, on_interval=panel.refresh)
        root.view("timer", timer)


def _empty(panel: EcifPanel, root: types.Object, state: Any) -> None:
    """No run: why, or how to begin."""
    if state.problem:
        notice(root, "problem_words", types.Warning, state.problem)
        return
    root.md(
        "**No run yet.** Compute influence, and see here which captions are probably wrong, which pairs harm the "
        "model, and what removing them would do.",
        name="empty",
    )
    root.btn("compute", label="Compute influence", on_click=panel.compute, variant="contained")


def _row(parent: types.Object, name: str, gap: int = 2, **options: Any) -> types.Object:
    """Things side by side: as many as fit a panel beside the grid on a small screen, for the App breaks no lines."""
    return parent.h_stack(name, gap=gap, align_y="center", **options)


def _where(ctx: foo.ExecutionContext) -> str:
    """Which pairs the panel is about."""
    return "selected" if ctx.selected else "in view"


def _menu(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext, runs: list[str]) -> None:
    """Which run; and what concerns all tabs."""
    row = _row(root, "menu", pad=1)
    state, newest = ctx.panel.state, {key: f"Run: {key}" for key in runs[::-1]}
    row.enum("run", list(newest), default=state.run_key, view=dropdown(newest), on_change=panel.choose_run)
    row.btn("again", label="New run", icon="add", on_click=panel.compute, variant="outlined")
    options = {"icon": "filter_alt_off", "variant": "outlined", "disabled": not selection(ctx)}
    row.btn("clear", label="Clear selection", on_click=panel.clear_selection, **options)


def _suspects(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext) -> None:
    state = ctx.panel.state
    facts = state.suspects or {}
    if not facts.get("scored"):
        notice(root, "nothing", types.Notice, f"None of the pairs {_where(ctx)} was scored in this run.")
        return
    precision = facts["expected_precision"]
    expected = "" if precision is None else f", of which {precision:.0%} are expected to be wrong"
    root.md(
        f"**{facts['scored']:,}** scored pairs {_where(ctx)}, about **{facts['expected_wrong']:,.0f}** of them wrong. "
        f"At or above {state.threshold:g}: **{facts['count']:,}** pairs{expected}."
        + (f" {NO_THRESHOLD}" if facts["suggested"] is None else f" {SUGGESTED_THRESHOLD} {facts['suggested']:g}."),
        name="facts",
    )
    root.plot(
        "histogram",
        layout=with_selection(state.histogram_layout, (selection(ctx) or {}).get("range")),
        config=PLOT,
        height=HEIGHT,
        on_selected=panel.select_bars,
        on_click=panel.click_bar,
    )
    row = _row(root, "actions")
    row.float("threshold", default=state.threshold, label="Threshold", on_change=panel.choose_threshold)
    row.btn("show", label="Show them", icon="visibility", on_click=panel.show_suspects, variant="contained")
    row = _row(root, "asks")
    row.btn("tag", label="Tag", icon="local_offer", on_click=panel.tag, variant="outlined")
    suggested = facts["suggested"]
    if suggested is not None and suggested != state.threshold:
        params = {"value": suggested}
        row.btn(
            "suggested", label=f"Take {suggested:g}", on_click=panel.choose_threshold, params=params, variant="outlined"
        )
    choices = {UNKNOWN: "unknown"} | (state.truths or {})
    if len(choices) > 1:
        root.enum(
            "truth",
            list(choices),
            default=state.truth,
            label="What tells which pairs are really wrong",
            view=dropdown(choices),
            on_change=panel.choose_truth,
        )
    if state.measured:
        text = (
            f"Measured on {state.measured['wrong']:,} wrong pairs: average precision "
            f"**{state.measured['average']:.3f}**, beside that of other scores."
        )
        root.md(text, name="measured_words")
        root.plot("precision", layout=state.precision_layout, config=PLOT, height=TALL)


def _review(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext) -> None:
    state = ctx.panel.state
    row = _row(root, "pages")
    cards = state.cards or []
    first = (state.page or 0) * 4 + 1
    waiting = state.waiting or 0
    shown = f"{first:,} to {first + len(cards) - 1:,} of {waiting:,} pairs to review" if cards else "No pair to review"
    row.md(shown, name="shown")
    row.btn("previous", label="Previous", on_click=panel.previous_page, disabled=first == 1, variant="outlined")
    last = first + len(cards) > waiting
    row.btn("next", label="Next", on_click=panel.next_page, disabled=last, variant="outlined")
    if state.last_fixed:
        label = f"Undo last fix ({state.last_fixed:,})"
        row.btn("undo", label=label, icon="undo", on_click=panel.undo, variant="outlined")
    for number, card in enumerate(cards):
        _card(panel, root, number, card)


def _card(panel: EcifPanel, root: types.Object, number: int, card: dict[str, Any]) -> None:
    """Picture, caption, suggestion, and the three answers."""
    frame = root.h_stack(f"card_{number}", gap=2, align_y="center", variant="outline", pad=1)
    params = {"id": card["id"]}
    _picture(frame, card["image"], "the pair's image", panel.open_card, params)
    body = frame.v_stack("body", gap=1)
    body.md(
        f"**{escaped(card['text'] or '(no caption)')}**  \nwrong with probability {card['misalignment']:.2f}",
        name="text",
    )
    if card["suggestion"]:
        body.md(
            f"Suggestion: **{escaped(card['suggestion'])}** (confidence {card['confidence'] or 0:.2f})", name="better"
        )
    answers = _row(body, "answers", gap=1)
    if card["suggestion"]:
        answers.btn("accept", label="Accept", icon="check", on_click=panel.accept, params=params, variant="contained")
    else:
        answers.btn("find", label="Suggest", icon="search", on_click=panel.find, params=params, variant="outlined")
    answers.btn(
        "fine", label="Caption is fine", icon="thumb_up", on_click=panel.fine, params=params, variant="outlined"
    )
    answers.btn("reject", label="Reject", icon="close", on_click=panel.reject, params=params, variant="outlined")


def _picture(frame: types.Object, image: str, alt: str, on_click: Callable, params: dict[str, Any]) -> None:
    view = types.ImageView(height="96px", width="96px", alt=alt, operator=on_click, params=params)
    frame.define_property("image", types.String(), default=image, view=view)


def _influence(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext) -> None:
    state = ctx.panel.state
    facts = state.influence or {}
    if not facts.get("drawn"):
        notice(root, "nothing", types.Notice, f"None of the pairs {_where(ctx)} was scored in this run.")
        return
    target = ctx.dataset.get_run_info(state.run_key).config.target
    judged = f"the loss of {target}" if target else "the loss of the other half of the pairs"
    root.md(
        f"What removing a pair would do to {escaped(judged)}: positive helps, negative harms. "
        f"{facts['drawn']:,} pairs are drawn; lasso some to see them.",
        name="judged",
    )
    root.plot("roles", layout=state.roles_layout, config=PLOT, height=HEIGHT, on_selected=panel.select_points)
    if not facts["harmful"]:
        notice(root, "harmless", types.Notice, f"No pair {_where(ctx)} harms.")
        return
    root.md(_what_if(state), name="what_if")
    root.plot(
        "removal",
        layout=state.removal_layout,
        config=PLOT,
        height=state.removal_layout["height"],
        on_click=panel.click_curve,
    )
    row = _row(root, "actions")
    row.int("remove", default=state.remove, label="Pairs to remove", on_change=panel.choose_remove)
    row.btn("show", label="Show them", icon="visibility", on_click=panel.show_harmful, variant="contained")
    row = _row(root, "asks")
    row.btn("forecast", label="Predict", icon="show_chart", on_click=panel.forecast, variant="outlined")
    row.btn("estimate", label="Estimate", icon="calculate", on_click=panel.estimate, variant="outlined")
    row.btn("verify", label="Verify by refitting", icon="fact_check", on_click=panel.verify, variant="outlined")


def _what_if(state: Any) -> str:
    facts = state.influence
    words = f"**What if** the {state.remove:,} most harmful of {facts['harmful']:,} harmful pairs were gone? "
    predicted = dict(facts["predicted"] or {})
    if not predicted:
        return words + (
            f"To first order the target loss would change by **{facts['change']:.3g} nats**; "
            "*Predict* gives the loss and accuracy in closed form."
        )
    before, after = predicted.pop("target_loss")
    words += f"The target loss is predicted to go from {before:.4g} to **{after:.4g} nats**"
    for name, (before, after) in predicted.items():
        words += f", {figure_name(name).lower()} from {before:.1%} to **{after:.1%}**"
    return words + "."


def _trace(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext) -> None:
    state = ctx.panel.state
    blame = state.blame
    find = panel.find_failures
    if not blame:
        root.md(
            "**No trace yet.** Find the queries that fail, open one of them and choose *Trace a failing query (ECIF)* "
            "above it: here you see which training pairs are to blame.",
            name="empty",
        )
        root.btn("failures", label="Find failing queries", icon="search", on_click=find, variant="contained")
        return
    row = _row(root, "kept")
    labels = {key: f"{key}: {query}" for key, query in state.traces.items()}
    row.enum(_trace_name(state), list(labels), default=state.trace, view=dropdown(labels), on_change=panel.choose_trace)
    row.btn("forget", label="Forget", icon="delete", on_click=panel.delete_trace, variant="outlined")
    if not blame["pairs"]:
        notice(root, "nothing", types.Notice, "No pair of the run is to blame for this query.")
        return
    _query(panel, root, blame)
    for number, note in enumerate(blame["notes"]):
        notice(root, f"note_{number}", types.Notice, note)
    root.plot(
        "blamed",
        layout=state.blamed_layout,
        config=PLOT,
        height=state.blamed_layout["height"],
        on_click=panel.click_blamed,
    )
    row = _row(root, "actions")
    row.int("removed", default=state.remove_traced, label="Pairs to remove", on_change=panel.choose_remove_traced)
    row.btn("show", label="Show them", icon="visibility", on_click=panel.show_blamed, variant="contained")
    row = _row(root, "asks")
    row.btn("verify", label="Verify by refitting", icon="fact_check", on_click=panel.verify_trace, variant="outlined")
    row.btn("failures", label="Find failing queries", icon="search", on_click=find, variant="outlined")


def _query(panel: EcifPanel, root: types.Object, blame: dict[str, Any]) -> None:
    """Who asks, and what removing the pairs to blame would do."""
    frame = root.h_stack("query", gap=2, align_y="center", variant="outline", pad=1)
    asking = blame["asking"]
    if asking:
        _picture(frame, asking["image"], "the query's image", panel.open_card, {"id": asking["id"]})
    error = "" if math.isnan(blame["standard_error"]) else f" ± {blame['standard_error']:.2g}"
    words = (
        f"**{escaped(asking['text'] or '(no caption)') if asking else escaped(blame['query'])}**  \n"
        f"Without the {blame['removed']:,} pairs that are most to blame, the {blame['kind']} is predicted to go from "
        f"{blame['before']:.3g} to **{blame['predicted']:.3g}**{error} nats"
    )
    if blame["measured"] is not None:
        words += f"; refitted, it goes to **{blame['measured']:.3g}**"
    if blame["kind"] == "margin":
        words += ". Above 0, the query is answered right"
    frame.md(words + ".", name="effect")


def _health(panel: EcifPanel, root: types.Object, ctx: foo.ExecutionContext) -> None:
    state = ctx.panel.state
    if state.sureness:
        sure, scored = state.sureness["sure"], state.sureness["scored"]
        root.md(
            f"**Spread over the rounds:** the values of {sure:,} of {scored:,} pairs {_where(ctx)} "
            f"({sure / scored:.0%}) are two standard errors or more away from 0, so that their sign is known.",
            name="spread_words",
        )
        root.plot("spread", layout=state.spread_layout, config=PLOT, height=HEIGHT)
    describe_run(ctx, root, state.run_key)


LAYOUTS: dict[str, Callable[..., None]] = {
    "suspects": _suspects,
    "review": _review,
    "influence": _influence,
    "trace": _trace,
    "health": _health,
}
"""By tab."""
