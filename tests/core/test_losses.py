import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from fiftyone_ecif.core import LOSSES
from tests.support.oracle import make_features, make_head, role_functions, similarity_of, sum_loss

KINDS = ["clip", "siglip"]


def make_similarity(kind, scale=1.5, pairs=9, seed=0):
    head = make_head(seed, logit_scale=scale, bias=kind == "siglip")
    return similarity_of(head, head.vector(), *make_features(pairs, seed + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_sum_loss_is_open_clips_mean_loss_times_the_batch(kind):
    head = make_head(bias=kind == "siglip")
    image, text = make_features(8)
    batch = head.linearize(image, text)
    scale = head.logit_scale.exp()
    if kind == "clip":
        theirs = ClipLoss()(batch.image, batch.text, scale)
    else:
        theirs = SigLipLoss()(batch.image, batch.text, scale, head.logit_bias)
    torch.testing.assert_close(LOSSES[kind].sum_loss(batch.similarity()), theirs * 8, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.0, 2.0, 4.6])
def test_positive_plus_exact_negative_is_what_deletion_changes(kind, scale):
    """sum-loss(batch) − sum-loss(batch without n) = pos_n + negx_n."""
    S = make_similarity(kind, scale)
    roles = LOSSES[kind].roles(S)
    for n in range(len(S)):
        kept = [i for i in range(len(S)) if i != n]
        torch.testing.assert_close(
            roles.value("exact")[n], sum_loss(kind, S) - sum_loss(kind, S, kept), rtol=1e-9, atol=1e-6
        )


@pytest.mark.parametrize("kind", KINDS)
def test_roles_match_their_definitions(kind):
    S = make_similarity(kind)
    roles = LOSSES[kind].roles(S)
    for n in range(len(S)):
        for mine, oracle in zip(roles, role_functions(kind, S, n), strict=True):
            torch.testing.assert_close(mine[n], oracle, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 4.6])
def test_role_derivatives_match_autograd(kind, scale):
    S = make_similarity(kind, scale)
    tangents = torch.randn(3, *S.shape, dtype=S.dtype, generator=torch.Generator().manual_seed(5))
    derivatives = LOSSES[kind].role_derivatives(S, tangents)
    for n in range(len(S)):
        leaf = S.clone().requires_grad_()
        for mine, oracle in zip(derivatives, role_functions(kind, leaf, n), strict=True):
            gradient = torch.autograd.grad(oracle, leaf, retain_graph=True)[0]
            torch.testing.assert_close(mine[:, n], (tangents * gradient).sum((1, 2)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 4.6])
def test_deletion_cotangents_match_autograd(kind, scale):
    S = make_similarity(kind, scale)
    index = torch.tensor([0, 4, 8])
    mine = LOSSES[kind].deletion_cotangents(S, torch.eye(len(S), dtype=torch.bool)[index])
    for row, n in zip(mine, index.tolist(), strict=True):
        leaf = S.clone().requires_grad_()
        positive, _, exact = role_functions(kind, leaf, n)
        torch.testing.assert_close(row, torch.autograd.grad(positive + exact, leaf)[0], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_cotangent_and_curvature_match_autograd(kind):
    S = make_similarity(kind)
    tangents = torch.randn(2, *S.shape, dtype=S.dtype, generator=torch.Generator().manual_seed(6))
    gradient = torch.autograd.functional.jacobian(lambda s: sum_loss(kind, s), S)
    torch.testing.assert_close(LOSSES[kind].similarity_cotangent(S), gradient)
    hessian = torch.autograd.functional.hessian(lambda s: sum_loss(kind, s), S)
    expected = torch.einsum("ijkl,qkl->qij", hessian, tangents)
    torch.testing.assert_close(LOSSES[kind].curvature_product(S, tangents), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_curvature_root_is_unbiased(kind):
    S = make_similarity(kind, pairs=4)
    root = LOSSES[kind].sample_curvature_root(S, 40_000, torch.Generator().manual_seed(0)).flatten(1)
    hessian = torch.autograd.functional.hessian(lambda s: sum_loss(kind, s), S).reshape(16, 16)
    torch.testing.assert_close(root.T @ root / len(root), hessian, rtol=0, atol=0.02)


def test_a_hard_negative_stays_finite_in_float32():
    """P_in → 1: plain 1 − P underflows in float32, the leave-one-out row does not."""
    S = torch.full((4, 4), -60.0)
    S[0, 1] = S[2, 1] = 90.0
    roles = LOSSES["clip"].roles(S)
    tangents = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(1))
    derivatives = LOSSES["clip"].role_derivatives(S, tangents)
    cotangents = LOSSES["clip"].deletion_cotangents(S, torch.eye(4, dtype=torch.bool))
    exact = S.double()
    for n in range(4):
        kept = [i for i in range(4) if i != n]
        expected = sum_loss("clip", exact) - sum_loss("clip", exact, kept)
        assert roles.value("exact")[n].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)
    reference = LOSSES["clip"].role_derivatives(exact, tangents.double())
    for mine, expected in zip(derivatives, reference, strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-4)
    assert cotangents.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_one_and_two_pairs_are_finite(kind):
    for pairs in (1, 2):
        S = make_similarity(kind, pairs=pairs)
        loss = LOSSES[kind]
        tangents = torch.ones(1, pairs, pairs, dtype=S.dtype)
        for part in (
            *loss.roles(S),
            *loss.role_derivatives(S, tangents),
            loss.deletion_cotangents(S, torch.eye(pairs, dtype=torch.bool)[:1]),
        ):
            assert part.isfinite().all()
