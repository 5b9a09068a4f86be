"""A shift run from views to fields, on stored vectors."""

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.run.config import tensor_file
from fiftyone_ecif.shift import Comparison, TensorVectors
from tests.support.shifted import FIELDS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def views(dataset, *tags):
    return {tag: dataset.match_tags(tag) for tag in tags}


def vectors(view, role):
    return TensorVectors(torch.tensor(view.values(FIELDS[role])))


@pytest.fixture
def scenarios(shifted_dataset, given):
    clean = shifted_dataset.match_tags("clean")
    return ecif.compute_shift(clean, views(shifted_dataset, "mild", "strong"), **given)


def test_scenarios_are_ranked_with_numbers_that_are_those_of_the_vectors(shifted_dataset, scenarios):
    assert [each.name for each in scenarios.scenarios] == ["strong", "mild"]
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    found = scenarios.scenario()
    for role in ("image", "query"):
        expected = Comparison.of(vectors(clean, role), vectors(strong, role)).value
        divergence = getattr(found, role)
        assert divergence.estimate.value == pytest.approx(expected)
        assert divergence.estimate.low < expected < divergence.estimate.high and divergence.p_value == 0.05
        assert divergence.debiased.value < expected
    assert found.emid.value == pytest.approx(scenarios.reference_emi.value - found.emi.value)
    expected = Comparison.of(vectors(strong, "response"), vectors(strong, "reference")).value
    assert found.answers.estimate.value == pytest.approx(expected)
    parts = found.image.estimate.value**0.5 + found.query.estimate.value**0.5
    parts += scenarios.reference_answers.estimate.value**0.25 + expected**0.25
    assert found.bound.value == pytest.approx(parts) and found.entropy_bound is None
    assert (found.count, scenarios.reference_count) == (60, 60)


def test_the_fields_say_which_samples_carry_the_shift(shifted_dataset, scenarios):
    assert scenarios.fields == {
        suffix: f"shift_{suffix}" for suffix in ("scenario", "image_shift", "query_shift", "emi")
    }
    first = scenarios.most_shifted("image", "strong", limit=20).values("shifted")
    assert sum(first) >= 18
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    comparison = Comparison.of(vectors(clean, "image"), vectors(strong, "image"))
    expected = comparison.contributions(vectors(strong, "image"), 1)
    assert strong.values("shift_image_shift") == pytest.approx(expected.tolist())
    each = [
        Comparison.of(vectors(clean, "image"), vectors(shifted_dataset.match_tags(tag), "image")).contributions(
            vectors(clean, "image"), 0
        )
        for tag in ("mild", "strong")
    ]
    assert clean.values("shift_image_shift") == pytest.approx(torch.stack(each).mean(0).tolist())
    assert scenarios.samples("reference").values("id") == clean.values("id")
    emi = [value for value in strong.values("shift_emi") if value is not None]
    assert 0 < len(emi) < 60 and sum(emi) / len(emi) == pytest.approx(scenarios.scenario("strong").emi.value)


def test_directions_name_samples_of_the_set_that_has_more_of_them(shifted_dataset, scenarios):
    direction = scenarios.scenario("strong").image_directions[0]
    assert direction.more_in_scenario
    samples = scenarios.direction_samples(direction)
    assert samples.values("id") == direction.sample_ids and all(samples.values("shifted"))


def test_a_run_is_opened_renamed_replaced_and_deleted_like_others(shifted_dataset, scenarios, given):
    path, before = tensor_file(scenarios.config), scenarios.scenarios
    assert ecif.list_shifts(shifted_dataset) == ["shift"] and ecif.list_runs(shifted_dataset) == []
    ecif.rename_run(shifted_dataset, "shift", "other")
    again = ecif.load_shift(shifted_dataset, "other")
    assert again.scenarios == before and again.fields["emi"] == "other_emi"
    assert not shifted_dataset.has_sample_field("shift_emi") and path.exists()
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    with pytest.raises(ValueError, match="in use"):
        ecif.compute_shift(clean, strong, run_key="other", **given)
    alone = dict(given, embeddings={"image": FIELDS["image"]})
    replaced = ecif.compute_shift(clean, strong, run_key="other", overwrite=True, **alone)
    assert set(replaced.fields) == {"scenario", "image_shift"} and not path.exists()
    ecif.delete_run(shifted_dataset, "other")
    assert ecif.list_shifts(shifted_dataset) == []
    assert not [name for name in shifted_dataset.get_field_schema() if name.startswith("other_")]


