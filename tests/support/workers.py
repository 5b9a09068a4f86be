"""A small run that workers share, and workers that need no cluster."""

from dataclasses import astuple, replace

import torch

from fiftyone_ecif.attribution import Attributed, Settings
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.core.workers import ThisProcess

SETTINGS = Settings(rounds=3, batch_size=16, anchor=1.0)


class Several(ThisProcess):
    """Several parts, one after the other."""

    def __init__(self, count):
        self.count = count


def attributed(pairs=60, dim=4, probes=0):
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, pairs, dim, generator=generator, dtype=torch.float64)
    head = Head.identity(dim, dim, 1.0, torch.float64)
    return replace(Attributed.of_head(head, TensorPairs(image, 0.5 * image + text), None), probes=probes)


def assert_same_scores(one, other, tolerance=1e-5):
    """The arithmetic is float64, the scores are stored as float32."""
    for ours, theirs in zip(astuple(one.scores), astuple(other.scores), strict=True):
        assert not ours.isnan().any()
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())
