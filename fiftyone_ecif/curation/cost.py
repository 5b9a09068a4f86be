"""What embedding will cost on this machine, before it is begun: arithmetic over the measured speed of a product."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

EFFICIENCY = 0.75
"""Share of a plain matrix product's speed that transformer towers reach.

Measured on two CPU cores at 155 GFLOP/s: ViT-B-32 took 14 images/s (.78) and 19 captions/s (.73), one at a time.
"""

FLOAT_BYTES = 4
SIZE = 1024


@dataclass(frozen=True)
class Cost:
    """What it takes to embed pairs.

    Attributes:
        seconds: on the CPU
        model_bytes: memory of the towers' weights
        feature_bytes: memory and disk of the pairs' features
    """

    seconds: float
    model_bytes: float
    feature_bytes: float


def embedding_cost(pairs: int, model: str) -> Cost | None:
    """What embedding pairs costs on this machine's CPU.

    A transformer layer of width w multiplies, for T tokens, 12 w² T + 2 T² w numbers; each costs 2 FLOP.

    Args:
        pairs: how many
        model: open_clip's name of it

    Returns:
        :class:`Cost`; None for architectures that are no plain transformers, whose cost is not known beforehand
    """
    import open_clip

    settings = open_clip.get_model_config(model)
    if settings is None:
        return None
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if not isinstance(vision.get("layers"), int) or not vision.get("patch_size") or "width" not in text:
        return None
    size = vision.get("image_size", 224)
    tokens = ((size[0] if isinstance(size, (list, tuple)) else size) // vision["patch_size"]) ** 2 + 1
    towers = [(vision, tokens), (text, text.get("context_length", 77))]
    products = sum(_products(tower, count) for tower, count in towers)
    weights = sum(12 * tower["layers"] * tower["width"] ** 2 for tower, _ in towers)
    weights += text.get("vocab_size", 49408) * text["width"]
    return Cost(
        pairs * 2 * products / (EFFICIENCY * product_speed()),
        weights * FLOAT_BYTES,
        pairs * (vision["width"] + text["width"]) * FLOAT_BYTES,
    )


def _products(tower: dict[str, Any], tokens: int) -> float:
    width = tower["width"]
    return tower["layers"] * (12 * width**2 * tokens + 2 * tokens**2 * width)


@functools.cache
def product_speed() -> float:
    """FLOP per second of a matrix product on this machine's CPU; takes about a tenth of a second, once."""
    import torch

    left = torch.rand(SIZE, SIZE)
    left @ left  # the first one starts the threads
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        left @ left
        rounds += 1
    return rounds * 2 * SIZE**3 / (time.perf_counter() - started)
