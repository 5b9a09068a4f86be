"""Scopes inside the towers against autograd, dense matrices, the head scope and really refitting."""

import builtins
from functools import partial

import pytest
import torch
from torch.func import functional_call
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
from fiftyone_ecif.core.scope import Cotangent
from fiftyone_ecif.models import ParameterScope, lora_scope, parameter_scope, wrap_model
from tests.support.models import HEAD_NAMES, inputs

# Family of towers, scope: linear layers, raw matrices, convolutions, sigmoid loss, fused projections.
SCOPES = [
    ("vit", "full"),
    ("vit", r"resblocks\.0\.mlp"),
    ("vit", r"^visual\."),
    ("vit", "lora"),
    ("resnet", "full"),
    ("resnet", "lora"),
    ("sigmoid", "full"),
    ("coca", "full"),
    ("nonscalar", "logit"),
]
every_scope = pytest.mark.parametrize(("family", "scope"), SCOPES)


def embedded(scope, vector, images, tokens):
    """u and v by the model's own methods, differentiable in θ."""
    values = dict(scope.split(vector))

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = scope.module

        def forward(self):
            return self.model.encode_image(images), self.model.encode_text(tokens)

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        both = functional_call(Both(), {f"model.{name}": value for name, value in values.items()}, ())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return tuple(normalize(half, dim=-1) for half in both)


def similarity_of(scope, vector, images, tokens):
    u, v = embedded(scope, vector, images, tokens)
    values = scope.split(vector)
    result = values["logit_scale"].exp() * u @ v.T
    return result + values["logit_bias"] if "logit_bias" in values else result


def random_cotangent(batch, count):
    scalars = torch.randn(count, dtype=torch.float64)
    return Cotangent(
        torch.randn(count, *batch.image.shape, dtype=torch.float64),
        torch.randn(count, *batch.text.shape, dtype=torch.float64),
        scalars,
        None if batch.logit_bias is None else scalars + 1,
    )


@every_scope
def test_pull_back_is_autograds_gradient_and_tangent_its_adjoint(make_scope, family, scope):
    model, chosen = make_scope(family, scope)
    images, tokens = inputs(model, 5)
    batch = chosen.linearize(images, tokens)
    theta = chosen.vector().requires_grad_()
    u, v = embedded(chosen, theta, images, tokens)
    torch.testing.assert_close((batch.image, batch.text), (u.detach(), v.detach()))
    cotangent = random_cotangent(batch, 2)
    pulled = batch.pull_back(cotangent)
    values = chosen.split(theta)
    for number in range(2):
        scalar = (u * cotangent.image[number]).sum() + (v * cotangent.text[number]).sum()
        scalar = scalar + values["logit_scale"].sum() * cotangent.logit_scale[number]
        if batch.logit_bias is not None:
            scalar = scalar + values["logit_bias"].sum() * cotangent.logit_bias[number]
        expected = torch.autograd.grad(scalar, theta, retain_graph=True)[0]
        torch.testing.assert_close(pulled[number], expected, rtol=1e-7, atol=1e-10)
    directions = torch.randn(3, chosen.size, dtype=torch.float64)
    tangent = batch.tangent(directions)
    paired = [
        (a * b[:, None]).flatten(2).sum(-1) if a.ndim > 1 else b[:, None] * a
        for a, b in zip(tangent, cotangent)
        if a is not None
    ]
    torch.testing.assert_close(sum(paired), pulled @ directions.T, rtol=1e-8, atol=1e-8)


@every_scope
def test_layer_statistics_are_the_pull_backs_factors(make_scope, family, scope):
    """Summed over a layer's parts, output gradientsᵀ · inputs is the layer's block of the pulled-back gradient."""
    model, chosen = make_scope(family, scope, micro_batch=2)
    batch = chosen.linearize(*inputs(model, 5))
    cotangent = random_cotangent(batch, 2)
    pulled = batch.pull_back(cotangent)
    blocks = {}
    for position, fed, gradients in batch.layer_statistics(cotangent):
        block = gradients.mT @ fed
        blocks[position] = blocks.get(position, 0) + block
    for position, block in blocks.items():
        torch.testing.assert_close(block.flatten(1), pulled[:, position : position + block[0].numel()])
    matrices = {"vit": 4, "resnet": 0, "sigmoid": 4}
    if scope == "full" and family in matrices:
        assert sum(block[0].numel() > 1 for block in blocks.values()) >= matrices[family]
    if (family, scope) == ("vit", "lora"):
        assert sum(block[0].numel() for block in blocks.values()) == chosen.size  # nothing is left to the diagonal


