"""Weakened images: the diffusion noise of bootstrapped preferences (Pi et al., arXiv 2403.08730)."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

STEPS = 1000
"""Steps of the schedule; published negatives take 500 to 900 of them."""

LEAST_BETA, MOST_BETA = 1e-5, 5e-3


def signal_shares() -> Tensor:
    """ᾱ_t = Π (1 − β) of each step, β rising by a sigmoid from 10⁻⁵ to .005.

    Returns:
        (1000,), float64: the share of the variance that is still the image's
    """
    rise = torch.linspace(-6.0, 6.0, STEPS, dtype=torch.float64).sigmoid()
    return (1.0 - (rise * (MOST_BETA - LEAST_BETA) + LEAST_BETA)).cumprod(0)


def weakened(pixels: Tensor, step: int, seed: int) -> Tensor:
    """x_t = √ᾱ_t x + √(1 − ᾱ_t) ε, on what a model sees.

    Args:
        pixels: a model's normalised pixel tensor of one image, any shape
        step: t, from 0 (which leaves the image as it is) to 999
        seed: of ε

    Returns:
        the same shape, dtype and device
    """
    if step == 0:
        return pixels
    share = float(signal_shares()[step])
    drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    noise = drawn.to(pixels.device, torch.float32)
    found: Tensor = share**0.5 * pixels.float() + (1.0 - share) ** 0.5 * noise
    return found.to(pixels.dtype)


def weakened_image(image: Image.Image, step: int, seed: int) -> Image.Image:
    """A weakened image as a picture, for a model that is reached by pictures alone.

    Its values are normalised to mean 0 and variance 1 by the means and deviations that CLIP has, and what the noise
    lifts above white or below black is cut off.
    """
    if step == 0:
        return image
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 255.0
    data = data.reshape(image.height, image.width, 3)
    mean, deviation = torch.tensor([0.481, 0.458, 0.408]), torch.tensor([0.269, 0.261, 0.276])
    noised = weakened((data - mean) / deviation, step, seed) * deviation + mean
    return Image.fromarray((noised.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy())
