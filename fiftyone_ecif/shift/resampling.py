"""Intervals by bootstrap, and a permutation test of "no shift", on the rows or on random groups of them.

Few rows are resampled one by one. Of many, random groups of equal size are resampled, whose second moments are kept: a
replicate then costs no pass over the rows. Groups of the same size are as exchangeable as rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.workers import Progress, silent
from fiftyone_ecif.shift.divergence import jensen_shannon
from fiftyone_ecif.shift.vectors import Vectors, chunks, unit

RESAMPLES = 200
CONFIDENCE = 0.95
SINGLE_ROWS = 4096
"""Rows of both sets together up to which they are resampled one by one."""

MOST_GROUPS, FEWEST_GROUPS = 64, 16
GROUP_NUMBERS = 2**26
"""Numbers in the second moments that are kept: 512 MB."""

MOST_UNEQUAL = 8
"""Of a set that is larger than so many times the other, as many rows are drawn: more do not make it surer."""

NOTHING = 1e-12
"""Nats that are rounding."""

LEAST_OF_A_SIDE = 8
"""Groups of the smaller set at least."""


@dataclass(frozen=True)
class Plan:
    """Which rows are resampled together, and how often each group stands in each replicate.

    Attributes:
        groups: int64 (N,) of each set, the group of each row; −1 where it was not drawn
        drawn: int64 (R, G) of each set, how often each group was drawn: the bootstrap
        dealt: bool (P, G of both), which groups are dealt to the first set: the permutations
    """

    groups: tuple[Tensor, Tensor]
    drawn: tuple[Tensor, Tensor]
    dealt: Tensor

    @classmethod
    def of(cls, counts: tuple[int, int], dim: int, resamples: int = RESAMPLES, seed: int = 0) -> Plan:
        """Plan for two sets.

        Args:
            counts: rows of each
            dim: of the widest vectors that are compared
            resamples: R and P
            seed: of every draw
        """
        generator = torch.Generator().manual_seed(seed)
        kept = [min(count, MOST_UNEQUAL * min(counts)) for count in counts] if sum(counts) > SINGLE_ROWS else counts
        size = 1
        if sum(kept) > SINGLE_ROWS:
            most = max(FEWEST_GROUPS, min(MOST_GROUPS, GROUP_NUMBERS // dim**2))
            size = max(1, min(sum(kept) // most, min(kept) // LEAST_OF_A_SIDE))
        numbers = [max(1, count // size) for count in kept]
        groups = []
        for count, number in zip(counts, numbers, strict=True):
            group = torch.full((count,), -1)
            # Rows that do not fill a group are left out, so that all groups are of one size.
            group[torch.randperm(count, generator=generator)[: number * size]] = torch.arange(number).repeat(size)
            groups.append(group)
        drawn = [_draws(number, resamples, generator) for number in numbers]
        total = sum(numbers)
        dealt = torch.zeros(resamples, total, dtype=torch.bool)
        for row in dealt:
            row[torch.randperm(total, generator=generator)[: numbers[0]]] = True
        return cls((groups[0], groups[1]), (drawn[0], drawn[1]), dealt)


def _draws(groups: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each group stands in as many draws with replacement, int64 (R, G)."""
    draws = torch.randint(groups, (resamples, groups), generator=generator)
    return torch.zeros(resamples, groups, dtype=torch.int64).scatter_add_(1, draws, torch.ones_like(draws))


class GroupMoments:
    """The second moments of groups of rows, of which any weighting is the moment of a replicate.

    Args:
        parts: for each group its second moment (G, D, D), or for each row as a group of its own the row (G, D)
    """

    def __init__(self, parts: Tensor) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def total(self, weights: Tensor) -> Tensor:
        """The sum of the groups' moments times their weights (G,), (D, D)."""
        if self.parts.ndim == 2:
            return (self.parts * weights.double()[:, None]).T @ self.parts
        return torch.einsum("g,gij->ij", weights.double(), self.parts)

    def weighted(self, weights: Tensor) -> Tensor:
        """The moment of a weighting (G,), (D, D)."""
        return self.total(weights) / weights.sum()


def group_moments(vectors: tuple[Vectors, Vectors], groups: tuple[Tensor, Tensor]) -> tuple[GroupMoments, GroupMoments]:
    """The moments of each set's groups; of single rows in the coordinates of all rows' span, where it is narrower.

    Args:
        vectors: the two sets
        groups: int64 (N,) of each, as a :class:`Plan` has them
    """
    singles = all(int(group.max()) + 1 == int((group >= 0).sum()) for group in groups)
    if not singles:
        first, second = (_stacked(part, group) for part, group in zip(vectors, groups, strict=True))
        return GroupMoments(first), GroupMoments(second)
    # Row g of the matrix is the row whose group is g, so that it goes with the draws of other moments and estimates.
    places = [group.argsort()[int((group < 0).sum()) :] for group in groups]
    rows = [unit(part.gather(place)) for part, place in zip(vectors, places, strict=True)]
    together = torch.cat(rows)
    if len(together) < together.shape[1]:
        together = torch.linalg.qr(together.T).R.T
    return GroupMoments(together[: len(rows[0])]), GroupMoments(together[len(rows[0]) :])


