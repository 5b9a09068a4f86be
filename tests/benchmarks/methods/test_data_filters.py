"""Each filter of training data against its definition, in loops."""

import numpy as np
import torch

from benchmarks.methods.baselines import clip_score
from benchmarks.methods.data_filters import filtering_network, normsim
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, TensorPairs, embeddings_under


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_normsim_drops_the_images_that_are_least_like_those_that_are_left():
    image = unit(np.random.default_rng(0).standard_normal((30, 4)))
    left, order = list(range(30)), []
    for _ in range(6):
        near = {n: sum(float(image[n] @ image[t]) ** 2 for t in left) for n in left}
        for n in sorted(left, key=near.__getitem__)[:5]:
            order.append(n)
            left.remove(n)
    assert list(np.argsort(-normsim(image, steps=6))) == order
    assert normsim(image, steps=30).tolist() != normsim(image, steps=1).tolist(), "the target is what is left"


def test_normsim_has_no_more_steps_than_pairs():
    assert sorted(normsim(np.eye(3))) == [0, 1, 2]


def test_a_filtering_network_is_fitted_to_the_pairs_of_the_best_clip_score():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(20, 3, generator=generator)
    text = image + 0.5 * torch.randn(20, 3, generator=generator)
    text[:10] = torch.randn(10, 3, generator=generator)
    pairs, head = TensorPairs(image, text), Head.identity(3, 3, 2.0)
    before = clip_score(*(rows.numpy() for rows in embeddings_under(pairs, head)))
    good = np.argsort(before)[:6]
    settings = Settings(batch_size=6, rounds=1, anchor=0.05)

    parameters = head.vector().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([parameters], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def loss():
        optimiser.zero_grad()
        fitted = head.replace(parameters)
        u = torch.nn.functional.normalize(image[good] @ fitted.image_weight.T, dim=1)
        v = torch.nn.functional.normalize(text[good] @ fitted.text_weight.T, dim=1)
        total = 0.025 * (parameters - head.vector()).square().sum()
        for n in range(6):
            total = total - torch.log_softmax(fitted.logit_scale.exp() * v @ u[n], 0)[n] / 12
            total = total - torch.log_softmax(fitted.logit_scale.exp() * u @ v[n], 0)[n] / 12
        total.backward()
        return total

    optimiser.step(loss)
    fitted = embeddings_under(pairs, head.replace(parameters.detach()))
    expected = clip_score(*(rows.numpy() for rows in fitted))
    found = filtering_network(pairs, head, "clip", settings)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(before - expected).max() > 0.1, "the fit makes a difference"
