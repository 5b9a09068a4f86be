"""Many removals from one fit, by the curvature of all pairs: what is prepared once, each removal costs little.

The package itself solves each removal with the curvature of the pairs that are left, which is truer (ECIF.md §7).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fiftyone_ecif.core import Objective, Scope
from fiftyone_ecif.core.group_removal import add_batch_removals


class PreparedRemovals:
    """Removals from one fit, each at the price of a pull-back and of an inverse that is at hand  (ECIF.md §7).

    Embeddings and S are kept for all batches: N (features + B) numbers a round.

    Args:
        objective: J, with all pairs
        scope: at θ̂
        inverse: H⁻¹ applied to (G, P), such as that of ``LowRankInverse``
    """

    def __init__(self, objective: Objective, scope: Scope, inverse: Callable[[Tensor], Tensor]) -> None:
        self.objective, self.scope, self.inverse = objective, scope, inverse
        self.batches = [(index, batch, batch.similarity()) for index, batch in objective.linearizations(scope)]

    def steps(self, groups: Tensor) -> Tensor:
        """Δθ_E = H⁻¹ (∇J − ∇J_{−E}) for each group, bool (G, N): (G, P)."""
        for removed in groups:
            self.objective.check_left(removed)
        theta = self.scope.vector()
        gradients = theta.new_zeros(len(groups), len(theta))
        for index, batch, similarity in self.batches:
            add_batch_removals(self.objective.loss, batch, similarity, groups[:, index], gradients)
        return self.inverse(gradients * self.objective.weight)


class RemovalForecast:
    """Predicted change of a target loss for any group, from one tangent that all groups share  (ECIF.md §4, §7).

    ⟨s, ∇J − ∇J_{−E}⟩ needs no gradient: it is the derivative of J − J_{−E} along s, a function of S and Ṡ alone. Both
    are kept for all batches: 2 N B numbers a round.

    Args:
        objective: J
        scope: at θ̂
        solution: s = H⁻¹ ∇C, (P,)
    """

    def __init__(self, objective: Objective, scope: Scope, solution: Tensor) -> None:
        self.objective = objective
        self.batches = [
            (index, batch.similarity(), batch.similarity_tangent(solution[None])[0])
            for index, batch in objective.linearizations(scope)
        ]
        self.along = [self._derivative(similarity, tangent) for _, similarity, tangent in self.batches]

    def change(self, removed: Tensor) -> float:
        """Predicted change of the target loss, in nats, if the pairs in ``removed`` (bool, (N,)) were gone."""
        self.objective.check_left(removed)
        total = 0.0
        for (index, similarity, tangent), full in zip(self.batches, self.along, strict=True):
            gone = removed[index]
            if gone.any():
                kept = (~gone).nonzero().squeeze(1)
                total += full - self._derivative(similarity[kept[:, None], kept], tangent[kept[:, None], kept])
        return total * self.objective.weight

    def _derivative(self, similarity: Tensor, tangent: Tensor) -> float:
        return (self.objective.loss.similarity_cotangent(similarity) * tangent).sum().item()
