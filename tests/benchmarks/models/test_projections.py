"""Projections over frozen towers: what standardisation adds is in the weights, and training goes on from them."""

import pytest
import torch
from torch.nn import functional

from benchmarks.models.projections import ProjectionRecipe, Standardisation, fit_projections
from fiftyone_ecif.core import Head


@pytest.fixture(scope="module")
def features():
    """64 pairs whose two sides are random maps of a shared cause, the image's with a one for a bias, far from 0."""
    generator = torch.Generator().manual_seed(0)
    cause = torch.randn(64, 8, generator=generator)
    image = 5 + 3 * torch.relu(cause @ torch.randn(8, 20, generator=generator))
    image[:, 3] = 7.0  # says nothing
    text = 0.1 * cause @ torch.randn(8, 12, generator=generator)
    return torch.cat([image, torch.ones(64, 1)], dim=1), text


@pytest.mark.parametrize("side", [0, 1], ids=["with a bias", "without"])
def test_weights_over_standardised_features_are_folded_into_those_over_features(features, side):
    inputs = features[side]
    standardise, weight = Standardisation.of(inputs), torch.randn(5, inputs.shape[1])
    torch.testing.assert_close(
        inputs @ standardise.folded(weight).T, standardise(inputs) @ weight.T, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(standardise.unfolded(standardise.folded(weight)), weight, rtol=1e-4, atol=1e-4)
    spread = standardise(inputs).std(dim=0, correction=0)
    assert ((spread - 1).abs() < 1e-4).sum() == (19 if side == 0 else 12)  # not the constant one, nor the bias
    assert (standardise(inputs).mean(dim=0)[:-1].abs().max() < 1e-4) == (side == 0)


def test_training_brings_an_images_own_text_to_the_top(features):
    head = fit_projections(*features, 16, ProjectionRecipe(60, 1e-2, 0.01, 0.0, 32), progress=False)
    image = functional.normalize(features[0] @ head.image_weight.T, dim=1)
    text = functional.normalize(features[1] @ head.text_weight.T, dim=1)
    assert ((image @ text.T).argmax(1) == torch.arange(64)).float().mean() > 0.9
    assert head.image_weight.shape == (16, 21) and head.text_weight.shape == (16, 12)


def test_training_goes_on_from_its_start(features):
    start = Head(torch.randn(16, 21), torch.randn(16, 12), torch.tensor(3.0))
    same = fit_projections(*features, recipe=ProjectionRecipe(epochs=0), start=start, progress=False)
    for ours, theirs in zip(vars(same).values(), vars(start).values(), strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    moved = fit_projections(*features, recipe=ProjectionRecipe(epochs=1), start=start, progress=False)
    assert 0 < (moved.image_weight - start.image_weight).abs().max() < 0.1
    assert start.logit_scale == 3.0


def test_training_follows_its_seed(features):
    first, again, other = (
        fit_projections(*features, 16, ProjectionRecipe(epochs=2), seed, progress=False) for seed in (0, 0, 1)
    )
    assert torch.equal(first.image_weight, again.image_weight)
    assert not torch.equal(first.image_weight, other.image_weight)


def test_one_pair_is_too_few(features):
    with pytest.raises(ValueError, match="two pairs or more, not 1"):
        fit_projections(features[0][:1], features[1][:1])
