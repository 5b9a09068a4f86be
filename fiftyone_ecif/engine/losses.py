"""The losses of a run: the same wherever the run, or what is asked of its results, needs them."""

from __future__ import annotations

from fiftyone_ecif.core import LOSSES, Objective, Pairs, partitions
from fiftyone_ecif.engine.settings import Settings

FITTED, HELD_OUT, TARGET = range(3)
"""What a loss is for; each has partitions of its own."""


def mean_loss(pairs: Pairs, loss: str, settings: Settings, purpose: int) -> Objective:
    """The mean batch loss of some pairs, without an anchor.

    Args:
        pairs: the pairs
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, rounds and seed are used
        purpose: ``FITTED``, ``HELD_OUT`` or ``TARGET``

    Returns:
        an :class:`~fiftyone_ecif.core.Objective`; all pairs share one batch where there are fewer than fill it
    """
    batch_size = min(settings.batch_size, len(pairs))
    rounds = partitions(len(pairs), batch_size, settings.rounds, settings.seed + purpose)
    return Objective(pairs, rounds, LOSSES[loss])
