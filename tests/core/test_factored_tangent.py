"""Traces along factored gradients against the tangents of the whole parameter vector."""

import pytest
import torch

from fiftyone_ecif.core import influence
from fiftyone_ecif.core.factored_tangent import TangentMaker, role_derivatives_along
from fiftyone_ecif.core.query_gradient import OuterProducts, query_gradient
from tests.support.oracle import make_features, make_head, make_objective


def make_queries(head, kind="margin"):
    """Two images that look for texts and one text that looks for images."""
    image, text = make_features(5, seed=9)
    right = torch.tensor([False, True, False, False, True])
    return [
        query_gradient(head, image[:1], text, right, kind),
        query_gradient(head, image[1:2], text[:3], right[:3], kind),
        query_gradient(head, image, text[:1], right, kind),
    ]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["margin", "loss"])
def test_a_query_s_gradient_is_that_of_its_target(kind, bias):
    head = make_head(bias=bias)
    image, text = make_features(5, seed=9)
    right = torch.tensor([False, True, False, False, True])
    theta = head.vector().requires_grad_()
    moved = head.replace(theta)
    scores = moved.linearize(image[:1], text).similarity().flatten()
    if kind == "margin":
        expected = scores[~right].max() - scores[right].max()
    else:
        expected = -torch.log(scores.softmax(0)[right].sum())
    target, gradient = query_gradient(head, image[:1], text, right, kind)
    assert target == pytest.approx(expected.item())
    torch.testing.assert_close(gradient.dense(head)[0], torch.autograd.grad(expected, theta)[0])


@pytest.mark.parametrize("removal", ["exact", "first_order"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("sharpness", [1.5, 5.0])
def test_factored_derivatives_are_those_of_whole_tangents(kind, removal, sharpness):
    objective, head = make_objective(kind, logit_scale=sharpness)
    gradients = OuterProducts.join([gradient for _, gradient in make_queries(head)])
    whole = influence(objective, head, gradients.dense(head))
    for number, batches in enumerate(objective.rounds):
        parts = []
        for index in batches:
            image, text = objective.pairs.gather(index)
            batch = head.linearize(image, text)
            products = head.logit_scale.exp() * batch.image @ batch.text.T
            parts.append((image / batch.image_norm, text / batch.text_norm, products, batch.similarity()))
        *inputs, similarity = map(torch.stack, zip(*parts))
        tangent = TangentMaker.of(gradients, head).along(*inputs)
        positive, negative = role_derivatives_along(objective.loss, similarity, tangent, removal)
        for place, index in enumerate(batches):
            torch.testing.assert_close(positive[place] / 24, whole.positive[number][:, index])
            torch.testing.assert_close(negative[place] / 24, whole.negative(removal)[number][:, index])


def test_the_mean_of_gradients_is_one_gradient():
    head = make_head(bias=True)
    gradients = OuterProducts.join([gradient for _, gradient in make_queries(head)])
    torch.testing.assert_close(gradients.mean().dense(head), gradients.dense(head).mean(0, keepdim=True))


def test_an_unknown_kind_is_refused():
    head = make_head()
    image, text = make_features(3)
    with pytest.raises(ValueError, match="kind"):
        query_gradient(head, image[:1], text, torch.tensor([True, False, False]), "other")
