"""Batched forward passes of a model's two towers over image files and captions."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fiftyone_ecif.core import Head
from fiftyone_ecif.features.batch_size import fastest_batch_size
from fiftyone_ecif.features.content import content_of, image_key
from fiftyone_ecif.features.reading import Marks, PairRow, UnreadablePair, decode, opened

if TYPE_CHECKING:  # open_clip takes long to import, and a worker of a cluster may never need it
    from fiftyone_ecif.models.contrastive import ContrastiveModel, Preprocess

WORTH_WORKERS = 256
"""Images below which starting worker processes takes longer than decoding."""

MOST_WORKERS = {"cpu": 4, "cuda": 16}
"""Processes that decode images unless somebody says how many: a GPU takes images faster than a CPU's towers do."""

CHANGED = "image file was changed while it was embedded, or is another one on this node of the cluster"

WORDLESS = "caption has no word that the model's tokenizer keeps"


class Towers:
    """The towers of a model.

    Args:
        model: the model
        head: its head
        fingerprint: its fingerprint
        batch_size: images or captions per forward pass; None for the fastest
        num_workers: processes that decode images; None to choose
        images: how many images there are about
    """

    def __init__(
        self,
        model: ContrastiveModel,
        head: Head,
        fingerprint: str,
        batch_size: int | None,
        num_workers: int | None,
        images: int,
    ) -> None:
        self.model, self.head, self.fingerprint = model, head.to(model.device), fingerprint
        self.asked, self.num_workers, self.count = batch_size, num_workers, images

    @cached_property
    def batch_size(self) -> int:
        """The batch size that was asked for, or else the fastest one on the model's device."""
        if self.asked:
            return self.asked
        image = self.model.preprocess(Image.new("RGB", (256, 256)))

        def forward(size: int) -> Tensor:
            batch = image.expand(size, *image.shape).to(self.model.device)
            with self._autocast():
                return self.model.image_features(batch).cpu()

        return fastest_batch_size(self.fingerprint, self.model.device, forward, self.count)

    def images(self, wanted: dict[bytes, PairRow]) -> Iterator[tuple[bytes, tuple[Tensor | UnreadablePair, Marks]]]:
        """Features of images.

        Args:
            wanted: a row with each image, by the image's key (:func:`~fiftyone_ecif.features.content.image_key`)

        Returns:
            pairs (key, (feature or fault, the file's marks))
        """
        device = self.model.device
        loader = DataLoader(
            _Decoding(wanted, self.model.preprocess),
            batch_size=self.batch_size,
            num_workers=_default_workers(len(wanted), device.type) if self.num_workers is None else self.num_workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
        )
        for keys, batch, marks, faults in loader:
            yield from ((key, (UnreadablePair(reason), Marks())) for key, reason in faults)
            if batch is not None:
                features = self._features(self.model.image_features, batch.to(device, non_blocking=True))
                checked = self._checked(features, self.head.image_weight, "image")
                yield from zip(keys, zip(checked, marks, strict=True), strict=True)

    def captions(self, texts: list[str]) -> Iterator[tuple[str, tuple[Tensor | UnreadablePair, bool]]]:
        """Pairs (caption, (feature or fault, whether it was cut)), one for each caption."""
        empty = self.model.tokenize([""])
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            tokens = self.model.tokenize(batch)
            features = self._features(self.model.text_features, tokens.to(self.model.device))
            checked = self._checked(features, self.head.text_weight, "caption")
            for row in (tokens == empty).all(dim=1).nonzero().flatten().tolist():
                checked[row] = UnreadablePair(WORDLESS)
            yield from zip(batch, zip(checked, self.model.truncated(batch, tokens).tolist(), strict=True), strict=True)

    def _features(self, tower: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """A tower's features of a batch on its device; where float16 overflows, in the precision of its weights."""
        features = self._fitting(tower, batch)
        overflown = ~features.isfinite().all(dim=1)
        if self._casts and overflown.any():
            features[overflown] = tower(batch[overflown])
        return features

    def _fitting(self, tower: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """A tower's features of a batch, in halves where the memory that is free does not suffice for all of it."""
        try:
            with self._autocast():
                return tower(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside of the handler, since the error holds on to what was computed.
        torch.cuda.empty_cache()
        return torch.cat([self._fitting(tower, half) for half in batch.chunk(2)])

    @property
    def _casts(self) -> bool:
        """Whether float32 weights are multiplied in float16."""
        weights = self.model.model.get_parameter("logit_scale")
        return weights.is_cuda and weights.dtype == torch.float32

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.float16) if self._casts else nullcontext()

    @staticmethod
    def _checked(features: Tensor, weight: Tensor, kind: str) -> list[Tensor | UnreadablePair]:
        """The rows on the CPU, with a fault in place of each whose embedding has no direction."""
        finite = features.isfinite().all(dim=1).tolist()
        nonzero = (features @ weight.T != 0).any(dim=1).tolist()
        return [
            UnreadablePair(f"{kind} features are not finite")
            if not finite[row]
            else feature
            if nonzero[row]
            else UnreadablePair(f"{kind} embedding is all zeros")
            for row, feature in enumerate(features.cpu())
        ]


_Decoded = tuple[bytes, "Tensor | str", Marks]
"""An image's key, the preprocessed image or the reason why there is none, and the marks of its file."""


class _Decoding(Dataset[_Decoded]):
    """Preprocessed images; runs in the loader's workers."""

    def __init__(self, wanted: dict[bytes, PairRow], preprocess: Preprocess) -> None:
        self.wanted, self.preprocess = list(wanted.items()), preprocess

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> _Decoded:
        key, row = self.wanted[index]
        try:
            with opened(row.filepath) as file:
                if image_key(content_of(file), row.apply_orientation) != key:
                    return key, CHANGED, Marks()
                image, marks = decode(file, row.apply_orientation)
        except UnreadablePair as fault:
            return key, fault.reason, Marks()
        except OSError as error:
            return key, f"image file cannot be read ({error.strerror})", Marks()
        try:
            return key, self.preprocess(image), marks
        # The transform is the model's or the user's own; what it refuses is a fault of this one image.
        except Exception as error:
            return key, f"image cannot be preprocessed ({error})", Marks()


def _collate(items: list[_Decoded]) -> tuple[list[bytes], Tensor | None, list[Marks], list[tuple[bytes, str]]]:
    """Keys, stacked images and marks of the good ones, and (key, reason) of the others."""
    faults = [(key, found) for key, found, _ in items if isinstance(found, str)]
    good = [(key, found, marks) for key, found, marks in items if not isinstance(found, str)]
    images = torch.stack([image for _, image, _ in good]) if good else None
    return [key for key, _, _ in good], images, [marks for _, _, marks in good], faults


def _default_workers(images: int, device: str) -> int:
    # A daemonic process, such as a worker of a pool, may have no children.
    if images < WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(MOST_WORKERS.get(device, 4), os.cpu_count() or 1)
