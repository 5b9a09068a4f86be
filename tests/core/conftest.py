"""A small problem that is fitted once for all tests that refit it."""

import pytest
import torch

from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, fit_to_rest, partitions
from tests.support.oracle import make_head


@pytest.fixture(scope="session")
def fitted():
    """A head at rest on 60 pairs, a tenth of them wrong: J, a clean held-out target, the scope at θ̂, and H⁻¹.

    The inverse is dense and applied to (K, P): with it as preconditioner a refit's solves take few iterations.
    """
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
    identity = torch.eye(head.size, dtype=torch.float64)
    start = torch.linalg.inv(objective.gauss_newton_product(head, identity))
    fit = fit_to_rest(objective, head, lambda vectors: vectors @ start, 1e-9, 100)
    assert fit.at_rest
    inverse = torch.linalg.inv(objective.gauss_newton_product(fit.scope, identity))
    return objective, target, fit.scope, lambda vectors: vectors @ inverse
