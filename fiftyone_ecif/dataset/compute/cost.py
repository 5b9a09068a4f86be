"""What a run will cost on this machine, estimated before it begins from counted operations and measured speeds."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

from fiftyone_ecif.attribution.settings import PER_PAIR_SELF_INFLUENCE

EFFICIENCY = 0.75
"""Share of a plain matrix product's speed that the towers reach.

It was measured on transformers, on two CPU cores at 155 GFLOP/s: ViT-B-32 took 14 images/s (.78) and 19 captions/s
(.73), one at a time. For convolutions, as in ResNets and many timm towers, it is a rough guess.
"""

MEASURED_ROUNDS = 4
FIT_EPOCHS, SOLVE_EPOCHS, SCORE_EPOCHS = 64.0, 9.7, 3.2
"""What a run with as many rounds takes, measured in epochs: one forward and backward pass over the pairs each."""
SELF_INFLUENCE_EPOCHS = {"per pair": 190.0, "probes": 26.0}
"""What self-influence takes in epochs, measured: exactly, or by probes (32 score passes of one round)."""
CROSS_FITTED = 2.6
"""How much longer fits, solves and scores take without a target, measured: ten fits of one round each, most of which
take few Newton steps from where the last one ended, and ten solves and score passes of all rounds."""
SAMPLED_EPOCH_PAIRS = 100_000
"""The anchor and the Kronecker factors take as long as one epoch over this many pairs, whatever the run's size."""
EPOCH_EFFICIENCY = 0.55
"""Share of a plain matrix product's speed that an epoch reaches, measured on a CPU."""
PROCESS_BYTES = 0.6e9
"""Memory of the interpreter, of torch and of one batch at work."""
PAIR_BYTES = 450
"""Estimated memory of a pair's id, key, place and scores."""
FLOAT_BYTES = 4
_PRODUCT_SIDE = 1024
"""Rows and columns of the matrices whose product is timed."""


@dataclass(frozen=True)
class Cost:
    """What it takes to embed pairs.

    Attributes:
        seconds: on the device
        model_bytes: memory of the towers' weights
        feature_bytes: memory and disk of the pairs' features
        dims: of the joint space, of an image's features and of a text's: D, F_image, F_text
    """

    seconds: float
    model_bytes: float
    feature_bytes: float
    dims: tuple[int, int, int]


def embedding_cost(
    pairs: int, model: str, device: str = "cpu", image_passes: int = 1, text_passes: int = 1
) -> Cost | None:
    """What embedding pairs costs on a device of this machine.

    Args:
        pairs: how many
        model: open_clip's name of it
        device: "cpu", "cuda:0", ...; on GPUs the operations alone are counted, and reading the images may take longer
        image_passes: how often the images' tower is run
        text_passes: likewise

    Returns:
        :class:`Cost`; None where :func:`~fiftyone_ecif.models.architecture.architecture` cannot count the model's
        operations beforehand
    """
    from fiftyone_ecif.models.architecture import architecture

    counted = architecture(model)
    if counted is None:
        return None
    flop = image_passes * counted.image_flop + text_passes * counted.text_flop
    return Cost(
        seconds=pairs * flop / (EFFICIENCY * product_speed(device)),
        model_bytes=counted.weight_bytes,
        feature_bytes=pairs * sum(counted.dims[1:]) * FLOAT_BYTES,
        dims=counted.dims,
    )


def epochs(pairs: int, rounds: int = 4, target: bool = True) -> float:
    """What a run takes after the towers, without the misalignment score, in epochs over the pairs."""
    self_influence = SELF_INFLUENCE_EPOCHS["per pair" if pairs <= PER_PAIR_SELF_INFLUENCE else "probes"]
    of_rounds = (FIT_EPOCHS + SOLVE_EPOCHS + SCORE_EPOCHS) * rounds / MEASURED_ROUNDS
    return of_rounds * (1.0 if target else CROSS_FITTED) + self_influence + SAMPLED_EPOCH_PAIRS / pairs


def epoch_flop(dims: tuple[int, int, int], batch: int) -> float:
    """Floating-point operations that one pair takes in an epoch.

    They are the forward and backward pass of two projections, and three products of a row of the similarities S.

    Args:
        dims: D, F_image, F_text
        batch: B
    """
    dim, image_dim, text_dim = dims
    return 2 * (2 * dim * (image_dim + text_dim) + 3 * batch * dim)


def scoring_seconds(
    pairs: int, dims: tuple[int, int, int], batch: int, rounds: int = 4, device: str = "cpu", target: bool = True
) -> float:
    """What a run takes after the towers on a device that does nothing else.

    The estimate is right within a factor of two where the fit comes to rest in eight Newton steps, as in the runs that
    it was measured on. A fit that needs all of its thirty steps takes four times as long.

    Args:
        pairs: N
        dims: D, F_image, F_text
        batch: B
        rounds: of batches
        device: "cpu", "cuda:0", ...
        target: whether the run has one

    Returns:
        seconds (docs/scale.md)
    """
    epoch = pairs * epoch_flop(dims, min(batch, pairs)) / (EPOCH_EFFICIENCY * product_speed(device))
    return epoch * epochs(pairs, rounds, target)


@functools.cache
def product_speed(device: str = "cpu") -> float:
    """Operations per second of a matrix product on a device; measuring them takes a tenth of a second, once."""
    import torch

    left = torch.rand(_PRODUCT_SIDE, _PRODUCT_SIDE, device=device)
    (left @ left).sum().item()  # the first one starts the threads
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        (left @ left)[0, 0].item()  # waits for the device
        rounds += 1
    return rounds * 2 * _PRODUCT_SIDE**3 / (time.perf_counter() - started)
