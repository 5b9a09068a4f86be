"""The vectors of a shift run: by a model's towers and text encoders through the feature store, or from fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fiftyone_ecif.cache import cache_folder
from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.device import device_here
from fiftyone_ecif.dataset.shift.read import Taken, check_some_left
from fiftyone_ecif.dataset.shift.request import PUBLISHED, ShiftRequest
from fiftyone_ecif.features import ArrayPairs, PairRow, StoredPairs, embed_pairs, features_folder, stored_embeddings
from fiftyone_ecif.features.texts import TextEncoder, embed_texts
from fiftyone_ecif.models import ContrastiveModel, load_model
from fiftyone_ecif.models.encoders import (
    PUBLISHED_IMAGES,
    PUBLISHED_TEXTS,
    GivenEncoder,
    PatchMean,
    TokenMean,
)
from fiftyone_ecif.shift import Side, Vectors

ANY_CAPTION = "an image"
"""What stands beside an image whose text is not asked about."""


class StoredVectors:
    """Embeddings of one kind out of stored pairs; :class:`~fiftyone_ecif.shift.Vectors`.

    Args:
        pairs: the pairs
        rows: int64 (N,), which of them
        side: 0 for their images, 1 for their texts
        weight: (D, F), of the projection; None for none
    """

    def __init__(self, pairs: StoredPairs | ArrayPairs, rows: Tensor, side: int, weight: Tensor | None) -> None:
        self.pairs, self.rows, self.side, self.weight = pairs, rows, side, weight
        width = (pairs.image_dim, pairs.text_dim)[side]
        self.dim = width if weight is None else weight.shape[0]

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Tensor) -> Tensor:
        features = self.pairs.gather(self.rows[index])[self.side]
        return features if self.weight is None else features @ self.weight.T


@dataclass(frozen=True)
class Source:
    """Where the vectors of a role come from.

    Attributes:
        pairs: the pairs
        side: 0 for their images, 1 for their texts
        weight: of the projection; None for none
    """

    pairs: StoredPairs | ArrayPairs
    side: int
    weight: Tensor | None

    def of(self, ids: Sequence[str]) -> StoredVectors:
        """The vectors of some samples."""
        place = {id: row for row, id in enumerate(self.pairs.ids)}
        return StoredVectors(self.pairs, torch.tensor([place[id] for id in ids]), self.side, self.weight)


@dataclass(frozen=True)
class Encoders:
    """What embeds images and texts.

    Attributes:
        model: for images, and for texts where there is no encoder of their own; None where fields hold all vectors
        texts: the text encoder; None for the model's text tower
    """

    model: ContrastiveModel | None
    texts: TextEncoder | None

    @property
    def titles(self) -> dict[str, str | None]:
        """Their names, for people."""
        return {
            "model": None if self.model is None else self.model.title,
            "text_encoder": None if self.texts is None else self.texts.title,
        }


def encoders(request: ShiftRequest) -> Encoders:
    """Load the encoders that are asked for; none where fields hold what they would give.

    Raises:
        ValueError: if there is no such model or encoder
    """
    encoded, given = set(request.roles) - set(request.vectors), request.text_encoder
    device = device_here("local", request.device)
    if encoded and isinstance(request.model, str) and request.model == PUBLISHED:
        if given is not None or request.pretrained is not None:
            raise ValueError(f"{PUBLISHED!r} names both encoders and their weights: pass no others with it.")
        images = PatchMean(load_model(*PUBLISHED_IMAGES, device)) if "image" in encoded else None
        texts = TokenMean(PUBLISHED_TEXTS, "embedding", device) if encoded - {"image"} else None
        return Encoders(images, texts)
    of_texts: TextEncoder | None = None
    if given is not None and encoded - {"image"}:
        of_texts = TokenMean(given, device=device) if isinstance(given, str) else GivenEncoder(given)
    if not encoded or (of_texts is not None and "image" not in encoded):
        return Encoders(None, of_texts)
    model = request.model
    return Encoders(
        model if isinstance(model, ContrastiveModel) else load_model(model, request.weights, device), of_texts
    )


def embed(taken: Taken, roles: Sequence[str], used: Encoders, report: Progress) -> dict[str, Source]:
    """The vectors of each role; samples that lack one are added to what is skipped.

    Args:
        taken: the snapshot
        roles: that are compared
        used: the encoders
        report: called as the work goes on

    Raises:
        ValueError: if too few samples are left
    """
    found = {}
    for role in roles:
        ids = taken.usable()
        if role in taken.vectors:
            found[role] = _from_field(taken, role, ids)
        elif role == "image":
            found[role] = _images(taken, ids, used, report)
        else:
            found[role] = _texts(taken, role, ids, used, report)
        for id, reason in found[role].pairs.skipped.items():
            taken.skipped.setdefault(id, reason.replace("caption", role) if role != "image" else reason)
    check_some_left(taken)
    return found


def side_of(ids: Sequence[str], sources: Mapping[str, Source], training: Tensor | None = None) -> Side:
    """The vectors of a set, and which of its samples the estimator was trained on."""
    vectors: dict[str, Vectors] = {role: source.of(ids) for role, source in sources.items()}
    return Side(vectors, training)


def _from_field(taken: Taken, role: str, ids: Sequence[str]) -> Source:
    vectors = [taken.vectors[role][id] for id in ids]
    pairs = stored_embeddings(ids, vectors, [[1.0]] * len(ids))
    pairs.skipped = {id: reason.replace("image", role) for id, reason in pairs.skipped.items()}
    return Source(pairs, 0, None)


def _images(taken: Taken, ids: Sequence[str], used: Encoders, report: Progress) -> Source:
    assert used.model is not None
    rows = [PairRow(id, taken.filepaths[id], ANY_CAPTION) for id in ids]
    pairs = embed_pairs(used.model, rows, features_folder(), progress=_step(report, "Embed images"))
    return Source(pairs, 0, used.model.head().image_weight)


def _texts(taken: Taken, role: str, ids: Sequence[str], used: Encoders, report: Progress) -> Source:
    step, folder = _step(report, f"Embed {role}"), features_folder()
    if used.texts is not None:
        rows = [PairRow(id, "", taken.texts[role][id]) for id in ids]
        return Source(embed_texts(used.texts, rows, folder, step), 1, None)
    assert used.model is not None
    blank = str(_blank_image())
    rows = [PairRow(id, blank, taken.texts[role][id]) for id in ids]
    return Source(embed_pairs(used.model, rows, folder, progress=step), 1, used.model.head().text_weight)


def _blank_image() -> Path:
    """An image that stands beside a text whose image is not asked about: it is embedded once."""
    path = cache_folder("contents") / "blank.png"
    if not path.exists():
        part = path.with_suffix(".part")
        Image.new("RGB", (32, 32), "white").save(part, format="PNG")
        part.replace(path)
    return path


def _step(report: Progress, step: str) -> Callable[[int, int], None]:
    return lambda done, total: report(step, done, total)
