"""Shift risk in the App: the form with its sets, the run, the panel's tab, and the runs' own operator."""

import fiftyone as fo
import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin import NAME
from tests.support.headless_panel import Panel
from tests.support.operators import RUNS, refusals, requests_of, shown_ids
from tests.support.shifted import FIELDS, shifted_samples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SHIFT = f"{NAME}/compute_shift"
STORED = {"features": "embeddings"} | {f"{role}_embeddings": name for role, name in FIELDS.items()}
QUICK = {"resamples": 19, **STORED}


@pytest.fixture
def shifted_dataset():
    return shifted_samples()


@pytest.fixture
def computed(shifted_dataset):
    foo.execute_operator(SHIFT, dict(dataset=shifted_dataset, params={"reference": "tag:clean", **QUICK}))
    return shifted_dataset


def execute(dataset, **params):
    return foo.execute_operator(SHIFT, dict(dataset=dataset, params=QUICK | params))


def scenarios_of(dataset):
    return {each.name: each.count for each in ecif.load_shift(dataset, "shift").scenarios}


def test_the_form_proposes_and_says_what_is_compared(shifted_dataset, resolve_form):
    inputs = resolve_form(SHIFT, shifted_dataset, reference="tag:clean", **STORED)
    assert refusals(inputs) == {}
    assert "60 reference samples against other (120)" in str(inputs["sets"].view.label).replace("\\", "")
    assert {"tag:clean", "tag:mild", "tag:strong"} == set(inputs["reference"].type.values)
    assert {"rest", "views", "values:tags", "values:shifted", "tag:mild"} <= set(inputs["others"].type.values)
    assert "weighting" not in inputs
    assert {"weighting", "resamples", "estimator", "seed", "device"} <= set(
        resolve_form(SHIFT, shifted_dataset, reference="tag:clean", advanced=True, **STORED)
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"reference": "tag:gone"}, "is empty"),
        ({"reference": "view:gone"}, "There is no reference"),
        ({"others": "values:question"}, "at most 50"),
        ({"others": "values:gone"}, "no field"),
        ({"others": "views"}, "nothing to compare"),
        ({"image": False, "query_embeddings": "none"}, "nothing to compare"),
        ({"response_embeddings": "none"}, "response_field and reference_field together"),
        ({"resamples": -1, "advanced": True}, "0"),
        ({"run_key": "no key"}, "cannot be used"),
    ],
)
def test_what_cannot_work_is_said_in_the_form(shifted_dataset, resolve_form, asked, said):
    given = {"reference": "tag:clean", "image": True, **STORED} | asked
    found = refusals(resolve_form(SHIFT, shifted_dataset, **given))
    assert any(said in words for words in found.values()), found


def test_without_tags_and_views_the_form_says_what_to_do(resolve_form):
    dataset = fo.Dataset()
    dataset.add_sample(fo.Sample(filepath="/nowhere.png"))
    (words,) = refusals(resolve_form(SHIFT, dataset)).values()
    assert "Save a view" in words


def test_one_set_many_sets_and_the_rest(shifted_dataset):
    execute(shifted_dataset, reference="tag:clean")
    assert scenarios_of(shifted_dataset) == {"other": 120}
    execute(shifted_dataset, reference="tag:clean", others="values:tags", run_key="shift", overwrite=True)
    assert scenarios_of(shifted_dataset) == {"strong": 60, "mild": 60}
    shifted_dataset.save_view("some", shifted_dataset.match({"shifted": True}))
    execute(shifted_dataset, reference="tag:clean", others="view:some", run_key="shift", overwrite=True)
    assert scenarios_of(shifted_dataset) == {"some": 60}
    execute(shifted_dataset, reference="view:some", others="values:shifted", run_key="shift", overwrite=True)
    assert scenarios_of(shifted_dataset) == {"False": 120}


def test_the_operator_gives_what_the_sdk_gives(computed):
    rest = computed.match_tags("clean", bool=False)
    ecif.compute_shift(
        computed.match_tags("clean"), rest, embeddings=FIELDS, resamples=19, run_key="sdk", progress=False
    )
    one, other = (ecif.load_shift(computed, key).scenarios for key in ("shift", "sdk"))
    assert one == other


def test_a_script_calls_the_operator(shifted_dataset):
    operator = foo.get_operator(SHIFT)
    stored = {f"{role}_embeddings": name for role, name in FIELDS.items()}
    operator(shifted_dataset, "tag:clean", others="tag:strong", resamples=19, run_key="script", **stored)
    results = ecif.load_shift(shifted_dataset, "script")
    assert results.config.resamples == 19 and [each.name for each in results.scenarios] == ["strong"]


