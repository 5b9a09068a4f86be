"""Scores against dense oracles, and against really refitting."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy.stats import spearmanr

from fiftyone_ecif.core import (
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    self_influence,
    self_influence_scale,
)
from tests.support.oracle import dense_gauss_newton, make_objective, random_vectors, role_functions, similarity_of

KINDS = ["clip", "siglip"]
REFITS = 20
"""Pairs that are really left out, six of them wrong."""


def dense_quadratic(inverse, batch, cotangent):
    gradients = batch.pull_back(cotangent)
    return ((gradients @ inverse) * gradients).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_match_the_oracle(kind):
    """(1/N) ⟨s, ∇role⟩ by autograd, pair by pair, for all three roles."""
    objective, head = make_objective(kind, pairs=10, batch_size=5)
    solutions = random_vectors(2, head.size)
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

    quadratic = partial(dense_quadratic, inverse)
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
def test_the_shipped_self_influence_ranks_as_the_dense_one_and_its_scale_is_measured(kind):
    """The EK-FAC form is some tens of per cent too large; the sampled ratios are those to the dense inverse."""
    objective, head = make_objective(kind, pairs=24, rounds=1)
    shipped = self_influence(objective, head, kronecker_curvature(objective, head, objective.anchor, 64).quadratic)
    inverse = torch.linalg.inv(dense_gauss_newton(objective, head, kind))
    dense = self_influence(objective, head, partial(dense_quadratic, inverse))
    ratios = shipped / dense
    assert spearmanr(shipped, dense).statistic > 0.95
    assert 1.0 < ratios.mean() < 1.4
    assert (ratios > 0.8).all() and (ratios < 1.8).all()
    rows = torch.tensor([20, 3, 11, *range(4, 11)])
    torch.testing.assert_close(self_influence_scale(objective, head, shipped, rows, 1e-8), ratios[rows])
    damped = replace(objective, anchor=objective.anchor + 0.5)
    inverse = torch.linalg.inv(dense_gauss_newton(damped, head, kind))
    dense = self_influence(objective, head, partial(dense_quadratic, inverse))
    torch.testing.assert_close(self_influence_scale(damped, head, shipped, rows, 1e-8), (shipped / dense)[rows])


def test_a_solved_self_influence_has_the_scale_one():
    """Whatever the number of rounds: the first round's batches are meant, and the curvature of them all."""
    objective, head = make_objective(pairs=24, rounds=3)
    inverse = torch.linalg.inv(dense_gauss_newton(objective, head, "clip"))
    solved = self_influence(objective, head, partial(dense_quadratic, inverse))
    ratios = self_influence_scale(objective, head, solved, torch.arange(12), 1e-8)
    torch.testing.assert_close(ratios, torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_order_in_a_batch_or_on_what_is_scored_together(kind):
    objective, head = make_objective(kind, pairs=20, batch_size=10)
    solutions = random_vectors(3, head.size)
    together = influence(objective, head, solutions)
    reversed_rounds = [[batch.flip(0) for batch in reversed(batches)] for batches in objective.rounds]
    apart = [influence(replace(objective, rounds=reversed_rounds), head, row[None]) for row in solutions]
    for part, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts, dim=1))


def test_sign_and_size_by_really_refitting_without_each_pair(fitted):
    """value_n is the change of the target loss when n is removed and the head refitted: positive = the pair helps."""
    objective, target, scope, inverse = fitted
    gradient = target.value_and_gradient(scope)[1]
    solution = conjugate_gradients(lambda d: objective.gauss_newton_product(scope, d), gradient[None], inverse, 1e-8)
    scores = influence(objective, scope, solution.vectors)
    before, measured = target.value(scope), []
    for n in range(REFITS):
        removed = torch.arange(len(objective.pairs)) == n
        refit = fit_to_rest(objective.without(removed), scope, inverse, 1e-5, 100, gradient_scale=1.0)
        assert refit.at_rest
        measured.append(target.value(refit.scope) - before)
    measured = torch.tensor(measured, dtype=torch.float64)

    def pearson(values):
        return torch.corrcoef(torch.stack([values[:REFITS], measured]))[0, 1].item()

    exact = scores.value("exact").mean(0)[0]
    assert pearson(exact) >= 0.95
    assert pearson(exact) > pearson(scores.positive.mean(0)[0])
    agree = (exact[:REFITS].sign() == measured.sign())[measured.abs() > measured.abs().median()]
    assert agree.all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_device(kind):
    objective, head = make_objective(kind, pairs=64, batch_size=16)
    solutions = random_vectors(2, head.size)
    here = influence(objective, head, solutions)
    there = influence(objective, head.to("cuda"), solutions.cuda())
    for mine, theirs in zip(here, there, strict=True):
        torch.testing.assert_close(mine, theirs.cpu(), rtol=1e-8, atol=1e-10)
