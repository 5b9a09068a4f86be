"""Recurring errors in the App: the form, the list and the way to each slice's pairs."""

import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.plugin import NAME
from tests.support.headless_panel import Panel

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FIND = f"{NAME}/find_slices"


@pytest.fixture
def sources(scored_dataset):
    """The run's pairs, whose planted ones come from one source."""
    scored_dataset.set_values("source", ["scans" if row % 5 == 0 else "abc"[row % 3] for row in range(60)])
    return scored_dataset


def test_the_list_leads_to_the_pairs_of_a_slice(sources):
    panel = Panel(sources).event("choose_tab", value="slices")
    assert "No slices yet" in panel.words("empty") and panel.state["slices"] is None
    panel.event("find_slices")
    foo.execute_operator(FIND, dict(dataset=sources, params={"run_key": "first", "fields": ["source"]}))
    panel.event("refresh")
    names = [each["name"] for each in panel.state["slices"]]
    place = names.index("source: scans")
    assert panel.state["slices"][place]["pairs"] == 12
    panel.event("show_slice", row=place)
    scores = panel.samples.values("first_misalignment")
    assert len(scores) == 12 and scores == sorted(scores, reverse=True)
    assert "no such slice" in panel.event("show_slice", row=99).requests["notify"]["message"]


def test_the_form_offers_fields_that_may_name_a_cause(sources):
    from fiftyone_ecif.plugin.sample_sets import naming_fields

    offered = naming_fields(sources)
    assert {"tags", "source", "ground_truth", "caption"} <= set(offered)
    assert not [name for name in offered if name.startswith("first_")] and "filepath" not in offered


def test_names_in_the_list_are_no_markup_and_slices_follow_the_view(sources):
    ecif.load_results(sources, "first").error_slices(["source"], progress=False)
    panel = Panel(sources.match({"source": {"$ne": "scans"}})).event("choose_tab", value="slices")
    assert all(each["name"] != "source: scans" for each in panel.state["slices"])
