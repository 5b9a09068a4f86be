"""The panel “ECIF”: a run seen as pictures, its suspects reviewed one by one, and what removing pairs would do.

Here is what all tabs share: loading, following the grid, running jobs, and the choice of run and tab. What a tab shows,
how, and the events on it are in :mod:`fiftyone_ecif.plugin.panel.tabs`.
"""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset import checks
from fiftyone_ecif.dataset.arguments import Choice, SampleId, Text, WholeNumber, shown
from fiftyone_ecif.dataset.fields import METHOD, SCORE_FIELDS, SHIFT_FIELDS
from fiftyone_ecif.dataset.run.config import check_any_run, run_methods
from fiftyone_ecif.plugin.forms import dropdown, escaped, given, notice, one_slice
from fiftyone_ecif.plugin.jobs import cancel_job, running_jobs
from fiftyone_ecif.plugin.panel.answers import has_moved, in_few_words, is_following, is_new
from fiftyone_ecif.plugin.panel.choices import PANEL, keep_choices, kept_choices
from fiftyone_ecif.plugin.panel.pieces import row
from fiftyone_ecif.plugin.panel.tab import Entry, Tab, event, events_of
from fiftyone_ecif.plugin.panel.tabs import TABS
from fiftyone_ecif.plugin.panel.view import base_view, fields_before, looked_at, selection
from fiftyone_ecif.plugin.requirements import HOW_TO_INSTALL, missing_packages, missing_words

TAB = Choice({tab.name: tab.label for tab in TABS})


class JobNotes:
    """What the state says of running jobs: a list of what each is called, how far it is, and what cancels it."""

    def __call__(self, name: str, value: Any) -> Any:
        jobs = value if isinstance(value, list) else [None]
        if not all(isinstance(job, dict) and all(isinstance(job.get(key), str) for key in JOB_WORDS) for job in jobs):
            raise ValueError(f"{name} must be a list of jobs, not {shown(value)}.")
        return value


JOB_WORDS = ("id", "title", "label")

OWN = (
    Entry("run_key", Text(), "choose_run", kept=True),
    Entry("tab", TAB, "choose_tab", kept=True, begins_with="dataset", first=TABS[0].name),
    Entry("jobs", JobNotes()),
    Entry("problem", Text()),
    Entry("turns", WholeNumber()),
)
"""The entries of the state that are no tab's."""

SHOWN = tuple(entry.name for entry in OWN if entry.kept)
"""The choices that decide what is seen."""

ENTRIES = [*OWN, *(entry for tab in TABS for entry in tab.entries)]
KEPT = tuple(entry.name for entry in ENTRIES if entry.kept)
"""The choices that all pages of a dataset's panel share, and that a reload brings back."""

CHOSEN = {entry.chosen_by: entry.name for entry in ENTRIES if entry.chosen_by}
"""The entry of the state that an event chooses, by the name of its handler."""

FIFTYONES = ("on_startup", "on_load", "on_unload", "on_change_dataset", "on_change_ctx")
"""The events that FiftyOne itself sends."""

MILLISECONDS_BETWEEN_LOOKS = 2000