def test_runs_of_the_two_kinds_do_not_take_each_other_for_their_own(shifted_dataset, scenarios, given):
    with pytest.raises(ValueError, match="no ECIF run 'shift'"):
        ecif.load_results(shifted_dataset, "shift")
    stored = dict(image_embeddings=FIELDS["image"], text_embeddings=FIELDS["query"], rounds=1, progress=False)
    with pytest.raises(ValueError, match="another kind"):
        ecif.compute_influence(shifted_dataset, run_key="shift", overwrite=True, **stored)
    ecif.compute_influence(shifted_dataset, run_key="ecif", **stored)
    assert ecif.list_runs(shifted_dataset) == ["ecif"] and ecif.list_shifts(shifted_dataset) == ["shift"]
    with pytest.raises(ValueError, match="no shift run 'ecif': its runs are shift"):
        ecif.load_shift(shifted_dataset, "ecif")
    with pytest.raises(ValueError, match="another kind"):
        ecif.compute_shift(shifted_dataset, shifted_dataset, run_key="ecif", overwrite=True, **given)


def test_without_responses_the_inputs_alone_are_compared_and_that_is_said(shifted_dataset, given):
    inputs = {role: FIELDS[role] for role in ("image", "query")}
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    found = ecif.compute_shift(clean, strong, **dict(given, embeddings=inputs))
    scenario = found.scenario("other")
    assert scenario.emid is None and scenario.bound is None and found.reference_emi is None
    assert found.estimator_fit is None and any("no responses" in each for each in found.warnings)
    assert "emi" not in found.fields
    with pytest.raises(ValueError, match="without responses"):
        found.estimator()
    with pytest.raises(ValueError, match="not compared"):
        found.most_shifted("emi")


def test_an_estimator_is_trained_on_samples_that_it_does_not_judge_or_loaded(
    tmp_path, shifted_dataset, scenarios, given
):
    fit = scenarios.estimator_fit
    judged = [value is not None for value in shifted_dataset.values("shift_emi")]
    assert fit.rows + fit.validation_rows == judged.count(False) and 60 < sum(judged) < 120
    path = scenarios.save_estimator(tmp_path / "own.safetensors")
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    found = ecif.compute_shift(clean, strong, run_key="frozen", estimator=path, **given)
    assert found.estimator_fit is None and None not in strong.values("frozen_emi")
    assert torch.equal(found.estimator().p_mu[0].weight, scenarios.estimator().p_mu[0].weight)
    wide = dict(given, embeddings={role: FIELDS[role] for role in ("image", "response", "reference")})
    strong.set_values(FIELDS["image"], [[1.0, 2.0]] * 60)
    clean.set_values(FIELDS["image"], [[2.0, 1.0]] * 60)
    with pytest.raises(ValueError, match="estimator is for vectors of 6 and 6"):
        ecif.compute_shift(clean, strong, run_key="wide", estimator=path, **wide)


def test_the_same_view_twice_and_overlapping_views_are_said(shifted_dataset, given):
    clean = shifted_dataset.match_tags("clean")
    same = ecif.compute_shift(clean, clean, run_key="same", **given)
    assert same.scenario().image.estimate.value == pytest.approx(0.0, abs=1e-6)
    assert any("the reference itself" in each for each in same.warnings)
    both = shifted_dataset.match_tags(["clean", "strong"])
    found = ecif.compute_shift(clean, {"both": both, "strong": shifted_dataset.match_tags("strong")}, **given)
    assert found.health["in_reference_too"] == [["both", 60]]
    assert any("60 samples are in the set 'both' and in the reference" in each for each in found.warnings)
    assert any("60 samples are in several scenarios" in each for each in found.warnings)
    assert set(clean.values("shift_scenario")) == {"both"}


