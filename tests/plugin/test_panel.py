"""The panel's events without a browser: what it shows, what it tells the App, and what it leaves in the data."""

import subprocess
import sys

import fiftyone as fo
import numpy as np
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import METHOD
from fiftyone_ecif.plugin.jobs import JobRecord
from fiftyone_ecif.plugin.panel.choices import keep_choices
from fiftyone_ecif.plugin.panel.panel import CHOSEN, ENTRIES, EcifPanel
from fiftyone_ecif.plugin.panel.tabs import TABS
from fiftyone_ecif.plugin.panel.tabs.suspects import SuspectsTab
from tests.conftest import REPOSITORY
from tests.support.headless_panel import Panel
from tests.support.operators import COMPUTE, app_context


def test_without_a_run_the_panel_says_how_to_begin(pair_dataset):
    panel = Panel(pair_dataset)
    assert "No run yet" in panel.words("empty")
    (prompt,) = (each for name, each in panel.event("compute").requests.items() if "prompt" in name)
    assert "@ecif/ecif/compute_influence" in prompt.values()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: fo.Sample(filepath=path), "no captions"),
        (lambda path: fo.Sample(filepath="film.mp4", caption="a film"), "video"),
        (lambda path: fo.Sample(filepath="film.mp4", caption="a", group=fo.Group().element("left")), "video"),
    ],
)
def test_datasets_that_cannot_be_scored_are_told_why(pair_rows, make, words):
    dataset = fo.Dataset()
    sample = make(pair_rows[0][0])
    if sample.has_field("group"):
        dataset.add_group_field("group", default="left")
    dataset.add_sample(sample)
    assert words in Panel(dataset).words("problem_words")
    dataset.delete()


def test_the_histogram_counts_all_pairs_and_a_selection_filters_the_grid(scored_dataset):
    panel = Panel(scored_dataset)
    scores = np.array(scored_dataset.values("first_misalignment"))
    assert panel.data["histogram"][0]["y"] == np.histogram(scores, 40, (0, 1))[0].tolist()
    assert panel.state["suspects"]["count"] == (scores >= 0.5).sum()
    assert panel.state["suspects"]["expected_precision"] == pytest.approx(scores[scores >= 0.5].mean())

    exact = ecif.load_results(scored_dataset, "first").suggested_threshold()
    assert panel.state["suspects"]["suggested"] == exact

    again = [{"trace_idx": 0, "idx": 30}, {"trace_idx": 0, "idx": 39}]
    panel.event("select_bars", data=[*again, {"trace_idx": 1, "idx": 2}])
    assert set(panel.requests) == {"set_view", "set_active_fields"}  # the grid first: nothing of the panel is drawn
    assert panel.samples.values("first_misalignment") == sorted(scores[scores >= 0.75], reverse=True)
    panel.event("on_change_ctx")  # the App says that the view changed
    assert set(panel.requests) == {"show_panel_output"}  # the picture is not narrowed to what was selected on it
    assert selected_range(panel) == [0.75, 1] and can_clear(panel)
    assert panel.event("select_bars", data=again).requests == {}  # Plotly says it once more when it is drawn anew
    assert panel.event("select_bars", data=[]).requests == {}  # as the App sends after a mere click
    assert sum(panel.event("refresh").data["histogram"][0]["y"]) == 60

    for _ in range(2):
        panel.event("clear_selection")
        assert set(panel.requests) == {"clear_view"}
        panel.samples = scored_dataset
        panel.event("on_change_ctx")
        assert selected_range(panel) is None and not can_clear(panel)
        panel.event("select_bars", data=again).event("on_change_ctx")
        assert selected_range(panel) == [0.75, 1]


def selected_range(panel):
    """The range that is marked on the histogram."""
    shapes = panel.shown["histogram"]["view"]["layout"]["shapes"]
    return next(([shape["x0"], shape["x1"]] for shape in shapes if shape["type"] == "rect"), None)


def can_clear(panel):
    return not panel.shown["menu"]["type"]["properties"]["clear"]["view"]["disabled"]


def test_a_selection_is_told_from_what_the_numbers_are_about(scored_dataset):
    panel = Panel(scored_dataset).event("show_suspects").event("on_change_ctx")
    assert "60** scored pairs in view before the panel's selection" in panel.words("facts")
    panel.event("clear_selection")
    panel.samples = scored_dataset
    assert "60** scored pairs in view;" in panel.event("on_change_ctx").words("facts")


