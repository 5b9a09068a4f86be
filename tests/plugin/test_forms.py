"""The forms choose from what the dataset has, and refuse what cannot work, before anything is executed."""

from types import SimpleNamespace

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

from tests.support.operators import COMPUTE, RUNS, SHOW, STORED, refusals


def test_compute_form_guesses_the_captions_and_offers_what_the_dataset_has(resolve_form, pair_dataset):
    pair_dataset.save_view("checked", pair_dataset.limit(5))
    pair_dataset.limit(3).tag_samples("trusted")
    inputs = resolve_form(COMPUTE, pair_dataset)
    assert inputs["text_field"].default == "caption"
    assert set(inputs["text_field"].type.values) == {"caption", "ground_truth"}
    assert inputs["target"].type.values == ["cross_fitted", "view:checked", "tag:trusted"]
    assert inputs["run_key"].default == "ecif"
    assert (inputs["model"].default, inputs["pretrained"].default) == ("ViT-B-32", "laion2b_s34b_b79k")
    assert "ecif-tiny" in [choice.value for choice in inputs["model"].view.choices]
    assert "few_pairs" in inputs  # 60 pairs
    assert "features" not in inputs  # there are no stored embeddings to choose
    assert "templates" not in inputs
    assert refusals(inputs) == {}


@pytest.mark.parametrize("pairs", [1, 3])
def test_compute_form_refuses_fewer_pairs_than_can_be_compared(resolve_form, embedded_dataset, pairs):
    assert "At least 4" in refusals(resolve_form(COMPUTE, embedded_dataset.limit(pairs)))["few_pairs"]
    assert refusals(resolve_form(COMPUTE, embedded_dataset.limit(4))) == {}
    with pytest.raises(ExecutionError, match="At least 4"):
        foo.execute_operator(COMPUTE, {"view": embedded_dataset.limit(pairs)}, params=dict(STORED))


def test_compute_form_offers_templates_for_labels_and_checks_them(resolve_form, pair_dataset):
    assert resolve_form(COMPUTE, pair_dataset, text_field="ground_truth")["templates"].default == "a photo of a {}"
    for templates in ("a photo of a {}\nan image", " \n"):
        inputs = resolve_form(COMPUTE, pair_dataset, text_field="ground_truth", templates=templates)
        assert list(refusals(inputs)) == ["templates"]


def test_compute_form_offers_the_tags_of_the_chosen_model(resolve_form, pair_dataset):
    inputs = resolve_form(COMPUTE, pair_dataset, model="RN50")
    assert "yfcc15m" in [choice.value for choice in inputs["pretrained"].view.choices]
    assert list(refusals(resolve_form(COMPUTE, pair_dataset, model="RN5"))) == ["model"]
    inputs = resolve_form(COMPUTE, pair_dataset, model="RN50", pretrained="laion2b_s34b_b79k")
    assert "yfcc15m" in refusals(inputs)["pretrained"]
    inputs = resolve_form(COMPUTE, pair_dataset, model="hf-hub:somebody/some-model")
    assert inputs["pretrained"].default is None and refusals(inputs) == {}


def test_compute_form_says_what_embedding_and_scoring_will_cost(resolve_form, embedded_dataset):
    label = resolve_form(COMPUTE, embedded_dataset, device="cpu")["cost"].view.label
    assert "to embed" in label and "to score 60 pairs" in label and "memory" in label
    assert "cost" in resolve_form(COMPUTE, embedded_dataset, model="RN50", pretrained="yfcc15m", device="cpu")
    assert "cost" not in resolve_form(COMPUTE, embedded_dataset, model="roberta-ViT-B-32", device="cpu")
    assert "cost" not in resolve_form(COMPUTE, embedded_dataset, device="cuda")
    label = resolve_form(COMPUTE, embedded_dataset, **STORED)["cost"].view.label
    assert "to embed" not in label and "to score" in label


def test_compute_form_accepts_a_checkpoint_and_warns_of_random_weights(resolve_form, pair_dataset, tmp_path):
    checkpoint = tmp_path / "weights.safetensors"
    checkpoint.touch()
    assert refusals(resolve_form(COMPUTE, pair_dataset, pretrained=str(checkpoint))) == {}
    inputs = resolve_form(COMPUTE, pair_dataset, model="ecif-tiny", pretrained="")
    assert "random_weights" in inputs
    assert refusals(inputs) == {}


def test_compute_form_offers_stored_embeddings(resolve_form, embedded_dataset):
    assert "model" in resolve_form(COMPUTE, embedded_dataset)
    inputs = resolve_form(COMPUTE, embedded_dataset, features="embeddings")
    assert inputs["image_embeddings"].default == "image_embedding"
    assert inputs["text_embeddings"].default == "text_embedding"
    assert "model" not in inputs
    same = {"image_embeddings": "image_embedding", "text_embeddings": "image_embedding"}
    inputs = resolve_form(COMPUTE, embedded_dataset, features="embeddings", **same)
    assert list(refusals(inputs)) == ["text_embeddings"]