def test_the_tab_shows_scenarios_and_leads_to_the_samples(shifted_dataset):
    execute(shifted_dataset, reference="tag:clean", others="values:tags")
    panel = Panel(shifted_dataset)  # of a dataset without any influence run
    assert panel.state["tab"] == "shift" and panel.state["scenario"] == "strong"
    results = ecif.load_shift(shifted_dataset, "shift")
    bars = panel.data["divergences"][0]
    assert list(bars["y"]) == ["strong", "mild"]
    assert bars["x"] == pytest.approx([each.image.debiased.value for each in results.scenarios])
    rows = panel.state["shift"]["rows"]
    assert rows[0]["name"] == "strong" and "p = 0.05" in rows[0]["image"] and rows[0]["emid"]
    assert "its images differ from the reference's" in panel.words("words") and "EMID" in panel.words("words")
    panel.event("show_shifted")
    expected = results.most_shifted("image", "strong").values("id")
    assert panel.samples.values("id") == expected
    panel.event("on_change_ctx").event("choose_scenario", value="mild")
    assert panel.state["shift"]["samples"] == [] or panel.state["scenario"] == "mild"


def test_measures_and_directions(shifted_dataset):
    execute(shifted_dataset, reference="tag:clean", others="tag:strong")
    panel = Panel(shifted_dataset).event("choose_measure", value="emi")
    results = ecif.load_shift(shifted_dataset, "shift")
    assert [each["id"] for each in panel.state["shift"]["samples"]] == results.most_shifted("emi", limit=4).values("id")
    assert "More in the scenario" in panel.words("direction_0_words")
    panel.event("show_direction", row=0)
    assert panel.samples.values("id") == results.scenario().image_directions[0].sample_ids
    assert "no such direction" in panel.event("show_direction", row=99).requests["notify"]["message"]
    assert "no scenario" in panel.event("choose_scenario", value="gone").requests["notify"]["message"]


def test_names_of_scenarios_are_no_markup(shifted_dataset):
    shifted_dataset.match_tags("strong").tag_samples("<b>*x*</b>")
    execute(shifted_dataset, reference="tag:clean", others="tag:<b>*x*</b>")
    panel = Panel(shifted_dataset)
    assert panel.data["divergences"][0]["y"] == ["&lt;b&gt;*x*&lt;/b&gt;"]
    assert r"\\<b\\>\\*x\\*" in str(panel.shown["words"]) or r"\<b\>\*x\*" in str(panel.shown["words"])


def test_a_run_of_each_kind_has_its_own_tabs(scored_dataset):
    scored_dataset.limit(30).tag_samples("first half")
    foo.execute_operator(
        SHIFT,
        dict(
            dataset=scored_dataset,
            params={
                "reference": "tag:first half", "resamples": 19, "features": "embeddings",
                "image_embeddings": "image_embedding",
            },
        ),
    )  # fmt: skip
    panel = Panel(scored_dataset)
    assert panel.state["run_key"] == "shift" and panel.state["tab"] == "shift"
    panel.event("choose_run", value="first")
    assert panel.state["tab"] == "suspects"
    panel.event("choose_run", value="shift")
    assert panel.state["tab"] == "shift"


def test_runs_are_shown_renamed_and_deleted(computed):
    shown = requests_of(foo.execute_operator(RUNS, dict(dataset=computed, params={"run_key": "shift"})))
    expected = ecif.load_shift(computed, "shift").most_shifted("image").values("id")
    assert shown_ids(computed, shown) == expected
    rename = {"run_key": "shift", "action": "rename", "new_run_key": "drift"}
    foo.execute_operator(RUNS, dict(dataset=computed, params=rename))
    assert ecif.list_shifts(computed) == ["drift"] and computed.has_sample_field("drift_image_shift")
    foo.execute_operator(RUNS, dict(dataset=computed, params={"run_key": "drift", "action": "delete"}))
    assert ecif.list_shifts(computed) == [] and not computed.has_sample_field("drift_image_shift")


def test_a_deleted_field_is_said(computed):
    computed.delete_sample_field("shift_image_shift")
    computed.delete_sample_field("shift_query_shift")
    panel = Panel(computed)
    assert panel.state["measure"] == "emi"
    computed.delete_sample_field("shift_scenario")
    assert "was deleted" in Panel(computed).state["problem"]