def _kept(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """What FiftyOne's store keeps of the panel's choices, as far as it can stand in the state."""
    stored = kept_choices(ctx)
    return {
        entry.name: stored[entry.name]
        for entry in ENTRIES
        if entry.kept and entry.name in stored and entry.is_sound(stored[entry.name])
    }


def _differ(state: Any, kept: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether a panel's state is not what was last chosen, as far as that is kept."""
    return any(kept[name] != state.get(name) for name in names if name in kept)


def _first(*begun: str) -> dict[str, Any]:
    """The values of the entries of the state that begin anew with a dataset, a run or a view."""
    return {entry.name: entry.first for entry in ENTRIES if entry.begins_with in begun}


class EcifPanel(foo.Panel):
    """The panel, in which a run is seen, trusted and repaired."""

    risk = "high"  # its events repair captions and delete traces

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tabs = [kind(self) for kind in TABS]
        self.tabs: dict[str, Tab] = {tab.name: tab for tab in tabs}
        self.events = set(events_of(type(self)))
        for tab in tabs:
            for name, handler in tab.events().items():
                if hasattr(self, name):
                    raise TypeError(f"Two events of the panel are named {name!r}; one of them is the {tab.name} tab's.")
                setattr(self, name, handler)  # FiftyOne calls it by its name
                self.events.add(name)

    @property
    def config(self) -> foo.PanelConfig:
        """The panel's settings: it opens beside the samples grid, once."""
        shown = "\n".join(f"*{tab.label}*: {tab.help}  " for tab in TABS)  # those of both kinds of run
        return foo.PanelConfig(
            name=PANEL,
            label="ECIF",
            icon="balance",  # by its name: the App finds no file of a panel's plugin,
            category=foo.Categories.CURATE,
            surfaces="grid",
            allow_multiple=False,
            help_markdown=f"A run of **ECIF: compute influence** or **compute shift risk**.\n\n{shown}",
        )

    @property
    def risk_level(self) -> Any:
        """As :attr:`EcifOperator.risk` says; FiftyOne's settings of a panel take no level."""
        return types.RiskLevel(self.risk)

    # What FiftyOne calls

    def execute(self, ctx: foo.ExecutionContext) -> object:
        """Answer an event, unless it brings nothing new; one that cannot be answered changes nothing."""
        known, result, method = dict(ctx.panel_state), None, ctx.params.get("__method__")
        self._mend(ctx, method)
        sound = dict(ctx.panel_state)
        try:
            if method not in (None, *FIFTYONES, *self.events):
                raise ValueError(f"The panel has no event {shown(method)}.")
            if not is_new(ctx, CHOSEN.get(method)):
                return None
            result = super().execute(ctx)
        except ValueError as error:
            self._refuse(ctx, sound, error)
        if is_following(ctx) and _differ(ctx.panel.state, _kept(ctx), SHOWN):
            # Something else was chosen in the meantime, and the answer to that event shows it.
            ctx.executor._requests.clear()
        in_few_words(ctx, known)
        return result

    def _mend(self, ctx: foo.ExecutionContext, method: Any) -> None:
        """Put what an event begins with in place of what the state that it brings cannot hold, or does not."""
        known = dict(ctx.panel_state)
        began = any(known.get(entry.name) is not None for entry in ENTRIES)
        unsound = [entry for entry in ENTRIES if not entry.is_sound(known.get(entry.name))]
        if not began and method in self.events:
            self._begin(ctx)
        elif began and unsound:
            ctx.panel.state.set({entry.name: entry.first for entry in unsound})

    def _refuse(self, ctx: foo.ExecutionContext, before: dict[str, Any], error: ValueError) -> None:
        """Show the panel as it was before an event, and say why the event changed nothing."""
        ctx.executor._requests.clear()
        ctx.panel_state.clear()
        ctx.panel_state.update(before)
        ctx.ops.notify(str(error), variant="error")
        self.show(ctx)
        ctx.ops.show_panel_output(self.render(ctx))

    def on_load(self, ctx: foo.ExecutionContext) -> None:
        """Begin where the dataset was left."""
        self._begin(ctx)
        self.show(ctx)

    def on_change_dataset(self, ctx: foo.ExecutionContext) -> None:
        """Begin anew on another dataset."""
        self.on_load(ctx)

    def on_change_ctx(self, ctx: foo.ExecutionContext) -> None:
        """Follow the view and the selected samples. The panel's own selection at the view's end changes no picture.

        The event carries the choices that its page knew when it sent it; a later choice counts, whatever its page.
        """
        moved, state, kept = has_moved(ctx), ctx.panel.state, _kept(ctx)
        if not moved and not _differ(state, kept, KEPT):
            return
        if _differ(state, kept, ("tab",)):
            state.turns = (state.turns or 0) + 1
        state.set(kept | (_first("view") if moved else {}))
        self.show(ctx)

    def render(self, ctx: foo.ExecutionContext) -> types.Property:
        """Lay out what the state says."""
        root, state = types.Object(), ctx.panel.state
        self._lay_out_jobs(root, state)
        runs = _shown_runs(ctx)
        if not state.run_key or not runs:
            self._lay_out_beginning(root, state)
            return types.Property(root)
        self._lay_out_menu(root, ctx, runs)
        if state.problem:
            notice(root, "problem_words", types.Warning, state.problem)
        else:
            try:
                self.tabs[state.tab].layout(root, ctx)
            except ValueError as error:  # the run is gone since its content was computed
                notice(root, "problem_words", types.Warning, str(error))
        return types.Property(root)

    # Choices

    @event
    def choose_run(self, ctx: foo.ExecutionContext) -> None:
        """Choose another run."""
        run_key = given(ctx, "value", Text())
        check_any_run(ctx.dataset, run_key)
        ctx.panel.state.set({"run_key": run_key} | _first("run", "view"))
        self.show(ctx)

    @event
    def choose_tab(self, ctx: foo.ExecutionContext) -> None:
        """Choose another tab."""
        ctx.panel.state.tab = TAB("The tab", ctx.params.get("value"))
        self.show(ctx)

    # Other events that concern several tabs or none

    @event
    def refresh(self, ctx: foo.ExecutionContext) -> None:
        """Look again, since a job may be done."""
        self.show(ctx)

    @event
    def compute(self, ctx: foo.ExecutionContext) -> None:
        """Compute influence."""
        self.prompt(ctx, "compute_influence")

    @event
    def compute_shift(self, ctx: foo.ExecutionContext) -> None:
        """Compute a shift."""
        self.prompt(ctx, "compute_shift")

    @event
    def cancel(self, ctx: foo.ExecutionContext) -> None:
        """Stop a running job."""
        cancel_job(ctx, given(ctx, "id", Text()))
        ctx.ops.notify("ECIF: the job will stop at its next step", variant="info")

    @event
    def clear_selection(self, ctx: foo.ExecutionContext) -> None:
        """Show the view again that the panel's selection was made in, and on the thumbnails what they showed then."""
        base, fields = base_view(ctx), fields_before(ctx)
        ctx.ops.set_view(base) if len(base._serialize()) else ctx.ops.clear_view()
        if fields:
            ctx.ops.set_active_fields(fields)

    @event
    def open_sample(self, ctx: foo.ExecutionContext) -> None:
        """Open the sample that was clicked, in a picture or on a card."""
        id = given(ctx, "id", SampleId())
        if id is not None:
            ctx.ops.open_sample(id=id)

    # What the tabs ask for

    def prompt(self, ctx: foo.ExecutionContext, operator: str, **params: object) -> None:
        """Open an operator's form; look again when the operator is done."""
        ctx.prompt(f"@ecif/ecif/{operator}", params=params, on_success=self.refresh)

    def changed(self, ctx: foo.ExecutionContext, message: str) -> None:
        """Let the grid and the panel show a change of the data."""
        ctx.ops.reload_dataset()
        ctx.ops.notify(message, variant="success")
        self.show(ctx)

    def show(self, ctx: foo.ExecutionContext) -> None:
        """Compute what the chosen tab shows, or say why there is nothing to see."""
        state = ctx.panel.state
        if state.tab is None:  # the App may send an event before the state of loading has come back to it
            self._begin(ctx)
        state.jobs = [{name: getattr(job, name) for name in JOB_WORDS} for job in running_jobs(ctx)]
        runs = _shown_runs(ctx)
        if state.run_key not in runs:
            state.run_key = next(reversed(runs), None)
            keep_choices(ctx, {"run_key": state.run_key})
        state.problem = _problem(ctx, state.run_key, runs.get(state.run_key))
        if state.problem or not state.run_key:
            return
        self._turn_to_kind(state, runs[state.run_key])
        if not is_following(ctx):
            keep_choices(ctx, {name: state.get(name) for name in KEPT})
        self._turn_to_news(ctx)
        tab = self.tabs[state.tab]
        try:
            tab.content(ctx, looked_at(ctx))
            state.set({"menu": {"run": state.run_key}, _tab_field(state): state.tab} | tab.fields(state))
        except ValueError as error:  # what was there a moment ago is gone: another page deleted it
            state.problem = str(error)

    def _begin(self, ctx: foo.ExecutionContext) -> None:
        """Set the state that the events stand on."""
        ctx.panel.state.set(_first("dataset", "run", "view") | _kept(ctx))

    def _turn_to_kind(self, state: Any, method: str) -> None:
        """Turn to the first tab that is about such runs, unless the chosen one is."""
        if self.tabs[state.tab].method != method:
            first = next(tab for tab in self.tabs.values() if tab.method == method)
            state.set({"tab": first.name, "turns": (state.turns or 0) + 1})

    def _turn_to_news(self, ctx: foo.ExecutionContext) -> None:
        """Turn to a tab that has something new to show."""
        state = ctx.panel.state
        for tab in self.tabs.values():
            if tab.method == self.tabs[state.tab].method and tab.has_news(ctx):
                state.set({"tab": tab.name, "turns": (state.turns or 0) + 1})
                kept = {entry.name: state.get(entry.name) for entry in tab.entries if entry.kept}
                keep_choices(ctx, {"tab": tab.name} | kept)

    # The layout around the tabs

    def _lay_out_jobs(self, root: types.Object, state: Any) -> None:
        """Show what is running, with a way to stop it."""
        for number, job in enumerate(state.jobs or []):
            running = row(root, f"job_{number}")
            running.md(f"**Running:** {escaped(job['title'])}: {escaped(job['label'])}", name="text")
            params = {"id": job["id"]}
            running.btn("cancel", label="Cancel", on_click=self.cancel, params=params, variant="outlined")
        if state.jobs:
            timer = types.TimerView(interval=MILLISECONDS_BETWEEN_LOOKS, on_interval=self.refresh)
            root.view("timer", timer)

    def _lay_out_beginning(self, root: types.Object, state: Any) -> None:
        """Say why there is no run, or how to begin."""
        if state.problem:
            notice(root, "problem_words", types.Warning, state.problem)
            return
        root.md(
            "**No run yet.** Compute influence to see which captions are probably wrong, which pairs harm the model, "
            "and what removing them would do. Compute shift risk to see how far other samples are from those that the "
            "model was trained on.",
            name="empty",
        )
        root.btn("compute", label="Compute influence", on_click=self.compute, variant="contained")
        root.btn("compute_shift", label="Compute shift risk", on_click=self.compute_shift, variant="outlined")

    def _lay_out_menu(self, root: types.Object, ctx: foo.ExecutionContext, runs: dict[str, str]) -> None:
        """Show the choice of run and tab, and what concerns all tabs."""
        menu = row(root, "menu", pad=1)
        state, newest = ctx.panel.state, {key: f"Run: {key}" for key in reversed(runs)}
        menu.enum("run", list(newest), default=state.run_key, view=dropdown(newest), on_change=self.choose_run)
        method = self.tabs[state.tab].method
        again = self.compute if method == METHOD else self.compute_shift
        menu.btn("again", label="New run", icon="add", on_click=again, variant="outlined")
        options = {"icon": "filter_alt_off", "variant": "outlined", "disabled": not selection(ctx)}
        menu.btn("clear", label="Clear selection", on_click=self.clear_selection, **options)
        tabs = types.TabsView(variant="fullWidth")
        for tab in TABS:
            if tab.method == method:
                tabs.add_choice(tab.name, label=tab.label)
        # The App's tabs and dropdowns heed a new default only if they are new themselves, hence under another name.
        root.enum(_tab_field(state), tabs.values(), default=state.tab, view=tabs, on_change=self.choose_tab)


def _tab_field(state: Any) -> str:
    """The name of the choice among tabs."""
    return f"tab_{state.turns or 0}"


def _shown_runs(ctx: foo.ExecutionContext) -> dict[str, str]:
    """The runs that a tab is about, oldest first, with what each is listed under."""
    methods = {tab.method for tab in TABS}
    return {key: method for key, method in run_methods(ctx.dataset).items() if method in methods}


def _problem(ctx: foo.ExecutionContext, run_key: str | None, method: str | None) -> str | None:
    """Why nothing can be shown of this dataset and run; None if something can."""
    missing = missing_packages()
    if missing:
        return f"{missing_words(missing)} {HOW_TO_INSTALL}"
    if run_key is not None:
        needed = SCORE_FIELDS if method == METHOD else [SHIFT_FIELDS["scenario"]]
        fields = [field.name(run_key) for field in needed]
        gone = [name for name in fields if not ctx.dataset.has_sample_field(name)]
        return f"The field {gone[0]!r} was deleted. Compute the run again." if gone else None
    try:
        checks.check_collection(one_slice(ctx.dataset), "This dataset")
    except ValueError as error:
        return str(error)
    if not checks.text_fields(ctx.dataset):
        return "This dataset has no captions. Add a string field that holds them, or a Classification field."
    return None
