"""The estimator of a shift run: loaded, or trained on samples that it does not judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.shift.embed import Source, side_of
from fiftyone_ecif.dataset.shift.request import ShiftRequest
from fiftyone_ecif.shift import Club, EstimatorFit, TensorVectors, load_club, train_club

MOST_ROWS = 20_000
"""Samples that an estimator is trained on at most; they are held in memory."""


@dataclass(frozen=True)
class Judge:
    """An estimator, and what is known of it.

    Attributes:
        club: the estimator
        fit: how its training went; None for one that was loaded
        training: ids of the samples that it was trained on, and must not judge
    """

    club: Club
    fit: EstimatorFit | None = None
    training: frozenset[str] = frozenset()


def is_training(id: str, seed: int) -> bool:
    """Whether a sample is of the half that an estimator is trained on: by its id, so that sets that overlap agree."""
    return sha256(f"{seed} {id}".encode()).digest()[0] % 2 == 0


def judge(ids: Sequence[str], sources: Mapping[str, Source], request: ShiftRequest, report: Progress) -> Judge | None:
    """The estimator that is asked for: from its file, which may judge every sample, or trained now.

    It is trained on half of the samples of all sets, with responses and references alike.

    Args:
        ids: of all samples
        sources: the vectors of each role
        request: what is asked for
        report: called as the work goes on

    Returns:
        the estimator; None without responses

    Raises:
        ValueError: if there are too few samples, or the file cannot be used
    """
    if "response" not in request.roles:
        return None
    if request.estimator is not None:
        return Judge(load_club(request.estimator))
    chosen = sorted((id for id in ids if is_training(id, request.seed)), key=lambda id: sha256(id.encode()).digest())
    chosen = chosen[:MOST_ROWS]
    if not chosen:
        raise ValueError("There are too few samples to train an estimator on: pass a trained one.")
    side = side_of(chosen, sources)
    every = torch.arange(len(chosen))
    # Held in memory: a training reads each row many times, in any order.
    question, answers = side.question().gather(every), [part.gather(every) for part in side.answers()]
    held = [TensorVectors(part.float()) for part in (question, *answers)]
    club, fit = train_club(held[0], held[1:], request.bounded, request.seed, progress=report)
    return Judge(club, fit, frozenset(chosen))
