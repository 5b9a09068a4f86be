"""The panel's events without a browser: what it shows, what it tells the App, and what it leaves in the data."""

import json
import subprocess
import sys

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin.panel import panel_content
from fiftyone_ecif.plugin.panel.choices import keep_choices
from fiftyone_ecif.plugin.panel.figures import blame_figure
from tests.conftest import REPOSITORY
from tests.plugin.conftest import requests_of

PANEL = "@ecif/ecif/ecif_panel"


def as_in_javascript(value):
    """What comes back from the App, which writes 1.0 as 1."""
    return json.loads(
        json.dumps(value), parse_float=lambda text: int(text[:-2]) if text.endswith(".0") else float(text)
    )


class Panel:
    """The App's side of a panel: its state, and what it was last told to show.

    Args:
        samples: the dataset or view that the App shows
    """

    def __init__(self, samples):
        self.samples, self.state, self.data, self.requests, self.selected = samples, {}, {}, {}, []
        self.event("on_load")

    def event(self, method, **params):
        params |= {"panel_id": "panel", "__method__": method, "panel_state": self.state}
        kind = "view" if isinstance(self.samples, fo.DatasetView) else "dataset"
        result = foo.execute_operator(PANEL, {kind: self.samples, "params": params, "selected": self.selected})
        result.raise_exceptions()
        self.requests = {}
        for request in as_in_javascript(result.executor.to_json()["requests"]):
            name, given = request["operator_uri"], request["params"]
            self.requests[name] = given
            if name == "patch_panel_state":
                self.state |= given["state"]
            elif name == "patch_panel_data":
                self.data |= given["data"]
            elif name == "set_view":
                self.samples = fo.DatasetView._build(self.samples._dataset, given["view"])
        return self

    @property
    def shown(self):
        """The layout's properties by name."""
        return self.requests["show_panel_output"]["output"]["type"]["properties"]

    def words(self, name):
        return str(self.shown[name]).replace(r"\\", "\\")


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
        (lambda path: fo.Sample(filepath=path, caption="a", group=fo.Group().element("left")), "grouped"),
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
    suggested = panel.state["suspects"]["suggested"]
    assert (suggested is None) == (exact is None) and (exact is None or 0 <= suggested - exact <= 1 / 200)

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
    draw = panel_content.CONTENT["suspects"]

    def draw_late(ctx, view):
        draw(ctx, view)
        keep_choices(ctx, {"tab": "review"})  # another event was answered in the meantime

    monkeypatch.setitem(panel_content.CONTENT, "suspects", draw_late)
    panel.samples = scored_dataset.limit(9)
    panel.event("on_change_ctx")
    assert panel.requests == {}


def test_an_event_that_comes_before_the_panel_is_loaded_finds_a_state(scored_dataset):
    panel = Panel(scored_dataset)
    panel.state, panel.samples = {}, scored_dataset.limit(9)  # the App has not heard the answer yet
    assert panel.event("on_change_ctx").state["suspects"]["scored"] == 9


def test_lassoed_pairs_are_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    ids = panel.data["roles"][0]["ids"][:5]
    panel.event("select_points", data=[{"id": id} for id in ids])
    assert set(panel.samples.values("id")) == set(ids)
    panel.event("on_change_ctx")  # the App shows the selection
    scored_dataset.delete_samples(ids[:2])  # by another page
    panel.event("refresh")
    assert panel.state["influence"]["drawn"] == 58


