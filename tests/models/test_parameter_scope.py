"""Derivatives through the towers against autograd, and what a scope of their parameters holds."""

import pytest
import torch

from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, influence, kronecker_curvature, partitions
from fiftyone_ecif.core.scope import Cotangent
from fiftyone_ecif.models import ParameterScope, parameter_scope
from tests.support.models import embedded, inputs

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


@pytest.mark.parametrize(
    ("family", "scope", "micro_batch"),
    [("vit", "full", 1), ("vit", "full", 100), ("resnet", "full", 3), ("vit", "lora", 1), ("vit", "lora", 3)],
)
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


@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_a_model_in_bfloat16_is_computed_in_float32_and_says_so(make_model, precision):
    model = make_model("vit", precision)
    with pytest.warns(UserWarning, match="bfloat16"):
        scope = parameter_scope(model, "full")
    batch = scope.linearize(*inputs(model, 3))
    assert scope.vector().dtype == batch.image.dtype == torch.float32
    assert any(value.dtype == torch.bfloat16 for value in model.model.parameters())
