"""CLUB, an upper bound of mutual information by a Gaussian estimator (Cheng et al., ICML 2020), and how it is stored.

q(y|z) = N(μ(z), diag e^{lv(z)}). The estimate is mean_i Σ_d [mean_j (y_j − μ_i)² − (y_i − μ_i)²] / (2 e^{lv_i}). The
average over j is var(y) + (ȳ − μ_i)² in each dimension, so that the rows are never paired with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fiftyone_ecif.shift.vectors import Vectors, chunks

HIDDEN = 250
"""Hidden units of each of the two networks, as published."""

WIDEST = 12.0
"""Size up to which an unbounded log-variance is trusted: e^−12 is far below the variance of any embedding."""

_BOUNDED = "bounded"


class Club(nn.Module):
    """The estimator q(y|z).

    Args:
        inputs: numbers of z
        outputs: numbers of y
        hidden: units
        bounded: whether a tanh keeps the log-variance within [−1, 1], as published. A unit vector of 768 numbers has a
            variance of some .0013 in each, far below e^−1, so that what is estimated is in arbitrary units
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = HIDDEN, bounded: bool = True) -> None:
        super().__init__()
        self.inputs, self.outputs, self.bounded = inputs, outputs, bounded
        self.p_mu = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
        self.p_logvar = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of y given z (B, inputs): (B, outputs) each."""
        log_variance = self.p_logvar(z)
        return self.p_mu(z), log_variance.tanh() if self.bounded else log_variance.clamp(-WIDEST, WIDEST)

    def surprise(self, z: Tensor, y: Tensor) -> Tensor:
        """The training loss of each row: Σ_d [(μ − y)² / e^{lv} + lv], (B,); twice −log q up to a constant."""
        mean, log_variance = self.forward(z)
        return ((mean - y).square() / log_variance.exp() + log_variance).sum(1)


@dataclass(frozen=True)
class ClubTerms:
    """What an estimate over any weights of groups of rows is made of, summed within the groups.

    Attributes:
        count: (G,), rows
        own: (G,), Σ_d (2 b y − a y²), with a = e^{−lv}/2 and b = a μ
        scaled_mean: (G, D), Σ b
        scale: (G, D), Σ a
        value: (G, D), Σ y
        square: (G, D), Σ y²
    """

    count: Tensor
    own: Tensor
    scaled_mean: Tensor
    scale: Tensor
    value: Tensor
    square: Tensor

    def estimate(self, weights: Tensor) -> Tensor:
        """CLUB for R weightings of the groups, (R, G) → (R,)."""
        weights = weights.double()
        total = weights @ self.count
        mean, square = (weights @ part / total[:, None] for part in (self.value, self.square))
        pushed = (weights @ self.scale * square - 2 * (weights @ self.scaled_mean) * mean).sum(1)
        return (weights @ self.own + pushed) / total


@dataclass(frozen=True)
class ClubPass:
    """What a pass over the rows finds for one kind of y.

    Attributes:
        rows: (N,) float64, what each row adds to the estimate; the estimate is the mean over the rows with a group
        terms: of the groups
    """

    rows: Tensor
    terms: ClubTerms


@torch.no_grad()
def club_pass(
    club: Club, z: Vectors, targets: Sequence[Vectors], group: Tensor | None = None, groups: int = 1
) -> list[ClubPass]:
    """Run the estimator once over the rows, which are read a few at a time, for several y.

    Args:
        club: the estimator
        z: N vectors
        targets: for each y N vectors
        group: int64 (N,), of each row; −1 for rows that do not stand for the population of y; None for one group
        groups: G

    Returns:
        a :class:`ClubPass` for each y

    Raises:
        ValueError: if the widths are not those of the estimator, or there are not as many z as y
    """
    group = torch.zeros(len(z), dtype=torch.int64) if group is None else group
    moments = []
    for y in targets:
        check_widths(club, z, y)
        moments.append(_mean_and_square(y, (group >= 0).nonzero().squeeze(1)))
    terms = [_Sums(groups, y.dim) for y in targets]
    found: list[list[Tensor]] = [[] for _ in targets]
    for index in chunks(len(z)):
        # Only sums over many rows and numbers need float64: the networks do not.
        mean, log_variance = (part.double() for part in club(z.gather(index).float()))
        scale = torch.exp(-log_variance) / 2
        for number, y in enumerate(targets):
            rows, (mean_y, square_y) = y.gather(index).double(), moments[number]
            found[number].append((scale * (2 * mean * (rows - mean_y) - rows.square() + square_y)).sum(1))
            terms[number].add(rows, mean, scale, group[index])
    return [ClubPass(torch.cat(rows), sums.terms()) for rows, sums in zip(found, terms, strict=True)]


def club_estimate(club: Club, z: Vectors, y: Vectors) -> float:
    """The estimate over all rows: in arbitrary units where the log-variance is bounded, else nats."""
    return float(club_pass(club, z, [y])[0].rows.mean())


class _Sums:
    """The terms of G groups as they grow."""

    def __init__(self, groups: int, dim: int) -> None:
        self.count, self.own = (torch.zeros(groups, dtype=torch.float64) for _ in range(2))
        self.wide = [torch.zeros(groups, dim, dtype=torch.float64) for _ in range(4)]

    def add(self, rows: Tensor, mean: Tensor, scale: Tensor, group: Tensor) -> None:
        own = (scale * (2 * mean * rows - rows.square())).sum(1)
        sums = [self.count, self.own, *self.wide]
        parts = [torch.ones_like(own), own, scale * mean, scale, rows, rows.square()]
        kept = group >= 0
        for total, part in zip(sums, parts, strict=True):
            total.index_add_(0, group[kept], part[kept])

    def terms(self) -> ClubTerms:
        return ClubTerms(self.count, self.own, *self.wide)


def _mean_and_square(y: Vectors, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The means of y and of y² over some rows, (D,) each."""
    total, square = (torch.zeros(y.dim, dtype=torch.float64) for _ in range(2))
    for index in chunks(len(rows)):
        part = y.gather(rows[index]).double()
        total, square = total + part.sum(0), square + part.square().sum(0)
    return total / len(rows), square / len(rows)


