"""Kronecker-factored curvature (EK-FAC): an approximate inverse, and a preconditioner for the solver (ECIF.md §5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.eigenvectors import eigenvectors
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.rows import sampled_cotangent
from fiftyone_ecif.core.scope import Cotangent, Linearization, Scope
from fiftyone_ecif.core.workers import Progress, silent


@dataclass(frozen=True)
class LayerFactors:
    """One layer's curvature in the eigenbasis of G ⊗ A: rows (R, R), columns (C, C), eigenvalues (R, C)."""

    position: int
    rows: Tensor
    columns: Tensor
    eigenvalues: Tensor


@dataclass(frozen=True)
class KroneckerCurvature:
    """H ≈ block-diagonal U (Λ + δ) Uᵀ with U = U_G ⊗ U_A per linear layer, and a diagonal for all other parameters.

    Source: K-FAC (Martens & Grosse 2015) with the eigenvalue correction of EK-FAC (George et al. 2018). The gradients
    are Fisher samples of the contrastive loss; one sample is a gradient of the whole batch.
    """

    layers: list[LayerFactors]
    diagonal: Tensor
    damping: float

    def solve(self, vectors: Tensor) -> Tensor:
        """H⁻¹ applied to vectors (..., P)."""
        return self._scaled(vectors, -1.0)

    def inverse_root(self, vectors: Tensor) -> Tensor:
        """H^(-1/2) applied to vectors (..., P)."""
        return self._scaled(vectors, -0.5)

    def quadratic(self, batch: Linearization, cotangent: Cotangent) -> Tensor:
        """gᵀ H⁻¹ g of the K gradients g that the cotangent pulls back to, (K,)."""
        bases = {layer.position: (layer.rows, layer.columns) for layer in self.layers}
        rotated = _rotated(batch, cotangent, bases)
        result = torch.zeros_like(cotangent.logit_scale)
        for layer in self.layers:
            result += (rotated[layer.position].square() / (layer.eigenvalues + self.damping)).sum((-1, -2))
        uncovered = self._uncovered()
        if uncovered.any():
            gradients = batch.pull_back(cotangent)[..., uncovered]
            result += (gradients.square() / (self.diagonal[uncovered] + self.damping)).sum(-1)
        return result

    def _scaled(self, vectors: Tensor, power: float) -> Tensor:
        """H to a power, applied to vectors (..., P)."""
        result = vectors * (self.diagonal + self.damping).pow(power)
        for layer in self.layers:
            rotated = layer.rows.T @ self._block(layer, vectors) @ layer.columns
            rotated = rotated * (layer.eigenvalues + self.damping).pow(power)
            self._block(layer, result).copy_(layer.rows @ rotated @ layer.columns.T)
        return result

    def _uncovered(self) -> Tensor:
        """Which parameters belong to no layer, bool (P,)."""
        mask = torch.ones_like(self.diagonal, dtype=torch.bool)
        for layer in self.layers:
            mask[layer.position : layer.position + layer.eigenvalues.numel()] = False
        return mask

    @staticmethod
    def _block(layer: LayerFactors, vectors: Tensor) -> Tensor:
        rows, columns = layer.eigenvalues.shape
        part = vectors.narrow(-1, layer.position, rows * columns)
        return torch.unflatten(part, -1, (rows, columns))


def kronecker_curvature(
    objective: Objective,
    scope: Scope,
    damping: float,
    samples: int = 4,
    seed: int = 0,
    progress: Progress = silent,
) -> KroneckerCurvature:
    """Factor the objective's Gauss-Newton matrix at θ, layer by layer.

    Args:
        objective: the objective whose curvature is factored
        scope: at θ
        damping: added to every eigenvalue: the anchor δ of the proximal term and any further damping
        samples: Fisher samples per batch
        seed: of the samples
        progress: called per batch

    Returns:
        a :class:`KroneckerCurvature`

    Raises:
        ValueError: if ``damping`` is not positive, or a similarity is not finite
    """
    if not damping > 0:
        raise ValueError(
            f"The curvature is singular without damping, and {damping} is not positive: set an anchor or a damping "
            "above 0."
        )
    accumulated: dict[int, tuple[Tensor, Tensor]] = {}
    for moments in objective.over_parts(_second_moments, scope, samples, seed, step="Curvature", progress=progress):
        for position, moment in moments.items():
            _add(accumulated, position, moment)
    bases = {
        position: (eigenvectors(outputs)[1], eigenvectors(inputs)[1])
        for position, (inputs, outputs) in accumulated.items()
    }
    eigenvalues: dict[int, Tensor] = {}
    diagonal = torch.zeros_like(scope.vector())
    for values, rest in objective.over_parts(
        _eigenvalues, scope, samples, seed, bases, step="Curvature", progress=progress
    ):
        diagonal += rest
        for position, value in values.items():
            eigenvalues[position] = eigenvalues[position] + value if position in eigenvalues else value
    for position, values in eigenvalues.items():
        diagonal[position : position + values.numel()] = 0.0  # these parameters have a layer
    layers = [LayerFactors(position, *bases[position], values) for position, values in eigenvalues.items()]
    return KroneckerCurvature(layers, diagonal, damping)


