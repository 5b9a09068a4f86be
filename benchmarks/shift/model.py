"""A model whose accuracy is known: it answers with the caption of a gallery that is nearest to image and query."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.data.pairs import PairTable
from benchmarks.models import lite0_minilm
from benchmarks.models.sentence_encoder import encoder_folder
from benchmarks.shift.corruptions import TEXT_SHIFTS, shifted_image
from benchmarks.shift.tasks import Items, Task
from fiftyone_ecif.core import Head
from fiftyone_ecif.features import cache_folder
from fiftyone_ecif.models.encoders import TokenMean
from fiftyone_ecif.shift import Side, TensorVectors

BATCH = 50


@dataclass(frozen=True)
class Seen:
    """Items as a model sees them and answers.

    Attributes:
        image: (N, 384) embeddings
        query: likewise
        response: of its answers
        reference: of the right ones
        accuracy: share of right answers
    """

    image: Tensor
    query: Tensor
    response: Tensor
    reference: Tensor
    accuracy: float

    def side(self, training: Tensor | None = None) -> Side:
        """The items as one side of a shift."""
        names = ("image", "query", "response", "reference")
        return Side({name: TensorVectors(getattr(self, name)) for name in names}, training)


class Model:
    """``lite0-minilm`` fitted on a part of every task.

    Args:
        fitted_on: the tasks
    """

    def __init__(self, fitted_on: Sequence[Task]) -> None:
        self.fitted_on = list(fitted_on)

    @cached_property
    def head(self) -> Head:
        """Its projections; trained now unless the cache has them."""
        table: PairTable = self.fitted_on[0].fit
        for each in self.fitted_on[1:]:
            table = table + each.fit
        return lite0_minilm.trained_head(table, progress=False)

    def sees(
        self,
        items: Items,
        image_shift: tuple[str, int] = ("", 0),
        text_shift: tuple[str, int] = ("", 0),
        seed: int = 0,
    ) -> Seen:
        """Items under a shift of their images and of their queries, each a kind and a severity; 0 for none."""
        features = image_features(items.filepaths, *image_shift, seed=seed)
        image = normalize(features @ self.head.image_weight.T, dim=1)
        kind, severity = text_shift
        shift: Callable[[str, int, int], str] = TEXT_SHIFTS.get(kind, lambda text, severity, seed: text)
        query = self.texts([shift(text, severity, seed) for text in items.queries])
        gallery = list(dict.fromkeys(items.references))
        known = self.texts(gallery)
        captions = normalize(text_embeddings(gallery) @ self.head.text_weight.T, dim=1)
        chosen = (image @ captions.T + query @ known.T).argmax(1).tolist()
        right = [gallery[row] == reference for row, reference in zip(chosen, items.references)]
        return Seen(image, query, known[chosen], self.texts(items.references), float(np.mean(right)))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings of the sentence encoder."""
        return normalize(text_embeddings(texts), dim=1)


@torch.no_grad()
def image_features(filepaths: Sequence[str], kind: str = "", severity: int = 0, seed: int = 0) -> Tensor:
    """Features of shifted images, (N, 1281) float32, from the cache where they were computed before."""
    if severity == 0:
        return lite0_minilm.image_features(filepaths)

    def compute() -> Tensor:
        model, found = lite0_minilm.untrained_model(), []
        for start in range(0, len(filepaths), BATCH):
            rows = enumerate(filepaths[start : start + BATCH], start=start)
            images = [shifted_image(file, kind, severity, seed + row) for row, file in rows]
            found.append(model.image_features(torch.stack([model.preprocess(image) for image in images])))
        return torch.cat(found)

    return cached((list(filepaths), kind, severity, seed), compute)


@lru_cache(maxsize=1)
def sentence_encoder() -> TokenMean:
    """MiniLM, which reads as many tokens as a text has."""
    return TokenMean(str(encoder_folder()))


def text_embeddings(texts: Sequence[str]) -> Tensor:
    """The sentence encoder's means over tokens, (N, 384), from the cache where they were computed before."""
    encoder = sentence_encoder()

    def compute() -> Tensor:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of one length need no padding
        parts = [order[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        found = torch.cat([encoder.encode([texts[row] for row in part]) for part in parts])
        return found[torch.tensor(order).argsort()]

    return cached((encoder.fingerprint, list(texts)), compute)


def cached(about: object, compute: Callable[[], Tensor]) -> Tensor:
    """A tensor from the cache, computed now unless it is there; ``about`` says what it is of."""
    path = cache_folder("shift") / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.npy"
    if not path.exists():
        part = path.with_name(f"{path.stem}.{os.getpid()}.part.npy")
        np.save(part, compute().numpy())
        os.replace(part, path)
    return torch.from_numpy(np.load(path))
