"""The App's side of a run on a slice of a grouped dataset, while another slice is shown."""

import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.samples import everything
from tests.support.grouped import as_slice
from tests.support.headless_panel import Panel
from tests.support.operators import STORED_FIELDS, refusals

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def grouped_once(scored_once):
    """The scored pairs as the slice "left", with a run "first" of their own."""
    dataset = as_slice(scored_once, "first")
    left = dataset.select_group_slices("left")
    ecif.compute_influence(left, "caption", run_key="first", rounds=1, progress=False, **STORED_FIELDS)
    return dataset


@pytest.fixture
def grouped(grouped_once):
    return grouped_once.clone()


def run(operator, samples, selected=(), **params):
    """What an operator answers, as the App would call it."""
    kind = "view" if hasattr(samples, "_stages") else "dataset"
    asked = {kind: samples, "selected": list(selected), "params": params}
    result = foo.execute_operator(f"@ecif/ecif/{operator}", asked)
    result.raise_exceptions()
    return result.result


def test_the_panel_sees_the_run(grouped):
    panel = Panel(grouped)
    assert panel.state["suspects"]["scored"] == 60
    panel.event("choose_tab", value="review")
    assert panel.state["waiting"] == 60 and len(panel.state["cards"]) == 4
    panel.event("fine", id=panel.state["cards"][0]["id"])
    assert panel.state["waiting"] == 59 and everything(grouped).count_sample_tags() == {"trusted": 1}
    panel.event("choose_tab", value="influence")
    ids = ecif.load_results(grouped, "first").harmful(limit=3).values("id")
    panel.event("select_points", data=[{"id": id} for id in ids])
    assert set(panel.samples.values("id")) == set(ids)
    assert panel.state["influence"]["harmful"] > 3
    run("forecast_removal", grouped)
    assert Panel(grouped).event("choose_tab", value="influence").state["influence"]["predicted"]


def test_operators_find_the_runs_pairs(grouped):
    pairs = ecif.load_results(grouped, "first").misaligned()
    assert run("tag_misaligned", grouped, threshold=0.3)["tagged"] == pairs.count_sample_tags()["misaligned"] > 0
    assert run("show_misaligned", grouped) == {"pairs": 60}
    assert run("apply_suggestions", grouped)["changed"] > 0
    assert run("undo_fixes", grouped)["changed"] > 0
    run("estimate_removal", grouped, pairs.values("id")[:2])
    assert run("mark_as_fine", grouped, pairs.values("id")[:2]) == {"marked": 2}
    assert pairs.count_sample_tags()["trusted"] == 2


def test_what_takes_no_groups_takes_the_slice_that_is_shown(grouped, resolve_form, tmp_path):
    compute = "@ecif/ecif/compute_influence"
    params = dict(text_field="caption", features="embeddings", **STORED_FIELDS)
    assert "None of these samples has a value" in refusals(resolve_form(compute, grouped, **params))["all_empty"]
    grouped.group_slice = "left"
    assert refusals(resolve_form(compute, grouped, **params)) == {}
    assert run("export_cleaned", grouped, folder=str(tmp_path / "out"), text_field="caption") == {"exported": 60}
    run("find_failures", grouped)
    assert grouped.select_group_slices("left").count("first_rank") == 60