def test_samples_that_lack_something_are_left_out_and_counted(shifted_dataset, given):
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    ids = strong.values("id")
    shifted_dataset.set_values(FIELDS["response"], {ids[0]: None, ids[1]: [0.0] * 6}, key_field="id")
    shifted_dataset.set_values("question", {ids[2]: None, ids[3]: " "}, key_field="id")
    asked = {role: FIELDS[role] for role in ("image", "response", "reference")}
    encoder = lambda texts: torch.tensor([[len(text), 1.0] for text in texts])  # noqa: E731
    found = ecif.compute_shift(
        clean, strong, query_field="question", text_encoder=encoder, model="none", **dict(given, embeddings=asked)
    )
    assert found.scenario().count == 56 and found.health["skipped"] == 4
    assert found.skipped == {
        ids[0]: "response embedding is missing",
        ids[1]: "response embedding is all zeros",
        ids[2]: "query is missing",
        ids[3]: "query is empty",
    }
    assert any("4 samples are left out" in each for each in found.warnings)
    assert found.most_shifted("query", limit=None).count() == 56


def test_few_rows_and_embeddings_that_are_all_alike_are_said(shifted_dataset, given):
    few = shifted_dataset.match_tags("clean").limit(5)
    strong = shifted_dataset.match_tags("strong")
    found = ecif.compute_shift(few, strong, **dict(given, embeddings={"image": FIELDS["image"]}))
    assert found.scenario().image.few and any("fewer samples than" in each for each in found.warnings)
    shifted_dataset.set_values(FIELDS["image"], [[1.0, 1.0]] * len(shifted_dataset))
    alike = ecif.compute_shift(few, strong, run_key="alike", **dict(given, embeddings={"image": FIELDS["image"]}))
    assert any("all alike" in each for each in alike.warnings)
    assert alike.scenario().image.estimate.value == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_written_where_a_run_is_cancelled(shifted_dataset, given):
    def cancel(step, done, total):
        if "Permute" in step:
            raise KeyboardInterrupt

    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    before = set(shifted_dataset.get_field_schema())
    with pytest.raises(KeyboardInterrupt):
        ecif.compute_shift(clean, strong, **dict(given, progress=cancel))
    assert set(shifted_dataset.get_field_schema()) == before and ecif.list_shifts(shifted_dataset) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(embeddings={}, image=False), "nothing to compare"),
        (dict(embeddings={"image": FIELDS["image"], "response": FIELDS["response"]}), "together, or neither"),
        (dict(embeddings={"picture": "image"}), "no setting 'picture'"),
        (dict(embeddings={"image": "nowhere"}), "no field 'nowhere'"),
        (dict(weighting="size"), "weighting must be one of mean, count"),
        (dict(resamples=-1), "at least 0"),
        (dict(estimator="/nowhere.pt"), "no estimator at"),
        (dict(run_key="1 2"), "cannot be used"),
    ],
)
def test_what_cannot_work_is_refused(shifted_dataset, given, change, reason):
    clean, strong = shifted_dataset.match_tags("clean"), shifted_dataset.match_tags("strong")
    with pytest.raises(ValueError, match=reason):
        ecif.compute_shift(clean, strong, **(given | change))


def test_views_of_other_datasets_and_nameless_scenarios_are_refused(shifted_dataset, pair_dataset, given):
    clean = shifted_dataset.match_tags("clean")
    for other, reason in (
        (pair_dataset, "a run writes its fields to one dataset"),
        ({"": clean}, "cannot be called ''"),
        ({"reference": clean}, "cannot be called 'reference'"),
        ({}, "dictionary"),
        ([clean], "dictionary"),
        (clean.match_tags("none"), "is empty"),
    ):
        with pytest.raises(ValueError, match=reason):
            ecif.compute_shift(clean, other, **given)
    with pytest.raises(ValueError, match="Dataset or view"):
        ecif.compute_shift("clean", clean, **given)
