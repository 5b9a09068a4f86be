"""The chain from θ to scores against dense oracles, and against really refitting."""

from dataclasses import replace

import pytest
import torch

from fiftyone_ecif.core import (
    LOSSES,
    Linearization,
    Objective,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    losses,
    partitions,
    removal_gradients,
    removal_step,
    rows,
    self_influence,
)
from tests.support.oracle import (
    dense_gauss_newton,
    make_features,
    make_head,
    make_objective,
    oracle_value,
    role_functions,
    similarity_of,
)

KINDS = ["clip", "siglip"]


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_match_the_oracle(kind):
    objective, head = make_objective(kind)
    head = head.replace(head.vector() + 0.1)
    theta = head.vector().requires_grad_()
    expected = oracle_value(objective, head, theta, kind)
    value, gradient = objective.value_and_gradient(head)
    assert value == pytest.approx(expected.item(), rel=1e-9) == objective.value(head)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, theta)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gauss_newton_product_matches_the_dense_matrix(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    directions = torch.randn(3, head.size, dtype=torch.float64)
    dense = dense_gauss_newton(objective, head, kind)
    torch.testing.assert_close(objective.gauss_newton_product(head, directions), directions @ dense)


def test_kronecker_curvature_preconditions_and_needs_damping():
    head = make_head(dim=4, image_dim=30, text_dim=30, logit_scale=2.5)
    spectrum = 0.8 ** torch.arange(30)  # features are never isotropic
    image, text = (features * spectrum for features in make_features(400, 1, 30, 30))
    rounds = partitions(400, 40, 1, seed=0)
    objective = Objective(TensorPairs(image, text), rounds, LOSSES["clip"], 1e-2, head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor, samples=16)
    target = torch.randn(1, head.size, dtype=torch.float64)
    product = lambda d: objective.gauss_newton_product(head, d)  # noqa: E731
    plain = conjugate_gradients(product, target, lambda r: r, 1e-4, 500)
    preconditioned = conjugate_gradients(product, target, curvature.solve, 1e-4, 500)
    assert preconditioned.iterations < plain.iterations
    with pytest.raises(ValueError, match="damping"):
        kronecker_curvature(objective, head, 0.0)
    objective.pairs.image[0] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        kronecker_curvature(objective, head, 1.0)


def test_factors_without_full_rank_are_inverted_all_the_same():
    """Two pairs and a feature that never varies: the anchor alone holds the rest up."""
    head = make_head()
    image, text = make_features(2)
    image[:, 0] = 0.0
    objective = Objective(TensorPairs(image, text), [[torch.arange(2)]], LOSSES["clip"], 0.1, head.vector())
    curvature = kronecker_curvature(objective, head, objective.anchor)
    direction = torch.zeros(1, head.size, dtype=torch.float64)
    direction[0, 0] = 1.0  # the weight of that feature: no curvature but the anchor's
    torch.testing.assert_close(curvature.solve(direction), direction / 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_kronecker_eigenvalues_sum_to_the_trace(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    curvature = kronecker_curvature(objective, head, objective.anchor, samples=3000)
    trace = dense_gauss_newton(objective, head, kind).trace() - objective.anchor * head.size
    assert curvature.trace == pytest.approx(trace.item(), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_kronecker_quadratic_is_the_product_with_its_own_inverse(kind):
    objective, head = make_objective(kind, pairs=12, batch_size=6)
    curvature = kronecker_curvature(objective, head, objective.anchor)
    batch = head.linearize(*objective.pairs.gather(torch.arange(6)))
    cotangent = batch.cotangent(torch.randn(3, 6, 6, dtype=torch.float64))
    gradients = batch.pull_back(cotangent)
    expected = (gradients * curvature.solve(gradients)).sum(-1)
    torch.testing.assert_close(curvature.quadratic(batch, cotangent), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_match_the_oracle(kind):
    """(1/N) ⟨s, ∇role⟩ by autograd, pair by pair, for all three roles."""
    objective, head = make_objective(kind, pairs=10, batch_size=5)
    solutions = torch.randn(2, head.size, dtype=torch.float64)
    scores = influence(objective, head, solutions)
    theta = head.vector().requires_grad_()
    for number, batches in enumerate(objective.rounds):
        for index in batches:
            S = similarity_of(head, theta, *objective.pairs.gather(index))
            for place, n in enumerate(index.tolist()):
                for mine, role in zip(scores, role_functions(kind, S, place), strict=True):
                    gradient = torch.autograd.grad(role, theta, retain_graph=True)[0]
                    torch.testing.assert_close(mine[number, :, n], solutions @ gradient / 10, rtol=0, atol=1e-6)


def test_self_influence_matches_the_oracle_whatever_the_chunk():
    objective, head = make_objective(pairs=10, batch_size=5, rounds=1)
    inverse = torch.linalg.inv(dense_gauss_newton(objective, head, "clip"))

    def quadratic(batch, cotangent):
        gradients = batch.pull_back(cotangent)
        return ((gradients @ inverse) * gradients).sum(-1)

    mine = self_influence(objective, head, quadratic, chunk=2)
    torch.testing.assert_close(mine, self_influence(objective, head, quadratic, chunk=7))
    theta = head.vector().requires_grad_()
    for index in objective.rounds[0]:
        S = similarity_of(head, theta, *objective.pairs.gather(index))
        for place, n in enumerate(index.tolist()):
            positive, _, exact = role_functions("clip", S, place)
            gradient = torch.autograd.grad(positive + exact, theta, retain_graph=True)[0]
            torch.testing.assert_close(mine[n], gradient @ inverse @ gradient / 10)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_order_in_a_batch_or_on_what_is_scored_together(kind):
    objective, head = make_objective(kind, pairs=20, batch_size=10)
    solutions = torch.randn(3, head.size, dtype=torch.float64)
    together = influence(objective, head, solutions)
    reversed_rounds = [[batch.flip(0) for batch in reversed(batches)] for batches in objective.rounds]
    apart = [influence(replace(objective, rounds=reversed_rounds), head, row[None]) for row in solutions]
    for part, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts, dim=1))


@pytest.fixture(scope="module")
def fitted():
    """A head at rest on 60 pairs, a tenth of them wrong, with a clean held-out target."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(100, 4, generator=generator, dtype=torch.float64)
    mix = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(2, 100, 6, generator=generator, dtype=torch.float64)
    image, text = latent @ mix[0] + noise[0], latent @ mix[1] + noise[1]
    train_text = text[:60].clone()
    train_text[:6] = text[[1, 2, 3, 4, 5, 0]]
    head = make_head(4, dim=4, image_dim=6, text_dim=6, logit_scale=2.0)
    pairs = TensorPairs(image[:60], train_text)
    objective = Objective(pairs, partitions(60, 12, 3, 0), LOSSES["clip"], 0.2, head.vector())
    target = Objective(TensorPairs(image[60:], text[60:]), partitions(40, 20, 2, 1), LOSSES["clip"])
    curvature = kronecker_curvature(objective, head, objective.anchor)
    fit = fit_to_rest(objective, head, curvature.solve, 1e-9, 100)
    return objective, target, fit, curvature


def solve_target(objective, target, scope, curvature):
    gradient = target.value_and_gradient(scope)[1]
    return conjugate_gradients(
        lambda d: objective.gauss_newton_product(scope, d), gradient[None], curvature.solve, 1e-8
    ).vectors


def test_fit_comes_to_rest(fitted):
    objective, _, fit, _ = fitted
    assert fit.at_rest
    assert objective.value_and_gradient(fit.scope)[1].norm() < 1e-7


def test_sign_and_size_by_really_refitting_without_each_pair(fitted):
    """value_n is the change of the target loss when n is removed and the head refitted: positive = the pair helps."""
    objective, target, fit, curvature = fitted
    scores = influence(objective, fit.scope, solve_target(objective, target, fit.scope, curvature))
    before = target.value(fit.scope)
    measured = []
    for n in range(30):
        removed = torch.arange(60) == n
        refit = fit_to_rest(objective.without(removed), fit.scope, curvature.solve, 1e-6, 100, gradient_scale=1.0)
        assert refit.at_rest
        measured.append(target.value(refit.scope) - before)
    measured = torch.tensor(measured, dtype=torch.float64)

    def pearson(values):
        return torch.corrcoef(torch.stack([values[:30], measured]))[0, 1].item()

    exact = scores.value("exact").mean(0)[0]
    assert pearson(exact) >= 0.9
    assert pearson(exact) > pearson(scores.positive.mean(0)[0])
    agree = (exact[:30].sign() == measured.sign())[measured.abs() > measured.abs().median()]
    assert agree.double().mean() > 0.9


def test_removal_step_is_close_to_the_refit_and_a_second_step_closer(fitted):
    objective, _, fit, curvature = fitted
    removed = torch.zeros(60, dtype=torch.bool)
    removed[30:33] = True
    refit = fit_to_rest(objective.without(removed), fit.scope, curvature.solve, 1e-8, 100, gradient_scale=1.0)
    truth = refit.scope.vector() - fit.scope.vector()
    one, solution = removal_step(objective, fit.scope, removed, curvature.solve, 1, 1e-8)
    two, _ = removal_step(objective, fit.scope, removed, curvature.solve, 2, 1e-8)
    assert solution.converged
    assert (one - truth).norm() < 0.5 * truth.norm()
    assert (two - truth).norm() < 0.8 * (one - truth).norm()


def test_the_group_form_is_the_gradient_of_what_removal_changes(fitted):
    """∇(pos_E + negx_E) is ∇J − ∇J_{−E}: for one pair it is the single form, for many it is not their sum."""
    objective, _, fit, _ = fitted
    batch = objective.rounds[0][0].tolist()
    groups = torch.zeros(4, 60, dtype=torch.bool)
    # One pair, some of a batch, a whole batch of a round, a batch but for one pair.
    for group, members in zip(groups, ([7], batch[:6], batch, batch[1:])):
        group[members] = True
    probe = torch.randn(fit.scope.size, dtype=torch.float64)
    found = removal_gradients(objective, fit.scope, groups)
    full = objective.value_and_gradient(fit.scope)[1]
    for group, gradient in zip(groups, found):
        expected = full - objective.without(group).value_and_gradient(fit.scope)[1]
        torch.testing.assert_close(gradient, expected)
    single = influence(objective, fit.scope, probe[None]).value("exact").mean(0)[0]
    torch.testing.assert_close(found[0] @ probe, single[7])
    assert abs(found[1] @ probe - single[batch[:6]].sum()) > 1e-6


def test_removing_everything_is_refused(fitted):
    objective = fitted[0]
    everything = torch.ones(60, dtype=torch.bool)
    for removal in (
        objective.without,
        lambda E: removal_gradients(objective, fitted[2].scope, E[None]),
    ):
        with pytest.raises(ValueError, match="fewer than two"):
            removal(everything)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_device(kind):
    objective, head = make_objective(kind, pairs=64, batch_size=16)
    solutions = torch.randn(2, head.size, dtype=torch.float64)
    here = influence(objective, head, solutions)
    there = influence(objective, head.to("cuda"), solutions.cuda())
    for mine, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(mine, theirs.cpu(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [1, 3, 9])
def test_results_do_not_depend_on_how_many_rows_of_a_batch_are_held_together(kind, held, monkeypatch):
    """A hard negative among them: rows where 1 − P cancels are computed apart."""
    objective, head = make_objective(kind, pairs=10, batch_size=10, logit_scale=3.5)
    batch = head.linearize(*objective.pairs.gather(torch.arange(10)))
    batch.text = torch.cat([batch.image[1:2], batch.text[1:]])
    directions = torch.randn(2, head.size, dtype=torch.float64)

    def everything():
        value, gradient = rows.value_and_cotangent(objective.loss, batch)
        sampled = rows.sampled_cotangent(objective.loss, batch, 2, torch.Generator().manual_seed(0))
        found = [gradient, rows.curvature_cotangent(objective.loss, batch, directions), sampled]
        parts = [part for each in found for part in each if part is not None]
        assert rows.batch_value(objective.loss, batch) == pytest.approx(value, rel=1e-9)
        return [torch.tensor(value), *parts, *rows.role_derivatives(objective.loss, batch, directions)]

    whole = everything()
    monkeypatch.setattr(losses, "_CACHED_CELLS", {True: 20 * min(2, held), False: 20})
    monkeypatch.setattr(rows, "WHOLE_BYTES", held * 2 * 10 * 8)
    monkeypatch.delattr(Linearization, "similarity")  # S is not asked for
    for ours, expected in zip(everything(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_a_sample_of_the_batches_weighs_what_all_of_them_do():
    """Whole rounds first; its mean curvature is an estimate of the objective's, so also after a removal."""
    objective, head = make_objective(pairs=24, batch_size=8, rounds=3)
    objective = objective.without(torch.arange(24) < 6)
    assert objective.sample(54) is objective and objective.sample(1000) is objective
    sample = objective.sample(18)
    assert [len(batches) for batches in sample.rounds] == [3]
    assert torch.equal(torch.cat(sample.rounds[0]).sort().values, torch.arange(6, 24))
    assert sample.weight * 18 == pytest.approx(objective.weight * 54)
    monotone = replace(objective, rounds=objective.rounds[:1] * 2)  # the same round twice: its half is all of it
    direction = torch.randn(1, head.size, dtype=torch.float64)
    torch.testing.assert_close(
        monotone.sample(18).gauss_newton_product(head, direction), monotone.gauss_newton_product(head, direction)
    )


@pytest.mark.parametrize(("enough", "held"), [(1000, 3), (49, 3), (48, 2), (24, 1), (5, 1)])
def test_curvature_is_taken_from_as_many_rounds_as_hold_enough_pairs(enough, held, monkeypatch):
    """A removal takes no more of them; gradients, and where there are too few pairs all else, stay as they are."""
    objective, head = make_objective(pairs=24, batch_size=8, rounds=3)
    direction = torch.randn(1, head.size, dtype=torch.float64)
    gradient = objective.value_and_gradient(head)[1]
    monkeypatch.setattr("fiftyone_ecif.core.objective.CURVATURE_PAIRS", enough)
    objective = replace(objective)  # nothing is remembered of the other choice
    assert (
        len(objective.curvature_sample.rounds)
        == held
        == len(objective.without(torch.arange(24) < 20).curvature_sample.rounds)
    )
    assert (objective.curvature_sample is objective) == (held == 3)
    expected = dense_gauss_newton(replace(objective, rounds=objective.rounds[:held]), head, "clip")
    torch.testing.assert_close(objective.gauss_newton_product(head, direction), direction @ expected)
    assert torch.equal(objective.value_and_gradient(head)[1], gradient)
