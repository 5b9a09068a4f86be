"""Linear projections trained over the features of frozen towers, as in LiT (Zhai et al. 2022, arXiv 2111.07991)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import ClipLoss
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from benchmarks.models.training import LARGEST_LOGIT_SCALE
from fiftyone_ecif.core import Head

FIRST_LOGIT_SCALE = 2.6593  # log 1/.07, as in CLIP


@dataclass(frozen=True)
class ProjectionRecipe:
    """How projections are trained, with AdamW.

    Args:
        epochs: passes over the pairs; an odd last batch is dropped
        learning_rate: constant
        weight_decay: of the projections
        dropout: share of the features that are left out, by chance, in each step
        batch_size: pairs a step
    """

    epochs: int = 50
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    dropout: float = 0.5
    batch_size: int = 256


@dataclass(frozen=True)
class Standardisation:
    """What makes features comparable before they are projected; it is part of the projection afterwards.

    Features that end in a one, for a projection with a bias, are centred and scaled; others are scaled alone, since a
    projection without a bias cannot hold what centring takes away.

    Args:
        mean: (F,)
        deviation: (F,), positive
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Standardisation:
        """That of features (N, F)."""
        deviation = features.std(dim=0, correction=0)
        has_bias = bool((features[:, -1] == 1).all())
        mean = features.mean(dim=0) * (deviation > 0) if has_bias else torch.zeros_like(deviation)
        return cls(mean, deviation.where(deviation > 0, 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, F), standardised."""
        return (features - self.mean) / self.deviation

    def folded(self, weight: Tensor) -> Tensor:
        """The matrix (D, F) that does to features what ``weight`` does to standardised ones."""
        folded = weight / self.deviation
        if self.mean.any():
            folded[:, -1] = weight[:, -1] - folded @ self.mean
        return folded

    def unfolded(self, weight: Tensor) -> Tensor:
        """The matrix (D, F) that does to standardised features what ``weight`` does to features."""
        unfolded = weight * self.deviation
        if self.mean.any():
            unfolded[:, -1] = weight[:, -1] + weight @ self.mean
        return unfolded


def fit_projections(
    image: Tensor,
    text: Tensor,
    dimension: int = 384,
    recipe: ProjectionRecipe = ProjectionRecipe(),
    seed: int = 0,
    start: Head | None = None,
    progress: bool = True,
) -> Head:
    """Train two projections and the logit scale with CLIP's loss.

    Args:
        image: (N, F_image) float32, features of the image tower; they end in a one where its projection has a bias
        text: (N, F_text), likewise
        dimension: of the shared space; that of ``start`` where there is one
        recipe: how they are trained
        seed: of the initial weights, order and dropout
        start: projections to go on from; None for random ones
        progress: whether to show a progress bar

    Returns:
        the projections, for the features as they are

    Raises:
        ValueError: if there are fewer than two pairs
    """
    if len(image) < 2:
        raise ValueError(f"Projections are trained on two pairs or more, not {len(image)}.")
    torch.manual_seed(seed)
    kinds = [Standardisation.of(features) for features in (image, text)]
    inputs = [standardise(features) for standardise, features in zip(kinds, (image, text))]
    if start is None:
        weights = [nn.Linear(features.shape[1], dimension, bias=False).weight for features in inputs]
    else:
        weights = [
            nn.Parameter(kind.unfolded(weight)) for kind, weight in zip(kinds, (start.image_weight, start.text_weight))
        ]
    scale = nn.Parameter(torch.tensor(FIRST_LOGIT_SCALE) if start is None else start.logit_scale.clone())
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": recipe.weight_decay},
            {"params": [scale], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
    )
    batch_size = min(recipe.batch_size, len(image))
    used = len(image) // batch_size * batch_size
    clip_loss = ClipLoss()
    for _ in tqdm(range(recipe.epochs), desc="model: training", unit="epoch", disable=not progress):
        for batch in torch.randperm(len(image))[:used].split(batch_size):
            embeddings = [
                functional.normalize(functional.dropout(features[batch], recipe.dropout) @ weight.T, dim=1)
                for features, weight in zip(inputs, weights)
            ]
            loss = clip_loss(*embeddings, scale.exp())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scale.data.clamp_(0, LARGEST_LOGIT_SCALE)
    folded = [kind.folded(weight.detach()) for kind, weight in zip(kinds, weights)]
    return Head(*folded, scale.detach().clone())
