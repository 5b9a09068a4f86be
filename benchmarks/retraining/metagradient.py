"""Derivatives of a training's outcome by the weights of its pairs, backwards through every step of the training.

After MAGIC (Ilyas & Engstrom 2025, arXiv 2504.16430): the training must be smooth for its derivative to say what
another choice of pairs does. Adam's own rule is not: where a parameter's gradients are rare, its step is a sign. Here
one second moment serves a whole matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.retraining.heads import epoch_batches, first_heads, pair_losses
from fiftyone_ecif.core import Pairs

MOMENTUM, SECOND_MOMENTUM = 0.9, 0.999
"""Decay rates of Adam's moments."""
LEAST_RATE = 1e-8
"""Root mean square of a gradient at which a step begins to shrink with it."""


@dataclass(frozen=True)
class SmoothRecipe:
    """How a head is trained whose training is differentiated.

    Args:
        epochs: passes over the pairs; an odd last batch is dropped
        learning_rate: of all parameters
        weight_decay: of the projections
        batch_size: pairs a step
        dimension: of the shared space
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    dimension: int = 128


class State(NamedTuple):
    """Parameters (D, F_image), (D, F_text) and (); their mean gradients; the mean squares of these, () each."""

    image_weight: Tensor
    text_weight: Tensor
    logit_scale: Tensor
    image_mean: Tensor
    text_mean: Tensor
    scale_mean: Tensor
    image_square: Tensor
    text_square: Tensor
    scale_square: Tensor


def weighted_loss(weights: Tensor, similarity: Tensor) -> Tensor:
    """The mean loss of a batch whose pairs have weights (B,) in both of their roles: 1 as ever, 0 deleted.

    A pair's weight multiplies its own loss, and e^S in its column among the rivals of others; (), in nats.
    """
    own = torch.eye(len(weights), dtype=torch.bool)
    rivals = weights.log().expand_as(similarity).masked_fill(own, 0.0)
    normalisers = 0.5 * ((similarity + rivals).logsumexp(1) + (similarity.T + rivals).logsumexp(1))
    return (weights * (normalisers - similarity.diagonal())).mean()


def training_step(
    state: State, image: Tensor, text: Tensor, weights: Tensor, number: int, recipe: SmoothRecipe
) -> State:
    """The state after step ``number`` (from 1), differentiable by the state and by the weights (B,) of the pairs."""
    parameters, means, squares = state[:3], state[3:6], state[6:]
    similarity = _similarity(state, image, text)
    gradients = torch.autograd.grad(weighted_loss(weights, similarity), parameters, create_graph=True)
    decays = (recipe.weight_decay, recipe.weight_decay, 0.0)
    moved = []
    for parameter, gradient, mean, square, decay in zip(parameters, gradients, means, squares, decays):
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        square = SECOND_MOMENTUM * square + (1 - SECOND_MOMENTUM) * gradient.square().mean()
        size = (square / (1 - SECOND_MOMENTUM**number) + LEAST_RATE**2).sqrt()
        step = mean / (1 - MOMENTUM**number) / size
        moved.append(((1 - recipe.learning_rate * decay) * parameter - recipe.learning_rate * step, mean, square))
    return State(*(part for kind in zip(*moved) for part in kind))


def metagradients(pairs: Pairs, target: Pairs, queries: Sequence[int], recipe: SmoothRecipe, seed: int) -> Tensor:
    """−d(loss)/d(weight) of every pair after a training on all: the derivative of what its removal adds to the loss.

    Args:
        pairs: the N training pairs
        target: M pairs among which losses are measured
        queries: those of them whose own losses are asked for
        recipe: of the training
        seed: of first weights and batches

    Returns:
        (1 + Q, N), for the target's mean loss and for each query's, in nats
    """
    image, text = pairs.gather(torch.arange(len(pairs)))
    generator = torch.Generator().manual_seed(seed)
    state = first_state(image.shape[1], text.shape[1], recipe.dimension, generator)
    everything = torch.arange(len(pairs))[None]
    batches = [
        batch[0] for _ in range(recipe.epochs) for batch in epoch_batches(everything, recipe.batch_size, [generator])
    ]
    states = [state]
    for number, batch in enumerate(batches, start=1):
        before, weights = _leaves(states[-1], len(batch))
        after = training_step(before, image[batch], text[batch], weights.detach(), number, recipe)
        states.append(State(*(part.detach() for part in after)))
    adjoints = _target_gradients(states[-1], target, queries)
    values = torch.zeros(len(queries) + 1, len(pairs))
    for number in range(len(batches), 0, -1):
        batch = batches[number - 1]
        before, weights = _leaves(states[number - 1], len(batch))
        after = training_step(before, image[batch], text[batch], weights, number, recipe)
        *adjoints, by_weight = torch.autograd.grad(after, (*before, weights), adjoints, is_grads_batched=True)
        values[:, batch] -= by_weight
    return values


def first_state(image_dim: int, text_dim: int, dimension: int, generator: torch.Generator) -> State:
    """A random head, of no steps yet."""
    image, text, scale = (part[0] for part in first_heads(image_dim, text_dim, dimension, [generator]).parameters())
    nothing = scale.new_zeros(())
    means = (torch.zeros_like(image), torch.zeros_like(text), nothing)
    return State(image, text, scale, *means, nothing, nothing, nothing)


def _leaves(state: State, count: int) -> tuple[State, Tensor]:
    """The state as leaves of a new graph, and as many weights of 1."""
    return State(*(part.detach().requires_grad_() for part in state)), torch.ones(count, requires_grad=True)


def _similarity(state: State, image: Tensor, text: Tensor) -> Tensor:
    first = functional.normalize(image @ state.image_weight.T, dim=1)
    second = functional.normalize(text @ state.text_weight.T, dim=1)
    return state.logit_scale.exp() * (first @ second.T)


def _target_gradients(state: State, target: Pairs, queries: Sequence[int]) -> list[Tensor]:
    """Derivatives of the mean loss and of each query's by the state, (1 + Q, …) each."""
    leaves, _ = _leaves(state, 0)
    losses = pair_losses(_similarity(leaves, *target.gather(torch.arange(len(target)))))
    asked = torch.stack([losses.mean(), *losses[list(queries)]])
    parameters = torch.autograd.grad(asked, leaves[:3], torch.eye(len(asked)), is_grads_batched=True)
    rest = [torch.zeros(len(asked), *part.shape) for part in leaves[3:]]
    return [*parameters, *rest]
