"""float32 against float64 on the same similarities, where a pair holds all of its row but a millionth or less."""

import pytest
import torch

from fiftyone_ecif.core import LOSSES
from fiftyone_ecif.core.factored_tangent import FactoredTangent, role_derivatives_along
from fiftyone_ecif.core.query_gradient import query_gradient
from tests.support.oracle import make_features, make_head, role_functions, sum_loss

KINDS = ["clip", "siglip"]
CLOSE = dict(rtol=1e-3, atol=0)
SIZE = 6


def sharp_similarity():
    """Pairs 0 and 1 are matched to within 1e-7 and 1e-9, text 3 is a hard negative of image 2, the rest is open."""
    S = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    S[0, 0], S[1, 1], S[2, 3] = 18.0, 22.0, 20.0
    return S


def tangents():
    return torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def gradient_of(function):
    leaf = sharp_similarity().double().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def assert_close(mine, exact):
    torch.testing.assert_close(mine.double(), exact, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_roles_and_their_derivatives_keep_their_digits(kind):
    S, directions = sharp_similarity(), tangents()
    values, derivatives = LOSSES[kind].roles(S), LOSSES[kind].role_derivatives(S, directions)
    for n in range(SIZE):
        for role in range(3):
            exact = role_functions(kind, S.double(), n)[role].detach()
            gradient = gradient_of(lambda leaf: role_functions(kind, leaf, n)[role])  # noqa: B023 - called at once
            assert_close(values[role][n], exact)
            assert_close(derivatives[role][:, n], (directions.double() * gradient).sum((1, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_role_derivatives_are_as_exact_inside_of_autocast(kind):
    """A score pass may multiply matrices in bfloat16; what is made of S and Ṡ is not rounded to it."""
    S, directions, loss = sharp_similarity(), tangents(), LOSSES[kind]
    outside = loss.role_derivatives(S, directions)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss.role_derivatives(S, directions)
    for mine, exact in zip(inside, outside):
        torch.testing.assert_close(mine, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_derivatives_by_similarity_keep_their_digits(kind):
    S, directions, loss = sharp_similarity(), tangents(), LOSSES[kind]
    assert_close(loss.similarity_cotangent(S), gradient_of(lambda leaf: sum_loss(kind, leaf)))
    hessian = torch.autograd.functional.hessian(lambda leaf: sum_loss(kind, leaf), S.double())
    assert_close(loss.curvature_product(S, directions), torch.einsum("ijkl,qkl->qij", hessian, directions.double()))
    matched = S.clone().fill_(-20.0 if kind == "siglip" else 0.0).fill_diagonal_(20.0)
    assert_close(loss.sum_loss(matched), sum_loss(kind, matched.double()))


def test_similarities_that_change_nearly_alike_have_the_curvature_of_their_differences():
    generator = torch.Generator().manual_seed(0)
    similarity, differences = torch.randn(2, 60, 60, generator=generator)
    tangents = 1_000.0 + 1e-2 * differences
    product = LOSSES["clip"].curvature_product(similarity, tangents[None])[0]
    exact = LOSSES["clip"].curvature_product(similarity.double(), tangents.double()[None])[0]
    curvature = (tangents.double() * exact).sum()
    assert (tangents.double() * product.double()).sum() == pytest.approx(curvature.item(), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_deletions_keep_their_digits(kind):
    """Single pairs and a group: ∂(pos_E + negx_E)/∂S is what the deletion takes from the batch's own derivative."""
    groups = torch.zeros(SIZE + 1, SIZE, dtype=torch.bool)
    groups[:SIZE] = torch.eye(SIZE)
    groups[SIZE, [1, 3]] = True
    found = LOSSES[kind].deletion_cotangents(sharp_similarity(), groups)
    for mine, group in zip(found, groups):
        kept = (~group).nonzero().squeeze(1).tolist()
        exact = gradient_of(lambda leaf: sum_loss(kind, leaf) - sum_loss(kind, leaf, kept))  # noqa: B023
        assert_close(mine, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_draw_of_the_fisher_samples_is_not_lost(kind):
    """Drawn where P is nearly 1, one-hot − P has only 1 − P there."""
    root = LOSSES[kind].sample_curvature_root(20.0 * torch.eye(2), 4, torch.Generator().manual_seed(0))
    left = torch.sigmoid(torch.tensor(-20.0, dtype=torch.float64))
    assert_close(root[:, 0, 0], (2 * left * 0.5**0.5).expand(4))


@pytest.mark.parametrize("removal", ["exact", "first_order"])
@pytest.mark.parametrize("gap", [20.0, 120.0])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_along_factored_tangents_keep_their_digits(kind, gap, removal):
    """Also where float32 holds nothing but a hard negative of a row, a hundred nats above the rest."""
    S = sharp_similarity()
    S[2, 3] = gap
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(2, 1, 2, SIZE, generator=generator)
    rows, columns = 0.1 * torch.randn(2, 1, 2, SIZE, generator=generator)
    tangent = FactoredTangent(left, right, torch.arange(2), rows, columns, S[None])
    found = role_derivatives_along(LOSSES[kind], S[None], tangent, removal)
    S, left, right, rows, columns = (part.double() for part in (S, left, right, rows, columns))
    whole = left[0, :, :, None] * right[0, :, None, :] + (rows[0, :, :, None] + columns[0, :, None, :]) * S
    for n in range(SIZE):
        leaf = S.clone().requires_grad_()
        positive, first_order, exact = role_functions(kind, leaf, n)
        for mine, role in zip(found, (positive, exact if removal == "exact" else first_order)):
            gradient = torch.autograd.grad(role, leaf, retain_graph=True)[0]
            assert_close(mine[0, :, n], (whole * gradient).sum((1, 2)))


def test_the_loss_of_a_query_that_succeeds_keeps_its_digits():
    """The gradient is the share of the wrong candidates times a difference of means, however small that share."""
    head = make_head(logit_scale=3.2)
    image, text = make_features(5, seed=9)
    text[1] = torch.linalg.pinv(head.text_weight) @ head.image_weight @ image[0]
    right = torch.arange(5) == 1
    target, gradient = query_gradient(head.to(dtype=torch.float32), image[:1], text, right, "loss")
    theta = head.vector().float().double().requires_grad_()
    scores = head.replace(theta).linearize(image[:1].float(), text.float()).similarity().flatten()
    exact = scores.logsumexp(0) - scores[1]
    assert 1e-12 < exact < 1e-6
    assert target == pytest.approx(exact.item(), rel=1e-3)
    expected = torch.autograd.grad(exact, theta)[0]
    found = gradient.dense(head.to(dtype=torch.float32))[0]
    assert (found.double() - expected).norm() < 1e-3 * expected.norm()
