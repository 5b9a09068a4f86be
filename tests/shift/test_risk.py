"""EMI, EMID and their bounds: what must hold of them, and the authors' published results."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from fiftyone_ecif.shift import Club, Comparison, Fused, Plan, Side, TensorVectors, assess, bounds, club_estimate


def normal(count, dim=5, seed=0, shift=0.0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[:, 0] += shift
    return rows


def made_side(count, seed, shift=0.0, training=None):
    names = ("image", "query", "response", "reference")
    tensors = {name: normal(count, seed=10 * seed + place, shift=shift) for place, name in enumerate(names)}
    return Side({name: TensorVectors(rows) for name, rows in tensors.items()}, training)


def made_club(dim=5):
    torch.manual_seed(0)
    return Club(dim, dim).requires_grad_(False)


def unit(vectors):
    return vectors.rows / vectors.rows.norm(dim=1, keepdim=True)


def emi_by_definition(club, side, kept):
    vectors = side.vectors
    z = TensorVectors(((unit(vectors["image"]) + unit(vectors["query"])) / 2)[kept])
    response, reference = (TensorVectors(unit(vectors[name])[kept]) for name in ("response", "reference"))
    return club_estimate(club, z, response) - club_estimate(club, z, reference)


def test_an_assessment_is_made_of_its_definitions():
    training = torch.zeros(40, dtype=torch.bool)
    training[::3] = True
    first, second, club = made_side(40, 1, training=training), made_side(30, 2, shift=1.0), made_club()
    found = assess(first, second, Plan.of((40, 30), 5, 20), club, entropy=2.0)
    emi = [emi_by_definition(club, first, ~training), emi_by_definition(club, second, torch.ones(30, dtype=torch.bool))]
    for value, estimate in zip(emi, found.answers.emi, strict=True):
        assert estimate.value == pytest.approx(value, abs=1e-6) and estimate.low < estimate.value < estimate.high
    assert found.answers.emid.value == pytest.approx(emi[0] - emi[1], abs=1e-6)
    assert found.answers.rows[0][training].isnan().all() and not found.answers.rows[1].isnan().any()
    assert float(found.answers.rows[0][~training].mean()) == pytest.approx(emi[0], abs=1e-6)

    def divergence(one, other):
        return Comparison.of(one, other).value

    image, query = (divergence(first.vectors[name], second.vectors[name]) for name in ("image", "query"))
    answers = [divergence(side.vectors["response"], side.vectors["reference"]) for side in (first, second)]
    assert found.inputs["image"].divergence.estimate.value == pytest.approx(image)
    assert found.answers.bound.value == pytest.approx(image**0.5 + query**0.5 + sum(part**0.25 for part in answers))
    expected = 2.0 * (image**0.5 + query**0.5) + 4 * sum(part**0.25 for part in answers)
    assert found.answers.entropy_bound.value == pytest.approx(expected)


def test_a_model_that_answers_what_is_right_has_no_emi_and_the_same_set_no_shift():
    side = made_side(30, 1)
    right = Side({**side.vectors, "response": side.vectors["reference"]})
    found = assess(right, right, Plan.of((30, 30), 5, 5), made_club())
    for estimate in (*found.answers.emi, found.answers.emid, found.answers.bound):
        assert estimate.value == pytest.approx(0.0, abs=1e-6)
    assert found.inputs["query"].divergence.p_value == 1.0


def test_a_shift_without_answers_has_that_of_the_inputs_alone():
    image = Side({"image": TensorVectors(normal(20))}), Side({"image": TensorVectors(normal(20, seed=1, shift=3.0))})
    found = assess(*image, Plan.of((20, 20), 5, 19), made_club())
    assert found.answers is None and list(found.inputs) == ["image"]
    divergence = found.inputs["image"].divergence
    assert divergence.p_value == pytest.approx(0.05) and 0 < divergence.debiased.value < divergence.estimate.value


def test_an_estimator_that_saw_every_sample_cannot_judge_them():
    side = made_side(20, 1, training=torch.ones(20, dtype=torch.bool))
    with pytest.raises(ValueError, match="none is left"):
        assess(side, side, Plan.of((20, 20), 5, 0), made_club())


def test_inputs_of_different_widths_stand_side_by_side():
    wide, narrow = TensorVectors(normal(6, 4)), TensorVectors(normal(6, 3, seed=1))
    assert Fused([wide, narrow]).dim == 7 and Fused([wide, wide]).dim == 4
    rows = Fused([wide, narrow]).gather(torch.tensor([2, 0]))
    torch.testing.assert_close(rows, torch.cat([unit(wide)[[2, 0]], unit(narrow)[[2, 0]]], 1) / 2)
    torch.testing.assert_close(Fused([wide]).gather(torch.arange(6)), unit(wide))
    with pytest.raises(ValueError, match="6 and 5"):
        Fused([wide, TensorVectors(normal(5))])


def results(published):
    return [json.loads(path.read_text()) for path in sorted((published / "results").glob("*.json"))]


def test_the_published_emid_is_the_difference_of_the_published_emi(published):
    found = results(published)
    assert len(found) == 4
    for each in found:
        source = each["EMI"].get("llava_bench_coco_English", each["EMI"].get("llava_bench_coco"))
        assert source == pytest.approx(0.0030692 if "1.5" in each["model_name"] else -0.0373852, abs=1e-7)
        for name, value in each["EMID"].items():
            assert value == source - each["EMI"][name]


def test_the_published_correlations_are_those_of_the_published_numbers(published):
    expected = {
        ("NATURAL", "1.5"): (27, 0.876, 0.823),
        ("NATURAL", "1.6"): (27, 0.689, 0.473),
        ("SYNTHETIC", "1.5"): (34, 0.579, 0.551),
        ("SYNTHETIC", "1.6"): (34, 0.739, 0.723),
    }
    for each in results(published):
        kind = each["shift_type"], "1.5" if "1.5" in each["model_name"] else "1.6"
        emid, bound = (np.array([each[name][key] for key in each["EMID"]]) for name in ("EMID", "EMID_UB"))
        count, pearson, spearman = expected[kind]
        assert len(emid) == count
        assert (
            pearsonr(emid, bound)[0] == pytest.approx(each["PearsonR"], abs=1e-12) == pytest.approx(pearson, abs=1e-3)
        )
        assert spearmanr(emid, bound)[0] == pytest.approx(spearman, abs=1e-3)


def test_bounds_of_many_replicates_are_those_of_each():
    inputs, answers = [torch.tensor([0.04, 0.09])], [torch.tensor([0.0016, 0.0]), torch.tensor([0.0001, 0.0])]
    found, with_entropy = bounds(inputs, answers, entropy=3.0)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.3]))
    torch.testing.assert_close(with_entropy, torch.tensor([1.8, 0.9]))
    assert bounds(inputs, answers)[1] is None
