"""The operators of preference pairs say what is missing, build and export."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import pytest

import fiftyone_ecif as ecif
from tests.support.headless_panel import Panel
from tests.support.operators import RUNS, refusals, requests_of, shown_ids

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BUILD, EXPORT = "@ecif/ecif/build_preferences", "@ecif/ecif/export_preferences"


@pytest.fixture
def mended(scored_dataset):
    """A dataset with a run that suggests texts for three samples."""
    scored_dataset.set_field("first_suggestion", None).save()
    given = {id: fo.Classification(label="better", confidence=0.9) for id in scored_dataset.values("id")[:3]}
    scored_dataset.set_values("first_suggestion", given, key_field="id")
    return scored_dataset


def test_the_form_says_what_is_missing(mended, resolve_form):
    assert refusals(resolve_form(BUILD, mended)) == {}
    for params, words in [
        (dict(image_weakened=True), "need a model"),
        (dict(error_injected=True), "pass rewriter, clip or suspects_run"),
        (dict(fixed=False), "negatives must be some of"),
        (dict(min_confidence=0.5), "pass suspects_run"),
        (dict(run_key="first"), "belongs to a run of another kind"),
    ]:
        (reason,) = refusals(resolve_form(BUILD, mended, **params)).values()
        assert words in reason
    assert "model" in resolve_form(BUILD, mended, image_weakened=True) and "model" not in resolve_form(BUILD, mended)
    assert "no preference pairs yet" in refusals(resolve_form(EXPORT, mended))["no_runs"]


def test_pairs_are_built_and_exported_by_operators(mended, resolve_form, tmp_path):
    params = dict(chosen_field="caption", suspects_run="first", min_confidence=0.5, run_key="pairs")
    result = foo.execute_operator(BUILD, dict(dataset=mended, params=params))
    assert result.error is None
    assert ecif.list_preferences(mended) == ["pairs"]
    assert [each.chosen for each in ecif.load_preferences(mended, "pairs").pairs()] == ["better"] * 3
    folder = tmp_path / "out"
    assert refusals(resolve_form(EXPORT, mended, folder=str(tmp_path), form="llava", container="parquet"))
    result = foo.execute_operator(EXPORT, dict(dataset=mended, params=dict(folder=str(folder), form="kto")))
    assert result.result == {"exported": 6}
    assert len([json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]) == 6
    assert "not empty" in refusals(resolve_form(EXPORT, mended, folder=str(folder)))["folder"]
    shown = requests_of(foo.execute_operator(RUNS, dict(dataset=mended, params={"run_key": "pairs"})))
    assert len(shown_ids(mended, shown)) == 3
    panel = Panel(mended)  # which has no tab for such runs
    assert panel.state["run_key"] == "first"
    foo.execute_operator(RUNS, dict(dataset=mended, params={"run_key": "pairs", "action": "delete"}))
    assert ecif.list_preferences(mended) == []
