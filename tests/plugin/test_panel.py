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
from tests.conftest import REPOSITORY

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
        self.samples, self.state, self.data, self.requests = samples, {}, {}, {}
        self.event("on_load")

    def event(self, method, **params):
        params |= {"panel_id": "panel", "__method__": method, "panel_state": self.state}
        kind = "view" if isinstance(self.samples, fo.DatasetView) else "dataset"
        result = foo.execute_operator(PANEL, {kind: self.samples, "params": params})
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
    assert panel.shown["compute"]["view"]["operator"] == "@ecif/ecif/compute_influence"


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

    panel.event(
        "select_bars", data=[{"trace_idx": 0, "idx": 30}, {"trace_idx": 0, "idx": 39}, {"trace_idx": 1, "idx": 2}]
    )
    assert panel.samples.values("first_misalignment") == sorted(scores[scores >= 0.75], reverse=True)
    panel.event("on_change_view")  # the App says that the view changed
    assert sum(panel.data["histogram"][0]["y"]) == 60  # the picture is not narrowed to what was selected on it
    assert panel.state["selected"] == [0.75, 1.0]

    panel.event("select_bars", data=[])  # as the App sends after a mere click
    assert "set_view" not in panel.requests
    panel.event("clear_selection")
    assert "clear_view" in panel.requests


def test_the_panel_follows_a_view_of_the_user(scored_dataset):
    panel = Panel(scored_dataset.limit(12))
    assert panel.state["suspects"]["scored"] == 12
    panel.event("show_suspects")
    assert set(panel.samples.values("id")) <= set(scored_dataset.limit(12).values("id"))
    panel.samples = panel.samples.limit(1)  # the user adds a stage of their own
    assert panel.event("on_change_view").state["suspects"]["scored"] == 1


def test_an_event_that_comes_before_the_panel_is_loaded_finds_a_state(scored_dataset):
    panel = Panel(scored_dataset)
    panel.state = {}
    assert panel.event("on_change_view").state["suspects"]["scored"] == 60


def test_lassoed_pairs_are_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="influence")
    ids = panel.data["roles"][0]["ids"][:5]
    panel.event("select_points", data=[{"id": id} for id in ids])
    assert set(panel.samples.values("id")) == set(ids)
    scored_dataset.delete_samples(ids[:2])  # by another page
    panel.event("on_change_view")
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


def test_captions_are_no_markup(scored_dataset):
    markup = "<script>alert(1)</script> **bold** [a](b)"
    scored_dataset.set_field("caption", markup).save()
    panel = Panel(scored_dataset).event("choose_tab", value="review")
    words = panel.words("card_0")
    assert r"\<script\>" in words and "<script>" not in words and "**bold**" not in words


def test_measured_precision_and_the_removal_curve(scored_dataset):
    from sklearn.metrics import average_precision_score

    panel = Panel(scored_dataset).event("choose_truth", value="field:planted")
    planted, score = scored_dataset.values(["planted", "first_misalignment"])
    expected = average_precision_score(planted, np.floor(np.array(score) * 200))
    assert panel.state["measured"] == {"average": pytest.approx(expected), "wrong": 12}
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
    assert panel.event("choose_tab", value="influence").state["problem"]


def test_the_health_of_a_run_is_shown(scored_dataset):
    panel = Panel(scored_dataset).event("choose_tab", value="health")
    assert {"settings", "health", "timings"} <= set(panel.shown)
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
