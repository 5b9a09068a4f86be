"""Filters that select training data, as scores of how soon they would drop a pair; higher is sooner.

DataComp's CLIP-score filter keeps the pairs above a threshold of the CLIP score. Its order is that of
:func:`~benchmarks.methods.baselines.clip_score`, whatever the threshold, so it needs no score of its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.methods.baselines import clip_score
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.attribution.objectives import FITTED, anchored, mean_loss
from fiftyone_ecif.attribution.score import FIT_TOLERANCE
from fiftyone_ecif.attribution.settings import HEAD_FIT_STEPS
from fiftyone_ecif.core import Head, Pairs, embeddings_under, fit_to_rest
from fiftyone_ecif.core.pairs import Subset

NORMSIM_STEPS = 50
KEPT_BY_CLIP_SCORE = 0.3
"""Share of the pairs that DataComp's CLIP-score filter keeps (Gadre et al., NeurIPS 2023, arXiv 2304.14108)."""


def normsim(image: np.ndarray, steps: int = NORMSIM_STEPS) -> np.ndarray:
    """How early NormSim_2-D drops a pair (Wang et al., NeurIPS 2024, arXiv 2405.19547).

    NormSim_2(x)² = Σ_t (u_x·u_t)² says how near an image is to those of a target. Where no target is named, what is
    left of the data takes its place: at each step the images of the smallest NormSim_2 are dropped, by equal parts.
    Texts are not looked at.

    Args:
        image: (N, D) unit vectors
        steps: after which nothing would be left

    Returns:
        (N,), 0 for the pair that is kept longest, N − 1 for the first one to go
    """
    rest, dropped = np.arange(len(image)), []
    for part in np.array_split(rest, min(steps, len(rest))):
        left = image[rest]
        rest = rest[np.argsort(((left @ (left.T @ left)) * left).sum(1), kind="stable")]
        dropped.append(rest[: len(part)])
        rest = rest[len(part) :]
    order: np.ndarray = np.concatenate(dropped)
    result: np.ndarray = np.empty(len(image))
    result[order] = np.arange(len(image))[::-1]
    return result


def filtering_network(pairs: Pairs, head: Head, loss: str, settings: Settings) -> np.ndarray:
    """The CLIP score by a model trained on good pairs: data filtering networks (Fang et al., 2023, arXiv 2309.17425).

    Their good pairs are a clean data set. Here they are those that the CLIP-score filter keeps, and the model is the
    given one with its head fitted to them.

    Args:
        pairs: features of the N pairs
        head: the given weights
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
        settings: batch size, anchor and seed are used; one round of batches is enough to fit a head

    Returns:
        (N,), 0 to 2
    """
    image, text = embeddings_under(pairs, head)
    suspicion = torch.from_numpy(clip_score(image.numpy(), text.numpy()))
    good = suspicion.topk(max(2, round(KEPT_BY_CLIP_SCORE * len(pairs))), largest=False).indices.sort().values
    once = replace(settings, rounds=1)
    objective = anchored(mean_loss(Subset(pairs, good), loss, once, FITTED), head, once)
    fitted = fit_to_rest(objective, head, torch.clone, FIT_TOLERANCE, HEAD_FIT_STEPS).scope
    image, text = embeddings_under(pairs, head.replace(fitted.vector()))
    return clip_score(image.numpy(), text.numpy())