def test_a_card_is_accepted_and_undone(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    card = next(card for card in panel.state["cards"] if card["suggestion"])
    panel.event("accept", id=card["id"])
    assert scored_dataset[card["id"]].caption == card["suggestion"]
    assert card["id"] not in [each["id"] for each in panel.state["cards"]]
    panel.event("undo")
    assert scored_dataset[card["id"]].caption == card["text"]
    first, second = (each["id"] for each in panel.state["cards"][:2])
    panel.event("fine", id=first)
    panel.event("reject", id=second)
    assert ecif.trusted(scored_dataset).values("id") == [first]
    assert not {first, second} & {each["id"] for each in panel.state["cards"]}
    assert panel.state["waiting"] == 58
    assert len(ecif.cleaned(scored_dataset)) == 59


def test_of_two_pages_the_second_is_told_what_the_first_did(scored_dataset):
    first, second = (Panel(scored_dataset).event("choose_tab", value="review") for _ in range(2))
    fixed, deleted, *_ = (card["id"] for card in first.state["cards"] if card["suggestion"])
    first.event("accept", id=fixed)
    assert "Nothing was replaced" in second.event("accept", id=fixed).requests["notify"]["message"]
    assert len(scored_dataset[fixed].caption_fixes) == 1
    scored_dataset.delete_samples([deleted])
    for event in ("accept", "fine", "reject", "find"):
        assert "deleted meanwhile" in first.event(event, id=deleted).requests["notify"]["message"]
    assert deleted not in [card["id"] for card in first.state["cards"]]


def test_a_read_only_caption_is_refused_in_words(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    card = next(card for card in panel.state["cards"] if card["suggestion"])
    field = scored_dataset.get_field("caption")
    field.read_only = True
    field.save()
    notification = panel.event("accept", id=card["id"]).requests["notify"]
    assert "read-only" in notification["message"] and notification["variant"] == "error"


def test_captions_are_no_markup(scored_dataset):
    markup = "<script>alert(1)</script> **bold** [a](b)"
    scored_dataset.set_field("caption", markup).save()
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    words = panel.words("card_0")
    assert r"\<script\>" in words and "<script>" not in words and "**bold**" not in words


def test_precision_is_measured_against_other_scores_in_their_better_direction(scored_dataset):
    from sklearn.metrics import average_precision_score

    planted = np.array(scored_dataset.values("planted"))
    scored_dataset.set_values("clip_score", [0.5 - 0.4 * wrong + 1e-3 * row for row, wrong in enumerate(planted)])
    panel = Panel(scored_dataset).event("choose_truth", value="field:planted")
    score, value = (np.array(each) for each in scored_dataset.values(["first_misalignment", "first_value"]))
    own = average_precision_score(planted, score)
    assert panel.state["measured"] == {"average": pytest.approx(own), "wrong": 12}
    names = [curve["name"] for curve in panel.data["precision"] if "name" in curve]
    drawn = {name: float(area) for name, area in (name[:-1].split(" (") for name in names)}
    assert list(drawn)[:2] == ["first_misalignment", "clip_score"]
    assert drawn["clip_score"] == 1.0  # low scores are wrong pairs
    rival = max(average_precision_score(planted, value), average_precision_score(planted, -value))
    assert drawn["first_value"] == pytest.approx(rival, abs=1e-3)


def test_the_removal_curve_adds_up_the_harmful_values(scored_dataset):
    panel = Panel(scored_dataset)
    unscored = scored_dataset.limit(5)
    unscored.set_field("first_value", None).save()
    panel.event("choose_tab", value="influence")
    harmful = np.sort([value for value in scored_dataset.values("first_value") if value is not None and value < 0])
    curve = panel.data["removal"][0]
    assert curve["y"][1:] == pytest.approx(harmful.cumsum()[np.array(curve["x"][1:]) - 1])
    panel.event("choose_remove", value=7)
    assert panel.state["influence"]["change"] == pytest.approx(harmful[:7].sum())
    assert panel.event("show_harmful").samples.values("first_value") == harmful[:7].tolist()


def test_a_reload_brings_back_the_choices_and_a_renamed_run_is_found(scored_dataset):
    Panel(scored_dataset).event("choose_tab", value="influence").event("choose_threshold", value=0.7)
    assert (Panel(scored_dataset).state["tab"], Panel(scored_dataset).state["threshold"]) == ("influence", 0.7)
    panel = Panel(scored_dataset)
    ecif.rename_run(scored_dataset, "first", "second")  # on another page
    assert panel.event("refresh").state["run_key"] == "second"
    scored_dataset.delete_sample_field("second_value")
    assert panel.event("refresh").state["problem"]


def test_the_health_of_a_run_is_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="health")
    assert {"settings", "health", "timings"} <= set(panel.shown)
    value, spread = (np.array(each) for each in scored_dataset.values(["first_value", "first_value_std"]))
    assert panel.state["sureness"] == {"sure": int((abs(value) >= 2 * spread / 2).sum()), "scored": 60}  # four rounds
    assert len(scored_dataset.match(F("tags").length() > 0)) == 0  # looking changes nothing


def test_opening_the_panel_leaves_torch_out(scored_dataset):
    """Importing it takes seconds, which is not the time to open a panel in."""
    scored_dataset.persistent = True  # the other process deletes what is not, when it ends
    program = (
        "import sys, fiftyone as fo; from tests.plugin.test_panel import Panel; "
        f"panel = Panel(fo.load_dataset({scored_dataset.name!r})); "
        "[panel.event('choose_tab', value=tab) for tab in ('review', 'influence', 'health')]; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"


def test_predicted_removals_are_drawn_for_the_view_that_they_are_of(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    assert len(panel.data["removal"]) == 1
    requests = requests_of(foo.get_operator("@ecif/ecif/forecast_removal")(scored_dataset, "first"))
    rows = requests["show_output"]["results"]["figures"]
    panel.event("refresh")
    loss, recall = panel.data["removal"][1:]
    assert len(rows) == len(loss["x"]) == len(recall["y"])
    predicted = [float(row["target_loss"]) - float(rows[0]["target_loss"]) for row in rows]
    assert loss["y"] == pytest.approx(predicted, abs=1e-4)
    panel.event("choose_remove", value=loss["x"][2])
    assert "recall at 1 from" in panel.words("what_if")
    panel.samples = scored_dataset.limit(50)
    assert len(panel.event("on_change_ctx").data["removal"]) == 1


def test_a_new_trace_is_turned_to_and_shown_with_its_effects(scored_dataset):
    results = ecif.load_results(scored_dataset, "first")
    panel = Panel(scored_dataset)
    query = ecif.find_failures(scored_dataset, "first", progress=False).first()
    trace = results.trace(query, k=5, progress=False)
    panel.event("refresh")
    assert (panel.state["tab"], panel.state["trace"]) == ("trace", trace.key)
    blame = panel.state["blame"]
    assert blame["asking"]["text"] == query.caption and blame["measured"] is None
    assert blame["predicted"] == pytest.approx(trace.predicted_effect(len(trace)).predicted)
    drawn = [id for group in panel.data["blamed"] for id in group.get("ids", [])]
    assert sorted(drawn) == sorted(trace.ids)

    panel.event("choose_remove_traced", value=2)
    requests = requests_of(foo.get_operator("@ecif/ecif/verify_trace")(scored_dataset, "first", n=2))
    panel.event("refresh")
    measured = panel.state["blame"]["measured"]
    assert measured == results.load_trace(trace.key).predicted_effect(2).measured
    assert f"{measured:.4g}" in str(requests["show_output"]).replace("\\", "")
    assert panel.event("show_blamed").samples.values("id") == trace.ids[:2]
    scored_dataset.delete_samples(trace.ids[:1])  # by another page
    assert "(deleted)" in str(panel.event("refresh").data["blamed"])
    panel.event("delete_trace")
    assert "No trace yet" in panel.words("empty")


def test_captions_in_pictures_are_no_markup():
    row = {"id": "0", "value": -1.0, "value_positive": -1.0, "value_negative": 0.0, "text": "<b>bold</b>"}
    assert "&lt;b&gt;" in str(blame_figure([row], 1)) and "<b>" not in str(blame_figure([row], 1))
