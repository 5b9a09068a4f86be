"""The fidelity benchmark measures what it says: on a problem small enough to refit in milliseconds."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.data.pairs import PairTable
from benchmarks.fidelity import command, removal_problem, sensitivity
from benchmarks.fidelity import measure as fidelity
from benchmarks.fidelity.groups import choose_groups
from benchmarks.fidelity.measure import agreement, measure
from benchmarks.fidelity.removal_problem import Candidates, NotAtRest, Regime, fitted_problem
from benchmarks.methods import attribution
from benchmarks.models.model import LoadedModel
from benchmarks.report.statistics import rank_correlation, with_error
from benchmarks.report.table import Table
from fiftyone_ecif.core import Head, TensorPairs, influence

PROMISED = {
    *(f"lds_{name}" for name in ("exact", "first_order", "positive_only", "kfac", "tracin", "trak", "random")),
    *("slope_exact", "pearson_exact", "loo_pearson", "removal_target_loss_error", "removal_accuracy_error"),
    *("seconds_ecif", "seconds_retraining", "speedup", "cosine_exact", "cosine_first_order", "cosine_positive_only"),
}
PAIRS = 60
REGIME = Regime(batch_size=20, anchor=2.0, subsets=12, singles=20, edits=3)


def tiny_problem(regime, progress=True):
    """60 pairs of 5 classes, a sixth of them wrong."""
    generator = torch.Generator().manual_seed(regime.seed)
    labels = torch.arange(100) % 5
    centers = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(2, 100, 6, generator=generator, dtype=torch.float64)
    image, text = (center[labels] + part for center, part in zip(centers, noise, strict=True))
    wrong = text[:PAIRS].clone()
    wrong[:10] = text[1:11]
    head = Head(*torch.randn(2, 4, 6, generator=generator, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64))
    pairs, target = TensorPairs(image[:PAIRS], wrong), TensorPairs(image[PAIRS:], text[PAIRS:])
    return fitted_problem(regime, pairs, target, head, Candidates(centers[1], labels[PAIRS:], 1))


@pytest.fixture(scope="module")
def problem():
    return tiny_problem(REGIME)


@pytest.fixture(scope="module")
def figures(problem):
    return measure(problem, REGIME, progress=False)


def test_every_promised_figure_comes_with_its_standard_error(figures):
    for name in PROMISED:
        assert np.isfinite(figures[name]), name
        assert figures[f"{name}_se"] >= 0, name


def test_predictions_have_the_sign_and_the_size_of_what_refits_measure(figures):
    assert figures["lds_exact"] > 0.9
    assert 0.7 < figures["slope_exact"] < 1.3
    assert figures["loo_pearson"] > 0.9
    assert figures["cosine_exact"] > 0.9
    assert figures["drift"] < 1e-3 * figures["typical_change"]


def test_perfect_predictions_score_one_and_a_wrong_sign_fails(figures):
    measured = np.random.default_rng(0).standard_normal(20)
    kinds = np.array(["random", "harmful"] * 10)
    names = ("exact", "first_order", "positive_only")
    perfect, wrong = (agreement(dict.fromkeys(names, sign * measured), measured, kinds) for sign in (1, -1))
    for figure in ("lds_exact", "lds_random_groups_exact", "pearson_exact", "slope_exact"):
        assert perfect[figure] == pytest.approx(1)
        assert wrong[figure] == pytest.approx(-1)
    assert perfect["lds_exact_se"] == pytest.approx(0)
    assert perfect["lds_gain_exact"] == 0


def test_the_readings_of_a_single_pair_are_its_roles(problem):
    groups = torch.eye(PAIRS, dtype=torch.bool)[:5]
    generator = torch.Generator().manual_seed(0)
    solution = torch.randn(1, len(problem.scope.vector()), generator=generator, dtype=torch.float64)
    gradients = attribution.group_gradients(problem.objective, problem.scope, groups)
    roles = influence(problem.objective, problem.scope, solution)
    expected = {
        "exact": roles.value("exact"), "first_order": roles.value("first_order"), "positive_only": roles.positive,
    }  # fmt: skip
    for name, values in expected.items():
        torch.testing.assert_close(getattr(gradients, name) @ solution[0], values[0, 0, :5])


def test_trak_features_are_gradients_of_its_output_function(problem):
    scope, pairs = problem.scope, problem.objective.pairs
    theta = scope.vector()
    everything = torch.ones(len(theta), dtype=torch.bool)
    whole = torch.eye(len(theta), dtype=theta.dtype)
    features, _ = attribution.trak_features(scope, pairs, everything, whole, torch.Generator())
    others = scope.linearize(*pairs.gather(torch.arange(PAIRS)))

    def output(vector):
        own = scope.replace(vector).linearize(*pairs.gather(torch.tensor([7])))
        u, v, scale = own.image, own.text, own.logit_scale.exp()
        rows = (-scale * u @ (v - others.text).T).logsumexp(1)
        columns = (-scale * v @ (u - others.image).T).logsumexp(1)
        return -(rows + columns).squeeze()

    torch.testing.assert_close(features[7], torch.autograd.functional.jacobian(output, theta))


def test_steepest_descent_is_the_best_step_along_the_gradient(problem):
    gradient = problem.target.value_and_gradient(problem.scope)[1]
    step = attribution.steepest_descent(problem, gradient)
    residual = problem.objective.gauss_newton_product(problem.scope, step[None])[0] - gradient
    assert (residual @ gradient).item() == pytest.approx(0, abs=1e-9)


def test_groups_are_half_random_and_hold_the_worst_and_the_best():
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    groups, kinds = choose_groups(values, 12, seed=0)
    assert (kinds == "random").sum() == 6
    sizes = groups.sum(1)
    assert sizes.min() == 2 and sizes.max() == 20
    for kind, group in zip(kinds, groups, strict=True):
        if kind == "harmful":
            assert values[group].max() <= values[~group].min()
        if kind == "valuable":
            assert values[group].min() >= values[~group].max()
    with pytest.raises(ValueError, match="too few"):
        choose_groups(values, 3, seed=0)


def test_bootstrap_error_shrinks_with_the_number_of_groups():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(400)
    noisy = truth + rng.standard_normal(400)
    few = with_error("lds", rank_correlation, noisy[:40], truth[:40])
    many = with_error("lds", rank_correlation, noisy, truth)
    assert 2 < few["lds_se"] / many["lds_se"] < 5


def test_a_fit_that_does_not_come_to_rest_is_refused(monkeypatch):
    monkeypatch.setattr("benchmarks.fidelity.removal_problem.FIT_STEPS", 1)
    with pytest.raises(NotAtRest, match="firmer"):
        tiny_problem(Regime(batch_size=20, anchor=1e-3))


def test_the_command_writes_its_settings_and_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.PROBLEMS, "head", tiny_problem)
    monkeypatch.setitem(command.REGIMES, "head", Regime(singles=4, edits=2))
    path = tmp_path / "figures.json"
    arguments = ["--batch-size", "16", "--logit-scale", "8", "--anchor", "0.3", "--subsets", "8", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["fidelity", *arguments])
    command.main()
    written = json.loads(path.read_text())
    assert not PROMISED - set(written["figures"])
    settings = written["settings"]
    assert (settings["scope"], settings["batch_size"], settings["anchor"], settings["edits"]) == ("head", 16, 0.3, 2)
    assert written["command"].endswith("benchmarks.fidelity --batch-size 16 --logit-scale 8 --anchor 0.3 --subsets 8 "
                                       f"--json {path}")  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]
    table = Table.from_json(written["tables"]["methods"])
    assert table.rows[0][:2] == ["ECIF exact", [written["figures"]["lds_exact"], written["figures"]["lds_exact_se"]]]
    assert "ECIF exact" in capsys.readouterr().out


def test_options_that_are_left_out_are_those_of_the_chosen_scope():
    asked = command.read_options(["--scope", "lora", "--pairs", "32", "--noise", "0.1"])
    assert asked.regime == replace(removal_problem.REGIMES["lora"], pairs=32, noise=0.1)
    assert command.read_options([]).regime == removal_problem.REGIMES["head"]


def test_a_table_of_regimes_says_what_is_varied(monkeypatch, capsys, tmp_path):
    def measured(problem, regime, progress):
        if regime.rounds == 2:
            raise NotAtRest("It kept moving.")
        return {"lds_exact": regime.rounds / 10, "lds_exact_se": 0.01}

    monkeypatch.setattr(sensitivity, "measure", measured)
    monkeypatch.setitem(sensitivity.PROBLEMS, "head", lambda regime, progress: None)
    lines = tmp_path / "lines"
    runs = sensitivity.measure_tables(sensitivity.Sensitivity(("rounds",), json_lines=lines))
    table = sensitivity.regime_table(runs).select(columns=["LDS exact"])
    assert table.rows == [["rounds 1", [0.1, 0.01]], ["rounds 4", [0.4, 0.01]]]
    assert "rounds 2: It kept moving." in capsys.readouterr().out
    assert [json.loads(line)["rounds"] for line in lines.read_text().splitlines()] == [1, 4]

    monkeypatch.setattr(sensitivity, "measure", lambda *_, **__: {"lds_exact": 0.9})
    again = sensitivity.measure_tables(sensitivity.Sensitivity(("rounds",), json_lines=lines))
    assert [figures["lds_exact"] for _, figures in again] == [0.1, 0.9, 0.4]  # what has been measured is kept


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_inside_the_towers_are_measured_the_same_way(pair_rows, monkeypatch):
    """8 generated pairs and a random model: predicted and refitted changes agree there, too; captions are matched."""
    filepaths, captions, _ = zip(*pair_rows)
    table = PairTable(list(filepaths), list(captions), np.zeros(60, int), [], np.repeat("train", 60), (), "generated")
    train, heldout = table.select(np.arange(0, 16, 2)), table.select(np.arange(1, 13, 2))

    def untrained(regime, progress):
        torch.manual_seed(0)
        return train, heldout, LoadedModel(regime.model)

    monkeypatch.setattr(removal_problem, "trained_model", untrained)
    monkeypatch.setattr(removal_problem, "MAX_RANK", 8)
    monkeypatch.setattr(removal_problem, "DRIFT_STEPS", 1)
    monkeypatch.setattr(fidelity, "MIXED_PRECISION_ITERATIONS", 5)
    small = dict(pairs=8, batch_size=4, anchor=3.0, rank=1, rest=1e-2, subsets=4, singles=2, edits=2)
    regime = replace(removal_problem.REGIMES["lora"], **small)
    problem = removal_problem.PROBLEMS["lora"](regime, progress=False)
    figures = measure(problem, regime, progress=False)
    assert not PROMISED - set(figures)
    assert figures["cosine_exact"] > 0.9
    assert 0.5 < figures["slope_exact"] < 2
    assert figures["removal_target_loss_error"] < figures["removal_target_loss_change"]
    assert figures["rank_correlation_float32"] > 0.9
    assert problem.candidates.retrieved == 5 and len(problem.candidates.texts) == len(set(heldout.captions))


def test_pretrained_towers_get_projections_from_the_base_pairs_and_have_only_a_head(monkeypatch):
    trained_on = []

    def trained_head(table, seed, progress):
        trained_on.append(table)
        return Head.identity(4, 4, 10.0)

    monkeypatch.setattr(removal_problem.lite0_minilm, "trained_head", trained_head)
    regime = Regime(data="digits", model="lite0-minilm", base_pairs=30, pairs=20)
    train, heldout, model = removal_problem.trained_model(regime, progress=False)
    (base,) = trained_on
    assert (len(base), len(train), len(heldout)) == (30, 20, 10)
    assert not set(base.filepaths) & {*train.filepaths, *heldout.filepaths}
    assert isinstance(model, removal_problem.lite0_minilm.FrozenTowers)
    with pytest.raises(ValueError, match="lite0-minilm are frozen"):
        removal_problem.PROBLEMS["lora"](regime, progress=False)
