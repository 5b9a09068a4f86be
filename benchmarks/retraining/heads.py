"""Many heads trained from scratch at once, each on its own pairs, from its own weights and in its own batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.models.projections import FIRST_LOGIT_SCALE
from benchmarks.models.training import LARGEST_LOGIT_SCALE
from fiftyone_ecif.core import Head, Pairs


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is trained, with AdamW at a constant learning rate.

    Args:
        epochs: passes over a head's pairs; an odd last batch is dropped
        learning_rate: of all parameters
        weight_decay: of the projections
        dropout: share of the features that are left out, by chance, in each step
        batch_size: pairs a step
        dimension: of the shared space
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    dropout: float = 0.0
    batch_size: int = 128
    dimension: int = 128


@dataclass(frozen=True)
class Heads:
    """K heads.

    Args:
        image_weight: (K, D, F_image)
        text_weight: (K, D, F_text)
        logit_scale: (K,)
    """

    image_weight: Tensor
    text_weight: Tensor
    logit_scale: Tensor

    def __len__(self) -> int:
        return len(self.logit_scale)

    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.image_weight, self.text_weight, self.logit_scale

    def head(self, number: int) -> Head:
        """One of them."""
        return Head(*(part[number] for part in self.parameters()))

    def copy(self) -> Heads:
        """The same heads, which do not change with these."""
        return Heads(*(part.detach().clone() for part in self.parameters()))

    def embed(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (K, B, D) of both sides, from features (K, B, F) or (B, F)."""
        sides = ((image, self.image_weight), (text, self.text_weight))
        first, second = (functional.normalize(features @ weight.mT, dim=-1) for features, weight in sides)
        return first, second

    def pair_losses(self, image: Tensor, text: Tensor) -> Tensor:
        """Each pair's contrastive loss among the B pairs, of each head, (K, B), in nats; shapes as for `embed`."""
        first, second = self.embed(image, text)
        return pair_losses(self.logit_scale.exp()[:, None, None] * (first @ second.mT))


def pair_losses(similarity: Tensor) -> Tensor:
    """½ (−log P_nn − log Q_nn) of similarities (..., B, B); (..., B)."""
    normalisers = 0.5 * (similarity.logsumexp(-1) + similarity.logsumexp(-2))
    return normalisers - similarity.diagonal(dim1=-2, dim2=-1)


def first_heads(image_dim: int, text_dim: int, dimension: int, generators: Sequence[torch.Generator]) -> Heads:
    """Random heads, drawn as ``nn.Linear`` draws its weights; one of each generator."""

    def draw(size: int) -> Tensor:
        bound = size**-0.5
        drawn = [torch.rand(dimension, size, generator=generator) for generator in generators]
        return (2.0 * torch.stack(drawn) - 1.0) * bound

    return Heads(draw(image_dim), draw(text_dim), torch.full((len(generators),), FIRST_LOGIT_SCALE))


def train_heads(
    pairs: Pairs, members: Tensor, seeds: Sequence[int], recipe: HeadRecipe, checkpoints: Sequence[int] = ()
) -> list[Heads]:
    """Train a head on each set of pairs; what comes out does not depend on how many are trained together.

    Args:
        pairs: N pairs of features
        members: int64 (K, n), the pairs of each head
        seeds: K, of each head's first weights and of its batches
        recipe: how they are trained
        checkpoints: epochs after which the heads are kept as well, in rising order; 0 keeps the first weights

    Returns:
        the heads after each of the ``checkpoints`` and at last at the end
    """
    image, text = pairs.gather(torch.arange(len(pairs)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    heads = first_heads(image.shape[1], text.shape[1], recipe.dimension, generators)
    *weights, scale = (part.requires_grad_() for part in heads.parameters())
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": [scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    kept = []
    for epoch in range(recipe.epochs):
        if epoch in checkpoints:
            kept.append(heads.copy())
        for batch in epoch_batches(members, recipe.batch_size, generators):
            # The heads share no parameter: the gradient of the sum is that of each.
            sides = (drop_out(side[batch], recipe.dropout, generators) for side in (image, text))
            loss = heads.pair_losses(*sides).mean(1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scale.data.clamp_(0, LARGEST_LOGIT_SCALE)
    return [*kept, heads.copy()]


def drop_out(features: Tensor, share: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Features (K, B, F) of K heads, a share of them zero and the rest larger, by each head's own chance."""
    if not share:
        return features
    shape = features.shape[1:]
    kept = torch.stack([torch.rand(shape, generator=generator) >= share for generator in generators])
    return features * kept / (1.0 - share)


def epoch_batches(members: Tensor, batch_size: int, generators: Sequence[torch.Generator]) -> Sequence[Tensor]:
    """One pass over each head's pairs in its own order: batches int64 (K, B) of ``members`` (K, n)."""
    count = members.shape[1]
    size = min(batch_size, count)
    order = torch.stack([torch.randperm(count, generator=generator) for generator in generators])
    return members.gather(1, order)[:, : count // size * size].split(size, dim=1)