def check_widths(club: Club, z: Vectors, y: Vectors) -> None:
    """Raise a ValueError unless an estimator is of the width of the vectors, and these belong together."""
    if (z.dim, y.dim) != (club.inputs, club.outputs):
        raise ValueError(
            f"The estimator is for vectors of {club.inputs} and {club.outputs} numbers, and the encoders give {z.dim} "
            f"and {y.dim}: train one for these encoders (estimator=None), or choose those that it was trained with."
        )
    if len(z) != len(y):
        raise ValueError(f"{len(z)} questions and {len(y)} answers do not belong together.")


def save_club(club: Club, path: str | Path) -> None:
    """Store an estimator as ``.safetensors``, with what it is.

    Raises:
        ValueError: if the path has another ending
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"An estimator is saved as .safetensors, not as {path.suffix or 'a file without an ending'}.")
    part = path.with_suffix(".part")
    tensors = {name: value.detach().cpu().contiguous() for name, value in club.state_dict().items()}
    save_file(tensors, part, {_BOUNDED: str(int(club.bounded))})
    part.replace(path)


def load_club(path: str | Path) -> Club:
    """Open an estimator: ours, or the authors' file of torch, which is read without unpickling.

    Raises:
        ValueError: if it cannot be read, or is no estimator
    """
    path = Path(path)
    try:
        state, bounded = _read(path)
        (hidden, inputs), outputs = state["p_mu.0.weight"].shape, len(state["p_mu.2.weight"])
        club = Club(inputs, outputs, hidden, bounded)
        club.load_state_dict(state)
    except FileNotFoundError as error:
        raise ValueError(f"There is no estimator at {path}.") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"The estimator {path} cannot be read: {error}.") from error
    # torch raises many kinds of errors for files that are not its own, or that hold more than tensors.
    except Exception as error:
        raise ValueError(
            f"{path} is no estimator: it must hold the tensors p_mu.0.weight to p_logvar.2.bias and nothing else "
            f"({type(error).__name__})."
        ) from error
    return club.requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    """An estimator's tensors, and whether its log-variance is bounded, as the authors' is."""
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True), True
    with safe_open(path, "pt") as file:
        kept = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, kept.get(_BOUNDED, "1") == "1"  # noqa: SIM118