def _stacked(vectors: Vectors, group: Tensor) -> Tensor:
    """The second moment of each group, (G, D, D)."""
    count = int(group.max()) + 1
    found = torch.zeros(count, vectors.dim, vectors.dim, dtype=torch.float64)
    order = group.argsort()[int((group < 0).sum()) :]
    size = len(order) // count
    for number in range(count):
        members = order[number * size : (number + 1) * size]
        for index in chunks(len(members)):
            rows = unit(vectors.gather(members[index]))
            found[number].addmm_(rows.T, rows, alpha=1.0 / size)
    return found


def bootstrapped(
    moments: tuple[GroupMoments, GroupMoments],
    drawn: tuple[Tensor, Tensor],
    weight: float,
    progress: Progress = silent,
    step: str = "Resample",
) -> Tensor:
    """The divergence of sets that were drawn with replacement.

    Args:
        moments: of the groups of both sets
        drawn: int64 (R, G) for each, how often each group was drawn
        weight: π of the first set
        progress: called as the work goes on
        step: its name

    Returns:
        (R,) float64
    """
    found = torch.zeros(len(drawn[0]), dtype=torch.float64)
    for number, weights in enumerate(zip(*drawn, strict=True)):
        progress(step, number, len(found))
        first, second = (part.weighted(weight) for part, weight in zip(moments, weights, strict=True))
        found[number] = jensen_shannon(first, second, weight)
    return found


@dataclass(frozen=True)
class Permutations:
    """The divergence of sets whose rows were dealt anew, at random.

    Attributes:
        dealt: (P,)
        observed: of the groups as they are
    """

    dealt: Tensor
    observed: float

    @property
    def p_value(self) -> float | None:
        """How often chance alone makes a divergence as large, the observed one counted; None without permutations."""
        if not len(self.dealt):
            return None
        return (1 + int((self.dealt >= self.observed - NOTHING).sum())) / (1 + len(self.dealt))

    def debiased(self, value: float, ceiling: float) -> float | None:
        """A divergence adjusted for chance: 0 is expected where there is no shift, and the ceiling stays what it is.

        Few rows make any two sets look different. c (v − e) / (c − e), with e the mean of the permuted divergences and
        c the ceiling: the adjustment of mutual information by Vinh et al. (JMLR 2010), which the divergence is, of a
        row's state and its set.

        Args:
            value: v
            ceiling: c, by :meth:`~fiftyone_ecif.shift.divergence.Comparison.ceiling`

        Returns:
            nats; a little below 0 where two sets are more alike than chance; None without permutations
        """
        if not len(self.dealt):
            return None
        return self._slope(ceiling) * (value - float(self.dealt.mean()))

    def debiased_interval(self, value: float, ceiling: float, bootstrap: Tensor) -> Estimate | None:
        """The same with the spread of the replicates around it; None without permutations.

        Args:
            value: v
            ceiling: c
            bootstrap: (R,), by :func:`bootstrapped`
        """
        adjusted = self.debiased(value, ceiling)
        return None if adjusted is None else with_interval(adjusted, self._slope(ceiling) * bootstrap)

    def _slope(self, ceiling: float) -> float:
        """c / (c − e); 0 where sets that were dealt at random are as far apart as can be, which says nothing."""
        room = ceiling - float(self.dealt.mean())
        return ceiling / room if room > NOTHING else 0.0


def permuted(
    moments: tuple[GroupMoments, GroupMoments],
    dealt: Tensor,
    weight: float,
    progress: Progress = silent,
    step: str = "Permute",
) -> Permutations:
    """The divergence of sets to which the rows of both were dealt at random.

    Args:
        moments: of the groups of both sets
        dealt: bool (P, G of both), which groups go to the first set
        weight: π of the first set
        progress: called as the work goes on
        step: its name
    """
    sizes = [len(part) for part in moments]

    def together(chosen: Tensor) -> Tensor:
        parts = zip(moments, chosen.split(sizes), strict=True)
        return torch.stack([part.total(weights) for part, weights in parts]).sum(0) / chosen.sum()

    found = torch.zeros(len(dealt), dtype=torch.float64)
    for number, chosen in enumerate(dealt):
        progress(step, number, len(found))
        found[number] = jensen_shannon(together(chosen), together(~chosen), weight)
    first, second = (part.weighted(torch.ones(len(part))) for part in moments)
    return Permutations(found, jensen_shannon(first, second, weight))


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the number
        low: end of the interval; None without resamples
        high: likewise
    """

    value: float
    low: float | None = None
    high: float | None = None


def with_interval(value: float, bootstrap: Tensor, least: float = -float("inf")) -> Estimate:
    """A value with the spread of its replicates around it.

    The replicates of a divergence lie above it, since a resample has fewer distinct rows: their mean is moved to the
    value.

    Args:
        value: of all rows
        bootstrap: (R,), of the replicates
        least: what the number cannot fall below

    Returns:
        the value and the interval that holds :data:`CONFIDENCE` of the moved replicates
    """
    if not len(bootstrap):
        return Estimate(value)
    ends = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    low, high = (bootstrap.double().quantile(ends) - bootstrap.double().mean() + value).tolist()
    return Estimate(value, max(low, least), high)
