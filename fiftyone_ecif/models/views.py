"""A model seen through mild changes of its images: what it says of those that it has learnt by heart."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional

from fiftyone_ecif.models.contrastive import ContrastiveModel

SHIFT = 1 / 32
"""Share of an image's side that it is moved by."""

SHRUNK = 0.9
"""Share of its side that an image is shrunk to."""


def shifted(images: Tensor, towards: int) -> Tensor:
    """Images (B, 3, H, W) moved a little along the diagonal, +1 or −1; the border is repeated."""
    height, width = images.shape[-2:]
    by = max(1, round(SHIFT * height))
    start = by + towards * by
    return functional.pad(images, (by,) * 4, mode="replicate")[..., start : start + height, start : start + width]


def shrunk(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) made a little smaller; the border is repeated."""
    height, width = images.shape[-2:]
    inner = [round(SHRUNK * side) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    small = functional.interpolate(images.float(), size=inner, mode="bilinear", antialias=True)
    border = (left, width - inner[1] - left, top, height - inner[0] - top)
    return functional.pad(small, border, mode="replicate").to(images.dtype)


VIEWS = (lambda images: shifted(images, 1), lambda images: shifted(images, -1), shrunk)
"""Changes that keep what an image shows, writing included: nothing is mirrored or turned."""


class ViewAveraged(ContrastiveModel):
    """A model whose image features are the mean over mild views of the image; texts as they are.

    Where a model has learnt wrong captions by heart, it knows them by the very pixels: moved or shrunk a little, an
    image gets a caption that belongs to it (docs/detection.md).

    Args:
        base: the model
    """

    def __init__(self, base: ContrastiveModel) -> None:
        super().__init__(base.model, base.preprocess, base.tokenizer, base.name, base.pretrained)
        self.base = base

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits, other than those of the model alone."""
        return hashlib.sha256(f"{self.base.fingerprint} {len(VIEWS)} views {SHIFT} {SHRUNK}".encode()).hexdigest()

    def image_features(self, images: Tensor) -> Tensor:
        """The mean over views of what the image projection is given.

        Args:
            images: (B, 3, H, W), preprocessed

        Returns:
            (B, F_image), float32, on the model's device
        """
        return torch.stack([self.base.image_features(view(images)) for view in VIEWS]).mean(0)