def test_what_thumbnails_showed_before_a_selection_is_shown_again(scored_dataset):
    panel = Panel(scored_dataset)
    panel.active_fields = ["caption", "ground_truth"]
    for event in ("show_suspects", "show_vague"):
        panel.event(event)
        panel.active_fields = panel.requests["set_active_fields"]["fields"]
        panel.event("on_change_ctx")
    panel.event("clear_selection")
    assert panel.requests["set_active_fields"]["fields"] == ["caption", "ground_truth"]


def test_no_field_lies_where_the_state_has_an_entry(scored_dataset):
    """The App writes a choice into the state before it reports it, and what is known already is not answered."""
    half, embeddings = scored_dataset.limit(30), {"image": "image_embedding"}
    ecif.compute_shift(half, scored_dataset.skip(30), embeddings=embeddings, resamples=0, progress=False)
    panel = Panel(scored_dataset)
    assert not set(panel.shown) & {entry.name for entry in ENTRIES}
    panel.event("choose_run", value="first")
    tabs = [tab for tab in TABS if tab.method == METHOD]
    for tab in (*tabs[1:], tabs[0]):
        panel.event("choose_tab", value=tab.name)
        assert not set(panel.shown) & {entry.name for entry in ENTRIES}


def test_the_highlighted_tab_is_the_one_that_is_shown_whatever_the_page_had_in_its_place(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    panel.state |= {"turns": 1, "tab_1": "review"}  # an answer to an earlier event came last
    panel.event("choose_tab", value="suspects")
    (field,) = (name for name in panel.shown if name.startswith("tab_"))
    assert panel.state.get(field, panel.shown[field]["default"]) == panel.state["tab"] == "suspects"


def test_the_panel_has_an_icon_that_the_app_finds():
    assert not set("/.") & set(EcifPanel().config.icon)  # of a path it does not know the plugin


def test_the_panel_follows_a_view_of_the_user(scored_dataset):
    panel = Panel(scored_dataset.limit(12))
    assert panel.state["suspects"]["scored"] == 12
    panel.event("show_suspects")
    assert set(panel.samples.values("id")) <= set(scored_dataset.limit(12).values("id"))
    panel.samples = panel.samples.limit(1)  # the user adds a stage of their own
    assert panel.event("on_change_ctx").state["suspects"]["scored"] == 1


def test_the_panel_follows_the_selected_samples(scored_dataset):
    panel = Panel(scored_dataset.limit(40))
    panel.selected = scored_dataset.limit(5).values("id")
    assert panel.event("on_change_ctx").state["suspects"]["scored"] == 5
    assert "5** scored pairs selected" in panel.words("facts")
    threshold = max(scored_dataset.limit(5).values("first_misalignment"))
    panel.event("choose_threshold", value=threshold).event("show_suspects")
    assert set(panel.samples.values("id")) <= set(panel.selected)
    panel.selected = []  # as the App does where the view changes
    assert panel.event("on_change_ctx").state["suspects"]["scored"] == 40
    panel.event("clear_selection")
    assert len(panel.samples) == 40


def test_what_the_app_says_again_is_not_answered(scored_dataset):
    panel = Panel(scored_dataset)
    for event, value in (("on_change_ctx", None), ("choose_tab", "suspects"), ("choose_threshold", 0.5)):
        assert panel.event(event, value=value).requests == {}


def test_each_of_two_pages_is_told_of_a_changed_view(scored_dataset):
    pages = [Panel(scored_dataset) for _ in range(2)]  # of the same panel
    for samples in (scored_dataset.limit(9), scored_dataset.view()):
        for panel in pages:
            panel.samples = samples
            panel.event("on_change_ctx")
            assert sum(panel.data["histogram"][0]["y"]) == len(samples)
    pages[0].event("show_suspects")
    for panel in pages:
        panel.samples = pages[0].samples
        panel.event("on_change_ctx")
        assert can_clear(panel) and sum(panel.data["histogram"][0]["y"]) == 60


def test_an_event_that_knows_no_later_choice_does_not_undo_it(scored_dataset):
    panel = Panel(scored_dataset)
    before = dict(panel.state)
    panel.event("choose_tab", value="review")
    shown = panel.words("cards") if "cards" in panel.shown else None
    panel.samples, panel.state = scored_dataset.limit(9), before  # sent before the answer to the choice had come
    panel.event("on_change_ctx")
    assert panel.state["tab"] == "review" and ("cards" in panel.shown) == (shown is not None)
    assert "histogram" not in panel.shown


def test_a_choice_that_is_made_while_an_event_is_answered_is_shown(scored_dataset, monkeypatch):
    panel = Panel(scored_dataset)
    draw = SuspectsTab.content

    def draw_late(tab, ctx, view):
        draw(tab, ctx, view)
        keep_choices(ctx, {"tab": "review"})  # another event was answered in the meantime

    monkeypatch.setattr(SuspectsTab, "content", draw_late)
    panel.samples = scored_dataset.limit(9)
    panel.event("on_change_ctx")
    assert panel.requests == {}


def test_an_event_that_comes_before_the_panel_is_loaded_finds_a_state(scored_dataset):
    panel = Panel(scored_dataset)
    panel.state, panel.samples = {}, scored_dataset.limit(9)  # the App has not heard the answer yet
    assert panel.event("on_change_ctx").state["suspects"]["scored"] == 9


def test_a_reload_brings_back_the_choices_and_a_renamed_run_is_found(scored_dataset):
    Panel(scored_dataset).event("choose_tab", value="influence").event("choose_threshold", value=0.7)
    assert (Panel(scored_dataset).state["tab"], Panel(scored_dataset).state["threshold"]) == ("influence", 0.7)
    panel = Panel(scored_dataset)
    ecif.rename_run(scored_dataset, "first", "second")  # on another page
    assert panel.event("refresh").state["run_key"] == "second"
    scored_dataset.delete_sample_field("second_value")
    assert panel.event("refresh").state["problem"]


def test_opening_the_panel_leaves_torch_out(scored_dataset):
    """Importing it takes seconds, which is not the time to open a panel in."""
    scored_dataset.persistent = True  # the other process deletes what is not, when it ends
    program = (
        "import sys, fiftyone as fo; from tests.support.headless_panel import Panel; "
        f"panel = Panel(fo.load_dataset({scored_dataset.name!r})); "
        "[panel.event('choose_tab', value=tab) for tab in ('review', 'influence', 'health')]; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"


def test_every_handler_that_a_layout_names_is_on_the_panel_and_every_handler_is_named(scored_dataset, pair_dataset):
    empty, panel = Panel(pair_dataset), Panel(scored_dataset)
    named = empty.handlers() | empty.event("compute").handlers() | panel.handlers()
    named |= panel.event("choose_tab", value="trace").handlers()  # without a trace
    ecif.load_results(scored_dataset, "first").trace(scored_dataset.first().id, k=3, progress=False)
    ecif.apply_suggestions(scored_dataset.exists("first_suggestion.label")[:1], "first")
    worst = ecif.to_review(scored_dataset, "first")[:1]
    for name in ("first_suggestion", "first_candidates"):
        worst.set_field(name, None).save()
    scored_dataset.set_values("first_error_slice", ["captions with “a”"] * 60)
    JobRecord(app_context(COMPUTE, scored_dataset).store, "Computing")
    panel.event("choose_threshold", value=0.05)
    for tab in TABS:
        named |= panel.event("choose_tab", value=tab.name).handlers() | panel.event("refresh").handlers()
    panel.event("choose_tab", value="review")
    named |= panel.event("audit").handlers()
    half, embeddings = scored_dataset.limit(30), {"image": "image_embedding"}
    ecif.compute_shift(half, scored_dataset.skip(30), embeddings=embeddings, resamples=0, progress=False)
    named |= panel.event("choose_run", value="shift").handlers()
    registered = EcifPanel()
    assert [name for name in named if not callable(getattr(registered, name, None))] == []
    events = {name for tab in registered.tabs.values() for name in tab.events()}
    assert events | set(CHOSEN) | {"refresh", "cancel", "clear_selection", "open_sample"} <= named


def test_two_tabs_cannot_have_an_event_of_the_same_name(monkeypatch):
    class Twin(SuspectsTab):
        name = "twin"

    monkeypatch.setattr("fiftyone_ecif.plugin.panel.panel.TABS", (SuspectsTab, Twin))
    with pytest.raises(TypeError, match="'choose_threshold'"):
        EcifPanel()


def test_a_trace_of_another_dataset_is_no_news(scored_dataset, scored_once):
    other = scored_once.clone()
    ecif.load_results(other, "first").trace(other.first().id, k=3, progress=False)
    panel = Panel(scored_dataset)
    panel.samples = other
    assert panel.event("on_change_dataset").state["tab"] == "suspects"