@pytest.mark.parametrize(("family", "scope"), [("vit", "full"), ("resnet", "full"), ("vit", "lora")])
@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_micro_batch_does_not_change_results(make_scope, family, scope, micro_batch):
    model, whole = make_scope(family, scope)
    parts = ParameterScope(whole.module, whole.parameters, micro_batch)
    data = TensorPairs(*inputs(model, 7))
    objective = Objective(data, partitions(7, 7, 1, 0), LOSSES["clip"], 0.1, whole.vector())
    directions = torch.randn(1, whole.size, dtype=torch.float64)
    for quantity in (
        lambda s: objective.value_and_gradient(s)[1],
        lambda s: objective.gauss_newton_product(s, directions),
        lambda s: torch.stack(influence(objective, s, directions)),
        lambda s: kronecker_curvature(objective, s, 0.1, samples=2).solve(directions),
    ):
        torch.testing.assert_close(quantity(parts), quantity(whole), rtol=1e-6, atol=1e-8)


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
    assert curvature.trace == pytest.approx(product.trace().item(), rel=0.15)


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


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_fresh_adapters_change_nothing_and_training_lowers_the_loss(make_model, family):
    from fiftyone_ecif.models.lora import with_adapters

    model = make_model(family)
    with torch.no_grad():
        for name, value in model.model.named_parameters():
            if name.endswith("bn3.weight"):  # open_clip starts these at zero, which cuts the branch off
                value.fill_(0.5)
    images, tokens = (half.to(dtype) for half, dtype in zip(inputs(model, 16), (torch.float32, torch.int64)))
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    adapted = with_adapters(model.model, images[:1], tokens[:1], rank=2, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(adapted.encode_image(images), model.model.encode_image(images))
        torch.testing.assert_close(adapted.encode_text(tokens), model.model.encode_text(tokens))
    pairs = TensorPairs(images, tokens)
    objective = Objective(pairs, partitions(16, 8, 1, 0), LOSSES["clip"])
    at_start = objective.value(lora_scope(model, pairs, rank=2, training_steps=0))
    trained = lora_scope(model, pairs, rank=2, training_steps=8, batch_size=8)
    assert objective.value(trained) < at_start
    gradient = trained.split(objective.value_and_gradient(trained)[1])
    assert all(part.norm() > 0 for part in gradient.values())  # both halves of every adapter
    torch.manual_seed(7)  # the adapters' own seed counts, not the global one
    again = lora_scope(model, pairs, rank=2, training_steps=8, batch_size=8)
    torch.testing.assert_close(trained.vector(), again.vector())
    torch.testing.assert_close(dict(model.model.state_dict()), before, atol=0, rtol=0)


def test_adapters_that_are_there_are_used_as_they_are(make_model):
    from fiftyone_ecif.models.lora import with_adapters

    model = make_model("vit")
    images, tokens = inputs(model, 2)
    adapted = with_adapters(model.model, images, tokens, rank=3, seed=0)
    scope = lora_scope(wrap_model(adapted, model.preprocess, model.tokenizer, name="adapted"), None)
    assert all("lora_" in name for name in scope.parameters if name != "logit_scale")
    assert {value.shape[0] for name, value in scope.parameters.items() if "lora_A" in name} == {3}


@pytest.mark.parametrize(("family", "scope"), [("vit", "full"), ("vit", "lora"), ("resnet", "lora")])
def test_plain_module_is_the_open_clip_model_at_theta(make_scope, make_model, family, scope):
    model, chosen = make_scope(family, scope)
    moved = chosen.replace(chosen.vector() + 0.01)
    images, tokens = inputs(model, 3)
    module = moved.plain_module()
    assert set(module.state_dict()) == set(make_model(family).model.state_dict())
    batch = moved.linearize(images, tokens)
    with torch.no_grad():
        torch.testing.assert_close(module.encode_image(images, normalize=True), batch.image)
        torch.testing.assert_close(module.encode_text(tokens, normalize=True), batch.text)


def test_every_scope_holds_the_logit_scale_and_replace_keeps_the_rest(make_scope):
    model, chosen = make_scope("sigmoid", r"text\.ln_final")
    assert list(chosen.parameters)[-2:] == ["logit_scale", "logit_bias"]
    vector = torch.randn(chosen.size, dtype=torch.float64)
    torch.testing.assert_close(chosen.replace(vector).vector(), vector)
    assert chosen.to("cpu") is chosen


def test_a_scope_of_nothing_names_parameters_near_it(make_model):
    model = make_model("vit")
    with pytest.raises(ValueError, match=r"finds no parameter.*Near: .*attn"):
        parameter_scope(model, "attention_pool")
    with pytest.raises(ValueError, match="no regular expression"):
        parameter_scope(model, "visual.(")
    with pytest.raises(ValueError, match="micro_batch"):
        parameter_scope(model, "full", micro_batch=0)
    with pytest.raises(ValueError, match="Mixed precision is"):
        parameter_scope(model, "full", autocast=torch.float64)


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


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_a_model_in_half_precision_is_computed_in_float32_and_says_so(make_model, precision):
    model = make_model("vit", precision)
    with pytest.warns(UserWarning, match="bfloat16"):
        scope = parameter_scope(model, "full")
    batch = scope.linearize(*inputs(model, 3))
    assert scope.vector().dtype == batch.image.dtype == torch.float32
    assert any(value.dtype == torch.bfloat16 for value in model.model.parameters())


def test_without_peft_the_message_says_what_to_install(make_model, monkeypatch):
    real = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    model = make_model("vit")
    with pytest.raises(ImportError, match=r"pip install fiftyone-ecif\[lora\]"):
        lora_scope(model, TensorPairs(*inputs(model, 2)))


def test_a_rank_below_one_is_refused(make_model):
    model = make_model("vit")
    with pytest.raises(ValueError, match="rank"):
        lora_scope(model, TensorPairs(*inputs(model, 2)), rank=0)


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