def test_compute_form_proposes_a_free_run_key_and_refuses_used_and_impossible_ones(resolve_form, scored_dataset):
    assert "first" in refusals(resolve_form(COMPUTE, scored_dataset, run_key="first"))["run_key"]
    inputs = resolve_form(COMPUTE, scored_dataset, run_key="first", overwrite=True)
    assert refusals(inputs) == {}
    assert "overwrite" in inputs
    for run_key in ("not a name", "", "7"):
        assert list(refusals(resolve_form(COMPUTE, scored_dataset, run_key=run_key))) == ["run_key"]
    scored_dataset.rename_run("first", "ecif")
    assert resolve_form(COMPUTE, scored_dataset)["run_key"].default == "ecif_2"


def test_compute_form_refuses_a_dataset_that_cannot_be_scored(resolve_form, pair_dataset, pair_rows):
    empty = pair_dataset.match(fo.ViewField("caption") == "nothing like this")
    assert list(refusals(resolve_form(COMPUTE, empty))) == ["no_pairs"]

    uncaptioned = pair_dataset.clone()
    uncaptioned.set_field("caption", None).save()
    assert list(refusals(resolve_form(COMPUTE, uncaptioned, text_field="caption"))) == ["all_empty"]
    uncaptioned.delete()

    images = fo.Dataset()
    images.add_sample(fo.Sample(filepath=pair_rows[0][0]))
    assert list(refusals(resolve_form(COMPUTE, images))) == ["no_captions"]
    images.delete()

    videos = fo.Dataset()
    videos.add_sample(fo.Sample(filepath="film.mp4", caption="a film"))
    assert list(refusals(resolve_form(COMPUTE, videos))) == ["no_pairs"]
    videos.delete()


def test_compute_form_refuses_impossible_settings(resolve_form, pair_dataset):
    pair_dataset.tag_samples("trusted")
    assert "nothing is left" in refusals(resolve_form(COMPUTE, pair_dataset, target="tag:trusted"))["target"]
    with pytest.raises(ExecutionError, match="rounds"):
        foo.get_operator(COMPUTE)(pair_dataset, "caption", rounds=0)


def test_a_refused_form_is_refused_in_scripts_too(pair_dataset):
    with pytest.raises(ExecutionError, match="run_key"):
        foo.get_operator(COMPUTE)(pair_dataset, "caption", run_key="not a name")
    assert pair_dataset.list_runs() == []


@pytest.mark.parametrize("operator", [SHOW, RUNS])
def test_forms_over_runs_say_where_to_start_without_one(resolve_form, pair_dataset, operator):
    inputs = resolve_form(operator, pair_dataset)
    assert list(inputs) == ["no_runs"]
    assert "compute influence" in refusals(inputs)["no_runs"]


@pytest.mark.parametrize("operator", [SHOW, RUNS])
def test_forms_over_runs_offer_the_newest_first(resolve_form, scored_dataset, operator):
    run_keys = resolve_form(operator, scored_dataset)["run_key"]
    assert (run_keys.type.values, run_keys.default) == (["first"], "first")
    assert "missing" in refusals(resolve_form(operator, scored_dataset, run_key="missing"))["run_key"]


def test_show_form_counts_the_pairs_and_refuses_an_empty_view(resolve_form, scored_dataset):
    assert "7 pairs" in resolve_form(SHOW, scored_dataset, limit=7)["pairs"].view.label
    scored_dataset.set_field("first_misalignment", 0.4).save()
    assert refusals(resolve_form(SHOW, scored_dataset, threshold=0.4)) == {}
    assert list(refusals(resolve_form(SHOW, scored_dataset, threshold=0.5))) == ["pairs"]


def test_show_form_says_what_is_out_of_bounds(resolve_form, scored_dataset):
    assert "between 0 and 1, not 4" in refusals(resolve_form(SHOW, scored_dataset, threshold=4))["pairs"]
    assert "at least 1, not -2" in refusals(resolve_form(SHOW, scored_dataset, limit=-2))["pairs"]


def test_runs_form_shows_settings_health_and_timings(resolve_form, scored_dataset):
    inputs = resolve_form(RUNS, scored_dataset)
    settings = {row["name"]: row["value"] for row in inputs["settings"].default}
    assert settings["text_field"] == "caption"
    assert inputs["health"].default
    assert inputs["timings"].default
    assert "proximal term" in str(inputs["health"].view.to_json()["tooltips"])  # explains "anchor"


def test_runs_form_checks_the_new_name(resolve_form, scored_dataset):
    for name in ("first", "not a name"):
        inputs = resolve_form(RUNS, scored_dataset, action="rename", new_run_key=name)
        assert list(refusals(inputs)) == ["new_run_key"]
    assert refusals(resolve_form(RUNS, scored_dataset, action="rename", new_run_key="second")) == {}


def test_words_from_the_data_are_never_markup(resolve_form, scored_dataset, monkeypatch):
    reason = "**bold** <b>x</b> [a](b)"
    results = SimpleNamespace(skipped={"a": reason, "b": reason}, warnings=[reason], health={}, timings={})
    monkeypatch.setattr("fiftyone_ecif.plugin.descriptions.stored_results", lambda dataset, run_key: results)
    inputs = resolve_form(RUNS, scored_dataset)
    escaped = r"\*\*bold\*\* \<b\>x\<\/b\> \[a\]\(b\)"
    assert inputs["warning_0"].view.label == escaped
    assert inputs["skipped_0"].view.label == rf"Skipped 2\: {escaped}"
