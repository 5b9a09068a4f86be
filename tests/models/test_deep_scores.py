"""Curvature and scores inside the towers against dense matrices, the head scope and really refitting."""

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

from fiftyone_ecif.core import (
    LOSSES,
    Objective,
    TensorPairs,
    conjugate_gradients,
    fit_to_rest,
    influence,
    kronecker_curvature,
    partitions,
    removal_step,
    self_influence,
    self_influence_by_probes,
)
from fiftyone_ecif.models import ParameterScope, parameter_scope
from tests.support.models import HEAD_NAMES, inputs, similarity_of
from tests.support.oracle import factored_trace


@pytest.mark.parametrize(("family", "scope"), [("vit", r"visual\.ln_p|logit"), ("sigmoid", r"text\.ln_final")])
def test_gauss_newton_product_and_solve_match_the_dense_matrix(make_scope, family, scope):
    model, chosen = make_scope(family, scope)
    loss = LOSSES[model.loss]
    data = TensorPairs(*inputs(model, 6))
    rounds = partitions(6, 3, 1, 0)
    objective = Objective(data, rounds, loss, 0.1, chosen.vector())
    theta = chosen.vector()
    dense = 0.1 * torch.eye(len(theta), dtype=theta.dtype)
    for index in rounds[0]:
        pair = data.gather(index)
        J = torch.autograd.functional.jacobian(lambda t: similarity_of(chosen, t, *pair), theta).reshape(9, -1)  # noqa: B023
        S = similarity_of(chosen, theta, *pair).detach()
        dense += J.T @ torch.autograd.functional.hessian(loss.sum_loss, S).reshape(9, 9) @ J / 6
    directions = torch.randn(2, len(theta), dtype=torch.float64)
    torch.testing.assert_close(objective.gauss_newton_product(chosen, directions), directions @ dense)
    curvature = kronecker_curvature(objective, chosen, 0.1)
    solution = conjugate_gradients(
        lambda d: objective.gauss_newton_product(chosen, d), directions, curvature.solve, 1e-10, 500
    )
    torch.testing.assert_close(solution.vectors, torch.linalg.solve(dense, directions.T).T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_the_last_projections_alone_score_as_the_head_scope_does(make_scope, family):
    """The same parameters by two mechanisms: the head on cached features, and derivatives through the towers."""
    names = HEAD_NAMES if family == "vit" else r"^visual\.attnpool\.c_proj|^text_projection$"
    model, chosen = make_scope(family, names)
    images, tokens = inputs(model, 12)
    head = model.head().to(dtype=torch.float64)
    assert chosen.size == head.size
    features = TensorPairs(model.image_features(images), model.text_features(tokens))
    rounds = partitions(12, 6, 1, 0)
    scores, own = [], []
    for scope, data in ((head, features), (chosen, TensorPairs(images, tokens))):
        objective = Objective(data, rounds, LOSSES["clip"], 0.5, scope.vector())
        curvature = kronecker_curvature(objective, scope, 0.5)
        gradient = objective.value_and_gradient(scope)[1]
        found = conjugate_gradients(
            partial(objective.gauss_newton_product, scope),
            gradient[None],
            curvature.solve,
            1e-9,
            500,
        )
        scores.append(torch.stack(influence(objective, scope, found.vectors)))
        change, _ = removal_step(objective, scope, torch.arange(12) < 2, curvature.solve, tolerance=1e-9)
        own.append(objective.value(scope.replace(scope.vector() + change)))
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4 * scores[0].abs().max().item())
    assert own[0] == pytest.approx(own[1], rel=1e-6)


@pytest.mark.parametrize("scope", ["full", "lora"])
def test_kronecker_curvature_of_a_deep_scope_is_consistent_and_preconditions(make_scope, scope):
    model, chosen = make_scope("vit", scope, micro_batch=5)
    data = TensorPairs(*inputs(model, 16))
    anchor = 50.0 if scope == "full" else 0.2
    objective = Objective(data, partitions(16, 8, 1, 0), LOSSES["clip"], anchor, chosen.vector())
    curvature = kronecker_curvature(objective, chosen, anchor, samples=8)
    batch = chosen.linearize(*data.gather(torch.arange(8)))
    cotangent = batch.cotangent(torch.randn(3, 8, 8, dtype=torch.float64))
    gradients = batch.pull_back(cotangent)
    expected = (gradients * curvature.solve(gradients)).sum(-1)
    torch.testing.assert_close(curvature.quadratic(batch, cotangent), expected)
    torch.testing.assert_close(curvature.inverse_root(gradients).square().sum(-1), expected)
    target = objective.value_and_gradient(chosen)[1][None]
    solved = [
        conjugate_gradients(lambda d: objective.gauss_newton_product(chosen, d), target, preconditioner, 1e-6)
        for preconditioner in (torch.clone, curvature.solve)
    ]
    torch.testing.assert_close(solved[1].vectors, solved[0].vectors, rtol=0, atol=1e-5 * solved[0].vectors.abs().max())
    # The factored inverse alone is nearer to the solution than a multiple of the gradient can be.
    found = torch.stack([solved[0].vectors[0], curvature.solve(target)[0], target[0]])
    cosine = normalize(found) @ normalize(found).T
    assert cosine[0, 1] > cosine[0, 2]


