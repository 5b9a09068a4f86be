"""A problem small enough to train on in milliseconds."""

import pytest
import torch

from benchmarks.retraining.problem import standardised

PAIRS, TARGET = 48, 16


@pytest.fixture(scope="session")
def tiny():
    """48 training pairs of 6 causes, a quarter of them wrong, and 16 clean ones."""
    generator = torch.Generator().manual_seed(0)
    cause = torch.randn(PAIRS + TARGET, 6, generator=generator)
    image, text = (cause @ torch.randn(6, size, generator=generator) for size in (9, 7))
    image, text = (side + 0.3 * torch.randn(side.shape, generator=generator) for side in (image, text))
    text[:12] = text[:12].roll(1, 0)
    return standardised(image, text, torch.arange(PAIRS + TARGET).numpy() < 12, PAIRS)
