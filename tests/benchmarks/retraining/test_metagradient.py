"""The derivative of a training by the weights of its pairs is that of finite differences."""

import pytest
import torch

from benchmarks.retraining import metagradient
from benchmarks.retraining.heads import epoch_batches, pair_losses
from benchmarks.retraining.metagradient import SmoothRecipe, metagradients, training_step, weighted_loss
from fiftyone_ecif.core import TensorPairs

RECIPE = SmoothRecipe(epochs=3, learning_rate=1e-2, batch_size=12, dimension=4)


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def trained_losses(pairs, target, weights):
    """The target's losses after a training with the pairs' weights, forwards alone."""
    generator = torch.Generator().manual_seed(0)
    state = metagradient.first_state(7, 5, 4, generator)
    number = 0
    for _ in range(RECIPE.epochs):
        for (batch,) in epoch_batches(torch.arange(len(weights))[None], 12, [generator]):
            number += 1
            leaves = metagradient.State(*(part.detach().requires_grad_() for part in state))
            state = training_step(leaves, pairs.image[batch], pairs.text[batch], weights[batch], number, RECIPE)
    return pair_losses(metagradient._similarity(state, target.image, target.text)).detach()


def test_metagradients_are_finite_differences_of_the_training(float64):
    generator = torch.Generator().manual_seed(0)
    pairs, target = (
        TensorPairs(*(torch.randn(count, size, generator=generator) for size in (7, 5))) for count in (24, 10)
    )
    found = metagradients(pairs, target, [2, 5], RECIPE, seed=0)
    assert found.shape == (3, 24)
    for pair in (0, 3, 20):
        weights, step = torch.ones(24), 1e-5
        weights[pair] += step
        more = trained_losses(pairs, target, weights)
        weights[pair] -= 2 * step
        slope = (more - trained_losses(pairs, target, weights)) / (2 * step)
        expected = -torch.stack([slope.mean(), slope[2], slope[5]])
        torch.testing.assert_close(found[:, pair], expected, rtol=1e-4, atol=1e-6)


def test_a_weight_of_one_changes_nothing_and_of_nearly_nothing_deletes_the_pair():
    similarity = 3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(weighted_loss(weights, similarity), pair_losses(similarity).mean())
    weights[4] = 1e-12
    kept = [0, 1, 2, 3, 5]
    deleted = pair_losses(similarity[kept][:, kept]).sum() / 6
    torch.testing.assert_close(weighted_loss(weights, similarity), deleted)
