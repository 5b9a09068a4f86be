"""A query's gradient against autograd."""

import pytest
import torch

from fiftyone_ecif.core.query_gradient import query_gradient
from tests.support.oracle import make_features, make_head, make_query_gradients


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


def test_the_mean_of_gradients_is_one_gradient():
    head = make_head(bias=True)
    gradients = make_query_gradients(head)
    torch.testing.assert_close(gradients.mean().dense(head), gradients.dense(head).mean(0, keepdim=True))


def test_an_unknown_kind_is_refused():
    head = make_head()
    image, text = make_features(3)
    with pytest.raises(ValueError, match="kind"):
        query_gradient(head, image[:1], text, torch.tensor([True, False, False]), "other")
