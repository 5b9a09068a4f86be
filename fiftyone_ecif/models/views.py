"""A model seen through mild changes of its images: what it says of those that it has learnt by heart."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional

from fiftyone_ecif.models.contrastive import ContrastiveModel

CROPPED = 0.9
"""Share of an image's side that its centre crop keeps."""

SHIFT = 1 / 32
"""Share of an image's side that it is moved by."""


def mirrored(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) with left and right exchanged."""
    return images.flip(-1)


def shifted(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) moved a little to the right and upwards; the border is repeated."""
    height, width = images.shape[-2:]
    by = max(1, round(SHIFT * height))
    padded = functional.pad(images, (by, by, by, by), mode="replicate")
    return padded[..., 2 * by : 2 * by + height, :width]


def cropped(images: Tensor) -> Tensor:
    """The centre of images (B, 3, H, W), as large as the whole."""
    height, width = images.shape[-2:]
    kept = [round(CROPPED * side) for side in (height, width)]
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    centre = images[..., top : top + kept[0], left : left + kept[1]].float()
    resized = functional.interpolate(centre, size=(height, width), mode="bilinear", antialias=True)
    return resized.to(images.dtype)


VIEWS = (mirrored, lambda images: shifted(mirrored(images)), cropped)


class ViewAveraged(ContrastiveModel):
    """A model whose image features are the mean over mild views of the image; texts as they are.

    Where a model has learnt wrong captions by heart, it knows them by the very pixels: a mirrored, moved or cropped
    image gets the caption that belongs to it (docs/detection.md).

    Args:
        base: the model
    """

    def __init__(self, base: ContrastiveModel) -> None:
        super().__init__(base.model, base.preprocess, base.tokenizer, base.name, base.pretrained)
        self.base = base

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits, other than those of the model alone."""
        return hashlib.sha256(f"{self.base.fingerprint} {len(VIEWS)} views {CROPPED} {SHIFT}".encode()).hexdigest()

    def image_features(self, images: Tensor) -> Tensor:
        """The mean over views of what the image projection is given.

        Args:
            images: (B, 3, H, W), preprocessed

        Returns:
            (B, F_image), float32, on the model's device
        """
        return torch.stack([self.base.image_features(view(images)) for view in VIEWS]).mean(0)
