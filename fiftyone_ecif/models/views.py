"""A model that sees mildly changed images, and so cannot recognise those that it has memorised."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional

from fiftyone_ecif.models.contrastive import ContrastiveModel

SHIFT = 1 / 32
"""How far an image is moved, as a share of its side."""

SHRUNK = 0.9
"""The side of a shrunk image, as a share of its side before."""


def shifted(images: Tensor, towards: int) -> Tensor:
    """Move images a little along the diagonal; the border is repeated.

    Args:
        images: (B, 3, H, W)
        towards: +1 or −1

    Returns:
        (B, 3, H, W)
    """
    height, width = images.shape[-2:]
    by = max(1, round(SHIFT * height))
    start = by + towards * by
    return functional.pad(images, (by,) * 4, mode="replicate")[..., start : start + height, start : start + width]


def shrunk(images: Tensor) -> Tensor:
    """Make the content of images (B, 3, H, W) a little smaller; the border is repeated."""
    height, width = images.shape[-2:]
    inner = [round(SHRUNK * side) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    small = functional.interpolate(images.float(), size=inner, mode="bilinear", antialias=True)
    border = (left, width - inner[1] - left, top, height - inner[0] - top)
    return functional.pad(small, border, mode="replicate").to(images.dtype)


VIEWS = (lambda images: shifted(images, 1), lambda images: shifted(images, -1), shrunk)
"""Changes that keep what an image shows. Nothing is mirrored or turned, so that writing stays legible."""


class ViewAveraged(ContrastiveModel):
    """A model whose image features are the mean over mild views of the image; text features do not change.

    A model that has memorised a wrong caption recognises the very pixels of its image. When the image is moved or
    shrunk a little, the model prefers a caption that belongs to it (docs/detection.md).

    Args:
        base: the model
    """

    def __init__(self, base: ContrastiveModel) -> None:
        super().__init__(base.model, base.preprocess, base.tokenizer, base.name, base.pretrained, base.config)
        self.base = base

    @property
    def title(self) -> str:
        """The model's, and that these are views."""
        return f"{self.base.title}, mild views of the images"

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ from those of the model itself."""
        return hashlib.sha256(f"{self.base.fingerprint} {len(VIEWS)} views {SHIFT} {SHRUNK}".encode()).hexdigest()

    def image_features(self, images: Tensor) -> Tensor:
        """The mean over views of the image projection's input.

        Args:
            images: (B, 3, H, W), preprocessed

        Returns:
            (B, F_image), float32, on the model's device
        """
        return torch.stack([self.base.image_features(view(images)) for view in VIEWS]).mean(0)