def _fisher_samples(
    part: Objective, scope: Scope, samples: int, seed: int, progress: Progress, passes_done: int
) -> Iterator[tuple[Linearization, Cotangent]]:
    """Every batch with sampled cotangents of its embeddings, the mean of whose outer products is its curvature."""
    generator = torch.Generator(scope.vector().device)
    count = part.batch_count
    for done, (index, batch) in enumerate(part.linearizations(scope), start=passes_done * count):
        progress("Curvature", done, 2 * count)
        factors = batch.image, batch.text, batch.logit_scale.exp(), batch.logit_bias
        if not all(part.isfinite().all() for part in factors if part is not None):
            raise ValueError(
                "Similarities are not finite: look for NaN or huge numbers in features, weights or logit scale."
            )
        # Each batch is seeded by its own pairs, so that its draws do not depend on the worker that makes them.
        generator.manual_seed(seed * 1_000_003 + int(index[0]))
        yield batch, sampled_cotangent(part.loss, batch, samples, generator)
    progress("Curvature", (passes_done + 1) * count, 2 * count)


def _second_moments(
    part: Objective, scope: Scope, samples: int, seed: int, progress: Progress
) -> dict[int, tuple[Tensor, Tensor]]:
    """By position, each layer's Σ a aᵀ over its inputs and Σ g gᵀ over its outputs' sampled gradients."""
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    for batch, cotangent in _fisher_samples(part, scope, samples, seed, progress, passes_done=0):
        for layer in batch.layer_statistics(cotangent):
            gradients = layer.output_gradients.flatten(0, 1)
            _add(moments, layer.position, (layer.inputs.T @ layer.inputs, gradients.T @ gradients))
    return moments


def _add(moments: dict[int, tuple[Tensor, Tensor]], position: int, moment: tuple[Tensor, Tensor]) -> None:
    before = moments.get(position)
    moments[position] = moment if before is None else (before[0] + moment[0], before[1] + moment[1])


def _eigenvalues(
    part: Objective,
    scope: Scope,
    samples: int,
    seed: int,
    bases: dict[int, tuple[Tensor, Tensor]],
    progress: Progress,
) -> tuple[dict[int, Tensor], Tensor]:
    """The eigenvalue correction: second moments of the sampled gradients.

    They are taken in the eigenbasis of each layer, (R, C) by position, and of all parameters as they are, (P,).
    """
    diagonal = torch.zeros_like(scope.vector())
    eigenvalues = {
        position: torch.zeros(len(rows), len(columns)).to(diagonal) for position, (rows, columns) in bases.items()
    }
    scale = part.weight / samples
    for batch, cotangent in _fisher_samples(part, scope, samples, seed, progress, passes_done=1):
        for position, rotated in _rotated(batch, cotangent, bases).items():
            eigenvalues[position] += scale * rotated.square().sum(0)
        diagonal += scale * batch.pull_back(cotangent).square().sum(0)
    return eigenvalues, diagonal


def _rotated(batch: Linearization, cotangent: Cotangent, bases: dict[int, tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
    """The layers' part of the K pulled-back gradients, each in its layer's eigenbasis, (K, R, C) by position."""
    result: dict[int, Tensor] = {}
    for position, inputs, output_gradients in batch.layer_statistics(cotangent):
        rows, columns = bases[position]
        part = (output_gradients @ rows).mT @ (inputs @ columns)
        result[position] = result[position] + part if position in result else part
    return result
