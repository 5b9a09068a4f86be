"""The slow, obvious way: every quantity by its definition, with loops and autograd, in float64."""

from functools import partial

import torch

from fiftyone_ecif.core import LOSSES, Head, Objective, TensorPairs, partitions
from fiftyone_ecif.core.query_gradient import OuterProducts, query_gradient


def make_head(seed=0, dim=5, image_dim=7, text_dim=6, logit_scale=1.5, bias=False):
    generator = torch.Generator().manual_seed(seed)
    double = dict(generator=generator, dtype=torch.float64)
    return Head(
        torch.randn(dim, image_dim, **double),
        torch.randn(dim, text_dim, **double),
        torch.tensor(logit_scale, dtype=torch.float64),
        torch.tensor(-1.0, dtype=torch.float64) if bias else None,
    )


def make_features(pairs=24, seed=1, image_dim=7, text_dim=6):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(pairs, image_dim, generator=generator, dtype=torch.float64)
    text = torch.randn(pairs, text_dim, generator=generator, dtype=torch.float64)
    return image, text


def random_vectors(count, size, seed=7):
    """Directions or targets, (count, size)."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def similarity_of(head, vector, image, text):
    """S by definition, differentiable in the parameter vector."""
    moved = head.replace(vector)
    u = torch.nn.functional.normalize(image @ moved.image_weight.T, dim=1)
    v = torch.nn.functional.normalize(text @ moved.text_weight.T, dim=1)
    result = moved.logit_scale.exp() * u @ v.T
    return result if moved.logit_bias is None else result + moved.logit_bias


def sum_loss(kind, S, kept=None):
    """The batch's summed loss over the pairs in ``kept``, cell by cell."""
    kept = list(range(len(S))) if kept is None else kept
    total = S.new_zeros(())
    if kind == "clip":
        for i in kept:
            row = torch.stack([S[i, j] for j in kept])
            column = torch.stack([S[j, i] for j in kept])
            total = total + 0.5 * (torch.logsumexp(row, 0) - S[i, i]) + 0.5 * (torch.logsumexp(column, 0) - S[i, i])
    else:
        for i in kept:
            for j in kept:
                total = total - torch.nn.functional.logsigmoid(S[i, j] if i == j else -S[i, j])
    return total


def weighted_sum_loss(kind, S, weights):
    """The batch's loss as a function of the weight ζ_n of every pair *as a negative* of the others (ECIF.md §2)."""
    size = len(S)
    total = S.new_zeros(())
    if kind == "clip":
        for i in range(size):
            w = torch.stack([weights[j] if j != i else S.new_ones(()) for j in range(size)])
            total = total + 0.5 * (torch.log((w * S[i].exp()).sum()) - S[i, i])
            total = total + 0.5 * (torch.log((w * S[:, i].exp()).sum()) - S[i, i])
    else:
        for i in range(size):
            for j in range(size):
                cell = -torch.nn.functional.logsigmoid(S[i, j] if i == j else -S[i, j])
                total = total + (cell if i == j else weights[i] * weights[j] * cell)
    return total


def role_functions(kind, S, n):
    """pos_n, neg_n (derivative by ζ_n at 1) and negx_n (ζ_n from 1 to 0), differentiable in S."""
    size = len(S)
    ones = torch.ones(size, dtype=S.dtype)
    if kind == "clip":
        positive = 0.5 * (-torch.log_softmax(S, 1)[n, n] - torch.log_softmax(S, 0)[n, n])
    else:
        positive = -torch.nn.functional.logsigmoid(S[n, n])
    weights = ones.clone().requires_grad_()
    first_order = torch.autograd.grad(weighted_sum_loss(kind, S, weights), weights, create_graph=True)[0][n]
    exact = sum_loss(kind, S) - sum_loss(kind, S, [i for i in range(size) if i != n]) - positive
    return positive, first_order, exact


def make_objective(kind="clip", pairs=24, batch_size=8, rounds=2, anchor=0.3, **head):
    """J over random pairs and the head at θ0; further arguments are those of :func:`make_head`."""
    head = make_head(bias=kind == "siglip", **head)
    data = TensorPairs(*make_features(pairs))
    origin = head.vector() if anchor else None
    return Objective(data, partitions(pairs, batch_size, rounds, seed=3), LOSSES[kind], anchor, origin), head


def oracle_value(objective, head, vector, kind, removed=()):
    """J by definition: loops over rounds, batches and cells."""
    total = 0.0
    for batches in objective.rounds:
        for index in batches:
            kept = torch.tensor([i for i in index.tolist() if i not in removed])
            image, text = objective.pairs.gather(kept)
            total = total + sum_loss(kind, similarity_of(head, vector, image, text))
    total = total / (len(objective.pairs) * len(objective.rounds))
    return total + objective.anchor / 2 * (vector - objective.origin).square().sum()


def dense_gauss_newton(objective, head, kind):
    """JᵀAJ + δI with J = ∂S/∂θ and A = ∂²(sum loss)/∂S² from autograd."""
    theta = head.vector()
    total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for batches in objective.rounds:
        for index in batches:
            image, text = objective.pairs.gather(index)
            similarity = partial(similarity_of, head, image=image, text=text)
            J = torch.autograd.functional.jacobian(similarity, theta, vectorize=True)
            J = J.reshape(-1, len(theta))
            S = similarity(theta)
            A = torch.autograd.functional.hessian(lambda s: sum_loss(kind, s), S, vectorize=True).reshape(
                len(J), len(J)
            )
            total += J.T @ A @ J
    identity = torch.eye(len(theta), dtype=theta.dtype)
    return total / (len(objective.pairs) * len(objective.rounds)) + objective.anchor * identity


def make_query_gradients(head):
    """Gradients of the margins of two images that look for texts, and of a text that looks for images."""
    image, text = make_features(5, seed=9)
    right = torch.tensor([False, True, False, False, True])
    queries = [(image[:1], text, right), (image[1:2], text[:3], right[:3]), (image, text[:1], right)]
    return OuterProducts.join([query_gradient(head, *query)[1] for query in queries])
