"""How well texts fit images by a contrastive model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch.nn.functional import normalize

from fiftyone_ecif.models import ContrastiveModel
from fiftyone_ecif.preference.noise import weakened


class ClipFit:
    """A judge of texts: logit scale times cosine, in nats.

    Args:
        model: the contrastive model
    """

    def __init__(self, model: ContrastiveModel) -> None:
        self.model, self.head, self.fingerprint = model, model.head(), model.fingerprint
        self.title = model.title

    @torch.no_grad()
    def fit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        texts: Sequence[str],
        steps: Sequence[int],
        seeds: Sequence[int],
    ) -> list[float]:
        """Nats by which each weakened image speaks for its text; prompts do not matter."""
        pixels = [self.model.preprocess(image) for image in images]
        seen = torch.stack([weakened(*each) for each in zip(pixels, steps, seeds, strict=True)])
        image = normalize(self.model.image_features(seen).cpu() @ self.head.image_weight.T, dim=1)
        return self._nats(image, texts)

    @torch.no_grad()
    def of(self, image: Image.Image, texts: Sequence[str]) -> list[float]:
        """Nats by which an image speaks for each of several texts."""
        features = self.model.image_features(self.model.preprocess(image)[None])
        return self._nats(normalize(features.cpu() @ self.head.image_weight.T, dim=1), texts)

    def _nats(self, image: torch.Tensor, texts: Sequence[str]) -> list[float]:
        text = self.model.text_features(self.model.tokenize(list(texts))).cpu() @ self.head.text_weight.T
        found: list[float] = (float(self.head.logit_scale.exp()) * (image * normalize(text, dim=1)).sum(1)).tolist()
        return found