def test_kronecker_eigenvalues_of_a_deep_scope_sum_to_the_trace(make_scope):
    model, whole = make_scope("vit", "lora")
    text = [name for name in whole.parameters if "c_fc.lora_A" in name or "c_proj.lora_B" in name]
    text = [name for name in text if not name.startswith("visual")]
    chosen = ParameterScope.of(whole.module, text, micro_batch=2).replace(
        torch.cat([whole.parameters[name].reshape(-1) for name in [*text, "logit_scale"]])
    )
    objective = Objective(TensorPairs(*inputs(model, 5)), partitions(5, 5, 1, 0), LOSSES["clip"])
    product = objective.gauss_newton_product(chosen, torch.eye(chosen.size, dtype=torch.float64))
    curvature = kronecker_curvature(objective, chosen, 1.0, samples=300)
    assert factored_trace(curvature) == pytest.approx(product.trace().item(), rel=0.15)


def test_self_influence_by_probes_is_the_exact_one_within_its_stated_error(make_scope):
    model, chosen = make_scope("vit", "lora")
    data = TensorPairs(*inputs(model, 8))
    objective = Objective(data, partitions(8, 4, 1, 0), LOSSES["clip"], 0.05, chosen.vector())
    curvature = kronecker_curvature(objective, chosen, 0.05)
    exact = self_influence(objective, chosen, curvature.quadratic)
    probes = 60
    estimate = self_influence_by_probes(objective, chosen, curvature.inverse_root, probes)
    relative = (estimate / exact - 1) / (2 / probes) ** 0.5
    assert relative.abs().max() < 3.5 and 0.3 < relative.square().mean().sqrt() < 2
    with pytest.raises(ValueError, match="probes"):
        self_influence_by_probes(objective, chosen, curvature.inverse_root, 0)


def test_sign_and_size_by_really_refitting_adapters_without_each_pair(make_scope):
    model, chosen = make_scope("vit", "lora")
    pairs, target = (
        TensorPairs(*inputs(model, 12)),
        Objective(TensorPairs(*inputs(model, 8, seed=9)), partitions(8, 8, 1, 1), LOSSES["clip"]),
    )
    objective = Objective(pairs, partitions(12, 6, 1, 0), LOSSES["clip"], 0.5, chosen.vector())
    curvature = kronecker_curvature(objective, chosen, 0.5)
    fit = fit_to_rest(objective, chosen, torch.clone, 1e-5, 50)
    assert fit.at_rest
    gradient = target.value_and_gradient(fit.scope)[1]
    solution = conjugate_gradients(
        lambda d: objective.gauss_newton_product(fit.scope, d), gradient[None], curvature.solve, 1e-4
    )
    value = influence(objective, fit.scope, solution.vectors).value("exact")[0, 0]
    before = target.value(fit.scope)
    measured = []
    for n in range(12):
        kept = objective.without(torch.arange(12) == n)
        refit = fit_to_rest(kept, fit.scope, torch.clone, 1e-4, 50, gradient_scale=1.0)
        measured.append(target.value(refit.scope) - before)
    measured = torch.tensor(measured, dtype=torch.float64)
    assert torch.corrcoef(torch.stack([value, measured]))[0, 1] > 0.9
    large = measured.abs() > measured.abs().median()
    assert (value.sign() == measured.sign())[large].all()


def test_mixed_precision_orders_the_pairs_as_float32_does(make_model):
    model = make_model("vit")
    data = TensorPairs(*inputs(model, 24))
    probe = torch.randn(1, parameter_scope(model).size)
    scored = []
    for autocast in (None, torch.bfloat16):
        scope = parameter_scope(model, autocast=autocast)
        objective = Objective(data, partitions(24, 12, 1, 0), LOSSES["clip"])
        assert scope.linearize(*data.gather(torch.arange(2))).image.dtype == torch.float32
        gradient = objective.value_and_gradient(scope)[1]
        scored.append(influence(objective, scope, torch.stack([probe[0], gradient])).value("exact")[0])
    assert not torch.equal(*scored)
    ranks = [rows.argsort(1).argsort(1).double() for rows in scored]
    for mine, theirs in zip(*ranks):
        assert torch.corrcoef(torch.stack([mine, theirs]))[0, 1] > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_do_not_depend_on_the_device_and_little_on_mixed_precision(make_scope):
    model, chosen = make_scope("vit", "full")
    data = TensorPairs(*inputs(model, 16))
    directions = torch.randn(1, chosen.size, dtype=torch.float64)
    objective = Objective(data, partitions(16, 8, 1, 0), LOSSES["clip"])
    here = influence(objective, chosen, directions).value("exact")
    there = influence(objective, chosen.to("cuda"), directions.cuda()).value("exact")
    torch.testing.assert_close(here, there.cpu(), rtol=1e-6, atol=1e-9)
    model.model.float()
    mixed = parameter_scope(model, "full").to("cuda")
    mixed = ParameterScope(mixed.module, mixed.parameters, None, torch.bfloat16)
    rough = influence(objective, mixed, directions.float().cuda()).value("exact")
    assert torch.corrcoef(torch.stack([here[0, 0], rough[0, 0].double().cpu()]))[0, 1] > 0.99
