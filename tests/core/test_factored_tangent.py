"""Traces along factored gradients against the tangents of the whole parameter vector."""

import pytest
import torch

from fiftyone_ecif.core import influence
from fiftyone_ecif.core.factored_tangent import TangentMaker, role_derivatives_along
from tests.support.oracle import make_objective, make_query_gradients


@pytest.mark.parametrize("removal", ["exact", "first_order"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("sharpness", [1.5, 5.0])
def test_factored_derivatives_are_those_of_whole_tangents(kind, removal, sharpness):
    objective, head = make_objective(kind, logit_scale=sharpness)
    gradients = make_query_gradients(head)
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
