"""What a run will cost on this machine, before it is begun: arithmetic over the measured speed of a product."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

from fiftyone_ecif.attribution.settings import EXACT_SELF_INFLUENCE

EFFICIENCY = 0.75
"""Share of a plain matrix product's speed that transformer towers reach.

Measured on two CPU cores at 155 GFLOP/s: ViT-B-32 took 14 images/s (.78) and 19 captions/s (.73), one at a time.
"""

MEASURED_ROUNDS = 4
FIT_EPOCHS, SOLVE_EPOCHS, SCORE_EPOCHS = 64.0, 9.7, 3.2
"""Of a run with as many rounds, in epochs of one forward and backward pass over the pairs by autograd: measured."""
SELF_INFLUENCE_EPOCHS = {"exact": 190.0, "probes": 26.0}
"""Measured; and 32 score passes of one round."""
SAMPLED_EPOCH_PAIRS = 100_000
"""Pairs' worth of epochs that the anchor and the Kronecker factors take, however many pairs there are: measured."""
EPOCH_EFFICIENCY = 0.55
"""Products that an epoch needs at least, at a plain product's speed, over its seconds: measured on a CPU."""
PROCESS_BYTES = 0.6e9
"""The interpreter, torch, and one batch at work."""
PAIR_BYTES = 450
"""Of a pair's id, key, place and scores in memory, by estimate."""
FLOAT_BYTES = 4
SIZE = 1024
RESNET_FEATURES = 32
"""Features of a ResNet before its attention pools them, over its width."""


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

    A transformer layer of width w multiplies, for T tokens, 12 w² T + 2 T² w numbers; each costs 2 FLOP.

    Args:
        pairs: how many
        model: open_clip's name of it
        device: "cpu", "cuda:0", ...; on GPUs the products alone are counted, and reading the images may take longer
        image_passes: how often the images' tower is run
        text_passes: likewise

    Returns:
        :class:`Cost`; None for architectures other than CLIP's own, whose cost is not known beforehand
    """
    import open_clip

    settings = open_clip.get_model_config(model)
    if settings is None:
        return None
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if "timm_model_name" in vision or "width" not in text:
        return None  # timm's and Hugging Face's architectures
    size = vision.get("image_size", 224)
    side = size[0] if isinstance(size, (list, tuple)) else size
    text_products, text_weights = _transformer(text, text.get("context_length", 77))
    if isinstance(vision["layers"], int):
        image_products, image_weights = _transformer(vision, (side // vision["patch_size"]) ** 2 + 1)
        width = vision["width"]
    else:
        image_products, image_weights = _resnet(vision, side, settings["embed_dim"])
        width = RESNET_FEATURES * vision["width"]
    weights = image_weights + text_weights + text.get("vocab_size", 49408) * text["width"]
    products = image_passes * image_products + text_passes * text_products
    seconds = pairs * 2 * products / (EFFICIENCY * product_speed(device))
    dims = settings["embed_dim"], width, text["width"]
    return Cost(seconds, weights * FLOAT_BYTES, pairs * sum(dims[1:]) * FLOAT_BYTES, dims)


def epochs(pairs: int, rounds: int = 4) -> float:
    """What a run takes after the towers, but for misalignment, in epochs over the pairs."""
    self_influence = SELF_INFLUENCE_EPOCHS["exact" if pairs <= EXACT_SELF_INFLUENCE else "probes"]
    of_rounds = (FIT_EPOCHS + SOLVE_EPOCHS + SCORE_EPOCHS) * rounds / MEASURED_ROUNDS
    return of_rounds + self_influence + SAMPLED_EPOCH_PAIRS / pairs


def epoch_flop(dims: tuple[int, int, int], batch: int) -> float:
    """Of a pair: forward and backward of two projections, and three products of a row of S.

    Args:
        dims: D, F_image, F_text
        batch: B
    """
    dim, image_dim, text_dim = dims
    return 2 * (2 * dim * (image_dim + text_dim) + 3 * batch * dim)


def scoring_seconds(pairs: int, dims: tuple[int, int, int], batch: int, rounds: int = 4, device: str = "cpu") -> float:
    """What a run takes after the towers, by the clock of a device that does nothing else.

    Right within a factor of two where the fit comes to rest in eight Newton steps, as it was measured; a fit that takes
    all of its thirty takes four times as long.

    Args:
        pairs: N
        dims: D, F_image, F_text
        batch: B
        rounds: of batches
        device: "cpu", "cuda:0", ...

    Returns:
        seconds (docs/scale.md)
    """
    epoch = pairs * epoch_flop(dims, min(batch, pairs)) / (EPOCH_EFFICIENCY * product_speed(device))
    return epoch * epochs(pairs, rounds)


def _transformer(tower: dict[str, Any], tokens: int) -> tuple[float, float]:
    """Products and weights of a transformer's layers."""
    weights = 12 * tower["layers"] * tower["width"] ** 2
    return weights * tokens + tower["layers"] * 2 * tokens**2 * tower["width"], weights


def _resnet(tower: dict[str, Any], side: int, outputs: int) -> tuple[float, float]:
    """Products and weights of CLIP's ResNet: three 3×3 convolutions, bottlenecks, and attention that pools.

    A bottleneck's last convolution runs at half the side where it is its stage's first, but not in the first stage.
    """
    width, products, weights = tower["width"], 0.0, 0.0

    def convolve(inputs: int, outputs: int, kernel: int = 1) -> None:
        nonlocal products, weights
        count = kernel**2 * inputs * outputs
        products, weights = products + side**2 * count, weights + count

    side //= 2
    for inputs, into in ((3, width // 2), (width // 2, width // 2), (width // 2, width)):
        convolve(inputs, into, 3)
    side, inputs = side // 2, width
    for stage, blocks in enumerate(tower["layers"]):
        planes = width * 2**stage
        for block in range(blocks):
            convolve(inputs, planes)
            convolve(planes, planes, 3)
            if block == 0:
                side //= 1 if stage == 0 else 2
                convolve(inputs, 4 * planes)  # the shortcut
            convolve(planes, 4 * planes)
            inputs = 4 * planes
    pooling, tokens = 3 * inputs**2 + inputs * outputs, side**2 + 1
    return products + tokens * pooling + 2 * tokens**2 * inputs, weights + pooling


@functools.cache
def product_speed(device: str = "cpu") -> float:
    """FLOP per second of a matrix product on a device of this machine; takes about a tenth of a second, once."""
    import torch

    left = torch.rand(SIZE, SIZE, device=device)
    (left @ left).sum().item()  # the first one starts the threads
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        (left @ left)[0, 0].item()  # waits for the device
        rounds += 1
    return rounds * 2 * SIZE**3 / (time.perf_counter() - started)
